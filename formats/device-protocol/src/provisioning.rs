//! Fleet provisioning by claim: AWS IoT Core's "CreateCertificateFromCsr" and "RegisterThing" over MQTT.

use crate::Endpoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the one provisioning template.
pub const TEMPLATE: &str = "belvedere-appliance";
/// Publish [`CreateFromCsr`] here; the answer comes at this topic and `/accepted` or `/rejected`.
pub const CREATE_FROM_CSR: &str = "$aws/certificates/create-from-csr/json";

/// Publish [`RegisterThing`] here; likewise.
pub fn register_thing_topic(template: &str) -> String {
    format!("$aws/provisioning-templates/{template}/provision/json")
}

/// The request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateFromCsr {
    /// PEM, PKCS#10.
    pub certificate_signing_request: String,
}

/// Accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateCreated {
    /// Proves the ownership in [`RegisterThing`]; good for a few minutes.
    pub certificate_ownership_token: String,
    /// Identifier.
    pub certificate_id: String,
    /// The device certificate, PEM. Not active before the thing is registered.
    pub certificate_pem: String,
}

/// The request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterThing {
    /// From [`CertificateCreated`].
    pub certificate_ownership_token: String,
    /// `SerialNumber`, `SoftwareVersion`.
    pub parameters: BTreeMap<String, String>,
}

/// Accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThingRegistered {
    /// Must be the certificate's common name.
    pub thing_name: String,
    /// Where MQTT goes on, if that is not where the claim was taken: [`Broker`]. Else nothing.
    #[serde(default)]
    pub device_configuration: BTreeMap<String, String>,
}

/// The MQTT broker that a device uses once it is registered: the service's own one takes claims only, then. Its
/// certificate comes from the same authority. Beside the device's certificate it asks for a user name, which is the thing
/// name, and for this password.
#[derive(Clone, PartialEq, Eq)]
pub struct Broker {
    /// MQTT over TLS.
    pub endpoint: Endpoint,
    /// Never logged.
    pub password: String,
}

impl core::fmt::Debug for Broker {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Broker").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

const HOST: &str = "mqttHost";
const PORT: &str = "mqttPort";
const PASSWORD: &str = "mqttPassword";

impl Broker {
    /// As members of [`ThingRegistered::device_configuration`].
    pub fn members(&self) -> BTreeMap<String, String> {
        [(HOST, self.endpoint.host.clone()), (PORT, self.endpoint.port.to_string()), (PASSWORD, self.password.clone())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// From those members; `None` if they name no broker.
    ///
    /// # Errors
    /// Which member cannot be used.
    pub fn of(members: &BTreeMap<String, String>) -> Result<Option<Broker>, &'static str> {
        let Some(host) = members.get(HOST) else { return Ok(None) };
        let word = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        // A name or an address: nothing else comes near a resolver or a log.
        let host_ok = word(host, 253) && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b));
        if !host_ok {
            return Err(HOST);
        }
        let port = members.get(PORT).and_then(|p| p.parse::<u16>().ok()).filter(|p| *p > 0).ok_or(PORT)?;
        let password = members.get(PASSWORD).filter(|p| word(p, 256)).ok_or(PASSWORD)?;
        Ok(Some(Broker { endpoint: Endpoint { host: host.clone(), port }, password: password.clone() }))
    }
}

/// Rejected, for both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// HTTP-like.
    pub status_code: u16,
    /// Word.
    pub error_code: String,
    /// For people.
    pub error_message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_read_back_and_everything_about_it_is_checked() {
        let broker = Broker { endpoint: Endpoint { host: "broker.example".into(), port: 8884 }, password: "word".into() };
        let members = broker.members();
        assert_eq!(Broker::of(&members), Ok(Some(broker.clone())));
        assert!(!format!("{broker:?}").contains("word"));
        assert_eq!(Broker::of(&BTreeMap::new()), Ok(None), "an older service names none");
        for (member, bad) in [
            (HOST, ""),
            (HOST, "two words"),
            (HOST, "user@host/"),
            (PORT, "0"),
            (PORT, "65536"),
            (PORT, ""),
            (PASSWORD, ""),
            (PASSWORD, "a b"),
            (PASSWORD, "line\n"),
        ] {
            let mut changed = members.clone();
            changed.insert(member.into(), bad.into());
            assert_eq!(Broker::of(&changed), Err(member), "{bad:?}");
        }
        for (member, most) in [(HOST, 253), (PASSWORD, 256)] {
            let of = |length| {
                let mut changed = members.clone();
                changed.insert(member.into(), "a".repeat(length));
                Broker::of(&changed).map(drop)
            };
            assert!(of(most).is_ok() && of(most + 1) == Err(member), "{member}");
        }
    }
}
