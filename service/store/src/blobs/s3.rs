//! The few requests of S3 that blobs need. `rusty-s3` signs them, `ureq` sends them: both are in the house already.
//! (`object_store` would bring reqwest and aws-lc for its S3, or a hundred crates without them.)
//!
//! A request has a deadline and is tried again after a failure of the network or the server: each can be repeated
//! without harm. No message holds a signed address.

use crate::places::{ObjectsCredentials, ObjectsPlace, ObjectsUrl};
use crate::{StoreError, now_ms};
use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use quick_xml::events::Event;
use rusty_s3::{Bucket, Map, Method, UrlStyle, signing};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{Request, StatusCode};
use url::Url;

/// How long a signed address is good.
const SIGNATURE: Duration = Duration::from_secs(900);
const CONNECT: Duration = Duration::from_secs(10);
/// One request with its body: a part of 64 MiB over a slow line.
const REQUEST: Duration = Duration::from_secs(300);
const TRIES: u32 = 4;
/// Largest answer that is not an object's bytes: a list of a thousand names.
const ANSWER: u64 = 4 << 20;

/// A bucket's owner on the other side of a network.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    bucket: Bucket,
    credentials: ObjectsCredentials,
    agent: ureq::Agent,
}

impl Inner {
    /// A request for a key (or, without one, for the bucket), signed in its address.
    fn request(&self, method: Method, key: &str, query: &[(&'static str, &str)]) -> Outgoing {
        self.request_with_body(method, key, query, Vec::new(), None)
    }

    /// A request with a body. `md5` is part of what is signed: the server keeps no other bytes than these.
    fn request_with_body(
        &self,
        method: Method,
        key: &str,
        query: &[(&'static str, &str)],
        body: Vec<u8>,
        md5: Option<&str>,
    ) -> Outgoing {
        let (mut sorted, mut headers) = (Map::new(), Map::new());
        query.iter().for_each(|(name, value)| sorted.insert(*name, (*value).to_owned()));
        if let Some(md5) = md5 {
            headers.insert("content-md5", md5.to_owned());
        }
        let ObjectsCredentials { key: access_key, secret, token } = &self.credentials;
        let url = signing::sign(
            &jiff::Timestamp::now(),
            method,
            self.bucket.object_url(key),
            access_key,
            secret,
            token.as_deref(),
            self.bucket.region(),
            SIGNATURE.as_secs(),
            sorted.iter(),
            headers.iter(),
        );
        Outgoing { method, url, md5: md5.map(str::to_owned), range: None, body, limit: ANSWER }
    }
}

/// An object in a list.
pub(super) struct ListedObject {
    pub(super) key: String,
    pub(super) modified_ms: i64,
    pub(super) size: u64,
}

/// An answer of the server.
struct Answer {
    status: StatusCode,
    etag: Option<String>,
    body: Vec<u8>,
}

/// What is sent.
struct Outgoing {
    method: Method,
    url: Url,
    md5: Option<String>,
    range: Option<String>,
    body: Vec<u8>,
    /// Largest body of the answer.
    limit: u64,
}

fn wrong(operation: &'static str, detail: impl Into<String>) -> StoreError {
    StoreError::Objects { operation, detail: detail.into() }
}

fn agent(url: &ObjectsUrl) -> Result<ureq::Agent, StoreError> {
    let authorities = match &url.authorities {
        _ if url.endpoint.scheme() == "http" => Vec::new(),
        Some(path) => {
            let pem = std::fs::read(path).map_err(|e| StoreError::io("read", path, e))?;
            let found: Vec<_> = ureq::tls::parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if found.is_empty() {
                return Err(wrong("open the object store", format!("{} holds no certificate", path.display())));
            }
            found
        }
        None => {
            let loaded = rustls_native_certs::load_native_certs().certs;
            loaded.iter().map(|c| ureq::tls::Certificate::from_der(c).to_owned()).collect()
        }
    };
    let tls = ureq::tls::TlsConfig::builder()
        .provider(ureq::tls::TlsProvider::Rustls)
        .root_certs(ureq::tls::RootCerts::new_with_certs(&authorities))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Ok(ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(REQUEST))
        .max_idle_connections_per_host(16)
        .build()
        .into())
}

impl Client {
    pub(super) fn new(place: &ObjectsPlace) -> Result<Client, StoreError> {
        let ObjectsPlace { url, credentials } = place;
        let style = if url.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let bucket = Bucket::new(url.endpoint.clone(), style, url.bucket.clone(), url.region.clone())
            .map_err(|e| wrong("open the object store", e.to_string()))?;
        Ok(Client(Arc::new(Inner { bucket, credentials: credentials.clone(), agent: agent(url)? })))
    }

    /// Sends until it is answered; `make` signs each attempt anew.
    async fn send(&self, operation: &'static str, make: impl Fn(&Inner) -> Outgoing) -> Result<Answer, StoreError> {
        let mut problem = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(100 << (2 * attempt))).await;
            }
            let (inner, outgoing) = (self.0.clone(), make(&self.0));
            let sent = tokio::task::spawn_blocking(move || once(&inner.agent, outgoing)).await;
            match sent.unwrap_or_else(|e| Err(e.to_string())) {
                Ok(answer) if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    problem = refusal(&answer);
                }
                Ok(answer) => return Ok(answer),
                Err(e) => problem = e,
            }
            tracing::warn!(attempt, "cannot {operation}: {problem}");
        }
        Err(wrong(operation, problem))
    }

    /// Sends; any answer but success is an error.
    async fn ask(&self, operation: &'static str, make: impl Fn(&Inner) -> Outgoing) -> Result<Answer, StoreError> {
        let answer = self.send(operation, make).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(wrong(operation, refusal(&answer))) }
    }

    pub(super) async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), StoreError> {
        let md5 = content_md5(&body);
        let make = |inner: &Inner| inner.request_with_body(Method::Put, key, &[], body.clone(), Some(&md5));
        self.ask("store an object", make).await.map(drop)
    }

    pub(super) async fn get(&self, key: &str, start: u64, count: u64) -> Result<Vec<u8>, StoreError> {
        let operation = "read an object";
        let range = format!("bytes={start}-{}", start + count - 1);
        let make = |inner: &Inner| {
            let request = inner.request(Method::Get, key, &[]);
            Outgoing { range: Some(range.clone()), limit: count, ..request }
        };
        let answer = self.send(operation, make).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(StoreError::Missing { what: "an object's bytes" });
        }
        if !answer.status.is_success() {
            return Err(wrong(operation, refusal(&answer)));
        }
        if answer.body.len() as u64 != count || (start > 0 && answer.status != StatusCode::PARTIAL_CONTENT) {
            return Err(wrong(operation, format!("{} of {count} bytes came ({})", answer.body.len(), answer.status)));
        }
        Ok(answer.body)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let operation = "delete an object";
        let answer = self.send(operation, |inner| inner.request(Method::Delete, key, &[])).await?;
        if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(wrong(operation, refusal(&answer)))
    }

    /// Objects whose keys begin with `prefix` and come after `after`, by key.
    pub(super) async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<ListedObject>, StoreError> {
        let operation = "list objects";
        let limit = limit.to_string();
        let mut query = vec![("list-type", "2"), ("max-keys", limit.as_str())];
        if !prefix.is_empty() {
            query.push(("prefix", prefix));
        }
        if !after.is_empty() {
            query.push(("start-after", after));
        }
        let answer = self.ask(operation, |inner| inner.request(Method::Get, "", &query)).await?;
        listed(&answer.body).map_err(|e| wrong(operation, e))
    }

    /// Begins an upload in parts; its identifier.
    pub(super) async fn begin(&self, key: &str) -> Result<String, StoreError> {
        let operation = "begin a large object";
        let answer = self.ask(operation, |inner| inner.request(Method::Post, key, &[("uploads", "")])).await?;
        element(&answer.body, "UploadId").ok_or_else(|| wrong(operation, "the answer names no upload"))
    }

    /// Stores a part; its tag.
    pub(super) async fn put_part(&self, key: &str, upload: &str, number: u16, body: Vec<u8>) -> Result<String, StoreError> {
        let operation = "store a part";
        let (md5, number) = (content_md5(&body), number.to_string());
        let query = [("partNumber", number.as_str()), ("uploadId", upload)];
        let make = |inner: &Inner| inner.request_with_body(Method::Put, key, &query, body.clone(), Some(&md5));
        let answer = self.ask(operation, make).await?;
        answer.etag.ok_or_else(|| wrong(operation, "the answer has no ETag"))
    }

    /// Makes the object of its parts.
    pub(super) async fn complete(&self, key: &str, upload: &str, parts: &[String]) -> Result<(), StoreError> {
        let operation = "complete a large object";
        let mut body = String::from("<CompleteMultipartUpload>");
        for (index, etag) in parts.iter().enumerate() {
            let etag = quick_xml::escape::escape(etag.as_str());
            body += &format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", index + 1);
        }
        body += "</CompleteMultipartUpload>";
        let query = [("uploadId", upload)];
        let make = |inner: &Inner| inner.request_with_body(Method::Post, key, &query, body.clone().into_bytes(), None);
        let answer = self.ask(operation, make).await?;
        // S3 may say 200 before it knows.
        match element(&answer.body, "ETag") {
            Some(_) => Ok(()),
            None => Err(wrong(operation, refusal(&answer))),
        }
    }

    pub(super) async fn abort(&self, key: &str, upload: &str) -> Result<(), StoreError> {
        let make = |inner: &Inner| inner.request(Method::Delete, key, &[("uploadId", upload)]);
        self.ask("abort a large object", make).await.map(drop)
    }
}

fn content_md5(body: &[u8]) -> String {
    BASE64_STANDARD.encode(Md5::digest(body))
}

/// One attempt.
fn once(agent: &ureq::Agent, outgoing: Outgoing) -> Result<Answer, String> {
    let mut request = Request::builder().method(outgoing.method.to_str()).uri(outgoing.url.as_str());
    if let Some(md5) = outgoing.md5 {
        request = request.header("content-md5", md5);
    }
    if let Some(range) = outgoing.range {
        request = request.header("range", range);
    }
    // The address is signed: it goes into no message.
    let hidden = |e: ureq::Error| match e {
        ureq::Error::BadUri(_) => "the address is not one".to_owned(),
        other => other.to_string(),
    };
    let mut response = match outgoing.method {
        Method::Put | Method::Post => {
            let request = request.header("content-length", outgoing.body.len()).body(outgoing.body);
            agent.run(request.map_err(|e| e.to_string())?)
        }
        _ => agent.run(request.body(()).map_err(|e| e.to_string())?),
    }
    .map_err(hidden)?;
    let status = response.status();
    let etag = response.headers().get("etag").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let limit = if status.is_success() { outgoing.limit } else { ANSWER };
    // One more than allowed, so that too much is an error and not cut off.
    let body = response.body_mut().with_config().limit(limit + 1).read_to_vec().map_err(hidden)?;
    Ok(Answer { status, etag, body })
}

/// What a server says when it does not do what it is asked.
fn refusal(answer: &Answer) -> String {
    let word = |name| element(&answer.body, name).unwrap_or_default();
    format!("{} {} {}", answer.status.as_u16(), word("Code"), word("Message")).trim_end().to_owned()
}

/// The text of the first element of a name.
fn element(xml: &[u8], name: &str) -> Option<String> {
    elements(xml, &[name], |_, text| Some(text)).ok()?.into_iter().next()
}

/// Texts of elements of these names, in their order, as `each` wants them.
fn elements<T>(xml: &[u8], names: &[&str], mut each: impl FnMut(&str, String) -> Option<T>) -> Result<Vec<T>, String> {
    let mut reader = quick_xml::Reader::from_reader(xml);
    let (mut found, mut current, mut text) = (Vec::new(), None, String::new());
    loop {
        match reader.read_event().map_err(|e| e.to_string())? {
            Event::Start(start) => {
                let local = start.local_name();
                current = names.iter().find(|n| n.as_bytes() == local.as_ref()).copied();
                text.clear();
            }
            Event::Text(part) if current.is_some() => text += &part.decode().map_err(|e| e.to_string())?,
            Event::GeneralRef(reference) if current.is_some() => {
                let entity = format!("&{};", reference.decode().map_err(|e| e.to_string())?);
                text += &quick_xml::escape::unescape(&entity).map_err(|e| e.to_string())?;
            }
            Event::End(_) => {
                if let Some(name) = current.take() {
                    found.extend(each(name, std::mem::take(&mut text)));
                }
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

fn listed(xml: &[u8]) -> Result<Vec<ListedObject>, String> {
    // An object without its time is as new as can be.
    let mut objects: Vec<ListedObject> = Vec::new();
    elements(xml, &["Key", "LastModified", "Size"], |name, text| {
        match (name, objects.last_mut()) {
            ("Key", _) => objects.push(ListedObject { key: text, modified_ms: now_ms(), size: 0 }),
            ("Size", Some(last)) => last.size = text.parse().unwrap_or(0),
            (_, Some(last)) => {
                last.modified_ms = text.parse::<jiff::Timestamp>().map_or(last.modified_ms, |m| m.as_millisecond())
            }
            (_, None) => {}
        }
        None::<()>
    })?;
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_refusals_are_read_whatever_their_namespace() {
        let xml = b"<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Contents><Key>a&amp;b</Key>\
            <LastModified>2009-10-12T17:50:30.000Z</LastModified><Size>1</Size></Contents><Contents><Key>c</Key></Contents></ListBucketResult>";
        let objects = listed(xml).unwrap();
        assert_eq!((objects[0].key.as_str(), objects[0].modified_ms, objects[0].size), ("a&b", 1_255_369_830_000, 1));
        assert!(objects[1].key == "c" && objects[1].modified_ms > 1_700_000_000_000);
        let body = b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>".to_vec();
        let answer = Answer { status: StatusCode::NOT_FOUND, etag: None, body };
        assert_eq!(refusal(&answer), "404 NoSuchKey gone");
        assert!(listed(b"<a><b></a>").is_err());
    }
}
