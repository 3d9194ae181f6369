//! What comes with an object in headers and goes back with it. Whatever of the kind this service does not keep is refused:
//! nothing is taken and lost.

use super::errors::S3Error;
use super::operation::Target;
use axum::http::response::Builder;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use belvedere_store::metadata::Metadata;
use belvedere_store::objects::ObjectInfo;
use std::collections::BTreeMap;

/// Headers that are kept, beside `content-type`.
const KEPT: [&str; 5] = ["cache-control", "content-disposition", "content-encoding", "content-language", "expires"];
/// What a signed reader may ask for instead, and which header it is.
const OVERRIDES: [(&str, &str); 6] = [
    ("response-content-type", "content-type"),
    ("response-content-disposition", "content-disposition"),
    ("response-content-encoding", "content-encoding"),
    ("response-content-language", "content-language"),
    ("response-cache-control", "cache-control"),
    ("response-expires", "expires"),
];
/// What S3 would remember or do, and this service does not; the values that say nothing.
const NOT_DONE: [(&str, &[&str]); 12] = [
    ("x-amz-acl", &["private", "bucket-owner-full-control"]),
    ("x-amz-grant-full-control", &[]),
    ("x-amz-grant-read", &[]),
    ("x-amz-grant-read-acp", &[]),
    ("x-amz-grant-write-acp", &[]),
    ("x-amz-storage-class", &["STANDARD"]),
    ("x-amz-tagging", &[""]),
    ("x-amz-website-redirect-location", &[]),
    // The AWS CLI asks for it with each template that it uploads. What S3 does by itself with every object is here done, or
    // not, by the disk or the bucket that holds the objects.
    ("x-amz-server-side-encryption", &["AES256"]),
    ("x-amz-server-side-encryption-customer-algorithm", &[]),
    ("x-amz-object-lock-mode", &[]),
    ("x-amz-object-lock-legal-hold", &["OFF"]),
];
const USER: &str = "x-amz-meta-";
/// Longest of the headers that are kept, bytes; and names and values of all user metadata together, as in S3.
const MAX_HEADER: usize = 1024;
const MAX_USER: usize = 2 * 1024;

fn text<'a>(name: &str, value: &'a HeaderValue) -> Result<&'a str, S3Error> {
    let characters = || S3Error::invalid(format!("{name} holds characters that are not ASCII; encode them (RFC 2047)"));
    value.to_str().map_err(|_| characters())
}

/// What a request gives an object, all of it or an error.
pub(super) fn given(headers: &HeaderMap) -> Result<Metadata, S3Error> {
    for (name, nothing) in NOT_DONE {
        if let Some(value) = headers.get(name)
            && !nothing.iter().any(|n| n.as_bytes() == value.as_bytes())
        {
            return Err(S3Error::header_not_implemented(name));
        }
    }
    let mut metadata = Metadata::default();
    for name in KEPT {
        let values = headers.get_all(name).iter().map(|v| text(name, v)).collect::<Result<Vec<_>, _>>()?;
        let mut value = values.join(", ");
        if name == "content-encoding" {
            value = without_chunks(&value);
        }
        if value.len() > MAX_HEADER {
            return Err(S3Error::invalid(format!("{name} is longer than {MAX_HEADER} bytes")));
        }
        if !value.is_empty() {
            metadata.headers.insert(name.to_owned(), value);
        }
    }
    let mut length = 0;
    for name in headers.keys() {
        let Some(short) = name.as_str().strip_prefix(USER).filter(|s| !s.is_empty()) else { continue };
        let values = headers.get_all(name).iter().map(|v| text(name.as_str(), v)).collect::<Result<Vec<_>, _>>()?;
        let value = values.join(",");
        length += short.len() + value.len();
        metadata.user.insert(short.to_owned(), value);
    }
    if length > MAX_USER {
        let message = "Your metadata headers exceed the maximum allowed metadata size";
        return Err(S3Error::new(StatusCode::BAD_REQUEST, "MetadataTooLarge", message));
    }
    Ok(metadata)
}

/// `aws-chunked` is how the body travels, not what it is.
fn without_chunks(encoding: &str) -> String {
    let kept = encoding.split(',').map(str::trim).filter(|e| !e.is_empty() && !e.eq_ignore_ascii_case("aws-chunked"));
    kept.collect::<Vec<_>>().join(",")
}

/// Whether a copy takes what the request gives instead of what the source has.
pub(super) fn is_replaced(headers: &HeaderMap) -> Result<bool, S3Error> {
    match headers.get("x-amz-metadata-directive").map(HeaderValue::as_bytes) {
        None | Some(b"COPY") => Ok(false),
        Some(b"REPLACE") => Ok(true),
        Some(_) => Err(S3Error::invalid("x-amz-metadata-directive is COPY or REPLACE")),
    }
}

/// The headers of an answer with an object, as they were given or as this reader asks for them.
pub(super) fn answered(mut response: Builder, object: &ObjectInfo, target: &Target) -> Result<Builder, S3Error> {
    let mut headers: BTreeMap<&str, &str> =
        object.metadata.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.insert("content-type", &object.content_type);
    for (parameter, name) in OVERRIDES {
        if let Some(value) = target.query(parameter) {
            headers.insert(name, value);
        }
    }
    for (name, value) in headers {
        // Not ASCII alone: a file's name in content-disposition may be anything that is no control character.
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| S3Error::invalid(format!("the value of response-{name} is not one of a header")))?;
        response = response.header(name, value);
    }
    for (name, value) in &object.metadata.user {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(format!("{USER}{name}")), HeaderValue::try_from(value)) {
            response = response.header(name, value);
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn what_is_given_is_kept() {
        let given = given(&headers(&[
            ("cache-control", "max-age=60"),
            ("content-encoding", "gzip,aws-chunked"),
            ("expires", "Thu, 01 Dec 1994 16:00:00 GMT"),
            ("x-amz-meta-camera", "front"),
            ("x-amz-meta-camera", "door"),
            ("x-amz-acl", "private"),
            ("x-amz-server-side-encryption", "AES256"),
        ]));
        let given = given.unwrap();
        let kept: Vec<_> = given.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let expires = ("expires", "Thu, 01 Dec 1994 16:00:00 GMT");
        assert_eq!(kept, [("cache-control", "max-age=60"), ("content-encoding", "gzip"), expires]);
        assert_eq!(given.user.iter().collect::<Vec<_>>(), [(&"camera".to_owned(), &"front,door".to_owned())]);
    }

    #[test]
    fn what_is_not_kept_is_refused() {
        assert_eq!(given(&headers(&[("content-encoding", "aws-chunked")])).unwrap(), Metadata::default());
        for (name, value) in [
            ("x-amz-tagging", "a=b"),
            ("x-amz-acl", "public-read"),
            ("x-amz-storage-class", "GLACIER"),
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-website-redirect-location", "/other"),
            ("x-amz-meta-x", "\u{e4}"),
            ("content-disposition", "attachment; filename=\u{e4}"),
        ] {
            assert!(given(&headers(&[(name, value)])).is_err(), "{name}: {value}");
        }
        let at_the_limit = "v".repeat(MAX_USER - 1);
        assert!(given(&headers(&[("x-amz-meta-x", &at_the_limit)])).is_ok());
        assert!(given(&headers(&[("x-amz-meta-xy", &at_the_limit)])).is_err());
        assert!(given(&headers(&[("cache-control", &"v".repeat(MAX_HEADER))])).is_ok());
        assert!(given(&headers(&[("cache-control", &"v".repeat(MAX_HEADER + 1))])).is_err());
    }

    #[test]
    fn a_copy_keeps_or_replaces() {
        let of = |value| is_replaced(&headers(&[("x-amz-metadata-directive", value)])).ok();
        assert_eq!((of("COPY"), of("REPLACE"), of("replace")), (Some(false), Some(true), None));
    }
}
