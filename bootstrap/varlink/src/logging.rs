//! Log lines of services: to stderr, one line an event. `init` adds the service's name and the time.

use std::io::Write;

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string().replace(['\n', '\r'], " ");
            // One write, so that lines of several threads do not mix; nobody can be told that stderr is gone.
            let _ = std::io::stderr().write_all(format!("{}: {line}\n", record.level().as_str().to_lowercase()).as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Sends the `log` crate's lines to stderr as `level: text`, for programs that need no more than that.
///
/// The level is `info` unless `BELVEDERE_LOG` names another (`error`, `warn`, `info`, `debug`, `trace`, `off`).
pub fn log_to_stderr() {
    static LOGGER: Stderr = Stderr;
    let level = std::env::var("BELVEDERE_LOG").ok().and_then(|text| text.parse().ok());
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level.unwrap_or(log::LevelFilter::Info));
    }
}
