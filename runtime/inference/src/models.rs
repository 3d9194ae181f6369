//! The models that are loaded: each once, however many connections use it, and unloaded with the last of them.
//!
//! A model is known by the SHA-256 of its bytes. Whose file was read before is not read again: what the kernel says of the
//! file (device, number, size, times) stands for its hash. `applications`, the only one who may open a model, never
//! changes a file once it has its name.

use crate::engine::{Engine, Session};
use belvedere_frames::shares::{Limits, Share, Shares};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

/// Bytes of a model.
pub const MODEL: u64 = 1 << 30;
/// Bytes of models that are being read and loaded at a time: one of the largest, or many small ones.
const LOADING: Limits = Limits { in_all: 2 * MODEL, burst: MODEL, assured: 0 };
/// How long a model waits for others that are being loaded.
const PATIENCE: Duration = Duration::from_secs(300);

/// A loaded model.
pub type Loaded = Arc<Box<dyn Session>>;
/// SHA-256 of a model's bytes.
pub type ModelHash = [u8; 32];
/// One model's place: locked while it is being loaded, so that two connections do not load it twice.
type Place = Arc<Mutex<Weak<Box<dyn Session>>>>;

/// See [`Models::open`].
pub type Around<'a> = dyn Fn(&ModelHash, &mut dyn FnMut() -> Result<Loaded, String>) -> Result<Loaded, String> + 'a;

/// What the kernel says of a file: the same as long as nobody changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileIdentity {
    device: u64,
    number: u64,
    size: u64,
    modified: (i64, u64),
    changed: (i64, u64),
}

#[derive(Default)]
struct Known {
    hashes: HashMap<FileIdentity, ModelHash>,
    places: HashMap<ModelHash, Place>,
}

/// Models by their bytes.
pub struct Models {
    known: Mutex<Known>,
    loading: Arc<Shares>,
}

impl Default for Models {
    fn default() -> Self {
        Models { known: Mutex::default(), loading: Shares::new(LOADING) }
    }
}

impl Models {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is known of models can be had at this moment.
    pub fn is_free(&self) -> bool {
        !matches!(self.known.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// The model in a file, loaded if it is not yet. `around` is what happens around the engine's work on bytes that may
    /// make it crash: it is given the model's hash, and the work.
    pub fn open(
        &self,
        engine: &dyn Engine,
        name: &str,
        file: OwnedFd,
        around: &Around<'_>,
    ) -> Result<(ModelHash, Loaded), String> {
        let file = File::from(file);
        let (identity, size) = identify(&file)?;
        let (known, place) = {
            // Not held while a place is waited for.
            let models = self.lock();
            let hash = models.hashes.get(&identity).copied();
            (hash, hash.and_then(|hash| models.places.get(&hash).cloned()))
        };
        if let (Some(hash), Some(place)) = (known, place) {
            let session = place.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            if let Some(session) = session {
                return Ok((hash, session));
            }
        }
        let mut read = None;
        let hash = match known {
            Some(hash) => hash,
            None => {
                let (share, bytes) = self.read(&file, size)?;
                let hash = Sha256::digest(&bytes).into();
                read = Some((share, bytes));
                hash
            }
        };
        let place = {
            let mut known = self.lock();
            // Whoever has a place in hand keeps it; a model that is loaded is never taken out.
            known
                .places
                .retain(|_, place| Arc::strong_count(place) > 1 || place.lock().is_ok_and(|model| model.strong_count() > 0));
            let Known { hashes, places } = &mut *known;
            hashes.retain(|_, hash| places.contains_key(hash));
            hashes.insert(identity, hash);
            places.entry(hash).or_default().clone()
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = place.upgrade() {
            return Ok((hash, session));
        }
        let session = around(&hash, &mut || {
            let (_share, bytes) = match read.take() {
                Some(read) => read,
                None => {
                    let read = self.read(&file, size)?;
                    let found: ModelHash = Sha256::digest(&read.1).into();
                    if found != hash {
                        return Err("the model's file changed while it was read; deploy the application again".into());
                    }
                    read
                }
            };
            let begin = Instant::now();
            let session = Arc::new(engine.load(&bytes).map_err(|error| error.to_string())?);
            log::info!(
                "model {name}: {} bytes (SHA-256 {}…) loaded in {} ms",
                bytes.len(),
                &hex::encode(hash)[..16],
                begin.elapsed().as_millis()
            );
            Ok(session)
        })?;
        *place = Arc::downgrade(&session);
        Ok((hash, session))
    }

    fn read(&self, file: &File, size: u64) -> Result<(Share, Vec<u8>), String> {
        let share = self.loading.take_within("", size, PATIENCE).ok_or_else(|| {
            format!("other models are still being loaded after {} s; it is tried again", PATIENCE.as_secs())
        })?;
        let mut bytes = vec![0; size as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|error| format!("read the model: {error}"))?;
        Ok((share, bytes))
    }
}

fn identify(file: &File) -> Result<(FileIdentity, u64), String> {
    let there = rustix::fs::fstat(file).map_err(|error| format!("look at the model's file: {error}"))?;
    if rustix::fs::FileType::from_raw_mode(there.st_mode) != rustix::fs::FileType::RegularFile {
        return Err("the model is no file".into());
    }
    let size = u64::try_from(there.st_size).unwrap_or(0);
    if size > MODEL {
        return Err(format!("the model has {size} bytes; at most {MODEL} are taken"));
    }
    let identity = FileIdentity {
        device: there.st_dev,
        number: there.st_ino,
        size,
        modified: (there.st_mtime, there.st_mtime_nsec),
        changed: (there.st_ctime, there.st_ctime_nsec),
    };
    Ok((identity, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineError, TensorValue};
    use belvedere_interfaces::channel::inference::Tensor;
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Nothing;
    impl Session for Nothing {
        fn inputs(&self) -> &[Tensor] {
            &[]
        }
        fn outputs(&self) -> &[Tensor] {
            &[]
        }
        fn run(&self, inputs: Vec<TensorValue>) -> Result<Vec<TensorValue>, EngineError> {
            Ok(inputs)
        }
    }
    struct Counting(AtomicUsize);
    impl Engine for Counting {
        fn load(&self, _model: &[u8]) -> Result<Box<dyn Session>, EngineError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Nothing))
        }
    }

    fn open(models: &Models, engine: &Counting, file: OwnedFd) -> Result<(ModelHash, Loaded), String> {
        models.open(engine, "m", file, &|_, load| load())
    }

    #[test]
    fn runtime_d4_a_model_that_is_loaded_is_not_read_again() {
        let (models, engine) = (Models::default(), Counting(AtomicUsize::new(0)));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"model").unwrap();
        let (hash, first) = open(&models, &engine, File::open(file.path()).unwrap().into()).unwrap();
        // Written only: it can be looked at and not be read.
        let unreadable = || OwnedFd::from(std::fs::OpenOptions::new().write(true).open(file.path()).unwrap());
        let (same, second) = open(&models, &engine, unreadable()).unwrap();
        assert!(same == hash && Arc::ptr_eq(&first, &second));
        // The same bytes in another file are the same model.
        let mut copy = tempfile::tempfile().unwrap();
        copy.write_all(b"model").unwrap();
        let (same, third) = open(&models, &engine, copy.into()).unwrap();
        assert!(same == hash && Arc::ptr_eq(&first, &third));
        assert_eq!(engine.0.load(Ordering::SeqCst), 1);
        drop((first, second, third));
        assert!(open(&models, &engine, unreadable()).is_err(), "unloaded: it has to be read");
    }

    #[test]
    fn a_file_that_changed_is_another_model() {
        let (models, engine) = (Models::default(), Counting(AtomicUsize::new(0)));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"model").unwrap();
        let (hash, _first) = open(&models, &engine, File::open(file.path()).unwrap().into()).unwrap();
        file.write_all(b"!").unwrap();
        let (other, _second) = open(&models, &engine, File::open(file.path()).unwrap().into()).unwrap();
        assert_ne!(hash, other);
        assert_eq!(engine.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let (models, engine) = (Models::default(), Counting(AtomicUsize::new(0)));
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(open(&models, &engine, pipe).is_err());
        let large = tempfile::tempfile().unwrap();
        large.set_len(MODEL + 1).unwrap();
        assert!(open(&models, &engine, large.into()).err().unwrap().contains("at most"));
    }
}
