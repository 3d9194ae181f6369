//! `belvedere-inference`: see the library.

use belvedere_frames::packet;
use belvedere_inference::crashes::Crashes;
use belvedere_inference::onnx_runtime::OnnxRuntime;
use belvedere_inference::server::Server;
use belvedere_interfaces::paths;
use clap::Parser;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs models (ONNX) for applications.
///
/// Serves the channel `inference` of formats/interfaces.
#[derive(Parser)]
struct Arguments {
    /// Where this service answers
    #[arg(long, default_value = paths::INFERENCE)]
    socket: PathBuf,
    /// Where it is noted what runs, for the next process to know what made this one crash; on a tmpfs
    #[arg(long, default_value = paths::INFERENCE_CALLS)]
    calls: PathBuf,
    /// The ONNX Runtime library; the variable ORT_DYLIB_PATH comes first
    #[arg(long, default_value = paths::ONNX_RUNTIME)]
    library: PathBuf,
    /// Threads of a model; 0 is one for each processor
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// For debugging and measuring tools that need system calls the service does not
    #[arg(long)]
    without_sandbox: bool,
}

/// When the library of a proven release is loaded, although nobody asked for it: the start is over by then, and a first
/// application finds it loaded. Well below `init`'s time for a sign of life.
const UNASKED: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

fn main() -> ExitCode {
    belvedere_varlink::log_to_stderr();
    match run(Arguments::parse()) {
        Ok(never) => match never {},
        Err(problem) => {
            log::error!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<std::convert::Infallible, String> {
    let library = std::env::var_os("ORT_DYLIB_PATH").map_or(arguments.library, PathBuf::from);
    let threads = match arguments.threads {
        0 => std::thread::available_parallelism().map_or(1, |number| number.get()),
        number => number,
    };
    let listener =
        packet::listen(&arguments.socket).map_err(|error| format!("serve {}: {error}", arguments.socket.display()))?;
    // Loading the library takes longest in a start of the appliance, and without a client nobody needs it at once. Who connects
    // waits in the socket. A release that is not proven shows first that it can be loaded.
    let proven = belvedere_varlink::release_is_proven();
    if proven {
        belvedere_varlink::notify_ready();
        let mut sockets = [PollFd::new(&listener, PollFlags::IN)];
        let _ = rustix::event::poll(&mut sockets, Some(&UNASKED));
    }
    let engine = OnnxRuntime::new(&library, threads).map_err(|error| error.to_string())?;
    let crashes = Crashes::open(&arguments.calls).unwrap_or_else(|error| {
        log::warn!("{}: {error}; crashes will not be remembered", arguments.calls.display());
        Crashes::forgetful()
    });
    // The library is loaded and the socket is made: from here on only what clients and models bring.
    if !arguments.without_sandbox {
        belvedere_sandbox::enter(belvedere_sandbox::Profile::Inference).map_err(|error| error.to_string())?;
    }
    log::info!("serving {} with {} threads a model", arguments.socket.display(), threads);
    if !proven {
        belvedere_varlink::notify_ready();
    }
    let error = Server::remembering(Box::new(engine), crashes).serve(listener);
    Err(format!("accept connections on {}: {error}", arguments.socket.display()))
}
