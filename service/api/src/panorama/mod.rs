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
use crate::arn::{Arn, Home};
use crate::caller::Caller;
use crate::model::{At, assemble, check};
use crate::operation::{Ask, Subject};
use crate::sigv4::canonical::{decode, query_pairs};
use crate::wire::json;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::StoreError;
use errors::ApiError;
use operations::{OPERATIONS, Operation};
use serde_json::{Map, Value};

/// What a handler knows beside its input.
#[derive(Debug, Clone)]
pub struct Context {
    /// The service's region.
    pub region: String,
    /// The account.
    pub account: String,
}

impl Context {
    /// `arn:aws:panorama:<region>:<account>:<kind>/<id>` of an identifier that this service gave.
    pub fn arn(&self, kind: &str, id: &str) -> String {
        Home::new(&self.region, &self.account).panorama(kind, id).unwrap_or_else(Arn::any).into()
    }
}

/// What a request asks for: the operation, and what this one takes of path, query and body.
pub struct Asked {
    operation: &'static Operation,
    input: Map<String, Value>,
}

/// Reads a request, once.
pub fn read(parts: &Parts, body: &[u8]) -> Result<Asked, ApiError> {
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    let (operation, labels) = operations::find(method, path).ok_or_else(|| ApiError::unknown_operation(method, path))?;
    let operation = &OPERATIONS[operation];
    let query: Vec<(String, String)> = query_pairs(parts.uri.query().unwrap_or(""))
        .into_iter()
        .map(|(n, v)| (String::from_utf8_lossy(&n).into_owned(), String::from_utf8_lossy(&v).into_owned()))
        .collect();
    let mut body: Map<String, Value> = match body.iter().all(u8::is_ascii_whitespace) {
        true => Map::new(),
        false => json::read(body).map_err(|e| ApiError::cannot_parse(format!("the body is not a JSON object: {e}")))?,
    };
    let members = operation.signature.input;
    body.retain(|name, _| members.iter().any(|m| m.name == name && m.at == At::Body));
    Ok(Asked { operation, input: assemble(members, &labels, &query, body) })
}

impl Asked {
    /// The operation's name.
    pub fn name(&self) -> &'static str {
        self.operation.signature.name
    }

    /// What is asked before it is carried out; `None` if a name in it is none.
    pub async fn asks(&self, api: &Api) -> Result<Option<Vec<Ask>>, StoreError> {
        let home = api.home();
        let label = |name: &str| {
            let in_path = self.operation.signature.input.iter().any(|m| m.name == name && m.at == At::Path);
            self.input.get(name).filter(|_| in_path).and_then(Value::as_str)
        };
        let subjects: Option<Vec<Arn>> = if let Some(id) = label("DeviceId") {
            home.panorama("device", id).map(|arn| vec![arn])
        } else if let Some(id) = label("ApplicationInstanceId") {
            home.panorama("applicationInstance", id).map(|arn| vec![arn])
        } else if let Some(id) = label("PackageId") {
            // A package may be named in two ways; policies name it by its identifier.
            let named = match id.strip_prefix("packageName/") {
                Some(name) => api.fleet.store.package_of_name(name).await?.map(|p| p.package_id),
                None => Some(id.to_owned()),
            };
            // One that is not there is asked about as any.
            Some(vec![named.and_then(|id| home.panorama("package", &id)).unwrap_or_else(Arn::any)])
        } else if let Some(arn) = label("ResourceArn") {
            home.named(arn).map(|arn| vec![arn])
        } else if self.name() == "CreateJobForDevices" {
            let ids = self.input.get("DeviceIds").and_then(Value::as_array).into_iter().flatten();
            ids.map(|id| home.panorama("device", id.as_str()?)).collect()
        } else {
            Some(vec![Arn::any()])
        };
        let Some(subjects) = subjects.filter(|s| !s.is_empty()) else { return Ok(None) };
        let mut asks: Vec<Ask> = subjects.into_iter().map(|arn| Ask::about(Subject::Of(arn))).collect();
        // Whoever gives a role to an application must be allowed to.
        if let Some(role) = self.input.get("RuntimeRoleArn") {
            let Some(role) = role.as_str().and_then(|role| home.named(role)) else { return Ok(None) };
            asks.push(Ask::also("iam:PassRole", role));
        }
        // Whoever has an object imported reads it.
        if let Some(from) = self.input.get("InputConfig") {
            let from = &from["PackageVersionInputConfig"]["S3Location"];
            let text = |name: &str| from[name].as_str().unwrap_or_default();
            let Some(object) = Arn::object(text("BucketName"), text("ObjectKey")) else { return Ok(None) };
            asks.push(Ask::also("s3:GetObject", object));
        }
        Ok(Some(asks))
    }
}

/// Answers a request.
pub async fn answer(api: &Api, caller: &Caller, asked: Result<Asked, ApiError>) -> Response {
    match run(api, caller, asked).await {
        Ok(output) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], output.to_string()).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn run(api: &Api, caller: &Caller, asked: Result<Asked, ApiError>) -> Result<Value, ApiError> {
    let Asked { operation, input } = asked?;
    let signature = operation.signature;
    if !api.rates.admit(&caller.origin(), signature.method != "GET", api.fleet.copies()) {
        return Err(ApiError::Throttled);
    }
    let faults = check(signature.input, &input);
    if !faults.is_empty() {
        return Err(ApiError::invalid(faults));
    }
    let settings = &api.fleet.settings;
    let context = Context { region: settings.region.clone(), account: settings.account.clone() };
    (operation.run)(api.clone(), context, Value::Object(input)).await.map_err(|e| e.as_modelled(signature.errors))
}

/// A raw path as decoded segments; `None` if one is not UTF-8.
fn segments(path: &str) -> Option<Vec<String>> {
    path.strip_prefix('/')?.split('/').map(|s| String::from_utf8(decode(s, false)).ok()).collect()
}
