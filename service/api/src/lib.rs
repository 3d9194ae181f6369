//! The API: requests in AWS's forms, answered by the fleet and the store.
//!
//! A request's way: [`entry`] verifies its signature ([`sigv4`]) and finds out who calls ([`caller`]); the service's
//! name in the credential scope chooses [`panorama`], [`sts`], [`iam`], [`s3`], [`secrets_manager`],
//! [`cloudformation`], [`iot_data`], [`cloudwatch_logs`], [`cloudwatch`] or [`sns`], which reads it once ([`input`]);
//! [`access`] decides whether this caller may do this, about the same value that is then carried out. Each service has a
//! table of its operations ([`operation`]): which members each takes, and what is asked about them. ARNs are made in one
//! place ([`arn`]), from the settings. For Panorama a table
//! ([`panorama::operations`]) names method, path, input shape and handler of every operation; the input is checked
//! against its shape ([`model`]) in one place and only then becomes a typed value.

pub mod access;
pub mod answered;
pub mod arn;
pub mod audit;
pub mod bodies;
pub mod caller;
pub mod cloudformation;
pub mod cloudwatch;
pub mod cloudwatch_logs;
pub mod device;
pub mod entry;
pub mod form;
pub mod iam;
pub mod input;
pub mod iot_data;
pub mod limits;
pub mod model;
pub mod operation;
pub mod panorama;
pub mod query;
pub mod rates;
pub mod replay;
pub mod s3;
pub mod secrets_manager;
pub mod sigv4;
pub mod sns;
pub mod sts;
pub mod unknown;
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
    /// Who called what.
    pub audit: audit::Audit,
    pub(crate) rates: Arc<Rates>,
    pub(crate) counter: Counter,
    pub(crate) seen: Arc<replay::Seen>,
    pub(crate) bodies: bodies::Bodies,
}

impl Api {
    /// Where this service is.
    pub fn home(&self) -> arn::Home<'_> {
        arn::Home::from(&*self.fleet.settings)
    }

    /// An API over a fleet, with its audit log open.
    pub fn new(fleet: Fleet, limits: Limits) -> Api {
        let rates = Arc::new(Rates::new(&limits));
        let audit = audit::Audit::start(fleet.store.clone());
        tokio::spawn(s3::give_up_uploads(fleet.store.clone()));
        Api {
            fleet,
            limits: Arc::new(limits),
            audit,
            rates,
            counter: Counter::default(),
            seen: Arc::default(),
            bodies: bodies::Bodies::default(),
        }
    }
}
