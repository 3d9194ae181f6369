//! The API: requests in AWS's forms, answered by the fleet and the store.
//!
//! A request's way: [`entry`] verifies its signature ([`sigv4`]) and finds out who calls ([`caller`]); the service's
//! name in the credential scope chooses [`panorama`], [`sts`], [`s3`], [`cloudwatch_logs`],
//! [`cloudwatch`] or [`sns`]. For Panorama a table
//! ([`panorama::operations`]) names method, path, input shape and handler of every operation; the input is checked
//! against its shape ([`model`]) in one place and only then becomes a typed value.

pub mod answered;
pub mod caller;
pub mod cloudwatch;
pub mod cloudwatch_logs;
pub mod device;
pub mod entry;
pub mod limits;
pub mod model;
pub mod panorama;
pub mod rates;
pub mod s3;
pub mod sigv4;
pub mod sns;
pub mod sts;
pub mod wire;
pub mod xml;

use belvedere_fleet::Fleet;
use limits::{Counter, Limits};
use rates::Rates;
use std::sync::Arc;

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// The fleet and its store.
    pub fleet: Fleet,
    /// How much there may be of everything.
    pub limits: Arc<Limits>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) counter: Counter,
}

impl Api {
    /// An API over a fleet.
    pub fn new(fleet: Fleet, limits: Limits) -> Api {
        let rates = Arc::new(Rates::new(&limits));
        Api { fleet, limits: Arc::new(limits), rates, counter: Counter::default() }
    }
}
