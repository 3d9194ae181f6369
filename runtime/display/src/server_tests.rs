//! The loop over real sockets and sealed memory, with a monitor that is a buffer and can be unplugged.

use super::*;
use crate::compose::Canvas;
use crate::layout::Size;
use belvedere_interfaces::channel::display::Event;
use rustix::fs::{MemfdFlags, SealFlags};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Fake {
    plugged_in: bool,
    fresh: bool,
    pixels: Vec<u8>,
}

#[derive(Clone, Default)]
struct FakeMonitor(Arc<Mutex<Fake>>);

impl Output for FakeMonitor {
    fn probe(&mut self) -> bool {
        std::mem::take(&mut self.0.lock().unwrap().fresh)
    }

    fn present(&mut self, draw: &mut dyn FnMut(&mut Canvas<'_>)) -> io::Result<bool> {
        let mut fake = self.0.lock().unwrap();
        if !fake.plugged_in {
            return Ok(false);
        }
        fake.pixels = vec![0; 64 * 40 * 4];
        draw(&mut Canvas { size: Size { width: 64, height: 40 }, stride: 64 * 4, pixels: &mut fake.pixels });
        Ok(true)
    }
}

impl FakeMonitor {
    fn plug_in(&self) {
        let mut fake = self.0.lock().unwrap();
        (fake.plugged_in, fake.fresh) = (true, true);
    }

    /// Waits until the middle of the monitor has a colour.
    fn shows(&self, color: [u8; 3]) -> bool {
        let middle = (20 * 64 + 32) * 4;
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            self.0.lock().unwrap().pixels.get(middle..middle + 3) == Some(&color[..])
        })
    }
}

/// A server on a socket of its own; its thread ends with the test process.
fn server(name: &str) -> (std::path::PathBuf, FakeMonitor) {
    let path = std::env::temp_dir().join(format!("belvedere-display-{name}-{}.sock", std::process::id()));
    let listener = packet::listen(&path).unwrap();
    let monitor = FakeMonitor::default();
    let mut output = monitor.clone();
    std::thread::spawn(move || serve(&listener, &mut output).unwrap());
    (path, monitor)
}

fn memory(color: [u8; 3]) -> OwnedFd {
    let descriptor = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::write(&descriptor, &color.repeat(16 * 10)).unwrap();
    rustix::fs::fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    descriptor
}

fn client(path: &std::path::Path, started_us: i64) -> OwnedFd {
    let client = packet::connect(path).unwrap();
    packet::send(&client, &Request::Open { application_instance_id: format!("application {started_us}"), started_us }, &[])
        .unwrap();
    client
}

fn show(client: &OwnedFd, color: [u8; 3], sequence: u64) -> Result<Event, packet::Error> {
    let memory = memory(color);
    packet::send(client, &Request::Buffer { buffer: 0, bytes: 480 }, &[memory.as_fd()])?;
    let request = Request::Show {
        stream_id: "camera".into(),
        sequence,
        buffer: 0,
        offset: 0,
        width: 16,
        height: 10,
        stride: 48,
        format: "bgr24".into(),
        rectangles: vec![],
        labels: vec![],
    };
    packet::send(client, &request, &[])?;
    loop {
        match packet::receive(client)?.0 {
            Event::Owner { .. } => {}
            event => return Ok(event),
        }
    }
}

/// Who was on the monitor may have been said before the server disconnected, no other event.
fn is_disconnected(client: &OwnedFd) -> bool {
    loop {
        match packet::receive::<Event>(client) {
            Ok((Event::Owner { .. }, _)) => {}
            Ok(_) => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn applications_tried_who_is_not_on_the_monitor_is_told_and_told_again_when_it_is() {
    let (path, _monitor) = server("owner");
    let owner = |client: &OwnedFd| packet::receive::<Event>(client).unwrap().0;
    let first = client(&path, 1);
    assert_eq!(owner(&first), Event::Owner { mine: true });
    let second = client(&path, 2);
    assert_eq!(owner(&second), Event::Owner { mine: true });
    assert_eq!(owner(&first), Event::Owner { mine: false });
    drop(second);
    assert_eq!(owner(&first), Event::Owner { mine: true });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn pictures_are_taken_without_a_monitor_and_shown_when_one_is_plugged_in() {
    let (path, monitor) = server("later");
    let application = client(&path, 1);
    for sequence in 1..5 {
        assert_eq!(show(&application, [1, 2, 3], sequence).unwrap(), Event::Shown { sequence });
    }
    monitor.plug_in();
    assert!(monitor.shows([1, 2, 3]));
    show(&application, [4, 5, 6], 5).unwrap();
    assert!(monitor.shows([4, 5, 6]));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_client_that_misbehaves_is_disconnected_and_harms_nobody() {
    let (path, monitor) = server("hostile");
    monitor.plug_in();
    let good = client(&path, 2);
    show(&good, [9, 8, 7], 1).unwrap();
    // Not JSON; a picture before `open`; memory that may shrink.
    let one = packet::connect(&path).unwrap();
    rustix::net::send(&one, b"hello", rustix::net::SendFlags::empty()).unwrap();
    assert!(is_disconnected(&one));
    let two = packet::connect(&path).unwrap();
    assert!(show(&two, [0; 3], 1).is_err());
    let three = client(&path, 1);
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    packet::send(&three, &Request::Buffer { buffer: 0, bytes: 1 }, &[reader.as_fd()]).unwrap();
    assert!(is_disconnected(&three));
    assert!(monitor.shows([9, 8, 7]));
    show(&good, [7, 7, 7], 2).unwrap();
    assert!(monitor.shows([7, 7, 7]));
    // Its pictures go with it.
    drop(good);
    let background = crate::BACKGROUND.to_le_bytes();
    let other = client(&path, 1);
    show(&other, [5, 5, 5], 1).unwrap();
    assert!(monitor.shows([5, 5, 5]) && background[..3] != [5, 5, 5]);
    std::fs::remove_file(path).unwrap();
}
