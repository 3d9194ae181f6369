//! Stores for tests: every test of this crate runs over SQLite and over PostgreSQL, those of objects also over a bucket.
//! One server of each a test program, started by `tests/tools/postgres` and `tests/tools/s3`; they end with the program.

use crate::Store;
use crate::places::{DatabaseUrl, ObjectsCredentials, ObjectsPlace, ObjectsUrl, Places};
use sqlx::{AnyConnection, Connection};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A data directory with a database of its own.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) places: Places,
}

fn place(database: Option<DatabaseUrl>, objects: Option<ObjectsPlace>) -> Place {
    Place { folder: tempfile::tempdir().unwrap(), places: Places { database, objects } }
}

/// One place for each database.
pub(crate) async fn places() -> [Place; 2] {
    [place(None, None), place(Some(new_database().await), None)]
}

/// One place for each way to keep objects.
pub(crate) async fn object_places() -> [Place; 2] {
    [place(None, None), place(Some(new_database().await), Some(new_prefix().await))]
}

impl Place {
    /// A new store.
    pub(crate) async fn create(&self) -> Store {
        println!("{:?}", self.places);
        Store::create_in(self.folder.path(), &self.places).await.unwrap()
    }

    /// The store, after a restart.
    pub(crate) async fn open(&self) -> Store {
        Store::open_in(self.folder.path(), &self.places).await.unwrap()
    }
}

/// Starts a server that lives as long as its input is open: as long as this program. Its first line.
fn start(script: &str) -> (String, Child) {
    let path = format!("{}/../../tests/tools/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut running = Command::new(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "tests/tools/{script} did not start: these tests need it; its complaint is above");
    (line.trim().to_owned(), running)
}

/// The URL of an empty database.
pub(crate) async fn new_database() -> DatabaseUrl {
    static SERVER: OnceLock<(String, Child)> = OnceLock::new();
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    sqlx::any::install_default_drivers();
    let (url, _) = tokio::task::spawn_blocking(|| SERVER.get_or_init(|| start("postgres"))).await.unwrap();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    DatabaseUrl::parse(&url.replace("/service?", &format!("/{name}?"))).unwrap()
}

/// The bucket of the server.
fn bucket() -> &'static ObjectsPlace {
    static SERVER: OnceLock<(ObjectsPlace, Child)> = OnceLock::new();
    let (place, _) = SERVER.get_or_init(|| {
        let (line, running) = start("s3");
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        let word = |name: &str| told[name].as_str().unwrap().to_owned();
        let credentials = ObjectsCredentials { key: word("key"), secret: word("secret"), token: None };
        (ObjectsPlace { url: ObjectsUrl::parse(&word("url")).unwrap(), credentials }, running)
    });
    place
}

/// An empty prefix of the bucket.
pub(crate) async fn new_prefix() -> ObjectsPlace {
    let mut place = tokio::task::spawn_blocking(bucket).await.unwrap().clone();
    place.url.prefix = format!("test-{}/", NUMBER.fetch_add(1, Ordering::Relaxed));
    place
}
