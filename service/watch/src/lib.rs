//! What the service does by itself, from time to time: it writes the fleet's own metrics, looks at alarms, delivers what
//! they have to say, exports logs, and lets old things go.
//!
//! | module | one idea |
//! |---|---|
//! | [`statistics`] | datapoints of any resolution become values of a period (pure) |
//! | [`evaluation`] | values and a rule become a state (pure) |
//! | [`definition`] | what an alarm watches, and what it may be (pure) |
//! | [`message`] | a change of state in CloudWatch's words (pure) |
//! | [`alarms`] | alarms are put, looked at, and change |
//! | [`own_metrics`] | which devices are active, which applications have errors |
//! | [`delivery`] | the outbox is emptied: webhooks and mail |
//! | [`export`] | log groups become objects |
//! | [`run`] | the loops |

pub mod alarms;
pub mod definition;
pub mod delivery;
pub mod evaluation;
pub mod export;
pub mod message;
pub mod own_metrics;
pub mod run;
pub mod statistics;
mod text;

pub use run::{Settings, run};
