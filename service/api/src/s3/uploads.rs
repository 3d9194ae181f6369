//! Lists of uploads and of their parts.

use super::errors::S3Error;
use super::operation::Target;
use super::{multipart, xml};
use crate::Api;
use crate::sigv4::canonical::encode;
use crate::sigv4::clock::iso8601;
use crate::xml::element;
use axum::response::Response;
use belvedere_store::now_ms;

const MAX: usize = 1000;

fn limit(target: &Target, name: &str) -> Result<usize, S3Error> {
    match target.query(name) {
        None => Ok(MAX),
        Some(text) => {
            text.parse::<usize>().map(|n| n.clamp(1, MAX)).map_err(|_| S3Error::invalid(format!("{name} must be a number")))
        }
    }
}

/// GET of the bucket with `?uploads`.
pub(super) async fn list(api: &Api, target: &Target) -> Result<Response, S3Error> {
    if target.query("delimiter").is_some_and(|d| !d.is_empty()) {
        return Err(S3Error::not_implemented());
    }
    let (max, prefix) = (limit(target, "max-uploads")?, target.query("prefix").unwrap_or(""));
    let (key, id) = (target.query("key-marker").unwrap_or(""), target.query("upload-id-marker"));
    // A key alone means everything behind that key.
    let after = (key, id.unwrap_or("\u{10ffff}"));
    let after = if key.is_empty() { ("", "") } else { after };
    let mut found = api.fleet.store.list_uploads(&target.bucket, prefix, after, max + 1).await?;
    let truncated = found.len() > max;
    found.truncate(max);
    let url = target.query("encoding-type") == Some("url");
    let shown = |text: &str| if url { encode(text.as_bytes(), b"/") } else { text.to_owned() };
    let mut body = element("Bucket", &target.bucket)
        + &element("KeyMarker", &shown(key))
        + &element("UploadIdMarker", id.unwrap_or(""))
        + &element("Prefix", &shown(prefix))
        + &element("MaxUploads", &max.to_string())
        + &element("IsTruncated", if truncated { "true" } else { "false" });
    if url {
        body += &element("EncodingType", "url");
    }
    if let Some(last) = found.last().filter(|_| truncated) {
        body += &element("NextKeyMarker", &shown(&last.key));
        body += &element("NextUploadIdMarker", &last.upload_id);
    }
    for upload in &found {
        body += &format!(
            "<Upload>{}{}{}{}</Upload>",
            element("Key", &shown(&upload.key)),
            element("UploadId", &upload.upload_id),
            element("Initiated", &iso8601(upload.created_ms)),
            element("StorageClass", "STANDARD")
        );
    }
    Ok(xml(format!(
        "<ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{body}</ListMultipartUploadsResult>"
    )))
}

/// GET of an object with `?uploadId=…`.
pub(super) async fn parts(api: &Api, target: &Target) -> Result<Response, S3Error> {
    let upload = multipart::upload(api, target).await?;
    let max = limit(target, "max-parts")?;
    let after = match target.query("part-number-marker") {
        None => 0,
        Some(text) => text.parse::<i64>().map_err(|_| S3Error::invalid("part-number-marker must be a number"))?,
    };
    let mut rest = api.fleet.store.parts(&upload).await?.into_iter().filter(|p| p.number > after);
    let page: Vec<_> = rest.by_ref().take(max).collect();
    let truncated = rest.next().is_some();
    let mut body = element("Bucket", &target.bucket)
        + &element("Key", &target.key)
        + &element("UploadId", &upload.upload_id)
        + &element("PartNumberMarker", &after.to_string())
        + &element("MaxParts", &max.to_string())
        + &element("IsTruncated", if truncated { "true" } else { "false" });
    if let Some(last) = page.last().filter(|_| truncated) {
        body += &element("NextPartNumberMarker", &last.number.to_string());
    }
    let now = iso8601(now_ms());
    for part in &page {
        body += &format!(
            "<Part>{}{}{}{}</Part>",
            element("PartNumber", &part.number.to_string()),
            element("LastModified", &now),
            element("ETag", &format!("\"{}\"", part.etag)),
            element("Size", &part.size.to_string())
        );
    }
    Ok(xml(format!("<ListPartsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{body}</ListPartsResult>")))
}
