//! Writing objects. Every checksum that a client gives is checked, in a header or behind the body.

use super::errors::S3Error;
use super::Target;
use crate::Api;
use crate::entry::Request;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::{Engine, prelude::BASE64_STANDARD};
use belvedere_store::objects::Written;

/// PUT of an object.
pub(super) async fn object(api: &Api, request: Request, target: &Target) -> Result<Response, S3Error> {
    if request.parts.headers.contains_key("x-amz-copy-source") {
        return Err(S3Error::not_implemented());
    }
    let content_type = content_type(&request.parts.headers);
    let (written, checksum) = receive(api, request).await?;
    let stored = api.fleet.store.put_object(&target.bucket, &target.key, &content_type, written).await?;
    answer(&stored.etag, checksum)
}

/// The media type that the object will have.
pub(super) fn content_type(headers: &HeaderMap) -> String {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    given.unwrap_or("binary/octet-stream").chars().take(255).collect()
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
    let mut body = request.body;
    let mut writer = api.fleet.store.object_writer().await?;
    while let Some(piece) = body.next().await? {
        writer.write(&piece).await?;
    }
    let written = writer.finish().await?;
    let trailer = |name: &str| body.trailers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    if header("x-amz-decoded-content-length").is_some_and(|n| n.parse() != Ok(written.size)) {
        return Err(S3Error::new(StatusCode::BAD_REQUEST, "IncompleteBody", "the body is not as long as its header says"));
    }
    if header("content-md5").is_some_and(|md5| md5 != BASE64_STANDARD.encode(written.md5)) {
        return Err(S3Error::bad_digest("Content-MD5"));
    }
    let given = |name: &'static str| header(name).or_else(|| trailer(name)).map(|value| (name, value));
    let crc32 = given("x-amz-checksum-crc32");
    if crc32.as_ref().is_some_and(|(_, value)| *value != written.crc32) {
        return Err(S3Error::bad_digest("CRC32"));
    }
    let sha256 = given("x-amz-checksum-sha256");
    let real = BASE64_STANDARD.encode(hex::decode(&written.sha256).unwrap_or_default());
    if sha256.as_ref().is_some_and(|(_, value)| *value != real) {
        return Err(S3Error::bad_digest("SHA256"));
    }
    Ok((written, crc32.or(sha256)))
}
