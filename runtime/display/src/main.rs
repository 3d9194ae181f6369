//! `belvedere-display`: the monitor.

use belvedere_display::{drm_output::Drm, output::Output, server};
use belvedere_frames::packet;
use belvedere_interfaces::paths;
use clap::Parser;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows the pictures of the application that started last on the monitor, with its boxes and labels.
///
/// Serves the `display` channel. Works without a monitor, and shows the picture when one is plugged in.
#[derive(Parser)]
struct Arguments {
    /// Where to serve the channel.
    #[arg(long, default_value = paths::DISPLAY)]
    socket: PathBuf,
    /// `drm:CARD`, or `png:FILE` (a monitor of 1280×800 as a picture file, in builds for tests).
    #[arg(long, default_value = "drm:/dev/dri/card0")]
    output: String,
}

fn output(name: &str) -> Result<Box<dyn Output>, String> {
    match name.split_once(':') {
        Some(("drm", card)) => Ok(Box::new(Drm::new(card.into()))),
        #[cfg(feature = "png")]
        Some(("png", file)) => {
            let size = belvedere_display::layout::Size { width: 1280, height: 800 };
            Ok(Box::new(belvedere_display::output::PngFile::new(file.into(), size)))
        }
        _ => Err(format!("--output {name}: expected drm:CARD or, in a build for tests, png:FILE")),
    }
}

fn main() -> ExitCode {
    belvedere_varlink::log_to_stderr();
    let arguments = Arguments::parse();
    let run = || -> Result<(), String> {
        belvedere_sandbox::enter(belvedere_sandbox::Profile::Display).map_err(|error| error.to_string())?;
        let mut output = output(&arguments.output)?;
        let listener =
            packet::listen(&arguments.socket).map_err(|error| format!("{}: {error}", arguments.socket.display()))?;
        // Every service may knock; `server` lets in `applications` alone.
        std::fs::set_permissions(&arguments.socket, std::fs::Permissions::from_mode(0o666))
            .map_err(|error| format!("set the mode of {}: {error}", arguments.socket.display()))?;
        belvedere_varlink::notify_ready();
        server::serve(&listener, output.as_mut()).map_err(|error| format!("serve the display channel: {error}"))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
