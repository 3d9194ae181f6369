//! mosquitto's files, for its owner: configuration, certificate, and the plug-in's first file.

use super::{BrokerUrl, device_password, link, security, service_password};
use crate::FleetError;
use crate::authority::Authority;
use crate::link::LONGEST_KEEP_ALIVE;
use belvedere_store::Store;
use std::path::Path;

/// mosquitto's configuration.
pub const CONFIGURATION: &str = "mosquitto.conf";
/// The device authority's certificate.
pub const AUTHORITY: &str = "ca.pem";
/// The broker's certificate.
pub const CERTIFICATE: &str = "server.pem";
/// Its key.
pub const KEY: &str = "server.key";
/// What devices may publish and hear.
pub const PATTERNS: &str = "patterns.acl";
/// What the dynamic-security plug-in knows; it writes this itself later.
pub const PLUG_IN: &str = "dynamic-security.json";

/// What the files are for.
pub struct Wanted<'a> {
    /// Where the broker will be.
    pub url: &'a BrokerUrl,
    /// Further names and addresses of its certificate.
    pub names: &'a [String],
    /// Where its certificate and key will be, absolute.
    pub configuration: &'a Path,
    /// Where it may write, absolute.
    pub state: &'a Path,
}

/// A file.
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds a secret, or hashes of some.
    pub secret: bool,
    /// What is in it.
    pub content: String,
}

/// Makes the files. The certificate is a new one each time; the plug-in's file holds all devices there are.
pub async fn files(wanted: &Wanted<'_>, authority: &Authority, store: &Store) -> Result<Vec<File>, FleetError> {
    let mut names: Vec<String> = Vec::new();
    let hosts = [&wanted.url.service.host, &wanted.url.devices.host];
    for name in hosts.into_iter().chain(wanted.names) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let server = authority.server(&names)?;
    let devices = store.standing_things().await?;
    let devices = devices.iter().map(|thing| (thing.as_str(), device_password(store, thing)));
    let plug_in = security::initial(&service_password(store), devices);
    let file = |name, secret, content| File { name, secret, content };
    Ok(vec![
        file(CONFIGURATION, false, configuration(wanted)),
        file(AUTHORITY, false, authority.certificate_pem().to_owned()),
        file(CERTIFICATE, false, server.issued.certificate_pem),
        file(KEY, true, server.private_key_pem),
        file(PATTERNS, false, security::patterns()),
        file(PLUG_IN, true, format!("{plug_in:#}\n")),
    ])
}

fn configuration(wanted: &Wanted<'_>) -> String {
    let (at, state) = (wanted.configuration.display(), wanted.state.display());
    format!(
        "\
# mosquitto 2.0 as the broker of a Belvedere service, made by `belvedere-service broker-configuration`.
# The whole configuration: nothing else is included.
per_listener_settings false

# Who may connect: whoever has a certificate of the device authority and a password that the plug-in knows.
allow_anonymous false
plugin mosquitto_dynamic_security.so
plugin_opt_config_file {state}/{PLUG_IN}
# What its rules leave open.
acl_file {at}/{PATTERNS}
listener {port}
cafile {at}/{AUTHORITY}
certfile {at}/{CERTIFICATE}
keyfile {at}/{KEY}
require_certificate true
tls_version tlsv1.3

# What the service itself would allow. The queue is as large as the service's own needs it while the service is down.
max_qos 1
max_keepalive {LONGEST_KEEP_ALIVE}
max_packet_size {packet}
max_inflight_messages 100
set_tcp_nodelay true
max_queued_messages 200000
max_queued_bytes 268435456
persistent_client_expiration 7d

# What waits survives a stop; what came in the last seconds before a power cut does not.
persistence true
persistence_location {state}/
autosave_interval 5

# The service sees in the log who is connected: `notice` and `log_dest topic` must stay.
connection_messages true
log_type error
log_type warning
log_type notice
log_dest topic
log_dest stderr
",
        port = wanted.url.service.port,
        packet = link::MAX_SENT,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_files_name_each_other_and_hold_no_password() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        let url = BrokerUrl::parse("mqtts://broker.example:1884?devices=10.0.2.2:8884").unwrap();
        let wanted =
            Wanted { url: &url, names: &["other".into()], configuration: "/etc/x".as_ref(), state: "/var/y".as_ref() };
        let files = files(&wanted, &Authority::for_tests(), &store).await.unwrap();
        let of = |name| files.iter().find(|f| f.name == name).unwrap();
        let text = &of(CONFIGURATION).content;
        for line in ["listener 1884", "keyfile /etc/x/server.key", "plugin_opt_config_file /var/y/dynamic-security.json"] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(files.iter().all(|f| !f.content.contains(&service_password(&store))));
        assert!(of(KEY).secret && of(PLUG_IN).secret && !of(CERTIFICATE).secret);
    }
}
