//! Log groups, streams and events. Within a stream events are in the order of their times, then of their arrival.

use crate::{Store, StoreError, now_ms};
use sqlx::Row;

/// An event on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// One line.
    pub message: String,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it is in its stream.
    pub position: Position,
    /// When it came.
    pub ingestion_ms: i64,
    /// One line.
    pub message: String,
}

/// Where an event is in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Order of arrival.
    pub sequence: i64,
}

/// Which part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The oldest.
    Head,
    /// The newest.
    Tail,
    /// Those that follow.
    After(Position),
    /// Those right before.
    Before(Position),
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGroup {
    /// `/aws/panorama/devices/…`.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStream {
    /// `code_node`, `console_output`, ….
    pub name: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Time of the oldest event.
    pub first_event_ms: Option<i64>,
    /// Time of the newest event.
    pub last_event_ms: Option<i64>,
    /// When the last event came.
    pub last_ingestion_ms: Option<i64>,
}

impl Store {
    /// Makes a group; [`StoreError::Exists`].
    pub async fn create_log_group(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO log_group (name, created_ms) VALUES ($1, $2)")
            .bind(name)
            .bind(now_ms())
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::insert("store a log group", name, e))
    }

    /// Makes a stream; [`StoreError::Exists`]. False if there is no such group.
    pub async fn create_log_stream(&self, group: &str, name: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("INSERT INTO log_stream (log_group, name, created_ms) VALUES ($1, $2, $3)")
            .bind(group)
            .bind(name)
            .bind(now_ms())
            .execute(&self.pool)
            .await;
        match done {
            Ok(_) => Ok(true),
            Err(sqlx::Error::Database(d)) if d.is_foreign_key_violation() => Ok(false),
            Err(e) => Err(StoreError::insert("store a log stream", name, e)),
        }
    }

    /// Groups whose names begin with `prefix`, by name.
    pub async fn list_log_groups(&self, prefix: &str) -> Result<Vec<LogGroup>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT name, created_ms FROM log_group WHERE substr(name, 1, length($1)) = $1 ORDER BY name LIMIT 5000",
        )
        .bind(prefix)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list log groups", e))?;
        Ok(rows.into_iter().map(|(name, created_ms)| LogGroup { name, created_ms }).collect())
    }

    /// Streams of a group whose names begin with `prefix`, by name; `None` if there is no such group.
    pub async fn list_log_streams(&self, group: &str, prefix: &str) -> Result<Option<Vec<LogStream>>, StoreError> {
        let error = |e| StoreError::database("list log streams", e);
        let known: Option<i64> = sqlx::query_scalar("SELECT created_ms FROM log_group WHERE name = $1")
            .bind(group)
            .fetch_optional(&self.pool)
            .await
            .map_err(error)?;
        if known.is_none() {
            return Ok(None);
        }
        let rows = sqlx::query(
            "SELECT * FROM log_stream WHERE log_group = $1 AND substr(name, 1, length($2)) = $2 ORDER BY name LIMIT 5000",
        )
        .bind(group)
        .bind(prefix)
        .fetch_all(&self.pool)
        .await
        .map_err(error)?;
        let streams = rows.iter().map(|row| {
            Ok(LogStream {
                name: row.try_get("name").map_err(error)?,
                created_ms: row.try_get("created_ms").map_err(error)?,
                first_event_ms: row.try_get("first_event_ms").map_err(error)?,
                last_event_ms: row.try_get("last_event_ms").map_err(error)?,
                last_ingestion_ms: row.try_get("last_ingestion_ms").map_err(error)?,
            })
        });
        streams.collect::<Result<Vec<_>, StoreError>>().map(Some)
    }

    /// The number of a stream.
    pub async fn log_stream(&self, group: &str, name: &str) -> Result<Option<i64>, StoreError> {
        sqlx::query_scalar("SELECT sequence FROM log_stream WHERE log_group = $1 AND name = $2")
            .bind(group)
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("look up a log stream", e))
    }

    /// Adds events, all or none.
    pub async fn put_log_events(&self, stream: i64, events: &[NewEvent]) -> Result<(), StoreError> {
        let error = |e| StoreError::database("store log events", e);
        let (Some(first), Some(last)) =
            (events.iter().map(|e| e.timestamp_ms).min(), events.iter().map(|e| e.timestamp_ms).max())
        else {
            return Ok(());
        };
        let now = now_ms();
        let mut transaction = self.pool.begin().await.map_err(error)?;
        // The stream's row first: who writes it holds the stream, so that events arrive in the order of their numbers.
        sqlx::query(
            "UPDATE log_stream SET first_event_ms = CASE WHEN first_event_ms <= $1 THEN first_event_ms ELSE $1 END, \
             last_event_ms = CASE WHEN last_event_ms >= $2 THEN last_event_ms ELSE $2 END, last_ingestion_ms = $3 \
             WHERE sequence = $4",
        )
        .bind(first)
        .bind(last)
        .bind(now)
        .bind(stream)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        for event in events {
            sqlx::query("INSERT INTO log_event (stream, timestamp_ms, ingestion_ms, message) VALUES ($1, $2, $3, $4)")
                .bind(stream)
                .bind(event.timestamp_ms)
                .bind(now)
                .bind(&event.message)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }

    /// At most `limit` events with times in `[start_ms, end_ms)`, oldest first.
    pub async fn log_events(
        &self,
        stream: i64,
        from: From,
        start_ms: i64,
        end_ms: i64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let error = |e| StoreError::database("read log events", e);
        let (at, downward) = match from {
            From::Head => (Position { timestamp_ms: i64::MIN, sequence: 0 }, false),
            From::After(position) => (position, false),
            From::Tail => (Position { timestamp_ms: i64::MAX, sequence: 0 }, true),
            From::Before(position) => (position, true),
        };
        let sql = match downward {
            false => {
                "SELECT * FROM log_event WHERE stream = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3 \
                 AND (timestamp_ms, sequence) > ($4, $5) ORDER BY timestamp_ms, sequence LIMIT $6"
            }
            true => {
                "SELECT * FROM log_event WHERE stream = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3 \
                 AND (timestamp_ms, sequence) < ($4, $5) ORDER BY timestamp_ms DESC, sequence DESC LIMIT $6"
            }
        };
        let rows = sqlx::query(sql)
            .bind(stream)
            .bind(start_ms)
            .bind(end_ms)
            .bind(at.timestamp_ms)
            .bind(at.sequence)
            .bind(limit as i64)
            .fetch_all(&self.pool)
            .await
            .map_err(error)?;
        let mut events = rows
            .iter()
            .map(|row| {
                Ok(Event {
                    position: Position {
                        timestamp_ms: row.try_get("timestamp_ms").map_err(error)?,
                        sequence: row.try_get("sequence").map_err(error)?,
                    },
                    ingestion_ms: row.try_get("ingestion_ms").map_err(error)?,
                    message: row.try_get("message").map_err(error)?,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        if downward {
            events.reverse();
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_read_in_order_from_both_ends() {
        for place in crate::testing::places().await {
            let store = place.create().await;
            assert!(!store.create_log_stream("g", "s").await.unwrap(), "no group yet");
            store.create_log_group("g").await.unwrap();
            assert!(matches!(store.create_log_group("g").await, Err(StoreError::Exists { .. })));
            assert!(store.create_log_stream("g", "s").await.unwrap());
            assert!(matches!(store.create_log_stream("g", "s").await, Err(StoreError::Exists { .. })));
            let stream = store.log_stream("g", "s").await.unwrap().unwrap();
            let event = |t, m: &str| NewEvent { timestamp_ms: t, message: m.into() };
            store.put_log_events(stream, &[event(20, "b"), event(10, "a"), event(20, "c")]).await.unwrap();
            store.put_log_events(stream, &[event(30, "d")]).await.unwrap();
            let read = async |from, limit| {
                let events = store.log_events(stream, from, 0, i64::MAX, limit).await.unwrap();
                (events.iter().map(|e| e.message.clone()).collect::<String>(), events)
            };
            assert_eq!(read(From::Head, 3).await.0, "abc");
            let (text, tail) = read(From::Tail, 2).await;
            assert_eq!(text, "cd");
            assert_eq!(read(From::Before(tail[0].position), 9).await.0, "ab");
            assert_eq!(read(From::After(tail[0].position), 9).await.0, "d");
            assert_eq!(store.log_events(stream, From::Head, 20, 30, 9).await.unwrap().len(), 2);
            let streams = store.list_log_streams("g", "").await.unwrap().unwrap();
            assert_eq!((streams[0].first_event_ms, streams[0].last_event_ms), (Some(10), Some(30)));
        }
    }
}
