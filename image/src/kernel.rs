//! The kernel: Debian's source, our configuration, everything built in.

use crate::board::Board;
use crate::cache::{Cache, Inputs, Stage};
use crate::debian::{self, Package};
use crate::error::{Error, Result};
use crate::program::{program, run};
use crate::progress::Progress;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that holds the source.
pub const SOURCE_PACKAGE: &str = "linux-source-6.12";

/// `aarch64-linux-gnu-`, or nothing on an Arm host.
fn cross_prefix() -> &'static str {
    if cfg!(target_arch = "aarch64") { "" } else { "aarch64-linux-gnu-" }
}

/// The lines of a fragment that say something to Kconfig.
fn settings(fragment: &str) -> impl Iterator<Item = &str> {
    fragment.lines().map(str::trim).filter(|line| line.starts_with("CONFIG_"))
}

/// Lines of the fragment that the final configuration does not contain. Kconfig drops what depends on something that
/// is off without a word. `CONFIG_X=n` is kept when X is `not set` or unknown.
fn lost_lines<'a>(fragment: &'a str, configuration: &str) -> Vec<&'a str> {
    let lines: std::collections::BTreeSet<&str> = configuration.lines().collect();
    settings(fragment)
        .filter(|line| match line.strip_suffix("=n") {
            Some(name) => lines.iter().any(|other| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))),
            None => !lines.contains(line),
        })
        .collect()
}

fn make(tree: &Path) -> Command {
    let mut command = program("nice");
    command.args(["-n", "10", "make", "--silent", "-C"]).arg(tree).args([
        "ARCH=arm64",
        &format!("CROSS_COMPILE={}", cross_prefix()),
        // Part of the kernel's version text.
        "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 2026",
        "KBUILD_BUILD_USER=belvedere",
        "KBUILD_BUILD_HOST=belvedere",
        "KBUILD_BUILD_VERSION=1",
    ]);
    command
}

/// The unpacked source; kept, so that another configuration compiles only what it changes.
fn source_tree(cache: &Cache, package: &Package) -> Result<PathBuf> {
    let parent = cache.work_directory(&format!("kernel-tree/{}", &package.sha256[..16]))?;
    let tree = parent.join(SOURCE_PACKAGE);
    if tree.join("Makefile").exists() {
        return Ok(tree);
    }
    let file = debian::fetch(cache, package)?;
    let unpacking = parent.join(".unpacking");
    if unpacking.exists() {
        fs::remove_dir_all(&unpacking).map_err(Error::file("remove", &unpacking))?;
    }
    debian::unpack(&file, &unpacking)?;
    let archive = unpacking.join(format!("usr/src/{SOURCE_PACKAGE}.tar.xz"));
    run(program("tar").arg("-C").arg(&unpacking).arg("-xf").arg(&archive), "unpacking the kernel's source")?;
    let unpacked = unpacking.join(SOURCE_PACKAGE);
    fs::rename(&unpacked, &tree).map_err(Error::file("rename", &unpacked))?;
    fs::remove_dir_all(&unpacking).map_err(Error::file("remove", &unpacking))?;
    Ok(tree)
}

/// The kernel of a board: the stage holds `Image` and `config`.
///
/// # Errors
/// When the source cannot be had, a line of the configuration is lost, or the compiler fails.
pub fn build(cache: &Cache, board: &Board, package: &Package, progress: &mut Progress) -> Result<Stage> {
    let compiler = format!("{}gcc", cross_prefix());
    let compiler = run(program(&compiler).arg("--version"), "asking for the compiler's version")?;
    let compiler = String::from_utf8_lossy(&compiler).lines().next().unwrap_or_default().to_owned();
    let fragment_text = board.kernel_configuration.concat();
    // The reasons beside the lines change nothing.
    let configuration = settings(&fragment_text).collect::<Vec<_>>().join("\n");
    let inputs = Inputs::new("kernel 1")
        .with("source", &package.sha256)
        .with("configuration", &configuration)
        .with("compiler", &compiler);
    let begun = progress.begin("kernel", "Linux from Debian's source (the first time takes about 12 minutes on 2 cores)");
    let stage = cache.stage("kernel", &inputs, |directory| {
        let tree = source_tree(cache, package)?;
        let fragment = directory.join("fragment");
        fs::write(&fragment, &fragment_text).map_err(Error::file("write", &fragment))?;
        run(make(&tree).arg("allnoconfig"), "configuring the kernel")?;
        run(
            program("sh").current_dir(&tree).args(["scripts/kconfig/merge_config.sh", "-m", ".config"]).arg(&fragment),
            "merging the kernel's configuration",
        )?;
        run(make(&tree).arg("olddefconfig"), "configuring the kernel")?;
        let configuration_file = tree.join(".config");
        let configuration = fs::read_to_string(&configuration_file).map_err(Error::file("read", &configuration_file))?;
        let lost = lost_lines(&fragment_text, &configuration);
        if !lost.is_empty() {
            return Err(Error::invalid(
                "the kernel's configuration",
                format!("Kconfig dropped {}; add what they depend on", lost.join(", ")),
            ));
        }
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        run(make(&tree).arg(format!("-j{processors}")).arg("Image"), "compiling the kernel")?;
        let image = tree.join("arch/arm64/boot/Image");
        fs::copy(&image, directory.join("Image")).map_err(Error::file("copy", &image))?;
        fs::copy(&configuration_file, directory.join("config")).map_err(Error::file("copy", &configuration_file))?;
        fs::remove_file(&fragment).map_err(Error::file("remove", &fragment))
    })?;
    progress.done("kernel", begun, if stage.warm { "from the cache" } else { "compiled" });
    Ok(stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_lines_are_found_and_unset_ones_are_not_lost() {
        let fragment = "# note\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_E=5\nCONFIG_F=n\n";
        let configuration = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\nCONFIG_E=6\nCONFIG_F=y\n";
        assert_eq!(lost_lines(fragment, configuration), ["CONFIG_B=y", "CONFIG_E=5", "CONFIG_F=n"]);
    }
}
