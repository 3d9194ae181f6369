//! What the finished variable store holds, compared with what it must hold.
//!
//! The store is made from a template of Debian's, whose keys are public: whatever of it were left would let anybody sign
//! programs that our appliance starts. So nothing is taken for granted: each variable is one that is named here, and those
//! that decide about trust have the one right content.

use crate::board::Board;
use crate::error::{Error, Result};
use crate::firmware_variables::{GLOBAL, settings};
use crate::program::{program, run};
use crate::secure_boot_measurement::SecureBootVariables;
use belvedere_keys::{KeyDirectory, UefiKey};
use serde::Deserialize;
use std::path::Path;

/// As the tool lists it.
#[derive(Debug, Clone, Deserialize)]
struct Variable {
    name: String,
    guid: String,
    data: String,
}

#[derive(Deserialize)]
struct Store {
    variables: Vec<Variable>,
}

const SECURITY: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";

/// What the firmware itself keeps, with no bearing on what is started.
const HARMLESS: &[(&str, &str)] = &[
    ("ConIn", GLOBAL),
    ("ConOut", GLOBAL),
    ("ErrOut", GLOBAL),
    ("Lang", GLOBAL),
    ("PlatformLang", GLOBAL),
    ("MTC", "eb704011-1402-11d3-8e77-00a0c969723b"),
    ("MemoryTypeInformation", "4c19049f-4137-4dd3-9c10-8b97a83ffdfa"),
    ("VarErrorFlag", "04b37fe8-f6ae-480b-bdd5-37d98c5e89aa"),
];

/// EFI_CERT_X509_GUID and EFI_CERT_SHA256_GUID as they are stored.
const X509: &str = "a159c0a5e494a74a87b5ab155c2bf072";
const SHA256: &str = "2616c4c14c509240aca941f936934328";

/// Name, vendor and content that must be there.
type Wanted = (&'static str, &'static str, String);

/// A signature list (UEFI 2.10, 32.4.1) with one certificate, in hexadecimal digits.
fn signature_list(owner: uuid::Uuid, certificate: &[u8]) -> String {
    let size = u32::try_from(certificate.len() + 16).unwrap_or(u32::MAX);
    let list = [size.saturating_add(28).to_le_bytes(), 0u32.to_le_bytes(), size.to_le_bytes()].concat();
    format!("{X509}{}{}{}", hex::encode(list), hex::encode(owner.to_bytes_le()), hex::encode(certificate))
}

fn wanted(keys: &KeyDirectory, board: &Board) -> Result<Vec<Wanted>> {
    let guid = keys.owner_guid()?;
    let owner =
        uuid::Uuid::parse_str(guid.trim()).map_err(|error| Error::invalid("the keys' owner GUID", error.to_string()))?;
    let mut wanted = vec![
        ("SecureBootEnable", "f0a30bc7-af08-4556-99c4-001009c93a44", "01".to_owned()),
        ("CustomMode", "c076ec0c-7028-4399-a072-71ee5c448b9f", "00".to_owned()),
        ("VendorKeysNv", "9073e4e0-60ec-4b6e-9903-4c223c260f3c", "00".to_owned()),
        ("certdb", "d9bee56e-75dc-49d9-b4d7-b534210f637a", "04000000".to_owned()),
    ];
    wanted.extend(settings(board).into_iter().map(|(name, data)| (name, GLOBAL, hex::encode(data))));
    for (name, vendor, key) in [("PK", GLOBAL, UefiKey::Pk), ("KEK", GLOBAL, UefiKey::Kek), ("db", SECURITY, UefiKey::Db)] {
        let certificate = keys.uefi_certificate(key);
        let task = format!("reading {}", certificate.display());
        let der = run(program("openssl").args(["x509", "-outform", "der", "-in"]).arg(&certificate), &task)?;
        wanted.push((name, vendor, signature_list(owner, &der)));
    }
    Ok(wanted)
}

/// Says of each variable that is not as it must be, or is missing, what is wrong with it.
fn faults(found: &[Variable], wanted: &[Wanted]) -> Vec<String> {
    let mut faults = Vec::new();
    for variable in found {
        let is = |name: &str, vendor: &str| variable.name == name && variable.guid == vendor;
        if let Some((name, _, content)) = wanted.iter().find(|(name, vendor, _)| is(name, vendor)) {
            if variable.data != *content {
                faults.push(format!("{name} has another content than ours"));
            }
        } else if is("dbx", SECURITY) {
            // The tool's own first entry: one hash that nothing has.
            let one_hash = variable.data.len() == 2 * 76 && variable.data.starts_with(SHA256);
            if !one_hash {
                faults.push("dbx is not the one hash that the tool puts there".to_owned());
            }
        } else if !HARMLESS.iter().any(|(name, vendor)| is(name, vendor)) {
            faults.push(format!("{} of vendor {} has no place there", variable.name, variable.guid));
        }
    }
    for (name, vendor, _) in wanted {
        match found.iter().filter(|variable| variable.name == *name && variable.guid == *vendor).count() {
            1 => {}
            count => faults.push(format!("{name} is there {count} times")),
        }
    }
    faults
}

/// Has the tool list the finished store, and compares. Gives what decides about signatures.
///
/// # Errors
/// When something is in it that must not be, or the other way round.
pub fn check(tool: &str, keys: &KeyDirectory, board: &Board, store: &Path) -> Result<SecureBootVariables> {
    let listing = store.with_extension("listing.json");
    run(program(tool).arg("-i").arg(store).arg("--output-json").arg(&listing), "listing the firmware's variables")?;
    let text = std::fs::read(&listing).map_err(Error::file("read", &listing))?;
    std::fs::remove_file(&listing).map_err(Error::file("remove", &listing))?;
    let found: Store =
        serde_json::from_slice(&text).map_err(|error| Error::invalid(listing.display().to_string(), error.to_string()))?;
    let faults = faults(&found.variables, &wanted(keys, board)?);
    if !faults.is_empty() {
        return Err(Error::invalid("the firmware's variables", faults.join("; ")));
    }
    secure_boot_variables(&found.variables)
}

fn secure_boot_variables(found: &[Variable]) -> Result<SecureBootVariables> {
    let content = |name: &str| {
        let data = found.iter().find(|variable| variable.name == name).map_or("", |variable| variable.data.as_str());
        hex::decode(data).map_err(|error| Error::invalid(format!("the firmware's variable {name}"), error.to_string()))
    };
    Ok(SecureBootVariables { pk: content("PK")?, kek: content("KEK")?, db: content("db")?, dbx: content("dbx")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, guid: &str, data: &str) -> Variable {
        Variable { name: name.into(), guid: guid.into(), data: data.into() }
    }

    fn good() -> (tempfile::TempDir, Vec<Wanted>, Vec<Variable>) {
        let directory = tempfile::tempdir().unwrap();
        let keys = belvedere_keys::create(directory.path().join("keys"), belvedere_keys::Validity::default()).unwrap();
        let wanted = wanted(&keys, crate::board::find("qemu-aarch64").unwrap()).unwrap();
        let mut found: Vec<Variable> = wanted.iter().map(|(name, guid, data)| variable(name, guid, data)).collect();
        found.push(variable("ConOut", GLOBAL, "01"));
        found.push(variable("dbx", SECURITY, &format!("{SHA256}{}", "0".repeat(120))));
        (directory, wanted, found)
    }

    /// boot D21: nothing looked whether the template's public keys were gone.
    #[test]
    fn only_our_keys_and_what_the_firmware_keeps_may_be_there() {
        let (_directory, wanted, found) = good();
        assert_eq!(faults(&found, &wanted), Vec::<String>::new());
        let db = found.iter().position(|variable| variable.name == "db").unwrap();
        for (change, word) in [
            (variable("dbt", SECURITY, "00"), "dbt"),
            (variable("Boot0004", GLOBAL, "00"), "Boot0004"),
            (variable("PK", SECURITY, "00"), "PK"),
            (variable("MokList", "605dab50-e046-4300-abb6-3dd810dd8b23", "00"), "MokList"),
        ] {
            let mut found = found.clone();
            found.push(change);
            let faults = faults(&found, &wanted);
            assert!(faults.len() == 1 && faults[0].contains(word), "{faults:?}");
        }
        // A second key behind ours, another owner's key, none, and Secure Boot off.
        let second = format!("{0}{0}", found[db].data);
        for data in [second.as_str(), "", &found[db].data[..100]] {
            let mut found = found.clone();
            found[db].data = data.to_owned();
            assert!(faults(&found, &wanted)[0].starts_with("db "));
        }
        let mut other = found.clone();
        other.iter_mut().find(|variable| variable.name == "BootOrder").unwrap().data = "04000000".into();
        assert_eq!(faults(&other, &wanted), ["BootOrder has another content than ours"]);
        let mut without = found.clone();
        without.remove(db);
        assert_eq!(faults(&without, &wanted), ["db is there 0 times"]);
        let mut off = found.clone();
        off[0].data = "00".into();
        assert!(faults(&off, &wanted)[0].starts_with("SecureBootEnable"));
    }
}
