//! Short-lived keys of a device. Nobody keeps them: the session token *is* the record, sealed with the service's key,
//! so any copy of the service can check it. It ends with its hour or with the certificate it was given for.

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

/// How long keys are good, seconds.
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
    pub device_id: String,
    /// Of the certificate it was given for.
    pub certificate: String,
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

impl Fleet {
    /// Whether a device may be given keys now, or asks too often.
    pub fn may_ask_for_credentials(&self, identity: &Identity) -> bool {
        self.asking.allows(&identity.device_id, Instant::now())
    }

    /// Keys for a device.
    pub fn issue_credentials(&self, identity: &Identity) -> Credentials {
        let expires = now_ms() / 1000 + LIFETIME_S;
        let session = Session {
            access_key_id: identifiers::access_key("ASIA"),
            secret: BASE64_STANDARD.encode(identifiers::random::<30>()),
            device_id: identity.device_id.clone(),
            certificate: identity.fingerprint.clone(),
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

    /// The session of a token, if it is one of ours, in time, and its certificate still stands.
    pub async fn session(&self, token: &str) -> Result<Option<Session>, FleetError> {
        let Ok(sealed) = BASE64_STANDARD.decode(token) else { return Ok(None) };
        let Ok(text) = self.store.secrets().unseal(PURPOSE, &sealed) else { return Ok(None) };
        let Ok(session) = serde_json::from_slice::<Session>(&text) else { return Ok(None) };
        let stands = session.expires > now_ms() / 1000
            && self.store.usable_certificate(&session.certificate).await?.is_some();
        Ok(stands.then_some(session))
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
