//! What devices ask without a signature, by their certificate alone: short-lived keys.

use crate::Api;
use crate::access::policy::Principal;
use crate::arn::Arn;
use crate::audit::Record;
use crate::caller::Caller;
use crate::query::QueryError;
use crate::sts::{role_of_arn, trusts};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_device_protocol::credentials::{APPLIANCE_ROLE_ALIAS, Credentials, CredentialsReply, Release, ReleasedReply};
use belvedere_fleet::credentials::{LIFETIME_S, Origin, Subject};
use belvedere_fleet::identity::Identity;
use belvedere_store::certificates::CertificateKind;
use belvedere_store::identifiers;
use serde_json::json;

/// Who the guide's trust policies let assume the roles of applications.
const PANORAMA: &str = "panorama.amazonaws.com";

/// The client certificate of a connection (DER), as TLS verified it.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificate(pub Option<std::sync::Arc<[u8]>>);

/// Where a connection came from.
#[derive(Debug, Clone, Default)]
pub struct PeerAddress(pub Option<std::net::SocketAddr>);

impl PeerAddress {
    /// For the audit log.
    pub fn text(&self) -> String {
        self.0.map_or_else(|| "unknown".to_owned(), |a| a.to_string())
    }
}

fn refused(status: StatusCode, message: &str) -> Response {
    let body = json!({ "message": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Keys of the role of an application instance that this device should run, if that role trusts Panorama with it.
async fn application(api: &Api, identity: &Identity, instance: &str) -> Result<Option<Credentials>, QueryError> {
    let Some(role_arn) = api.fleet.role_of_instance(&identity.device_id, instance).await? else { return Ok(None) };
    let Some(role) = role_of_arn(api, &role_arn).await? else { return Ok(None) };
    let Some(device) = api.home().panorama("device", &identity.device_id) else { return Ok(None) };
    let context = [
        ("aws:SourceAccount", api.fleet.settings.account.clone()),
        ("aws:SourceArn", device.into()),
        ("sts:RoleSessionName", instance.to_owned()),
    ];
    if !trusts(&role, &[Principal::Service(PANORAMA.into())], &context) {
        return Ok(None);
    }
    let origin = Origin::ApplicationInstance {
        device_id: identity.device_id.clone(),
        certificate: identity.fingerprint.clone(),
        application_instance_id: instance.to_owned(),
        role_arn,
    };
    let subject = Subject::Role { role: role.name, role_id: role.role_id, session_name: instance.to_owned(), origin };
    Ok(Some(api.fleet.issue_session(subject, LIFETIME_S)))
}

/// `GET /role-aliases/<alias>/credentials`.
pub async fn credentials(
    api: &Api,
    alias: &str,
    peer: &PeerCertificate,
    address: &PeerAddress,
    headers: &HeaderMap,
) -> Response {
    let mut record = Record {
        source: address.text(),
        action: "iot:AssumeRoleWithCertificate".into(),
        resource: api.home().role_alias(alias).unwrap_or_else(Arn::any).into(),
        ..Record::default()
    };
    let response = answer(api, alias, peer, headers, &mut record).await;
    let (account, id) = (&api.fleet.settings.account, identifiers::token::<16>());
    api.audit.enter(account, record, &id, response.status().as_u16()).await;
    response
}

/// To a certificate that the fleet does not stand by: it never did, or its device was deleted.
async fn of_no_device(api: &Api, certificate: &[u8]) -> Response {
    match api.fleet.released(certificate).await {
        Ok(None) => refused(StatusCode::FORBIDDEN, "the client certificate is not an active device certificate"),
        Ok(Some(released)) => {
            let message = "the device was deleted: its appliance is free".to_owned();
            let release = Release { thing_name: released.thing_name, device_id: released.device_id };
            let body = serde_json::to_string(&ReleasedReply { message, release }).unwrap_or_default();
            (StatusCode::GONE, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(e) => {
            tracing::error!("cannot look up a released certificate: {e}");
            refused(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        }
    }
}

async fn answer(api: &Api, alias: &str, peer: &PeerCertificate, headers: &HeaderMap, record: &mut Record) -> Response {
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
    let Some(identity) = identity else { return of_no_device(api, certificate).await };
    if !api.fleet.may_ask_for_credentials(&identity) {
        return refused(StatusCode::TOO_MANY_REQUESTS, "keys are good for an hour: the device asks too often");
    }
    record.caller = Some(Caller::Device { device_id: identity.device_id.clone(), access_key_id: String::new() });
    let thing = headers.get("x-amzn-iot-thingname").and_then(|v| v.to_str().ok());
    if thing.is_some_and(|t| t != identity.name) {
        return refused(StatusCode::FORBIDDEN, "x-amzn-iot-thingname is not the certificate's thing");
    }
    let credentials = match alias {
        APPLIANCE_ROLE_ALIAS => api.fleet.issue_credentials(&identity),
        other if !other.starts_with("applicationInstance-") => return refused(StatusCode::NOT_FOUND, "no such role alias"),
        instance => match application(api, &identity, instance).await {
            Ok(Some(credentials)) => credentials,
            // Nothing is told apart here: a device learns nothing of what is not its own.
            Ok(None) => return refused(StatusCode::FORBIDDEN, "no role of this device has this alias and trusts it"),
            Err(e) => {
                tracing::error!("cannot give credentials: {}", e.message);
                return refused(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
            }
        },
    };
    tracing::info!(device_id = identity.device_id, alias, "credentials given");
    record.access_key_id = credentials.access_key_id.clone();
    let reply = CredentialsReply { credentials };
    let body = serde_json::to_string(&reply).unwrap_or_default();
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
