//! Keeps one model loaded while an application runs, and knows whether it is: a connection to `inference` of our own,
//! made again whenever it breaks. The model stays warm while containers restart.

use crate::health::ModelHealth;
use belvedere_frames::packet;
use belvedere_interfaces::channel::inference::{Event, Request, Tensor};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Opens a channel to a model; the answer (`ready` or `failed`) is still to come on it.
///
/// `owner` is whose connections to models are counted together: the application instance.
pub fn open(inference: &Path, owner: &str, model: &str, inputs: &[Tensor], file: &Path) -> Result<OwnedFd, String> {
    let file = File::open(file).map_err(|error| format!("open the file of model {model}: {error}"))?;
    let channel = packet::connect(inference).map_err(|error| format!("model {model}: {error}"))?;
    let request = Request::Open { model: model.to_owned(), owner: owner.to_owned(), inputs: inputs.to_vec() };
    packet::send(&channel, &request, &[file.as_fd()]).map_err(|error| format!("model {model}: {error}"))?;
    Ok(channel)
}

/// Keeps the model loaded until dropped.
pub struct ModelKeeper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ModelKeeper {
    /// Starts, if there can be a thread; what is known goes to `health`.
    pub fn start(
        inference: PathBuf,
        application_instance_id: &str,
        model: String,
        inputs: Vec<Tensor>,
        file: PathBuf,
        health: Arc<Mutex<ModelHealth>>,
    ) -> std::io::Result<ModelKeeper> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        // Not the application's own connections, which it may use up: its models stay loaded all the same.
        let owner = format!("keeper of {application_instance_id}");
        let thread = std::thread::Builder::new().spawn(move || {
            let set = |state: ModelHealth| {
                if let Ok(mut health) = health.lock()
                    && *health != state
                {
                    match &state {
                        ModelHealth::Ready => log::info!("model {model} is loaded"),
                        ModelHealth::Failed { detail } => log::warn!("model {model}: {detail}"),
                        ModelHealth::Loading => {}
                    }
                    *health = state;
                }
            };
            while !told.load(Ordering::Relaxed) {
                match open(&inference, &owner, &model, &inputs, &file) {
                    Ok(channel) => watch(&channel, &told, &set),
                    Err(problem) => log::debug!("{problem}"),
                }
                let until = Instant::now() + Duration::from_secs(2);
                while Instant::now() < until && !told.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        })?;
        Ok(ModelKeeper { stop, thread: Some(thread) })
    }
}

/// Stays with the channel until it closes.
fn watch(channel: &OwnedFd, stop: &AtomicBool, set: &dyn Fn(ModelHealth)) {
    let mut failed = false;
    while !stop.load(Ordering::Relaxed) {
        let mut list = [PollFd::new(channel, PollFlags::IN)];
        let time = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        if !matches!(rustix::event::poll(&mut list, Some(&time)), Ok(1..)) {
            continue;
        }
        match packet::receive::<Event>(channel) {
            Ok((Event::Ready { .. }, _)) => set(ModelHealth::Ready),
            Ok((Event::Failed { message }, _)) => {
                failed = true;
                set(ModelHealth::Failed { detail: message });
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    // What is wrong with a model stays known while it is loaded again.
    if !failed {
        set(ModelHealth::Loading);
    }
}

impl Drop for ModelKeeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
