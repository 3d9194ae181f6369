//! Making an archive.

use crate::{Archive, entries};
use std::io::{Cursor, Write};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

/// Writes an archive. The same contents give the same bytes: entries are stored, not compressed (they are small and
/// mostly random), and carry ZIP's first possible time instead of the clock's.
pub fn write(archive: &Archive) -> Vec<u8> {
    let configuration = serde_json::to_string_pretty(&archive.configuration).expect("strings and numbers always serialise");
    let contents =
        [configuration.as_str(), &archive.claim_certificate_pem, &archive.claim_private_key_pem, &archive.service_ca_pem];
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o600);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries::ALL.into_iter().zip(contents) {
        zip.start_file(name, options).expect("a constant name, written to memory");
        zip.write_all(content.as_bytes()).expect("writing to memory");
    }
    zip.finish().expect("writing to memory").into_inner()
}
