//! HTTP/1.1 on a plain or TLS port: one task per connection, graceful stop.

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use axum::routing::get;
use belvedere_api::Api;
use belvedere_api::device::{PeerCertificate, credentials};
use belvedere_fleet::accept::{self, Accepted, Port, stopped};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

const HEADER: Duration = Duration::from_secs(60);
const MAX_CONNECTIONS: usize = 1024;

/// Everything that is answered. What is not ours by path is the API's by signature.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/role-aliases/{alias}/credentials", get(role_credentials))
        .fallback(signed)
        .layer(DefaultBodyLimit::disable()) // the API bounds bodies itself: objects are large
        .with_state(api)
}

async fn role_credentials(
    State(api): State<Api>,
    Path(alias): Path<String>,
    Extension(peer): Extension<PeerCertificate>,
    headers: HeaderMap,
) -> Response {
    credentials(&api, &alias, &peer, &headers).await
}

async fn signed(State(api): State<Api>, request: Request<Body>) -> Result<Response, StatusCode> {
    Ok(api.answer(request).await)
}

/// Accepts connections until `stop` turns true; with TLS if there are settings for it.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<Arc<rustls::ServerConfig>>, stop: watch::Receiver<bool>) {
    // Requests that are being answered get their answers.
    let port = Port { name: "http", connections: MAX_CONNECTIONS, tls, farewell: Duration::from_secs(10) };
    let answer = move |accepted, _, stop| answer(accepted, router.clone(), stop);
    accept::serve(listener, port, stop, answer).await;
}

/// One connection.
pub async fn answer(accepted: Accepted, router: Router, stop: watch::Receiver<bool>) {
    match accepted {
        Accepted::Plain(stream) => converse(stream, router, PeerCertificate(None), stop).await,
        Accepted::Tls(stream) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
            let certificate = PeerCertificate(certificate.map(|c| Arc::from(c.as_ref())));
            converse(*stream, router, certificate, stop).await;
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
