//! Archives as people really plug them in: packed anew, opened in an editor, made by a newer service. The files in
//! `field-cases/` hold good members; their claims ended on 2026-11-18. Words stand in the place of each one's key, in an
//! archive that is accepted as PEM: the reader looks at a key's form alone.

use crate::{fixtures::*, *};
use std::io::{Cursor, Write};
use zip::CompressionMethod::{Deflated, Stored};
use zip::{ZipWriter, write::SimpleFileOptions};

fn refused(bytes: &[u8]) -> (&'static str, String) {
    let error = parse(bytes, &Limits::default()).expect_err("must be refused");
    (error.reason(), error.to_string())
}

fn accepted(bytes: &[u8]) -> Archive {
    parse(bytes, &Limits::default()).unwrap()
}

/// The good entries under other names, with more beside them.
fn renamed(name: impl Fn(&str) -> String, more: &[&str]) -> Vec<u8> {
    let mut all: Vec<_> = contents().into_iter().map(|(old, content)| (name(&old), content)).collect();
    all.extend(more.iter().map(|name| ((*name).to_owned(), vec![0; 40])));
    pack(&all, Deflated)
}

#[test]
fn field_case_finder_compress() {
    let archive = accepted(include_bytes!("../field-cases/finder-compress.zip"));
    assert_eq!(archive.configuration.device_id, "device-field");
}

#[test]
fn field_case_notepad_bom() {
    let archive = accepted(include_bytes!("../field-cases/notepad-bom.zip"));
    assert_eq!(archive.configuration.device_id, "device-field");
}

#[test]
fn field_case_comment() {
    let (reason, text) = refused(include_bytes!("../field-cases/comment.zip"));
    assert_eq!(reason, "archive_unsupported");
    assert!(text.contains("a comment"), "{text}");
}

#[test]
fn field_case_newer_member() {
    let (reason, text) = refused(include_bytes!("../field-cases/newer-member.zip"));
    assert_eq!(reason, "archive_unknown_member");
    assert!(text.contains("\"proxy\"") && text.contains("update the appliance"), "{text}");
    assert!(!text.contains("provision it again"), "{text}");
}

/// Private keys are generated, never kept in the tree, however well an archive packs them.
#[test]
fn no_field_case_holds_a_key() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut looked_at = 0;
    for folder in [top.join("field-cases"), top.join("../../fuzz/seeds/provisioning-archive")] {
        for file in std::fs::read_dir(&folder).unwrap() {
            let (path, mut keys) = (file.unwrap().path(), 0);
            // A seed is an archive behind a byte that says what it is; not every seed is one.
            let Ok(mut archive) = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()) else { continue };
            for index in 0..archive.len() {
                let (mut entry, mut content) = (archive.by_index(index).unwrap(), Vec::new());
                std::io::copy(&mut entry, &mut content).unwrap();
                let name = entry.name().unwrap().into_owned();
                // Beside it lies what the Finder notes about it, "._claim.private-key.pem".
                if name.rsplit('/').next() == Some(entries::CLAIM_PRIVATE_KEY) {
                    keys += 1;
                }
                let key = rcgen::KeyPair::from_pem(&String::from_utf8_lossy(&content));
                assert!(key.is_err(), "{}: {name} is a private key", path.display());
            }
            assert_eq!(keys, 1, "{}", path.display());
            looked_at += 1;
        }
    }
    assert!(looked_at >= 8, "only {looked_at} archives were looked at");
}

#[test]
fn a_newer_member_is_named_wherever_it_is() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Change); 4] = [
        ("surprise", |v| v["surprise"] = 1.into()),
        ("endpoints.mqtt.protocol", |v| v["endpoints"]["mqtt"]["protocol"] = "5".into()),
        ("network.Ethernet7", |v| v["network"]["Ethernet7"] = 1.into()),
        ("network.Ethernet0.Vlan", |v| v["network"]["Ethernet0"]["Vlan"] = 7.into()),
    ];
    for (path, change) in cases {
        let mut contents = contents();
        let mut value = serde_json::from_slice(&contents[0].1).unwrap();
        change(&mut value);
        contents[0].1 = serde_json::to_vec(&value).unwrap();
        let (reason, text) = refused(&pack(&contents, Stored));
        assert_eq!(reason, "archive_unknown_member", "{path}");
        assert!(text.contains(path), "{text}");
    }
}

#[test]
fn one_folder_and_the_litter_of_every_system() {
    let litter = [
        "x y/Thumbs.db",
        "x y/desktop.ini",
        "x y/._service-ca.pem",
        ".fseventsd/fseventsd-uuid",
        "__MACOSX/x y/._configuration.json",
        ".Spotlight-V100/Store-V2/a b/0.indexHead",
        "System Volume Information/WPSettings.dat",
        "$RECYCLE.BIN/desktop.ini",
        ".Trashes/501/claim.certificate.pem",
    ];
    accepted(&renamed(|name| format!("x y/{name}"), &litter));
    // Windows PowerShell's Compress-Archive, "extract all" into a folder of the same name, and a name that is no ASCII.
    accepted(&renamed(|name| format!("certificates-omni_x\\{name}"), &[]));
    accepted(&renamed(|name| format!("certificates-omni_x/certificates-omni_x/{name}"), &["certificates-omni_x/"]));
    accepted(&renamed(|name| format!("T\u{e9}l\u{e9}chargements/{name}"), &[]));
    // Litter is not unpacked: its size and its packing do not matter.
    let mut all = contents();
    all.push(("__MACOSX/._x".into(), vec![0; 1 << 20]));
    accepted(&pack(&all, Deflated));
}

#[test]
fn field_case_packed_anew_with_what_other_systems_leave() {
    for litter in [
        ".Trash-1000/info/a.trashinfo",
        "x/.Trash-1000/",
        "LOST.DIR/",
        "x/@eaDir/configuration.json@SynoEAStream",
        "x/configuration.json~",
        "x/.configuration.json.swp",
        "x/.~lock.configuration.json#",
        ".VolumeIcon.icns",
        "x/Icon\r",
        "x/claim.certificate.pem:Zone.Identifier",
    ] {
        accepted(&renamed(|name| format!("x/{name}"), &[litter]));
    }
    // The Finder shows such a folder as "stick 11/18".
    accepted(&renamed(|name| format!("stick 11:18/{name}"), &["stick 11:18/", "__MACOSX/stick 11:18/._configuration.json"]));
    for name in ["C:/x/y.pem", "C:\\y.pem", "x/y:z", "x/Icon\r/y", "Icon\n"] {
        assert_eq!(refused(&renamed(str::to_owned, &[name])).0, "archive_unsafe_name", "{name:?}");
    }
}

/// A whole stick, after an earlier try: its logs are larger than an archive may be.
#[test]
fn field_case_packed_anew_with_the_results_of_an_earlier_try() {
    let mut all: Vec<_> = contents().into_iter().map(|(name, content)| (format!("stick/{name}"), content)).collect();
    all.push(("stick/panorama/provisioning-result.txt".into(), b"FAILED".to_vec()));
    all.push(("stick/panorama/kern.log".into(), vec![b'x'; 1 << 20]));
    all.push(("stick/panorama/".into(), Vec::new()));
    accepted(&pack(&all, Deflated));
    // The folder of the four may be called so, too; another may not be anywhere.
    accepted(&renamed(|name| format!("panorama/{name}"), &["panorama/panorama/syslog.log"]));
    assert_eq!(refused(&renamed(|name| format!("x/{name}"), &["panorama/y"])).0, "archive_unknown_entry");
}

#[test]
fn field_case_what_to_do_where_a_browser_unpacked_it() {
    for more in ["photo.jpg", "other/", "caf\u{e9}.txt", "Configuration.JSON"] {
        let text = refused(&renamed(str::to_owned, &[more])).1;
        assert!(text.contains("if a browser unpacked it, pack its four files again"), "{text}");
    }
    let text = refused(&renamed(|name| name.replace("service-ca", "other"), &[])).1;
    assert!(text.contains("if a browser unpacked it, pack its four files again"), "{text}");
    // A newer service may put another file beside the four.
    let text = refused(&renamed(str::to_owned, &["policy.json"])).1;
    assert!(text.contains("update the appliance"), "{text}");
}

#[test]
fn field_case_newer_value() {
    let mut all = contents();
    let mut value: serde_json::Value = serde_json::from_slice(&all[0].1).unwrap();
    value["network"]["Ethernet0"]["ConnectionType"] = "SLAAC".into();
    all[0].1 = serde_json::to_vec(&value).unwrap();
    let (reason, text) = refused(&pack(&all, Stored));
    assert_eq!(reason, "archive_unknown_member");
    assert!(
        text.contains("\"network.Ethernet0.ConnectionType = SLAAC\"") && text.contains("update the appliance"),
        "{text}"
    );
}

/// `tar -a -c -f x.zip .`, which Windows and macOS have, begins every name with the folder that it stands in.
#[test]
fn names_that_begin_with_the_folder_itself() {
    accepted(&renamed(|name| format!("./{name}"), &["./"]));
    accepted(&renamed(|name| format!("./x/./{name}"), &["./", "./x/", "./.DS_Store"]));
    assert_eq!(refused(&renamed(|name| format!("./{name}"), &["./../x"])).0, "archive_unsafe_name");
    assert_eq!(refused(&renamed(str::to_owned, &["./configuration.json"])).0, "archive_duplicate_entry");
    assert_eq!(refused(&renamed(str::to_owned, &["."])).0, "archive_unsafe_name");
}

#[test]
fn two_folders_are_no_archive() {
    let mut all: Vec<_> = contents().into_iter().map(|(name, content)| (format!("a/{name}"), content)).collect();
    all.extend(contents().into_iter().map(|(name, content)| (format!("b/{name}"), content)));
    assert_eq!(refused(&pack(&all, Stored)).0, "archive_duplicate_entry");
    let split = renamed(|name| if name == entries::SERVICE_CA { name.into() } else { format!("a/{name}") }, &[]);
    assert_eq!(refused(&split).0, "archive_unknown_entry");
}

#[test]
fn an_archive_in_an_archive_says_so() {
    let inner = write(&good());
    let (reason, text) = refused(&pack(&[("certificates-omni_x.zip".into(), inner)], Stored));
    assert_eq!(reason, "archive_nested");
    assert!(text.contains("certificates-omni_x.zip"), "{text}");
}

#[test]
fn byte_order_marks_and_line_ends_in_every_member() {
    let archive = good();
    for index in 0..4 {
        let mut all = contents();
        all[index].1.splice(0..0, *b"\xef\xbb\xbf");
        assert_eq!(accepted(&pack(&all, Stored)).configuration.device_id, archive.configuration.device_id, "{index}");
        let mut all = contents();
        // One of an editor's, and one of the script's that read what the editor had saved.
        all[index].1.splice(0..0, *b"\xef\xbb\xbf\xef\xbb\xbf");
        let (reason, text) = refused(&pack(&all, Stored));
        assert!(reason == "archive_encoding" && text.contains("two byte order marks"), "{reason}: {text}");
        let mut all = contents();
        all[index].1 = String::from_utf8(all[index].1.clone()).unwrap().replace('\n', "\r\n").into_bytes();
        accepted(&pack(&all, Stored));
    }
}

/// `copy a.pem + b.pem` of two files with a mark puts one in the middle; no reader of PEM sees what stands behind it.
#[test]
fn field_case_no_authority_is_dropped_silently() {
    let with_second = |between: &str| {
        let mut all = contents();
        let second = format!("{between}{}", good().service_ca_pem);
        all[3].1.extend(second.into_bytes());
        pack(&all, Stored)
    };
    for between in ["", "\u{feff}", "\r\n\u{feff}", "\u{feff}\u{feff}", "\n\n"] {
        let archive = accepted(&with_second(between));
        use rustls_pki_types::{CertificateDer, pem::PemObject};
        assert_eq!(CertificateDer::pem_slice_iter(archive.service_ca_pem.as_bytes()).count(), 2, "{between:?}");
        assert_eq!(accepted(&write(&archive)), archive, "what was accepted can be written and read again");
    }
    for between in [" ", "\u{1a}", "\t", "\u{feff} ", "second: "] {
        let (reason, text) = refused(&with_second(between));
        assert_eq!(reason, "archive_credential", "{between:?}");
        assert!(text.contains("service-ca.pem") && text.contains("in front of -----BEGIN CERTIFICATE-----"), "{text}");
    }
}

/// OpenSSL writes the first one; old programs the second; mail takes dashes away or makes one of two.
#[test]
fn an_authority_of_another_heading_is_not_dropped_silently() {
    for heading in [
        "-----BEGIN TRUSTED CERTIFICATE-----",
        "-----BEGIN X509 CERTIFICATE-----",
        "----BEGIN CERTIFICATE-----",
        "\u{2013}\u{2013}-BEGIN CERTIFICATE\u{2013}\u{2013}-",
        "-----BEGIN\u{a0}CERTIFICATE-----",
        "A comment that says BEGIN CERTIFICATE.\n-----BEGIN CERTIFICATE-----",
    ] {
        let mut all = contents();
        let second = good().service_ca_pem.replace("-----BEGIN CERTIFICATE-----", heading);
        all[3].1.extend(second.into_bytes());
        let (reason, text) = refused(&pack(&all, Stored));
        assert_eq!(reason, "archive_credential", "{heading}");
        let told = text.contains("the word BEGIN") || text.contains("damaged PEM");
        assert!(text.contains("service-ca.pem") && told, "{heading}: {text}");
    }
}

#[test]
fn utf_16_and_other_encodings_are_named() {
    for index in 0..4 {
        let content = String::from_utf8(contents()[index].1.clone()).unwrap();
        let little: Vec<u8> = content.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = content.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in
            [[b"\xff\xfe".to_vec(), little.clone()].concat(), [b"\xfe\xff".to_vec(), big.clone()].concat(), little, big]
        {
            let mut all = contents();
            all[index].1 = bytes;
            let (reason, text) = refused(&pack(&all, Stored));
            assert_eq!(reason, "archive_encoding", "{index}");
            assert!(text.contains("UTF-16") && text.contains(&all[index].0), "{text}");
        }
        let mut all = contents();
        all[index].1.extend(b" caf\xe9");
        let (reason, text) = refused(&pack(&all, Stored));
        assert_eq!(reason, "archive_encoding", "{index}");
        assert!(text.contains("other than UTF-8"), "{text}");
    }
}

#[test]
fn zip64_and_extra_fields_are_read() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in contents() {
        zip.start_file(name, SimpleFileOptions::default().compression_method(Deflated).large_file(true)).unwrap();
        zip.write_all(&content).unwrap();
    }
    accepted(&zip.finish().unwrap().into_inner());
    accepted(&as_zip64(&pack(&contents(), Stored)));
}

/// The same archive with everything in ZIP64's places, as programs write it that do not know sizes beforehand.
fn as_zip64(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.len() - 22;
    let start = directory_header(bytes, 0);
    let mut long = bytes[..start].to_vec();
    for index in 0..4 {
        let at = directory_header(bytes, index);
        let number = |offset: usize| u32::from_le_bytes(bytes[at + offset..at + offset + 4].try_into().unwrap()).into();
        let sizes: [u64; 3] = [number(24), number(20), number(42)];
        let length =
            |offset: usize| usize::from(u16::from_le_bytes(bytes[at + offset..at + offset + 2].try_into().unwrap()));
        let mut header = bytes[at..at + 46].to_vec();
        for offset in [20, 24, 42] {
            header[offset..offset + 4].fill(0xff);
        }
        // An unknown extra field in front of ours.
        header[30..32].copy_from_slice(&(28u16 + 6).to_le_bytes());
        header[32..34].fill(0);
        long.extend(header);
        long.extend(&bytes[at + 46..at + 46 + length(28)]);
        long.extend([0x55, 0x54, 2, 0, 9, 9, 1, 0, 24, 0]);
        long.extend(sizes.into_iter().flat_map(u64::to_le_bytes));
    }
    let (record, size) = (long.len() as u64, (long.len() - start) as u64);
    long.extend(0x0606_4b50u32.to_le_bytes());
    long.extend(44u64.to_le_bytes());
    long.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    long.extend([4, 4, size, start as u64].into_iter().flat_map(u64::to_le_bytes));
    long.extend(0x0706_4b50u32.to_le_bytes());
    long.extend(0u32.to_le_bytes());
    long.extend(record.to_le_bytes());
    long.extend(1u32.to_le_bytes());
    long.extend(&bytes[end..]);
    let end = long.len() - 22;
    long[end + 8..end + 12].fill(0xff);
    long[end + 12..end + 20].fill(0xff);
    long
}

#[test]
fn zip64_that_points_elsewhere_is_damaged() {
    let good = as_zip64(&pack(&contents(), Stored));
    let locator = good.len() - 42;
    for changed in [u64::MAX, 0, 1 << 40, (locator as u64) - 57] {
        let mut bytes = good.clone();
        bytes[locator + 8..locator + 16].copy_from_slice(&changed.to_le_bytes());
        assert_eq!(refused(&bytes).0, "archive_damaged", "{changed}");
    }
    for offset in [32, 40, 48] {
        let mut bytes = good.clone();
        let at = locator - 56 + offset;
        bytes[at..at + 8].fill(0xff);
        let reason = refused(&bytes).0;
        assert!(["archive_damaged", "archive_unsupported"].contains(&reason), "{offset}: {reason}");
    }
}

#[test]
fn data_descriptors_are_no_reason_to_refuse() {
    // What a program writes that packs into a pipe: no sizes and no checksum in the local header, a descriptor behind.
    let packed = pack(&contents(), Deflated);
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for index in 0..4 {
        let (header, local) = (directory_header(&packed, index), local_header(&packed, index));
        let length = |at: usize| usize::from(u16::from_le_bytes(packed[at..at + 2].try_into().unwrap()));
        let size = u32::from_le_bytes(packed[header + 20..header + 24].try_into().unwrap()) as usize;
        let content = local + 30 + length(local + 26) + length(local + 28);
        let at = bytes.len();
        bytes.extend(&packed[local..content + size]);
        bytes[at + 6] |= 8;
        bytes[at + 14..at + 26].fill(0);
        bytes.extend(0x0807_4b50u32.to_le_bytes());
        bytes.extend(&packed[header + 16..header + 28]);
        let entry = directory.len();
        directory.extend(&packed[header..header + 46 + length(header + 28) + length(header + 30) + length(header + 32)]);
        directory[entry + 8] |= 8;
        directory[entry + 42..entry + 46].copy_from_slice(&(at as u32).to_le_bytes());
    }
    let start = bytes.len() as u32;
    bytes.extend(&directory);
    bytes.extend(&packed[packed.len() - 22..]);
    let end = bytes.len() - 22;
    bytes[end + 12..end + 16].copy_from_slice(&(directory.len() as u32).to_le_bytes());
    bytes[end + 16..end + 20].copy_from_slice(&start.to_le_bytes());
    accepted(&bytes);
}
