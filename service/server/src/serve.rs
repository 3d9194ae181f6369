//! Three ports, one stop: the API in plain HTTP for tools on the same machine (or behind a proxy), the same over TLS
//! with the devices' credentials endpoint and (by ALPN) MQTT, and MQTT alone.

use crate::ServerError;
use crate::configuration::{Configuration, replace};
use crate::{history, http};
use belvedere_api::Api;
use belvedere_fleet::authority::Authority;
use belvedere_fleet::tls::{ClientCertificate, server_config};
use belvedere_fleet::{Fleet, Settings, broker};
use belvedere_store::{Store, StoreError};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Where to listen, and how appliances find it.
pub struct Ports<'a> {
    /// Plain HTTP.
    pub api: &'a str,
    /// HTTPS.
    pub device_https: &'a str,
    /// MQTT over TLS.
    pub mqtt: &'a str,
    /// Host that goes into provisioning archives.
    pub advertise_host: &'a str,
}

/// `endpoints.json`: where a running service listens.
#[derive(Debug, Serialize)]
struct Listening {
    /// `127.0.0.1:8000`.
    api: SocketAddr,
    device_https: SocketAddr,
    mqtt: SocketAddr,
    advertise_host: String,
    process: u32,
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

/// Deletes what unfinished uploads left.
async fn sweep(store: &Store) -> Result<(), StoreError> {
    let swept = store.sweep_objects().await?;
    if swept > 0 {
        tracing::info!(swept, "files of unfinished uploads deleted");
    }
    Ok(())
}

/// A bucket is swept while it is used: what is a day old and without a name is waste.
async fn sweep_daily(store: Store) {
    loop {
        if let Err(e) = sweep(&store).await {
            tracing::warn!("the bucket is not swept: {e}");
        }
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    }
}

/// Runs the service in `data` until `stop` turns true.
pub async fn serve(data: &Path, ports: Ports<'_>, stop: watch::Receiver<bool>) -> Result<(), ServerError> {
    let configuration = Configuration::read(data)?;
    let (certificate, key) = configuration.authority();
    let authority = Arc::new(Authority::open(&certificate, &key)?);
    let server = authority.server(&certificate_names(&configuration, ports.advertise_host))?;
    let store = configuration.open_store(data).await?;
    store.forget_connections().await?;
    if store.objects_are_shared() {
        tokio::spawn(sweep_daily(store.clone()));
    } else {
        sweep(&store).await?;
    }
    let (api, api_at) = listen("api", ports.api).await?;
    let (https, https_at) = listen("device-https", ports.device_https).await?;
    let (mqtt, mqtt_at) = listen("mqtt", ports.mqtt).await?;
    let reach = |at: SocketAddr| belvedere_fleet::endpoint(ports.advertise_host, at.port());
    let settings = Settings {
        account: configuration.account.clone(),
        region: configuration.region.clone(),
        bucket: configuration.bucket.clone(),
        endpoints: belvedere_fleet::endpoints(reach(mqtt_at), reach(https_at), &configuration.region),
    };
    let fleet = Fleet::new(store.clone(), settings, authority.clone());
    let asked = fleet.ask_again().await?;
    if asked > 0 {
        tracing::info!(devices = asked, "deployments asked for again");
    }
    let router = http::router(Api::new(fleet.clone(), configuration.limits.clone()));
    let https_tls = server_config(&authority, &server, ClientCertificate::Optional)?;
    let mqtt_tls = server_config(&authority, &server, ClientCertificate::Required)?;
    let listening = Listening {
        api: api_at,
        device_https: https_at,
        mqtt: mqtt_at,
        advertise_host: ports.advertise_host.to_owned(),
        process: std::process::id(),
    };
    let text = serde_json::to_string_pretty(&listening).unwrap_or_default();
    replace(&data.join("endpoints.json"), text.as_bytes(), 0o644)?;
    println!("{text}");
    tracing::info!(api = %api_at, device_https = %https_at, mqtt = %mqtt_at, bucket = configuration.bucket, "serving");
    let watching = fleet.clone();
    tokio::join!(
        watching.keep_watch(stop.clone()),
        http::serve(api, router.clone(), stop.clone()),
        http::serve_with_mqtt(https, router, fleet.clone(), https_tls, stop.clone()),
        history::forget(store.clone(), configuration.history, stop.clone()),
        broker::serve(mqtt, fleet, mqtt_tls, stop),
    );
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}
