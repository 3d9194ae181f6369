//! The Panorama API, `2019-07-24`, as the published model has it.

pub mod application_instances;
#[cfg(test)]
mod compatibility;
pub mod dependencies;
pub mod devices;
pub mod errors;
pub mod import_archive;
pub mod imports;
pub mod jobs;
pub mod locations;
pub mod model;
pub mod nodes;
pub mod operations;
pub mod package_deletion;
pub mod packages;
pub mod paging;
pub mod planning;
pub mod quotas;
pub mod registration;
pub mod signals;
pub mod tags;
pub mod templates;
pub mod timestamp;

use crate::Api;
use crate::entry::Request;
use crate::model::{assemble, check};
use crate::sigv4::canonical::{decode, query_pairs};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use errors::ApiError;
use operations::OPERATIONS;
use serde_json::{Map, Value};

/// What a handler knows beside its input.
#[derive(Debug, Clone)]
pub struct Context {
    /// The region of the request's signature, which ARNs carry.
    pub region: String,
    /// The account.
    pub account: String,
}

impl Context {
    /// `arn:aws:panorama:<region>:<account>:<kind>/<id>`.
    pub fn arn(&self, kind: &str, id: &str) -> String {
        format!("arn:aws:panorama:{}:{}:{kind}/{id}", self.region, self.account)
    }
}

/// Answers a request.
pub async fn answer(api: &Api, request: Request) -> Response {
    match run(api, request).await {
        Ok(output) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], output.to_string()).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn run(api: &Api, request: Request) -> Result<Value, ApiError> {
    let (operation, labels) = operations::find(request.parts.method.as_str(), request.parts.uri.path())
        .ok_or_else(|| ApiError::unknown_operation(request.parts.method.as_str(), request.parts.uri.path()))?;
    let operation = &OPERATIONS[operation];
    let signature = operation.signature;
    if !api.rates.admit(request.caller.access_key_id(), &request.region, signature.method != "GET", api.fleet.copies()) {
        return Err(ApiError::Throttled);
    }
    let query: Vec<(String, String)> = query_pairs(request.parts.uri.query().unwrap_or(""))
        .into_iter()
        .map(|(n, v)| (String::from_utf8_lossy(&n).into_owned(), String::from_utf8_lossy(&v).into_owned()))
        .collect();
    let body = request.body.collect().await.map_err(|e| ApiError::cannot_parse(e.to_string()))?;
    let body: Map<String, Value> = match body.iter().all(u8::is_ascii_whitespace) {
        true => Map::new(),
        false => serde_json::from_slice(&body)
            .map_err(|e| ApiError::cannot_parse(format!("the body is not a JSON object: {e}")))?,
    };
    let input = assemble(operation.signature.input, &labels, &query, body);
    let faults = check(operation.signature.input, &input);
    if !faults.is_empty() {
        return Err(ApiError::invalid(faults));
    }
    let context = Context { region: request.region, account: api.fleet.settings.account.clone() };
    (operation.run)(api.clone(), context, Value::Object(input)).await.map_err(|e| e.as_modelled(signature.errors))
}

/// A raw path as decoded segments; `None` if one is not UTF-8.
fn segments(path: &str) -> Option<Vec<String>> {
    path.strip_prefix('/')?.split('/').map(|s| String::from_utf8(decode(s, false)).ok()).collect()
}
