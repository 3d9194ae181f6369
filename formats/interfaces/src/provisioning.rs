//! `org.belvedere.Provisioning`: the appliance's identity. Served by `provisioning`.

use crate::{Done, Method};
use belvedere_device_protocol::Endpoints;
use serde::{Deserialize, Serialize};

/// The identity, for the agent alone ([`crate::rights`]). Fails with `not_provisioned` before that, and with
/// [`RELEASED`] between [`Release`] and [`FinishRelease`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetIdentity {}
impl Method for GetIdentity {
    const NAME: &'static str = "org.belvedere.Provisioning.GetIdentity";
    type Reply = Identity;
}

/// Reason of [`GetIdentity`]'s failure: the appliance was released, and the earlier owner's applications are to be removed.
pub const RELEASED: &str = "released";

/// The service has released the appliance: its identity is given up, durably, when the answer comes. For the agent alone,
/// which heard it from the service that the identity names. Done again it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Whose release it is; another one is refused.
    pub thing_name: String,
    /// Likewise.
    pub generation: u64,
}
impl Method for Release {
    const NAME: &'static str = "org.belvedere.Provisioning.Release";
    type Reply = Done;
}

/// Nothing of the earlier owner is left: from now on any service's stick is taken. For the agent alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishRelease {}
impl Method for FinishRelease {
    const NAME: &'static str = "org.belvedere.Provisioning.FinishRelease";
    type Reply = Done;
}

/// Signs a digest with the identity's key, where [`Identity::key`] says that the key is kept by `provisioning`. For the agent
/// alone: who may call this can show himself as this appliance, as long as he may.
///
/// Fails with `not_provisioned`; with [`ANOTHER_KEY`] when `generation` is not the identity's, or its key is the caller's own;
/// with [`BUSY`] when too many ask, before the TPM is asked; with `tpm` when the TPM does not sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    /// Whose key.
    pub generation: u64,
    /// SHA-256 of what is to be signed; 64 hexadecimal digits.
    #[serde(with = "hex::serde")]
    pub digest: [u8; 32],
}
impl Method for Sign {
    const NAME: &'static str = "org.belvedere.Provisioning.Sign";
    type Reply = Signed;
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// ECDSA on P-256: `Ecdsa-Sig-Value` of RFC 3279, DER, at most 72 bytes; in hexadecimal.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
}

/// Reason of [`Sign`]'s failure: the identity, or where its key is, is another one by now.
pub const ANOTHER_KEY: &str = "another_key";
/// Reason of [`Sign`]'s failure: more was asked than is served; later again.
pub const BUSY: &str = "busy";
/// [`Sign`] is answered so often within a second. An appliance needs three when it starts, and one for each connection later.
pub const SIGNATURES_A_SECOND: usize = 4;

/// How signatures are made with the identity's key.
///
/// As JSON it is members of the identity itself, those of one or the other kind: an identity that an earlier release stored has
/// `private_key_pem`, and is read as it was.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DeviceKeyReference {
    /// With the key itself: development hosts, boards without a TPM, and identities of releases that did not use it.
    Software {
        /// PKCS#8, PEM.
        private_key_pem: String,
    },
    /// With [`Sign`]; the private key is in the TPM and nowhere else.
    Provisioning {
        /// What it signs with.
        algorithm: KeyAlgorithm,
        /// SubjectPublicKeyInfo (RFC 5280, 4.1), DER; in hexadecimal.
        #[serde(with = "hex::serde")]
        public_key: Vec<u8>,
    },
}

/// What a key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// ECDSA on the curve P-256 over SHA-256.
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
}

impl core::fmt::Debug for DeviceKeyReference {
    // Without the key.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Software { .. } => "Software",
            Self::Provisioning { .. } => "Provisioning",
        })
    }
}

/// Who this appliance is, and where its service is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `device-…`.
    pub device_id: String,
    /// `panorama_<device name>_Thing_<8 hexadecimal digits>`.
    pub thing_name: String,
    /// Where the service is.
    pub endpoints: Endpoints,
    /// The authority that the service's certificate must come from, PEM.
    pub service_ca_pem: String,
    /// Device certificate and its chain, PEM.
    pub certificate_pem: String,
    /// Its key, or how to sign with it.
    #[serde(flatten)]
    pub key: DeviceKeyReference,
    /// What the broker asks for beside the certificate, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt_password: Option<String>,
    /// Counts provisionings; a change means: start over with the new identity.
    pub generation: u64,
}

impl core::fmt::Debug for Identity {
    // Neither the key nor the password reaches a log line.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Identity")
            .field("device_id", &self.device_id)
            .field("thing_name", &self.thing_name)
            .field("key", &self.key)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a release stored it that knew keys in files only.
    const EARLIER: &str = r#"{"device_id": "device-abc", "thing_name": "panorama_a_Thing_00000001",
        "endpoints": {"mqtt": {"host": "h", "port": 1}, "https": {"host": "h", "port": 2}, "region": "r"},
        "service_ca_pem": "ca", "certificate_pem": "certificate", "private_key_pem": "SECRET", "generation": 3}"#;

    #[test]
    fn an_identity_of_an_earlier_release_is_read_and_written_as_it_was() {
        let identity: Identity = serde_json::from_str(EARLIER).unwrap();
        assert_eq!(identity.key, DeviceKeyReference::Software { private_key_pem: "SECRET".into() });
        assert_eq!(serde_json::to_value(&identity).unwrap(), serde_json::from_str::<serde_json::Value>(EARLIER).unwrap());
        assert!(!format!("{identity:?}").contains("SECRET"));
    }

    #[test]
    fn a_key_that_provisioning_keeps_has_a_public_half_only() {
        let mut identity: Identity = serde_json::from_str(EARLIER).unwrap();
        let algorithm = KeyAlgorithm::EcdsaP256Sha256;
        identity.key = DeviceKeyReference::Provisioning { algorithm, public_key: vec![0x30, 0x59] };
        let text = serde_json::to_string(&identity).unwrap();
        assert!(
            text.contains(r#""algorithm":"ecdsa-p256-sha256","public_key":"3059""#) && !text.contains("private"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), identity);
        for damage in [("ecdsa-p256-sha256", "none"), ("3059", "3x59"), ("public_key", "private_key")] {
            assert!(serde_json::from_str::<Identity>(&text.replace(damage.0, damage.1)).is_err(), "{damage:?}");
        }
    }

    #[test]
    fn a_digest_has_32_bytes() {
        let call = Sign { generation: 1, digest: [0xab; 32] };
        let text = serde_json::to_string(&call).unwrap();
        assert_eq!(text, format!(r#"{{"generation":1,"digest":"{}"}}"#, "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<Sign>(&text).unwrap(), call);
        for digest in ["ab".repeat(31), "ab".repeat(33), "zz".repeat(32), String::new()] {
            assert!(serde_json::from_str::<Sign>(&format!(r#"{{"generation":1,"digest":"{digest}"}}"#)).is_err());
        }
    }
}
