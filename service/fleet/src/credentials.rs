//! Short-lived keys. Nobody keeps them: the session token *is* the record, sealed with the service's key, so any copy
//! of the service can check it. Keys end with their time, and at once with what they were given for: a certificate, an
//! application instance, an access key. Whether a role still is what it was is the API's to ask.

use crate::identity::Identity;
use crate::pace::Pace;
use crate::{Fleet, FleetError};
use base64::{Engine, prelude::BASE64_STANDARD};
use belvedere_device_protocol::credentials::Credentials;
use belvedere_store::{identifiers, now_ms};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a device's keys are good, seconds.
pub const LIFETIME_S: i64 = 3600;
const PURPOSE: &str = "session token";

/// What a session token says.
#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    /// `ASIA…`.
    pub access_key_id: String,
    /// Never logged.
    pub secret: String,
    /// Whose.
    pub subject: Subject,
    /// Seconds since 1970.
    pub expires: i64,
}

/// How often a device may ask for keys, each good for an hour: once a second, and sixty times at once after a rest.
const ASKS_A_SECOND: u32 = 1;
const ASKS_AT_ONCE: Duration = Duration::from_secs(60);
/// Devices whose pace is remembered before those at rest are forgotten.
const REMEMBERED: usize = 1024;

/// How fast devices ask for keys.
#[derive(Default)]
pub(crate) struct Asking(Mutex<HashMap<String, Pace>>);

impl Asking {
    fn allows(&self, device_id: &str, now: Instant) -> bool {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= REMEMBERED {
            paces.retain(|_, pace| !pace.rested(now));
        }
        paces.entry(device_id.to_owned()).or_insert_with(|| Pace::with_burst(ASKS_A_SECOND, ASKS_AT_ONCE)).allows(now)
    }
}

/// Whose keys they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// An appliance's own.
    Device {
        /// `device-…`.
        device_id: String,
        /// Fingerprint of the certificate that they were given for.
        certificate: String,
    },
    /// A role's.
    Role {
        /// Name of the role.
        role: String,
        /// `AROA…`: a role that was deleted and made anew is another one.
        role_id: String,
        /// For the audit log.
        session_name: String,
        /// Who asked for them.
        origin: Origin,
    },
}

/// Who assumed a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Someone with an access key.
    AccessKey(String),
    /// A device, for an application instance that runs on it.
    ApplicationInstance {
        /// `device-…`.
        device_id: String,
        /// Fingerprint of its certificate.
        certificate: String,
        /// `applicationInstance-…`.
        application_instance_id: String,
        /// The role that the instance was created with.
        role_arn: String,
    },
}

impl Fleet {
    /// Whether a device may be given keys now, or asks too often.
    pub fn may_ask_for_credentials(&self, identity: &Identity) -> bool {
        self.asking.allows(&identity.device_id, Instant::now())
    }

    /// A device's own keys.
    pub fn issue_credentials(&self, identity: &Identity) -> Credentials {
        let subject = Subject::Device { device_id: identity.device_id.clone(), certificate: identity.fingerprint.clone() };
        self.issue_session(subject, LIFETIME_S)
    }

    /// Keys for `lifetime_s` seconds.
    pub fn issue_session(&self, subject: Subject, lifetime_s: i64) -> Credentials {
        let expires = now_ms() / 1000 + lifetime_s;
        let session = Session {
            access_key_id: identifiers::access_key("ASIA"),
            secret: BASE64_STANDARD.encode(identifiers::random::<30>()),
            subject,
            expires,
        };
        let text = serde_json::to_vec(&session).unwrap_or_default();
        Credentials {
            session_token: BASE64_STANDARD.encode(self.store.secrets().seal(PURPOSE, &text)),
            access_key_id: session.access_key_id,
            secret_access_key: session.secret,
            expiration: iso8601(expires),
        }
    }

    /// The session of a token, if it is one of ours, in time, and what it was given for still stands.
    pub async fn session(&self, token: &str) -> Result<Option<Session>, FleetError> {
        let Ok(sealed) = BASE64_STANDARD.decode(token) else { return Ok(None) };
        let Ok(text) = self.store.secrets().unseal(PURPOSE, &sealed) else { return Ok(None) };
        let Ok(session) = serde_json::from_slice::<Session>(&text) else { return Ok(None) };
        let stands = session.expires > now_ms() / 1000 && self.stands(&session.subject).await?;
        Ok(stands.then_some(session))
    }

    async fn stands(&self, subject: &Subject) -> Result<bool, FleetError> {
        match subject {
            Subject::Device { certificate, .. } => Ok(self.store.usable_certificate(certificate).await?.is_some()),
            Subject::Role { origin: Origin::AccessKey(id), .. } => Ok(self.store.access_key_secret(id).await?.is_some()),
            Subject::Role {
                origin: Origin::ApplicationInstance { device_id, certificate, application_instance_id, role_arn },
                ..
            } => Ok(self.store.usable_certificate(certificate).await?.is_some()
                && self.role_of_instance(device_id, application_instance_id).await?.as_ref() == Some(role_arn)),
        }
    }

    /// The role of an application instance that a device should run; `None` if it should not, or has no role.
    pub async fn role_of_instance(&self, device_id: &str, id: &str) -> Result<Option<String>, FleetError> {
        let found = self.store.application_instance(id).await?;
        Ok(found.filter(|i| i.device_id == device_id && !i.removed).and_then(|i| i.role_arn))
    }
}

fn iso8601(seconds: i64) -> String {
    let t = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (t.date(), t.time());
    let month = u8::from(date.month());
    let (h, m, s) = clock.as_hms();
    format!("{:04}-{month:02}-{:02}T{h:02}:{m:02}:{s:02}Z", date.year(), date.day())
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_iso_8601() {
        assert_eq!(super::iso8601(1_795_348_800), "2026-11-22T12:00:00Z");
    }
}
