//! Service x05: one of 8,000 objects was closed without an answer or came short. Reads from a running service over keep-alive
//! connections, every byte compared: a few thousand always, 200,000 with `scripts/test --long` (BELVEDERE_LONG=1).
//!
//!     BELVEDERE_LONG=1 scripts/cargo test --profile service -p belvedere-service --test object_reads -- --nocapture

use belvedere_api::limits::Limits;
use belvedere_api::sigv4::Scope;
use belvedere_api::sigv4::canonical::{Request, canonical_request, encode, signature, signing_key, string_to_sign};
use belvedere_service::initialise::{FirstKey, New, initialise};
use belvedere_service::serve::{Listening, Options, Signals, serve};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

const CONNECTIONS: u64 = 16;

/// How many reads of which size.
fn plan() -> [(usize, u64); 3] {
    match std::env::var("BELVEDERE_LONG").is_ok_and(|v| v == "1") {
        true => [(1, 100_000), (64 << 10, 80_000), (5 << 20, 20_000)],
        false => [(1, 3000), (64 << 10, 1000), (5 << 20, 50)],
    }
}

/// A key directory as `belvedere-keys init` makes it, as far as the service looks at it.
fn keys(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    std::fs::write(folder.join("device-ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(folder.join("device-ca.key"), key.serialize_pem()).unwrap();
}

/// Path and query of a presigned request, which is good as often as one likes for a week: longer than any run.
fn presigned(key: &FirstKey, at: SocketAddr, method: &str, path: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let date = belvedere_api::sigv4::clock::iso8601(now);
    let date: String = date.split('.').next().unwrap().chars().filter(|c| !"-:Z".contains(*c)).chain(['Z']).collect();
    let scope = Scope { date: date[..8].into(), region: "us-east-1".into(), service: "s3".into() };
    let credential = encode(format!("{}/{scope}", key.access_key_id).as_bytes(), b"");
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}&X-Amz-Expires=604800&X-Amz-SignedHeaders=host"
    );
    let host = at.to_string();
    let headers = [("host", vec![host.as_str()])];
    let request = Request { method, path, query: &query, headers: &headers, payload: "UNSIGNED-PAYLOAD" };
    let text = string_to_sign(&canonical_request(&request, "s3"), &date, &scope);
    format!("{path}?{query}&X-Amz-Signature={}", signature(&signing_key(&key.secret_access_key, &scope), &text))
}

/// Sends a request and reads its answer whole: the status, and the body.
async fn ask(stream: &mut TcpStream, head: String, body: &[u8], answer: &mut Vec<u8>) -> Result<u16, String> {
    stream.write_all(head.as_bytes()).await.map_err(|e| e.to_string())?;
    stream.write_all(body).await.map_err(|e| e.to_string())?;
    answer.clear();
    let (mut held, begin) = (vec![0; 64 << 10], 4);
    let end = loop {
        let count = stream.read(&mut held).await.map_err(|e| e.to_string())?;
        if count == 0 {
            return Err(format!("closed after {} bytes of the answer", answer.len()));
        }
        answer.extend_from_slice(&held[..count]);
        if let Some(end) = answer.windows(begin).position(|w| w == b"\r\n\r\n") {
            break end;
        }
    };
    let text = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = text.get(9..12).and_then(|s| s.parse().ok()).ok_or("no status")?;
    let length =
        text.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let length = length.unwrap_or(0);
    answer.drain(..end + begin);
    while answer.len() < length {
        let count = stream.read(&mut held).await.map_err(|e| e.to_string())?;
        if count == 0 {
            return Err(format!("closed after {} of {length} bytes", answer.len()));
        }
        answer.extend_from_slice(&held[..count]);
    }
    if answer.len() > length { Err("more than its length came".into()) } else { Ok(status) }
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_comes_short() {
    let folder = tempfile::tempdir().unwrap();
    let (data, keys_at) = (folder.path().join("data"), folder.path().join("keys"));
    keys(&keys_at);
    let new = New {
        data: &data,
        keys: &keys_at,
        account: "123456789012",
        region: "us-east-1",
        names: &[],
        backends: Default::default(),
        limits: Limits::unlimited(),
    };
    let key = initialise(new).await.unwrap();
    let (stop_sender, stop) = watch::channel(false);
    let (_reload_sender, reload) = watch::channel(());
    // A runtime of its own, as the program has.
    let serving = std::thread::spawn({
        let data = data.clone();
        move || {
            let any = "127.0.0.1:0";
            let options = Options {
                api: any,
                device_https: any,
                mqtt: any,
                advertise_host: "127.0.0.1",
                https: None,
                certificate: None,
                metrics: None,
                farewell: Duration::from_secs(1),
            };
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(serve(&data, options, Signals { stop, reload })).unwrap();
        }
    });
    let listening: Listening = loop {
        if let Ok(text) = std::fs::read(data.join("endpoints.json")) {
            break serde_json::from_slice(&text).unwrap();
        }
        assert!(!serving.is_finished(), "the service does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let at = listening.api;
    let bucket: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("service.json")).unwrap()).unwrap();
    let bucket = bucket["bucket"].as_str().unwrap().to_owned();

    let (short, reads) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    for (size, count) in plan() {
        let path = format!("/{bucket}/object-of-{size}");
        let expected = Arc::new(bytes(size));
        let mut stream = TcpStream::connect(at).await.unwrap();
        let put = presigned(&key, at, "PUT", &path);
        let head = format!("PUT {put} HTTP/1.1\r\nHost: {at}\r\nContent-Length: {size}\r\n\r\n");
        assert_eq!(ask(&mut stream, head, &expected, &mut Vec::new()).await, Ok(200));
        let get = presigned(&key, at, "GET", &path);
        let head = Arc::new(format!("GET {get} HTTP/1.1\r\nHost: {at}\r\n\r\n"));
        let tasks: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (head, expected, short, reads) = (head.clone(), expected.clone(), short.clone(), reads.clone());
                tokio::spawn(async move {
                    let (mut stream, mut answer) = (TcpStream::connect(at).await.unwrap(), Vec::new());
                    for _ in (number..count).step_by(CONNECTIONS as usize) {
                        let status = ask(&mut stream, (*head).clone(), b"", &mut answer).await;
                        reads.fetch_add(1, Ordering::Relaxed);
                        if status != Ok(200) || answer != *expected {
                            println!("{size} bytes: {status:?}, {} came", answer.len());
                            short.fetch_add(1, Ordering::Relaxed);
                            stream = TcpStream::connect(at).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    let (short, reads) = (short.load(Ordering::Relaxed), reads.load(Ordering::Relaxed));
    let wanted: u64 = plan().iter().map(|(_, count)| count).sum();
    println!("measured: {reads} reads of objects of 1 B, 64 KiB and 5 MiB in {:.0?}, {short} not whole", began.elapsed());
    assert_eq!((reads, short), (wanted, 0));
    stop_sender.send(true).unwrap();
    tokio::task::spawn_blocking(move || serving.join().unwrap()).await.unwrap();
}
