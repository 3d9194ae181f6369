use super::*;
use crate::authority::Authority;
use crate::identity::claim_name;
use crate::provisioning::NewAppliance;
use crate::{Settings, endpoint, endpoints};
use belvedere_device_protocol::provisioning::{TEMPLATE, register_thing_topic};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};

fn peer() -> SocketAddr {
    "192.0.2.1:1".parse().unwrap()
}

/// Reads until this is among what came; false if the connection ends before.
async fn hears(stream: &mut tokio::io::DuplexStream, heard: &mut Vec<u8>, wanted: &[u8]) -> bool {
    while !heard.windows(wanted.len()).any(|part| part == wanted) {
        let read = timeout(Duration::from_secs(30), stream.read_buf(heard)).await;
        if read.expect("something comes within 30 s").unwrap() == 0 {
            return false;
        }
    }
    true
}

/// A fleet with a device.
async fn fleet_of_one() -> (tempfile::TempDir, Fleet, String) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        account: "123456789012".into(),
        region: "us-east-1".into(),
        bucket: "bucket".into(),
        endpoints: endpoints(endpoint("localhost", 8883), endpoint("localhost", 443), "us-east-1"),
    };
    let store = belvedere_store::Store::create(folder.path()).await.unwrap();
    let fleet = Fleet::new(store, settings, Arc::new(Authority::for_tests()));
    fleet.store.join_copies(&Default::default()).await.unwrap();
    let tags = Default::default();
    let new = NewAppliance { name: "x", description: None, tags: &tags, networking: None, network: Default::default() };
    let device_id = fleet.provision_device(new).await.unwrap().device_id;
    (folder, fleet, device_id)
}

/// A stream in which a fault of ours shows when certain bytes come.
struct Broken(tokio::io::DuplexStream);

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        assert!(!buffer.filled().ends_with(b"break"), "as a fault of ours would");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Service D4: a panic ends its connection, as any other end does: nobody takes the device for connected, its will is
/// published, and it can come again.
#[tokio::test]
async fn a_panic_ends_its_connection_alone_and_in_order() {
    let (_folder, fleet, device_id) = fleet_of_one().await;
    let thing = fleet.store.list_devices().await.unwrap().remove(0).thing_name;
    let string = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    let topic = format!("panorama/{thing}/gone");
    // CONNECT with a clean session and a will that is retained.
    let body = [string("MQTT"), vec![4, 0x26, 0, 60], string(&thing), string(&topic), string("it is gone")].concat();
    let connect = [&[0x10, u8::try_from(body.len()).unwrap()][..], &body].concat();
    let (_go_on, stop) = watch::channel(false);
    for round in 0..2 {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let identity = Identity {
            name: thing.clone(),
            device_id: device_id.clone(),
            fingerprint: "0".repeat(64),
            kind: CertificateKind::Device,
        };
        let (served, mut link, stop) = (fleet.clone(), Link::new(Broken(server)), stop.clone());
        let serving =
            tokio::spawn(
                async move { connection(&mut link, &served, identity, peer(), stop).await.err().map(|end| end.reason) },
            );
        client.write_all(&connect).await.unwrap();
        assert!(hears(&mut client, &mut Vec::new(), &[0x20, 2, 0, 0]).await, "CONNACK, round {round}");
        assert!(fleet.hub().connected(&thing));
        assert_eq!(fleet.store.device_counts().await.unwrap(), (1, 1), "connected, of all");
        client.write_all(b"break").await.unwrap();
        let reason = serving.await.expect("the connection's end is in order").unwrap();
        assert!(reason.contains("as a fault of ours would"), "{reason}");
        assert!(!fleet.hub().connected(&thing));
        assert_eq!(fleet.store.device_counts().await.unwrap(), (0, 1), "connected, of all");
        let retained = fleet.store.retained_mqtt_messages(&thing).await.unwrap();
        assert_eq!(retained.iter().map(|r| r.topic.as_str()).collect::<Vec<_>>(), [topic.as_str()]);
        fleet.store.forget_retained_mqtt_message(&topic).await.unwrap();
    }
}

/// RegisterThing uses its claim up, and a claim that is used up has its connection cut: in whatever order the connection
/// learns of both, the device learns what it was given.
#[tokio::test]
async fn the_answer_that_uses_a_claim_up_comes_before_the_cut() {
    let (_folder, fleet, device_id) = fleet_of_one().await;
    let name = claim_name(&device_id);
    let identity = Identity { name: name.clone(), device_id, fingerprint: "0".repeat(64), kind: CertificateKind::Claim };
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let (_go_on, stop) = watch::channel(false);
    let (served, mut link) = (fleet.clone(), Link::new(server));
    let serving =
        tokio::spawn(
            async move { connection(&mut link, &served, identity, peer(), stop).await.err().map(|end| end.reason) },
        );

    // MQTT 3.1.1: CONNECT with a clean session, then SUBSCRIBE with quality 0.
    let topic = format!("{}/accepted", register_thing_topic(TEMPLATE));
    let string = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    let packet = |first: u8, body: Vec<u8>| [&[first, u8::try_from(body.len()).unwrap()][..], &body].concat();
    let mut heard = Vec::new();
    let connect = packet(0x10, [string("MQTT"), vec![4, 2, 0, 60], string(&name)].concat());
    client.write_all(&connect).await.unwrap();
    assert!(hears(&mut client, &mut heard, &[0x20, 2, 0, 0]).await, "CONNACK");
    client.write_all(&packet(0x82, [vec![0, 1], string(&topic), vec![0]].concat())).await.unwrap();
    assert!(hears(&mut client, &mut heard, &[0x90, 3, 0, 1, 0]).await, "SUBACK");

    // The connection waits; nothing lets it go on between these two.
    fleet.hub().disconnect(&name);
    fleet.publish_to(&name, Message::new(topic, b"what it was given".as_slice()));
    assert!(hears(&mut client, &mut heard, b"what it was given").await, "cut without the answer");
    assert_eq!(serving.await.unwrap().as_deref(), Some("its certificate does not stand any more"));
}

/// Sends this as the first bytes of a connection; what comes back until it closes.
async fn answered(first: &[&[u8]]) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut link = Link::new(server);
    let serving = tokio::spawn(async move { link.hello().await.err().map(|end| end.reason) });
    for part in first {
        client.write_all(part).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut heard = Vec::new();
    timeout(Duration::from_secs(5), client.read_to_end(&mut heard)).await.expect("it closes").unwrap();
    assert!(serving.await.unwrap().is_some());
    heard
}

/// [MQTT-3.1.2-2]: a level that is not served is answered with return code 1, then the connection closes.
#[tokio::test]
async fn a_level_of_mqtt_that_is_not_served_is_told_so() {
    let connect = |name: &[u8], level: u8| {
        let body = [&[0, name.len() as u8][..], name, &[level, 2, 0, 60, 0, 1, b'x']].concat();
        [&[0x10, body.len() as u8][..], &body].concat()
    };
    for level in [0, 1, 2, 3, 6, 99, 0x83, 255] {
        assert_eq!(answered(&[&connect(b"MQTT", level)]).await, [0x20, 2, 0, 1], "{level}");
    }
    let split = connect(b"MQTT", 6);
    assert_eq!(answered(&[&split[..3], &split[3..9], &split[9..]]).await, [0x20, 2, 0, 1]);
    assert_eq!(answered(&[&connect(b"MQIsdp", 3)]).await, b"", "another protocol: closed without a word");
}

/// [MQTT-3.1.2-3] and [MQTT-3.1.2-14]: the reserved flag, and a will of a quality that there is not.
#[tokio::test]
async fn flags_that_cannot_be_end_the_connection() {
    for flags in [3, 0x1e, 0x3e, 0xff] {
        let will: &[u8] = if flags & 4 != 0 { &[0, 1, b't', 0, 1, b'p', 0, 1, b'u', 0, 1, b'p'] } else { &[] };
        let will = if flags & 0xc0 != 0 || will.is_empty() { will } else { &will[..6] };
        let body = [b"\0\x04MQTT".as_slice(), &[4, flags, 0, 60, 0, 1, b'x'], will].concat();
        let connect = [&[0x10, body.len() as u8][..], &body].concat();
        assert_eq!(answered(&[&connect]).await, b"", "{flags:#x}");
        assert_eq!(answered(&[&connect[..9], &connect[9..]]).await, b"", "{flags:#x}");
    }
}

/// [MQTT-3.1.3-8] and [MQTT-3.1.3-9]: a name that is not the certificate's, none among them, has a return code of its own.
#[tokio::test]
async fn a_client_identifier_that_is_refused_is_told_so() {
    let (_folder, fleet, device_id) = fleet_of_one().await;
    let name = claim_name(&device_id);
    for (wrong, flags) in [("", 0), ("", 2), ("another", 2)] {
        let identity = Identity {
            name: name.clone(),
            device_id: device_id.clone(),
            fingerprint: "0".repeat(64),
            kind: CertificateKind::Claim,
        };
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (_go_on, stop) = watch::channel(false);
        let (served, mut link) = (fleet.clone(), Link::new(server));
        let serving = tokio::spawn(async move { connection(&mut link, &served, identity, peer(), stop).await.is_err() });
        let body = [b"\0\x04MQTT".as_slice(), &[4, flags, 0, 60, 0, wrong.len() as u8], wrong.as_bytes()].concat();
        client.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).await.unwrap();
        assert!(hears(&mut client, &mut Vec::new(), &[0x20, 2, 0, 2]).await, "CONNACK for {wrong:?}");
        assert!(serving.await.unwrap());
    }
}
