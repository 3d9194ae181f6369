//! One set of SQL for two databases: SQLite in a file beside the service, PostgreSQL for larger fleets.
//!
//! sqlx's `Any` driver carries both. What it carries is what every query keeps to:
//!
//! - parameters `$1, $2, …`; `RETURNING`; `ON CONFLICT (…) DO UPDATE SET …` (in its `WHERE` the table's name goes before
//!   the column's); no function that only one of the two has (`min(a, b)`, `GLOB`, `rowid`, JSON functions);
//! - values are `i64`, `f64`, `String`, `Vec<u8>` and `Option` of these. Truth is an `INTEGER` 0 or 1: bind
//!   `i64::from(truth)`, compare `column = 1`, read with [`flag`];
//! - sums of integers are cast: `CAST(sum(size) AS BIGINT)`;
//! - text compares by its bytes and `LIKE` by its case, in both;
//! - a statement that fails ends its transaction.
//!
//! A single statement is safe against others. Who reads rows and then writes what follows from them begins with
//! [`Store::begin_exclusive`].

use crate::places::DatabaseUrl;
use crate::{Store, StoreError};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Executor, Row, Transaction};
use std::path::Path;
use std::time::Duration;

/// A row of either database.
pub(crate) use sqlx::any::AnyRow as DatabaseRow;

/// SQLite's file in the data directory.
pub const FILE: &str = "service.sqlite";

/// Connections of one copy of the service to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 10;
/// Connections that read SQLite's file, and now and then write.
const SQLITE_CONNECTIONS: u32 = 4;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

/// What every connection to SQLite begins with. The file survives a power cut after each commit.
const SQLITE_SETTINGS: &str = "PRAGMA busy_timeout = 20000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                               PRAGMA foreign_keys = ON; PRAGMA case_sensitive_like = ON";

/// Opens SQLite's file in a data directory.
pub(crate) async fn open_file(data: &Path, create: bool) -> Result<AnyPool, StoreError> {
    file(data, create, SQLITE_CONNECTIONS).await
}

/// Opens it once more, for writing. SQLite has one writer at a time, and those who find it taken sleep and try again, so
/// that the last may come first and all come late; who asks this pool for its one connection gets it in turn.
pub(crate) async fn open_writer(data: &Path) -> Result<AnyPool, StoreError> {
    file(data, false, 1).await
}

async fn file(data: &Path, create: bool, connections: u32) -> Result<AnyPool, StoreError> {
    let data = std::fs::canonicalize(data).map_err(|e| StoreError::io("open", data, e))?;
    let path = data.join(FILE);
    let Some(text) = path.to_str() else {
        let source = std::io::Error::other("the path is not text");
        return Err(StoreError::io("open", &path, source));
    };
    if !create && !path.exists() {
        return Err(StoreError::NoDatabase { path });
    }
    let text = text.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    let url = format!("sqlite://{text}?mode={}", if create { "rwc" } else { "rw" });
    connect(&url, Kind::Sqlite, connections).await
}

/// Connects to a PostgreSQL server. Its URL may hold a password: it goes into no message.
pub(crate) async fn open_server(url: &DatabaseUrl) -> Result<AnyPool, StoreError> {
    connect(url.expose(), Kind::Postgres, POSTGRES_CONNECTIONS).await
}

async fn connect(url: &str, kind: Kind, connections: u32) -> Result<AnyPool, StoreError> {
    let error = |e| StoreError::database("open the database", e);
    install_default_drivers();
    let options: AnyConnectOptions = url.parse().map_err(error)?;
    let options = options.log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(5));
    let pool = AnyPoolOptions::new()
        .max_connections(connections)
        // A server may have gone away meanwhile; a file does not, and to ask it costs as much as a small query.
        .test_before_acquire(kind == Kind::Postgres)
        .acquire_timeout(Duration::from_secs(30));
    let pool = match kind {
        Kind::Sqlite => {
            pool.after_connect(|connection, _| Box::pin(async move { connection.execute(SQLITE_SETTINGS).await.map(drop) }))
        }
        Kind::Postgres => pool,
    };
    pool.connect_with(options).await.map_err(error)
}

/// Begins a transaction beside which no other one of the same `lock` runs, here or in another copy of the service.
/// In SQLite that is any other writer; in PostgreSQL those that name the same lock. `pool` is the one for writing.
pub(crate) async fn begin_exclusive(pool: &AnyPool, kind: Kind, lock: &str) -> sqlx::Result<Transaction<'static, Any>> {
    match kind {
        Kind::Sqlite => pool.begin_with("BEGIN IMMEDIATE").await,
        Kind::Postgres => {
            let mut transaction = pool.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
                .bind(lock)
                .execute(&mut *transaction)
                .await?;
            Ok(transaction)
        }
    }
}

impl Store {
    /// Begins a transaction that reads rows before it writes what follows from them. `lock` names these rows (a table,
    /// or a table and a key); everybody who changes them in this way gives the same name, and one name only.
    pub(crate) async fn begin_exclusive(&self, lock: &str) -> sqlx::Result<Transaction<'static, Any>> {
        begin_exclusive(&self.writer, self.kind, lock).await
    }
}

/// Begins a transaction whose reads all see the rows of one moment, that of its first read. Others go on writing.
pub(crate) async fn begin_snapshot(pool: &AnyPool, kind: Kind) -> sqlx::Result<Transaction<'static, Any>> {
    match kind {
        Kind::Sqlite => pool.begin().await,
        Kind::Postgres => pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await,
    }
}

/// The highest number that a table's `sequence` ever gave out.
pub(crate) async fn highest_sequence(connection: &mut AnyConnection, kind: Kind, table: &str) -> sqlx::Result<Option<i64>> {
    let sql = match kind {
        Kind::Sqlite => "SELECT seq FROM sqlite_sequence WHERE name = $1",
        Kind::Postgres => {
            "SELECT last_value FROM pg_sequences WHERE schemaname = current_schema() AND sequencename = $1 || '_sequence_seq'"
        }
    };
    let found: Option<Option<i64>> = sqlx::query_scalar(sql).bind(table).fetch_optional(connection).await?;
    Ok(found.flatten())
}

/// Sets it, in a table without rows.
pub(crate) async fn set_highest_sequence(
    connection: &mut AnyConnection,
    kind: Kind,
    table: &str,
    to: i64,
) -> sqlx::Result<()> {
    match kind {
        Kind::Sqlite => {
            sqlx::query("DELETE FROM sqlite_sequence WHERE name = $1").bind(table).execute(&mut *connection).await?;
            sqlx::query("INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)")
                .bind(table)
                .bind(to)
                .execute(connection)
                .await?;
        }
        Kind::Postgres => {
            let sql = "SELECT setval(CAST(pg_get_serial_sequence($1, 'sequence') AS regclass), $2)";
            sqlx::query(sql).bind(table).bind(to).execute(connection).await?;
        }
    }
    Ok(())
}

/// The time by the one clock that all copies of the service share, milliseconds since 1970.
pub(crate) async fn time_ms(pool: &AnyPool, kind: Kind) -> sqlx::Result<i64> {
    match kind {
        Kind::Sqlite => Ok(crate::now_ms()),
        Kind::Postgres => {
            let sql = "SELECT CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT)";
            sqlx::query_scalar(sql).fetch_one(pool).await
        }
    }
}

/// The tables that are there.
pub(crate) async fn tables(pool: &AnyPool, kind: Kind) -> sqlx::Result<Vec<String>> {
    let sql = match kind {
        Kind::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
        Kind::Postgres => "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = current_schema()",
    };
    sqlx::query_scalar(sql).fetch_all(pool).await
}

/// Bytes that the database takes.
pub(crate) async fn bytes(pool: &AnyPool, kind: Kind) -> sqlx::Result<i64> {
    let sql = match kind {
        Kind::Sqlite => "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
        Kind::Postgres => "SELECT pg_database_size(current_database())",
    };
    sqlx::query_scalar(sql).fetch_one(pool).await
}

/// Fingerprints of all certificates that may be used at a time, with spaces between them. They are asked for every two
/// seconds: ten thousand rows cost twenty times as much as one.
pub(crate) async fn standing_certificates(pool: &AnyPool, kind: Kind, now: i64) -> sqlx::Result<String> {
    let sql = match kind {
        Kind::Sqlite => {
            "SELECT coalesce(group_concat(fingerprint, ' '), '') FROM certificate WHERE status = 'active' AND expires_ms > $1"
        }
        Kind::Postgres => {
            "SELECT coalesce(string_agg(fingerprint, ' '), '') FROM certificate WHERE status = 'active' AND expires_ms > $1"
        }
    };
    sqlx::query_scalar(sql).bind(now).fetch_one(pool).await
}

/// What the database finds wrong with itself. PostgreSQL keeps references whole by itself and checks its pages when it
/// reads them.
pub(crate) async fn faults(pool: &AnyPool, kind: Kind) -> sqlx::Result<Vec<String>> {
    if kind == Kind::Postgres {
        return Ok(Vec::new());
    }
    let mut faults: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(20)").fetch_all(pool).await?;
    faults.retain(|f| f != "ok");
    let broken: Vec<String> =
        sqlx::query_scalar("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 20").fetch_all(pool).await?;
    faults.extend(broken.into_iter().map(|table| format!("a row of {table} refers to one that is not there")));
    Ok(faults)
}

/// A column that holds 0 or 1.
pub(crate) fn flag(row: &DatabaseRow, column: &str) -> sqlx::Result<bool> {
    row.try_get::<i64, _>(column).map(|value| value != 0)
}

#[cfg(test)]
mod tests {
    use crate::testing::places;

    /// The text literals of a source file, as the compiler reads them, in the order of their appearance.
    fn literals(source: &str) -> Vec<String> {
        let source: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let source = source.join("\n");
        let (mut literals, mut characters) = (Vec::new(), source.chars().peekable());
        while let Some(character) = characters.next() {
            match character {
                '\'' if characters.peek() == Some(&'"') => drop(characters.next()),
                '"' => {
                    let mut text = String::new();
                    while let Some(character) = characters.next() {
                        match character {
                            '"' => break,
                            '\\' => match characters.next() {
                                Some('\n') => while characters.next_if(|c| c.is_whitespace()).is_some() {},
                                Some(escaped) => text.push(escaped),
                                None => break,
                            },
                            other => text.push(other),
                        }
                    }
                    literals.push(text);
                }
                _ => {}
            }
        }
        literals
    }

    /// Every statement that stands whole in a source file of this crate.
    fn statements() -> Vec<(String, String)> {
        let mut statements = Vec::new();
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Two files' tests have tables of their own.
            if path.extension().is_none_or(|e| e != "rs") || ["database.rs", "together.rs"].contains(&name.as_str()) {
                continue;
            }
            for text in literals(&std::fs::read_to_string(&path).unwrap()) {
                let whole = ["SELECT ", "INSERT ", "UPDATE ", "DELETE "].iter().any(|verb| text.starts_with(verb));
                // With a hole in it, it is a pattern for `format!`.
                // What only one of them has, behind a look at which it is.
                let own = text.contains("pg_notify") || text.contains("sqlite_schema");
                if whole && !own && !text.replace("{}", "").contains('{') && text.contains(' ') && !text.ends_with(' ') {
                    statements.push((name.clone(), text));
                } else if text.contains("BEGIN IMMEDIATE") {
                    panic!("{name}: only `begin_exclusive` begins a transaction of one writer");
                }
            }
        }
        statements
    }

    #[tokio::test]
    async fn both_databases_understand_every_statement() {
        let statements = statements();
        assert!(statements.len() > 50, "only {} statements were found: the search is broken", statements.len());
        let mut wrong = Vec::new();
        for place in places().await {
            let store = place.create().await;
            for (number, (file, text)) in statements.iter().enumerate() {
                let prepare = match store.kind {
                    super::Kind::Sqlite => format!("EXPLAIN {text}"),
                    super::Kind::Postgres => format!("PREPARE statement_{number} AS {text}"),
                };
                let outcome = sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&store.pool).await;
                // sqlx tells the types of parameters; here PostgreSQL must guess them and sometimes cannot.
                let guess = "could not determine data type of parameter";
                if let Some(e) = outcome.err().map(|e| e.to_string()).filter(|e| !e.contains(guess)) {
                    wrong.push(format!("{file}, {:?}: {e}\n    {text}", store.kind));
                }
                if text.contains('?') {
                    wrong.push(format!("{file}: parameters are $1, $2, …\n    {text}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[tokio::test]
    async fn values_come_back_as_they_went() {
        for place in places().await {
            let store = place.create().await;
            let create = match store.kind {
                super::Kind::Sqlite => "CREATE TABLE t (number INTEGER, word TEXT, body BLOB) STRICT",
                super::Kind::Postgres => "CREATE TABLE t (number BIGINT, word TEXT, body BYTEA)",
            };
            sqlx::query(create).execute(&store.pool).await.unwrap();
            let values = [(Some(i64::MIN), Some("ü\u{1F4F7}'\"\\"), Some(vec![0u8, 255, 39])), (None, None, None)];
            for (number, word, body) in values.clone() {
                let insert = sqlx::query("INSERT INTO t (number, word, body) VALUES ($1, $2, $3)");
                insert.bind(number).bind(word).bind(body).execute(&store.pool).await.unwrap();
            }
            type Values = (Option<i64>, Option<String>, Option<Vec<u8>>);
            let read: Vec<Values> = sqlx::query_as("SELECT number, word, body FROM t ORDER BY number IS NULL")
                .fetch_all(&store.pool)
                .await
                .unwrap();
            assert_eq!(read, values.map(|(number, word, body)| (number, word.map(str::to_owned), body)));
        }
    }

    #[tokio::test]
    async fn the_database_s_time_is_the_time() {
        for place in places().await {
            let store = place.create().await;
            let before = crate::now_ms();
            let told = super::time_ms(&store.pool, store.kind).await.unwrap();
            assert!((before..=crate::now_ms()).contains(&told), "{before} {told}");
        }
    }

    #[tokio::test]
    async fn one_writer_of_a_lock_waits_for_the_other() {
        for place in places().await {
            let store = place.create().await;
            sqlx::query("CREATE TABLE t (number BIGINT NOT NULL)").execute(&store.pool).await.unwrap();
            sqlx::query("INSERT INTO t VALUES (0)").execute(&store.pool).await.unwrap();
            let count = async || {
                for _ in 0..20 {
                    let mut transaction = store.begin_exclusive("t").await.unwrap();
                    let n: i64 = sqlx::query_scalar("SELECT number FROM t").fetch_one(&mut *transaction).await.unwrap();
                    sqlx::query("UPDATE t SET number = $1").bind(n + 1).execute(&mut *transaction).await.unwrap();
                    transaction.commit().await.unwrap();
                }
            };
            tokio::join!(count(), count(), count());
            let n: i64 = sqlx::query_scalar("SELECT number FROM t").fetch_one(&store.pool).await.unwrap();
            assert_eq!(n, 60);
        }
    }

    #[tokio::test]
    async fn a_directory_may_have_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("50%41 ?mode=ro#\u{fc}");
        std::fs::create_dir(&data).unwrap();
        crate::Store::create(&data).await.unwrap().create_log_group("g").await.unwrap();
        assert!(data.join(super::FILE).exists());
    }
}
