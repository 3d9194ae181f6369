//! Reading objects: whole, in ranges, by their parts, on conditions.

use super::body::ObjectBody;
use super::condition::{self, Verdict};
use super::errors::S3Error;
use super::metadata;
use super::operation::Target;
use crate::Api;
use crate::access::own_deployment;
use crate::caller::Caller;
use crate::sigv4::clock::http_date;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use belvedere_store::objects::{Current, ObjectInfo};

/// HEAD and GET.
pub(super) async fn object(api: &Api, parts: &Parts, caller: &Caller, target: &Target) -> Result<Response, S3Error> {
    if let Some(response) = deployment(api, parts, caller, target).await? {
        return Ok(response);
    }
    let head = parts.method == Method::HEAD;
    // Decided anew about each state of the object: what is answered and what is read are of one moment.
    let wanted = |object: &ObjectInfo| match plan(&parts.headers, target, object) {
        Ok(Plan::Bytes { start, length, .. }) if !head => Some((start, length)),
        _ => None,
    };
    let found = api.fleet.store.open_current(&target.bucket, &target.key, wanted).await?;
    let Current { object, bytes } = found.ok_or_else(S3Error::no_such_key)?;
    let (start, length, partial) = match plan(&parts.headers, target, &object)? {
        Plan::NotModified => {
            let response = Response::builder().status(StatusCode::NOT_MODIFIED);
            return finish(response.header(header::ETAG, format!("\"{}\"", object.etag)), Body::empty());
        }
        Plan::Bytes { start, length, partial } => (start, length, partial),
    };
    let response = answer(&object.etag, object.modified_ms).header(header::CONTENT_LENGTH, length);
    let mut response = metadata::answered(response, &object, target)?;
    // No byte of an empty object has a place.
    if let Some(last) = (start + length).checked_sub(1).filter(|_| partial && length > 0) {
        let content_range = format!("bytes {start}-{last}/{}", object.size);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range);
    }
    if target.query("partNumber").is_some() {
        response = response.header("x-amz-mp-parts-count", object.part_sizes.len().max(1));
    }
    // The checksum is that of the whole.
    if length == object.size
        && let Some(crc32) = object.crc32.as_ref().filter(|_| parts.headers.contains_key("x-amz-checksum-mode"))
    {
        response = response.header("x-amz-checksum-crc32", crc32);
    }
    match bytes {
        Some(bytes) => {
            let name = format!("{}/{}", target.bucket, target.key);
            finish(response, Body::new(ObjectBody::new(bytes, length, name)))
        }
        None => finish(response, Body::empty()),
    }
}

/// What a reader gets of an object.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// The reader has it.
    NotModified,
    /// These bytes.
    Bytes { start: u64, length: u64, partial: bool },
}

/// Pure.
fn plan(headers: &HeaderMap, target: &Target, object: &ObjectInfo) -> Result<Plan, S3Error> {
    match condition::verdict(headers, "", object) {
        Verdict::Holds => {}
        Verdict::NotModified => return Ok(Plan::NotModified),
        Verdict::Fails => return Err(S3Error::precondition_failed()),
    }
    if let Some(number) = target.query("partNumber") {
        if headers.contains_key(header::RANGE) {
            return Err(S3Error::new(
                StatusCode::BAD_REQUEST,
                "InvalidRequest",
                "Cannot specify both Range header and partNumber query parameter",
            ));
        }
        let (start, length) = part(number, &object.part_sizes, object.size)?;
        return Ok(Plan::Bytes { start, length, partial: true });
    }
    let range = if condition::range_is_of(headers, object) { range(headers, object.size)? } else { None };
    Ok(match range {
        Some((start, length)) => Plan::Bytes { start, length, partial: true },
        None => Plan::Bytes { start: 0, length: object.size, partial: false },
    })
}

/// Where a part of an object is. One that was put there in one piece, or whose parts are not known, has one.
fn part(number: &str, sizes: &[u64], size: u64) -> Result<(u64, u64), S3Error> {
    let number = number.parse::<usize>().ok().filter(|n| (1..=10_000).contains(n));
    let number = number.ok_or_else(|| S3Error::invalid("Part number must be an integer between 1 and 10000, inclusive"))?;
    let whole = [size];
    let sizes = if sizes.iter().sum::<u64>() == size && !sizes.is_empty() { sizes } else { &whole };
    let Some(length) = sizes.get(number - 1) else {
        let message = "The requested partnumber is not satisfiable";
        return Err(S3Error::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidPartNumber", message));
    };
    Ok((sizes[..number - 1].iter().sum(), *length))
}

/// A device's own deployment documents live in the database, sealed.
async fn deployment(api: &Api, parts: &Parts, caller: &Caller, target: &Target) -> Result<Option<Response>, S3Error> {
    let Caller::Device { device_id, .. } = caller else { return Ok(None) };
    let Some(id) = own_deployment(api, device_id, &target.key) else { return Ok(None) };
    let found = api.fleet.store.deployment_document(device_id, id).await?.ok_or_else(S3Error::no_such_key)?;
    let etag = crate::sigv4::canonical::sha256(&found);
    let response = answer(&etag, belvedere_store::now_ms())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, found.len());
    let head = parts.method == Method::HEAD;
    finish(response, if head { Body::empty() } else { found.into() }).map(Some)
}

fn answer(etag: &str, modified_ms: i64) -> axum::http::response::Builder {
    Response::builder()
        .status(StatusCode::OK)
        .header(header::ETAG, format!("\"{etag}\""))
        .header(header::LAST_MODIFIED, http_date(modified_ms))
        .header(header::ACCEPT_RANGES, "bytes")
}

fn finish(response: axum::http::response::Builder, body: Body) -> Result<Response, S3Error> {
    response.body(body).map_err(|e| S3Error::invalid(e.to_string()))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
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
    // One that is too large for any object is a number all the same.
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), _) if first >= size => Err(unsatisfiable()),
        (Some(first), Some(last)) if last >= first => Ok(Some((first, last.min(size - 1) - first + 1))),
        (Some(first), None) if last.is_empty() => Ok(Some((first, size - first))),
        (None, Some(count)) if first.is_empty() && (count == 0 || size == 0) => Err(unsatisfiable()),
        (None, Some(count)) if first.is_empty() => Ok(Some((size.saturating_sub(count), count.min(size)))),
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
        assert_eq!(of("bytes=99999999999999999999-", 100), None);
        assert_eq!(of("bytes=90-99999999999999999999", 100), Some(Some((90, 10))));
        assert_eq!(of("bytes=-99999999999999999999", 100), Some(Some((0, 100))));
        assert_eq!(of("bytes=+1-2", 100), Some(None));
        assert_eq!(of("bytes=-0", 100), None);
        assert_eq!(of("bytes=-1", 0), None);
        assert_eq!(of("bytes=5-2", 100), Some(None));
        assert_eq!(of("lines=1-2", 100), Some(None));
        assert_eq!(of("bytes=0-1,5-6", 100), Some(None), "several ranges: the whole object is a right answer");
    }

    #[test]
    fn parts_are_where_they_were_put() {
        assert_eq!(part("1", &[5, 5, 2], 12).ok(), Some((0, 5)));
        assert_eq!(part("3", &[5, 5, 2], 12).ok(), Some((10, 2)));
        assert!(part("4", &[5, 5, 2], 12).is_err() && part("0", &[], 1).is_err() && part("x", &[], 1).is_err());
        assert_eq!(part("1", &[], 12).ok(), Some((0, 12)));
        assert_eq!(part("1", &[], 0).ok(), Some((0, 0)));
        assert_eq!(part("1", &[5], 12).ok(), Some((0, 12)), "sizes that are not those of the object are not used");
        assert!(part("2", &[], 12).is_err());
    }
}
