//! One stream's task: carries out what its [`Machine`] decides.

use crate::backlog::Unit;
use crate::feed::Feed;
use crate::machine::{Action, Event, Machine, Policy};
use crate::session::{self, News};
use belvedere_interfaces::camera::{StreamConfiguration, StreamState, StreamStatus};
use retina::client::SessionGroup;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pictures between the session and its watcher. Small: the watcher never waits for anything else.
const NEWS: usize = 8;
/// How often the rate in the status is computed anew.
const RATE: Duration = Duration::from_secs(5);

/// A stream's status, written by its task, read by whoever asks.
pub type SharedStatus = Arc<Mutex<StreamStatus>>;

/// Chance without a generator: every `RandomState` has keys of its own, from the system.
fn chance() -> f64 {
    let number = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (number >> 11) as f64 / (1u64 << 53) as f64
}

/// A session that runs, ended when dropped.
struct Running {
    task: JoinHandle<crate::machine::Failure>,
    news: mpsc::Receiver<News>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn begin(configuration: &StreamConfiguration, group: &Arc<SessionGroup>) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        let task = tokio::spawn(session::play(configuration.clone(), group.clone(), sender));
        Running { task, news }
    }

    /// What comes next: news first, and when the session has ended and all its news were heard, why it ended.
    async fn next(&mut self) -> Result<News, crate::machine::Failure> {
        match self.news.recv().await {
            Some(news) => Ok(news),
            None => Err(match (&mut self.task).await {
                Ok(failure) => failure,
                Err(error) => crate::machine::Failure::Other(format!("the session broke: {error}")),
            }),
        }
    }
}

/// Size and rate, for people.
struct Measure {
    size: (u32, u32),
    since: Instant,
    units: u32,
    rate: Option<f64>,
}

impl Measure {
    fn unit(&mut self, now: Instant) {
        self.units += 1;
        let elapsed = now - self.since;
        if elapsed >= RATE {
            self.rate = Some(f64::from(self.units) / elapsed.as_secs_f64());
            (self.since, self.units) = (now, 0);
        }
    }

    fn text(&self) -> String {
        let size = format!("{}×{}", self.size.0, self.size.1);
        match self.rate {
            Some(rate) => format!("{size}, {rate:.1} pictures a second"),
            None => size,
        }
    }
}

/// Watches one stream for ever.
pub async fn watch(configuration: StreamConfiguration, policy: Policy, feed: Feed, status: SharedStatus) {
    let begin = Instant::now();
    let group = Arc::new(SessionGroup::default());
    let mut machine = Machine::new(policy, Duration::ZERO);
    let mut running = Some(Running::begin(&configuration, &group));
    let mut measure = Measure { size: (0, 0), since: begin, units: 0, rate: None };
    let mut reported = None;
    loop {
        let deadline = begin + machine.deadline();
        let event = tokio::select! {
            biased;
            next = async { match &mut running { Some(running) => running.next().await, None => std::future::pending().await } } => {
                match next {
                    Ok(News::Size(width, height)) => {
                        measure.size = (width, height);
                        continue;
                    }
                    Ok(News::Unit(unit)) => {
                        measure.unit(Instant::now());
                        forward(&feed, unit);
                        Event::Picture
                    }
                    Err(failure) => {
                        running = None;
                        Event::Ended(failure)
                    }
                }
            }
            () = tokio::time::sleep_until(deadline) => Event::Tick,
        };
        match machine.step(begin.elapsed(), event, chance()) {
            Some(Action::Connect) => {
                (measure.since, measure.units, measure.rate) = (Instant::now(), 0, None);
                running = Some(Running::begin(&configuration, &group));
            }
            Some(Action::Disconnect) => running = None,
            None => {}
        }
        report(&configuration.stream_id, &machine, &measure, &feed, &status, &mut reported);
    }
}

fn forward(feed: &Feed, unit: Unit) {
    feed.push(unit);
}

fn report(
    stream_id: &str,
    machine: &Machine,
    measure: &Measure,
    feed: &Feed,
    status: &SharedStatus,
    reported: &mut Option<(StreamState, String)>,
) {
    let state = machine.state();
    let detail = if state == StreamState::Playing { measure.text() } else { machine.detail().to_owned() };
    {
        let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
        status.state = state;
        status.access_units = feed.sent();
        status.detail.clone_from(&detail);
    }
    // One line when something changes, not one per attempt or per picture.
    let said = (state, if state == StreamState::Playing { String::new() } else { detail.clone() });
    if reported.as_ref() == Some(&said) {
        return;
    }
    match state {
        StreamState::Playing => log::info!("stream {stream_id}: playing, {detail}"),
        StreamState::Connecting => log::info!("stream {stream_id}: connecting"),
        _ => log::warn!("stream {stream_id}: {detail}"),
    }
    *reported = Some(said);
    match state {
        StreamState::Playing | StreamState::Stalled => feed.state(true, ""),
        _ => feed.state(false, &detail),
    }
}
