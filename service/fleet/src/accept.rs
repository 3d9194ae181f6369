//! One accept loop for every port: how many connections, the TLS handshake and its deadline, the stop.
//!
//! Handshakes have places of their own: whoever opens connections and says nothing fills those, for ten seconds each,
//! and not the places of clients that have shown who they are. When they are full, new connections wait in the
//! kernel's queue.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a TLS handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// TLS handshakes of one port at a time.
pub const HANDSHAKES: usize = 1024;

/// What a port is.
pub struct Port {
    /// For the log.
    pub name: &'static str,
    /// Connections at a time; more are refused.
    pub connections: usize,
    /// With TLS if there are settings for it.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// How long connections may take to end once the service stops.
    pub farewell: Duration,
}

/// A connection, its handshake done.
pub enum Accepted {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS. Boxed: the state of a session is large, and it moves through several hands.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Waits for the service to stop.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|s| *s).await.map(drop);
}

/// Accepts connections until `stop` turns true, then waits for their end, [`Port::farewell`] at most. `converse` is
/// called once for each, and is told of the stop by its own receiver.
pub async fn serve<C, F>(listener: TcpListener, port: Port, mut stop: watch::Receiver<bool>, converse: C)
where
    C: Fn(Accepted, SocketAddr, watch::Receiver<bool>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Port { name, connections, tls, farewell } = port;
    let acceptor = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(connections));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &handshakes) => accepted,
            () = stopped(&mut stop) => break,
        };
        let (shaking, (stream, peer)) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(port = name, "cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, places, converse, mut stop) = (acceptor.clone(), places.clone(), converse.clone(), stop.clone());
        tokio::spawn(async move {
            let accepted = match acceptor {
                None => Accepted::Plain(stream),
                Some(acceptor) => {
                    let shaken = tokio::select! {
                        // Boxed, so that what it needs is given back when it is done.
                        shaken = timeout(HANDSHAKE, Box::pin(shake(acceptor, stream))) => shaken,
                        () = stopped(&mut stop) => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => Accepted::Tls(Box::new(stream)),
                        Ok(Err(e)) => return tracing::info!(port = name, %peer, "TLS: {e}"),
                        Err(_) => return tracing::info!(port = name, %peer, "the TLS handshake took too long"),
                    }
                }
            };
            let Ok(place) = places.try_acquire_owned() else {
                return tracing::warn!(port = name, %peer, "connection refused: {connections} are open");
            };
            drop(shaking);
            converse(accepted, peer, stop).await;
            drop(place);
        });
    }
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    let _ = timeout(farewell, places.acquire_many(all)).await;
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// The handshake. Who speaks HTTP without TLS is told so, in a word that it reads.
async fn shake(acceptor: TlsAcceptor, mut stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    // A method begins with a letter, a handshake with 22.
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
        let text = "This port speaks TLS: use https://\n";
        let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n";
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).as_bytes()).await?;
        stream.shutdown().await?;
        return Err(std::io::Error::other("the client spoke HTTP without TLS"));
    }
    acceptor.accept(stream).await
}

async fn next(listener: &TcpListener, handshakes: &Arc<Semaphore>) -> std::io::Result<(Place, (TcpStream, SocketAddr))> {
    let place = handshakes.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    Ok((place, listener.accept().await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn open(connections: usize) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, stop) = watch::channel(false);
        let port = Port { name: "test", connections, tls: None, farewell: Duration::from_secs(30) };
        let served = tokio::spawn(serve(listener, port, stop, |accepted, _, mut stop| async move {
            let Accepted::Plain(mut stream) = accepted else { unreachable!("the port has no TLS") };
            stream.write_all(b"hello").await.unwrap();
            stopped(&mut stop).await;
        }));
        (address, sender, served)
    }

    #[tokio::test]
    async fn one_more_than_the_limit_is_refused() {
        let (address, stop, served) = open(1).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.read_exact(&mut [0; 5]).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        // A refused connection is closed, or reset.
        assert_eq!(second.read(&mut [0; 5]).await.unwrap_or(0), 0);
        stop.send(true).unwrap();
        served.await.unwrap();
        assert_eq!(first.read(&mut [0; 5]).await.unwrap_or(0), 0);
    }
}
