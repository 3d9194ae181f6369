//! Stores for tests: every test of this crate runs over SQLite and over PostgreSQL. One server a test program, started
//! by `tests/tools/postgres`; it ends with the program.

use crate::{Kind, Store, database};
use sqlx::{AnyConnection, Connection};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// A data directory with a database of its own.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    server: Option<String>,
}

/// One place of each kind.
pub(crate) async fn places() -> [Place; 2] {
    let place = |server| Place { folder: tempfile::tempdir().unwrap(), server };
    [place(None), place(Some(new_database().await))]
}

impl Place {
    /// A new store.
    pub(crate) async fn create(&self) -> Store {
        println!("database: {}", if self.server.is_some() { "PostgreSQL" } else { "SQLite" });
        match &self.server {
            None => Store::create(self.folder.path()).await.unwrap(),
            Some(_) => {
                Store::prepare(self.folder.path()).unwrap();
                self.open().await
            }
        }
    }

    /// The store, after a restart.
    pub(crate) async fn open(&self) -> Store {
        match &self.server {
            None => Store::open(self.folder.path()).await.unwrap(),
            Some(url) => {
                let pool = database::open_server(url).await.unwrap();
                Store::over(self.folder.path(), pool, Kind::Postgres).await.unwrap()
            }
        }
    }
}

struct Server {
    url: String,
    _running: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/tools/postgres");
        let mut running = Command::new(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(running.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("postgres://"), "PostgreSQL did not start: these tests need Debian's package postgresql");
        Server { url: url.trim().to_owned(), _running: running }
    })
}

/// The URL of an empty database.
pub(crate) async fn new_database() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    sqlx::any::install_default_drivers();
    let url = &tokio::task::spawn_blocking(server).await.unwrap().url;
    let mut connection = AnyConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    url.replace("/service?", &format!("/{name}?"))
}
