//! `service.json`: what `init` decided once and `serve` needs every time.

use crate::ServerError;
use crate::backends::{Backends, of_another_service};
use crate::history::History;
use belvedere_api::limits::Limits;
use belvedere_store::metrics::Retention;
use belvedere_store::{Store, StoreError};
use belvedere_watch::delivery::mail::MailServer;
use belvedere_watch::delivery::targets::PrivateAddresses;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name in the data directory.
pub const FILE: &str = "service.json";

/// What a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Twelve digits.
    pub account: String,
    /// Region in which appliances sign.
    pub region: String,
    /// The one bucket.
    pub bucket: String,
    /// Key directory (`belvedere-keys init`).
    pub keys: PathBuf,
    /// Further names and addresses of the service's certificate.
    pub names: Vec<String>,
    /// Where rows and objects are.
    #[serde(default)]
    pub backends: Backends,
    /// Quotas and rates; the guide's where nothing is said.
    #[serde(default)]
    pub limits: Limits,
    /// How long what has ended is remembered.
    #[serde(default)]
    pub history: History,
    /// How alarms reach people.
    #[serde(default)]
    pub notifications: Notifications,
    /// How long metrics are kept.
    #[serde(default)]
    pub metrics: MetricDays,
}

/// How alarms reach people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notifications {
    /// The mail server; without one, mail waits and is given up in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailServer>,
    /// PEM file of authorities that mail servers and webhooks may have their certificates from, beside the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
    /// Whether webhooks may lead to addresses of private networks and of this machine.
    #[serde(default)]
    pub private_addresses: PrivateAddresses,
}

/// How many days metrics are kept in each resolution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricDays {
    /// Minutes.
    pub minutes: u32,
    /// Five minutes.
    pub five_minutes: u32,
    /// Hours.
    pub hours: u32,
}

impl Default for MetricDays {
    /// CloudWatch's.
    fn default() -> MetricDays {
        MetricDays { minutes: 15, five_minutes: 63, hours: 455 }
    }
}

impl MetricDays {
    /// As the store has it; longer for the coarser if they were not in order.
    pub fn retention(&self) -> Retention {
        const DAY: i64 = 24 * 3600 * 1000;
        let minutes_ms = i64::from(self.minutes.max(1)) * DAY;
        let five_minutes_ms = (i64::from(self.five_minutes) * DAY).max(minutes_ms);
        Retention { minutes_ms, five_minutes_ms, hours_ms: (i64::from(self.hours) * DAY).max(five_minutes_ms) }
    }
}

impl Configuration {
    /// Reads it.
    pub fn read(data: &Path) -> Result<Configuration, ServerError> {
        let path = data.join(FILE);
        let bad = |detail: String| ServerError::Configuration { path: path.clone(), detail };
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let missing =
                    if data.is_dir() { format!("{FILE} is not there") } else { "there is no such directory".into() };
                return Err(ServerError::NoService { data: data.to_owned(), detail: missing });
            }
            // Nothing is wrong with it, and nothing to be put back.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(ServerError::NotYours { data: data.to_owned() });
            }
            other => other.map_err(|e| bad(e.to_string()))?,
        };
        serde_json::from_str(&text).map_err(|e| bad(e.to_string()))
    }

    /// Writes it.
    pub fn write(&self, data: &Path) -> Result<(), ServerError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        replace(&data.join(FILE), text.as_bytes(), 0o600)
    }

    /// Opens the store of the service in `data`.
    pub async fn open_store(&self, data: &Path) -> Result<Store, ServerError> {
        self.backends.open_store(data).await
    }

    /// Opens it beside a service that may be running, and leaves its schema as it is.
    pub async fn attach_store(&self, data: &Path) -> Result<Store, ServerError> {
        Ok(Store::attach_in(data, &self.backends.places()?).await?)
    }

    /// The same, of a database whose secrets open with the key file beside it.
    pub async fn attach_own_store(&self, data: &Path) -> Result<Store, ServerError> {
        let store = self.attach_store(data).await?;
        match store.opens_with_this_key().await {
            Ok(()) => Ok(store),
            Err(StoreError::Sealed) => Err(of_another_service(data)),
            Err(e) => Err(e.into()),
        }
    }

    /// The same, for who writes: the schema must be this program's. Whoever only reads gets along with the tables of most
    /// versions; what is written into an earlier one may be lost.
    pub async fn attach_current_store(&self, data: &Path) -> Result<Store, ServerError> {
        let store = self.attach_own_store(data).await?;
        let (found, wanted) = store.schema_version().await?;
        if found == wanted {
            return Ok(store);
        }
        store.close().await;
        Err(ServerError::Argument(format!(
            "the database is of an earlier version ({found}, this program works with {wanted}), and is left as it is for a service that \
             may be running: restart the service with this program first"
        )))
    }

    /// The device authority's certificate and key.
    pub fn authority(&self) -> (PathBuf, PathBuf) {
        (self.keys.join("device-ca.crt"), self.keys.join("device-ca.key"))
    }
}

/// Writes a file whole or not at all; when this returns, it is on the disk under its name.
#[expect(clippy::disallowed_methods, reason = "this is the service's durable writer")]
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), ServerError> {
    let temporary = path.with_extension("new");
    let error = |source| ServerError::File { operation: "write", path: path.to_owned(), source };
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(error)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(error)?;
    std::fs::rename(&temporary, path).map_err(error)?;
    // Without this the old name may come back after a power cut.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(error)
}
