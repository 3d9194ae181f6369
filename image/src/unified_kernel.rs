//! The unified kernel image: stub, kernel, initramfs, command line, device tree, rollback level, updates of the
//! firmware's key databases and the signed boot policy in one signed file.
//! Nothing inside carries a signature of its own: it could be cut out and started by itself.

use crate::board::Board;
use crate::boot_policy;
use crate::error::{Error, Result};
use crate::root_image::Facts;
use crate::secure_boot_measurement::Start;
use crate::signing::sign;
use belvedere_event_log::expected::{self, Expected};
use belvedere_kernel_stub::measured;
use belvedere_kernel_stub::{CMDLINE, DTB, EXPECTED, INITRD, LINUX, POLICY, RELEASE, UPDATES, assemble, release_section};
use belvedere_keys::{DbKey, KeyDirectory};
use belvedere_tpm::Digest;
use belvedere_tpm::policy::sha256;
use std::fs;
use std::path::Path;

/// The console of an image that is handed out: none. Without a word the kernel would take the one that the device tree
/// names (`stdout-path`), and print there what services and containers say.
const NO_CONSOLE: &str = "console=null";

/// The kernel's command line. `init` finds the system partition by its name and opens it with these facts.
pub fn command_line(board: &Board, facts: &Facts, version: &str, level: u32, development: bool) -> String {
    let console = if development { board.development_console } else { NO_CONSOLE };
    format!(
        "{console} {} belvedere.root_hash={} belvedere.root_blocks={} belvedere.root_salt={} belvedere.board={} \
         belvedere.version={version} belvedere.rollback_level={level}",
        board.kernel_command_line, facts.root_hash, facts.data_blocks, facts.salt, board.name
    )
}

/// Where the parts lie.
pub struct Parts<'a> {
    /// Our UEFI stub, not signed.
    pub stub: &'a Path,
    /// The kernel's `Image`, not signed.
    pub kernel: &'a Path,
    /// Compressed cpio archive.
    pub initramfs: &'a Path,
    /// Flattened device tree.
    pub device_tree: &'a Path,
}

/// What a release is besides its parts.
pub struct Release<'a> {
    /// The kernel's command line.
    pub command_line: &'a str,
    /// See `Request::rollback_level`.
    pub rollback_level: u32,
    /// What the TPM's register of Secure Boot may hold on this board, and why.
    pub starts: &'a [Start],
    /// The section with updates of the firmware's key databases, if there are any.
    pub updates: Option<&'a [u8]>,
    /// What the image is signed with.
    pub db_key: &'a DbKey,
}

/// Assembles the image and signs it. Works in `scratch`.
///
/// # Errors
/// When a part cannot be read, is signed, does not fit together, or the image cannot be signed.
pub fn make(keys: &KeyDirectory, parts: &Parts<'_>, release: &Release<'_>, scratch: &Path, output: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).map_err(Error::file("read", path));
    let (kernel, initramfs, device_tree) = (read(parts.kernel)?, read(parts.initramfs)?, read(parts.device_tree)?);
    let level = release_section(release.rollback_level);
    let mut sections: Vec<(&str, &[u8])> = vec![
        (LINUX, &kernel),
        (INITRD, &initramfs),
        (CMDLINE, release.command_line.as_bytes()),
        (DTB, &device_tree),
        (RELEASE, level.as_bytes()),
    ];
    sections.extend(release.updates.map(|updates| (UPDATES, updates)));
    let expected = expected_events(release, &sections)?;
    let secure_boot: Vec<Digest> = release.starts.iter().map(|start| start.register).collect();
    let policy = boot_policy::make(keys, &secure_boot, &sections, release.rollback_level)?;
    sections.push((POLICY, &policy));
    sections.push((EXPECTED, expected.as_bytes()));
    let image = assemble(&read(parts.stub)?, &sections)
        .map_err(|error| Error::invalid("unified kernel image", error.to_string()))?;
    let unsigned = scratch.join("uki.unsigned.efi");
    fs::write(&unsigned, image).map_err(Error::file("write", &unsigned))?;
    sign(release.db_key, &unsigned, output)?;
    fs::remove_file(&unsigned).map_err(Error::file("remove", &unsigned))
}

/// The section that says which events lead to the registers that the policy is signed for.
fn expected_events(release: &Release<'_>, sections: &[(&str, &[u8])]) -> Result<String> {
    let content = |name: &str| sections.iter().find(|(section, _)| *section == name).map(|(_, content)| *content);
    let sections = measured::MEASURED.into_iter().filter_map(|name| {
        let text = measured::event(name, content(name)?);
        Some(expected::Event { register: measured::PCR, name: name.to_owned(), digest: sha256(&[text.as_bytes()]) })
    });
    let updates = release.starts.iter().map(|start| start.applied).max().unwrap_or_default();
    let start = |start: &Start| expected::Start {
        name: format!(
            "with {} of {updates} updates of the firmware's keys, bootloader of db key {}",
            start.applied, start.bootloader
        ),
        events: start
            .events
            .iter()
            .map(|(name, digest)| expected::Event { register: 7, name: (*name).to_owned(), digest: *digest })
            .collect(),
    };
    let document = Expected { release: sections.collect(), starts: release.starts.iter().map(start).collect() };
    document.encode().ok_or_else(|| Error::invalid("the expected events", "are too many for their section"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_what_init_needs() {
        let board = crate::board::find("qemu-aarch64").unwrap();
        let facts = Facts { data_blocks: 12, root_hash: "ab".into(), salt: "cd".into() };
        let line = command_line(board, &facts, "1.2.3", 7, true);
        for word in [
            "belvedere.root_hash=ab", "belvedere.root_blocks=12", "belvedere.root_salt=cd", "belvedere.board=qemu-aarch64",
            "belvedere.version=1.2.3", "belvedere.rollback_level=7", "acpi=off",
        ] {
            assert!(line.split(' ').any(|other| other == word), "{word} in {line}");
        }
        assert!(line.len() < 2048, "arm64's limit");
    }

    /// boot L13: every image printed what services say on the serial line.
    #[test]
    fn a_development_image_differs_by_its_console_alone() {
        let facts = Facts { data_blocks: 12, root_hash: "ab".into(), salt: "cd".into() };
        for board in crate::board::BOARDS {
            let words = |development| {
                let line = command_line(board, &facts, "1.2.3", 0, development);
                line.split(' ').map(str::to_owned).partition::<Vec<String>, _>(|word| word.starts_with("console="))
            };
            let ((production, others), (development, same)) = (words(false), words(true));
            assert_eq!(production, ["console=null"]);
            assert_eq!((development, others), (vec![board.development_console.to_owned()], same));
        }
    }
}
