//! The tool: puts a unified kernel image together from files.

#![allow(clippy::disallowed_methods, reason = "a tool of the build: what it makes can be made again")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use belvedere_kernel_stub::{CMDLINE, DTB, INITRD, LINUX, RELEASE, assemble, command_line, release_section};
use clap::{Parser, Subcommand};

/// Put a unified kernel image together. On UEFI this program is the stub that such an image begins with.
#[derive(Parser)]
#[command(name = "belvedere-kernel-stub")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Append kernel, command line, initramfs and device tree to the unsigned stub. Sign the result afterwards.
    Assemble {
        /// The stub, built with `scripts/cargo --uefi build -p belvedere-kernel-stub`.
        #[arg(long)]
        stub: PathBuf,
        /// Kernel `Image`, not signed: a signed one could be cut out and started with any command line.
        #[arg(long)]
        linux: PathBuf,
        /// File with one line: the kernel's command line.
        #[arg(long)]
        cmdline: PathBuf,
        /// Initramfs.
        #[arg(long)]
        initrd: Option<PathBuf>,
        /// Flattened device tree.
        #[arg(long)]
        dtb: Option<PathBuf>,
        /// Rollback level of the release: below the fuses it is never started.
        #[arg(long, default_value_t = 0)]
        rollback_level: u32,
        /// Where the image goes.
        #[arg(long)]
        output: PathBuf,
    },
}

pub fn main() -> ExitCode {
    let Command::Assemble { stub, linux, cmdline, initrd, dtb, rollback_level, output } = Arguments::parse().command;
    let result = (|| {
        let line = read(&cmdline)?;
        if command_line(&line).is_none() {
            return Err(format!("{} is not one line of UTF-8", cmdline.display()));
        }
        let release = release_section(rollback_level).into_bytes();
        let mut parts = vec![(LINUX, read(&linux)?), (CMDLINE, line), (RELEASE, release)];
        for (name, path) in [(INITRD, initrd), (DTB, dtb)] {
            if let Some(path) = path {
                parts.push((name, read(&path)?));
            }
        }
        let parts: Vec<(&str, &[u8])> = parts.iter().map(|(name, content)| (*name, content.as_slice())).collect();
        let image = assemble(&read(&stub)?, &parts).map_err(|error| error.to_string())?;
        fs::write(&output, image).map_err(|error| format!("cannot write {}: {error}", output.display()))
    })();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("belvedere-kernel-stub: {message}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
