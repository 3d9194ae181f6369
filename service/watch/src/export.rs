//! Log groups become objects: `<prefix>/<task>/<stream>/000000.gz`, a line for each event, its time first; and
//! `<prefix>/aws-logs-write-test`, which CloudWatch writes before it begins.
//!
//! An export is claimed for a while, and again for each part that was read. If the service dies, another takes it over
//! and begins anew: the objects have the same names, so what was half written is replaced.

use crate::text::zulu;
use belvedere_store::log_exports::Export;
use belvedere_store::logs::{From, Position};
use belvedere_store::metadata::Metadata;
use belvedere_store::{Store, StoreError, now_ms};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// For how long an export is claimed.
const LEASE_MS: i64 = 30_000;
/// Events read at once.
const BATCH: usize = 5000;

/// Carries out the next export, if there is one. Whether there was.
pub async fn next(store: &Store) -> Result<bool, StoreError> {
    let Some(export) = store.claim_log_export(now_ms(), LEASE_MS).await? else { return Ok(false) };
    let (status, message) = match carry_out(store, &export).await {
        Ok(streams) => ("COMPLETED", format!("Completed successfully: {streams} streams")),
        Err(e) => {
            tracing::error!(task_id = export.task_id, "cannot export logs: {e}");
            ("FAILED", "The service could not read the logs or write the objects; its log says more.".to_owned())
        }
    };
    store.end_log_export(&export.task_id, status, &message).await?;
    tracing::info!(task_id = export.task_id, group = export.group, status, "log export ended");
    Ok(true)
}

/// The key of a stream's object. A slash in a stream's name would be a folder, and a folder "..", or a character that
/// cannot be seen, a key that S3 refuses: the object could neither be read nor deleted.
fn key(export: &Export, stream: &str) -> String {
    let plain = |c: char| if c.is_control() || ['/', '\\'].contains(&c) { '-' } else { c };
    let stream: String = match stream {
        "." | ".." => stream.replace('.', "-"),
        _ => stream.chars().map(plain).collect(),
    };
    format!("{}/{}/{stream}/000000.gz", export.prefix, export.task_id)
}

async fn carry_out(store: &Store, export: &Export) -> Result<usize, StoreError> {
    let test = format!("{}/aws-logs-write-test", export.prefix);
    store.put_bytes(&export.bucket, &test, "binary/octet-stream", b"Permission Check Successful").await?;
    let mut written = 0;
    for stream in store.list_log_streams(&export.group, &export.stream_prefix).await?.unwrap_or_default() {
        let Some(number) = store.log_stream(&export.group, &stream.name).await? else { continue };
        written += usize::from(write_stream(store, export, &stream.name, number).await?);
    }
    Ok(written)
}

/// Writes a stream's object, unless it has no events in that time.
async fn write_stream(store: &Store, export: &Export, name: &str, number: i64) -> Result<bool, StoreError> {
    let mut after = Position { timestamp_ms: i64::MIN, sequence: 0 };
    let until = export.to_ms.saturating_add(1);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut writer = None;
    loop {
        let events = store.log_events(number, From::After(after), export.from_ms, until, BATCH).await?;
        let Some(last) = events.last() else { break };
        after = last.position;
        for event in &events {
            // Writing into memory does not fail.
            let _ = writeln!(encoder, "{} {}", zulu(event.position.timestamp_ms), event.message);
        }
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(store.object_writer().await?),
        };
        writer.write(&std::mem::take(encoder.get_mut())).await?;
        store.keep_log_export(&export.task_id, now_ms() + LEASE_MS).await?;
    }
    let Some(mut writer) = writer else { return Ok(false) };
    writer.write(&encoder.finish().unwrap_or_default()).await?;
    store
        .put_object(&export.bucket, &key(export, name), "application/x-gzip", &Metadata::default(), writer.finish().await?)
        .await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_store::log_exports::NewExport;
    use belvedere_store::logs::NewEvent;
    use flate2::read::GzDecoder;
    use std::io::Read;

    #[tokio::test]
    async fn each_stream_with_events_of_that_time_is_an_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).await.unwrap();
        store.create_log_group("g").await.unwrap();
        for (name, times) in
            [("a/b", 0..BATCH as i64 + 10), ("empty", 0..0), ("late", 90_000..90_001), ("..", 5..6), ("\\..\n", 5..6)]
        {
            store.create_log_stream("g", name).await.unwrap();
            let number = store.log_stream("g", name).await.unwrap().unwrap();
            let events: Vec<NewEvent> =
                times.map(|t| NewEvent { timestamp_ms: t, message: format!("{name} {t}") }).collect();
            store.put_log_events(number, &events).await.unwrap();
        }
        let new =
            NewExport { name: None, group: "g", stream_prefix: "", from_ms: 1, to_ms: 80_000, bucket: "b", prefix: "p" };
        let id = store.create_log_export(new).await.unwrap().unwrap();
        assert!(next(&store).await.unwrap());
        assert!(!next(&store).await.unwrap());
        let keys: Vec<String> = store.list_objects("b", "", "", 9).await.unwrap().into_iter().map(|o| o.key).collect();
        let mut expected = ["a-b", "--", "-..-"].map(|stream| format!("p/{id}/{stream}/000000.gz")).to_vec();
        expected.push("p/aws-logs-write-test".to_owned());
        expected.sort();
        assert_eq!(keys, expected);
        let packed = store.read_object("b", &format!("p/{id}/a-b/000000.gz"), 1 << 20).await.unwrap().unwrap();
        let mut text = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), BATCH + 9, "from and to are both in it");
        assert_eq!(lines[0], "1970-01-01T00:00:00.001Z a/b 1");
        assert_eq!(store.list_log_exports().await.unwrap()[0].status, "COMPLETED");
    }
}
