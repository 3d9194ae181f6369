//! `belvedere-decoder`: H.264 in, pictures in shared memory out.

use belvedere_interfaces::paths;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Decodes the streams that belvedere-camera sends and hands the pictures to applications.
///
/// Coded pictures come in at one Unix socket, pictures go out through another, by shared memory. One thread per
/// stream; nothing is converted while nobody asks.
#[derive(Parser)]
#[command(name = "belvedere-decoder")]
struct Arguments {
    /// Where belvedere-camera connects.
    #[arg(long, default_value = paths::DECODER)]
    input: PathBuf,
    /// Where clients ask for pictures.
    #[arg(long, default_value = paths::FRAMES)]
    frames: PathBuf,
    /// Leaves the seccomp filter out: under qemu-user, which cannot install one.
    #[arg(long)]
    without_sandbox: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    belvedere_varlink::log_to_stderr();
    if !arguments.without_sandbox
        && let Err(error) = belvedere_sandbox::enter(belvedere_sandbox::Profile::Decoder)
    {
        log::error!("{error}");
        return ExitCode::FAILURE;
    }
    // Everything the linker and libavcodec load is loaded before hostile bytes come.
    if let Err(error) = belvedere_decoder::libavcodec::Libavcodec::new() {
        log::error!("{error}");
        return ExitCode::FAILURE;
    }
    let frames = belvedere_frames::Server::new();
    if let Err(error) = frames.serve_at(&arguments.frames) {
        log::error!("cannot serve pictures at {}: {error}", arguments.frames.display());
        return ExitCode::FAILURE;
    }
    let listener = match belvedere_decoder::service::listen(&arguments.input) {
        Ok(listener) => listener,
        Err(error) => {
            log::error!("cannot listen at {}: {error}", arguments.input.display());
            return ExitCode::FAILURE;
        }
    };
    belvedere_varlink::notify_ready();
    belvedere_decoder::service::run(&listener, &frames)
}
