//! Says what is going on, and keeps it for the build report.

use std::fmt::Write;
use std::time::Instant;

/// The stages of one build, with their times.
pub struct Progress {
    started: Instant,
    lines: Vec<String>,
}

impl Progress {
    /// Begins now.
    #[expect(clippy::new_without_default, reason = "begins to count: not a neutral value")]
    pub fn new() -> Self {
        Self { started: Instant::now(), lines: Vec::new() }
    }

    /// Says that a stage that may take long begins.
    pub fn begin(&self, stage: &str, what: &str) -> Instant {
        eprintln!("image [{:6.1} s] {stage}: {what} …", self.started.elapsed().as_secs_f64());
        Instant::now()
    }

    /// Says that a stage is done and keeps the line.
    pub fn done(&mut self, stage: &str, begun: Instant, result: &str) {
        let line = format!("{stage}: {result} ({:.1} s)", begun.elapsed().as_secs_f64());
        eprintln!("image [{:6.1} s] {line}", self.started.elapsed().as_secs_f64());
        self.lines.push(line);
    }

    /// Says something that needs a person's attention and keeps it.
    pub fn warn(&mut self, what: &str) {
        let line = format!("WARNING: {what}");
        eprintln!("image [{:6.1} s] {line}", self.started.elapsed().as_secs_f64());
        self.lines.push(line);
    }

    /// Everything that was kept, and the time in all.
    pub fn report(&self) -> String {
        let mut text = self.lines.join("\n");
        let _ = write!(text, "\nin all: {:.1} s\n", self.started.elapsed().as_secs_f64());
        text
    }
}
