//! What a start of this release looks like to the TPM, signed: the appliance's storage secrets are given out to nothing else.

use crate::error::{Error, Result};
use belvedere_kernel_stub::measured;
use belvedere_keys::KeyDirectory;
use belvedere_tpm::boot_policy::{BootPolicy, Entry};
use belvedere_tpm::layout::{HIGHEST_LEVEL, Purpose, approved, fuses_name};
use belvedere_tpm::policy::{START, extend, sha256, to_be_signed};
use belvedere_tpm::{Digest, PolicyKey, PolicySignature};

/// The register that the stub measures into, once it started an image with these sections.
pub fn release_register(sections: &[(&str, &[u8])]) -> Digest {
    let content = |name: &str| sections.iter().find(|(section, _)| *section == name).map(|(_, content)| *content);
    let events = measured::events(content);
    // Registers and policies begin alike: all zero.
    events.iter().fold(START, |register, event| extend(&register, &sha256(&[event.as_bytes()])))
}

/// The `.belvpol` section of an image with these sections, for machines whose Secure Boot register holds one of `secure_boot`.
///
/// # Errors
/// When the policy key cannot be used, the rollback level is above what fuses can hold, or there are more values than entries.
pub fn make(
    keys: &KeyDirectory,
    secure_boot: &[Digest],
    sections: &[(&str, &[u8])],
    rollback_level: u32,
) -> Result<Vec<u8>> {
    if rollback_level > HIGHEST_LEVEL {
        return Err(Error::invalid(
            "the rollback level",
            format!("is {rollback_level}, and fuses hold {HIGHEST_LEVEL} at most"),
        ));
    }
    let key = PolicyKey(keys.policy_modulus()?);
    let (register, fuses) = (release_register(sections), fuses_name(&key.name()));
    let entry = |secure_boot: &Digest| -> Result<Entry> {
        let sign = |purpose: Purpose| {
            let policy = approved(purpose, secure_boot, &register, rollback_level, &fuses);
            keys.sign_with_policy_key(&to_be_signed(&policy, purpose.policy_ref())).map(PolicySignature)
        };
        Ok(Entry {
            pcr7: *secure_boot,
            pcr11: register,
            level: rollback_level,
            storage: sign(Purpose::Storage)?,
            fuses: sign(Purpose::Fuses)?,
        })
    };
    let entries = secure_boot.iter().map(entry).collect::<Result<_>>()?;
    BootPolicy { key, entries }.encode().map_err(|error| Error::invalid("the signed boot policy", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_kernel_stub::{CMDLINE, LINUX, RELEASE};

    #[test]
    fn the_register_follows_from_every_measured_section_and_from_no_other() {
        let sections: [(&str, &[u8]); 3] = [(LINUX, b"kernel"), (CMDLINE, b"quiet"), (RELEASE, b"rollback_level=1\n")];
        let register = release_register(&sections);
        for index in 0..sections.len() {
            let mut other = sections;
            other[index].1 = b"changed";
            assert_ne!(release_register(&other), register, "{}", sections[index].0);
        }
        let more = [sections.as_slice(), &[(".other", b"x".as_slice())]].concat();
        assert_eq!(release_register(&more), register);
        let reversed: Vec<(&str, &[u8])> = sections.iter().rev().copied().collect();
        assert_eq!(release_register(&reversed), register, "the stub's order counts, not the file's");
    }

    #[test]
    fn the_same_release_is_signed_with_the_same_bytes_and_a_level_that_fuses_cannot_hold_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let keys = belvedere_keys::create(scratch.path().join("keys"), belvedere_keys::Validity::default()).unwrap();
        let made = |level| make(&keys, &[[7; 32], [8; 32]], &[(LINUX, b"kernel")], level);
        let policy = made(3).unwrap();
        assert_eq!(policy, made(3).unwrap());
        let read = BootPolicy::decode_section(&policy).unwrap();
        assert_eq!((read.entries.len(), read.entries[0].level, read.entries[0].pcr7), (2, 3, [7; 32]));
        assert_eq!((read.entries[1].pcr7, read.entries[1].pcr11), ([8; 32], read.entries[0].pcr11));
        assert_ne!(read.entries[0].storage, read.entries[1].storage);
        assert!(made(64).is_ok() && made(65).is_err());
    }
}
