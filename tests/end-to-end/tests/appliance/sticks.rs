//! Sticks that an operator might plug in by mistake, and that an attacker might leave lying around.

use crate::chance::Chance;
use std::io::{Cursor, Read, Write};
use zip::write::SimpleFileOptions;

/// A stick, and what the appliance must say of it.
pub struct BadStick {
    /// For people, and part of the image's file name.
    pub name: &'static str,
    /// What is on it.
    pub files: Vec<(String, Vec<u8>)>,
    /// Words of which one must be the reason in the result file.
    pub reasons: &'static [&'static str],
}

type Contents = Vec<(String, Vec<u8>)>;

fn unpack(archive: &[u8]) -> Contents {
    let mut zip = zip::ZipArchive::new(Cursor::new(archive)).expect("the service's archive is a ZIP file");
    (0..zip.len())
        .map(|index| {
            let mut entry = zip.by_index(index).expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            (entry.name().expect("a readable name").into_owned(), content)
        })
        .collect()
}

fn pack(contents: &Contents) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in contents {
        zip.start_file(name.as_str(), SimpleFileOptions::default()).expect("an entry");
        zip.write_all(content).expect("its content");
    }
    zip.finish().expect("the end").into_inner()
}

fn changed(archive: &[u8], name: &str, content: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut contents = unpack(archive);
    let entry = contents.iter_mut().find(|entry| entry.0 == name).unwrap_or_else(|| panic!("the archive has {name}"));
    entry.1 = content(&entry.1);
    pack(&contents)
}

fn configuration(archive: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    changed(archive, "configuration.json", |text| {
        let mut value = serde_json::from_slice(text).expect("configuration.json is JSON");
        change(&mut value);
        serde_json::to_vec(&value).expect("it can be written")
    })
}

fn utf_16(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

/// Three of them, drawn by lot; all with BELVEDERE_LONG. Each takes eight seconds of lights.
pub fn some_of(mut sticks: Vec<BadStick>) -> Vec<BadStick> {
    if std::env::var_os("BELVEDERE_LONG").is_none() {
        let mut chance = Chance::begin();
        while sticks.len() > 3 {
            let place = (chance.fraction() * sticks.len() as f64) as usize;
            sticks.swap_remove(place);
        }
    }
    sticks
}

/// Bad sticks made from a good archive, which none of them uses up.
pub fn bad(good: &[u8]) -> Vec<BadStick> {
    let archive = |bytes: Vec<u8>| vec![("certificates-omni_test.zip".to_owned(), bytes)];
    let mut path_trick = unpack(good);
    path_trick.push(("../../etc/passwd".to_owned(), b"root::0:0::/:/bin/sh\n".to_vec()));
    vec![
        BadStick {
            name: "no-archive",
            files: vec![("holiday.jpg".to_owned(), vec![0xff, 0xd8, 0xff])],
            reasons: &["no_archive"],
        },
        BadStick {
            name: "two-archives",
            files: vec![
                ("certificates-omni_one.zip".to_owned(), good.to_vec()),
                ("certificates-omni_two.zip".to_owned(), good.to_vec()),
            ],
            reasons: &["several_archives"],
        },
        BadStick { name: "truncated", files: archive(good[..good.len() / 2].to_vec()), reasons: &["archive_damaged"] },
        BadStick {
            name: "zip-bomb",
            // 100 MB of zeros in 100 kB.
            files: archive(changed(good, "claim.certificate.pem", |_| vec![0; 100 << 20])),
            reasons: &["archive_entry_too_large", "archive_ratio", "archive_too_large"],
        },
        BadStick { name: "path-trick", files: archive(pack(&path_trick)), reasons: &["archive_unsafe_name"] },
        BadStick {
            name: "wrong-json",
            files: archive(changed(good, "configuration.json", |_| b"{\"device\": 1".to_vec())),
            reasons: &["archive_configuration"],
        },
        BadStick {
            name: "impossible-time",
            files: archive(configuration(good, |value| {
                for name in ["issued", "claim_expires"] {
                    value[name] = (value[name].as_i64().expect("a time") - 5 * 365 * 86_400).into();
                }
            })),
            reasons: &["clock"],
        },
        BadStick {
            name: "utf-16",
            files: archive(changed(good, "configuration.json", utf_16)),
            reasons: &["archive_encoding"],
        },
    ]
}
