//! From a real RTSP server through camera and decoder to clients in Rust and Python: everything that `tests/camera`
//! can do to us. The decoder is the real program; the camera service runs in the test.
//!
//! Needs the Debian packages gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good, gstreamer1.0-plugins-bad, ffmpeg and
//! python3-numpy (`scripts/install-packages`).

mod appliance;

use appliance::{Appliance, PATIENCE, Process, STREAM, folder, until};
use belvedere_camera::machine::Policy;
use belvedere_frames::{Frame, FrameReader};
use belvedere_interfaces::camera::StreamState;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Half the times of a real one, so that stalls and waits do not make the test long.
fn appliance() -> Appliance {
    Appliance::new(Policy { longest_wait: Duration::from_secs(2), ..Policy::default().scaled(0.5) })
}

/// Starts the RTSP server and returns it with its URL.
fn camera(arguments: &[&str]) -> (Process, String) {
    let mut child = Command::new(folder("server.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/camera/server.py starts; see the packages it needs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("ready ").expect("the server is ready").to_owned();
    (Process(child), url)
}

/// The number that a picture carries; the rest of it is checked on the way.
fn number(frame: &Frame) -> u32 {
    let layout = frame.layout();
    assert_eq!((layout.width, layout.height), (320, 240));
    let near = |pixel: [u8; 3], wanted: [u8; 3]| pixel.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 24);
    assert!(near(frame.pixel(80, 200).unwrap(), [0, 0, 255]), "red");
    assert!(near(frame.pixel(240, 200).unwrap(), [255, 0, 0]), "blue");
    (0..8).fold(0, |sum, square| sum << 1 | u32::from(frame.pixel(20 + 40 * square, 20).unwrap()[1] > 128))
}

fn next(reader: &mut FrameReader) -> Frame {
    reader.next(PATIENCE).unwrap().expect("a picture in time")
}

#[test]
#[ignore = "needs a real RTSP server: tests/camera/run"]
fn every_picture_comes_through_to_rust_and_python() {
    let (_camera, url) = camera(&["--user", "viewer", "--password", "p@ss word"]);
    let appliance = appliance();
    appliance.watch(&url, Some(("viewer", "p@ss word")));
    let mut reader = appliance.reader();
    let first = next(&mut reader);
    let (mut last, mut last_sequence, mut last_time) = (number(&first), first.sequence, first.timestamp_us);
    drop(first);
    let mut steps = 0;
    for _ in 0..45 {
        let frame = next(&mut reader);
        // The number goes on exactly as the sequence does: nothing is shown twice, swapped or mixed up.
        let expected = (u64::from(last) + frame.sequence - last_sequence) % 60;
        assert_eq!(u64::from(number(&frame)), expected);
        assert!(frame.timestamp_us > last_time);
        steps += u32::from(frame.sequence == last_sequence + 1);
        (last, last_sequence, last_time) = (number(&frame), frame.sequence, frame.timestamp_us);
    }
    assert!(steps > 20, "hardly any two pictures in a row: {steps} of 45");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    assert!((now - last_time).abs() < 20_000_000, "arrival is told in microseconds since 1970");

    let output = Command::new(folder("consumer.py"))
        .arg(appliance.path("frames.sock"))
        .args([STREAM, "30"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let numbers: BTreeSet<u32> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() >= 10 && numbers.iter().all(|number| *number < 60), "{numbers:?}");

    let status = appliance.until_state(StreamState::Playing);
    assert!(status.detail.starts_with("320×240"), "{}", status.detail);
    assert!(status.access_units >= 45);
}

#[test]
#[ignore = "needs a real RTSP server: tests/camera/run"]
fn a_wrong_password_is_told_apart() {
    let (_camera, url) = camera(&["--user", "viewer", "--password", "right"]);
    let appliance = appliance();
    for credentials in [Some(("viewer", "wrong")), None] {
        appliance.watch(&url, credentials);
        let status = appliance.until_state(StreamState::AuthenticationFailed);
        assert!(status.detail.contains("password") && !status.detail.contains("wrong"), "{}", status.detail);
    }
    let mut reader = appliance.reader();
    until("clients are told", || {
        assert!(reader.next(Duration::from_millis(20)).unwrap().is_none());
        reader.condition().detail.contains("refuses the user name or password")
    });
    appliance.watch(&url, Some(("viewer", "right")));
    number(&next(&mut reader));
}

#[test]
#[ignore = "needs a real RTSP server: tests/camera/run"]
fn what_is_not_h264_gets_the_guides_text() {
    let (_camera, url) = camera(&["--codec", "jpeg"]);
    let appliance = appliance();
    appliance.watch(&url, None);
    let status = appliance.until_state(StreamState::Unsupported);
    assert_eq!(status.detail, "Camera did not provide an H264 encoded stream (it offers JPEG)");
}

#[test]
#[ignore = "needs a real RTSP server: tests/camera/run"]
fn a_camera_that_loses_power_comes_back_by_itself() {
    let (first, url) = camera(&[]);
    let port = url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    let appliance = appliance();
    appliance.watch(&url, None);
    let mut reader = appliance.reader();
    number(&next(&mut reader));
    first.signal("KILL");
    drop(first);
    appliance.until_state(StreamState::Backoff);
    until("clients are told", || {
        let _ = reader.next(Duration::from_millis(20)).unwrap();
        !reader.condition().playing
    });
    let (_second, again) = camera(&["--port", &port]);
    assert_eq!(again, url);
    number(&next(&mut reader));
    number(&next(&mut reader));
    appliance.until_state(StreamState::Playing);
    assert!(reader.condition().playing);
}

#[test]
#[ignore = "needs a real RTSP server: tests/camera/run"]
fn a_camera_that_hangs_is_noticed_within_seconds() {
    let (camera, url) = camera(&[]);
    let appliance = appliance();
    appliance.watch(&url, None);
    let mut reader = appliance.reader();
    number(&next(&mut reader));
    camera.signal("STOP");
    appliance.until_state(StreamState::Stalled);
    let stopped = Instant::now();
    let status = appliance.until_state(StreamState::Backoff);
    assert!(stopped.elapsed() < Duration::from_secs(30), "RTSP itself takes a minute");
    assert!(status.detail.contains("no picture"), "{}", status.detail);
    camera.signal("CONT");
    appliance.until_state(StreamState::Playing);
    number(&next(&mut reader));
}

#[test]
#[ignore = "needs a real RTSP server: tests/camera/run"]
fn a_decoder_that_restarts_is_found_again() {
    let (_camera, url) = camera(&[]);
    let mut appliance = appliance();
    appliance.watch(&url, None);
    let mut reader = appliance.reader();
    let held = next(&mut reader);
    let before = number(&held);
    appliance.decoder = None;
    assert!(reader.next(PATIENCE).is_err(), "clients see the end");
    assert_eq!(number(&held), before, "a picture that is held stays whole");
    appliance.start_decoder();
    let mut reader = appliance.reader();
    number(&next(&mut reader));
    let status = appliance.until_state(StreamState::Playing);
    assert!(status.access_units > 0, "the camera's session went on");
}
