//! `belvedere-service`.

// Whatever one request or one connection brings, the others go on. With "abort", which the appliance's programs are built
// with, a panic that anybody causes would end the service for all.
#[cfg(not(panic = "unwind"))]
compile_error!("a panic must end one request, not the service: build it with --profile service (target/service/)");

use belvedere_api::limits::Limits;
use belvedere_service::arguments::{Arguments, Command, Devices, Keys, Serve};
use belvedere_service::backup::read::{Restore, restore};
use belvedere_service::backup::size;
use belvedere_service::backup::write::{SecretsKey, backup};
use belvedere_service::configuration::Configuration;
use belvedere_service::doctor::running::running;
use belvedere_service::doctor::{Depth, Level, examine, text, worst};
use belvedere_service::initialise::{New, initialise};
use belvedere_service::serve::{Options, Signals, serve};
use belvedere_service::sweep::Wish;
use belvedere_service::{ServerError, audit, broker_configuration, keys, logging, page, sweep, time};
use belvedere_store::Store;
use belvedere_store::releases::Releases;
use clap::Parser;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(arguments.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("belvedere-service: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments.command)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("belvedere-service: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode, ServerError> {
    match command {
        Command::Init(init) => {
            let key = initialise(New {
                data: &init.data,
                keys: &init.keys,
                account: &init.account,
                region: &init.region,
                names: &init.names,
                backends: init.backends,
                limits: if init.unlimited { Limits::unlimited() } else { Limits::default() },
            })
            .await?;
            // Lines that a shell can read as they are.
            println!("AWS_ACCESS_KEY_ID={}", key.access_key_id);
            println!("AWS_SECRET_ACCESS_KEY={}", key.secret_access_key);
            println!("AWS_DEFAULT_REGION={}", init.region);
        }
        Command::Serve(arguments) => run_service(arguments).await?,
        Command::Model => {
            let text = format!("{:#}\n", belvedere_api::panorama::model::document::document());
            // Whoever reads only the start of it (`| head`) has what they wanted.
            match std::io::stdout().write_all(text.as_bytes()) {
                Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                    return Err(ServerError::Argument(format!("cannot print: {e}")));
                }
                _ => {}
            }
        }
        Command::Audit { data, minutes, limit, json } => audit::print(&data, minutes, limit, json).await?,
        Command::BrokerConfiguration { data, names, configuration, state, directory } => {
            let wanted = broker_configuration::Wanted {
                data: &data,
                names: &names,
                configuration: &configuration,
                state: &state,
                directory: &directory,
            };
            for file in broker_configuration::write(wanted).await? {
                println!("{}", file.display());
            }
        }
        Command::Keys { data, command } => run_keys(&data, command).await?,
        Command::Devices { data, command } => run_devices(&data, command).await?,
        Command::Page { data } => {
            println!("{}", page::link(&data).await?);
            if running(&data).is_none() {
                eprintln!("the service does not run here: nobody answers that link until it is started");
            }
        }
        Command::Sweep { data, yes, adopt } => {
            let wish = match (yes, adopt) {
                (_, true) => Wish::Adopt,
                (true, _) => Wish::Delete,
                _ => Wish::Show,
            };
            print!("{}", sweep::command(&data, wish).await?);
        }
        Command::Backup { data, with_secrets_key, file } => {
            let secrets = if with_secrets_key { SecretsKey::Included } else { SecretsKey::Without };
            let made = backup(&data, &file, secrets).await?;
            println!("{}: {} rows, {} objects, {}", file.display(), made.rows, made.objects, size(made.bytes));
            if secrets == SecretsKey::Without {
                println!(
                    "secrets.key is not in it; restoring needs it: keep a copy of {} elsewhere",
                    data.join("secrets.key").display()
                );
            }
        }
        Command::Restore { file, data, secrets_key, keys, backends } => {
            let (secrets_key, keys) = (secrets_key.as_deref(), keys.as_deref());
            let backends = backends.given()?;
            let places = backends.words()?;
            let (header, made) = restore(Restore { from: &file, data: &data, secrets_key, keys, backends }).await?;
            let at = time::date(header.created_ms);
            println!(
                "{}: as it was on {at}: {} rows, {} objects, {}",
                data.display(),
                made.rows,
                made.objects,
                size(made.bytes)
            );
            println!("{places}");
            println!("next: belvedere-service doctor --data {}", data.display());
        }
        Command::Doctor { data, bytes, json } => {
            let findings = examine(&data, if bytes { Depth::Bytes } else { Depth::Sizes }).await;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&findings).unwrap_or_default()),
                false => print!("{}", text(&findings)),
            }
            return Ok(if worst(&findings) == Level::Error { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    }
    Ok(ExitCode::SUCCESS)
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

async fn run_service(arguments: Serve) -> Result<(), ServerError> {
    raise_file_limit();
    let (stopping, stop) = watch::channel(false);
    let (reloading, reload) = watch::channel(());
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        return Err(ServerError::Argument("cannot listen for signals".into()));
    };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => drop(reloading.send(())),
            }
        }
        let _ = stopping.send(true);
        // Whoever asks twice does not want to wait.
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(1);
    });
    let options = Options {
        api: &arguments.api,
        device_https: &arguments.device_https,
        mqtt: &arguments.mqtt,
        advertise_host: &arguments.advertise_host,
        https: arguments.https.as_deref(),
        certificate: arguments.certificate.as_deref().zip(arguments.key.as_deref()),
        metrics: arguments.metrics.as_deref(),
        farewell: std::time::Duration::from_secs(arguments.stop_seconds),
    };
    serve(&arguments.data, options, Signals { stop, reload }).await
}

async fn run_keys(data: &Path, command: Keys) -> Result<(), ServerError> {
    let configuration = Configuration::read(data)?;
    let store = match command {
        Keys::List => configuration.attach_own_store(data).await?,
        Keys::Create { .. } | Keys::Revoke { .. } => configuration.attach_current_store(data).await?,
    };
    match command {
        Keys::Create { description, expires_in_days } => keys::create(&store, &description, expires_in_days).await?,
        Keys::List => keys::list(&store).await?,
        Keys::Revoke { access_key_id } => keys::revoke(&store, &access_key_id).await?,
    }
    store.close().await;
    Ok(())
}

async fn run_devices(data: &Path, command: Devices) -> Result<(), ServerError> {
    let configuration = Configuration::read(data)?;
    let store = match command {
        Devices::List => configuration.attach_own_store(data).await?,
        Devices::Revoke { .. } | Devices::Release { .. } => configuration.attach_current_store(data).await?,
    };
    match command {
        Devices::List => {
            for device in store.list_devices().await? {
                let state = if device.connected { "connected" } else { "not connected" };
                println!("{}  {state}  {}", device.device_id, device.name);
            }
        }
        Devices::Revoke { device } => {
            let device_id = device_named(&store, &device).await?;
            if !store.revoke_certificates(&device_id).await? {
                return Err(ServerError::Argument(format!(
                    "{device_id} has no certificate that works: it is locked out already"
                )));
            }
            println!("{device_id} is locked out");
        }
        Devices::Release { device } => {
            let device_id = device_named(&store, &device).await?;
            store.release_device(&device_id, Releases::EvenRevoked).await?;
            println!("{device_id} is deleted; its appliance is free once it has heard of it");
        }
    }
    store.close().await;
    Ok(())
}

/// The device with this identifier or, if there is none, with this name. No name is there twice.
async fn device_named(store: &Store, word: &str) -> Result<String, ServerError> {
    let devices = store.list_devices().await?;
    let found = devices.iter().find(|d| d.device_id == word).or(devices.iter().find(|d| d.name == word));
    let missing = || ServerError::Argument(format!("there is no device {word}; `devices list` shows all"));
    Ok(found.ok_or_else(missing)?.device_id.clone())
}
