//! STS: `GetCallerIdentity`, which every tool asks for the account.

use crate::Api;
use crate::caller::Caller;
use crate::entry::Request;
use crate::sigv4::canonical::query_pairs;
use crate::xml::{element, escape};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

fn xml(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}

/// An error in STS's form.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let kind = if status.is_server_error() { "Receiver" } else { "Sender" };
    xml(
        status,
        format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>{kind}</Type>{}{}</Error></ErrorResponse>",
            element("Code", code),
            element("Message", message)
        ),
    )
}

/// Answers a request.
pub async fn answer(api: &Api, request: Request) -> Response {
    let body = match request.body.collect().await {
        Ok(body) => String::from_utf8_lossy(&body).into_owned(),
        Err(e) => return error(StatusCode::BAD_REQUEST, "InvalidRequest", &e.to_string()),
    };
    let query = if body.is_empty() { request.parts.uri.query().unwrap_or("").to_owned() } else { body };
    let action = query_pairs(&query).into_iter().find(|(n, _)| n == b"Action").map(|(_, v)| v).unwrap_or_default();
    if action != b"GetCallerIdentity" {
        let action = String::from_utf8_lossy(&action).into_owned();
        return error(StatusCode::BAD_REQUEST, "InvalidAction", &format!("Could not find operation {action}"));
    }
    let account = &api.fleet.settings.account;
    let (arn, user) = match &request.caller {
        Caller::Administrator { access_key_id } => (format!("arn:aws:iam::{account}:user/administrator"), access_key_id),
        Caller::Device { device_id, access_key_id } => {
            (format!("arn:aws:sts::{account}:assumed-role/belvedere-appliance/{device_id}"), access_key_id)
        }
    };
    xml(
        StatusCode::OK,
        format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             {}{}{}</GetCallerIdentityResult><ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata></GetCallerIdentityResponse>",
            element("Arn", &arn),
            element("UserId", user),
            element("Account", account),
            escape(&belvedere_store::identifiers::token::<16>())
        ),
    )
}
