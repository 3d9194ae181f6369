//! `belvedere-service`: the control plane as one program.
//!
//! | module | one idea |
//! |---|---|
//! | [`backends`] | which database and which object store |
//! | [`arguments`] | the command line |
//! | [`audit`] | the audit log on the terminal |
//! | [`configuration`] | what `init` writes and `serve` reads |
//! | [`initialise`] | a new service in an empty directory |
//! | [`serve`] | ports and one stop |
//! | [`reach`] | whether devices reach what they are told |
//! | [`sweep`] | files of objects that nothing names |
//! | [`lock`] | one process serves a directory |
//! | [`history`] | what ended long ago is forgotten |
//! | [`notifications`] | how alarms reach people |
//! | [`http`] | HTTP/1.1 on a plain or TLS port |
//! | [`places`] | one address does not take all connections of a port |
//! | [`certificate`] | the owner's certificate, read again when it changes |
//! | [`health`], [`metrics`], [`logging`], [`supervisor`] | what operators and their machines are told |
//! | [`page`] | the page at `/` |
//! | [`keys`] | access keys |
//! | [`backup`] | one file from which the service can be made again |
//! | [`doctor`] | is everything as it must be? |

pub mod arguments;
pub mod audit;
pub mod backends;
pub mod backup;
pub mod broker_configuration;
pub mod certificate;
pub mod configuration;
pub mod doctor;
pub mod health;
pub mod history;
pub mod http;
pub mod identity;
pub mod initialise;
pub mod keys;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod notifications;
pub mod page;
pub mod places;
pub mod reach;
pub mod serve;
pub mod supervisor;
pub mod sweep;
pub mod time;

/// What goes wrong here.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A file or directory.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A port.
    #[error("cannot listen on {address} ({port}): {source}")]
    Listen {
        /// Which port.
        port: &'static str,
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no service in a directory.
    #[error(
        "{data} holds no service ({detail}): give the directory that `belvedere-service init` made with --data, or make one"
    )]
    NoService {
        /// The directory.
        data: std::path::PathBuf,
        /// What is missing.
        detail: String,
    },
    /// The directory is another user's.
    #[error(
        "{data} is not yours to read: run this as the user that the service runs as (sudo -u belvedere belvedere-service …), or as root"
    )]
    NotYours {
        /// The directory.
        data: std::path::PathBuf,
    },
    /// The configuration.
    #[error(
        "{path} is damaged: {detail}. Mend it, or put it back: it is `service.json` in every backup (a tar archive), and \
         `belvedere-service restore` makes the whole service of one"
    )]
    Configuration {
        /// File.
        path: std::path::PathBuf,
        /// Why not.
        detail: String,
    },
    /// Another process serves this directory.
    #[error(
        "{data} is served by another process already (process {process}): stop that one first, or give this one a directory of its own"
    )]
    Served {
        /// The directory.
        data: std::path::PathBuf,
        /// Its number, as it wrote it down.
        process: String,
    },
    /// What was given.
    #[error("{0}")]
    Argument(String),
    /// Store.
    #[error(transparent)]
    Store(#[from] belvedere_store::StoreError),
    /// Fleet.
    #[error(transparent)]
    Fleet(#[from] belvedere_fleet::FleetError),
}
