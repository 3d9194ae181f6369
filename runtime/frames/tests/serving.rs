//! A server and its clients over real sockets and real shared memory.

use belvedere_frames::{FrameReader, Offered, Server, packet};
use belvedere_interfaces::channel::frames::{Event, LEASES, Request};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

struct Place {
    folder: PathBuf,
    server: Server,
}

impl Place {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("belvedere-frames-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let server = Server::new();
        server.serve_at(folder.join("frames.sock")).unwrap();
        Place { folder, server }
    }

    fn connect(&self) -> OwnedFd {
        packet::connect(self.folder.join("frames.sock")).unwrap()
    }

    fn subscribe_for(&self, stream_id: &str, owner: &str) -> FrameReader {
        FrameReader::subscribe(self.connect(), stream_id, owner).unwrap()
    }

    fn subscribe(&self, stream_id: &str) -> FrameReader {
        self.subscribe_for(stream_id, "application")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Offers one picture all of one value, as soon as somebody asks.
fn offer(writer: &mut belvedere_frames::Writer, width: u32, height: u32, value: u8) -> usize {
    let mut clients = 0;
    until("somebody asks", || {
        match writer.offer(width, height, i64::from(value) * 1000, |bytes, stride| {
            assert_eq!((stride, bytes.len()), (width as usize * 3, (width * height * 3) as usize));
            bytes.fill(value);
            true
        }) {
            Offered::Published { clients: got } => {
                clients = got;
                true
            }
            Offered::NotWanted => false,
            other => panic!("{other:?}"),
        }
    });
    clients
}

#[test]
fn a_client_gets_what_was_written_and_the_slot_comes_back() {
    let place = Place::new("basic");
    let mut writer = place.server.writer("camera");
    let mut reader = place.subscribe("camera");
    for value in 1..=40 {
        assert!(reader.next(Duration::ZERO).unwrap().is_none());
        offer(&mut writer, 64, 48, value);
        let frame = reader.next(PATIENCE).unwrap().unwrap();
        assert!(frame.bytes().iter().all(|byte| *byte == value));
        assert_eq!(frame.timestamp_us, i64::from(value) * 1000);
    }
    let counters = place.server.counters("camera");
    assert_eq!((counters.published, counters.granted, counters.no_slot), (40, 40, 0));
}

#[test]
fn nothing_is_converted_for_a_client_that_does_not_ask() {
    let place = Place::new("idle");
    let mut writer = place.server.writer("camera");
    let _reader = place.subscribe("camera");
    until("it is connected", || place.server.clients() == 1);
    for _ in 0..10 {
        assert_eq!(writer.offer(64, 48, 0, |_, _| panic!("converted for nobody")), Offered::NotWanted);
    }
    assert_eq!(place.server.counters("camera").not_wanted, 10);
}

#[test]
fn a_client_that_keeps_its_leases_for_ever_does_not_harm_another() {
    let place = Place::new("hoarder");
    let mut writer = place.server.writer("camera");
    let mut hoarder = place.subscribe("camera");
    let mut kept = Vec::new();
    for value in 1..=LEASES as u8 {
        assert!(hoarder.next(Duration::ZERO).unwrap().is_none());
        offer(&mut writer, 64, 48, value);
        kept.push(hoarder.next(PATIENCE).unwrap().unwrap());
    }
    assert!(hoarder.next(Duration::ZERO).unwrap().is_none());
    let mut reader = place.subscribe("camera");
    for value in 10..60 {
        // It may be served the picture before at once; it must come to this one.
        offer_until_seen(&mut writer, &mut reader, value);
    }
    for (frame, value) in kept.iter().zip(1..) {
        assert!(frame.bytes().iter().all(|byte| *byte == value), "a leased picture was overwritten");
    }
    kept.clear();
    assert!(hoarder.next(PATIENCE).unwrap().is_some(), "answered once a lease came back");
}

fn offer_until_seen(writer: &mut belvedere_frames::Writer, reader: &mut FrameReader, value: u8) {
    until("the picture comes", || {
        if let Some(frame) = reader.next(Duration::ZERO).unwrap()
            && frame.bytes()[0] == value
        {
            return true;
        }
        writer.offer(64, 48, 0, |bytes, _| {
            bytes.fill(value);
            true
        });
        false
    });
}

#[test]
fn leases_return_when_a_client_dies() {
    let place = Place::new("death");
    let mut writer = place.server.writer("camera");
    // Far more clients than slots, each with a lease when its connection ends without a release.
    for value in 1..=100 {
        let socket = place.connect();
        packet::send(&socket, &Request::Subscribe { stream_id: "camera".into(), owner: "a".into() }, &[]).unwrap();
        packet::send(&socket, &Request::Next {}, &[]).unwrap();
        // Whether it gets the newest picture at once or the next one is a matter of who is quicker: it gets one.
        until("the lease arrives", || {
            let _ = writer.offer(64, 48, i64::from(value) * 1000, |bytes, _| {
                bytes.fill(value);
                true
            });
            match packet::try_receive::<Event>(&socket) {
                Ok((event, _)) => matches!(event, Event::Frame { .. }),
                Err(error) if error.would_block() => false,
                Err(error) => panic!("{error}"),
            }
        });
    }
    until("all are gone", || place.server.clients() == 0);
    assert_eq!(place.server.counters("camera").no_slot, 0);
}

#[test]
fn who_comes_late_gets_a_fresh_picture_and_not_the_last_that_somebody_asked_for() {
    let place = Place::new("late");
    let mut writer = place.server.writer("camera");
    let mut first = place.subscribe("camera");
    assert!(first.next(Duration::ZERO).unwrap().is_none());
    offer(&mut writer, 64, 48, 1);
    assert!(first.next(PATIENCE).unwrap().is_some());
    assert_eq!(writer.offer(64, 48, 0, |_, _| true), Offered::NotWanted);
    let mut late = place.subscribe("camera");
    assert!(late.next(Duration::from_millis(200)).unwrap().is_none());
    offer(&mut writer, 64, 48, 3);
    assert_eq!(late.next(PATIENCE).unwrap().unwrap().sequence, 3 + place.server.counters("camera").not_wanted - 1);
}

#[test]
fn another_size_brings_another_ring_and_the_old_picture_stays_whole() {
    let place = Place::new("size");
    let mut writer = place.server.writer("camera");
    let mut reader = place.subscribe("camera");
    assert!(reader.next(Duration::ZERO).unwrap().is_none());
    offer(&mut writer, 64, 48, 1);
    let old = reader.next(PATIENCE).unwrap().unwrap();
    assert!(reader.next(Duration::ZERO).unwrap().is_none());
    offer(&mut writer, 32, 24, 2);
    let new = reader.next(PATIENCE).unwrap().unwrap();
    assert_eq!((new.layout().width, new.bytes().len()), (32, 32 * 24 * 3));
    assert!(new.bytes().iter().all(|byte| *byte == 2));
    assert!(old.bytes().iter().all(|byte| *byte == 1));
}

#[test]
fn clients_are_told_when_the_stream_comes_and_goes() {
    let place = Place::new("state");
    let mut reader = place.subscribe("camera");
    let expect = |reader: &mut FrameReader, playing: bool, detail: &str| {
        until("the state changes", || {
            assert!(reader.next(Duration::from_millis(1)).unwrap().is_none());
            reader.condition().playing == playing && reader.condition().detail == detail
        });
    };
    expect(&mut reader, false, "no camera delivers this stream yet");
    let writer = place.server.writer("camera");
    writer.condition(true, "640×480");
    expect(&mut reader, true, "640×480");
    drop(writer);
    expect(&mut reader, false, "the camera's stream ended");
}

#[test]
fn a_second_writer_replaces_the_first() {
    let place = Place::new("writer");
    let mut first = place.server.writer("camera");
    let mut second = place.server.writer("camera");
    assert_eq!(first.offer(64, 48, 0, |_, _| true), Offered::Replaced);
    drop(first);
    let mut reader = place.subscribe("camera");
    assert!(reader.next(Duration::ZERO).unwrap().is_none());
    offer(&mut second, 64, 48, 5);
    assert_eq!(reader.next(PATIENCE).unwrap().unwrap().bytes()[0], 5);
}

#[test]
fn pictures_beyond_the_bounds_are_dropped_and_counted() {
    let place = Place::new("large");
    let mut writer = place.server.writer("camera");
    let mut reader = place.subscribe("camera");
    assert!(reader.next(Duration::ZERO).unwrap().is_none());
    until("somebody asks", || writer.offer(1921, 1080, 0, |_, _| true) == Offered::NoMemory);
    assert_eq!(place.server.counters("camera").no_memory, 1);
}

#[test]
fn hostile_packets_end_the_connection_and_nothing_else() {
    let place = Place::new("hostile");
    let mut writer = place.server.writer("camera");
    let mut reader = place.subscribe("camera");
    let closed = |socket: &OwnedFd| {
        until("the connection ends", || matches!(packet::receive::<Event>(socket), Err(packet::Error::Closed)));
    };
    for hostile in [
        serde_json::json!({"kind": "next"}),
        serde_json::json!({"kind": "subscribe", "stream_id": ""}),
        serde_json::json!({"kind": "subscribe", "stream_id": "x".repeat(129)}),
        serde_json::json!({"kind": "reboot"}),
        serde_json::json!([[[[1]]]]),
    ] {
        let socket = place.connect();
        packet::send(&socket, &hostile, &[]).unwrap();
        closed(&socket);
    }
    let forger = place.connect();
    packet::send(&forger, &Request::Subscribe { stream_id: "camera".into(), owner: "a".into() }, &[]).unwrap();
    for slot in [0, 1, 33, 34, u32::MAX] {
        for generation in [0, 1, u64::MAX] {
            packet::send(&forger, &Request::Release { generation, slot, sequence: 1 }, &[]).unwrap();
        }
    }
    assert!(reader.next(Duration::ZERO).unwrap().is_none());
    offer(&mut writer, 64, 48, 7);
    assert_eq!(reader.next(PATIENCE).unwrap().unwrap().bytes()[0], 7);
}

#[test]
fn runtime_d3_one_application_cannot_take_all_places_of_a_stream_and_is_told_so() {
    let place = Place::new("many");
    let _writer = place.server.writer("camera");
    let limits = belvedere_frames::server::CLIENTS_PER_STREAM;
    let readers: Vec<_> = (0..limits.burst).map(|_| place.subscribe_for("camera", "greedy")).collect();
    until("all are connected", || place.server.clients() == readers.len());
    let mut beyond = place.subscribe_for("camera", "greedy");
    until("it is refused", || beyond.next(Duration::ZERO).is_err());
    assert!(beyond.condition().detail.contains("fewer processes"), "{:?}", beyond.condition());
    // However many are greedy, others get theirs.
    let others: Vec<_> = (0..limits.in_all)
        .map(|number| place.subscribe_for("camera", &format!("greedy {}", number % 4)))
        .chain((0..4).map(|number| place.subscribe_for("camera", &format!("modest {number}"))))
        .collect();
    let refused: Vec<bool> = others
        .into_iter()
        .map(|mut reader| {
            until("it is welcomed or refused", || {
                reader.next(Duration::from_millis(1)).is_err() || !reader.condition().detail.is_empty()
            });
            reader.condition().detail.contains("fewer processes")
        })
        .collect();
    assert_eq!(refused[refused.len() - 4..], [false; 4]);
    assert!(refused.iter().any(|refused| *refused));
}

#[test]
fn runtime_d3_connections_that_say_nothing_are_bounded_and_told_so() {
    let place = Place::new("silent");
    let limit = belvedere_frames::server::CLIENTS.in_all as usize + belvedere_frames::server::UNOPENED;
    let silent: Vec<_> = (0..limit).map(|_| place.connect()).collect();
    let beyond = place.connect();
    let (event, _) = packet::receive::<Event>(&beyond).unwrap();
    assert!(matches!(event, Event::Refused { message } if message.contains("all that it serves")));
    drop(silent);
    until("they are gone", || place.server.clients() == 0);
}

/// Bytes of memory that the descriptors keep.
fn pinned(descriptors: &[OwnedFd]) -> u64 {
    let mut files = std::collections::BTreeMap::new();
    for descriptor in descriptors {
        let status = rustix::fs::fstat(descriptor).unwrap();
        files.insert(status.st_ino, status.st_blocks as u64 * 512);
    }
    files.values().sum()
}

#[test]
fn runtime_d2_a_client_that_comes_and_goes_and_keeps_the_descriptors_pins_one_ring() {
    let place = Place::new("pinning");
    let mut writer = place.server.writer("camera");
    let mut kept = Vec::new();
    for value in 1..=40 {
        let socket = place.connect();
        packet::send(&socket, &Request::Subscribe { stream_id: "camera".into(), owner: "a".into() }, &[]).unwrap();
        packet::send(&socket, &Request::Next {}, &[]).unwrap();
        offer(&mut writer, 640, 480, value);
        loop {
            let (event, descriptors) = packet::receive::<Event>(&socket).unwrap();
            kept.extend(descriptors);
            if matches!(event, Event::Frame { .. }) {
                break;
            }
        }
        drop(socket);
        until("it is gone", || place.server.clients() == 0);
        // The camera goes on, with nobody who watches.
        assert_eq!(writer.offer(640, 480, 0, |_, _| true), Offered::NotWanted);
    }
    assert_eq!(kept.len(), 40);
    let slot = (640 * 480 * 3_u64).next_multiple_of(4096);
    assert!(pinned(&kept) <= 3 * slot, "{} bytes are pinned", pinned(&kept));
    assert_eq!(place.server.allocated(), pinned(&kept));
}

#[test]
fn runtime_d2_sizes_that_come_back_use_the_same_rings_and_new_ones_are_bounded() {
    let place = Place::new("sizes");
    let mut writer = place.server.writer("camera");
    let socket = place.connect();
    packet::send(&socket, &Request::Subscribe { stream_id: "camera".into(), owner: "a".into() }, &[]).unwrap();
    let mut kept: Vec<OwnedFd> = Vec::new();
    let mut show = |writer: &mut belvedere_frames::Writer, width: u32| {
        packet::send(&socket, &Request::Next {}, &[]).unwrap();
        let mut last = Offered::NotWanted;
        until("the question arrives", || {
            last = writer.offer(width, 480, 0, |bytes, _| {
                bytes.fill(width as u8);
                true
            });
            last != Offered::NotWanted
        });
        while let Offered::Published { .. } = last {
            let (event, descriptors) = packet::receive::<Event>(&socket).unwrap();
            kept.extend(descriptors);
            if let Event::Frame { generation, slot, sequence, .. } = event {
                packet::send(&socket, &Request::Release { generation, slot, sequence }, &[]).unwrap();
                break;
            }
        }
        last
    };
    for turn in 0..60 {
        assert!(matches!(show(&mut writer, [320, 640, 1280][turn % 3]), Offered::Published { .. }));
    }
    let outcomes: Vec<Offered> = (0..20).map(|turn| show(&mut writer, 100 + turn)).collect();
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Offered::Published { .. })).count(), 5);
    assert_eq!(outcomes.last(), Some(&Offered::NoMemory));
    let files: std::collections::BTreeSet<u64> =
        kept.iter().map(|descriptor| rustix::fs::fstat(descriptor).unwrap().st_ino).collect();
    assert_eq!(files.len(), 8);
}

#[test]
fn runtime_d2_the_memory_of_all_rings_is_bounded_and_what_is_there_goes_on() {
    let folder = std::env::temp_dir().join(format!("belvedere-frames-budget-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let slot = (64 * 48 * 3_u64).next_multiple_of(4096);
    let place = Place { server: Server::new().limited_to(3 * slot), folder };
    place.server.serve_at(place.folder.join("frames.sock")).unwrap();
    let (mut first, mut second) = (place.server.writer("first"), place.server.writer("second"));
    let mut keeper = place.subscribe("first");
    let mut kept = Vec::new();
    for value in 1..=2 {
        assert!(keeper.next(Duration::ZERO).unwrap().is_none());
        offer(&mut first, 64, 48, value);
        kept.push(keeper.next(PATIENCE).unwrap().unwrap());
    }
    let mut other = place.subscribe_for("second", "other");
    assert!(other.next(Duration::ZERO).unwrap().is_none());
    offer(&mut second, 64, 48, 3);
    let leased = other.next(PATIENCE).unwrap().unwrap();
    assert!(other.next(Duration::ZERO).unwrap().is_none());
    // What is leased may not be overwritten, and there is no memory for another.
    until("it is dropped", || second.offer(64, 48, 0, |_, _| true) == Offered::NoMemory);
    assert_eq!(place.server.allocated(), 3 * slot);
    drop(leased);
    // Its memory serves for the next picture, as soon as the release has arrived.
    until("it is returned", || {
        second.offer(64, 48, 0, |bytes, _| {
            bytes.fill(5);
            true
        }) != Offered::NoMemory
    });
    assert_eq!(other.next(PATIENCE).unwrap().unwrap().bytes()[0], 5);
    assert!(kept.iter().zip(1..).all(|(frame, value)| frame.bytes()[0] == value));
}

#[test]
fn runtime_d14_a_paused_node_gets_no_pictures_though_another_watches_the_same_camera() {
    let place = Place::new("paused");
    let mut writer = place.server.writer("camera");
    let mut paused = place.subscribe_for("camera", "paused");
    let mut other = place.subscribe_for("camera", "other");
    for reader in [&mut paused, &mut other] {
        assert!(reader.next(Duration::ZERO).unwrap().is_none());
    }
    until("both are connected", || place.server.clients() == 2);
    let control = place.connect();
    packet::send(&control, &Request::Withdraw { stream_id: "camera".into(), owner: "paused".into() }, &[]).unwrap();
    until("it is ended", || paused.next(Duration::ZERO).is_err());
    assert!(paused.condition().detail.contains("paused"));
    until("the other is left", || place.server.clients() == 1);
    offer(&mut writer, 64, 48, 1);
    assert_eq!(other.next(PATIENCE).unwrap().unwrap().bytes()[0], 1);
}
