//! `belvedere-applications`: see the library.

use belvedere_applications::places::Places;
use belvedere_applications::service::Service;
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs application instances: fetches their packages, starts their containers and keeps them running.
///
/// Serves org.belvedere.Applications and org.belvedere.Logs. Every path has the appliance's place as default; the
/// flags are for tests and for machines that are no appliance.
#[derive(Parser)]
struct Arguments {
    /// What must survive a power cut
    #[arg(long)]
    state: Option<PathBuf>,
    /// Node sockets, bundles, the OCI runtime's state
    #[arg(long)]
    run: Option<PathBuf>,
    /// Where this service answers
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Socket of the camera service
    #[arg(long)]
    camera: Option<PathBuf>,
    /// Channel of decoded pictures
    #[arg(long)]
    frames: Option<PathBuf>,
    /// Channel of model calls
    #[arg(long)]
    inference: Option<PathBuf>,
    /// Channel of the display
    #[arg(long)]
    display: Option<PathBuf>,
    /// Directory that holds the Python package panoramasdk
    #[arg(long)]
    sdk: Option<PathBuf>,
    /// The OCI runtime
    #[arg(long)]
    crun: Option<PathBuf>,
    /// Containers without control groups, for machines without cgroup v2
    #[arg(long)]
    without_cgroups: bool,
}

fn main() -> ExitCode {
    belvedere_varlink::log_to_stderr();
    // Containers are started before this service is ready.
    belvedere_varlink::claim_ready_pipe();
    let arguments = Arguments::parse();
    let mut places = Places::default();
    let given = [
        (&mut places.state, arguments.state),
        (&mut places.run, arguments.run),
        (&mut places.socket, arguments.socket),
        (&mut places.camera, arguments.camera),
        (&mut places.frames, arguments.frames),
        (&mut places.inference, arguments.inference),
        (&mut places.display, arguments.display),
        (&mut places.sdk, arguments.sdk),
        (&mut places.crun, arguments.crun),
    ];
    for (place, path) in given {
        if let Some(path) = path {
            *place = path;
        }
    }
    places.cgroups = !arguments.without_cgroups;
    match run(places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            log::error!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(places: Places) -> Result<(), String> {
    // A handler and not a mask: containers would inherit the mask.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| format!("catch signals: {error}"))?;
    let service = Service::start(places)?;
    let _server = service.serve()?;
    belvedere_varlink::notify_ready();
    if let Some(signal) = signals.forever().next() {
        log::info!("signal {signal}: ending all containers");
    }
    service.end();
    Ok(())
}
