//! The initial RAM file system: a `newc` cpio archive that holds `init`, the program that opens the
//! volumes, and the public half of the key that signs what a start looks like to the TPM.

use crate::error::{Error, Result};
use crate::program::{program, run};
use std::path::Path;

/// One entry.
struct Entry<'a> {
    name: &'a str,
    mode: u32,
    links: u32,
    device: (u32, u32),
    content: &'a [u8],
}

fn append(archive: &mut Vec<u8>, number: u32, entry: &Entry<'_>) {
    let fields: [u32; 13] = [
        number,
        entry.mode,
        0, // user
        0, // group
        entry.links,
        0, // time
        entry.content.len() as u32,
        0, // device that the archive's files lie on
        0,
        entry.device.0,
        entry.device.1,
        entry.name.len() as u32 + 1,
        0, // check sum, unused in this variant
    ];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(entry.name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(entry.content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// What goes into the archive.
pub struct Contents<'a> {
    /// The program `/init`.
    pub init: &'a Path,
    /// The program `/belvedere-storage`.
    pub storage: &'a Path,
    /// The policy key's modulus: `/policy-key`.
    pub policy_key: &'a [u8],
}

/// Most that the compressed archive may have, bytes: the firmware reads and hashes it at every start.
pub const MAXIMUM: u64 = 4 << 20;

/// The archive, not compressed: the programs, `/dev` with a console to complain on, and mount points.
fn archive(init: &[u8], storage: &[u8], policy_key: &[u8]) -> Vec<u8> {
    let directory = |name| Entry { name, mode: 0o040_755, links: 2, device: (0, 0), content: &[] };
    let entries = [
        Entry { name: "belvedere-storage", mode: 0o100_755, links: 1, device: (0, 0), content: storage },
        directory("dev"),
        Entry { name: "dev/console", mode: 0o020_600, links: 1, device: (5, 1), content: &[] },
        Entry { name: "init", mode: 0o100_755, links: 1, device: (0, 0), content: init },
        Entry { name: "policy-key", mode: 0o100_444, links: 1, device: (0, 0), content: policy_key },
        directory("proc"),
        directory("root"),
        directory("run"),
        directory("sys"),
        Entry { name: "TRAILER!!!", mode: 0, links: 1, device: (0, 0), content: &[] },
    ];
    let mut bytes = Vec::with_capacity(init.len() + storage.len() + 4096);
    for (number, entry) in (1..).zip(&entries) {
        append(&mut bytes, number, entry);
    }
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn read_program(path: &Path) -> Result<Vec<u8>> {
    let content = std::fs::read(path).map_err(Error::file("read", path))?;
    if content.get(..4) == Some(b"\x7fELF") {
        return Ok(content);
    }
    Err(Error::invalid(path.display().to_string(), "not an ELF program"))
}

/// Writes the compressed archive.
///
/// # Errors
/// When a file cannot be read or written, the compressor fails, or the result is larger than [`MAXIMUM`].
pub fn make(contents: &Contents<'_>, output: &Path) -> Result<()> {
    let (init, storage) = (read_program(contents.init)?, read_program(contents.storage)?);
    let plain = output.with_extension("cpio");
    std::fs::write(&plain, archive(&init, &storage, contents.policy_key)).map_err(Error::file("write", &plain))?;
    run(
        program("zstd").args(["-q", "-f", "-19", "--no-progress", "--rm"]).arg(&plain).arg("-o").arg(output),
        "compressing the initramfs",
    )?;
    match std::fs::metadata(output).map_err(Error::file("look at", output))?.len() {
        size if size > MAXIMUM => Err(Error::invalid(
            output.display().to_string(),
            format!("has {size} bytes, more than the {MAXIMUM} that it may"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_lists_what_we_wrote() {
        let mut child = Command::new("cpio")
            .args(["-tv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is installed");
        child.stdin.take().unwrap().write_all(&archive(b"\x7fELF and more", b"\x7fELF", b"key")).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        assert!(
            listing.lines().any(|line| line.starts_with("-rwxr-xr-x") && line.ends_with(" belvedere-storage")),
            "{listing}"
        );
        assert!(listing.lines().any(|line| line.starts_with("-r--r--r--") && line.ends_with(" policy-key")), "{listing}");
        assert!(
            listing.lines().any(|line| line.starts_with("-rwxr-xr-x") && line.ends_with(" init") && line.contains(" 13 ")),
            "{listing}"
        );
        assert!(
            listing
                .lines()
                .any(|line| line.starts_with("crw-------") && line.contains("5,   1") && line.ends_with("dev/console")),
            "{listing}"
        );
    }

    #[test]
    fn only_programs_become_init() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("init");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let program = directory.path().join("program");
        std::fs::write(&program, b"\x7fELF").unwrap();
        let output = directory.path().join("initramfs.zst");
        let made = |init, storage| make(&Contents { init, storage, policy_key: b"key" }, &output);
        assert!(made(&script, &program).is_err() && made(&program, &script).is_err());
        assert!(made(&program, &program).is_ok());
    }
}
