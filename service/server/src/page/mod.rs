//! The page at `/`: devices, applications and packages as they are. Read-only, without scripts.
//!
//! Who may see it: whoever signs in with an administrator's access key (over TLS, or on the machine itself), or opens a link
//! that `belvedere-service page` printed. Either gives the browser a cookie: a sealed note of who signed in and until when,
//! so that no copy of the service remembers anything. It ends when the key is revoked.

pub mod overview;
pub mod session;
pub mod view;

use crate::ServerError;
use crate::configuration::Configuration;
use crate::serve::Listening;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_api::device::PeerAddress;
use belvedere_fleet::Fleet;
use belvedere_store::now_ms;
use session::{Attempts, Session, Transport};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const MAX_FORM: usize = 4096;
/// How long a form may take to be here.
const FORM_TIME: Duration = Duration::from_secs(10);
const COOKIE: &str = "belvedere_page";

/// Answers the page's requests. Cheap to clone.
#[derive(Clone)]
pub struct Page {
    fleet: Fleet,
    attempts: Arc<Attempts>,
}

/// A link that shows the page in a browser, for a while.
pub async fn link(data: &Path) -> Result<String, ServerError> {
    let configuration = Configuration::read(data)?;
    let store = configuration.attach_store(data).await?;
    let token = session::link(store.secrets(), now_ms());
    store.close().await;
    let listening = std::fs::read(data.join("endpoints.json")).ok();
    let listening: Option<Listening> = listening.and_then(|text| serde_json::from_slice(&text).ok());
    let listening = listening.ok_or_else(|| {
        ServerError::Argument("the service was not started yet; `belvedere-service serve` starts it".into())
    })?;
    Ok(format!("http://{}/?link={token}", listening.api))
}

/// Whether a request is the page's. What is signed is the API's, whatever its path.
pub fn wants(request: &Request<Body>) -> bool {
    let signed = request.headers().contains_key(header::AUTHORIZATION)
        || request
            .uri()
            .query()
            .is_some_and(|q| q.contains("X-Amz-") || q.contains("AWSAccessKeyId=") || q.contains("Action="))
        || request.headers().contains_key("x-amz-target");
    let form = matches!(request.uri().path(), "/sign-in" | "/sign-out") && request.method() == Method::POST;
    let read = request.uri().path() == "/" && matches!(*request.method(), Method::GET | Method::HEAD);
    !signed && (form || read)
}

impl Page {
    /// Of a fleet.
    pub fn new(fleet: Fleet) -> Page {
        Page { fleet, attempts: Arc::default() }
    }

    /// Answers a request that the page [`wants`].
    pub async fn answer(&self, request: Request<Body>) -> Response {
        let (parts, body) = request.into_parts();
        let transport = parts.extensions.get::<Transport>().copied().unwrap_or(Transport::Open);
        match parts.uri.path() {
            "/sign-in" => {
                let peer = parts.extensions.get::<PeerAddress>().and_then(|peer| peer.0);
                let source = peer.map_or_else(String::new, |peer| peer.ip().to_canonical().to_string());
                self.sign_in(&parts.headers, body, transport, source).await
            }
            "/sign-out" => to_page(Some(cookie("", 0, transport))),
            _ => self.root(&parts, transport).await,
        }
    }

    async fn root(&self, request: &Parts, transport: Transport) -> Response {
        let now = now_ms();
        if let Some(token) = query(request, "link") {
            return match session::of_link(self.fleet.store.secrets(), token, now) {
                Some(session) => self.begin(&session, transport, now),
                None => page(StatusCode::FORBIDDEN, view::sign_in(transport, Some("This link is over. Ask for a new one."))),
            };
        }
        match self.session(&request.headers, now).await {
            Some(_) => match overview::Overview::of(&self.fleet, now).await {
                Ok(overview) => page(StatusCode::OK, view::overview(&overview)),
                Err(e) => {
                    tracing::error!("cannot show the page: {e}");
                    page(StatusCode::SERVICE_UNAVAILABLE, view::trouble())
                }
            },
            None => page(StatusCode::OK, view::sign_in(transport, None)),
        }
    }

    /// Who is signed in, with a key that still works.
    async fn session(&self, headers: &HeaderMap, now: i64) -> Option<Session> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split("; "));
        let value = cookies.filter_map(|c| c.split_once('=')).find(|(name, _)| *name == COOKIE)?.1;
        let session = session::of_cookie(self.fleet.store.secrets(), value, now)?;
        match &session.access_key_id {
            Some(id) => self.fleet.store.access_key_secret(id).await.ok().flatten().map(|_| session),
            None => Some(session),
        }
    }

    fn begin(&self, session: &Session, transport: Transport, now: i64) -> Response {
        let value = session::cookie(self.fleet.store.secrets(), session);
        to_page(Some(cookie(&value, (session.until_ms - now).max(0) / 1000, transport)))
    }

    async fn sign_in(&self, headers: &HeaderMap, body: Body, transport: Transport, source: String) -> Response {
        let refuse = |status, text| page(status, view::sign_in(transport, Some(text)));
        if transport == Transport::Open {
            return refuse(StatusCode::FORBIDDEN, "Signing in needs https.");
        }
        // A form of another site must not sign anybody in.
        if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin") {
            return refuse(StatusCode::FORBIDDEN, "Sign in from this page.");
        }
        // A form that does not come would hold its connection's place for ever.
        let Ok(Ok(body)) = tokio::time::timeout(FORM_TIME, axum::body::to_bytes(body, MAX_FORM)).await else {
            return refuse(StatusCode::BAD_REQUEST, "That is not a key.");
        };
        let form = belvedere_api::sigv4::canonical::query_pairs(&String::from_utf8_lossy(&body).replace('+', "%20"));
        let field = |name: &[u8]| form.iter().find(|(n, _)| n == name).map_or(&b""[..], |(_, v)| v.trim_ascii());
        let id = String::from_utf8_lossy(field(b"access_key_id")).into_owned();
        let known = match self.fleet.store.access_key_secret(&id).await {
            Ok(known) => known,
            Err(e) => {
                tracing::error!("cannot look up an access key: {e}");
                return page(StatusCode::SERVICE_UNAVAILABLE, view::trouble());
            }
        };
        if !session::is_secret(known.as_deref(), field(b"secret_access_key")) {
            if !self.attempts.wrong(&source) {
                return refuse(StatusCode::TOO_MANY_REQUESTS, "Too many wrong attempts. Wait a minute.");
            }
            tracing::warn!(source, "somebody tried to sign in to the page with a wrong key");
            return refuse(StatusCode::FORBIDDEN, "There is no such key, or the secret is another.");
        }
        tracing::info!(access_key_id = id, "signed in to the page");
        let now = now_ms();
        self.begin(&Session::of_key(id, now), transport, now)
    }
}

fn query<'a>(request: &'a Parts, name: &str) -> Option<&'a str> {
    request.uri.query()?.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
}

fn cookie(value: &str, seconds: i64, transport: Transport) -> String {
    let secure = if transport == Transport::Tls { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

fn to_page(cookie: Option<String>) -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, "/")]).into_response();
    if let Some(value) = cookie.and_then(|c| c.parse().ok()) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    harden(response)
}

fn page(status: StatusCode, content: maud::Markup) -> Response {
    harden((status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], content.into_string()).into_response())
}

/// Nothing but the page's own style is loaded; nobody frames it, keeps it, or learns its address.
fn harden(mut response: Response) -> Response {
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        view::style_hash()
    );
    let fixed: [(HeaderName, String); 5] = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
        (header::X_FRAME_OPTIONS, "DENY".into()),
        (header::REFERRER_POLICY, "no-referrer".into()),
        (header::CACHE_CONTROL, "no-store".into()),
    ];
    for (name, value) in fixed {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_the_apis() {
        let of = |method: &str, uri: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            wants(&request.body(Body::empty()).unwrap())
        };
        assert!(of("GET", "/", &[]) && of("HEAD", "/", &[]) && of("GET", "/?link=x", &[]));
        assert!(of("POST", "/sign-in", &[]) && of("POST", "/sign-out", &[]));
        assert!(!of("GET", "/", &[("authorization", "AWS4-HMAC-SHA256 …")]), "aws s3 ls");
        assert!(!of("GET", "/?X-Amz-Signature=x", &[]), "presigned");
        assert!(!of("GET", "/?Action=GetCallerIdentity", &[]));
        assert!(!of("POST", "/", &[]) && !of("GET", "/sign-in", &[]), "a bucket's name");
        assert!(!of("GET", "/devices", &[]));
    }
}
