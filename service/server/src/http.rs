//! HTTP/1.1 on a plain or TLS port: one task per connection, graceful stop.

use crate::health::Health;
use crate::metrics::{self, Metrics};
use crate::page::session::Transport;
use crate::page::{self, Page};
use crate::places::Places;
use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Router, middleware};
use belvedere_api::Api;
use belvedere_api::device::{PeerAddress, PeerCertificate, credentials};
use belvedere_fleet::accept::{self, Accepted, Port, stopped};
use belvedere_fleet::panics::caught;
use belvedere_fleet::tls::MQTT;
use belvedere_fleet::{Fleet, broker};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

const HEADER: Duration = Duration::from_secs(60);
const MAX_CONNECTIONS: usize = 1024;

/// Everything that is answered on the ports for people and devices. What is not ours by path is the API's by signature.
pub fn router(api: Api, health: Health, metrics: Metrics) -> Router {
    let page = Page::new(api.fleet.clone());
    Router::new()
        .route("/healthz", healthz(health))
        .route("/role-aliases/{alias}/credentials", get(role_credentials))
        .fallback(move |State(api): State<Api>, request: Request<Body>| {
            let page = page.clone();
            async move {
                match page::wants(&request) {
                    true => page.answer(request).await,
                    false => api.answer(request).await,
                }
            }
        })
        .layer(DefaultBodyLimit::disable()) // the API bounds bodies itself: objects are large
        .layer(middleware::from_fn_with_state(metrics, metrics::observe))
        .layer(middleware::from_fn(close_what_was_not_continued))
        .layer(middleware::from_fn(answer_a_panic))
        .with_state(api)
}

/// Who expects to be told to continue and has nothing to send is answered at once, without being told. botocore then
/// gives that answer's status to the next request on the connection, too, and waits a minute for the rest of it: the
/// connection ends here instead.
async fn close_what_was_not_continued(request: Request<Body>, next: Next) -> Response {
    let expects = request.headers().contains_key(EXPECT) && request.body().is_end_stream();
    let mut response = next.run(request).await;
    if expects {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Service D4: a panic in a request's handler is that request's 500; its connection and all others go on. (The API's
/// requests, which have tasks of their own, are answered by [`Api::answer`] already.)
async fn answer_a_panic(request: Request<Body>, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    caught(next.run(request)).await.unwrap_or_else(|panicked| {
        tracing::error!(%method, path, "cannot answer a request: {panicked}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

/// What is answered on the port for Prometheus.
pub fn metrics_router(fleet: Fleet, health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(metrics::answer))
        .route("/healthz", healthz(health))
        .layer(middleware::from_fn(answer_a_panic))
        .with_state((metrics, fleet))
}

fn healthz<S: Clone + Send + Sync + 'static>(health: Health) -> MethodRouter<S> {
    get(move || {
        let health = health.clone();
        async move { health.answer().await }
    })
}

async fn role_credentials(
    State(api): State<Api>,
    Path(alias): Path<String>,
    Extension(peer): Extension<PeerCertificate>,
    Extension(address): Extension<PeerAddress>,
    headers: HeaderMap,
) -> Response {
    credentials(&api, &alias, &peer, &address, &headers).await
}

/// Accepts connections until `stop` turns true; with TLS if there are settings for it. Requests that are being answered
/// then get their answers, within `farewell`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    farewell: Duration,
    stop: watch::Receiver<bool>,
) {
    let port = Port { name: "http", connections: MAX_CONNECTIONS, tls, farewell };
    let places = Places::new(MAX_CONNECTIONS);
    let converse = move |accepted, peer: SocketAddr, stop| {
        let (router, places) = (router.clone(), places.clone());
        async move {
            match places.take(peer.ip()) {
                Some(_place) => answer(accepted, peer, router, stop).await,
                None => full(peer),
            }
        }
    };
    accept::serve(listener, port, stop, converse).await;
}

/// Answers HTTPS and, to clients that ask for it by ALPN, MQTT, until `stop` turns true. Each of the two has its own
/// limit of connections.
pub async fn serve_with_mqtt(
    listener: TcpListener,
    router: Router,
    fleet: Fleet,
    tls: Arc<rustls::ServerConfig>,
    farewell: Duration,
    stop: watch::Receiver<bool>,
) {
    let connections = MAX_CONNECTIONS + broker::MAX_CONNECTIONS;
    let port = Port { name: "https", connections, tls: Some(tls), farewell };
    let places = Places::new(MAX_CONNECTIONS);
    let converse = move |accepted, peer: SocketAddr, stop| {
        let (router, fleet, places) = (router.clone(), fleet.clone(), places.clone());
        async move {
            match accepted {
                Accepted::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(MQTT) => {
                    broker::converse(stream, peer, fleet, stop).await;
                }
                accepted => match places.take(peer.ip()) {
                    Some(_place) => answer(accepted, peer, router, stop).await,
                    None => full(peer),
                },
            }
        }
    };
    accept::serve(listener, port, stop, converse).await;
}

fn full(peer: SocketAddr) {
    tracing::warn!(%peer, "HTTP connection refused: this address has too many, or all {MAX_CONNECTIONS} are open");
}

/// One connection.
pub async fn answer(accepted: Accepted, peer: SocketAddr, router: Router, stop: watch::Receiver<bool>) {
    match accepted {
        Accepted::Plain(stream) => {
            let transport = if peer.ip().to_canonical().is_loopback() { Transport::Loopback } else { Transport::Open };
            converse(
                stream,
                router.layer(Extension(transport)).layer(Extension(PeerAddress(Some(peer)))),
                PeerCertificate(None),
                stop,
            )
            .await;
        }
        Accepted::Tls(stream) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
            let certificate = PeerCertificate(certificate.map(|c| Arc::from(c.as_ref())));
            converse(
                *stream,
                router.layer(Extension(Transport::Tls)).layer(Extension(PeerAddress(Some(peer)))),
                certificate,
                stop,
            )
            .await;
        }
    }
}

async fn converse<S>(stream: S, router: Router, peer: PeerCertificate, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        outcome = connection.as_mut() => {
            if let Err(e) = outcome {
                tracing::debug!("connection ended: {e}");
            }
            return;
        }
        () = stopped(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
