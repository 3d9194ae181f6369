//! The running service.

use crate::claim::{self, CLAIM_TIME, ClaimError, Registration};
use crate::devices::{Change, Uevents, is_stick, sticks, volume};
use crate::executor::{keep_network, provision};
use crate::identity::{self, StoredIdentity};
use crate::key::{DeviceKey, SoftwareKey};
use crate::stick::{DirectoryStick, Mounted};
use crate::world::World;
use belvedere_device_protocol::{NetworkConfiguration, NetworkStatus};
use belvedere_interfaces::front_panel::{Condition, SetCondition};
use belvedere_interfaces::logs::{LogEntry, ReadLogs};
use belvedere_interfaces::network::{Keep, Revert, Try};
use belvedere_interfaces::provisioning::GetIdentity;
use belvedere_interfaces::{Failure, Method};
use belvedere_provisioning_archive::Archive;
use belvedere_varlink::{CallError, Client, Server};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A `Try` waits for addresses on its own; this is longer.
const TRY_TIME: Duration = Duration::from_secs(40);
/// Other services may still be starting when a stick is found at boot.
const SERVICE_TIME: Duration = Duration::from_secs(60);
/// How long a stick's node may take to appear after the kernel announced it.
const NODE_TIME: Duration = Duration::from_secs(5);
/// Log lines read at a time for the stick, and how often; the files are bounded once more when they are written.
const LOG_LINES: u32 = 1000;
const LOG_PAGES: usize = 40;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Options {
    /// Socket to serve.
    pub socket: PathBuf,
    /// Directory of the identity.
    pub state: PathBuf,
    /// Other services' sockets.
    pub network: PathBuf,
    /// Likewise.
    pub front_panel: PathBuf,
    /// Likewise.
    pub init: PathBuf,
    /// Where sticks are mounted.
    pub mount_point: PathBuf,
    /// File with the release's version.
    pub version: PathBuf,
    /// A directory that stands for a plugged-in stick: provision from it once and end (for tests on a host).
    pub directory: Option<PathBuf>,
}

/// What stops the service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No uevents.
    #[error("listen for kernel events: {0}")]
    Uevents(std::io::Error),
    /// The socket could not be served.
    #[error(transparent)]
    Bind(#[from] belvedere_varlink::BindError),
}

type Shared = Arc<Mutex<Option<StoredIdentity>>>;

/// Runs until the process ends (or, with a directory, until that was provisioned from).
pub fn run(options: Options) -> Result<(), ServiceError> {
    let stored = identity::read(&options.state).unwrap_or_else(|message| {
        log::error!("{message}");
        None
    });
    match &stored {
        Some(stored) => {
            log::info!("provisioned as {} (generation {})", stored.identity.thing_name, stored.identity.generation)
        }
        None => log::info!("not provisioned: plug in a stick with a provisioning archive"),
    }
    let shared: Shared = Arc::new(Mutex::new(stored));
    let mut uevents = match options.directory {
        None => Some(Uevents::open().map_err(ServiceError::Uevents)?),
        Some(_) => None,
    };
    let answers = Arc::clone(&shared);
    Server::bind(&options.socket)?
        .route(move |_: GetIdentity, _| {
            let stored = answers.lock().unwrap_or_else(PoisonError::into_inner);
            stored.as_ref().map(|stored| stored.identity.clone()).ok_or_else(|| Failure {
                reason: "not_provisioned".into(),
                message: "the appliance has no identity yet; plug in a stick with a provisioning archive".into(),
            })
        })
        .spawn();
    belvedere_varlink::notify_ready();

    let mut appliance = Appliance { options: options.clone(), shared };
    appliance.finish_network();
    if let Some(directory) = &options.directory {
        if let Some(outcome) = provision(&mut appliance, &mut DirectoryStick::new(directory, || Ok(()))) {
            log::info!("{}", outcome.message);
        }
        return Ok(());
    }
    let sys = Path::new("/sys");
    let mut present = Vec::new();
    for disk in sticks(sys) {
        appliance.plugged_in(sys, &disk);
        present.push(disk);
    }
    while let Some(events) = uevents.as_mut() {
        match events.wait().map_err(ServiceError::Uevents)? {
            Some(Change::Added(disk)) if is_stick(sys, &disk) && !present.contains(&disk) => {
                appliance.plugged_in(sys, &disk);
                present.push(disk);
            }
            Some(Change::Removed(disk)) if present.contains(&disk) => {
                present.retain(|known| *known != disk);
                appliance.removed(&disk);
            }
            Some(_) => {}
            None => {
                let now = sticks(sys);
                for disk in present.iter().filter(|disk| !now.contains(disk)) {
                    appliance.removed(disk);
                }
                for disk in now.iter().filter(|disk| !present.contains(disk)) {
                    appliance.plugged_in(sys, disk);
                }
                present = now;
            }
        }
    }
    Ok(())
}

/// Waits for a stick's node: `init` makes it, who looks for new devices now and then.
fn wait_for(device: &Path) {
    let deadline = Instant::now() + NODE_TIME;
    while !device.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Appliance {
    options: Options,
    shared: Shared,
}

impl Appliance {
    fn plugged_in(&mut self, sys: &Path, disk: &str) {
        let volume = volume(sys, disk);
        log::info!("stick {disk}: reading {volume}");
        let device = Path::new("/dev").join(&volume);
        wait_for(&device);
        match Mounted::mount(&device, &self.options.mount_point) {
            Ok(mounted) => {
                provision(self, &mut mounted.stick());
            }
            Err(message) => {
                // Nothing can be written to it: the light and the log are all there is.
                log::error!("FAILED (stick_unreadable): {message}");
                self.light(Condition::Error, true);
            }
        }
    }

    fn removed(&mut self, disk: &str) {
        log::info!("stick {disk} removed");
        self.light(Condition::Error, false);
        self.light(Condition::Registering, false);
    }

    /// Step 4 of [`crate::identity`], after a power cut came before it.
    fn finish_network(&mut self) {
        let Some(stored) = self.identity() else { return };
        if stored.network_kept {
            return;
        }
        log::info!("finishing the provisioning that was interrupted: keeping its network configuration");
        let result = self.network_try(&stored.network).and_then(|_| keep_network(self));
        if let Err(message) = result {
            log::error!("{message}; trying again at the next start");
        }
    }

    /// Calls a service that may still be starting.
    fn call<M: Method>(&self, path: &Path, method: &M, time: Duration) -> Result<M::Reply, String> {
        let began = Instant::now();
        loop {
            let result = Client::connect(path).and_then(|mut client| client.call_within(method, time));
            match result {
                Err(CallError::Connect { .. }) if began.elapsed() < SERVICE_TIME => {
                    std::thread::sleep(Duration::from_millis(500));
                }
                other => return other.map_err(|error| error.to_string()),
            }
        }
    }
}

impl World for Appliance {
    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
    }

    fn set_clock(&mut self, seconds: i64) -> Result<(), String> {
        log::warn!("the clock is behind the archive: setting it to {} UTC", crate::result::time_text(seconds));
        let time = rustix::time::Timespec { tv_sec: seconds, tv_nsec: 0 };
        rustix::time::clock_settime(rustix::time::ClockId::Realtime, time)
            .map_err(|error| format!("set the clock: {error}; the service needs CAP_SYS_TIME"))
    }

    fn light(&mut self, condition: Condition, active: bool) {
        let call = SetCondition { source: "provisioning".into(), condition, active };
        // Without lights the appliance is provisioned all the same.
        if let Err(error) = belvedere_varlink::call(&self.options.front_panel, &call) {
            log::warn!("tell the front panel: {error}");
        }
    }

    fn network_try(&mut self, configuration: &NetworkConfiguration) -> Result<NetworkStatus, String> {
        self.call(&self.options.network, &Try { configuration: configuration.clone(), service: None }, TRY_TIME)
    }

    fn network_keep(&mut self) -> Result<(), String> {
        self.call(&self.options.network, &Keep {}, TRY_TIME).map(drop)
    }

    fn network_revert(&mut self) -> Result<(), String> {
        self.call(&self.options.network, &Revert {}, TRY_TIME).map(drop)
    }

    fn make_key(&mut self) -> Result<Box<dyn DeviceKey>, String> {
        Ok(Box::new(SoftwareKey::generate()?))
    }

    fn register(&mut self, archive: &Archive, request_pem: &str, serial_number: &str) -> Result<Registration, ClaimError> {
        let version = std::fs::read_to_string(&self.options.version).unwrap_or_default();
        let parameters = BTreeMap::from([
            ("SerialNumber".to_owned(), serial_number.to_owned()),
            ("SoftwareVersion".to_owned(), version.trim().to_owned()),
        ]);
        claim::register(archive, request_pem, parameters, CLAIM_TIME)
    }

    fn identity(&self) -> Option<StoredIdentity> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store_identity(&mut self, stored: &StoredIdentity) -> Result<(), String> {
        identity::write(&self.options.state, stored)?;
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(stored.clone());
        Ok(())
    }

    fn logs(&mut self) -> Result<Vec<LogEntry>, String> {
        // Reading forgets nothing: init lets the agent alone do that, whose lines these still are.
        let mut entries: Vec<LogEntry> = Vec::new();
        for _ in 0..LOG_PAGES {
            let after = entries.last().map_or(0, |entry| entry.sequence);
            let page = belvedere_varlink::call(&self.options.init, &ReadLogs { after, limit: LOG_LINES })
                .map_err(|error| error.to_string())?
                .entries;
            if page.is_empty() {
                break;
            }
            entries.extend(page);
        }
        Ok(entries)
    }
}
