//! What a request asked for, as far as its head tells: for counting, never for deciding.

use crate::panorama::operations;
use crate::sigv4::canonical::query_pairs;
use axum::http::Method;
use axum::http::request::Parts;

/// Goes with an answer as an extension of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The service's signing name.
    pub service: &'static str,
    /// The operation, in the caller's words: whoever counts by it bounds it.
    pub operation: String,
}

impl Answered {
    /// Of a request to a service.
    pub fn of(service: &'static str, parts: &Parts) -> Answered {
        let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok());
        let operation = match (service, target) {
            ("panorama", _) => panorama(parts).to_owned(),
            ("s3", _) => s3(parts).to_owned(),
            (_, Some(target)) => target.rsplit('.').next().unwrap_or("").to_owned(),
            (_, None) => parts
                .uri
                .path()
                .rsplit_once("/operation/")
                .map(|(_, name)| name.to_owned())
                .unwrap_or_else(|| query(parts, b"Action").unwrap_or_else(|| "form".to_owned())),
        };
        Answered { service, operation }
    }
}

fn query(parts: &Parts, name: &[u8]) -> Option<String> {
    let pairs = query_pairs(parts.uri.query()?);
    pairs.into_iter().find(|(n, _)| n == name).and_then(|(_, v)| String::from_utf8(v).ok())
}

fn panorama(parts: &Parts) -> &'static str {
    let found = operations::find(parts.method.as_str(), parts.uri.path());
    found.map_or("unknown", |(index, _)| operations::OPERATIONS[index].signature.name)
}

/// By method and place; what of S3 is more particular counts with its kind.
fn s3(parts: &Parts) -> &'static str {
    let (bucket, key) =
        parts.uri.path().trim_start_matches('/').split_once('/').unwrap_or((parts.uri.path().trim_start_matches('/'), ""));
    let upload = query(parts, b"uploadId").is_some() || query(parts, b"uploads").is_some();
    match (&parts.method, bucket.is_empty(), key.is_empty()) {
        (&Method::GET, true, _) => "ListBuckets",
        (&Method::GET, false, true) => "ListObjects",
        (&Method::HEAD, _, true) => "HeadBucket",
        (&Method::GET, _, false) if upload => "ListParts",
        (&Method::GET, _, false) => "GetObject",
        (&Method::HEAD, _, false) => "HeadObject",
        (&Method::PUT, _, false) if upload => "UploadPart",
        (&Method::PUT, _, false) => "PutObject",
        (&Method::POST, _, false) if upload => "MultipartUpload",
        (&Method::DELETE, _, false) if upload => "AbortMultipartUpload",
        (&Method::DELETE, _, false) => "DeleteObject",
        (&Method::POST, _, true) => "DeleteObjects",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(service: &'static str, method: &str, uri: &str, target: Option<&str>) -> String {
        let mut request = axum::http::Request::builder().method(method).uri(uri);
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        Answered::of(service, &request.body(()).unwrap().into_parts().0).operation
    }

    #[test]
    fn operations_are_named_as_their_services_name_them() {
        assert_eq!(of("panorama", "GET", "/devices", None), "ListDevices");
        assert_eq!(of("panorama", "GET", "/nothing/here", None), "unknown");
        assert_eq!(of("logs", "POST", "/", Some("Logs_20140328.PutLogEvents")), "PutLogEvents");
        assert_eq!(
            of("monitoring", "POST", "/service/GraniteServiceVersion20100801/operation/PutMetricData", None),
            "PutMetricData"
        );
        assert_eq!(of("sts", "GET", "/?Action=GetCallerIdentity&Version=1", None), "GetCallerIdentity");
        assert_eq!(of("sts", "POST", "/", None), "form");
        assert_eq!(of("s3", "GET", "/", None), "ListBuckets");
        assert_eq!(of("s3", "GET", "/b?list-type=2", None), "ListObjects");
        assert_eq!(of("s3", "GET", "/b/a/k", None), "GetObject");
        assert_eq!(of("s3", "PUT", "/b/k?partNumber=1&uploadId=x", None), "UploadPart");
    }
}
