//! Writing objects. Every checksum that a client gives is checked, in a header or behind the body.

use super::checksum::Checksums;
use super::condition;
use super::errors::S3Error;
use super::metadata;
use super::operation::Target;
use crate::Api;
use crate::entry::Request;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::{Engine, prelude::BASE64_STANDARD};
use belvedere_store::objects::Written;

/// PUT of an object.
pub(super) async fn object(api: &Api, request: Request, target: &Target) -> Result<Response, S3Error> {
    let content_type = content_type(&request.parts.headers)?;
    let metadata = metadata::given(&request.parts.headers)?;
    let headers = request.parts.headers.clone();
    let (written, checksum) = receive(api, request).await?;
    // Asked for when the body is here: what was there before it came may be another by now.
    let seen = condition::of_write(api, &headers, target).await?;
    let store = &api.fleet.store;
    let stored = store.put_object_over(seen, &target.bucket, &target.key, &content_type, &metadata, written).await?;
    answer(&stored.etag, checksum)
}

/// The media type that the object will have.
pub(super) fn content_type(headers: &HeaderMap) -> Result<String, S3Error> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok("binary/octet-stream".into()) };
    match given.to_str() {
        Ok(given) if given.len() <= 255 => Ok(given.to_owned()),
        _ => Err(S3Error::invalid("Content-Type is longer than 255 characters, or not ASCII")),
    }
}

pub(super) fn answer(etag: &str, checksum: Option<(&'static str, String)>) -> Result<Response, S3Error> {
    let mut response = Response::builder().status(StatusCode::OK).header(header::ETAG, format!("\"{etag}\""));
    if let Some((name, value)) = checksum {
        response = response.header(name, value);
    }
    response.body(Body::empty()).map_err(|e| S3Error::invalid(e.to_string()))
}

/// Takes a body in and checks it against everything that its sender says about it. Gives the checksum to answer with.
pub(super) async fn receive(api: &Api, request: Request) -> Result<(Written, Option<(&'static str, String)>), S3Error> {
    let headers = request.parts.headers;
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut checksums = Checksums::announced(&headers)?;
    let mut body = request.body;
    let mut writer = api.fleet.store.object_writer().await?;
    while let Some(piece) = body.next().await? {
        checksums.update(&piece);
        writer.write(&piece).await?;
    }
    let written = writer.finish().await?;
    if header("x-amz-decoded-content-length").is_some_and(|n| n.parse() != Ok(written.size)) {
        return Err(S3Error::new(StatusCode::BAD_REQUEST, "IncompleteBody", "the body is not as long as its header says"));
    }
    if header("content-md5").is_some_and(|md5| md5 != BASE64_STANDARD.encode(written.md5)) {
        return Err(S3Error::bad_digest("Content-MD5"));
    }
    let checksum = checksums.check(&written, &body.trailers)?;
    Ok((written, checksum))
}
