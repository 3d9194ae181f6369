//! `belvedere-agent`: the appliance's link to its service.

use belvedere_agent::service::{Options, run};
use belvedere_interfaces::paths;
use clap::Parser;
use std::path::PathBuf;

/// Keeps the appliance in touch with its service: state, desired applications, reports, jobs, logs.
///
/// Waits until the appliance is provisioned, then connects by MQTT and HTTPS with the device certificate.
#[derive(Parser)]
struct Arguments {
    /// Socket of provisioning.
    #[arg(long, default_value = paths::PROVISIONING)]
    provisioning: PathBuf,
    /// Socket of applications.
    #[arg(long, default_value = paths::APPLICATIONS)]
    applications: PathBuf,
    /// Socket of the network service.
    #[arg(long, default_value = paths::NETWORK)]
    network: PathBuf,
    /// Socket of init, for the logs of services and restarts of the machine.
    #[arg(long, default_value = paths::INIT)]
    init: PathBuf,
    /// Socket of the front panel.
    #[arg(long, default_value = paths::FRONT_PANEL)]
    front_panel: PathBuf,
    /// Directory of what the agent keeps.
    #[arg(long, default_value = paths::AGENT_STATE)]
    state: PathBuf,
    /// Directory of the release, with the files "version" and "board".
    #[arg(long, default_value = paths::RELEASE)]
    release: PathBuf,
    /// File with the kernel's boot identifier.
    #[arg(long, default_value = "/proc/sys/kernel/random/boot_id")]
    boot_id: PathBuf,
}

fn main() {
    let a = Arguments::parse();
    belvedere_varlink::log_to_stderr();
    run(&Options {
        provisioning: a.provisioning,
        applications: a.applications,
        network: a.network,
        init: a.init,
        front_panel: a.front_panel,
        state: a.state,
        release: a.release,
        boot_id: a.boot_id,
    })
}
