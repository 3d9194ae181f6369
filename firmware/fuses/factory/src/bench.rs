//! What the procedure does to the world, and a false world for tests that fails where it is told to.

use std::fmt;

/// With what a board that has our key already is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fused {
    /// Its boot ROM asks for a signature (`-k`).
    pub signed: bool,
    /// And for encryption (`-S`).
    pub encrypted: bool,
}

/// Which run of the burning program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Everything but the burning (`--test`).
    Test,
    /// The burning.
    Burn,
}

/// Something that was tried at the bench and failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchError(pub String);

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

/// The bench: a board in recovery mode, NVIDIA's programs, a log, and somebody in front of it.
pub trait Bench {
    /// Reads the board: what the program said, whole. It may hold secrets; nobody but [`crate::reading`] sees it.
    fn read(&mut self, fused: Fused) -> Result<Vec<u8>, BenchError>;
    /// What NVIDIA's signing program says is the hash of an Orin's key, from its modulus (big-endian).
    fn key_hash(&mut self, modulus: &[u8]) -> Result<String, BenchError>;
    /// Puts the configuration where the burning program finds it, readable for its owner alone.
    fn write_configuration(&mut self, xml: &str) -> Result<(), BenchError>;
    /// Takes it away again.
    fn remove_configuration(&mut self) -> Result<(), BenchError>;
    /// Runs the burning program; what it said, whole. An error when it could not run or says itself that it failed.
    fn run(&mut self, run: Run, fused: Fused) -> Result<String, BenchError>;
    /// Adds lines to the log; they are on the medium when this returns.
    fn log(&mut self, text: &str) -> Result<(), BenchError>;
    /// Shows a text.
    fn show(&mut self, text: &str);
    /// Asks, and gives the line that was typed.
    fn ask(&mut self, question: &str) -> Result<String, BenchError>;
}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    /// A board that burns what its configuration says. Reads show no secret, as Orin's do.
    #[derive(Default)]
    pub(crate) struct FakeBench {
        /// Name and digits of each fuse that is read.
        pub fuses: Vec<(String, String)>,
        pub chip_number: String,
        /// Of the board that answers from the second reading on, where that is another.
        pub second_number: Option<String>,
        /// Fails at this step, from 0.
        pub fails_at: Option<usize>,
        pub steps: Vec<&'static str>,
        pub configuration: Option<String>,
        /// Says success without burning this one.
        pub skips: Option<&'static str>,
        pub burned: usize,
        pub answers: Vec<String>,
        pub hashes: Vec<String>,
        pub output: String,
        pub shown: String,
        pub logged: String,
    }

    impl FakeBench {
        fn step(&mut self, name: &'static str) -> Result<(), BenchError> {
            self.steps.push(name);
            match self.fails_at {
                Some(at) if at + 1 == self.steps.len() => Err(BenchError(format!("{name} fails"))),
                _ => Ok(()),
            }
        }
    }

    impl Bench for FakeBench {
        fn read(&mut self, _: Fused) -> Result<Vec<u8>, BenchError> {
            self.step("read")?;
            let first = self.steps.iter().filter(|step| **step == "read").count() == 1;
            if let Some(number) = self.second_number.clone().filter(|_| !first) {
                self.chip_number = number;
            }
            let mut text = format!("BR_CID: 0x{}\n", self.chip_number);
            for (name, digits) in &self.fuses {
                text.push_str(&format!("{name}: {digits}\n"));
            }
            Ok(text.into_bytes())
        }

        fn key_hash(&mut self, _: &[u8]) -> Result<String, BenchError> {
            self.step("key hash")?;
            Ok(self.hashes.remove(0))
        }

        fn write_configuration(&mut self, xml: &str) -> Result<(), BenchError> {
            // A write that fails may leave a part.
            self.configuration = Some(xml.to_owned());
            self.step("write configuration")
        }

        fn remove_configuration(&mut self) -> Result<(), BenchError> {
            self.step("remove configuration")?;
            self.configuration = None;
            Ok(())
        }

        fn run(&mut self, run: Run, _: Fused) -> Result<String, BenchError> {
            self.step(if run == Run::Burn { "burn" } else { "test" })?;
            if run == Run::Burn {
                self.burned += 1;
                for line in self.configuration.clone().unwrap().lines() {
                    let parts: Vec<_> = line.split('"').collect();
                    let Some(fuse) = self.fuses.iter_mut().find(|fuse| parts.get(1) == Some(&fuse.0.as_str())) else {
                        continue;
                    };
                    if self.skips != Some(parts[1]) {
                        fuse.1 = parts[5].trim_start_matches("0x").to_owned();
                    }
                }
            }
            // As tegraparser_v2 does.
            Ok(format!("{}\n{}", self.configuration.clone().unwrap(), self.output))
        }

        fn log(&mut self, text: &str) -> Result<(), BenchError> {
            self.step("log")?;
            self.logged.push_str(text);
            Ok(())
        }

        fn show(&mut self, text: &str) {
            self.shown.push_str(text);
        }

        fn ask(&mut self, question: &str) -> Result<String, BenchError> {
            self.step("ask")?;
            self.shown.push_str(question);
            Ok(self.answers.remove(0))
        }
    }
}
