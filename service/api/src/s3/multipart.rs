//! Uploads in parts.

use super::errors::S3Error;
use super::operation::Target;
use super::{condition, metadata, put, xml};
use crate::Api;
use crate::entry::Request;
use crate::xml::element;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use belvedere_store::multipart::{Part, Upload};
use md5::{Digest, Md5};
use quick_xml::Reader;
use quick_xml::events::Event;

const MAX_PARTS: usize = 10_000;

/// POST `?uploads`.
pub(super) async fn create(api: &Api, headers: &HeaderMap, target: &Target) -> Result<Response, S3Error> {
    let (content_type, metadata) = (put::content_type(headers)?, metadata::given(headers)?);
    let id = api.fleet.store.create_upload(&target.bucket, &target.key, &content_type, &metadata).await?;
    Ok(xml(format!(
        "<InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}{}{}</InitiateMultipartUploadResult>",
        element("Bucket", &target.bucket),
        element("Key", &target.key),
        element("UploadId", &id)
    )))
}

pub(super) async fn upload(api: &Api, target: &Target) -> Result<Upload, S3Error> {
    let id = target.query("uploadId").unwrap_or("");
    let found = api.fleet.store.upload(id, &target.bucket, &target.key).await?;
    found.ok_or_else(S3Error::no_such_upload)
}

/// `partNumber` of a request.
pub(super) fn part_number(target: &Target) -> Result<i64, S3Error> {
    let number =
        target.query("partNumber").and_then(|n| n.parse::<i64>().ok()).filter(|n| (1..=MAX_PARTS as i64).contains(n));
    number.ok_or_else(|| S3Error::invalid("Part number must be an integer between 1 and 10000, inclusive"))
}

/// PUT `?partNumber=…&uploadId=…`.
pub(super) async fn part(api: &Api, request: Request, target: &Target) -> Result<Response, S3Error> {
    let number = part_number(target)?;
    let upload = upload(api, target).await?;
    let (written, checksum) = put::receive(api, request).await?;
    let etag = hex::encode(written.md5);
    if !api.fleet.store.put_part(&upload, number, written).await? {
        return Err(S3Error::no_such_upload());
    }
    put::answer(&etag, checksum)
}

/// POST `?uploadId=…`.
pub(super) async fn complete(api: &Api, request: Request, target: &Target) -> Result<Response, S3Error> {
    let headers = request.parts.headers;
    let wanted = parse(&request.body.collect().await?)?;
    let stored = completed(api, &headers, target, &wanted).await?;
    Ok(xml(format!(
        "<CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}{}{}{}</CompleteMultipartUploadResult>",
        element("Location", &format!("/{}/{}", target.bucket, target.key)),
        element("Bucket", &target.bucket),
        element("Key", &target.key),
        element("ETag", &format!("\"{stored}\""))
    )))
}

/// Makes the object of its parts, once; its entity tag. Who asks again, since the first answer took too long, is told the same.
async fn completed(api: &Api, headers: &HeaderMap, target: &Target, wanted: &[(i64, String)]) -> Result<String, S3Error> {
    let store = &api.fleet.store;
    // Once more when the upload was ended, or one of its parts replaced, while they were put together.
    for _ in 0..2 {
        let Some(of) = store.upload(target.query("uploadId").unwrap_or(""), &target.bucket, &target.key).await? else {
            break;
        };
        let parts = match choose(wanted, &store.parts(&of).await?) {
            Ok(parts) => parts,
            Err(e) if store.upload(&of.upload_id, &of.bucket, &of.key).await?.is_some() => return Err(e),
            Err(_) => break,
        };
        // Not of who asks again: what is there then is what was made for the first answer.
        let seen = condition::of_write(api, headers, target).await?;
        match store.complete_upload(&of, &parts, seen).await {
            Err(e) if e.is_missing() => {}
            other => return Ok(other?.etag),
        }
    }
    let made = store.object(&target.bucket, &target.key).await?.map(|object| object.etag);
    made.filter(|etag| *etag == etag_of(wanted)).ok_or_else(S3Error::no_such_upload)
}

/// The entity tag of an object that is put together from these parts.
fn etag_of(parts: &[(i64, String)]) -> String {
    let mut of_parts = Md5::new();
    for (_, etag) in parts {
        of_parts.update(hex::decode(etag).unwrap_or_default());
    }
    format!("{}-{}", hex::encode(of_parts.finalize()), parts.len())
}

/// DELETE `?uploadId=…`.
pub(super) async fn abort(api: &Api, target: &Target) -> Result<Response, S3Error> {
    let upload = upload(api, target).await?;
    api.fleet.store.abort_upload(&upload).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The parts that a client names, in its order.
fn choose(wanted: &[(i64, String)], there: &[Part]) -> Result<Vec<Part>, S3Error> {
    if wanted.is_empty() {
        return Err(S3Error::malformed());
    }
    if wanted.windows(2).any(|w| w[0].0 >= w[1].0) {
        let message = "The list of parts was not in ascending order.";
        return Err(S3Error::new(StatusCode::BAD_REQUEST, "InvalidPartOrder", message));
    }
    wanted
        .iter()
        .map(|(number, etag)| {
            there.iter().find(|p| p.number == *number && p.etag == *etag).cloned().ok_or_else(|| {
                let message = format!("Part {number} was not uploaded, or its ETag is another.");
                S3Error::new(StatusCode::BAD_REQUEST, "InvalidPart", message)
            })
        })
        .collect()
}

/// `CompleteMultipartUpload`: numbers and ETags (without quotes).
fn parse(body: &[u8]) -> Result<Vec<(i64, String)>, S3Error> {
    let text = std::str::from_utf8(body).map_err(|_| S3Error::malformed())?;
    let mut reader = Reader::from_str(text);
    let mut parts: Vec<(i64, String)> = Vec::new();
    let mut element: Vec<u8> = Vec::new();
    loop {
        match reader.read_event().map_err(|_| S3Error::malformed())? {
            Event::Start(start) => {
                element = start.local_name().as_ref().to_vec();
                if element == b"Part" {
                    parts.push((0, String::new()));
                }
                if parts.len() > MAX_PARTS {
                    return Err(S3Error::malformed());
                }
            }
            Event::End(_) => element.clear(),
            Event::Text(text) => {
                let text = text.decode().map_err(|_| S3Error::malformed())?;
                let Some(part) = parts.last_mut() else { continue };
                match &element[..] {
                    b"PartNumber" => part.0 = text.trim().parse().map_err(|_| S3Error::malformed())?,
                    // Quotes may come as they are or as entities, which are events of their own.
                    b"ETag" => part.1.push_str(text.trim().trim_matches('"')),
                    _ => {}
                }
            }
            Event::DocType(_) => return Err(S3Error::malformed()),
            Event::Eof => return Ok(parts),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_parts_are_read_with_quotes_of_any_kind() {
        let body = b"<?xml version=\"1.0\"?><CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Part><ETag>\"aa\"</ETag><PartNumber>1</PartNumber><ChecksumCRC32>x</ChecksumCRC32></Part>\
            <Part><PartNumber>2</PartNumber><ETag>&quot;bb&quot;</ETag></Part></CompleteMultipartUpload>";
        assert_eq!(parse(body).unwrap(), [(1, "aa".to_owned()), (2, "bb".to_owned())]);
        for bad in [&b"<a><b></a>"[..], b"\xff", b"<Part><PartNumber>x</PartNumber></Part>", b"<!DOCTYPE a><a/>"] {
            assert!(parse(bad).is_err());
        }
        assert!(choose(&[(2, "bb".into()), (1, "aa".into())], &[]).is_err());
        assert!(choose(&[], &[]).is_err());
        assert!(choose(&[(1, "aa".into())], &[]).is_err());
    }
}
