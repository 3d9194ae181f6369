//! What the firmware measures of Secure Boot: the value of the TPM's register 7 once the bootloader runs.
//!
//! The events are those of the TCG PC Client Platform Firmware Profile (1.06, 3.3.4.8 and 10.4.1), in the order of EDK2
//! (`MeasureAllSecureVariables` of Tcg2Dxe, `SecureBootHook` of DxeImageVerificationLib): that Secure Boot is on, PK, KEK, db,
//! dbx, a separator, and the entry of db that the bootloader's signature was checked with. Unified kernel images are signed
//! with the same key, and firmware measures an entry once.

use sha2::{Digest, Sha256};

/// EFI_GLOBAL_VARIABLE and EFI_IMAGE_SECURITY_DATABASE_GUID.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SECURITY: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";

/// The variables that decide about signatures, as the firmware keeps them.
#[derive(Debug, Clone)]
pub struct SecureBootVariables {
    /// Signature list of the platform key.
    pub pk: Vec<u8>,
    /// Signature lists of the key exchange keys.
    pub kek: Vec<u8>,
    /// Signature lists of what may start.
    pub db: Vec<u8>,
    /// Signature lists of what may not; nothing when there is no such variable.
    pub dbx: Vec<u8>,
    /// The entry of db that signed the bootloader: its owner's GUID and the certificate.
    pub authority: Vec<u8>,
}

/// UEFI_VARIABLE_DATA, which is what is hashed.
fn variable(vendor: &str, name: &str, data: &[u8]) -> Vec<u8> {
    let vendor = uuid::Uuid::parse_str(vendor).unwrap_or_default();
    let name: Vec<u16> = name.encode_utf16().collect();
    let mut bytes = vendor.to_bytes_le().to_vec();
    bytes.extend((name.len() as u64).to_le_bytes());
    bytes.extend((data.len() as u64).to_le_bytes());
    bytes.extend(name.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend(data);
    bytes
}

/// The register's value (SHA-256 bank).
pub fn expected(variables: &SecureBootVariables) -> [u8; 32] {
    let events = [
        variable(GLOBAL, "SecureBoot", &[1]),
        variable(GLOBAL, "PK", &variables.pk),
        variable(GLOBAL, "KEK", &variables.kek),
        variable(SECURITY, "db", &variables.db),
        variable(SECURITY, "dbx", &variables.dbx),
        vec![0; 4],
        variable(SECURITY, "db", &variables.authority),
    ];
    events.iter().fold([0; 32], |register, event| belvedere_tpm::policy::extend(&register, &Sha256::digest(event).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_counts() {
        let variables = SecureBootVariables { pk: vec![1], kek: vec![2], db: vec![3], dbx: Vec::new(), authority: vec![4] };
        let value = expected(&variables);
        let changes: [fn(&mut SecureBootVariables); 5] = [
            |variables| variables.pk.push(0),
            |variables| variables.kek.push(0),
            |variables| variables.db.push(0),
            |variables| variables.dbx.push(0),
            |variables| variables.authority.push(0),
        ];
        for change in changes {
            let mut changed = variables.clone();
            change(&mut changed);
            assert_ne!(expected(&changed), value);
        }
    }

    #[test]
    fn a_variable_is_hashed_as_the_profile_says() {
        let bytes = variable(GLOBAL, "PK", &[0xaa]);
        assert_eq!(bytes.len(), 16 + 8 + 8 + 4 + 1);
        assert_eq!(bytes[..4], [0x61, 0xdf, 0xe4, 0x8b]);
        assert_eq!(bytes[16..24], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[32..], [b'P', 0, b'K', 0, 0xaa]);
    }
}
