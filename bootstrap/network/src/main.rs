//! `belvedere-network`: serves `org.belvedere.Network`.

use belvedere_interfaces::paths;
use belvedere_network::service::{Options, run};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Configures the appliance's two Ethernet ports (org.belvedere.Network). Without any configuration, both use DHCP.
///
/// Needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE.
#[derive(Parser)]
struct Arguments {
    /// Socket to serve.
    #[arg(long, default_value = paths::NETWORK)]
    socket: PathBuf,
    /// Directory of the kept configuration.
    #[arg(long, default_value = paths::NETWORK_STATE)]
    state: PathBuf,
    /// File to write name servers to; /etc/resolv.conf links to it.
    #[arg(long, default_value = paths::RESOLV_CONF)]
    resolv_conf: PathBuf,
    /// Socket of the front panel.
    #[arg(long, default_value = paths::FRONT_PANEL)]
    front_panel: PathBuf,
    /// Use these interfaces, in this order, instead of finding the ports (for tests).
    #[arg(long = "port")]
    ports: Vec<String>,
}

fn main() -> ExitCode {
    let a = Arguments::parse();
    belvedere_varlink::log_to_stderr();
    let options =
        Options { socket: a.socket, state: a.state, resolv_conf: a.resolv_conf, front_panel: a.front_panel, ports: a.ports };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
