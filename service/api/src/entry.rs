//! The front door: every signed request comes through here.

use crate::access::calls::asking;
use crate::access::{authorise, sessions};
use crate::answered::Answered;
use crate::audit::Record;
use crate::bodies::{Full, Held};
use crate::caller::Caller;
use crate::device::PeerAddress;
use crate::input::Input;
use crate::query::{self, QueryError};
use crate::sigv4::body::{Body, BodyError, Kind};
use crate::sigv4::claims::{Claims, Denied};
use crate::unknown;
use crate::{Api, cloudformation, cloudwatch, cloudwatch_logs, iam, iot_data, panorama, s3, secrets_manager, sns, sts};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use belvedere_fleet::FleetError;
use belvedere_fleet::panics::caught;
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
    /// Its body; of all but S3 it was read already.
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
    /// without its entry in the audit log. A panic is answered with 500, and has its entry, too.
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
        let routed = caught(self.route(parts, body, &mut record)).await;
        let mut response = routed.unwrap_or_else(|panicked| {
            tracing::error!(%method, path, id, "cannot answer a request: {panicked}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        });
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
            Err(Denied::Missing) => return unknown::unsigned(&parts),
            Err(denied) => return refuse(Service::Panorama, denied),
        };
        record.access_key_id = claims.access_key_id.clone();
        record.action = format!("{}:unverified", claims.scope.service);
        record.resource = parts.uri.path().to_owned();
        let Some(service) = Service::of(&claims.scope.service, &parts) else {
            return unknown::service(&claims.scope.service, &parts);
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
        let (request, raw, held) = match self.verified(service, claims, parts, body).await {
            Ok(verified) => verified,
            Err(refusal) => return refusal.answer(service, &self.fleet.settings.region),
        };
        record.caller = Some(request.caller.clone());
        // What is read here is asked about and carried out: nothing looks at the body again.
        let input = match Input::read(self, service, &request.parts, raw, &held) {
            Ok(input) => input,
            Err(full) => return Refusal::from(full).answer(service, &self.fleet.settings.region),
        };
        let decided = match asking(self, &request.parts, &input).await {
            Ok(asking) => {
                record.action = match asking.action.is_empty() {
                    true => format!("{}:unknown", service.name()),
                    false => asking.action,
                };
                if let Some(first) = asking.questions.first() {
                    record.resource = first.resource.to_string();
                }
                authorise(self, &request.caller, &asking.questions).await
            }
            Err(e) => Err(FleetError::from(e)),
        };
        let response = match decided {
            Ok(Ok(())) => input.carry_out(self, request).await,
            Ok(Err(forbidden)) => service.refuse(StatusCode::FORBIDDEN, service.forbidden(), &forbidden.message),
            Err(e) => Refusal::Fleet(e).answer(service, &self.fleet.settings.region),
        };
        drop(held);
        response
    }

    /// Who signed the request, and what it says. Only what is signed rightly is ever held against anybody's policy, and the
    /// signature's own words (date, region, service) go nowhere from here.
    async fn verified(
        &self,
        service: Service,
        claims: Claims,
        parts: Parts,
        body: axum::body::Body,
    ) -> Result<(Request, Vec<u8>, Held), Refusal> {
        claims.timely(now_ms() / 1000)?;
        self.in_region(service, &claims)?;
        let held = self.bodies.of(&parts.extensions.get::<PeerAddress>().cloned().unwrap_or_default());
        let (caller, secret) = self.key_of(&claims).await?;
        if service == Service::S3 {
            // Objects are large: the body is checked while it is taken in.
            let target = s3::operation::Target::of(&parts).ok();
            let large = target.and_then(|t| s3::operation::Operation::of(&parts, &t)).is_some_and(|o| o.is_large());
            let limit = if large { MAX_OBJECT } else { MAX_DOCUMENT };
            let seed = claims.verify(&parts, &secret, &claims.payload)?;
            self.first(&claims)?;
            held.signed_by(&caller.origin())?;
            let body = Body::new(body, Kind::of(&claims.payload, seed)?, limit, held.clone());
            return Ok((Request { parts, caller, body }, Vec::new(), held));
        }
        let said = parts.headers.get("x-amz-content-sha256").map(|value| value.to_str().unwrap_or("").to_owned());
        let raw = match said {
            // The header is signed: whether the signature is right is known before a byte of the body is taken.
            Some(hash) => {
                let seed = claims.verify(&parts, &secret, &hash)?;
                held.signed_by(&caller.origin())?;
                match Kind::of(&hash, seed) {
                    Ok(kind @ Kind::Whole(_)) => self.document(body, kind, &held).await,
                    _ => Err(BodyError::Unsupported),
                }
            }
            // Without it the body must be here first. That is bounded for each address and for all together.
            None => {
                let raw = self.document(body, Kind::Unsigned, &held).await?;
                claims.verify(&parts, &secret, &crate::sigv4::canonical::sha256(&raw))?;
                held.signed_by(&caller.origin())?;
                Ok(raw)
            }
        };
        let raw = match raw {
            Err(BodyError::Mismatch) => return Err(Refusal::Denied(Denied::Mismatch)),
            raw => raw?,
        };
        self.first(&claims)?;
        let body = Body::new(axum::body::Body::empty(), Kind::Unsigned, 0, held.clone());
        Ok((Request { parts, caller, body }, raw, held))
    }

    /// A body that is small enough to be taken whole.
    async fn document(&self, body: axum::body::Body, kind: Kind, held: &Held) -> Result<Vec<u8>, BodyError> {
        let raw = Body::new(body, kind, MAX_DOCUMENT, held.clone()).collect();
        tokio::time::timeout(DOCUMENT_TIME, raw).await.map_err(|_| BodyError::Slow)?
    }

    /// There is one region. Tools sign for the one that they are told, except for S3: without any they say us-east-1.
    fn in_region(&self, service: Service, claims: &Claims) -> Result<(), Refusal> {
        let region = claims.scope.region.as_str();
        match region == self.fleet.settings.region || service == Service::S3 && region == "us-east-1" {
            true => Ok(()),
            false => Err(Refusal::Region(region.to_owned())),
        }
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
    /// It was signed for another region.
    Region(String),
    Body(BodyError),
    Fleet(FleetError),
}
impl Refusal {
    fn answer(self, service: Service, here: &str) -> Response {
        match self {
            Refusal::Denied(denied) => refuse(service, denied),
            // As S3 says it, so that its tools learn the region.
            Refusal::Region(given) if service == Service::S3 => {
                let message =
                    format!("The authorization header is malformed; the region '{given}' is wrong; expecting '{here}'");
                let mut response = service.refuse(StatusCode::BAD_REQUEST, "AuthorizationHeaderMalformed", &message);
                if let Ok(here) = HeaderValue::from_str(here) {
                    response.headers_mut().insert("x-amz-bucket-region", here);
                }
                response
            }
            Refusal::Region(given) => {
                let message = format!(
                    "Credential should be scoped to a valid region, not '{given}': this service's region is {here} \
                     (AWS_DEFAULT_REGION={here})"
                );
                service.refuse(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", &message)
            }
            Refusal::Body(BodyError::Busy) => {
                let mut response = service.refuse(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "ServiceUnavailable",
                    "too many requests are being read; ask again in a second",
                );
                response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
                response
            }
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
impl From<Full> for Refusal {
    fn from(_: Full) -> Self {
        Refusal::Body(BodyError::Busy)
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
