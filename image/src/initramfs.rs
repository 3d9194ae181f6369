//! The initial RAM file system: a `newc` cpio archive that holds `init` and nothing else.

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

/// The archive, not compressed: `/init`, `/dev` with a console to complain on, and mount points.
fn archive(init: &[u8]) -> Vec<u8> {
    let directory = |name| Entry { name, mode: 0o040_755, links: 2, device: (0, 0), content: &[] };
    let entries = [
        directory("dev"),
        Entry { name: "dev/console", mode: 0o020_600, links: 1, device: (5, 1), content: &[] },
        Entry { name: "init", mode: 0o100_755, links: 1, device: (0, 0), content: init },
        directory("proc"),
        directory("root"),
        directory("run"),
        directory("sys"),
        Entry { name: "TRAILER!!!", mode: 0, links: 1, device: (0, 0), content: &[] },
    ];
    let mut bytes = Vec::with_capacity(init.len() + 4096);
    for (number, entry) in (1..).zip(&entries) {
        append(&mut bytes, number, entry);
    }
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Writes the compressed archive with this program as `/init`.
///
/// # Errors
/// When a file cannot be read or written, or the compressor fails.
pub fn make(init: &Path, output: &Path) -> Result<()> {
    let content = std::fs::read(init).map_err(Error::file("read", init))?;
    if content.get(..4) != Some(b"\x7fELF") {
        return Err(Error::invalid(init.display().to_string(), "not an ELF program"));
    }
    let plain = output.with_extension("cpio");
    std::fs::write(&plain, archive(&content)).map_err(Error::file("write", &plain))?;
    run(
        program("zstd").args(["-q", "-f", "-19", "--no-progress", "--rm"]).arg(&plain).arg("-o").arg(output),
        "compressing the initramfs",
    )?;
    Ok(())
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
        child.stdin.take().unwrap().write_all(&archive(b"\x7fELF and more")).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
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
        assert!(make(&script, &directory.path().join("initramfs.zst")).is_err());
    }
}
