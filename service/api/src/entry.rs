//! The front door: every signed request comes through here.

use crate::access::calls::{Call, questions};
use crate::access::{authorise, sessions};
use crate::answered::Answered;
use crate::audit::Record;
use crate::caller::Caller;
use crate::device::PeerAddress;
use crate::query::{self, QueryError};
use crate::sigv4::body::{Body, BodyError, Kind};
use crate::sigv4::claims::{Claims, Denied};
use crate::{Api, cloudformation, cloudwatch, cloudwatch_logs, iam, iot_data, panorama, s3, secrets_manager, sns, sts};
use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use belvedere_fleet::FleetError;
use belvedere_store::{identifiers, now_ms};
use std::time::Duration;

/// Largest body of anything but an object, bytes.
pub const MAX_DOCUMENT: u64 = 2 * 1024 * 1024;
/// Longest time in which such a body must be here.
const DOCUMENT_TIME: Duration = Duration::from_secs(60);
/// Largest object or part, bytes (S3's limit for one request).
pub const MAX_OBJECT: u64 = 5 * 1024 * 1024 * 1024;

/// A verified request.
pub struct Request {
    /// Method, path, query, headers.
    pub parts: Parts,
    /// Who signed it.
    pub caller: Caller,
    /// The region it was signed for: the one that ARNs carry.
    pub region: String,
    /// Its body.
    pub body: Body,
}

/// A service by its signing name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are AWS's
pub enum Service {
    Panorama,
    Sts,
    S3,
    Logs,
    Monitoring(cloudwatch::Form),
    Sns,
    Iam,
    SecretsManager,
    CloudFormation,
    IotData,
}

impl Service {
    fn of(name: &str, parts: &Parts) -> Option<Service> {
        match name {
            "panorama" => Some(Service::Panorama),
            "sts" => Some(Service::Sts),
            "s3" => Some(Service::S3),
            "logs" => Some(Service::Logs),
            "monitoring" => Some(Service::Monitoring(cloudwatch::Form::of(parts))),
            "sns" => Some(Service::Sns),
            "iam" => Some(Service::Iam),
            "secretsmanager" => Some(Service::SecretsManager),
            "cloudformation" => Some(Service::CloudFormation),
            "iotdata" => Some(Service::IotData),
            _ => None,
        }
    }

    /// The signing name.
    fn name(self) -> &'static str {
        match self {
            Service::Panorama => "panorama",
            Service::Sts => "sts",
            Service::S3 => "s3",
            Service::Logs => "logs",
            Service::Monitoring(_) => "monitoring",
            Service::Sns => "sns",
            Service::Iam => "iam",
            Service::SecretsManager => "secretsmanager",
            Service::CloudFormation => "cloudformation",
            Service::IotData => "iotdata",
        }
    }

    /// What "you may not" is called.
    fn forbidden(self) -> &'static str {
        match self {
            Service::IotData => "ForbiddenException",
            Service::Panorama | Service::Logs | Service::SecretsManager => "AccessDeniedException",
            Service::Sts | Service::Iam | Service::CloudFormation | Service::S3 | Service::Monitoring(_) => "AccessDenied",
            Service::Sns => "AuthorizationError",
        }
    }

    fn refuse(self, status: StatusCode, code: &'static str, message: &str) -> Response {
        match self {
            Service::Panorama => panorama::errors::plain(status, code, message),
            Service::Sts => query::error(sts::NAMESPACE, &QueryError { status, code, message: message.into() }),
            Service::Iam => query::error(iam::NAMESPACE, &QueryError { status, code, message: message.into() }),
            Service::CloudFormation => {
                query::error(cloudformation::NAMESPACE, &QueryError { status, code, message: message.into() })
            }
            Service::S3 => s3::error(status, code, message),
            Service::Logs => cloudwatch_logs::error(status, code, message),
            Service::Monitoring(form) => cloudwatch::error(form, status, code, message),
            Service::Sns => sns::error(status, code, message),
            Service::SecretsManager => secrets_manager::error(status, code, message),
            Service::IotData => iot_data::error(status, code, message),
        }
    }
}

impl Api {
    /// Answers a request. In a task of its own: a client that hangs up in the middle leaves no change half made, and none
    /// without its entry in the audit log.
    pub async fn answer(&self, request: axum::extract::Request) -> Response {
        let api = self.clone();
        match tokio::spawn(async move { api.answer_whole(request).await }).await {
            Ok(response) => response,
            Err(e) => {
                tracing::error!("cannot answer a request: {e}");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }

    async fn answer_whole(&self, request: axum::extract::Request) -> Response {
        let id = identifiers::token::<16>();
        let (parts, body) = request.into_parts();
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let started = std::time::Instant::now();
        let source = parts.extensions.get::<PeerAddress>().cloned().unwrap_or_default().text();
        let mut record = Record { source, ..Record::default() };
        let mut response = self.route(parts, body, &mut record).await;
        let status = response.status().as_u16();
        self.audit.enter(&self.fleet.settings.account, record, &id, status).await;
        tracing::info!(%method, path, status, ms = started.elapsed().as_millis() as u64, "request");
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-amzn-requestid", value.clone());
            response.headers_mut().insert("x-amz-request-id", value);
        }
        response
    }

    async fn route(&self, mut parts: Parts, body: axum::body::Body, record: &mut Record) -> Response {
        record.action = "unknown:unsigned".into();
        s3::addressing::note(&mut parts, &self.fleet.settings);
        let claims = match Claims::of(&parts) {
            Ok(claims) => claims,
            // Nothing but S3 is presigned in another way by itself.
            Err(Denied::OtherVersion) => return refuse(Service::S3, Denied::OtherVersion),
            Err(denied) => return refuse(Service::Panorama, denied),
        };
        record.access_key_id = claims.access_key_id.clone();
        record.action = format!("{}:unverified", claims.scope.service);
        record.resource = parts.uri.path().to_owned();
        let Some(service) = Service::of(&claims.scope.service, &parts) else {
            let message = format!("this service does not answer for \"{}\"", claims.scope.service);
            return panorama::errors::plain(StatusCode::NOT_FOUND, "UnknownServiceException", &message);
        };
        let answered = Answered::of(service.name(), &parts);
        let mut response = self.of_service(service, claims, parts, body, record).await;
        response.extensions_mut().insert(answered);
        response
    }

    async fn of_service(
        &self,
        service: Service,
        claims: Claims,
        parts: Parts,
        body: axum::body::Body,
        record: &mut Record,
    ) -> Response {
        let (request, raw) = match self.verified(service, claims, parts, body).await {
            Ok(verified) => verified,
            Err(refusal) => return refusal.answer(service),
        };
        record.caller = Some(request.caller.clone());
        let account = &self.fleet.settings.account;
        let call = Call { service, parts: &request.parts, body: &raw, region: &request.region, account };
        let decided = match questions(self, &call).await {
            Ok(questions) => {
                match questions.first() {
                    Some(first) => (record.action, record.resource) = (first.action.clone(), first.resource.clone()),
                    None => record.action = format!("{}:unknown", service.name()),
                }
                authorise(self, &request.caller, &questions).await
            }
            Err(e) => Err(FleetError::from(e)),
        };
        match decided {
            Ok(Ok(())) => {}
            Ok(Err(forbidden)) => return service.refuse(StatusCode::FORBIDDEN, service.forbidden(), &forbidden.message),
            Err(e) => return Refusal::Fleet(e).answer(service),
        }
        match service {
            Service::Panorama => panorama::answer(self, request).await,
            Service::Sts => sts::answer(self, request).await,
            Service::S3 => s3::answer(self, request).await,
            Service::Logs => cloudwatch_logs::answer(self, request).await,
            Service::Monitoring(form) => cloudwatch::answer(self, form, request).await,
            Service::Sns => sns::answer(self, request).await,
            Service::Iam => iam::answer(self, request).await,
            Service::SecretsManager => secrets_manager::answer(self, request).await,
            Service::CloudFormation => cloudformation::answer(self, request).await,
            Service::IotData => iot_data::answer(self, request).await,
        }
    }

    async fn verified(
        &self,
        service: Service,
        claims: Claims,
        parts: Parts,
        body: axum::body::Body,
    ) -> Result<(Request, Bytes), Refusal> {
        claims.timely(now_ms() / 1000)?;
        let (caller, secret) = self.key_of(&claims).await?;
        let region = claims.scope.region.clone();
        if service == Service::S3 {
            // Objects are large: the body is checked while it is taken in.
            let target = s3::operation::Target::of(&parts).ok();
            let large = target.and_then(|t| s3::operation::Operation::of(&parts, &t)).is_some_and(|o| o.is_large());
            let limit = if large { MAX_OBJECT } else { MAX_DOCUMENT };
            let seed = claims.verify(&parts, &secret, &claims.payload)?;
            self.first(&claims)?;
            let body = Body::new(body, Kind::of(&claims.payload, seed)?, limit);
            return Ok((Request { parts, caller, region, body }, Bytes::new()));
        }
        // Without its hash in a header the body must be here before the signature can be checked.
        let raw = Body::new(body, Kind::Unsigned, MAX_DOCUMENT).collect();
        let raw = tokio::time::timeout(DOCUMENT_TIME, raw).await.map_err(|_| BodyError::Slow)??;
        let hash = crate::sigv4::canonical::sha256(&raw);
        if claims.payload.len() == 64 && claims.payload != hash {
            return Err(Refusal::Denied(Denied::Mismatch));
        }
        let payload = if claims.payload.is_empty() { &hash } else { &claims.payload };
        claims.verify(&parts, &secret, payload)?;
        self.first(&claims)?;
        let raw = Bytes::from(raw);
        let body = Body::new(axum::body::Body::from(raw.clone()), Kind::Unsigned, MAX_DOCUMENT);
        Ok((Request { parts, caller, region, body }, raw))
    }

    /// Refuses what was taken already. After the signature was verified: only then it is worth remembering.
    fn first(&self, claims: &Claims) -> Result<(), Denied> {
        match claims.fingerprint() {
            Some((signature, unique)) if !self.seen.admits(signature, unique, now_ms() / 1000) => Err(Denied::Replayed),
            _ => Ok(()),
        }
    }

    async fn key_of(&self, claims: &Claims) -> Result<(Caller, String), Refusal> {
        let id = claims.access_key_id.clone();
        if let Some(token) = &claims.session_token {
            let session = self.fleet.session(token).await?.ok_or(Denied::BadToken)?;
            if session.access_key_id != id {
                return Err(Refusal::Denied(Denied::BadToken));
            }
            let caller = sessions::caller(self, &session).await?.ok_or(Denied::BadToken)?;
            return Ok((caller, session.secret));
        }
        let secret = self.fleet.store.access_key_secret(&id).await.map_err(FleetError::from)?;
        let secret = secret.ok_or(Denied::UnknownKey)?;
        Ok((Caller::Administrator { access_key_id: id }, secret))
    }
}

enum Refusal {
    Denied(Denied),
    Body(BodyError),
    Fleet(FleetError),
}
impl Refusal {
    fn answer(self, service: Service) -> Response {
        match self {
            Refusal::Denied(denied) => refuse(service, denied),
            Refusal::Body(BodyError::TooLarge) => {
                service.refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException", "the body is too large")
            }
            Refusal::Body(e) => service.refuse(StatusCode::BAD_REQUEST, "InvalidRequest", &e.to_string()),
            Refusal::Fleet(e) => {
                tracing::error!("cannot decide about a request: {e}");
                service.refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerException", "internal error")
            }
        }
    }
}
impl From<Denied> for Refusal {
    fn from(d: Denied) -> Self {
        Refusal::Denied(d)
    }
}
impl From<BodyError> for Refusal {
    fn from(e: BodyError) -> Self {
        Refusal::Body(e)
    }
}
impl From<FleetError> for Refusal {
    fn from(e: FleetError) -> Self {
        Refusal::Fleet(e)
    }
}

/// Refusals in the words that the tools know.
fn refuse(service: Service, denied: Denied) -> Response {
    // S3's words for two of them are others.
    let (code, message) = match denied {
        Denied::UnknownKey if service == Service::S3 => {
            ("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
        }
        Denied::BadToken if service == Service::S3 => {
            ("ExpiredToken", "The provided token has expired or is not one of this service's.")
        }
        Denied::Skewed if service == Service::S3 => {
            ("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
        }
        Denied::Expired if service == Service::S3 => ("AccessDenied", "Request has expired"),
        Denied::Missing => ("MissingAuthenticationTokenException", "Missing Authentication Token"),
        Denied::Malformed => ("IncompleteSignatureException", "The signature is not complete or not well formed"),
        Denied::UnknownKey => ("UnrecognizedClientException", "The security token included in the request is invalid."),
        Denied::BadToken => ("ExpiredTokenException", "The security token included in the request is invalid or expired"),
        Denied::Skewed => ("SignatureDoesNotMatch", "Signature not in time: the caller's clock is more than 15 minutes off"),
        Denied::Expired => ("AccessDeniedException", "Request has expired"),
        Denied::OtherVersion => (
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256 \
             (boto3: Config(signature_version='s3v4'); AWS CLI: aws configure set default.s3.signature_version s3v4).",
        ),
        Denied::Uncovered => ("SignatureDoesNotMatch", "There were headers present in the request which were not signed"),
        Denied::Replayed => ("SignatureDoesNotMatch", "This very request was taken already; every attempt is signed anew"),
        Denied::Mismatch => (
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. \
             Check your AWS Secret Access Key and signing method.",
        ),
    };
    service.refuse(StatusCode::FORBIDDEN, code, message)
}
