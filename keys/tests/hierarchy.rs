//! A hierarchy made in a temporary directory, looked at with the tools that will use it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use belvedere_keys::{Error, KeyDirectory, UefiKey, Validity, complete, create, describe};

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_new_hierarchy_is_complete_private_and_never_overwritten() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("some/keys");
    let keys = create(&target, Validity::default()).unwrap();

    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&target), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&target).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
        names.push(entry.file_name());
    }
    assert_eq!(names.len(), 19, "{names:?}");
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "staging directory left behind");

    // Each certificate belongs to its key.
    for key in UefiKey::ALL {
        let of_key = openssl(&["pkey", "-pubout", "-in", keys.uefi_key(key).to_str().unwrap()]);
        let of_certificate = openssl(&["x509", "-noout", "-pubkey", "-in", keys.uefi_certificate(key).to_str().unwrap()]);
        assert_eq!(of_key, of_certificate);
        openssl(&["x509", "-inform", "DER", "-noout", "-in", keys.uefi_certificate_der(key).to_str().unwrap()]);
    }
    let authority = keys.device_authority_certificate();
    let text = openssl(&["x509", "-noout", "-text", "-in", authority.to_str().unwrap()]);
    assert!(text.contains("CA:TRUE") && text.contains("P-256"), "{text}");
    let authority = authority.to_str().unwrap().to_owned();
    openssl(&["verify", "-CAfile", &authority, &authority]);
    assert!(fs::read_to_string(keys.log_key()).unwrap().starts_with("AGE-SECRET-KEY-1"));
    assert!(fs::read_to_string(keys.log_public_key()).unwrap().starts_with("age1"));
    assert_eq!(keys.owner_guid().unwrap().len(), 36);
    for file in describe(&keys).unwrap() {
        let shown = format!("{file:?}");
        assert!(!shown.contains("PRIVATE") && !shown.contains("SECRET"), "{shown}");
    }

    let before = fs::read(keys.release_key()).unwrap();
    assert!(matches!(create(&target, Validity::default()), Err(Error::NotEmpty(_))));
    assert_eq!(fs::read(keys.release_key()).unwrap(), before);

    fs::set_permissions(keys.release_key(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(KeyDirectory::open(&target), Err(Error::Exposed { .. })));
    fs::set_permissions(keys.release_key(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(keys.log_key()).unwrap();
    assert!(matches!(KeyDirectory::open(&target), Err(Error::Missing(_))));
}

#[test]
fn two_hierarchies_share_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let one = create(scratch.path().join("one"), Validity::default()).unwrap();
    let two = create(scratch.path().join("two"), Validity::default()).unwrap();
    assert_ne!(one.owner_guid().unwrap(), two.owner_guid().unwrap());
    assert_ne!(fs::read(one.log_key()).unwrap(), fs::read(two.log_key()).unwrap());
}

#[test]
fn a_hierarchy_of_an_earlier_version_is_completed_and_nothing_else_changes() {
    let scratch = tempfile::tempdir().unwrap();
    let keys = create(scratch.path().join("keys"), Validity::default()).unwrap();
    assert_eq!(complete(keys.path()).unwrap(), Vec::<&str>::new());
    let db = fs::read(keys.uefi_key(UefiKey::Db)).unwrap();
    // As an earlier version left it; then as a power cut left it.
    for (remove, made) in [(["policy.key", "policy.pub"].as_slice(), 2), (&["policy.pub"], 1)] {
        for name in remove {
            fs::remove_file(keys.path().join(name)).unwrap();
        }
        fs::write(keys.path().join(".policy.key.partial"), "torn").unwrap();
        let error = KeyDirectory::open(keys.path()).unwrap_err().to_string();
        assert!(error.contains("belvedere-keys complete"), "{error}");
        assert_eq!(complete(keys.path()).unwrap().len(), made);
    }
    assert_eq!(fs::read(keys.uefi_key(UefiKey::Db)).unwrap(), db);
    let mode = fs::metadata(keys.policy_key()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // What is not the policy key's is not made up.
    fs::remove_file(keys.log_key()).unwrap();
    assert!(matches!(complete(keys.path()), Err(Error::Missing(_))));
    assert!(matches!(complete(scratch.path().join("nothing")), Err(Error::Missing(_))));
}

#[test]
fn the_policy_key_signs_the_same_text_with_the_same_bytes_and_openssl_verifies_them() {
    let scratch = tempfile::tempdir().unwrap();
    let keys = create(scratch.path().join("keys"), Validity::default()).unwrap();
    let signature = keys.sign_with_policy_key(b"what a start looks like").unwrap();
    assert_eq!(signature, keys.sign_with_policy_key(b"what a start looks like").unwrap());
    let (text, file) = (scratch.path().join("text"), scratch.path().join("signature"));
    fs::write(&text, "what a start looks like").unwrap();
    fs::write(&file, signature).unwrap();
    let public = keys.policy_public_key();
    openssl(&[
        "dgst",
        "-sha256",
        "-verify",
        public.to_str().unwrap(),
        "-signature",
        file.to_str().unwrap(),
        text.to_str().unwrap(),
    ]);
    let modulus = openssl(&["rsa", "-pubin", "-noout", "-modulus", "-in", public.to_str().unwrap()]);
    let ours: String = keys.policy_modulus().unwrap().iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(modulus.trim(), format!("Modulus={ours}"));
}

/// boot L14: nothing said of a key directory whether appliances that are handed out may trust it.
#[test]
fn a_hierarchy_that_this_program_makes_says_that_it_is_for_development() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("keys");
    let keys = belvedere_keys::create(&target, belvedere_keys::Validity::default()).unwrap();
    assert_eq!(keys.purpose().unwrap(), belvedere_keys::Purpose::Development);
    let file = target.join("purpose");
    assert_eq!(fs::read_to_string(&file).unwrap(), "development\n");
    fs::write(&file, "production\n").unwrap();
    assert_eq!(keys.purpose().unwrap(), belvedere_keys::Purpose::Production);
    fs::write(&file, "both\n").unwrap();
    assert!(keys.purpose().is_err());
    // Made before there was the file.
    fs::remove_file(&file).unwrap();
    assert_eq!(keys.purpose().unwrap(), belvedere_keys::Purpose::Development);
}

#[test]
fn keys_of_jetson_boards_are_made_once_and_are_private() {
    use belvedere_keys::jetson::{self, FuseSecret, Jetson};
    let scratch = tempfile::tempdir().unwrap();
    let keys = create(scratch.path().join("keys"), Validity::default()).unwrap();
    for (generation, files) in [(Jetson::Orin, 8), (Jetson::Xavier, 4)] {
        assert_eq!(jetson::create(&keys, generation).unwrap().len(), files);
        assert!(jetson::create(&keys, generation).unwrap().is_empty(), "made again");
        for stem in generation.signing_keys() {
            let modulus = keys.jetson_modulus(generation, stem).unwrap();
            let private = keys.jetson_signing_key(stem);
            let told = openssl(&["rsa", "-noout", "-modulus", "-in", private.to_str().unwrap()]);
            let ours: String = modulus.iter().map(|byte| format!("{byte:02X}")).collect();
            assert_eq!(told.trim(), format!("Modulus={ours}"));
            assert_eq!(modulus.len() * 8, generation.signing_key_bits());
        }
        let path = keys.jetson_secret_file(generation, FuseSecret::Oem);
        let secret = keys.jetson_secret(generation, FuseSecret::Oem).unwrap();
        assert_ne!(secret, keys.jetson_secret(generation, FuseSecret::SecureBoot).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(keys.jetson_secret(generation, FuseSecret::Oem), Err(Error::Exposed { .. })));
    }
    // A power cut between a private key and its public half.
    let public = scratch.path().join("keys/jetson-xavier.pub");
    let before = fs::read(&public).unwrap();
    fs::remove_file(&public).unwrap();
    assert_eq!(jetson::create(&keys, Jetson::Xavier).unwrap(), ["jetson-xavier.pub"]);
    assert_eq!(fs::read(&public).unwrap(), before);
}
