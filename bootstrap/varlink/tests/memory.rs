//! boot D7: what strangers send must not cost a server much, whoever they are: one server is PID 1.
//!
//! The server is a process of its own, this program once more, so that its memory can be measured.

use belvedere_interfaces::Done;
use belvedere_interfaces::logs::{LogBatch, ReadLogs};
use belvedere_interfaces::machine::Restart;
use belvedere_varlink::{MAXIMUM_MESSAGE, Server};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOCKET: &str = "BELVEDERE_TEST_SOCKET";
/// As many as the bound allowed when 32 connections cost PID 1 2.5 GB.
const CONNECTIONS: usize = 32;
/// A debug build's program, its threads' stacks and the messages themselves.
const BOUND_KIB: u64 = 64 * 1024;

/// Does nothing unless started by another test: then it serves until it is ended.
#[test]
fn inside() {
    if let Some(path) = std::env::var_os(SOCKET) {
        Server::bind(PathBuf::from(path))
            .unwrap()
            .route(|_: ReadLogs, _| Ok(LogBatch::default()))
            .route(|_: Restart, _| Ok(Done {}))
            .run();
    }
}

struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(path: &Path) -> Served {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside", "--nocapture"])
        .env(SOCKET, path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let served = Served(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(path).is_err() {
        assert!(Instant::now() < deadline, "the server does not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
    served
}

/// The most memory that the process ever held, in KiB.
fn peak(served: &Served) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", served.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Fills each of many connections with one message as large as is taken, all at the same time, and waits for the ends.
fn flood(path: &Path, head: &str, item: &str, tail: &str) {
    let count = (MAXIMUM_MESSAGE - head.len() - tail.len()) / item.len();
    let message = format!("{head}{}{tail}\0", item.repeat(count).trim_end_matches(','));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let Ok(mut stream) = UnixStream::connect(path) else { return };
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                // All but the end, so that the others are at the same point; then the end.
                let _ = stream.write_all(&message.as_bytes()[..message.len() - 1]);
                std::thread::sleep(Duration::from_millis(300));
                let _ = stream.write_all(b"\0");
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0; 1024]);
            });
        }
    });
}

#[test]
fn what_strangers_send_costs_a_server_its_text_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service.sock");
    let served = serve(&path);
    let before = peak(&served);
    for (head, item, tail) in [
        (r#"{"method":"org.belvedere.Logs.ReadLogs","parameters":["#, r#"{"a":0},"#, "]}"),
        (r#"{"method":"org.belvedere.Logs.ReadLogs","parameters":{"after":0,"limit":1,"x":["#, "[0],", "]}}"),
        (r#"{"method":"org.belvedere.Machine.Restart","parameters":{"why":""#, "\\u0001", r#""}}"#),
        (r#"{"method":"org.example.Nothing","parameters":["#, "[],", "]}"),
        (r#"{"x":["#, r#"{"a":{}},"#, r#"],"method":"org.belvedere.Logs.ReadLogs","oneway":true}"#),
        (r#"{"method":""#, "ab", r#""}"#),
    ] {
        flood(&path, head, item, tail);
        let peak = peak(&served);
        assert!(peak < BOUND_KIB, "{peak} KiB after {head} … (before: {before} KiB)");
    }
    belvedere_varlink::call(&path, &ReadLogs { after: 0, limit: 1 }).unwrap();
}
