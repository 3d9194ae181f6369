//! Log groups, streams and events. Within a stream events are in the order of their times, then of their arrival.

use crate::{Store, StoreError, now_ms};
use futures_util::TryStreamExt;
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
    /// Days for which events are kept; for ever if absent.
    pub retention_days: Option<i64>,
    /// Size of all events, in characters, and 26 for each, as CloudWatch counts.
    pub stored_bytes: i64,
}

/// What an event counts beside its message.
pub const OVERHEAD: usize = 26;
/// Messages of one read, in bytes; at least one event is read.
const READ_BYTES: usize = 1_048_576;

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
    /// Size of all events, as [`LogGroup::stored_bytes`].
    pub stored_bytes: i64,
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
        let rows: Vec<(String, i64, Option<i64>, i64)> = sqlx::query_as(
            "SELECT g.name, g.created_ms, g.retention_days, \
             (SELECT CAST(coalesce(sum(s.stored_bytes), 0) AS BIGINT) FROM log_stream s WHERE s.log_group = g.name) \
             FROM log_group g WHERE substr(g.name, 1, length($1)) = $1 ORDER BY g.name LIMIT 5000",
        )
        .bind(prefix)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list log groups", e))?;
        let group =
            |(name, created_ms, retention_days, stored_bytes)| LogGroup { name, created_ms, retention_days, stored_bytes };
        Ok(rows.into_iter().map(group).collect())
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
                stored_bytes: row.try_get("stored_bytes").map_err(error)?,
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
             last_event_ms = CASE WHEN last_event_ms >= $2 THEN last_event_ms ELSE $2 END, last_ingestion_ms = $3, \
             stored_bytes = stored_bytes + $4 WHERE sequence = $5",
        )
        .bind(first)
        .bind(last)
        .bind(now)
        .bind(events.iter().map(|e| (e.message.chars().count() + OVERHEAD) as i64).sum::<i64>())
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

    /// At most `limit` events, and a mebibyte, with times in `[start_ms, end_ms)`, oldest first.
    pub async fn log_events(
        &self,
        stream: i64,
        from: From,
        start_ms: i64,
        end_ms: i64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        Ok(self.read(stream, from, start_ms, end_ms, limit, READ_BYTES).await?.0)
    }

    /// Events, and whether there may be more of them.
    async fn read(
        &self,
        stream: i64,
        from: From,
        start_ms: i64,
        end_ms: i64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Vec<Event>, bool), StoreError> {
        let error = |e| StoreError::database("read log events", e);
        let (at, downward) = match from {
            From::Head => (Position { timestamp_ms: i64::MIN, sequence: 0 }, false),
            From::After(position) => (position, false),
            From::Tail => (Position { timestamp_ms: i64::MAX, sequence: 0 }, true),
            From::Before(position) => (position, true),
        };
        let sql = match downward {
            false => {
                "SELECT timestamp_ms, sequence, ingestion_ms, message FROM log_event WHERE stream = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3 \
                 AND (timestamp_ms, sequence) > ($4, $5) ORDER BY timestamp_ms, sequence LIMIT $6"
            }
            true => {
                "SELECT timestamp_ms, sequence, ingestion_ms, message FROM log_event WHERE stream = $1 AND timestamp_ms >= $2 AND timestamp_ms < $3 \
                 AND (timestamp_ms, sequence) < ($4, $5) ORDER BY timestamp_ms DESC, sequence DESC LIMIT $6"
            }
        };
        let mut rows = sqlx::query_as::<_, (i64, i64, i64, String)>(sql)
            .bind(stream)
            .bind(start_ms)
            .bind(end_ms)
            .bind(at.timestamp_ms)
            .bind(at.sequence)
            .bind(limit as i64)
            .fetch(&self.pool);
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some((timestamp_ms, sequence, ingestion_ms, message)) = rows.try_next().await.map_err(error)? {
            bytes += message.len() + OVERHEAD;
            if bytes > max_bytes && !events.is_empty() {
                return Ok((ordered(events, downward), true));
            }
            events.push(Event { position: Position { timestamp_ms, sequence }, ingestion_ms, message });
        }
        let more = events.len() == limit;
        Ok((ordered(events, downward), more))
    }

    /// Events of several streams after a position, in the order of their times. Whatever one stream has more than is
    /// read at once holds the others back, so that nothing is passed over.
    pub async fn scan_log_events(
        &self,
        streams: &[i64],
        after: Position,
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Scan, StoreError> {
        let share = streams.len().max(1);
        let (limit, bytes) = ((SCAN_EVENTS / share).max(20), (SCAN_BYTES / share).max(16 * 1024));
        let (mut found, mut horizon) = (Vec::new(), None);
        for (index, stream) in streams.iter().enumerate() {
            let (events, more) = self.read(*stream, From::After(after), start_ms, end_ms, limit, bytes).await?;
            if let (true, Some(last)) = (more, events.last()) {
                horizon = Some(horizon.map_or(last.position, |known: Position| known.min(last.position)));
            }
            found.extend(events.into_iter().map(|event| (index, event)));
        }
        found.retain(|(_, event)| horizon.is_none_or(|horizon| event.position <= horizon));
        found.sort_by_key(|(_, event)| event.position);
        Ok(Scan { events: found, more_after: horizon })
    }
}

/// A part of several streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Which of the streams, and the event.
    pub events: Vec<(usize, Event)>,
    /// There is more after this position.
    pub more_after: Option<Position>,
}

/// Events that a scan reads at once.
const SCAN_EVENTS: usize = 10_000;
/// Bytes that a scan reads at once.
const SCAN_BYTES: usize = 8 * 1024 * 1024;

fn ordered(mut events: Vec<Event>, downward: bool) -> Vec<Event> {
    if downward {
        events.reverse();
    }
    events
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

    #[tokio::test]
    async fn a_scan_of_several_streams_passes_nothing_over() {
        for place in crate::testing::places().await {
            let store = place.create().await;
            store.create_log_group("g").await.unwrap();
            let (mut streams, mut put) = (Vec::new(), Vec::new());
            for (name, count, step) in [("many", SCAN_EVENTS as i64, 1), ("few", 10, 900)] {
                store.create_log_stream("g", name).await.unwrap();
                let stream = store.log_stream("g", name).await.unwrap().unwrap();
                let event = |n: i64| NewEvent { timestamp_ms: n * step, message: format!("{name} {n}") };
                let events: Vec<NewEvent> = (0..count).map(event).collect();
                store.put_log_events(stream, &events).await.unwrap();
                put.extend(events.into_iter().map(|e| (e.timestamp_ms, e.message)));
                streams.push(stream);
            }
            let (mut seen, mut after, mut scans) = (Vec::new(), Position { timestamp_ms: i64::MIN, sequence: 0 }, 0);
            loop {
                let scan = store.scan_log_events(&streams, after, 0, i64::MAX).await.unwrap();
                seen.extend(scan.events.into_iter().map(|(_, e)| (e.position.timestamp_ms, e.message)));
                scans += 1;
                match scan.more_after {
                    Some(position) => after = position,
                    None => break,
                }
            }
            assert!(scans > 1, "the longer stream holds the shorter one back");
            assert!(seen.is_sorted_by_key(|(time, _)| *time));
            seen.sort();
            put.sort();
            assert_eq!(seen, put);
        }
    }

    #[tokio::test]
    async fn old_events_go_when_their_group_says_so_and_groups_go_with_everything() {
        const DAY: i64 = 24 * 3600 * 1000;
        for place in crate::testing::places().await {
            let store = place.create().await;
            let mut streams = Vec::new();
            for group in ["short", "kept"] {
                store.create_log_group(group).await.unwrap();
                store.create_log_stream(group, "s").await.unwrap();
                let stream = store.log_stream(group, "s").await.unwrap().unwrap();
                let event = |day: i64| NewEvent { timestamp_ms: day * DAY, message: "four".into() };
                store.put_log_events(stream, &(0..10).map(event).collect::<Vec<_>>()).await.unwrap();
                streams.push(stream);
            }
            assert!(store.set_log_retention("short", Some(3)).await.unwrap());
            assert!(!store.set_log_retention("none", Some(3)).await.unwrap());
            assert_eq!(store.age_logs(9 * DAY + 1).await.unwrap(), 7);
            let count = async |stream| store.log_events(stream, From::Head, 0, i64::MAX, 99).await.unwrap().len();
            assert_eq!((count(streams[0]).await, count(streams[1]).await), (3, 10));
            let groups = store.list_log_groups("").await.unwrap();
            let sizes: Vec<i64> = groups.iter().map(|g| g.stored_bytes).collect();
            assert_eq!((groups[1].retention_days, sizes), (Some(3), vec![300, 90]));
            let stream = &store.list_log_streams("short", "").await.unwrap().unwrap()[0];
            assert_eq!((stream.first_event_ms, stream.stored_bytes), (Some(7 * DAY), 90));
            assert!(store.set_log_retention("short", None).await.unwrap());
            assert_eq!(store.age_logs(99 * DAY).await.unwrap(), 0);
            assert!(
                store.delete_log_stream("kept", "s").await.unwrap() && !store.delete_log_stream("kept", "s").await.unwrap()
            );
            assert!(store.delete_log_group("short").await.unwrap() && !store.delete_log_group("short").await.unwrap());
            assert_eq!((count(streams[0]).await, count(streams[1]).await), (0, 0));
        }
    }
}
