//! Which application made the engine crash with which model, remembered beyond the crash.
//!
//! ONNX Runtime runs in this process: a model that makes it crash ends the process, and every other model with it. So what
//! is running is noted in a small file on a tmpfs before it runs; the next process finds there what was running when the
//! last one ended. Who was there twice is refused for 30 s, then for 60, 120 … up to an hour.
//!
//! - The culprit is the pair of owner and model: another application's calls of the same model are not refused for it.
//! - Who merely ran at the same time is suspected too. Twenty calls that go well clear it.
//! - An end by order (SIGTERM at shutdown) also leaves notes; twice within the lifetime of the file, which is until the
//!   machine starts again, and with the clearing above, that does little harm.
//!
//! The file: [`SLOTS`] notes of what runs, then [`REMEMBERED`] suspects; all of one size, so that a torn write does no more
//! than make one entry wrong.

use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Calls and loads that are noted at a time; those beyond are not.
const SLOTS: usize = 256;
/// Suspects that are remembered.
const REMEMBERED: usize = 64;
/// Bytes of an entry: 32 of the key, 4 of the count, 4 of good calls since, 8 of the time in seconds.
const ENTRY: usize = 48;
/// So many crashes are forgiven.
const FORGIVEN: u32 = 1;
/// So many good calls after a crash clear a suspect.
const CLEARING: u32 = 20;
/// The first refusal's time in seconds; it doubles.
const FIRST_REFUSAL: u64 = 30;
/// The longest refusal in seconds.
const LONGEST_REFUSAL: u64 = 3600;

/// An owner with a model.
pub type Key = [u8; 32];

/// The key of an owner's use of a model.
pub fn key(owner: &str, model: &[u8; 32]) -> Key {
    let mut hash = Sha256::new();
    hash.update(model);
    hash.update(owner.as_bytes());
    hash.finalize().into()
}

/// One that was running when the engine crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Suspect {
    key: Key,
    crashes: u32,
    good: u32,
    last: u64,
}

impl Suspect {
    fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..32].copy_from_slice(&self.key);
        bytes[32..36].copy_from_slice(&self.crashes.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.good.to_le_bytes());
        bytes[40..].copy_from_slice(&self.last.to_le_bytes());
        bytes
    }

    /// `None` for an empty entry.
    fn decode(bytes: &[u8; ENTRY]) -> Option<Suspect> {
        let (Ok(key), Ok(crashes), Ok(good), Ok(last)) =
            (bytes[..32].try_into(), bytes[32..36].try_into(), bytes[36..40].try_into(), bytes[40..].try_into())
        else {
            return None;
        };
        let crashes = u32::from_le_bytes(crashes);
        (crashes > 0).then_some(Suspect { key, crashes, good: u32::from_le_bytes(good), last: u64::from_le_bytes(last) })
    }

    /// Seconds for which it is still refused at `now`; 0 if it is not. Pure.
    fn refused(&self, now: u64) -> u64 {
        let Some(beyond) = self.crashes.checked_sub(FORGIVEN + 1) else { return 0 };
        let time = FIRST_REFUSAL.checked_shl(beyond.min(16)).unwrap_or(LONGEST_REFUSAL).min(LONGEST_REFUSAL);
        // A time in the future is a damaged entry.
        let since = now.saturating_sub(self.last);
        if self.last > now { 0 } else { time.saturating_sub(since) }
    }
}

/// What a process finds of the one before: suspects after it, pure.
fn after_a_crash(mut suspects: Vec<Suspect>, running: &[Key], now: u64) -> Vec<Suspect> {
    let mut counted: Vec<&Key> = Vec::new();
    for key in running {
        if counted.contains(&key) {
            continue;
        }
        counted.push(key);
        match suspects.iter_mut().find(|suspect| suspect.key == *key) {
            Some(suspect) => {
                suspect.crashes = suspect.crashes.saturating_add(1);
                (suspect.good, suspect.last) = (0, now);
            }
            None => suspects.push(Suspect { key: *key, crashes: 1, good: 0, last: now }),
        }
    }
    suspects.sort_by_key(|suspect| std::cmp::Reverse(suspect.last));
    suspects.truncate(REMEMBERED);
    suspects
}

struct State {
    suspects: Vec<Suspect>,
    used: Vec<bool>,
}

/// The file, and what is known.
pub struct Crashes {
    file: Option<File>,
    state: Mutex<State>,
    clock: fn() -> u64,
}

fn seconds_since_the_machine_started() -> u64 {
    u64::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec).unwrap_or(0)
}

impl Crashes {
    /// Remembers nothing beyond this process: for tests, and when the file cannot be used.
    pub fn forgetful() -> Crashes {
        let state = State { suspects: Vec::new(), used: vec![false; SLOTS] };
        Crashes { file: None, state: Mutex::new(state), clock: seconds_since_the_machine_started }
    }

    /// Reads what an earlier process left at `path`, and goes on with the file. Call before the sandbox is closed.
    pub fn open(path: &Path) -> io::Result<Crashes> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        let status = file.metadata()?;
        if !status.is_file() || status.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another user's"));
        }
        file.set_len(((SLOTS + REMEMBERED) * ENTRY) as u64)?;
        let mut crashes = Crashes::forgetful();
        let entries = |first: usize, count: usize| -> io::Result<Vec<Suspect>> {
            let mut entries = Vec::new();
            let mut bytes = [0; ENTRY];
            for index in first..first + count {
                file.read_exact_at(&mut bytes, (index * ENTRY) as u64)?;
                entries.extend(Suspect::decode(&bytes));
            }
            Ok(entries)
        };
        let running: Vec<Key> = entries(0, SLOTS)?.into_iter().map(|note| note.key).collect();
        let suspects = after_a_crash(entries(SLOTS, REMEMBERED)?, &running, (crashes.clock)());
        for suspect in suspects.iter().filter(|suspect| running.contains(&suspect.key)) {
            log::warn!(
                "the model process ended while an application used the model of note {}…: for the {}. time",
                &hex::encode(suspect.key)[..16],
                suspect.crashes
            );
        }
        // Suspects first, then the notes are cleared: a death between the two counts once too often, not too seldom.
        for index in 0..REMEMBERED {
            let bytes = suspects.get(index).map_or([0; ENTRY], Suspect::encode);
            file.write_all_at(&bytes, ((SLOTS + index) * ENTRY) as u64)?;
        }
        file.write_all_at(&[0; SLOTS * ENTRY], 0)?;
        crashes.state = Mutex::new(State { suspects, used: vec![false; SLOTS] });
        crashes.file = Some(file);
        Ok(crashes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, slot: usize, key: Option<Key>) {
        let bytes = key.map_or([0; ENTRY], |key| Suspect { key, crashes: 1, good: 0, last: 0 }.encode());
        // What cannot be noted is not remembered; the call is worth more.
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(&bytes, (slot * ENTRY) as u64)
        {
            log::debug!("note what runs: {error}");
        }
    }

    /// Does `work`, which may make this process crash, on behalf of a key; refuses it, with words, if that happened too
    /// often.
    pub fn around<T>(&self, key: &Key, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let slot = {
            let mut state = self.lock();
            if let Some(suspect) = state.suspects.iter().find(|suspect| suspect.key == *key) {
                let wait = suspect.refused((self.clock)());
                if wait > 0 {
                    return Err(format!(
                        "this model ended the model process {} times while this application used it; it is refused for \
                         another {wait} s: correct the model or what it is given",
                        suspect.crashes
                    ));
                }
            }
            let slot = state.used.iter().position(|used| !used);
            if let Some(slot) = slot {
                state.used[slot] = true;
            }
            slot
        };
        if let Some(slot) = slot {
            self.note(slot, Some(*key));
        }
        let result = work();
        if let Some(slot) = slot {
            self.note(slot, None);
        }
        let mut state = self.lock();
        if let Some(slot) = slot {
            state.used[slot] = false;
        }
        if result.is_ok()
            && let Some(index) = state.suspects.iter().position(|suspect| suspect.key == *key)
        {
            let suspect = &mut state.suspects[index];
            suspect.good += 1;
            if suspect.good >= CLEARING {
                state.suspects.remove(index);
                self.write_suspects(&state.suspects);
            }
        }
        result
    }

    fn write_suspects(&self, suspects: &[Suspect]) {
        let Some(file) = &self.file else { return };
        for index in 0..REMEMBERED {
            let bytes = suspects.get(index).map_or([0; ENTRY], Suspect::encode);
            if let Err(error) = file.write_all_at(&bytes, ((SLOTS + index) * ENTRY) as u64) {
                log::debug!("note suspects: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that dies in the middle of `work`.
    fn crash(path: &Path, keys: &[Key]) {
        let crashes = Crashes::open(path).unwrap();
        fn nested(crashes: &Crashes, keys: &[Key]) -> Result<(), String> {
            match keys.split_first() {
                // The notes stay, as nothing is cleaned up when a process dies.
                None => std::panic::panic_any("crash"),
                Some((key, rest)) => crashes.around(key, || nested(crashes, rest)),
            }
        }
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| nested(&crashes, keys))).is_err());
    }

    #[test]
    fn runtime_d5_who_crashes_the_engine_again_and_again_is_refused_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calls");
        let (bad, other) = (key("a", &[1; 32]), key("b", &[1; 32]));
        crash(&path, &[bad]);
        assert_eq!(Crashes::open(&path).unwrap().around(&bad, || Ok(1)), Ok(1), "once is forgiven");
        crash(&path, &[bad]);
        let crashes = Crashes::open(&path).unwrap();
        let refused = crashes.around(&bad, || -> Result<(), String> { panic!("run all the same") }).unwrap_err();
        assert!(refused.contains("2 times") && refused.contains("30 s"), "{refused}");
        assert_eq!(crashes.around(&other, || Ok(1)), Ok(1));
        // It is remembered by processes that end in order, too.
        drop(crashes);
        assert!(Crashes::open(&path).unwrap().around(&bad, || Ok(())).is_err());
    }

    #[test]
    fn who_merely_ran_at_the_same_time_clears_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calls");
        let (bad, innocent) = ([1; 32], [2; 32]);
        for round in 0..10 {
            let crashes = Crashes::open(&path).unwrap();
            for _ in 0..CLEARING {
                assert_eq!(crashes.around(&innocent, || Ok(())), Ok(()), "round {round}");
            }
            drop(crashes);
            // The culprit is tried again when its time is over; here it always is, by hand.
            let mut crashes = Crashes::open(&path).unwrap();
            crashes.clock = || u64::MAX / 2;
            let both = [innocent, bad];
            let nested = || crashes.around(&both[0], || crashes.around(&both[1], || -> Result<(), String> { panic!() }));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(nested)).is_err());
        }
    }

    #[test]
    fn refusals_double_up_to_an_hour() {
        let suspect = |crashes| Suspect { key: [0; 32], crashes, good: 0, last: 1000 };
        let times: Vec<u64> = (0..12).map(|crashes| suspect(crashes).refused(1000)).collect();
        assert_eq!(times, [0, 0, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert_eq!(suspect(u32::MAX).refused(1000), 3600);
        assert_eq!((suspect(2).refused(1029), suspect(2).refused(1030), suspect(2).refused(5)), (1, 0, 0));
    }

    #[test]
    fn a_file_of_anything_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calls");
        for bytes in [vec![], vec![0xFF; 20_000], vec![1; 777], vec![0; 1 << 20]] {
            std::fs::write(&path, bytes).unwrap();
            let crashes = Crashes::open(&path).unwrap();
            assert_eq!(crashes.around(&[9; 32], || Ok(())), Ok(()));
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(Crashes::open(&path).is_err());
    }

    #[test]
    fn more_at_once_than_there_are_places_for_runs_all_the_same() {
        let crashes = Crashes::forgetful();
        fn nested(crashes: &Crashes, depth: usize) -> Result<(), String> {
            if depth == 0 { Ok(()) } else { crashes.around(&[3; 32], || nested(crashes, depth - 1)) }
        }
        assert_eq!(nested(&crashes, SLOTS + 3), Ok(()));
        assert!(crashes.lock().used.iter().all(|used| !used));
    }
}
