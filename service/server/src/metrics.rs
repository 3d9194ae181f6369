//! `/metrics` for Prometheus (OpenMetrics text): numbers only, no names of devices or packages. It is answered on a port of
//! its own, to anybody who can connect; without `--metrics` there is none. On the API's port nobody could tell a stranger
//! behind a proxy from the machine itself.

use crate::logging;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use belvedere_api::answered::Answered;
use belvedere_fleet::Fleet;
use belvedere_store::StoreError;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Operations that are counted by name. There are fewer than a hundred; more is somebody making them up.
const MOST_OPERATIONS: usize = 300;
/// Seconds.
const BUCKETS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    service: &'static str,
    operation: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    service: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Part {
    part: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Health {
    health: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lines {
    level: &'static str,
}

/// Of an external broker; without one there is no such number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Broker {
    broker: &'static str,
}

type Fractional = Gauge<f64, AtomicU64>;

/// All numbers. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Asked, Counter>,
    seconds: Family<OfService, Histogram, fn() -> Histogram>,
    under_way: Gauge,
    known: Arc<Mutex<HashSet<String>>>,
    devices: Gauge,
    connected: Gauge,
    broker: Family<Broker, Gauge>,
    instances: Family<Health, Gauge>,
    store: Family<Part, Gauge>,
    dropped: Family<Reason, Counter>,
    rivalries: Counter,
    lines: Family<Lines, Counter>,
    memory: Gauge<i64, AtomicI64>,
    processor: Counter<f64, AtomicU64>,
    files: Gauge,
    started: Fractional,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let mut metrics = Metrics {
            registry: Arc::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            under_way: Gauge::default(),
            known: Arc::default(),
            devices: Gauge::default(),
            connected: Gauge::default(),
            broker: Family::default(),
            instances: Family::default(),
            store: Family::default(),
            dropped: Family::default(),
            rivalries: Counter::default(),
            lines: Family::default(),
            memory: Gauge::default(),
            processor: Counter::default(),
            files: Gauge::default(),
            started: Gauge::default(),
        };
        metrics.started.set(belvedere_store::now_ms() as f64 / 1000.0);
        let ours = registry.sub_registry_with_prefix("belvedere");
        ours.register("requests", "Requests by service, operation and HTTP status", metrics.requests.clone());
        ours.register_with_unit(
            "request_duration",
            "Time to the beginning of an answer",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        ours.register("requests_under_way", "Requests that have no answer yet", metrics.under_way.clone());
        ours.register("devices", "Devices there are", metrics.devices.clone());
        ours.register("devices_connected", "Devices connected to any copy of the service", metrics.connected.clone());
        ours.register("broker_connected", "Whether this copy is connected to the external broker", metrics.broker.clone());
        ours.register("application_instances", "Application instances by health", metrics.instances.clone());
        ours.register_with_unit("store", "Size of what is stored", Unit::Bytes, metrics.store.clone());
        let about = "Identities that were found to connect from two places again and again, as a copied disk does";
        ours.register("identities_in_two_places", about, metrics.rivalries.clone());
        ours.register("messages_dropped", "Messages to devices that were dropped, by reason", metrics.dropped.clone());
        ours.register("log_lines", "Lines of the log that are warnings or errors", metrics.lines.clone());
        let process = registry.sub_registry_with_prefix("process");
        process.register_with_unit("resident_memory", "Memory in use", Unit::Bytes, metrics.memory.clone());
        process.register_with_unit("cpu", "Processor time used", Unit::Seconds, metrics.processor.clone());
        process.register("open_fds", "Open files and connections", metrics.files.clone());
        process.register_with_unit("start_time", "Start of the process since 1970", Unit::Seconds, metrics.started.clone());
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    /// Counts an answer. What failed may have any name: it counts under its own only if that name succeeded before.
    fn count(&self, answered: &Answered, status: u16, seconds: f64) {
        let operation = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let name = &answered.operation;
            let word = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric());
            if known.contains(name) {
                name.clone()
            } else if status < 400 && word && known.len() < MOST_OPERATIONS {
                known.insert(name.clone());
                name.clone()
            } else {
                "other".to_owned()
            }
        };
        let service = answered.service;
        self.requests.get_or_create(&Asked { service, operation, status }).inc();
        self.seconds.get_or_create(&OfService { service }).observe(seconds);
    }

    /// Everything as text.
    pub async fn text(&self, fleet: &Fleet) -> Result<String, StoreError> {
        let store = &fleet.store;
        let (connected, devices) = store.device_counts().await?;
        self.connected.set(connected);
        if let Some(connected) = fleet.external_broker_connected() {
            self.broker.get_or_create(&Broker { broker: "external" }).set(connected.into());
        }
        self.devices.set(devices);
        self.instances.clear();
        for (health, count) in store.health_counts().await? {
            self.instances.get_or_create(&Health { health }).set(count);
        }
        let (database, objects) = (store.database_bytes().await?, store.object_bytes().await?);
        self.store.get_or_create(&Part { part: "database" }).set(database);
        self.store.get_or_create(&Part { part: "objects" }).set(objects);
        for (reason, count) in fleet.hub().drops() {
            self.dropped.get_or_create(&Reason { reason: reason.word() }).inner().store(count, Ordering::Relaxed);
        }
        self.rivalries.inner().store(fleet.hub().rivalries(), Ordering::Relaxed);
        for (level, count) in logging::counts() {
            self.lines.get_or_create(&Lines { level }).inner().store(count, Ordering::Relaxed);
        }
        if let Some(process) = Process::of_self() {
            self.memory.set(process.memory);
            self.processor.inner().store(process.seconds.to_bits(), Ordering::Relaxed);
            self.files.set(process.files);
        }
        let mut text = String::new();
        let _ = encode(&mut text, &self.registry); // into a String: cannot fail
        Ok(text)
    }
}

/// Counts every request that a router answers.
pub async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let (metrics, begun) = (UnderWay::begin(metrics), Instant::now());
    let response = next.run(request).await;
    if let Some(answered) = response.extensions().get::<Answered>() {
        metrics.0.count(answered, response.status().as_u16(), begun.elapsed().as_secs_f64());
    }
    response
}

/// A caller that gives up counts as well.
struct UnderWay(Metrics);
impl UnderWay {
    fn begin(metrics: Metrics) -> UnderWay {
        metrics.under_way.inc();
        UnderWay(metrics)
    }
}
impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.dec();
    }
}

/// The answer to `GET /metrics`.
pub async fn answer(State((metrics, fleet)): State<(Metrics, Fleet)>) -> Response {
    match metrics.text(&fleet).await {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(e) => {
            tracing::error!("cannot answer /metrics: {e}");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

struct Process {
    memory: i64,
    seconds: f64,
    files: i64,
}

impl Process {
    fn of_self() -> Option<Process> {
        let pages: i64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
        // The name, in parentheses, may hold anything.
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let mut times = stat.rsplit_once(')')?.1.split(' ').skip(12).take(2).map(|t| t.parse::<u64>().ok());
        let ticks = times.next()?? + times.next()??;
        Some(Process {
            memory: pages * rustix::param::page_size() as i64,
            seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            files: std::fs::read_dir("/proc/self/fd").ok()?.count() as i64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(metrics: &Metrics) -> String {
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        text
    }

    #[test]
    fn names_that_never_succeeded_do_not_grow_the_table() {
        let metrics = Metrics::default();
        let of = |operation: &str| Answered { service: "logs", operation: operation.into() };
        metrics.count(&of("PutLogEvents"), 400, 0.1);
        metrics.count(&of("PutLogEvents"), 200, 0.1);
        metrics.count(&of("PutLogEvents"), 500, 0.1);
        (0..1000).for_each(|n| metrics.count(&of(&format!("Made{n}")), 404, 0.1));
        metrics.count(&of("with\"quotes\n"), 200, 0.1);
        let text = encoded(&metrics);
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("belvedere_requests_total")).collect();
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(
            text.contains("belvedere_requests_total{service=\"logs\",operation=\"other\",status=\"404\"} 1000"),
            "{text}"
        );
        assert!(text.contains("belvedere_requests_total{service=\"logs\",operation=\"PutLogEvents\",status=\"500\"} 1"));
        assert!(text.contains("belvedere_request_duration_seconds_bucket{le=\"0.1\",service=\"logs\"} 1004"), "{text}");
    }

    #[test]
    fn the_process_knows_itself() {
        let process = Process::of_self().unwrap();
        assert!(process.memory > 1 << 20 && process.files > 2 && process.seconds >= 0.0);
    }
}
