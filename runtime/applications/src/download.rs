//! Brings an object of the service's bucket onto the disk: HTTPS with the service's own authority, signed with
//! short-lived keys (SigV4, path style), resumable, bounded, and verified before it has its name.
//!
//! `objects/<sha256>` is whole and right; `objects/.<sha256>.part` is what has come so far. Whatever happens in
//! between, the next attempt goes on where this one ended.

use belvedere_device_protocol::Object;
use belvedere_interfaces::applications::SetObjectAccess;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use ureq::http;

/// Bytes of one object.
pub const OBJECT: u64 = 16 << 30;
/// Without a byte for this long an attempt has failed.
pub const STALL: Duration = Duration::from_secs(60);
/// How often a download asks whether to go on.
const LOOK: Duration = Duration::from_millis(250);
/// Pieces that wait between network and disk.
const PIECES: usize = 4;
/// How long a signed address is good.
const SIGNATURE: Duration = Duration::from_secs(900);

/// Why an object did not come. None of these texts holds keys or signed addresses.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The agent has not given access yet, or it has ended.
    #[error("no access to the object store yet; the agent renews it when the service is reachable")]
    NoAccess,
    /// What the agent gave cannot be used.
    #[error("access to the object store: {0}")]
    Access(String),
    /// The object is not as its description says.
    #[error("object {name}: {problem}")]
    Wrong {
        /// Its name in the deployment.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The network or the service failed; try again.
    #[error("download {name}: {problem}")]
    Transfer {
        /// Its name in the deployment.
        name: String,
        /// What happened.
        problem: String,
    },
    /// The disk failed.
    #[error("store {name}: {source}")]
    Store {
        /// Its name in the deployment.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Asks whether to go on; `false` ends a download, keeping what has come.
pub type GoOn<'a> = &'a dyn Fn() -> bool;

/// Where `object` is once it is whole.
pub fn place(directory: &Path, object: &Object) -> PathBuf {
    directory.join(&object.sha256)
}

/// Where the part of `object` is that has come so far.
pub fn part(directory: &Path, object: &Object) -> PathBuf {
    directory.join(format!(".{}.part", object.sha256))
}

/// Downloads `object` into `directory`, unless it is there; gives its path. `access` is only needed when it is not. An
/// attempt ends when nothing has come for `stall`, and within a moment when `go_on` says no, whatever the network does.
pub fn fetch(
    directory: &Path,
    object: &Object,
    access: Option<&SetObjectAccess>,
    stall: Duration,
    go_on: GoOn,
) -> Result<PathBuf, DownloadError> {
    let store = |source| DownloadError::Store { name: object.name.clone(), source };
    let transfer = |problem: String| DownloadError::Transfer { name: object.name.clone(), problem };
    check(object)?;
    let whole = place(directory, object);
    if whole.exists() {
        return Ok(whole);
    }
    let access = access.ok_or(DownloadError::NoAccess)?;
    std::fs::create_dir_all(directory).map_err(store)?;
    let part = part(directory, object);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part).map_err(store)?;
    let mut hash = Sha256::new();
    let Some(mut have) = hash_of(&mut file, &mut hash, object.size, go_on).map_err(store)? else {
        return Err(transfer("interrupted".into()));
    };
    if have < object.size {
        let pieces = request_in_a_thread(object, access, have, stall)?;
        let mut heard = Instant::now();
        while have < object.size {
            if !go_on() {
                return Err(transfer("interrupted".into()));
            }
            match pieces.recv_timeout(LOOK) {
                Ok(Ok(Piece::Begin { from: 0 })) if have > 0 => {
                    // The server begins anew, so do we.
                    hash = Sha256::new();
                    have = 0;
                    file.set_len(0).and_then(|()| file.rewind()).map_err(store)?;
                }
                Ok(Ok(Piece::Begin { .. })) => {
                    file.set_len(have).and_then(|()| file.seek(io::SeekFrom::Start(have)).map(drop)).map_err(store)?;
                }
                Ok(Ok(Piece::Bytes(bytes))) => {
                    let room = usize::try_from(object.size - have).unwrap_or(usize::MAX);
                    let bytes = &bytes[..bytes.len().min(room)];
                    file.write_all(bytes).map_err(store)?;
                    hash.update(bytes);
                    have += bytes.len() as u64;
                }
                Ok(Ok(Piece::End)) => return Err(transfer(format!("ended after {have} of {} bytes", object.size))),
                Ok(Err(DownloadError::Transfer { problem, .. })) if have > 0 => {
                    return Err(transfer(format!("after {have} of {} bytes: {problem}", object.size)));
                }
                Ok(Err(error)) => return Err(error),
                // The other thread has its own deadlines; this one holds whatever the library does.
                Err(RecvTimeoutError::Timeout) if heard.elapsed() < stall + stall / 2 => continue,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(transfer(format!("nothing came for {} s, after {have} bytes", heard.elapsed().as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(transfer("the transfer broke off".into())),
            }
            heard = Instant::now();
        }
    }
    let found = hex::encode(hash.finalize());
    if found != object.sha256 {
        // Nothing of it can be trusted.
        let _ = std::fs::remove_file(&part);
        let problem = format!("its SHA-256 is {found}, expected {}; it was removed and is downloaded anew", object.sha256);
        return Err(DownloadError::Wrong { name: object.name.clone(), problem });
    }
    // The name promises that every byte is on the medium.
    file.sync_all().map_err(store)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the file was written over many connections; file and directory are synchronised"
    )]
    std::fs::rename(&part, &whole).map_err(store)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(store)?;
    Ok(whole)
}

fn check(object: &Object) -> Result<(), DownloadError> {
    let wrong = |problem: &str| Err(DownloadError::Wrong { name: object.name.clone(), problem: problem.into() });
    if object.sha256.len() != 64 || !object.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return wrong("its SHA-256 is not 64 lower-case hexadecimal digits");
    }
    if object.size > OBJECT {
        return wrong("it is larger than an appliance takes");
    }
    Ok(())
}

/// Hashes what has come already; gives how much that is, or nothing when it was asked to end. More than the whole is no
/// part of it.
fn hash_of(file: &mut File, hash: &mut Sha256, size: u64, go_on: GoOn) -> io::Result<Option<u64>> {
    if file.metadata()?.len() > size {
        file.set_len(0)?;
        return Ok(Some(0));
    }
    file.rewind()?;
    let mut buffer = vec![0; 256 << 10];
    let mut have = 0;
    while go_on() {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(Some(have));
        }
        hash.update(&buffer[..count]);
        have += count as u64;
    }
    Ok(None)
}

/// What a transfer brings.
enum Piece {
    /// An answer that begins at this byte.
    Begin { from: u64 },
    /// More of it.
    Bytes(Vec<u8>),
    /// The answer's end.
    End,
}

/// Asks for an object, from a byte on. In a thread of its own, because a name that is looked up, a connection that is
/// made and an answer that does not come keep their caller waiting; whoever wants to end just stops listening.
fn request_in_a_thread(
    object: &Object,
    access: &SetObjectAccess,
    from: u64,
    stall: Duration,
) -> Result<Receiver<Result<Piece, DownloadError>>, DownloadError> {
    let (sender, pieces) = sync_channel(PIECES);
    let (object, access) = (object.clone(), access.clone());
    let name = object.name.clone();
    std::thread::Builder::new()
        .spawn(move || {
            if let Err(error) = bring(&object, &access, from, stall, &sender) {
                let _ = sender.send(Err(error));
            }
        })
        .map_err(|error| DownloadError::Transfer { name, problem: format!("start a thread: {error}") })?;
    Ok(pieces)
}

fn bring(
    object: &Object,
    access: &SetObjectAccess,
    from: u64,
    stall: Duration,
    pieces: &SyncSender<Result<Piece, DownloadError>>,
) -> Result<(), DownloadError> {
    let mut answer = request(object, access, from, stall)?;
    let from = if answer.status() == http::StatusCode::PARTIAL_CONTENT { from } else { 0 };
    // Nobody listens any more: that is the end.
    if pieces.send(Ok(Piece::Begin { from })).is_err() {
        return Ok(());
    }
    let mut body = answer.body_mut().as_reader();
    loop {
        let mut buffer = vec![0; 256 << 10];
        let count = body
            .read(&mut buffer)
            .map_err(|error| DownloadError::Transfer { name: object.name.clone(), problem: error.to_string() })?;
        buffer.truncate(count);
        let piece = if count == 0 { Piece::End } else { Piece::Bytes(buffer) };
        if pieces.send(Ok(piece)).is_err() || count == 0 {
            return Ok(());
        }
    }
}

fn request(
    object: &Object,
    access: &SetObjectAccess,
    from: u64,
    stall: Duration,
) -> Result<http::Response<ureq::Body>, DownloadError> {
    let bad = |what: &str| DownloadError::Access(what.to_owned());
    let transfer = |problem: String| DownloadError::Transfer { name: object.name.clone(), problem };
    let endpoint = access.endpoint.parse().map_err(|_| bad("the endpoint is no address"))?;
    let bucket = rusty_s3::Bucket::new(endpoint, rusty_s3::UrlStyle::Path, object.bucket.clone(), access.region.clone())
        .map_err(|_| bad("the endpoint or the bucket's name cannot be used"))?;
    let keys = rusty_s3::Credentials::new_with_token(
        access.access_key_id.clone(),
        access.secret_access_key.clone(),
        access.session_token.clone(),
    );
    let address = rusty_s3::S3Action::sign(&bucket.get_object(Some(&keys), &object.key), SIGNATURE);
    let authorities: Vec<_> = CertificateDer::pem_slice_iter(access.ca_pem.as_bytes())
        .map(|certificate| certificate.map(|certificate| ureq::tls::Certificate::from_der(&certificate).to_owned()))
        .collect::<Result<_, _>>()
        .map_err(|_| bad("the authority's certificate is no PEM"))?;
    let tls = ureq::tls::TlsConfig::builder()
        .provider(ureq::tls::TlsProvider::Rustls)
        .root_certs(ureq::tls::RootCerts::new_with_certs(&authorities))
        .unversioned_rustls_crypto_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(Some(Duration::from_secs(20).min(stall)))
        .timeout_connect(Some(Duration::from_secs(20).min(stall)))
        .timeout_recv_response(Some(stall))
        // A large object may take hours; it must not take them without a byte.
        .timeout_per_read(Some(stall))
        .build()
        .into();
    let mut request = agent.get(address.as_str());
    if from > 0 {
        request = request.header("Range", format!("bytes={from}-"));
    }
    // ureq's error texts can quote the address, which is signed.
    let mut answer = request.call().map_err(|error| transfer(error.to_string().replace(address.as_str(), "(address)")))?;
    let expected = format!("bytes {from}-");
    let range = answer.headers().get("Content-Range").and_then(|value| value.to_str().ok()).unwrap_or("");
    match answer.status() {
        http::StatusCode::OK => Ok(answer),
        http::StatusCode::PARTIAL_CONTENT if from > 0 && range.starts_with(&expected) => Ok(answer),
        status => {
            let text = answer.body_mut().with_config().limit(2_048).read_to_string().unwrap_or_default();
            let code =
                text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
            let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
            Err(transfer(format!("the service answered {status} {code}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::net::TcpListener;

    /// A server that gives `content`, honouring Range, and cuts each answer after `piece` bytes.
    fn server(content: Vec<u8>, piece: usize, ranges: bool) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = io::BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).unwrap() == 0 {
                        break;
                    }
                }
                if head.starts_with("GET /stop") || head.is_empty() {
                    return requests;
                }
                let from = head
                    .lines()
                    .find_map(|line| {
                        line.to_lowercase()
                            .strip_prefix("range: bytes=")
                            .map(|v| v.trim_end_matches('-').parse::<usize>().unwrap())
                    })
                    .filter(|_| ranges);
                let start = from.unwrap_or(0);
                let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
                let end = (start + piece).min(content.len());
                let range = from.map_or(String::new(), |f| {
                    format!("Content-Range: bytes {f}-{}/{}\r\n", content.len() - 1, content.len())
                });
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}\r\n", content.len() - start);
                let _ = stream.write_all(&content[start..end]);
                requests.push(head);
            }
            requests
        });
        (endpoint, thread)
    }

    fn access(endpoint: &str) -> SetObjectAccess {
        SetObjectAccess {
            endpoint: endpoint.into(),
            ca_pem: String::new(),
            region: "eu-central-1".into(),
            access_key_id: "ASIAKEY".into(),
            secret_access_key: "secret".into(),
            session_token: "to/ken+".into(),
            expires: i64::MAX,
        }
    }

    fn object(content: &[u8]) -> Object {
        Object {
            name: "asset.tar.gz".into(),
            bucket: "bucket".into(),
            key: "123/binaries/a b.tar.gz".into(),
            size: content.len() as u64,
            sha256: hex::encode(Sha256::digest(content)),
        }
    }

    fn stop(endpoint: &str) {
        let mut stream = std::net::TcpStream::connect(endpoint.trim_start_matches("http://")).unwrap();
        stream.write_all(b"GET /stop\r\n\r\n").unwrap();
    }

    #[test]
    fn a_download_goes_on_where_it_was_cut() {
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let (endpoint, thread) = server(content.clone(), 150_000, true);
        let directory = tempfile::tempdir().unwrap();
        let mut attempts = 0;
        let path = loop {
            attempts += 1;
            match fetch(directory.path(), &object(&content), Some(&access(&endpoint)), STALL, &|| true) {
                Ok(path) => break path,
                Err(error) => assert!(attempts < 5, "{error}"),
            }
        };
        assert_eq!((attempts, std::fs::read(path).unwrap() == content), (3, true));
        fetch(directory.path(), &object(&content), None, STALL, &|| true).expect("is there: no request");
        stop(&endpoint);
        let requests = thread.join().unwrap();
        assert!(
            requests[0].starts_with("GET /bucket/123/binaries/a%20b.tar.gz?X-Amz-Algorithm=AWS4-HMAC-SHA256&"),
            "{}",
            requests[0]
        );
        assert!(requests[0].contains("X-Amz-Security-Token=to%2Fken%2B"));
        assert!(requests[2].to_lowercase().contains("range: bytes=300000-"));
    }

    #[test]
    fn a_server_without_ranges_is_read_from_the_start() {
        let content = vec![7; 1_000];
        let (endpoint, _thread) = server(content.clone(), 1_000, false);
        let directory = tempfile::tempdir().unwrap();
        let object = object(&content);
        std::fs::write(directory.path().join(format!(".{}.part", object.sha256)), b"xxx").unwrap();
        let path = fetch(directory.path(), &object, Some(&access(&endpoint)), STALL, &|| true).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), content);
        stop(&endpoint);
    }

    #[test]
    fn wrong_bytes_never_get_the_name() {
        let (endpoint, _thread) = server(vec![1; 1_000], 1_000, true);
        let directory = tempfile::tempdir().unwrap();
        let object = object(&[2; 1_000]);
        let error = fetch(directory.path(), &object, Some(&access(&endpoint)), STALL, &|| true).unwrap_err();
        assert!(matches!(error, DownloadError::Wrong { .. }), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        stop(&endpoint);
    }

    #[test]
    fn errors_hold_no_secrets_and_names_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let error = fetch(directory.path(), &object(b"x"), Some(&access("http://127.0.0.1:1")), STALL, &|| true)
            .unwrap_err()
            .to_string();
        assert!(!error.contains("Signature") && !error.contains("secret"), "{error}");
        let evil = Object { sha256: "../../../../etc/x".into(), ..object(b"x") };
        assert!(matches!(
            fetch(directory.path(), &evil, Some(&access("http://127.0.0.1:1")), STALL, &|| true),
            Err(DownloadError::Wrong { .. })
        ));
    }

    /// A server that sends the head and half of the body, and then nothing, with the connection open.
    fn silent_server(content: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
                let _ = stream.write_all(&content[..content.len() / 2]);
                kept.push(stream);
            }
        });
        endpoint
    }

    /// Runtime D6: the body had no deadline, so a connection that went silent in it held the thread for ever.
    #[test]
    fn a_body_that_goes_silent_ends_the_attempt_and_keeps_what_came() {
        let endpoint = silent_server(&[5; 1_000]);
        let directory = tempfile::tempdir().unwrap();
        let object = object(&[5; 1_000]);
        let begin = Instant::now();
        let stall = Duration::from_millis(300);
        let error = fetch(directory.path(), &object, Some(&access(&endpoint)), stall, &|| true).unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        assert!(matches!(&error, DownloadError::Transfer { problem, .. } if problem.contains("500")), "{error}");
        assert_eq!(std::fs::metadata(part(directory.path(), &object)).unwrap().len(), 500);
    }

    /// Runtime D6: whether to go on was asked between reads only, and a read could last for ever.
    #[test]
    fn a_silent_download_ends_within_a_moment_when_it_is_not_wanted_any_more() {
        let endpoint = silent_server(&[5; 1_000]);
        let directory = tempfile::tempdir().unwrap();
        let begin = Instant::now();
        let wanted = || begin.elapsed() < Duration::from_millis(500);
        let error = fetch(directory.path(), &object(&[5; 1_000]), Some(&access(&endpoint)), STALL, &wanted).unwrap_err();
        assert!(error.to_string().contains("interrupted"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}
