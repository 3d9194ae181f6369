//! `belvedere-service`.

use belvedere_api::limits::Limits;
use belvedere_service::backends::Backends;
use belvedere_service::configuration::Configuration;
use belvedere_service::initialise::{New, initialise};
use belvedere_service::serve::{Ports, serve};
use belvedere_service::ServerError;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The service that manages a fleet of Belvedere appliances.
#[derive(Parser)]
#[command(name = "belvedere-service", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new service: database, bucket, first access key (printed once)
    Init {
        /// Directory of the service; made if missing
        #[arg(long)]
        data: PathBuf,
        /// Key directory made by `belvedere-keys init`
        #[arg(long)]
        keys: PathBuf,
        /// Account number
        #[arg(long, default_value = "123456789012")]
        account: String,
        /// Region in which appliances sign their requests
        #[arg(long, default_value = "us-east-1")]
        region: String,
        /// Further names or addresses for the service's certificate (localhost, 127.0.0.1 and 10.0.2.2 are always in it)
        #[arg(long = "name")]
        names: Vec<String>,
        #[command(flatten)]
        backends: Backends,
        /// Neither quotas nor rates (`limits` in DATA/service.json; else the developer guide's)
        #[arg(long)]
        unlimited: bool,
    },
    /// Run the service until SIGTERM or SIGINT; DATA/endpoints.json says where it listens
    Serve {
        /// Directory of the service
        #[arg(long)]
        data: PathBuf,
        /// Where to answer the API in plain HTTP (port 0: any)
        #[arg(long, default_value = "127.0.0.1:8000")]
        api: String,
        /// Where to answer it over TLS, with the devices' credentials
        #[arg(long, default_value = "127.0.0.1:8443")]
        device_https: String,
        /// Where to answer MQTT over TLS
        #[arg(long, default_value = "127.0.0.1:8883")]
        mqtt: String,
        /// Name or address at which appliances reach this machine
        #[arg(long, default_value = "10.0.2.2")]
        advertise_host: String,
    },
    /// Print the API's model for AWS tools that no longer carry it:
    /// `belvedere-service model > panorama.json; aws configure add-model --service-model file://panorama.json`
    Model,
    /// Devices, from the command line
    Devices {
        /// Directory of the service
        #[arg(long, global = true, default_value = ".")]
        data: PathBuf,
        #[command(subcommand)]
        command: DevicesCommand,
    },
    /// Access keys of administrators
    Keys {
        /// Directory of the service
        #[arg(long, global = true, default_value = ".")]
        data: PathBuf,
        #[command(subcommand)]
        command: KeysCommand,
    },
}

#[derive(Subcommand)]
enum DevicesCommand {
    /// Show all devices
    List,
    /// Lock a device out within five seconds, for good: it comes back only as a new device
    Revoke {
        /// Which device
        device_id: String,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make a key and print it once
    Create {
        /// Whose it is, for people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Show all keys, without secrets
    List,
    /// End a key at once
    Revoke {
        /// Which key
        access_key_id: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("BELVEDERE_LOG").unwrap_or_else(|_| "info,sqlx=warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("belvedere-service: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("belvedere-service: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), ServerError> {
    match command {
        Command::Init { data, keys, account, region, names, backends, unlimited } => {
            let limits = if unlimited { Limits::unlimited() } else { Limits::default() };
            let new = New { data: &data, keys: &keys, account: &account, region: &region, names: &names, backends, limits };
            let key = initialise(new).await?;
            // Lines that a shell can read as they are.
            println!("AWS_ACCESS_KEY_ID={}", key.access_key_id);
            println!("AWS_SECRET_ACCESS_KEY={}", key.secret_access_key);
            println!("AWS_DEFAULT_REGION={region}");
            Ok(())
        }
        Command::Serve { data, api, device_https, mqtt, advertise_host } => {
            raise_file_limit();
            let (sender, stop) = watch::channel(false);
            let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
            let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
                return Err(ServerError::Argument("cannot listen for signals".into()));
            };
            tokio::spawn(async move {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                let _ = sender.send(true);
            });
            let ports =
                Ports { api: &api, device_https: &device_https, mqtt: &mqtt, advertise_host: &advertise_host };
            serve(&data, ports, stop).await
        }
        Command::Model => {
            let text = format!("{:#}\n", belvedere_api::panorama::model::document::document());
            // Whoever reads only the start of it (`| head`) has what they wanted.
            match std::io::stdout().write_all(text.as_bytes()) {
                Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(ServerError::Argument(format!("cannot print: {e}"))),
                _ => Ok(()),
            }
        }
        Command::Devices { data, command } => devices(&data, command).await,
        Command::Keys { data, command } => keys(&data, command).await,
    }
}

/// Every connection is an open file: as many as the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum
        && let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!("cannot raise the limit of open files: {e}");
    }
}

async fn devices(data: &std::path::Path, command: DevicesCommand) -> Result<(), ServerError> {
    let store = Configuration::read(data)?.open_store(data).await?;
    match command {
        DevicesCommand::List => {
            for device in store.list_devices().await? {
                let state = if device.connected { "connected" } else { "not connected" };
                println!("{}  {state}  {}", device.device_id, device.name);
            }
        }
        DevicesCommand::Revoke { device_id } => {
            if !store.revoke_certificates(&device_id).await? {
                return Err(ServerError::Argument(format!("there is no device {device_id} that could connect")));
            }
        }
    }
    store.close().await;
    Ok(())
}

async fn keys(data: &std::path::Path, command: KeysCommand) -> Result<(), ServerError> {
    let store = Configuration::read(data)?.open_store(data).await?;
    match command {
        KeysCommand::Create { description } => {
            let (id, secret) = store.create_access_key(&description).await?;
            println!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={secret}");
        }
        KeysCommand::List => {
            for key in store.list_access_keys().await? {
                let state = if key.revoked_ms.is_some() { "revoked" } else { "active" };
                println!("{}  {state}  {}", key.access_key_id, key.description);
            }
        }
        KeysCommand::Revoke { access_key_id } => {
            if !store.revoke_access_key(&access_key_id).await? {
                return Err(ServerError::Argument(format!("there is no working key {access_key_id}")));
            }
        }
    }
    store.close().await;
    Ok(())
}
