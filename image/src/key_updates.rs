//! Updates of the firmware's key databases: made here, kept in the key directory, brought along by every release.
//!
//! They are numbered, and none is ever taken out or changed: an appliance has the first n of them, and what its TPM measures
//! depends on each.

use crate::error::{Error, Result};
use crate::program::{program, run};
use belvedere_keys::KeyDirectory;
use belvedere_secure_boot::lists::{SHA256, X509, list};
use belvedere_secure_boot::program::Program;
use belvedere_secure_boot::update;
use belvedere_secure_boot::updates::{MAXIMUM, Update};
use belvedere_secure_boot::{Database, Guid};
use std::fs;
use std::path::{Path, PathBuf};

/// What an update adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addition {
    /// A certificate whose programs may start, DER.
    Trusted(Vec<u8>),
    /// A certificate whose programs may not start, DER.
    Revoked(Vec<u8>),
    /// The hash of a program that may not start, as Authenticode takes it.
    RevokedProgram([u8; 32]),
}

/// The hash by which a program is revoked.
///
/// # Errors
/// When the file cannot be read or is no program.
pub fn hash_of(path: &Path) -> Result<[u8; 32]> {
    let file = fs::read(path).map_err(Error::file("read", path))?;
    let program = Program::read(&file).ok_or_else(|| Error::invalid(path.display().to_string(), "is no UEFI program"))?;
    Ok(program.hash)
}

/// A certificate, DER, of a file that holds it as PEM or DER.
///
/// # Errors
/// When the file holds none.
pub fn certificate(path: &Path) -> Result<Vec<u8>> {
    run(program("openssl").args(["x509", "-outform", "der", "-in"]).arg(path), &format!("reading {}", path.display()))
}

/// Signs an update and puts it behind those that the key directory has. Gives its file; nothing when the last one says the
/// same already.
///
/// # Errors
/// When there are as many as a release can bring along, the key cannot be used, or the file cannot be written.
pub fn add(keys: &KeyDirectory, addition: &Addition) -> Result<Option<PathBuf>> {
    let guid = keys.owner_guid()?;
    let owner: Guid = uuid::Uuid::parse_str(&guid)
        .map_err(|error| Error::invalid("the keys' owner GUID", error.to_string()))?
        .to_bytes_le();
    let (database, lists) = match addition {
        Addition::Trusted(certificate) => (Database::Db, list(X509, owner, &[certificate])),
        Addition::Revoked(certificate) => (Database::Dbx, list(X509, owner, &[certificate])),
        Addition::RevokedProgram(hash) => (Database::Dbx, list(SHA256, owner, &[hash])),
    };
    let there = read(keys)?;
    if there.iter().any(|(known, bytes)| *known == database && update::decode(database, bytes) == Ok(lists.as_slice())) {
        return Ok(None);
    }
    if there.len() >= MAXIMUM {
        return Err(Error::invalid(
            keys.updates().display().to_string(),
            format!("has {MAXIMUM} updates already, and a release brings no more along"),
        ));
    }
    let signature = keys.sign_with_key_exchange_key(&update::to_be_signed(database, &lists))?;
    let bytes = update::encode(&signature, &lists);
    let checked = update::decode(database, &bytes);
    checked.map_err(|error| Error::invalid("the update of the firmware's key databases", error.to_string()))?;
    let directory = keys.updates();
    fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    let path = directory.join(format!("{}-{}.auth", there.len() + 1, database.name()));
    let temporary = path.with_extension("partial");
    fs::write(&temporary, bytes).map_err(Error::file("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(Error::file("rename", &temporary))?;
    Ok(Some(path))
}

/// The updates of a key directory, in their order.
///
/// # Errors
/// When one of them cannot be read, or the numbers have a gap.
pub fn read(keys: &KeyDirectory) -> Result<Vec<(Database, Vec<u8>)>> {
    let directory = keys.updates();
    let names: Vec<String> = match fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries
            .map_err(Error::file("list", &directory))?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.ends_with(".auth"))
            .collect(),
    };
    let mut found = Vec::new();
    for number in 1..=names.len() {
        let invalid = |why: &str| Error::invalid(directory.display().to_string(), why.to_owned());
        let of_number: Vec<&String> = names.iter().filter(|name| name.starts_with(&format!("{number}-"))).collect();
        let [name] = of_number[..] else {
            return Err(invalid(&format!("there must be one update of each number, as in {number}-dbx.auth")));
        };
        let database = name.trim_end_matches(".auth").split_once('-').and_then(|(_, name)| Database::from_name(name));
        let database = database.ok_or_else(|| invalid(&format!("{name} is of no database that is known here")))?;
        let path = directory.join(name);
        let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
        Update::new(database, &bytes).map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))?;
        found.push((database, bytes));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_numbered_the_same_each_time_and_not_made_twice() {
        let scratch = tempfile::tempdir().unwrap();
        let keys = belvedere_keys::create(scratch.path().join("keys"), belvedere_keys::Validity::default()).unwrap();
        assert_eq!(read(&keys).unwrap(), []);
        let number = belvedere_keys::renew_db(&keys, belvedere_keys::Validity::default()).unwrap();
        assert_eq!((number, keys.db_keys().unwrap().len()), (2, 2));
        let der = |number| fs::read(keys.db_key(number).unwrap().certificate_der).unwrap();
        let names = [Addition::Trusted(der(2)), Addition::RevokedProgram([7; 32]), Addition::Revoked(der(1))]
            .map(|addition| add(&keys, &addition).unwrap().unwrap().file_name().unwrap().to_string_lossy().into_owned());
        assert_eq!(names, ["1-db.auth", "2-dbx.auth", "3-dbx.auth"]);
        assert_eq!(add(&keys, &Addition::Revoked(der(1))).unwrap(), None);
        let all = read(&keys).unwrap();
        assert_eq!(
            all.iter().map(|(database, _)| *database).collect::<Vec<_>>(),
            [Database::Db, Database::Dbx, Database::Dbx]
        );

        // Same key, same bytes.
        let path = keys.updates().join("2-dbx.auth");
        fs::remove_file(keys.updates().join("3-dbx.auth")).unwrap();
        fs::remove_file(&path).unwrap();
        add(&keys, &Addition::RevokedProgram([7; 32])).unwrap();
        assert_eq!(fs::read(&path).unwrap(), all[1].1);

        for number in 3..=6 {
            add(&keys, &Addition::RevokedProgram([number as u8; 32])).unwrap();
        }
        for number in 7..=MAXIMUM {
            fs::copy(&path, keys.updates().join(format!("{number}-dbx.auth"))).unwrap();
        }
        assert!(add(&keys, &Addition::RevokedProgram([0xff; 32])).is_err());
        fs::remove_file(&path).unwrap();
        assert!(read(&keys).unwrap_err().to_string().contains("one update of each number"));
    }

    /// Another program's word on the signature: the key exchange key's, over exactly what UEFI says.
    #[test]
    fn openssl_verifies_an_update() {
        let scratch = tempfile::tempdir().unwrap();
        let keys = belvedere_keys::create(scratch.path().join("keys"), belvedere_keys::Validity::default()).unwrap();
        let path = add(&keys, &Addition::RevokedProgram([7; 32])).unwrap().unwrap();
        let bytes = fs::read(path).unwrap();
        let lists = update::decode(Database::Dbx, &bytes).unwrap();
        let signed_data = &bytes[40..bytes.len() - lists.len()];
        // openssl wants a ContentInfo around it.
        let length = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
        let identifier = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
        let message = [
            &[0x30, 0x82][..],
            &length(identifier.len() + 4 + signed_data.len()),
            &identifier,
            &[0xa0, 0x82],
            &length(signed_data.len()),
            signed_data,
        ]
        .concat();
        let file = |name: &str, content: &[u8]| {
            let path = scratch.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let (message, kek) = (file("message", &message), keys.uefi_certificate(belvedere_keys::UefiKey::Kek));
        let verifies = |content: &Path| {
            let mut command = program("openssl");
            command.args(["smime", "-verify", "-binary", "-inform", "DER", "-noverify", "-in"]).arg(&message);
            command.arg("-content").arg(content).arg("-certfile").arg(&kek).arg("-nointern");
            run(&mut command, "verifying").is_ok()
        };
        let text = update::to_be_signed(Database::Dbx, lists);
        assert!(verifies(&file("content", &text)));
        assert!(!verifies(&file("content", &text[1..])));
    }
}
