use std::path::{Path, PathBuf};

/// What went wrong, with what, while doing what.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no.
    #[error("database: cannot {operation}: {source}")]
    Database {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        source: sqlx::Error,
    },
    /// The file system said no.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The object store said no.
    #[error("object store: cannot {operation}: {detail}")]
    Objects {
        /// What was being done.
        operation: &'static str,
        /// Why not. Holds no key and no signed address.
        detail: String,
    },
    /// What a row names is not there.
    #[error("{what} are not there")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// Another copy of the service runs, and the objects are files of one machine.
    #[error("another copy of the service runs on this database: several copies need a common object store (--objects)")]
    Alone,
    /// A copy of another service runs.
    #[error(
        "another service runs on this database: {difference}. Copies of one service have the same data directory (but for the lock and \
         endpoints.json) and keys; another service needs a database of its own"
    )]
    AnotherService {
        /// In what it differs.
        difference: String,
    },
    /// A sealed value does not open with this key file.
    #[error("a stored secret does not open with secrets.key: was the file replaced?")]
    Sealed,
    /// Somebody else was there first.
    #[error("an object was changed by somebody else at the same time")]
    Changed,
    /// A newer program has been here.
    #[error(
        "the database is of version {found}, of a newer program than this one (which knows {known}): install that program again, or \
         restore a backup from before the upgrade into a new directory. Nothing was changed"
    )]
    Newer {
        /// The database's version.
        found: i64,
        /// The newest that this program knows.
        known: usize,
    },
    /// A stored document is not what it must be.
    #[error("database: {what} is damaged: {detail}")]
    Damaged {
        /// Which document.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// The database is there and holds no service.
    #[error(
        "{database} is empty: it holds no service. Name the right database, or make this one of a backup with \
         `belvedere-service restore`. Nothing was changed"
    )]
    NoService {
        /// Which database.
        database: String,
    },
    /// There is no database.
    #[error(
        "there is no database {path}: name the directory of the service with --data, or put the file back with its -wal beside it, \
         or make the service of a backup with `belvedere-service restore` (into another directory)"
    )]
    NoDatabase {
        /// The file that is missing.
        path: PathBuf,
    },
    /// The objects' place says that it is another service's.
    #[error(
        "the objects in {place} belong to service {there}, and the database is that of service {here}. Name the database and the \
         objects that belong together; `belvedere-service sweep` shows both, and `sweep --adopt` joins them for good. Nothing was changed"
    )]
    AnothersObjects {
        /// Where the objects are.
        place: String,
        /// Whose they are.
        there: String,
        /// Whose the database is.
        here: String,
    },
    /// A sweep would do what it must not.
    #[error("nothing is swept: {why}")]
    NotSwept {
        /// Why not, and what to do.
        why: String,
    },
    /// Something with this name exists already.
    #[error("{what} exists already")]
    Exists {
        /// What.
        what: String,
    },
}

impl StoreError {
    pub(crate) fn database(operation: &'static str, source: sqlx::Error) -> Self {
        StoreError::Database { operation, source }
    }
    /// Whether a file or a blob was not there.
    pub fn is_missing(&self) -> bool {
        match self {
            StoreError::Missing { .. } => true,
            StoreError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }
    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        StoreError::Io { operation, path: path.to_owned(), source }
    }
    /// Turns a broken uniqueness rule into [`StoreError::Exists`].
    pub(crate) fn insert(operation: &'static str, what: &str, source: sqlx::Error) -> Self {
        match &source {
            sqlx::Error::Database(d) if d.is_unique_violation() => StoreError::Exists { what: what.to_owned() },
            _ => StoreError::database(operation, source),
        }
    }
}

/// JSON that this crate wrote itself, read back.
pub(crate) fn stored<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Damaged { what, detail: e.to_string() })
}

/// JSON of a value that cannot fail to serialise (maps with text keys only).
pub(crate) fn text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}
