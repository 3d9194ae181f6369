//! `org.belvedere.Machine`: the machine as a whole. Served by `init`.

use crate::{Done, Method};
use serde::{Deserialize, Serialize};

/// Ends every service in order and starts the machine again. Answered before that begins; for the agent alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// One line for the console: who wants it, and why.
    pub why: String,
}
impl Method for Restart {
    const NAME: &'static str = "org.belvedere.Machine.Restart";
    type Reply = Done;
}
