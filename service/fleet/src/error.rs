use belvedere_store::StoreError;

/// What went wrong in the fleet.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service is wrong somewhere.
    #[error(transparent)]
    Panicked(#[from] crate::panics::Panicked),
    /// Messages could not be queued; several publishers hear of it.
    #[error(transparent)]
    Queue(std::sync::Arc<StoreError>),
    /// A certificate, key or request could not be read or made.
    #[error("cannot {operation}: {source}")]
    Certificate {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        source: rcgen::Error,
    },
    /// TLS settings.
    #[error("cannot {operation}: {detail}")]
    Tls {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        detail: String,
    },
    /// A file.
    #[error("cannot read {path}: {source}; make keys with `belvedere-keys init`")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The external broker.
    #[error("cannot {operation}: {detail}")]
    Broker {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        detail: String,
    },
    /// A shadow was changed by others again and again.
    #[error("shadow {shadow} of {thing} changes too fast")]
    ShadowBusy {
        /// Thing.
        thing: String,
        /// Shadow.
        shadow: String,
    },
    /// A job was changed by others again and again.
    #[error("job {job} changes too fast")]
    JobBusy {
        /// Which.
        job: String,
    },
    /// A shadow does not take this.
    #[error("shadow {shadow} of {thing}: {detail}")]
    ShadowRefused {
        /// Thing.
        thing: String,
        /// Shadow.
        shadow: String,
        /// Why not.
        detail: String,
    },
}
