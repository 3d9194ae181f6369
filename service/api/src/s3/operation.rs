//! Which operation of S3 a request is, and of what. Pure; both the decision about it and its handler read it here.

use super::addressing::VirtualBucket;
use super::errors::S3Error;
use crate::access::calls::copy_source;
use crate::sigv4::canonical::{decode, query_pairs};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};

/// Longest key, bytes.
const MAX_KEY: usize = 1024;

/// What a request is about.
pub struct Target {
    /// Empty: the service.
    pub bucket: String,
    /// Empty: the bucket.
    pub key: String,
    query: Vec<(String, String)>,
}

impl Target {
    /// Of a request, path style unless its host names the bucket.
    pub fn of(parts: &Parts) -> Result<Target, S3Error> {
        let path = parts.uri.path();
        let (bucket, key) = match parts.extensions.get::<VirtualBucket>() {
            Some(VirtualBucket(bucket)) => (bucket.as_str(), path.strip_prefix('/').unwrap_or(path)),
            None => {
                let path = path.trim_start_matches('/');
                path.split_once('/').unwrap_or((path, ""))
            }
        };
        let text = |t: &str| String::from_utf8(decode(t, false)).map_err(|_| S3Error::invalid("the path is not UTF-8"));
        let query = query_pairs(parts.uri.query().unwrap_or(""))
            .into_iter()
            .map(|(n, v)| (String::from_utf8_lossy(&n).into_owned(), String::from_utf8_lossy(&v).into_owned()))
            .collect();
        let target = Target { bucket: text(bucket)?, key: text(key)?, query };
        if target.key.len() > MAX_KEY {
            return Err(S3Error::new(StatusCode::BAD_REQUEST, "KeyTooLongError", "the key is longer than 1024 bytes"));
        }
        if !acceptable(&target.key) {
            return Err(S3Error::invalid("the key has a part \".\" or \"..\", or a control character"));
        }
        Ok(target)
    }

    /// The first value of a name in the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Bucket and key of `x-amz-copy-source`.
    pub fn copy_source(&self, headers: &HeaderMap) -> Option<(String, String)> {
        copy_source(headers.get("x-amz-copy-source")?.to_str().ok()?)
    }

    /// Whether the query holds nothing but `names` and what belongs to a signature.
    fn only(&self, names: &[&str]) -> bool {
        let common = |n: &str| n == "x-id" || n.get(..6).is_some_and(|p| p.eq_ignore_ascii_case("x-amz-"));
        self.query.iter().all(|(n, _)| names.contains(&n.as_str()) || common(n))
    }
}

/// Whether a key means the same to everybody. Objects lie in files of other names here, but whoever copies a bucket to a
/// directory must not be led out of it.
pub fn acceptable(key: &str) -> bool {
    !key.split(['/', '\\']).any(|part| part == "." || part == "..") && !key.chars().any(char::is_control)
}

/// What of S3 this service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are S3's
pub enum Operation {
    ListBuckets,
    HeadBucket,
    GetBucketLocation,
    ListObjects,
    ListUploads,
    DeleteObjects,
    ReadObject,
    PutObject,
    CopyObject,
    DeleteObject,
    CreateUpload,
    PutPart,
    CopyPart,
    ListParts,
    CompleteUpload,
    AbortUpload,
}

const LIST: &[&str] = &[
    "list-type", "prefix", "delimiter", "max-keys", "marker", "continuation-token", "start-after", "encoding-type",
    "fetch-owner",
];
const READ: &[&str] = &[
    "partNumber", "response-content-type", "response-content-disposition", "response-content-encoding",
    "response-content-language", "response-cache-control", "response-expires",
];

impl Operation {
    /// Of a request; `None` if this service does not do it.
    pub fn of(parts: &Parts, target: &Target) -> Option<Operation> {
        use Operation::*;
        let (method, has) = (&parts.method, |name: &str| target.query(name).is_some());
        let copy = parts.headers.contains_key("x-amz-copy-source");
        if target.bucket.is_empty() {
            return (method == Method::GET && target.only(&["max-buckets", "prefix"])).then_some(ListBuckets);
        }
        if target.key.is_empty() {
            return match *method {
                Method::HEAD if target.only(&[]) => Some(HeadBucket),
                Method::GET if has("location") && target.only(&["location"]) => Some(GetBucketLocation),
                Method::GET if has("uploads") => {
                    let names =
                        ["uploads", "prefix", "delimiter", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"];
                    target.only(&names).then_some(ListUploads)
                }
                Method::GET if target.only(LIST) => Some(ListObjects),
                Method::POST if has("delete") && target.only(&["delete"]) => Some(DeleteObjects),
                _ => None,
            };
        }
        match *method {
            Method::GET if has("uploadId") => {
                target.only(&["uploadId", "max-parts", "part-number-marker"]).then_some(ListParts)
            }
            Method::GET | Method::HEAD if target.only(READ) => Some(ReadObject),
            Method::PUT if has("uploadId") && target.only(&["uploadId", "partNumber"]) => {
                Some(if copy { CopyPart } else { PutPart })
            }
            Method::PUT if target.only(&[]) => Some(if copy { CopyObject } else { PutObject }),
            Method::POST if has("uploads") && target.only(&["uploads"]) => Some(CreateUpload),
            Method::POST if has("uploadId") && target.only(&["uploadId"]) => Some(CompleteUpload),
            Method::DELETE if has("uploadId") && target.only(&["uploadId"]) => Some(AbortUpload),
            Method::DELETE if target.only(&[]) => Some(DeleteObject),
            _ => None,
        }
    }

    /// The action that policies name.
    pub fn action(self) -> &'static str {
        match self {
            Operation::ListBuckets => "s3:ListAllMyBuckets",
            Operation::HeadBucket | Operation::ListObjects => "s3:ListBucket",
            Operation::GetBucketLocation => "s3:GetBucketLocation",
            Operation::ListUploads => "s3:ListBucketMultipartUploads",
            Operation::ReadObject => "s3:GetObject",
            Operation::DeleteObjects | Operation::DeleteObject => "s3:DeleteObject",
            Operation::ListParts => "s3:ListMultipartUploadParts",
            Operation::AbortUpload => "s3:AbortMultipartUpload",
            Operation::PutObject
            | Operation::CopyObject
            | Operation::CreateUpload
            | Operation::PutPart
            | Operation::CopyPart
            | Operation::CompleteUpload => "s3:PutObject",
        }
    }

    /// Whether the body is an object or a part, read while it comes.
    pub fn is_large(self) -> bool {
        matches!(self, Operation::PutObject | Operation::PutPart)
    }
}
