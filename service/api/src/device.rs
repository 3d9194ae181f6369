//! What devices ask without a signature, by their certificate alone: short-lived keys.

use crate::Api;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_device_protocol::credentials::{APPLIANCE_ROLE_ALIAS, CredentialsReply};
use belvedere_store::certificates::CertificateKind;
use serde_json::json;

/// The client certificate of a connection (DER), as TLS verified it.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificate(pub Option<std::sync::Arc<[u8]>>);

fn refused(status: StatusCode, message: &str) -> Response {
    let body = json!({ "message": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// `GET /role-aliases/<alias>/credentials`.
pub async fn credentials(api: &Api, alias: &str, peer: &PeerCertificate, headers: &HeaderMap) -> Response {
    let Some(certificate) = &peer.0 else {
        return refused(StatusCode::FORBIDDEN, "a client certificate is needed");
    };
    let identity = match api.fleet.identify(certificate).await {
        Ok(identity) => identity.filter(|i| i.kind == CertificateKind::Device),
        Err(e) => {
            tracing::error!("cannot identify a certificate: {e}");
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
        }
    };
    let Some(identity) = identity else {
        return refused(StatusCode::FORBIDDEN, "the client certificate is not an active device certificate");
    };
    if !api.fleet.may_ask_for_credentials(&identity) {
        return refused(StatusCode::TOO_MANY_REQUESTS, "keys are good for an hour: the device asks too often");
    }
    let thing = headers.get("x-amzn-iot-thingname").and_then(|v| v.to_str().ok());
    if thing.is_some_and(|t| t != identity.name) {
        return refused(StatusCode::FORBIDDEN, "x-amzn-iot-thingname is not the certificate's thing");
    }
    if alias != APPLIANCE_ROLE_ALIAS {
        return refused(StatusCode::NOT_FOUND, "no such role alias");
    }
    tracing::info!(device_id = identity.device_id, "credentials given");
    let reply = CredentialsReply { credentials: api.fleet.issue_credentials(&identity) };
    let body = serde_json::to_string(&reply).unwrap_or_default();
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
