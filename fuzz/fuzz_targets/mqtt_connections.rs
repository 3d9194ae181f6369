//! What anybody with a device's certificate sends to the broker: CONNECT and what follows, in pieces of any size. It goes
//! through a connection's own `Link`; packets are looked at as the broker looks at them. Nothing may panic, nothing larger
//! than allowed may come out, and there is an end.
#![no_main]

use belvedere_fleet::broker::MAX_PACKET;
use belvedere_fleet::identity::Identity;
use belvedere_fleet::link::{Link, Will};
use belvedere_fleet::message::{carried, expiry};
use belvedere_fleet::topics::{may_subscribe, publication};
use belvedere_store::certificates::CertificateKind;
use libfuzzer_sys::fuzz_target;
use mqtt_protocol_core::mqtt::packet::{Packet, Property};
use std::cell::LazyCell;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;

/// A client that sends its bytes in pieces, closes, and reads all that it is told.
struct Client<'a> {
    pieces: std::slice::Chunks<'a, u8>,
}

impl AsyncRead for Client<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        // A piece has 255 bytes at most, and the link reads more at a time.
        if let Some(piece) = self.pieces.next() {
            buffer.put_slice(piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A publication or a will.
fn published(identity: &Identity, topic: &str, payload: &[u8], properties: &[Property]) {
    assert!(topic.len() + payload.len() <= MAX_PACKET as usize, "larger than a packet");
    publication(identity, topic);
    assert!(carried(properties).len() <= properties.len());
    expiry(properties, 1_795_000_000_000);
}

/// A packet, as a connection's handler looks at it.
fn handle(identity: &Identity, packet: &Packet) {
    match packet {
        Packet::V3_1_1Publish(p) => published(identity, p.topic_name(), p.payload().as_slice(), &[]),
        Packet::V5_0Publish(p) => published(identity, p.topic_name(), p.payload().as_slice(), p.props()),
        Packet::V3_1_1Subscribe(s) => s.entries().iter().for_each(|e| _ = may_subscribe(identity, e.topic_filter())),
        Packet::V5_0Subscribe(s) => s.entries().iter().for_each(|e| _ = may_subscribe(identity, e.topic_filter())),
        _ => {}
    }
}

async fn converse(client: Client<'_>, sent: usize) {
    let mut link = Link::new(client);
    let Ok((hello, early)) = link.hello().await else { return };
    let device_id = hello.client_id.clone();
    let identity =
        Identity { name: device_id.clone(), device_id, fingerprint: String::new(), kind: CertificateKind::Device };
    if let Some(Will { message, .. }) = &hello.will {
        published(&identity, &message.topic, &message.payload, &message.properties);
    }
    let mut packets = early;
    let mut count = 1;
    if link.welcome(&hello, false).await.is_err() {
        return;
    }
    loop {
        count += packets.len();
        assert!(2 * count <= sent, "a packet has two bytes at least");
        packets.iter().for_each(|packet| handle(&identity, packet));
        match link.read().await {
            Ok(bytes) if !bytes.is_empty() => match link.take(&bytes).await {
                Ok(next) => packets = next,
                Err(_) => return,
            },
            _ => return,
        }
    }
}

thread_local! {
    static RUNTIME: LazyCell<Runtime> =
        LazyCell::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"));
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let client = Client { pieces: bytes.chunks(usize::from(size).max(1)) };
    RUNTIME.with(|runtime| runtime.block_on(converse(client, bytes.len())));
});
