use crate::{fixtures::*, *};
use proptest::prelude::*;
use zip::CompressionMethod::{Deflated, Stored};

fn reason(bytes: &[u8]) -> &'static str {
    let error = parse(bytes, &Limits::default()).expect_err("must be refused");
    assert!(!error.to_string().contains('\n'));
    error.reason()
}

fn changed(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let mut contents = contents();
    change(&mut contents);
    pack(&contents, Deflated)
}

fn with_configuration(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    changed(|contents| {
        let mut value = serde_json::from_slice(&contents[0].1).unwrap();
        change(&mut value);
        contents[0].1 = serde_json::to_vec(&value).unwrap();
    })
}

#[test]
fn what_is_written_is_read_back() {
    let archive = good();
    assert_eq!(parse(&write(&archive), &Limits::default()), Ok(archive));
}

#[test]
fn the_same_archive_gives_the_same_bytes() {
    let archive = good();
    assert_eq!(write(&archive), write(&archive));
}

#[test]
fn a_deflated_archive_is_read_too() {
    parse(&pack(&contents(), Deflated), &Limits::default()).unwrap();
    parse(&pack(&contents(), Stored), &Limits::default()).unwrap();
}

#[test]
fn debug_output_holds_no_key() {
    let archive = good();
    let key_line = archive.claim_private_key_pem.lines().nth(1).unwrap();
    assert!(!format!("{archive:?}").contains(key_line));
}

#[test]
fn file_too_large() {
    let limits = Limits { archive_bytes: 100, ..Limits::default() };
    assert_eq!(parse(&[0; 101], &limits).unwrap_err().reason(), "archive_too_large");
    assert_eq!(parse(&[0; 100], &limits).unwrap_err().reason(), "archive_damaged");
}

#[test]
fn truncated_anywhere() {
    let bytes = write(&good());
    for length in 0..bytes.len() {
        assert_eq!(reason(&bytes[..length]), "archive_damaged", "cut at {length}");
    }
}

#[test]
fn not_a_zip_file() {
    assert_eq!(reason(b"<html><body>Sign in to the guest network, please</body></html>"), "archive_damaged");
}

#[test]
fn data_before_or_behind_the_archive() {
    let bytes = write(&good());
    assert_eq!(reason(&[b"MZ-prefix".as_slice(), &bytes].concat()), "archive_damaged");
    assert_eq!(reason(&[bytes.as_slice(), b"suffix"].concat()), "archive_damaged");
}

#[test]
fn one_flipped_byte_in_a_file_is_noticed() {
    let mut bytes = write(&good());
    let at = local_header(&bytes, 3) + 200;
    bytes[at] ^= 1;
    assert_eq!(reason(&bytes), "archive_damaged");
}

#[test]
fn zip_bomb_by_ratio() {
    assert_eq!(reason(&changed(|c| c[3].1 = vec![b'\n'; 60_000])), "archive_ratio");
}

#[test]
fn zip_bomb_by_size() {
    assert_eq!(reason(&changed(|c| c[3].1 = vec![b'\n'; 10 << 20])), "archive_entry_too_large");
}

#[test]
fn zip_bomb_that_declares_a_small_size() {
    let mut bytes = changed(|c| c[3].1 = vec![b'\n'; 10 << 20]);
    let (directory, local) = (directory_header(&bytes, 3), local_header(&bytes, 3));
    bytes[directory + 24..directory + 28].copy_from_slice(&100u32.to_le_bytes());
    bytes[local + 22..local + 26].copy_from_slice(&100u32.to_le_bytes());
    let reason = reason(&bytes);
    assert!(reason == "archive_entry_too_large" || reason == "archive_damaged", "{reason}");
}

#[test]
fn zip_bomb_by_overlapping_files() {
    let mut bytes = write(&good());
    let (first, second) = (directory_header(&bytes, 0), directory_header(&bytes, 1));
    let offset: [u8; 4] = bytes[first + 42..first + 46].try_into().unwrap();
    bytes[second + 42..second + 46].copy_from_slice(&offset);
    assert_eq!(reason(&bytes), "archive_damaged");
}

#[test]
fn entry_size_at_the_limit_and_one_past_it() {
    let size = contents()[3].1.len() as u64;
    let bytes = pack(&contents(), Stored);
    let at = Limits {
        entry_bytes: size.max(contents()[0].1.len() as u64).max(contents()[1].1.len() as u64),
        ..Limits::default()
    };
    parse(&bytes, &at).unwrap();
    let past = Limits { entry_bytes: at.entry_bytes - 1, ..Limits::default() };
    assert_eq!(parse(&bytes, &past).unwrap_err().reason(), "archive_entry_too_large");
}

#[test]
fn total_size_is_bounded() {
    let bytes = pack(&contents(), Stored);
    let total: usize = contents().iter().map(|(_, content)| content.len()).sum();
    // Keys and signatures differ in length from run to run by a few bytes.
    let limits = Limits { total_bytes: total as u64 - 100, ..Limits::default() };
    assert_eq!(parse(&bytes, &limits).unwrap_err().reason(), "archive_entry_too_large");
}

#[test]
fn too_many_entries() {
    let more = |n: usize| changed(|c| c.extend((0..n).map(|i| (format!("extra{i}"), Vec::new()))));
    assert_eq!(reason(&more(60)), "archive_unknown_entry");
    assert_eq!(reason(&more(61)), "archive_too_many_entries");
}

#[test]
fn path_tricks() {
    for name in [
        "../claim", "a/../../claim", "a\\..\\claim", "__MACOSX/../claim", "/etc/passwd", "\\\\host\\share", "C:x", "..",
        "a//b", "caf\u{e9}.pem", "nul\0.pem", "x\r\n", "a/b/c/d/e/f/g/h/i",
    ] {
        assert_eq!(reason(&changed(|c| c.push((name.into(), b"x".to_vec())))), "archive_unsafe_name", "{name:?}");
    }
    for name in ["a/b", "a\\b", "a/claim.certificate.pem"] {
        assert_eq!(reason(&changed(|c| c.push((name.into(), b"x".to_vec())))), "archive_unknown_entry", "{name:?}");
    }
}

#[test]
fn an_empty_name() {
    let mut bytes = changed(|c| c.push(("z".into(), b"x".to_vec())));
    let at = directory_header(&bytes, 4);
    bytes[at + 46] = 0;
    assert_eq!(reason(&bytes), "archive_unsafe_name");
}

#[test]
fn folders_and_links() {
    assert_eq!(reason(&changed(|c| c.push(("folder/".into(), Vec::new())))), "archive_not_a_file");
    let mut bytes = write(&good());
    let at = directory_header(&bytes, 2);
    bytes[at + 38..at + 42].copy_from_slice(&(0o120_777u32 << 16).to_le_bytes());
    assert_eq!(reason(&bytes), "archive_not_a_file");
}

#[test]
fn duplicate_names() {
    let mut bytes = changed(|c| c.push(("service-cb.pem".into(), b"other".to_vec())));
    rename(&mut bytes, 4, b"service-ca.pem");
    assert_eq!(reason(&bytes), "archive_duplicate_entry");
    let bytes = changed(|c| c.push(("SERVICE-CA.PEM".into(), b"other".to_vec())));
    assert_eq!(reason(&bytes), "archive_duplicate_entry");
}

#[test]
fn another_name_in_the_local_header_does_not_matter_to_us() {
    // The directory decides; nothing is ever unpacked by name.
    let mut bytes = write(&good());
    let at = local_header(&bytes, 3);
    bytes[at + 30..at + 44].copy_from_slice(b"../../../../..");
    parse(&bytes, &Limits::default()).unwrap();
}

#[test]
fn unknown_and_missing_entries() {
    assert_eq!(reason(&changed(|c| c.push(("autorun.inf".into(), b"x".to_vec())))), "archive_unknown_entry");
    for index in 0..4 {
        assert_eq!(reason(&changed(|c| drop(c.remove(index)))), "archive_missing_entry");
    }
    assert_eq!(reason(&pack(&[], Stored)), "archive_missing_entry");
}

#[test]
fn encrypted() {
    let mut bytes = write(&good());
    let at = directory_header(&bytes, 0);
    bytes[at + 8] |= 1;
    assert_eq!(reason(&bytes), "archive_encrypted");
}

#[test]
fn unsupported_compression() {
    let mut bytes = write(&good());
    let at = directory_header(&bytes, 0);
    bytes[at + 10] = 93;
    assert_eq!(reason(&bytes), "archive_unsupported");
}

#[test]
fn a_comment() {
    let mut bytes = write(&good());
    let end = bytes.len();
    bytes[end - 2] = 1;
    assert_eq!(reason(&bytes), "archive_damaged", "the comment is cut off");
    bytes.push(b'x');
    assert_eq!(reason(&bytes), "archive_unsupported");
    bytes.push(b'x');
    assert_eq!(reason(&bytes), "archive_damaged", "more behind it");
}

#[test]
fn wrong_json() {
    assert_eq!(reason(&changed(|c| c[0].1 = b"{".to_vec())), "archive_configuration");
    assert_eq!(reason(&changed(|c| c[0].1 = b"[]".to_vec())), "archive_configuration");
    assert_eq!(reason(&changed(|c| c[0].1 = vec![0xff, 0xfe])), "archive_encoding");
    assert_eq!(reason(&changed(|c| c[0].1 = b"[".repeat(20_000))), "archive_ratio");
    let nested: Vec<u8> = [b"{\"format_version\":1,\"x\":".to_vec(), b"[".repeat(3_000)].concat();
    assert_eq!(reason(&changed(|c| c[0].1 = nested)), "archive_configuration");
    let twice = br#"{"format_version":1,"format_version":1}"#;
    assert_eq!(reason(&changed(|c| c[0].1 = twice.to_vec())), "archive_configuration", "two answers are none");
}

#[test]
fn wrong_values() {
    type Change = fn(&mut serde_json::Value);
    let changes: [Change; 10] = [
        |v| v["device_id"] = "a/+/#".into(),
        |v| v["device_id"] = "".into(),
        |v| v["device_name"] = "two\nlines".into(),
        |v| v["claim_client_id"] = "x y".into(),
        |v| v["provisioning_template"] = "../x".into(),
        |v| v["endpoints"]["mqtt"]["host"] = "host name".into(),
        |v| v["endpoints"]["https"]["port"] = 0.into(),
        |v| v["issued"] = 0.into(),
        |v| v["claim_expires"] = ISSUED.into(),
        |v| v["claim_expires"] = (ISSUED + 8 * 86_400).into(),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert_eq!(reason(&with_configuration(change)), "archive_configuration", "change {index}");
    }
}

#[test]
fn unknown_format_version() {
    let bytes = with_configuration(|v| v["format_version"] = 2.into());
    assert_eq!(reason(&bytes), "archive_format_version");
    // Also when a newer format has more in it.
    let bytes = changed(|c| {
        c[0].1 = b"{\"format_version\":2,\"new\":true}".to_vec();
        c.push(("new.bin".into(), b"x".to_vec()));
    });
    assert_eq!(reason(&bytes), "archive_format_version");
}

#[test]
fn credentials_that_are_not_what_they_say() {
    for index in 1..4 {
        assert_eq!(reason(&changed(|c| c[index].1 = b"hello".to_vec())), "archive_credential");
        assert_eq!(reason(&changed(|c| c[index].1.clear())), "archive_credential");
    }
    // Key where the certificate should be, and the other way round.
    assert_eq!(
        reason(&changed(|c| {
            let key = c[2].1.clone();
            c[2].1 = std::mem::replace(&mut c[1].1, key);
        })),
        "archive_credential"
    );
    // A certificate of somebody else.
    assert_eq!(reason(&changed(|c| c[1].1 = c[3].1.clone())), "archive_credential");
    // An authority that is none.
    assert_eq!(reason(&changed(|c| c[3].1 = c[1].1.clone())), "archive_credential");
    // Too many authorities.
    assert_eq!(reason(&changed(|c| c[3].1 = c[3].1.repeat(9))), "archive_credential");
}

#[test]
fn expiry_is_the_first_second_that_is_too_late() {
    let archive = good();
    assert!(!archive.claim_expired(ISSUED + 299));
    assert!(archive.claim_expired(ISSUED + 300));
}

#[test]
fn file_names() {
    assert_eq!(file_name("front door/1"), "certificates-omni_front_door_1.zip");
    assert!(is_archive_name(&file_name("x")));
    assert!(is_archive_name("CERTIFICATES-OMNI_X.ZIP"));
    assert!(!is_archive_name("._certificates-omni_x.zip"));
    assert!(!is_archive_name("certificates-omni_.zip"));
}

#[test]
fn choosing_the_archive() {
    let file = |name: &str| Listed { name: name.into(), is_file: true };
    let folder = |name: &str| Listed { name: name.into(), is_file: false };
    assert_eq!(choose(&[]).unwrap_err().reason(), "no_archive");
    assert_eq!(choose(&[file("photo.jpg"), folder("certificates-omni_a.zip")]).unwrap_err().reason(), "no_archive");
    assert_eq!(choose(&[file("photo.jpg"), file("certificates-omni_a.zip")]), Ok("certificates-omni_a.zip"));
    let two = [file("certificates-omni_a.zip"), file("certificates-omni_a (1).zip")];
    assert_eq!(choose(&two).unwrap_err().reason(), "several_archives");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parse_never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = parse(&bytes, &Limits::default());
    }

    #[test]
    fn parse_never_panics_on_damaged_archives(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40), cut in any::<prop::sample::Index>()) {
        let mut bytes = pack(&contents(), Deflated);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = parse(&bytes, &Limits::default());
        bytes.truncate(cut.index(bytes.len()));
        let _ = parse(&bytes, &Limits::default());
    }
}
