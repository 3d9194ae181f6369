//! The log: lines for people or JSON for machines, on standard error; and how many there were of each level.

use clap::ValueEnum;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

static WARNINGS: AtomicU64 = AtomicU64::new(0);
static ERRORS: AtomicU64 = AtomicU64::new(0);

/// Lines since the start, by level.
pub fn counts() -> [(&'static str, u64); 2] {
    [("warn", WARNINGS.load(Ordering::Relaxed)), ("error", ERRORS.load(Ordering::Relaxed))]
}

struct Counting;

impl<S: Subscriber> Layer<S> for Counting {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        match *event.metadata().level() {
            Level::ERROR => drop(ERRORS.fetch_add(1, Ordering::Relaxed)),
            Level::WARN => drop(WARNINGS.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

/// Starts the log of this program.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("BELVEDERE_LOG").unwrap_or_else(|_| "info,sqlx=warn".into());
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter).with(Counting);
    match format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
}
