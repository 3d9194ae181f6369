//! What makes two running programs copies of one service: a second one on the same database must say the same.

use crate::configuration::Configuration;
use belvedere_fleet::authority::Authority;
use belvedere_store::copies::Identity;
use ring::digest::{SHA256, digest};

/// What this service is. The names stand in messages. (Which `secrets.key` it has, the database itself knows.)
pub fn identity(configuration: &Configuration, authority: &Authority) -> Identity {
    let certificate = hex::encode(digest(&SHA256, authority.certificate_pem().as_bytes()));
    let parts = [
        ("account", configuration.account.clone()),
        ("region", configuration.region.clone()),
        ("bucket", configuration.bucket.clone()),
        ("device authority", certificate),
    ];
    let mut identity: Identity = parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    // One that has none says nothing, as versions that knew none did. What cannot be read is refused elsewhere.
    if let Ok(Some(url)) = configuration.backends.broker() {
        identity.insert("broker".into(), format!("{}:{}", url.devices.host, url.devices.port));
    }
    identity
}
