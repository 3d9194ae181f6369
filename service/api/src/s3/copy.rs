//! Copies of objects and of parts of them.

use super::errors::S3Error;
use super::operation::Target;
use super::{multipart, put, xml};
use crate::Api;
use crate::sigv4::clock::iso8601;
use crate::xml::element;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use belvedere_store::now_ms;
use belvedere_store::objects::{ObjectInfo, Written};
use tokio::io::AsyncReadExt;

const PIECE: usize = 256 * 1024;

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The object that is to be copied, if it is as the client says.
async fn source(api: &Api, headers: &HeaderMap, target: &Target) -> Result<ObjectInfo, S3Error> {
    let (bucket, key) =
        target.copy_source(headers).ok_or_else(|| S3Error::invalid("x-amz-copy-source must be bucket/key"))?;
    let found = api.fleet.store.object(&bucket, &key).await?.ok_or_else(S3Error::no_such_key)?;
    let names = |list: &str| list.split(',').any(|t| t.trim() == "*" || t.trim().trim_matches('"') == found.etag);
    let wrong = text(headers, "x-amz-copy-source-if-match").is_some_and(|l| !names(l))
        || text(headers, "x-amz-copy-source-if-none-match").is_some_and(names);
    if wrong {
        return Err(S3Error::precondition_failed());
    }
    Ok(found)
}

async fn take(api: &Api, from: &ObjectInfo, start: u64, length: u64) -> Result<Written, S3Error> {
    let failed = |e: std::io::Error| {
        tracing::error!("cannot copy an object: {e}");
        S3Error::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "internal error; the service's log says more")
    };
    let mut bytes = api.fleet.store.open_object_range(from, start, length).await?;
    let mut writer = api.fleet.store.object_writer().await?;
    let (mut buffer, mut left) = (vec![0; PIECE], length);
    while left > 0 {
        let most = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
        let count = bytes.read(&mut buffer[..most]).await.map_err(failed)?;
        if count == 0 {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        writer.write(&buffer[..count]).await?;
        left -= count as u64;
    }
    Ok(writer.finish().await?)
}

fn answer(name: &str, etag: &str) -> Response {
    xml(format!(
        "<{name} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}{}</{name}>",
        element("ETag", &format!("\"{etag}\"")),
        element("LastModified", &iso8601(now_ms()))
    ))
}

/// PUT of an object with `x-amz-copy-source`.
pub(super) async fn object(api: &Api, headers: &HeaderMap, target: &Target) -> Result<Response, S3Error> {
    let from = source(api, headers, target).await?;
    let content_type = match text(headers, "x-amz-metadata-directive") {
        Some("REPLACE") => put::content_type(headers),
        _ => from.content_type.clone(),
    };
    let written = take(api, &from, 0, from.size).await?;
    let stored = api.fleet.store.put_object(&target.bucket, &target.key, &content_type, written).await?;
    Ok(answer("CopyObjectResult", &stored.etag))
}

/// PUT of a part with `x-amz-copy-source`, and a range of it if there is one.
pub(super) async fn part(api: &Api, headers: &HeaderMap, target: &Target) -> Result<Response, S3Error> {
    let number = multipart::part_number(target)?;
    let upload = multipart::upload(api, target).await?;
    let from = source(api, headers, target).await?;
    let (start, length) = match text(headers, "x-amz-copy-source-range") {
        None => (0, from.size),
        Some(range) => range
            .strip_prefix("bytes=")
            .and_then(|r| r.split_once('-'))
            .and_then(|(first, last)| Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?)))
            .filter(|(first, last)| first <= last && *last < from.size)
            .map(|(first, last)| (first, last - first + 1))
            .ok_or_else(|| {
                S3Error::invalid(
                    "The x-amz-copy-source-range value must be of the form bytes=first-last within the source object",
                )
            })?,
    };
    let written = take(api, &from, start, length).await?;
    let etag = hex::encode(written.md5);
    api.fleet.store.put_part(&upload, number, written).await?;
    Ok(answer("CopyPartResult", &etag))
}
