//! A new service in an empty directory.

use crate::ServerError;
use crate::backends::Backends;
use crate::configuration::{Configuration, FILE, replace};
use crate::history::History;
use belvedere_api::limits::Limits;
use belvedere_fleet::authority::Authority;
use belvedere_store::identifiers;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What a new service is to be.
pub struct New<'a> {
    /// Where; made if missing.
    pub data: &'a Path,
    /// Key directory.
    pub keys: &'a Path,
    /// Twelve digits.
    pub account: &'a str,
    /// Region.
    pub region: &'a str,
    /// Further names of its certificate.
    pub names: &'a [String],
    /// Where rows and objects are.
    pub backends: Backends,
    /// Quotas and rates.
    pub limits: Limits,
}

/// The first access key; printed once.
pub struct FirstKey {
    /// `AKIA…`.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

/// Makes a service. Refuses a directory that holds one.
pub async fn initialise(new: New<'_>) -> Result<FirstKey, ServerError> {
    if new.account.len() != 12 || !new.account.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ServerError::Argument(format!("--account {}: an account is twelve digits", new.account)));
    }
    if new.region.is_empty() || !new.region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(ServerError::Argument(format!("--region {}: a region is like us-east-1", new.region)));
    }
    for name in new.names {
        if let Some(fault) = crate::reach::host_fault(name) {
            return Err(ServerError::Argument(format!("--name {name:?}: {fault}")));
        }
    }
    let file = |operation, path: &Path, source| ServerError::File { operation, path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(new.data).map_err(|e| file("create", new.data, e))?;
    if new.data.join(FILE).exists() {
        // A damaged one says so, and what to do.
        Configuration::read(new.data)?;
        let text = format!("{} holds a service already; `belvedere-service serve` starts it", new.data.display());
        return Err(ServerError::Argument(text));
    }
    let keys: PathBuf = std::fs::canonicalize(new.keys).map_err(|e| file("find the key directory", new.keys, e))?;
    let configuration = Configuration {
        account: new.account.to_owned(),
        region: new.region.to_owned(),
        bucket: format!("panorama-{}-{}", new.account, identifiers::base32(&identifiers::random::<16>())),
        keys,
        names: new.names.to_vec(),
        backends: new.backends.given()?,
        limits: new.limits,
        history: History::default(),
        notifications: Default::default(),
        metrics: Default::default(),
    };
    let (certificate, key) = configuration.authority();
    let authority = Authority::open(&certificate, &key)?;
    authority.server(&crate::serve::certificate_names(&configuration, "localhost"))?;
    replace(&new.data.join("ca.pem"), authority.certificate_pem().as_bytes(), 0o644)?;
    let store = configuration.backends.create_store(new.data).await?;
    let (access_key_id, secret_access_key) = store.create_access_key("first administrator").await?;
    store.close().await;
    // Last: a directory without this file is not a service, and can be thrown away.
    configuration.write(new.data)?;
    Ok(FirstKey { access_key_id, secret_access_key })
}
