//! An appliance as far as cameras are concerned, for the tests beside this folder.
#![allow(dead_code, missing_docs)]

use belvedere_camera::machine::Policy;
use belvedere_camera::service::Service;
use belvedere_frames::{FrameReader, packet};
use belvedere_interfaces::camera::{GetStreams, SetStreams, StreamConfiguration, StreamState, StreamStatus};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Generous: the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const STREAM: &str = "camera";

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/camera").join(name)
}

/// A child that ends with the test.
pub struct Process(pub Child);

impl Process {
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The camera service in this process, the decoder as a program.
pub struct Appliance {
    place: tempfile::TempDir,
    pub decoder: Option<Process>,
    _runtime: tokio::runtime::Runtime,
}

impl Appliance {
    pub fn new(policy: Policy) -> Self {
        let place = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = Service::new(runtime.handle().clone(), policy, place.path().join("decoder.sock"));
        service.serve(&place.path().join("camera.sock")).unwrap();
        let mut appliance = Appliance { place, decoder: None, _runtime: runtime };
        appliance.start_decoder();
        appliance
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn start_decoder(&mut self) {
        // Another decoder may be tried, such as the board's under qemu-aarch64-static: a command with arguments.
        let command = std::env::var("BELVEDERE_TEST_DECODER");
        let command = command.as_deref().unwrap_or(env!("CARGO_BIN_EXE_belvedere-decoder"));
        let mut words = command.split(' ');
        let child = Command::new(words.next().unwrap())
            .args(words)
            .arg("--input")
            .arg(self.path("decoder.sock"))
            .arg("--frames")
            .arg(self.path("frames.sock"))
            .spawn()
            .unwrap();
        self.decoder = Some(Process(child));
        until("the decoder serves", || packet::connect(self.path("frames.sock")).is_ok());
    }

    pub fn watch(&self, url: &str, credentials: Option<(&str, &str)>) {
        self.watch_all(vec![StreamConfiguration {
            stream_id: STREAM.into(),
            url: url.into(),
            username: credentials.map(|(user, _)| user.into()),
            password: credentials.map(|(_, password)| password.into()),
        }]);
    }

    pub fn watch_all(&self, streams: Vec<StreamConfiguration>) {
        belvedere_varlink::call(self.path("camera.sock"), &SetStreams { streams }).unwrap();
    }

    pub fn statuses(&self) -> Vec<StreamStatus> {
        belvedere_varlink::call(self.path("camera.sock"), &GetStreams {}).unwrap().streams
    }

    pub fn status(&self) -> StreamStatus {
        self.statuses().remove(0)
    }

    pub fn until_state(&self, state: StreamState) -> StreamStatus {
        until(&format!("{state:?}"), || self.status().state == state);
        self.status()
    }

    pub fn reader(&self) -> FrameReader {
        self.reader_of(STREAM)
    }

    pub fn reader_of(&self, stream_id: &str) -> FrameReader {
        FrameReader::subscribe(packet::connect(self.path("frames.sock")).unwrap(), stream_id, "test").unwrap()
    }
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
