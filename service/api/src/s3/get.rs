//! Reading objects: whole, in ranges, on conditions.

use super::errors::S3Error;
use super::operation::Target;
use crate::Api;
use crate::access::own_deployment;
use crate::caller::Caller;
use crate::sigv4::clock::http_date;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use http_body_util::channel::Channel;
use tokio::io::AsyncReadExt;

const PIECE: usize = 128 * 1024;

/// HEAD and GET.
pub(super) async fn object(api: &Api, parts: &Parts, caller: &Caller, target: &Target) -> Result<Response, S3Error> {
    if let Some(response) = deployment(api, parts, caller, target).await? {
        return Ok(response);
    }
    let found = api.fleet.store.object(&target.bucket, &target.key).await?.ok_or_else(S3Error::no_such_key)?;
    let headers = &parts.headers;
    if let Some(response) = condition(headers, &found.etag)? {
        return Ok(response);
    }
    let range = range(headers, found.size)?;
    let (start, length) = range.unwrap_or((0, found.size));
    let mut response = answer(&found.etag, &found.content_type, found.modified_ms).header(header::CONTENT_LENGTH, length);
    if range.is_some() {
        let content_range = format!("bytes {start}-{}/{}", start + length - 1, found.size);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range);
    } else if let Some(crc32) = found.crc32.as_ref().filter(|_| headers.contains_key("x-amz-checksum-mode")) {
        response = response.header("x-amz-checksum-crc32", crc32);
    }
    if parts.method == Method::HEAD {
        return finish(response, Body::empty());
    }
    let mut bytes = api.fleet.store.open_object_range(&found, start, length).await?;
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(2);
    tokio::spawn(async move {
        let copied = async {
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                if (&mut bytes).take(PIECE as u64).read_to_end(&mut piece).await? == 0 {
                    return Ok::<(), std::io::Error>(());
                }
                if sender.send_data(piece.into()).await.is_err() {
                    return Ok(()); // the reader went away
                }
            }
        };
        if let Err(e) = copied.await {
            tracing::error!("cannot read an object: {e}");
            sender.abort(e);
        }
    });
    finish(response, Body::new(body))
}

/// A device's own deployment documents live in the database, sealed.
async fn deployment(api: &Api, parts: &Parts, caller: &Caller, target: &Target) -> Result<Option<Response>, S3Error> {
    let Caller::Device { device_id, .. } = caller else { return Ok(None) };
    let Some(id) = own_deployment(api, device_id, &target.key) else { return Ok(None) };
    let found = api.fleet.store.deployment_document(device_id, id).await?.ok_or_else(S3Error::no_such_key)?;
    let etag = crate::sigv4::canonical::sha256(&found);
    let response = answer(&etag, "application/json", belvedere_store::now_ms()).header(header::CONTENT_LENGTH, found.len());
    let head = parts.method == Method::HEAD;
    finish(response, if head { Body::empty() } else { found.into() }).map(Some)
}

fn answer(etag: &str, content_type: &str, modified_ms: i64) -> axum::http::response::Builder {
    Response::builder()
        .status(StatusCode::OK)
        .header(header::ETAG, format!("\"{etag}\""))
        .header(header::CONTENT_TYPE, content_type)
        .header(header::LAST_MODIFIED, http_date(modified_ms))
        .header(header::ACCEPT_RANGES, "bytes")
}

fn finish(response: axum::http::response::Builder, body: Body) -> Result<Response, S3Error> {
    response.body(body).map_err(|e| S3Error::invalid(e.to_string()))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn condition(headers: &HeaderMap, etag: &str) -> Result<Option<Response>, S3Error> {
    let names = |list: &str| list.split(',').any(|t| t.trim() == "*" || t.trim().trim_matches('"') == etag);
    if text(headers, header::IF_MATCH).is_some_and(|list| !names(list)) {
        return Err(S3Error::precondition_failed());
    }
    if text(headers, header::IF_NONE_MATCH).is_some_and(names) {
        let response = Response::builder().status(StatusCode::NOT_MODIFIED).header(header::ETAG, format!("\"{etag}\""));
        return finish(response, Body::empty()).map(Some);
    }
    Ok(None)
}

/// Start and length of the one range that is asked for. What is not a range is as if it were not there (RFC 9110).
fn range(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, S3Error> {
    let Some((first, last)) =
        text(headers, header::RANGE).and_then(|r| r.strip_prefix("bytes=")).and_then(|r| r.trim().split_once('-'))
    else {
        return Ok(None);
    };
    let unsatisfiable =
        || S3Error::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", "The requested range is not satisfiable");
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= size => Err(unsatisfiable()),
        (Ok(first), Ok(last)) if last >= first => Ok(Some((first, last.min(size - 1) - first + 1))),
        (Ok(first), Err(_)) if last.is_empty() => Ok(Some((first, size - first))),
        (Err(_), Ok(count)) if first.is_empty() && (count == 0 || size == 0) => Err(unsatisfiable()),
        (Err(_), Ok(count)) if first.is_empty() => Ok(Some((size.saturating_sub(count), count.min(size)))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str, size: u64) -> Option<Option<(u64, u64)>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, value.parse().unwrap());
        range(&headers, size).ok()
    }

    #[test]
    fn ranges_are_what_the_standard_says() {
        assert_eq!(of("bytes=0-9", 100), Some(Some((0, 10))));
        assert_eq!(of("bytes=90-", 100), Some(Some((90, 10))));
        assert_eq!(of("bytes=90-500", 100), Some(Some((90, 10))));
        assert_eq!(of("bytes=-5", 100), Some(Some((95, 5))));
        assert_eq!(of("bytes=-500", 100), Some(Some((0, 100))));
        assert_eq!(of("bytes=100-", 100), None);
        assert_eq!(of("bytes=-0", 100), None);
        assert_eq!(of("bytes=-1", 0), None);
        assert_eq!(of("bytes=5-2", 100), Some(None));
        assert_eq!(of("lines=1-2", 100), Some(None));
        assert_eq!(of("bytes=0-1,5-6", 100), Some(None), "several ranges: the whole object is a right answer");
    }
}
