//! What anybody with a device's certificate sends to the broker: CONNECT and what follows, in pieces of any size. The
//! protocol is a crate's; here it is driven as `service/fleet/src/link.rs` drives it, and what CONNECT says is read as
//! there. Nothing may panic, nothing may be taken that is larger than allowed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::role::Server;
use mqtt_protocol_core::mqtt::connection::{Connection, ConnectionOptions, Event};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode};

const MAX_PACKET: u32 = 149_504;

/// As a connection's handler looks at packets.
fn read(packet: &Packet) {
    match packet {
        Packet::V3_1_1Connect(c) => {
            let _ = (c.client_id().len(), c.will_topic(), c.will_payload().map(<[u8]>::len), c.keep_alive());
        }
        Packet::V5_0Connect(c) => {
            let _ = (c.client_id().len(), c.will_topic(), c.will_payload().map(<[u8]>::len), c.keep_alive());
            let _ = (c.props().len(), c.will_props().len());
        }
        Packet::V3_1_1Publish(p) => assert!(p.payload().as_slice().len() + p.topic_name().len() <= MAX_PACKET as usize),
        Packet::V5_0Publish(p) => assert!(p.payload().as_slice().len() <= MAX_PACKET as usize),
        Packet::V3_1_1Subscribe(s) => s.entries().iter().for_each(|e| drop((e.topic_filter().len(), e.sub_opts().qos()))),
        Packet::V5_0Subscribe(s) => s.entries().iter().for_each(|e| drop((e.topic_filter().len(), e.sub_opts().rh()))),
        _ => {}
    }
}

fn welcome(connection: &mut Connection<Server>) {
    let packet: Option<Packet> = match connection.get_protocol_version() {
        Version::V5_0 => {
            let built = v5_0::Connack::builder().session_present(false).reason_code(ConnectReasonCode::Success).build();
            built.ok().map(Into::into)
        }
        _ => {
            let built = v3_1_1::Connack::builder().session_present(false).return_code(ConnectReturnCode::Accepted).build();
            built.ok().map(Into::into)
        }
    };
    for packet in packet {
        connection.send(packet);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let options = ConnectionOptions::new().maximum_packet_size_recv(MAX_PACKET).receive_maximum(100);
    let mut connection = Connection::<Server>::with_options(Version::Undetermined, options);
    connection.set_auto_ping_response(true);
    let mut welcomed = false;
    for piece in bytes.chunks(usize::from(size).max(1)) {
        let mut cursor = Cursor::new(piece);
        while (cursor.position() as usize) < piece.len() {
            for event in connection.recv(&mut cursor) {
                match event {
                    Event::NotifyPacketReceived(packet) => {
                        read(&packet);
                        if !welcomed {
                            welcome(&mut connection);
                            welcomed = true;
                        }
                    }
                    Event::RequestSendPacket { packet, .. } => drop(packet.to_continuous_buffer()),
                    Event::NotifyError(_) => return,
                    _ => {}
                }
            }
        }
    }
});
