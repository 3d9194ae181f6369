//! `belvedere-provisioning`: serves `org.belvedere.Provisioning`.

use belvedere_interfaces::paths;
use belvedere_provisioning::service::{Options, run};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Provisions the appliance from a USB stick, and keeps its identity (org.belvedere.Provisioning).
///
/// A FAT32 stick with the file certificates-omni_<name>.zip in its root folder, plugged in now or present at the start,
/// gives the appliance its network configuration and its identity. The stick then holds
/// panorama/provisioning-result.txt and logs, and the archive is wiped. Needs CAP_SYS_ADMIN (mount) and CAP_SYS_TIME.
#[derive(Parser)]
struct Arguments {
    /// Socket to serve.
    #[arg(long, default_value = paths::PROVISIONING)]
    socket: PathBuf,
    /// Directory of the identity.
    #[arg(long, default_value = paths::IDENTITY)]
    state: PathBuf,
    /// Socket of the network service.
    #[arg(long, default_value = paths::NETWORK)]
    network: PathBuf,
    /// Socket of the front panel.
    #[arg(long, default_value = paths::FRONT_PANEL)]
    front_panel: PathBuf,
    /// Socket of init, for the logs.
    #[arg(long, default_value = paths::INIT)]
    init: PathBuf,
    /// Where sticks are mounted.
    #[arg(long, default_value = paths::STICK)]
    mount_point: PathBuf,
    /// Directory of the release, with the file "version".
    #[arg(long, default_value = paths::RELEASE)]
    release: PathBuf,
    /// The TPM that makes and keeps the device's key, or the socket of a software TPM. Where neither is nor
    /// OP-TEE, the key is made in software and kept in a file.
    #[arg(long, default_value = paths::TPM)]
    tpm: PathBuf,
    /// OP-TEE, which does the same on a board without a TPM.
    #[arg(long, default_value = paths::SECURE_WORLD)]
    secure_world: PathBuf,
    /// Provision once from this directory instead of from sticks, then end (for tests).
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    let a = Arguments::parse();
    belvedere_varlink::log_to_stderr();
    let options = Options {
        socket: a.socket,
        state: a.state,
        network: a.network,
        front_panel: a.front_panel,
        init: a.init,
        mount_point: a.mount_point,
        version: Path::new(&a.release).join("version"),
        tpm: a.tpm,
        secure_world: a.secure_world,
        directory: a.directory,
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
