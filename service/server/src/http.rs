//! HTTP/1.1 on a plain or TLS port: one task per connection, graceful stop.

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use axum::routing::get;
use belvedere_api::Api;
use belvedere_api::device::{PeerCertificate, credentials};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

const HANDSHAKE: Duration = Duration::from_secs(30);
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
pub async fn serve(listener: TcpListener, router: Router, tls: Option<Arc<rustls::ServerConfig>>, mut stop: watch::Receiver<bool>) {
    let acceptor = tls.map(TlsAcceptor::from);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "connection refused: {MAX_CONNECTIONS} are open");
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (router, acceptor, stop) = (router.clone(), acceptor.clone(), stop.clone());
        tokio::spawn(async move {
            match acceptor {
                None => converse(stream, router, PeerCertificate(None), stop).await,
                Some(acceptor) => match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
                        let certificate = PeerCertificate(certificate.map(|c| Arc::from(c.as_ref())));
                        converse(stream, router, certificate, stop).await;
                    }
                    Ok(Err(e)) => tracing::info!(%peer, "TLS: {e}"),
                    Err(_) => tracing::info!(%peer, "TLS handshake took too long"),
                },
            }
            drop(slot);
        });
    }
    // Requests that are being answered get their answers.
    let _ = timeout(Duration::from_secs(10), slots.acquire_many(MAX_CONNECTIONS as u32)).await;
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

/// Waits for the service to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await.map(drop);
}
