//! `belvedere-camera`: watches RTSP cameras and hands their coded pictures to the decoder.

use belvedere_camera::machine::Policy;
use belvedere_camera::service::Service;
use belvedere_interfaces::paths;
use belvedere_varlink::Pulse;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Watches RTSP cameras over TCP and hands their H.264 to belvedere-decoder.
///
/// Which cameras is said by calls of org.belvedere.Camera (SetStreams). A camera that is away is tried for ever.
#[derive(Parser)]
#[command(name = "belvedere-camera")]
struct Arguments {
    /// Where calls are answered.
    #[arg(long, default_value = paths::CAMERA)]
    socket: PathBuf,
    /// Where belvedere-decoder listens.
    #[arg(long, default_value = paths::DECODER)]
    decoder: PathBuf,
    /// How much more patient to be with silence than on hardware: 4 means 8 s until a stream counts as stalled.
    #[arg(long, default_value_t = 1.0)]
    patience: f64,
    /// Leaves the seccomp filter out: under qemu-user, which cannot install one.
    #[arg(long)]
    without_sandbox: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    belvedere_varlink::log_to_stderr();
    if !arguments.without_sandbox
        && let Err(error) = belvedere_sandbox::enter(belvedere_sandbox::Profile::Camera)
    {
        log::error!("{error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let policy = Policy::default().scaled(arguments.patience);
    let service = Service::new(runtime.handle().clone(), policy, arguments.decoder);
    if let Err(error) = service.serve(&arguments.socket) {
        log::error!("{error}");
        return ExitCode::FAILURE;
    }
    belvedere_varlink::notify_ready();
    // All streams take turns on this thread: one that does not give its turn back silences the service.
    runtime.block_on(async {
        let pulse = Pulse::new("streams", Duration::from_secs(30));
        loop {
            pulse.beat();
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    })
}
