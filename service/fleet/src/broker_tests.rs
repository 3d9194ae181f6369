use super::*;
use crate::authority::Authority;
use crate::identity::claim_name;
use crate::provisioning::NewAppliance;
use crate::{Settings, endpoint, endpoints};
use belvedere_device_protocol::provisioning::{TEMPLATE, register_thing_topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// RegisterThing uses its claim up, and a claim that is used up has its connection cut: in whatever order the connection
/// learns of both, the device learns what it was given.
#[tokio::test]
async fn the_answer_that_uses_a_claim_up_comes_before_the_cut() {
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
    let name = claim_name(&device_id);
    let identity = Identity { name: name.clone(), device_id, fingerprint: "0".repeat(64), kind: CertificateKind::Claim };
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let (_go_on, stop) = watch::channel(false);
    let (served, mut link) = (fleet.clone(), Link::new(server));
    let serving =
        tokio::spawn(async move { connection(&mut link, &served, identity, stop).await.err().map(|end| end.reason) });

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
