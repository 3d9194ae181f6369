//! `org.belvedere.Applications`: which applications to run. Served by `applications`; called by the agent.
//! The same socket serves [`crate::logs::ReadLogs`].

use crate::{Done, Method};
use belvedere_device_protocol::{ApplicationReport, Deployment, NodeSignal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole set of application instances that should run, and how their packages can be fetched.
/// Kept durably: after a power cut the same applications run again without the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetDesired {
    /// What is missing is stopped and removed.
    pub deployments: Vec<DesiredDeployment>,
}

/// A deployment and the SHA-256 of the document it came in, which reports carry back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredDeployment {
    /// 64 hexadecimal digits; a change means a new deployment of the same instance.
    pub sha256: String,
    /// The document.
    pub deployment: Deployment,
    /// Camera nodes that were signalled; a change changes nothing else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signals: BTreeMap<String, NodeSignal>,
}
impl Method for SetDesired {
    const NAME: &'static str = "org.belvedere.Applications.SetDesired";
    type Reply = Done;
}

/// Short-lived access to the object store, renewed by the agent before it ends. Not kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetObjectAccess {
    /// `https://host:port`, path style.
    pub endpoint: String,
    /// The authority of that endpoint's certificate, PEM.
    pub ca_pem: String,
    /// Signing region.
    pub region: String,
    /// Access key.
    pub access_key_id: String,
    /// Never logged.
    pub secret_access_key: String,
    /// Session token.
    pub session_token: String,
    /// Seconds since 1970.
    pub expires: i64,
}
impl core::fmt::Debug for SetObjectAccess {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SetObjectAccess")
            .field("endpoint", &self.endpoint)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
impl Method for SetObjectAccess {
    const NAME: &'static str = "org.belvedere.Applications.SetObjectAccess";
    type Reply = Done;
}

/// How all applications are; what the agent reports upward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetReports {}
impl Method for GetReports {
    const NAME: &'static str = "org.belvedere.Applications.GetReports";
    type Reply = Reports;
}

/// All application instances that are desired or still being removed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reports {
    /// By instance identifier.
    pub applications: Vec<ApplicationReport>,
}
