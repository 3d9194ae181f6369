//! One stream's task: carries out what its [`Machine`] decides.

use crate::chance;
use crate::feed::Feed;
use crate::machine::{Action, Event, Failure, Machine, Policy};
use crate::report::Report;
use crate::session::{self, News};
use belvedere_interfaces::camera::{StreamConfiguration, StreamState, StreamStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pictures between the session and its watcher. Small: the watcher never waits for anything else.
const NEWS: usize = 8;

/// A stream's status, written by its task, read by whoever asks.
pub type SharedStatus = Arc<Mutex<StreamStatus>>;

/// A session that runs, ended when dropped.
struct Running {
    task: JoinHandle<Failure>,
    news: mpsc::Receiver<News>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn begin(configuration: &StreamConfiguration) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        let task = tokio::spawn(session::play(configuration.clone(), sender));
        Running { task, news }
    }

    /// What comes next: news first, and when the session has ended and all its news were heard, why it ended.
    async fn next(&mut self) -> Result<News, Failure> {
        match self.news.recv().await {
            Some(news) => Ok(news),
            None => Err(match (&mut self.task).await {
                Ok(failure) => failure,
                Err(error) => Failure::Other(format!("the session broke: {error}")),
            }),
        }
    }
}

/// Watches one stream for ever.
pub async fn watch(configuration: StreamConfiguration, policy: Policy, feed: Feed, status: SharedStatus) {
    let begin = Instant::now();
    let mut machine = Machine::new(policy, Duration::ZERO);
    let mut running = Some(Running::begin(&configuration));
    let mut teller = Teller { report: Report::new(policy.tear_down), said: None };
    loop {
        let deadline = begin + machine.deadline();
        let event = tokio::select! {
            biased;
            next = async { match &mut running { Some(running) => running.next().await, None => std::future::pending().await } } => {
                match next {
                    Ok(News::Progress) => Event::Progress,
                    Ok(News::Unit(unit)) => {
                        feed.push(unit);
                        Event::Picture
                    }
                    Err(failure) => {
                        running = None;
                        Event::Ended(failure)
                    }
                }
            }
            () = tokio::time::sleep_until(deadline) => Event::Tick,
            () = feed.changed() => Event::Tick,
        };
        match machine.step(begin.elapsed(), event, chance::part()) {
            Some(Action::Connect) => running = Some(Running::begin(&configuration)),
            Some(Action::Disconnect) => running = None,
            None => {}
        }
        teller.tell(&configuration.stream_id, &machine, &feed, &status);
    }
}

/// Says how the stream is: to whoever asks, to the decoder's clients, to the log.
struct Teller {
    report: Report,
    said: Option<(StreamState, String)>,
}

impl Teller {
    fn tell(&mut self, stream_id: &str, machine: &Machine, feed: &Feed, status: &SharedStatus) {
        let (state, detail) = self.report.state(Instant::now(), machine, &feed.delivered());
        // The decoder's clients see its pictures themselves; they are told what the decoder cannot know.
        match machine.state() {
            StreamState::Playing | StreamState::Stalled => feed.state(true, ""),
            _ => feed.state(false, &detail),
        }
        {
            let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
            status.state = state;
            status.access_units = feed.sent();
            status.detail.clone_from(&detail);
        }
        // One line when something changes, not one per attempt or per picture.
        let said = (state, if state == StreamState::Playing { String::new() } else { detail.clone() });
        if self.said.as_ref() == Some(&said) {
            return;
        }
        match state {
            StreamState::Playing => log::info!("stream {stream_id}: playing, {detail}"),
            StreamState::Connecting => log::info!("stream {stream_id}: {detail}"),
            _ => log::warn!("stream {stream_id}: {detail}"),
        }
        self.said = Some(said);
    }
}
