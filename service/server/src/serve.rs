//! Ports and one stop: the API in plain HTTP for tools on the same machine (or behind a proxy), the same over TLS with the
//! devices' credentials endpoint and (by ALPN) MQTT, MQTT alone; if asked for, the API under the owner's certificate, and Prometheus.

use crate::certificate::Given;
use crate::configuration::{Configuration, replace};
use crate::health::Health;
use crate::identity::identity;
use crate::metrics::Metrics;
use crate::{ServerError, history, http, lock, notifications, reach, supervisor, sweep};
use belvedere_api::Api;
use belvedere_fleet::authority::Authority;
use belvedere_fleet::external::External;
use belvedere_fleet::panics::kept;
use belvedere_fleet::tls::{ClientCertificate, server_config};
use belvedere_fleet::{Fleet, Settings, broker};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Where to listen, and how appliances find it.
pub struct Options<'a> {
    /// Plain HTTP.
    pub api: &'a str,
    /// HTTPS with the service's own certificate.
    pub device_https: &'a str,
    /// MQTT over TLS.
    pub mqtt: &'a str,
    /// Host that goes into provisioning archives.
    pub advertise_host: &'a str,
    /// HTTPS with the owner's certificate.
    pub https: Option<&'a str>,
    /// That certificate and its key.
    pub certificate: Option<(&'a Path, &'a Path)>,
    /// Prometheus.
    pub metrics: Option<&'a str>,
    /// How long requests under way may take once the service stops.
    pub farewell: Duration,
}

/// What the service is told while it runs.
pub struct Signals {
    /// Turns true once.
    pub stop: watch::Receiver<bool>,
    /// Changes with every SIGHUP.
    pub reload: watch::Receiver<()>,
}

/// `endpoints.json`: where a running service listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listening {
    /// `127.0.0.1:8000`.
    pub api: SocketAddr,
    /// HTTPS with the service's own certificate.
    pub device_https: SocketAddr,
    /// MQTT over TLS.
    pub mqtt: SocketAddr,
    /// HTTPS with the owner's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https: Option<SocketAddr>,
    /// That certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Prometheus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// What appliances are told.
    pub advertise_host: String,
    /// The process.
    pub process: u32,
}

impl Listening {
    /// Why devices do not reach the service, as far as it can tell by itself. With an external broker MQTT is its business.
    pub fn unreachable(&self, external_broker: bool) -> Option<String> {
        let ports = [("device-https", self.device_https), ("mqtt", self.mqtt)];
        reach::unreachable(&self.advertise_host, &ports[..if external_broker { 1 } else { 2 }])
    }
}

/// Names and addresses of the service's certificate.
pub fn certificate_names(configuration: &Configuration, advertise_host: &str) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "10.0.2.2"].map(String::from).to_vec();
    for name in configuration.names.iter().map(String::as_str).chain([advertise_host]) {
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    names
}

async fn listen(port: &'static str, address: &str) -> Result<(TcpListener, SocketAddr), ServerError> {
    let error = |source| ServerError::Listen { port, address: address.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

async fn listen_if(port: &'static str, address: Option<&str>) -> Result<Option<(TcpListener, SocketAddr)>, ServerError> {
    match address {
        Some(address) => listen(port, address).await.map(Some),
        None => Ok(None),
    }
}

/// Runs the service in `data` until it is told to stop.
pub async fn serve(data: &Path, options: Options<'_>, signals: Signals) -> Result<(), ServerError> {
    let Signals { stop, reload } = signals;
    let configuration = Configuration::read(data)?;
    if let Some(fault) = reach::host_fault(options.advertise_host) {
        return Err(ServerError::Argument(format!("--advertise-host {:?}: {fault}", options.advertise_host)));
    }
    let _lock = lock::take(data)?;
    let (certificate, key) = configuration.authority();
    let authority = Arc::new(Authority::open(&certificate, &key)?);
    let server = authority.server(&certificate_names(&configuration, options.advertise_host))?;
    let given = options.certificate.map(|(certificate, key)| Given::open(certificate, key)).transpose()?;
    // A wrong line is told before anything is opened.
    notifications::settings(&configuration, Vec::new())?;
    let store = configuration.open_store(data).await?;
    let identity = identity(&configuration, &authority);
    store.join_copies_patiently(&identity).await?;
    sweep::meet(&store).await?;
    let (api, api_at) = listen("api", options.api).await?;
    let (device_https, device_https_at) = listen("device-https", options.device_https).await?;
    let (mqtt, mqtt_at) = listen("mqtt", options.mqtt).await?;
    let https = listen_if("https", options.https).await?;
    let prometheus = listen_if("metrics", options.metrics).await?;
    let own_ports =
        [Some(api_at), Some(device_https_at), Some(mqtt_at), https.as_ref().map(|h| h.1), prometheus.as_ref().map(|p| p.1)];
    let own_ports = own_ports.into_iter().flatten().map(|at| at.port()).collect();
    let settings_of_watch = notifications::settings(&configuration, own_ports)?;
    let reach = |at: SocketAddr| belvedere_fleet::endpoint(options.advertise_host, at.port());
    let settings = Settings {
        account: configuration.account.clone(),
        region: configuration.region.clone(),
        bucket: configuration.bucket.clone(),
        endpoints: belvedere_fleet::endpoints(reach(mqtt_at), reach(device_https_at), &configuration.region),
    };
    let mut fleet = Fleet::new(store.clone(), settings, authority.clone());
    if let Some(url) = configuration.backends.broker()? {
        fleet = fleet.with_broker(External::new(url, &authority, &store)?);
    }
    let (health, metrics) = (Health::new(store.clone(), data), Metrics::default());
    let asked = fleet.ask_again().await?;
    if asked > 0 {
        tracing::info!(devices = asked, "deployments asked for again");
    }
    let api_of_fleet = Api::new(fleet.clone(), configuration.limits.clone());
    let router = http::router(api_of_fleet.clone(), health.clone(), metrics.clone());
    let https_tls = server_config(&authority, &server, ClientCertificate::Optional)?;
    let mqtt_tls = server_config(&authority, &server, ClientCertificate::Required)?;
    let listening = Listening {
        api: api_at,
        device_https: device_https_at,
        mqtt: mqtt_at,
        https: https.as_ref().map(|(_, at)| *at),
        certificate: options.certificate.and_then(|(path, _)| std::fs::canonicalize(path).ok()),
        metrics: prometheus.as_ref().map(|(_, at)| *at),
        advertise_host: options.advertise_host.to_owned(),
        process: std::process::id(),
    };
    let text = serde_json::to_string_pretty(&listening).unwrap_or_default();
    replace(&data.join("endpoints.json"), text.as_bytes(), 0o644)?;
    println!("{text}");
    tracing::info!(api = %api_at, device_https = %device_https_at, mqtt = %mqtt_at, bucket = configuration.bucket, "serving");
    if let Some(problem) = listening.unreachable(configuration.backends.broker()?.is_some()) {
        tracing::warn!("{problem}");
    }
    supervisor::tell("READY=1");
    let farewell = options.farewell;
    let (watching, touching) = (fleet.clone(), fleet.clone());
    let people = async {
        if let (Some((https, _)), Some(given)) = (https, given) {
            let tls = given.server_config()?;
            let port = http::serve(https, router.clone(), Some(tls), farewell, stop.clone());
            tokio::join!(port, given.watch(reload, stop.clone()));
        }
        Ok::<(), ServerError>(())
    };
    let numbers = async {
        if let Some((listener, _)) = prometheus {
            let router = http::metrics_router(fleet.clone(), health, metrics);
            http::serve(listener, router, None, farewell, stop.clone()).await;
        }
    };
    let mut stopping = stop.clone();
    let farewell_said = async {
        let _ = stopping.wait_for(|s| *s).await.map(drop);
        tracing::info!(seconds = farewell.as_secs(), "stopping: requests under way get their answers");
        supervisor::tell("STOPPING=1");
    };
    let (_, _, _, _, _, _, people, _, _, _) = tokio::join!(
        async {
            let forget = || history::forget(store.clone(), configuration.history, stop.clone());
            let sweep = || sweep::daily(store.clone(), stop.clone());
            tokio::join!(kept("forget history", stop.clone(), forget), kept("sweep the objects", stop.clone(), sweep))
        },
        async {
            let watch = || watching.keep_watch(stop.clone());
            let broker = || watching.keep_broker(stop.clone());
            tokio::join!(kept("watch connections", stop.clone(), watch), kept("keep the broker", stop.clone(), broker))
        },
        kept("keep in touch with other copies", stop.clone(), || touching.keep_in_touch(&identity, stop.clone())),
        http::serve(api, router.clone(), None, farewell, stop.clone()),
        http::serve_with_mqtt(device_https, router.clone(), fleet.clone(), https_tls, farewell, stop.clone()),
        broker::serve(mqtt, fleet.clone(), mqtt_tls, stop.clone()),
        people,
        numbers,
        farewell_said,
        belvedere_watch::run(fleet.clone(), settings_of_watch, stop.clone()),
    );
    api_of_fleet.audit.flush().await;
    if let Err(e) = store.leave_copies().await {
        // The others find out by themselves.
        tracing::warn!("cannot tell the other copies of the end: {e}");
    }
    store.close().await;
    tracing::info!("stopped");
    people
}
