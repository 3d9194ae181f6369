//! `org.belvedere.FrontPanel`: what the lights should say. Served by `front-panel`.
//!
//! Callers state facts; which pattern wins is decided by one pure function in `formats/panel`.

use crate::{Done, Method};
use serde::{Deserialize, Serialize};

pub use belvedere_panel::{Condition, NetworkCondition};

/// Says that a fact holds, or holds no longer. Facts of one source replace only that source's facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetCondition {
    /// Who says so: the service's name.
    pub source: String,
    /// The fact.
    pub condition: Condition,
    /// Whether it holds now.
    pub active: bool,
}
impl Method for SetCondition {
    const NAME: &'static str = "org.belvedere.FrontPanel.SetCondition";
    type Reply = Done;
}

/// Says what the network light shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetNetwork {
    /// Who says so: `network` knows of cables, `agent` of the service. The most telling one wins.
    pub source: String,
    /// What it knows; `None` withdraws it.
    pub condition: Option<NetworkCondition>,
}
impl Method for SetNetwork {
    const NAME: &'static str = "org.belvedere.FrontPanel.SetNetwork";
    type Reply = Done;
}
