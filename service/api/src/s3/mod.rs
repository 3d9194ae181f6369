//! The part of S3 that tools and appliances use, path style: one bucket, objects, uploads in parts, lists.
//!
//! Appliances read what their own deployments name and nothing else. Deployment documents (they hold camera passwords)
//! are read by their own appliance alone, not even by administrators, and are not listed.

mod errors;
mod get;
mod list;
mod multipart;
mod put;

pub use errors::error;

use crate::Api;
use crate::caller::Caller;
use crate::entry::Request;
use crate::sigv4::canonical::{decode, query_pairs};
use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use errors::S3Error;

/// Longest key, bytes.
const MAX_KEY: usize = 1024;

/// What a request is about.
struct Target {
    bucket: String,
    key: String,
    query: Vec<(String, String)>,
}

impl Target {
    fn of(request: &Request) -> Result<Target, S3Error> {
        let path = request.parts.uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let text = |t: &str| String::from_utf8(decode(t, false)).map_err(|_| S3Error::invalid("the path is not UTF-8"));
        let query = query_pairs(request.parts.uri.query().unwrap_or(""))
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

    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Whether a key means the same to everybody. Objects lie in files of other names here, but whoever copies a bucket to a
/// directory must not be led out of it.
fn acceptable(key: &str) -> bool {
    !key.split(['/', '\\']).any(|part| part == "." || part == "..") && !key.chars().any(char::is_control)
}

/// Answers a request.
pub async fn answer(api: &Api, request: Request) -> Response {
    run(api, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn run(api: &Api, request: Request) -> Result<Response, S3Error> {
    let target = Target::of(&request)?;
    let method = request.parts.method.clone();
    if target.bucket.is_empty() {
        only_administrators(&request.caller)?;
        return Ok(list::buckets(api));
    }
    if target.bucket != api.fleet.settings.bucket {
        return Err(S3Error::new(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist"));
    }
    let read = method == Method::GET || method == Method::HEAD;
    if target.key.is_empty() {
        only_administrators(&request.caller)?;
        return match method {
            Method::HEAD => Ok(StatusCode::OK.into_response()),
            Method::GET if target.query("location").is_some() => Ok(list::location(&request.region)),
            Method::GET => list::objects(api, &target).await,
            _ => Err(S3Error::not_implemented()),
        };
    }
    if read && target.query("uploadId").is_none() {
        return get::object(api, &request.parts, &request.caller, &target).await;
    }
    only_administrators(&request.caller)?;
    match (method, target.query("uploadId").is_some(), target.query("uploads").is_some()) {
        (Method::PUT, false, _) => put::object(api, request, &target).await,
        (Method::PUT, true, _) => multipart::part(api, request, &target).await,
        (Method::POST, false, true) => multipart::create(api, &request.parts.headers, &target).await,
        (Method::POST, true, _) => multipart::complete(api, request, &target).await,
        (Method::DELETE, true, _) => multipart::abort(api, &target).await,
        (Method::DELETE, false, _) => {
            // Deleting what is not there is success.
            api.fleet.store.delete_object(&target.bucket, &target.key).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(S3Error::not_implemented()),
    }
}

fn only_administrators(caller: &Caller) -> Result<(), S3Error> {
    if caller.is_administrator() { Ok(()) } else { Err(S3Error::denied()) }
}

fn xml(body: String) -> Response {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/xml")], Body::from(text)).into_response()
}
