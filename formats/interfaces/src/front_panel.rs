//! `org.belvedere.FrontPanel`: what the lights should say. Served by `front-panel`.
//!
//! Callers state facts; which pattern wins is decided by one pure function in `firmware/front-panel`.

use crate::{Done, Method};
use serde::{Deserialize, Serialize};

/// A fact that the status light may show (guide, "appliance buttons and lights").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The machine starts: fast green.
    Booting,
    /// Services are ready: solid green.
    Operating,
    /// Configuration is copied from the stick and the appliance registers: slow blue.
    Registering,
    /// A log image is copied to the stick: fast blue.
    CopyingLogs,
    /// Start-up failed, provisioning failed or the machine is too hot: fast red.
    Error,
    /// The latest software is restored: slow orange.
    RestoringLatest,
    /// The minimum software is restored: fast orange.
    RestoringMinimum,
}

/// What the network light may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkCondition {
    /// No cable: solid red.
    NoCable,
    /// Cable connected: solid green.
    Connected,
    /// Talking to the service: blinking green.
    Communicating,
}

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
