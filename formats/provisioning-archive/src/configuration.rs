//! `configuration.json`.

use crate::{ArchiveError, Configuration, FORMAT_VERSION};
use belvedere_device_protocol::{
    ConnectionType, Endpoint, Endpoints, EthernetConfiguration, NetworkConfiguration, NtpConfiguration, StaticAddress,
};
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// [`Endpoints`] of an archive have no member that is not known. Those of a stored identity may: an older release must
/// still be able to read what a newer one wrote.
pub(crate) fn strict_endpoints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoints, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct StrictEndpoint {
        host: String,
        port: u16,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct StrictEndpoints {
        mqtt: StrictEndpoint,
        https: StrictEndpoint,
        region: String,
    }
    let endpoint = |strict: StrictEndpoint| Endpoint { host: strict.host, port: strict.port };
    let StrictEndpoints { mqtt, https, region } = StrictEndpoints::deserialize(deserializer)?;
    Ok(Endpoints { mqtt: endpoint(mqtt), https: endpoint(https), region })
}

/// Reads it. It is parsed once; what does not parse is looked at again for the words that help.
pub(crate) fn read(text: &str) -> Result<Configuration, ArchiveError> {
    let configuration: Configuration = serde_json::from_str(text).map_err(|error| why(text, &error))?;
    if configuration.format_version != FORMAT_VERSION {
        return Err(unknown_version(configuration.format_version.into()));
    }
    match check(&configuration) {
        Ok(()) => Ok(configuration),
        Err(what) => Err(ArchiveError::Configuration { what: what.into() }),
    }
}

fn unknown_version(found: u64) -> ArchiveError {
    ArchiveError::UnknownFormatVersion { found, known: FORMAT_VERSION }
}

/// Why a text is no configuration.
fn why(text: &str, error: &serde_json::Error) -> ArchiveError {
    let invalid = ArchiveError::Configuration { what: ArchiveError::shortened(error) };
    let Ok(value) = serde_json::from_str::<Value>(text) else { return invalid };
    match value["format_version"].as_u64() {
        Some(version) if version != u64::from(FORMAT_VERSION) => return unknown_version(version),
        _ => {}
    }
    let known = serde_json::to_value(fullest()).unwrap_or_default();
    match unknown_member(&value, &known).or_else(|| unknown_connection_type(&value)) {
        Some(path) => ArchiveError::UnknownMember { name: ArchiveError::shown(path.as_bytes()) },
        None => invalid,
    }
}

/// The path of a member that is not among those known.
fn unknown_member(value: &Value, known: &Value) -> Option<String> {
    let (value, known) = (value.as_object()?, known.as_object()?);
    value.iter().find_map(|(name, below)| match known.get(name) {
        None => Some(name.clone()),
        Some(known) => unknown_member(below, known).map(|path| format!("{name}.{path}")),
    })
}

/// The path of the one kind of value that a newer service may know more of, with that value.
fn unknown_connection_type(value: &Value) -> Option<String> {
    ["Ethernet0", "Ethernet1"].into_iter().find_map(|port| {
        let found = value["network"][port]["ConnectionType"].as_str()?;
        let known: Result<ConnectionType, serde::de::value::Error> = ConnectionType::deserialize(found.into_deserializer());
        known.is_err().then(|| format!("network.{port}.ConnectionType = {found}"))
    })
}

/// A configuration with every member there is.
fn fullest() -> Configuration {
    let endpoint = Endpoint { host: String::new(), port: 0 };
    let ethernet = Some(EthernetConfiguration {
        connection_type: ConnectionType::Dhcp,
        static_ip_connection_info: Some(StaticAddress {
            ip_address: String::new(),
            mask: String::new(),
            dns: Vec::new(),
            default_gateway: String::new(),
        }),
    });
    Configuration {
        format_version: 0,
        device_id: String::new(),
        device_name: String::new(),
        claim_client_id: String::new(),
        endpoints: Endpoints { mqtt: endpoint.clone(), https: endpoint, region: String::new() },
        network: NetworkConfiguration {
            ethernet0: ethernet.clone(),
            ethernet1: ethernet,
            ntp: Some(NtpConfiguration { ntp_servers: Vec::new() }),
        },
        provisioning_template: String::new(),
        claim_expires: 0,
        issued: 0,
    }
}

fn check(c: &Configuration) -> Result<(), &'static str> {
    let word = |text: &str, max: usize| {
        !text.is_empty() && text.len() <= max && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    // These three end up in MQTT topics and file names: no `/`, `+`, `#`.
    if !word(&c.device_id, 128) {
        return Err("device_id");
    }
    if !word(&c.claim_client_id, 160) {
        return Err("claim_client_id");
    }
    if !word(&c.provisioning_template, 64) {
        return Err("provisioning_template");
    }
    if c.device_name.is_empty() || c.device_name.len() > 255 || c.device_name.chars().any(char::is_control) {
        return Err("device_name");
    }
    for endpoint in [&c.endpoints.mqtt, &c.endpoints.https] {
        if !word(&endpoint.host, 253) || endpoint.port == 0 {
            return Err("endpoints");
        }
    }
    if !word(&c.endpoints.region, 64) {
        return Err("endpoints.region");
    }
    // 2020 to 2100, so that no sum overflows. Whether it can be the time is the appliance's to judge.
    if !(1_577_836_800..4_102_444_800).contains(&c.issued) {
        return Err("issued");
    }
    if c.claim_expires <= c.issued || c.claim_expires - c.issued > 7 * 86_400 {
        return Err("claim_expires");
    }
    Ok(())
}
