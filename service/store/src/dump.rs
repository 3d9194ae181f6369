//! All rows as lines of text: what a backup holds, and how rows move from one kind of database to another.
//!
//! A line that is an object begins a table: its name, its columns with their kinds, and the highest number it ever gave
//! out. The lines that are arrays are its rows. Integers are numbers, texts are strings, bytes are base64, floating-point
//! numbers their 16 hexadecimal digits (so that they come back to the bit). Tables come in the order in which the schema
//! makes them: no row refers to one that comes later.
//!
//! A snapshot is one transaction: the rows are those of one moment, and the service goes on meanwhile.

use crate::database::{self, DatabaseRow};
use crate::{Store, StoreError, schema};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Column, Executor, Row, SqlSafeStr, Statement, TypeInfo};
use std::io::Write;

/// Longest line, bytes: a manifest of 2 MB, in base64 and escaped, with room to spare.
pub const MAX_LINE: usize = 64 * 1024 * 1024;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// 64 bits.
    Integer,
    /// 64 bits, floating point.
    Real,
    /// UTF-8.
    Text,
    /// Anything.
    Bytes,
}

impl Kind {
    /// Of a type's name in either database.
    fn of(name: &str) -> Option<Kind> {
        match name.to_ascii_uppercase().as_str() {
            "INTEGER" | "INT" | "INT2" | "INT4" | "INT8" | "BIGINT" | "SMALLINT" => Some(Kind::Integer),
            "REAL" | "DOUBLE" | "FLOAT8" | "FLOAT4" | "DOUBLE PRECISION" => Some(Kind::Real),
            "TEXT" | "VARCHAR" | "NAME" => Some(Kind::Text),
            "BLOB" | "BYTEA" => Some(Kind::Bytes),
            _ => None,
        }
    }
}

/// The line that begins a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name.
    pub table: String,
    /// Its columns.
    pub columns: Vec<(String, Kind)>,
    /// The highest number that its `sequence` ever gave out, if it has one.
    pub sequence: Option<i64>,
}

/// What a dump holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tables.
    pub tables: u64,
    /// Rows of all of them.
    pub rows: u64,
}

/// A file of objects that a row names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// 64 hexadecimal digits; not known of the parts of uploads under way.
    pub sha256: Option<String>,
    /// What it is of, for people.
    pub of: String,
}

/// Rows of one moment.
pub struct Snapshot {
    transaction: sqlx::Transaction<'static, sqlx::Any>,
    database: database::Kind,
    version: usize,
}

fn error(source: sqlx::Error) -> StoreError {
    StoreError::database("read all rows", source)
}

fn damaged(detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { what: "the dump of rows", detail: detail.into() }
}

impl Store {
    /// Begins to read the rows as they are now.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let version = schema::version(&self.pool, self.kind).await?;
        let mut transaction = database::begin_snapshot(&self.pool, self.kind).await.map_err(error)?;
        // The moment is that of the first read.
        sqlx::query("SELECT count(*) FROM access_key").execute(&mut *transaction).await.map_err(error)?;
        Ok(Snapshot { transaction, database: self.kind, version })
    }

    /// Begins to take in a dump. Nothing is there before [`Intake::finish`].
    pub async fn intake(&self) -> Result<Intake, StoreError> {
        let version = schema::version(&self.pool, self.kind).await?;
        let transaction = self.begin_exclusive("all rows").await.map_err(error)?;
        Ok(Intake {
            transaction,
            database: self.kind,
            tables: schema::tables(version),
            table: None,
            insert: String::new(),
            counts: Counts::default(),
        })
    }
}

impl Snapshot {
    /// The schema's version.
    pub fn version(&self) -> usize {
        self.version
    }

    /// The files that rows name.
    pub async fn files(&mut self) -> Result<Vec<NamedFile>, StoreError> {
        let rows = sqlx::query(crate::objects::NAMED_FILES).fetch_all(&mut *self.transaction).await.map_err(error)?;
        rows.iter()
            .map(|row| {
                Ok(NamedFile {
                    name: row.try_get("file").map_err(error)?,
                    size: row.try_get::<i64, _>("size").map_err(error)? as u64,
                    sha256: row.try_get("sha256").map_err(error)?,
                    of: row.try_get("name").map_err(error)?,
                })
            })
            .collect()
    }

    /// Writes all rows.
    pub async fn dump(&mut self, to: &mut (dyn Write + Send)) -> Result<Counts, StoreError> {
        let mut counts = Counts::default();
        let failed = |e| StoreError::io("write", std::path::Path::new("the dump of rows"), e);
        for name in schema::tables(self.version) {
            let table = self.table(&name).await?;
            writeln!(to, "{}", crate::error::text(&table)).map_err(failed)?;
            counts.tables += 1;
            let sql = select(&table);
            let mut rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch(&mut *self.transaction);
            while let Some(row) = rows.try_next().await.map_err(error)? {
                let mut values = Vec::with_capacity(table.columns.len());
                for (index, (_, kind)) in table.columns.iter().enumerate() {
                    values.push(value(&row, index, *kind).map_err(error)?);
                }
                writeln!(to, "{}", Value::Array(values)).map_err(failed)?;
                counts.rows += 1;
            }
        }
        Ok(counts)
    }

    async fn table(&mut self, name: &str) -> Result<Table, StoreError> {
        let columns = columns(&mut self.transaction, name).await?;
        let sequence = match columns.iter().any(|(c, _)| c == "sequence") {
            true => database::highest_sequence(&mut self.transaction, self.database, name).await.map_err(error)?,
            false => None,
        };
        Ok(Table { table: name.to_owned(), columns, sequence })
    }
}

fn select(table: &Table) -> String {
    let columns: Vec<&str> = table.columns.iter().map(|(n, _)| n.as_str()).collect();
    // Rows of a table may refer to earlier ones.
    let order = if columns.contains(&"sequence") { " ORDER BY sequence" } else { "" };
    let (columns, name) = (columns.join(", "), &table.table);
    format!("SELECT {columns} FROM {name}{order}")
}

/// The columns of a table as the database has them.
async fn columns(connection: &mut sqlx::AnyConnection, table: &str) -> Result<Vec<(String, Kind)>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT * FROM {table}")).into_sql_str();
    let statement = connection.prepare(sql).await.map_err(error)?;
    let kinds = statement.columns().iter().map(|column| {
        let kind = Kind::of(column.type_info().name());
        let kind = kind.ok_or_else(|| damaged(format!("{table}.{} is a {}", column.name(), column.type_info().name())))?;
        Ok((column.name().to_owned(), kind))
    });
    kinds.collect()
}

fn value(row: &DatabaseRow, index: usize, kind: Kind) -> Result<Value, sqlx::Error> {
    Ok(match kind {
        Kind::Integer => row.try_get::<Option<i64>, _>(index)?.map_or(Value::Null, Value::from),
        Kind::Real => {
            row.try_get::<Option<f64>, _>(index)?.map_or(Value::Null, |v| Value::from(format!("{:016x}", v.to_bits())))
        }
        Kind::Text => row.try_get::<Option<String>, _>(index)?.map_or(Value::Null, Value::from),
        Kind::Bytes => {
            row.try_get::<Option<Vec<u8>>, _>(index)?.map_or(Value::Null, |v| Value::from(BASE64_STANDARD.encode(v)))
        }
    })
}

/// Rows on their way in, in one transaction.
pub struct Intake {
    transaction: sqlx::Transaction<'static, sqlx::Any>,
    database: database::Kind,
    tables: Vec<String>,
    table: Option<Table>,
    insert: String,
    counts: Counts,
}

impl Intake {
    /// Takes in a line. Names are those of the schema or refused: a dump may be anybody's.
    pub async fn line(&mut self, line: &str) -> Result<(), StoreError> {
        if line.starts_with('{') {
            let table: Table = serde_json::from_str(line).map_err(|e| damaged(e.to_string()))?;
            return self.begin(table).await;
        }
        let values: Vec<Value> = serde_json::from_str(line).map_err(|e| damaged(e.to_string()))?;
        let table = self.table.as_ref().ok_or_else(|| damaged("a row before the first table"))?;
        if values.len() != table.columns.len() {
            return Err(damaged(format!(
                "a row of {} has {} values instead of {}",
                table.table,
                values.len(),
                table.columns.len()
            )));
        }
        let mut query = sqlx::query(sqlx::AssertSqlSafe(self.insert.clone()));
        for ((column, kind), value) in table.columns.iter().zip(values) {
            let wrong = || damaged(format!("a value of {}.{column} is not of its kind", table.table));
            query = match (kind, value) {
                (Kind::Integer, Value::Null) => query.bind(None::<i64>),
                (Kind::Integer, value) => query.bind(value.as_i64().ok_or_else(wrong)?),
                (Kind::Real, Value::Null) => query.bind(None::<f64>),
                (Kind::Real, Value::String(digits)) => {
                    query.bind(f64::from_bits(u64::from_str_radix(&digits, 16).map_err(|_| wrong())?))
                }
                (Kind::Text, Value::Null) => query.bind(None::<String>),
                (Kind::Text, Value::String(text)) => query.bind(text),
                (Kind::Bytes, Value::Null) => query.bind(None::<Vec<u8>>),
                (Kind::Bytes, Value::String(text)) => query.bind(BASE64_STANDARD.decode(text).map_err(|_| wrong())?),
                _ => return Err(wrong()),
            };
        }
        query.execute(&mut *self.transaction).await.map_err(|e| StoreError::database("take in a row", e))?;
        self.counts.rows += 1;
        Ok(())
    }

    async fn begin(&mut self, table: Table) -> Result<(), StoreError> {
        let Some(index) = self.tables.iter().position(|t| *t == table.table) else {
            return Err(damaged(format!("the table {:?} is not one of this schema, or comes twice", table.table)));
        };
        self.tables.remove(index);
        let mut known = columns(&mut self.transaction, &table.table).await?;
        let mut given = table.columns.clone();
        known.sort_by(|a, b| a.0.cmp(&b.0));
        given.sort_by(|a, b| a.0.cmp(&b.0));
        if known != given {
            return Err(damaged(format!("the columns of {} are not those of this schema", table.table)));
        }
        // What migrations put there is in the dump as well.
        let name = &table.table;
        let empty = format!("DELETE FROM {name}");
        sqlx::query(sqlx::AssertSqlSafe(empty)).execute(&mut *self.transaction).await.map_err(error)?;
        if let Some(sequence) = table.sequence {
            database::set_highest_sequence(&mut self.transaction, self.database, &table.table, sequence)
                .await
                .map_err(error)?;
        }
        let columns: Vec<&str> = table.columns.iter().map(|(n, _)| n.as_str()).collect();
        let places: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let (columns, places) = (columns.join(", "), places.join(", "));
        self.insert = format!("INSERT INTO {name} ({columns}) VALUES ({places})");
        self.table = Some(table);
        self.counts.tables += 1;
        Ok(())
    }

    /// Everything is there now, or nothing.
    pub async fn finish(self) -> Result<Counts, StoreError> {
        if let Some(missing) = self.tables.first() {
            return Err(damaged(format!("the table {missing} is missing")));
        }
        self.transaction.commit().await.map_err(|e| StoreError::database("take in all rows", e))?;
        Ok(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;
    use serde_json::json;

    async fn dumped(store: &Store) -> (String, Counts) {
        let mut bytes = Vec::new();
        let counts = store.snapshot().await.unwrap().dump(&mut bytes).await.unwrap();
        (String::from_utf8(bytes).unwrap(), counts)
    }

    async fn taken_in(store: &Store, text: &str) -> Result<Counts, StoreError> {
        let mut intake = store.intake().await?;
        for line in text.lines() {
            intake.line(line).await?;
        }
        intake.finish().await
    }

    async fn stream(store: &Store, name: &str) -> i64 {
        store.create_log_stream("g", name).await.unwrap();
        store.log_stream("g", name).await.unwrap().unwrap()
    }

    /// From either kind of database to either, and numbers given once are not given again.
    #[tokio::test]
    async fn a_dump_taken_in_anywhere_gives_the_same_dump() {
        for place in places().await {
            let first = place.create().await;
            first.create_access_key("Ä \" \n key").await.unwrap();
            first.create_log_group("g").await.unwrap();
            stream(&first, "one").await;
            let last = stream(&first, "two").await;
            sqlx::query("DELETE FROM log_stream WHERE name = $1").bind("two").execute(&first.pool).await.unwrap();
            first.put_bytes("b", "k", "x", b"bytes").await.unwrap();
            let (text, counts) = dumped(&first).await;
            assert!(counts.rows >= 4, "{counts:?}");
            for place in places().await {
                let second = place.create().await;
                assert_eq!(taken_in(&second, &text).await.unwrap(), counts);
                assert_eq!(dumped(&second).await, (text.clone(), counts.clone()));
                assert_eq!(stream(&second, "three").await, last + 1);
            }
        }
    }

    #[tokio::test]
    async fn the_rows_are_those_of_one_moment() {
        for place in places().await {
            let store = place.create().await;
            let mut snapshot = store.snapshot().await.unwrap();
            store.create_log_group("later").await.unwrap();
            let mut bytes = Vec::new();
            snapshot.dump(&mut bytes).await.unwrap();
            assert!(!String::from_utf8(bytes).unwrap().contains("later"));
            assert!(dumped(&store).await.0.contains("later"));
        }
    }

    #[tokio::test]
    async fn a_dump_of_other_tables_columns_or_values_is_refused_whole() {
        let [place, _] = places().await;
        let first = place.create().await;
        first.create_log_group("g").await.unwrap();
        let (text, _) = dumped(&first).await;
        let without = |word: &str| text.lines().filter(|l| !l.contains(word)).collect::<Vec<_>>().join("\n");
        let table = |name: &str, columns: Value| json!({ "table": name, "columns": columns, "sequence": null }).to_string();
        let line = text.lines().find(|l| l.starts_with("{\"table\":\"log_group\"")).unwrap();
        let group = serde_json::from_str::<Value>(line).unwrap()["columns"].clone();
        let hostile = [
            "[1]".to_owned(),
            table("sqlite_master", json!([["name", "text"]])),
            table("log_group; DROP TABLE device", group.clone()),
            table("log_group", json!([["name", "text"], ["created_ms, name", "integer"]])),
            table("log_group", json!([["name", "text"]])),
            format!("{0}\n{0}", table("log_group", group.clone())),
            format!("{}\n[\"g\"]", table("log_group", group.clone())),
            format!("{}\n{}", table("log_group", group.clone()), json!(vec!["g"; group.as_array().unwrap().len()])),
            format!("{}\n{}", table("log_group", group.clone()), json!(vec![Value::Null; group.as_array().unwrap().len()])),
            without("\"access_key\""),
        ];
        for place in places().await {
            let second = place.create().await;
            second.create_log_group("mine").await.unwrap();
            for text in &hostile {
                assert!(taken_in(&second, text).await.is_err(), "{text}");
                assert_eq!(second.list_log_groups("").await.unwrap().len(), 1, "{text}");
            }
        }
    }

    #[tokio::test]
    async fn the_tables_named_in_the_schema_are_those_of_the_database() {
        let [place, _] = places().await;
        let store = place.create().await;
        let master = "sqlite_master";
        let sql = sqlx::AssertSqlSafe(format!("SELECT name FROM {master} WHERE type = 'table'"));
        let mut known: Vec<String> = sqlx::query_scalar(sql).fetch_all(&store.pool).await.unwrap();
        known.retain(|name| !name.starts_with("sqlite_") && name != "schema_version");
        let mut named = schema::tables(schema::NEWEST);
        known.sort();
        named.sort();
        assert_eq!(named, known);
    }
}
