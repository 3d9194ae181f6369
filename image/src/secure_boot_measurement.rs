//! What the firmware measures of Secure Boot: the value of the TPM's register 7 once the bootloader runs.
//!
//! The events are those of the TCG PC Client Platform Firmware Profile (1.06, 3.3.4.8 and 10.4.1), in the order of EDK2
//! (`MeasureAllSecureVariables` of Tcg2Dxe, `SecureBootHook` of DxeImageVerificationLib): that Secure Boot is on, PK, KEK, db,
//! dbx, a separator, and the entries of db that the signatures of bootloader and unified kernel image were checked with.
//! Firmware measures an entry once, and both are signed with the same key but for a while after a new one came.
//!
//! A release that brings updates of db and dbx along is started before and after each of them: [`starts`] gives them all, and
//! its boot policy is signed for all, so that no update locks an appliance out of its volumes.

use crate::error::{Error, Result};
use belvedere_secure_boot::updates::Update;
use belvedere_secure_boot::{Database, Malformed, lists};
use belvedere_tpm::Digest;
use belvedere_tpm::policy::extend;
use sha2::{Digest as _, Sha256};

/// EFI_GLOBAL_VARIABLE and EFI_IMAGE_SECURITY_DATABASE_GUID.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SECURITY: &str = belvedere_secure_boot::VENDOR;

/// The variables that decide about signatures, as the firmware keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureBootVariables {
    /// Signature list of the platform key.
    pub pk: Vec<u8>,
    /// Signature lists of the key exchange keys.
    pub kek: Vec<u8>,
    /// Signature lists of what may start.
    pub db: Vec<u8>,
    /// Signature lists of what may not; nothing when there is no such variable.
    pub dbx: Vec<u8>,
}

impl SecureBootVariables {
    /// The entry of db for a certificate (DER), as it is measured: its owner's GUID and the certificate. Nothing when it is
    /// not there, or dbx has it as well.
    fn authority(&self, certificate: &[u8]) -> Option<Vec<u8>> {
        let holds = |list: &[u8]| {
            let all = lists::signatures(list).ok()?;
            all.into_iter().find(|entry| entry.kind == lists::X509 && entry.data == certificate).map(|entry| entry.owner)
        };
        let owner = holds(&self.db).filter(|_| holds(&self.dbx).is_none())?;
        Some([owner.as_slice(), certificate].concat())
    }
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

/// What is measured into the register, in its order: what it is, for people, and its SHA-256. `authorities`: the entries of db
/// that bootloader and unified kernel image were checked with, each once.
pub fn events(variables: &SecureBootVariables, authorities: &[Vec<u8>]) -> Vec<(&'static str, Digest)> {
    let digest = |bytes: &[u8]| -> Digest { Sha256::digest(bytes).into() };
    let mut events = vec![
        ("SecureBoot", digest(&variable(GLOBAL, "SecureBoot", &[1]))),
        ("PK", digest(&variable(GLOBAL, "PK", &variables.pk))),
        ("KEK", digest(&variable(GLOBAL, "KEK", &variables.kek))),
        ("db", digest(&variable(SECURITY, "db", &variables.db))),
        ("dbx", digest(&variable(SECURITY, "dbx", &variables.dbx))),
        ("separator", digest(&[0; 4])),
    ];
    events.extend(authorities.iter().map(|entry| ("authority", digest(&variable(SECURITY, "db", entry)))));
    events
}

/// One way in which a release starts: in one state of the databases, from a bootloader of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// How many of the updates the databases have.
    pub applied: usize,
    /// The number of the bootloader's key.
    pub bootloader: u32,
    /// What is measured into the register.
    pub events: Vec<(&'static str, Digest)>,
    /// The register's value (SHA-256 bank).
    pub register: Digest,
}

/// Every way in which a release starts. `keys`: number and certificate (DER) of each key up to the release's own, which is the
/// last one: a bootloader may be older than the release.
///
/// The updates are applied one after the other and only from the first on ([`belvedere_secure_boot::updates`]), so there are
/// as many states as updates, and one more. A state in which a certificate is not in db, or is in dbx, starts nothing of its.
///
/// # Errors
/// When the release would not start in the last state, with a bootloader of its own key: it would shut itself out.
pub fn starts(factory: &SecureBootVariables, updates: &[Update<'_>], keys: &[(u32, Vec<u8>)]) -> Result<Vec<Start>> {
    let malformed = |error: Malformed| Error::invalid("the updates of the firmware's key databases", error.to_string());
    let mut state = factory.clone();
    let mut starts: Vec<Start> = Vec::new();
    let Some((own_number, own)) = keys.last() else { return Ok(starts) };
    for applied in 0..=updates.len() {
        if let Some(update) = applied.checked_sub(1).and_then(|number| updates.get(number)) {
            let list = match update.database {
                Database::Db => &mut state.db,
                Database::Dbx => &mut state.dbx,
            };
            *list = lists::appended(list, update.lists).map_err(malformed)?;
        }
        let Some(own) = state.authority(own) else { continue };
        for (bootloader, certificate) in keys.iter().rev() {
            let Some(first) = state.authority(certificate) else { continue };
            let authorities = if first == own { vec![first] } else { vec![first, own.clone()] };
            let events = events(&state, &authorities);
            // Registers begin with zeros.
            let register = events.iter().fold([0; 32], |register, (_, digest)| extend(&register, digest));
            // An update of what is there already changes nothing.
            if !starts.iter().any(|start| start.register == register) {
                starts.push(Start { applied, bootloader: *bootloader, events, register });
            }
        }
    }
    if state.authority(own).is_none() {
        return Err(Error::invalid(
            format!("db key {own_number}"),
            "the updates in the key directory revoke it, or do not make it known: the release would shut itself out",
        ));
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_secure_boot::lists::{SHA256, X509, list};
    use belvedere_secure_boot::update;

    fn factory() -> SecureBootVariables {
        let db = list(X509, [7; 16], &[b"first"]);
        SecureBootVariables { pk: vec![1], kek: vec![2], db, dbx: list(SHA256, [7; 16], &[&[0; 32]]) }
    }

    fn register(variables: &SecureBootVariables, authorities: &[Vec<u8>]) -> Digest {
        events(variables, authorities).iter().fold([0; 32], |register, (_, digest)| extend(&register, digest))
    }

    #[test]
    fn every_variable_counts() {
        let variables = factory();
        let value = register(&variables, &[vec![4]]);
        let changes: [fn(&mut SecureBootVariables); 4] = [
            |variables| variables.pk.push(0),
            |variables| variables.kek.push(0),
            |variables| variables.db.push(0),
            |variables| variables.dbx.push(0),
        ];
        for change in changes {
            let mut changed = variables.clone();
            change(&mut changed);
            assert_ne!(register(&changed, &[vec![4]]), value);
        }
        assert_ne!(register(&variables, &[vec![5]]), value);
        assert_ne!(register(&variables, &[vec![4], vec![5]]), value);
    }

    /// What an appliance goes through from the factory's key to the second one, whatever release it had last: in each state in
    /// which a release can start at all, its register is one that it was signed for.
    #[test]
    fn a_release_is_signed_for_every_state_in_which_it_can_start() {
        let bytes = [
            (Database::Dbx, update::encode(b"", &list(SHA256, [7; 16], &[&[9; 32]]))),
            (Database::Db, update::encode(b"", &list(X509, [7; 16], &[b"second"]))),
            (Database::Dbx, update::encode(b"", &list(X509, [7; 16], &[b"first"]))),
        ];
        let updates: Vec<Update<'_>> =
            bytes.iter().map(|(database, bytes)| Update::new(*database, bytes).unwrap()).collect();
        let (first, second) = ((1, b"first".to_vec()), (2, b"second".to_vec()));
        let of = |updates: &[Update<'_>], keys: &[(u32, Vec<u8>)]| {
            let starts = starts(&factory(), updates, keys)?;
            Ok::<_, Error>(starts.iter().map(|start| (start.applied, start.bootloader)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[], &[first.clone()]).unwrap(), [(0, 1)]);
        assert_eq!(of(&updates[..2], &[first.clone()]).unwrap(), [(0, 1), (1, 1), (2, 1)]);
        let both = [first.clone(), second];
        assert_eq!(of(&updates[..2], &both).unwrap(), [(2, 2), (2, 1)], "unknown to the firmware before");
        assert_eq!(of(&updates, &both).unwrap(), [(2, 2), (2, 1), (3, 2)]);
        // Whoever would shut himself out is told.
        assert!(of(&updates, &[first]).is_err() && of(&updates[..1], &both).is_err());

        // An older bootloader is measured before the release.
        let starts = starts(&factory(), &updates, &both).unwrap();
        let mut after = factory();
        after.db = [after.db, list(X509, [7; 16], &[b"second"])].concat();
        after.dbx = [after.dbx, list(SHA256, [7; 16], &[&[9; 32]])].concat();
        let entry = |certificate: &[u8]| [[7; 16].as_slice(), certificate].concat();
        assert_eq!(starts[0].register, register(&after, &[entry(b"second")]));
        assert_eq!(starts[1].register, register(&after, &[entry(b"first"), entry(b"second")]));
        after.dbx = [after.dbx, list(X509, [7; 16], &[b"first"])].concat();
        assert_eq!(starts[2].register, register(&after, &[entry(b"second")]));
    }

    #[test]
    fn an_update_of_what_is_there_already_is_no_state_of_its_own() {
        let same = update::encode(b"", &list(SHA256, [7; 16], &[&[0; 32]]));
        let updates = [Update::new(Database::Dbx, &same).unwrap()];
        assert_eq!(starts(&factory(), &updates, &[(1, b"first".to_vec())]).unwrap().len(), 1);
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
