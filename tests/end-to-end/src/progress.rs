//! What a person sees while things take long: one line a stage, with the time since the beginning.

use std::time::Instant;

/// Prints stages.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    stage: Option<(String, Instant)>,
    done: Vec<(String, f64)>,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Progress {
    /// Begins now.
    pub fn new() -> Progress {
        Progress { began: Instant::now(), stage: None, done: Vec::new() }
    }

    /// A new stage begins; the one before is done.
    pub fn stage(&mut self, what: &str) {
        self.finish_stage();
        println!("{:6.1} s  {what} …", self.began.elapsed().as_secs_f64());
        self.stage = Some((what.to_owned(), Instant::now()));
    }

    /// Something worth knowing within a stage.
    pub fn note(&self, what: &str) {
        for line in what.lines() {
            println!("{:6.1} s      {line}", self.began.elapsed().as_secs_f64());
        }
    }

    fn finish_stage(&mut self) {
        if let Some((what, began)) = self.stage.take() {
            self.done.push((what, began.elapsed().as_secs_f64()));
        }
    }

    /// How long each stage took, for the end.
    pub fn summary(&mut self) -> String {
        self.finish_stage();
        let mut text = String::new();
        for (what, seconds) in &self.done {
            text.push_str(&format!("  {seconds:6.1} s  {what}\n"));
        }
        text.push_str(&format!("  {:6.1} s  in all\n", self.began.elapsed().as_secs_f64()));
        text
    }
}
