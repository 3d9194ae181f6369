//! HTTPS to the service: short-lived credentials, deployment documents, log events.

use crate::core::FetchError;
use crate::https;
use crate::logs::Batch;
use crate::sigv4::{Request, encode_path, sha256_hex, sign};
use crate::time::parse_iso8601;
use belvedere_device_protocol::Deployment;
use belvedere_device_protocol::credentials::{
    APPLIANCE_ROLE_ALIAS, Credentials, CredentialsReply, RELEASED_STATUS, ReleasedReply,
};
use belvedere_device_protocol::shadow::DeploymentReference;
use belvedere_interfaces::provisioning::Identity;
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A request from its beginning to the end of its answer.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// Of a deployment document.
const MAX_DOCUMENT: u64 = 8 << 20;
/// Of every other answer.
const MAX_ANSWER: u64 = 256 << 10;
/// Credentials are renewed so long before they end.
const RENEW_BEFORE: i64 = 300;

/// Why a request did not succeed. Never holds keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebError {
    /// No connection, or it broke.
    #[error("{what}: {problem}")]
    Network {
        /// What was asked.
        what: String,
        /// Library's words.
        problem: String,
    },
    /// The service answered that it will not.
    #[error("{what}: the service answered {status} {problem}")]
    Refused {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Error code or beginning of the answer.
        problem: String,
    },
    /// The service deleted this device: the appliance is free.
    #[error("{what}: the service has released this appliance")]
    Released {
        /// What was asked.
        what: String,
    },
    /// The answer cannot be used.
    #[error("{what}: {problem}")]
    Answer {
        /// What was asked.
        what: String,
        /// What is wrong.
        problem: String,
    },
}

/// Credentials with their end.
#[derive(Clone)]
pub struct Access {
    /// The keys.
    pub credentials: Credentials,
    /// Seconds since 1970.
    pub expires: i64,
}

/// One identity's HTTPS.
pub struct Web {
    agent: ureq::Agent,
    base: String,
    host: String,
    region: String,
    thing: String,
    access: Option<Access>,
    released: bool,
}

impl Web {
    /// Nothing is connected yet.
    pub fn new(identity: &Identity, tls: Arc<ClientConfig>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIME))
            .http_status_as_error(false)
            .https_only(true)
            .proxy(None)
            .max_redirects(0)
            .build();
        let agent = https::agent(config, tls);
        let endpoint = &identity.endpoints.https;
        let host = if endpoint.port == 443 { endpoint.host.clone() } else { format!("{}:{}", endpoint.host, endpoint.port) };
        Self {
            agent,
            base: format!("https://{}:{}", endpoint.host, endpoint.port),
            host,
            region: identity.endpoints.region.clone(),
            thing: identity.thing_name.clone(),
            access: None,
            released: false,
        }
    }

    /// Keys that are good for a while, asked for anew when the old ones are about to end.
    pub fn access(&mut self, now: i64) -> Result<Access, WebError> {
        if let Some(access) = &self.access
            && now < access.expires - RENEW_BEFORE
        {
            return Ok(access.clone());
        }
        let what = "ask for credentials";
        let url = format!("{}/role-aliases/{APPLIANCE_ROLE_ALIAS}/credentials", self.base);
        let response = self.agent.get(&url).header("x-amzn-iot-thingname", &self.thing).call();
        let answered = read(what, response, MAX_ANSWER)?;
        if answered.status == RELEASED_STATUS
            && let Ok(reply) = serde_json::from_slice::<ReleasedReply>(&answered.body)
            && reply.release.thing_name == self.thing
        {
            self.released = true;
            return Err(WebError::Released { what: what.into() });
        }
        let body = answered.success(what)?;
        let reply: CredentialsReply = serde_json::from_slice(&body)
            .map_err(|_| WebError::Answer { what: what.into(), problem: "the answer holds no credentials".into() })?;
        let expires = parse_iso8601(&reply.credentials.expiration)
            .ok_or_else(|| WebError::Answer { what: what.into(), problem: "the credentials' end is not a time".into() })?;
        let access = Access { credentials: reply.credentials, expires };
        self.access = Some(access.clone());
        Ok(access)
    }

    /// Asks the service anew whether it stands by this device; `true`: it has released the appliance.
    pub fn is_released(&mut self, now: i64) -> bool {
        self.access = None;
        matches!(self.access(now), Err(WebError::Released { .. }))
    }

    /// Whether the service said with some request that it has released the appliance.
    pub fn heard_of_release(&self) -> bool {
        self.released
    }

    /// When the credentials should be renewed, seconds since 1970.
    pub fn renew_at(&self) -> Option<i64> {
        self.access.as_ref().map(|access| access.expires - RENEW_BEFORE)
    }

    /// `https://host:port` of the object store.
    pub fn endpoint(&self) -> &str {
        &self.base
    }

    /// Brings a deployment document and checks it against its digest.
    pub fn deployment(&mut self, reference: &DeploymentReference, now: i64) -> Result<Box<Deployment>, FetchError> {
        let what = "get the deployment document";
        let access = self.access(now).map_err(|error| FetchError::Temporary(error.to_string()))?;
        let path = format!("/{}/{}", reference.bucket, reference.key);
        let request = Request {
            method: "GET",
            host: &self.host,
            path: &path,
            headers: &[],
            body: b"",
            service: "s3",
            region: &self.region,
        };
        let mut call = self.agent.get(format!("{}{}", self.base, encode_path(&path)));
        for (name, value) in sign(&request, &access.credentials, now) {
            call = call.header(name, value);
        }
        let body = match answer(what, call.call(), MAX_DOCUMENT) {
            Ok(body) => body,
            Err(WebError::Refused { status: 404, .. }) => {
                return Err(FetchError::Permanent("the service has no deployment document".into()));
            }
            Err(error) => {
                // Keys may have been taken back: new ones with the next attempt.
                if matches!(error, WebError::Refused { status: 403, .. }) {
                    self.access = None;
                }
                return Err(FetchError::Temporary(error.to_string()));
            }
        };
        if sha256_hex(&body) != reference.sha256.to_ascii_lowercase() {
            return Err(FetchError::Permanent("the deployment document is not the one that its digest says".into()));
        }
        serde_json::from_slice(&body).map(Box::new).map_err(|error| {
            // Of the error only the place: a document holds cameras' passwords.
            let place = format!("line {}, column {}", error.line(), error.column());
            FetchError::Permanent(format!(
                "the deployment document cannot be read ({place}); update the appliance's software"
            ))
        })
    }

    /// Sends log events; makes group and stream when they do not exist.
    pub fn put_log_events(&mut self, batch: &Batch, now: i64) -> Result<(), WebError> {
        match self.logs("PutLogEvents", &batch.body(), now) {
            Err(WebError::Refused { problem, .. }) if problem.contains("ResourceNotFoundException") => {}
            other => return other,
        }
        let group = json!({ "logGroupName": batch.group });
        let stream = json!({ "logGroupName": batch.group, "logStreamName": batch.stream });
        for (operation, body) in [("CreateLogGroup", group), ("CreateLogStream", stream)] {
            match self.logs(operation, &body, now) {
                Err(WebError::Refused { problem, .. }) if problem.contains("ResourceAlreadyExistsException") => {}
                other => other?,
            }
        }
        self.logs("PutLogEvents", &batch.body(), now)
    }

    fn logs(&mut self, operation: &str, body: &Value, now: i64) -> Result<(), WebError> {
        let access = self.access(now)?;
        let body = body.to_string();
        let target = format!("Logs_20140328.{operation}");
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
        let request = Request {
            method: "POST",
            host: &self.host,
            path: "/",
            headers: &headers,
            body: body.as_bytes(),
            service: "logs",
            region: &self.region,
        };
        let mut call = self.agent.post(format!("{}/", self.base));
        for (name, value) in headers {
            call = call.header(name, value);
        }
        for (name, value) in sign(&request, &access.credentials, now) {
            call = call.header(name, value);
        }
        let result = answer(operation, call.send(body.as_bytes()), MAX_ANSWER).map(drop);
        if matches!(&result, Err(WebError::Refused { status: 401 | 403, .. })) {
            self.access = None;
        }
        result
    }
}

struct Answered {
    status: u16,
    kind: Option<String>,
    body: Vec<u8>,
}

impl Answered {
    fn success(self, what: &str) -> Result<Vec<u8>, WebError> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let text: String = String::from_utf8_lossy(&self.body).chars().filter(|c| !c.is_control()).take(200).collect();
        Err(WebError::Refused {
            what: what.into(),
            status: self.status,
            problem: format!("{} {text}", self.kind.unwrap_or_default()).trim().into(),
        })
    }
}

fn read(
    what: &str,
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    limit: u64,
) -> Result<Answered, WebError> {
    let network = |error: ureq::Error| WebError::Network { what: what.into(), problem: error.to_string() };
    let mut response = response.map_err(network)?;
    let status = response.status().as_u16();
    let kind = response.headers().get("x-amzn-errortype").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = response.body_mut().with_config().limit(limit).read_to_vec().map_err(network)?;
    Ok(Answered { status, kind, body })
}

fn answer(
    what: &str,
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    limit: u64,
) -> Result<Vec<u8>, WebError> {
    read(what, response, limit)?.success(what)
}
