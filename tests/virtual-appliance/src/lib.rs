//! Drives a virtual appliance in QEMU as a person drives hardware: power, stick, button, lights, monitor, console.
//!
//! ```no_run
//! # fn main() -> Result<(), belvedere_virtual_appliance::Error> {
//! use std::time::Duration;
//! use belvedere_virtual_appliance::{Appliance, Colour, Light, Pattern};
//!
//! let mut appliance = Appliance::builder("build/image").state_dir("build/state").start()?;
//! appliance.wait_for_light(Light::Status, Pattern::Solid(Colour::Green), Duration::from_secs(300))?;
//! appliance.screenshot("monitor.png")?;
//! appliance.power_cut()?;
//! appliance.power_on()?;
//! # Ok(()) }
//! ```
//!
//! Everything started here ends with the [`Appliance`], also when the whole program is killed; nothing else is
//! touched. No root is needed.

#![allow(clippy::disallowed_methods, reason = "files of tests")]

mod appliance;
mod board;
mod console;
pub mod disk;
mod fat;
mod lights;
mod process;
mod qmp;
pub mod secure_world;
pub mod stick;
pub mod variables;

pub use appliance::{Appliance, Builder};
pub use board::{Acceleration, Gesture, Machine};
pub use fat::Fat;
pub use lights::{Colour, Light, Lights, Pattern};

use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong around a virtual appliance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program is missing or cannot be started.
    #[error("cannot start {program}: {source}; install it: apt-get install {package}")]
    Start {
        /// The program.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {message}")]
    Program {
        /// The program.
        program: String,
        /// What it said.
        message: String,
    },
    /// QEMU refused an order or stopped answering.
    #[error("QEMU: {order}: {message}")]
    Monitor {
        /// The QMP command.
        order: String,
        /// Its description of the error.
        message: String,
    },
    /// The appliance is off.
    #[error("the appliance is off; the end of its console:\n{0}")]
    Off(String),
    /// Something did not happen in time.
    #[error("no {what} within {} s; lights: {lights}; the end of the console:\n{console}", .waited.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What the lights showed at the end.
        lights: String,
        /// The last lines of the console.
        console: String,
    },
    /// Something given to this library is not what it should be.
    #[error("{0}")]
    Input(String),
}

/// Attaches operation and path to an input/output error.
pub(crate) fn file_error(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { operation, path, source }
}
