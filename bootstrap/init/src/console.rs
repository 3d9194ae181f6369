//! What people see on the console, written by a thread of its own so that a slow serial line holds up nobody.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

/// Lines that wait for the serial line; more are dropped and counted.
const WAITING: usize = 2000;

/// Hands lines to the console's thread.
#[derive(Clone)]
pub struct Console {
    sender: SyncSender<Message>,
    dropped: std::sync::Arc<AtomicU64>,
}

/// Writes one line to the console at once; for the first stage and for last words.
pub fn say(text: &str) {
    write(&format!("belvedere: {text}\n"));
}

/// The same with the seconds since the kernel started.
pub fn say_when(text: &str) {
    let seconds = uptime().as_secs_f64();
    say(&format!("{text} ({seconds:.2} s)"));
}

/// Time since the kernel started.
pub fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn write(text: &str) {
    // The console may be missing (a board without serial line): then nobody reads.
    if let Ok(mut console) = std::fs::OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(text.as_bytes());
    }
}

impl Console {
    /// Starts the thread.
    pub fn start() -> Console {
        let (sender, receiver) = sync_channel(WAITING);
        let dropped = std::sync::Arc::new(AtomicU64::new(0));
        let counter = std::sync::Arc::clone(&dropped);
        // Without a thread nothing is shown; lines are still kept for the agent.
        if let Err(error) = std::thread::Builder::new().name("console".into()).spawn(move || run(&receiver, &counter)) {
            say(&format!("start a thread for the console: {error}"));
        }
        Console { sender, dropped }
    }

    /// Shows a line.
    pub fn line(&self, text: String) {
        if self.sender.try_send(Message::Line(text)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Shows a line of `init` itself.
    pub fn say(&self, text: &str) {
        self.line(format!("belvedere: {text}"));
    }

    /// Waits until everything said so far is on the console, at most for `time`.
    pub fn flush(&self, time: Duration) {
        let (done, wait) = sync_channel(1);
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(time);
        }
    }
}

fn run(receiver: &Receiver<Message>, dropped: &AtomicU64) {
    let mut console = std::fs::OpenOptions::new().write(true).open("/dev/console").ok();
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Flush(done) => drop(done.send(())),
            Message::Line(text) => {
                if let Some(console) = &mut console {
                    let lost = dropped.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        let _ = writeln!(console, "belvedere: {lost} lines were not shown, the console is too slow");
                    }
                    let _ = writeln!(console, "{text}");
                }
            }
        }
    }
}
