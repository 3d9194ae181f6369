//! Copies of objects and of parts of them.

use super::condition::{self, Verdict};
use super::errors::S3Error;
use super::operation::Target;
use super::{metadata, multipart, put, xml};
use crate::Api;
use crate::sigv4::clock::iso8601;
use crate::xml::element;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use belvedere_store::now_ms;
use belvedere_store::objects::{Current, ObjectInfo, Written};
use tokio::io::AsyncReadExt;

const PIECE: usize = 256 * 1024;

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The bytes of the object that is to be copied, in a blob that nobody names yet, if the object is as the client says. `range`
/// chooses start and length. The object is of one moment, whatever is done to it meanwhile.
async fn take(
    api: &Api,
    headers: &HeaderMap,
    target: &Target,
    range: impl Fn(&ObjectInfo) -> Result<(u64, u64), S3Error>,
) -> Result<(ObjectInfo, Written), S3Error> {
    let (bucket, key) =
        target.copy_source(headers).ok_or_else(|| S3Error::invalid("x-amz-copy-source must be bucket/key"))?;
    let wanted = |object: &ObjectInfo| agree(headers, object).and_then(|()| range(object));
    let found = api.fleet.store.open_current(&bucket, &key, |object| wanted(object).ok()).await?;
    let Current { object, bytes } = found.ok_or_else(S3Error::no_such_key)?;
    let (_, length) = wanted(&object)?;
    let failed = |e: std::io::Error| {
        tracing::error!("cannot copy the object {bucket}/{key}: {e}");
        S3Error::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "internal error; the service's log says more")
    };
    let mut bytes = bytes.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
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
    Ok((object, writer.finish().await?))
}

/// Whether the source is as the client says.
fn agree(headers: &HeaderMap, source: &ObjectInfo) -> Result<(), S3Error> {
    match condition::verdict(headers, condition::OF_SOURCE, source) {
        Verdict::Holds => Ok(()),
        Verdict::NotModified | Verdict::Fails => Err(S3Error::precondition_failed()),
    }
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
    let replaced = match metadata::is_replaced(headers)? {
        true => Some((put::content_type(headers)?, metadata::given(headers)?)),
        false => None,
    };
    let (from, written) = take(api, headers, target, |object| Ok((0, object.size))).await?;
    let (content_type, metadata) = replaced.unwrap_or((from.content_type, from.metadata));
    let seen = condition::of_write(api, headers, target).await?;
    let store = &api.fleet.store;
    let stored = store.put_object_over(seen, &target.bucket, &target.key, &content_type, &metadata, written).await?;
    Ok(answer("CopyObjectResult", &stored.etag))
}

/// PUT of a part with `x-amz-copy-source`, and a range of it if there is one.
pub(super) async fn part(api: &Api, headers: &HeaderMap, target: &Target) -> Result<Response, S3Error> {
    let number = multipart::part_number(target)?;
    let upload = multipart::upload(api, target).await?;
    let range = |from: &ObjectInfo| match text(headers, "x-amz-copy-source-range") {
        None => Ok((0, from.size)),
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
            }),
    };
    let (_, written) = take(api, headers, target, range).await?;
    let etag = hex::encode(written.md5);
    if !api.fleet.store.put_part(&upload, number, written).await? {
        return Err(S3Error::no_such_upload());
    }
    Ok(answer("CopyPartResult", &etag))
}
