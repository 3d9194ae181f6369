//! The running service.

use crate::claim::{self, CLAIM_TIME, ClaimError, Registration};
use crate::devices::{Change, Uevents, Volume, is_behind_usb, is_stick, look_at_medium, partitions, sticks, whole};
use crate::executor::{keep_network, provision};
use crate::identity::{self, Released, Standing, StoredIdentity};
use crate::key::{DeviceKey, SoftwareKey};
use crate::signing::{Keepers, SignDigest, Signing};
use crate::stick::{DirectoryStick, Mounted};
use crate::survey::{Elsewhere, Surveyed, choose_volume};
use crate::world::{Stick, World};
use crate::{secure_world_key, tpm_key};
use belvedere_device_protocol::{Endpoint, NetworkConfiguration, NetworkStatus};
use belvedere_interfaces::front_panel::{Condition, SetCondition};
use belvedere_interfaces::logs::{LogEntry, ReadLogs};
use belvedere_interfaces::network::{Keep, Revert, ServiceAddress, Try};
use belvedere_interfaces::provisioning::{DeviceKeyReference, FinishRelease, GetIdentity, RELEASED, Release, Sign};
use belvedere_interfaces::{Done, Failure, Method};
use belvedere_provisioning_archive::Archive;
use belvedere_secure_world::device::OpTee;
use belvedere_tpm_device as tpm;
use belvedere_varlink::{CallError, Client, Pulse, Server};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
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
/// How long a stick waits for a release to be finished, and how often it is looked at.
const RELEASE_TIME: Duration = Duration::from_secs(60);
const RELEASE_LOOK: Duration = Duration::from_millis(500);

/// The loop that attends to sticks turns, or takes the next step with a stick, at least so often. Steps that wait for a
/// network have 100 s; but a stick that answers nothing keeps its reader for the kernel's time limit and retries, minutes
/// for each read, and is no reason to take the appliance down.
const LONGEST_STEP: Duration = Duration::from_secs(15 * 60);
/// The identity is written durably while others wait for it.
const LONGEST_WRITE: Duration = Duration::from_secs(60);

const SYS: &str = "/sys";

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
    /// The TPM's node.
    pub tpm: PathBuf,
    /// OP-TEE's.
    pub secure_world: PathBuf,
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

type Shared = Arc<Mutex<Standing>>;

/// Runs until the process ends (or, with a directory, until that was provisioned from).
pub fn run(options: Options) -> Result<(), ServiceError> {
    let standing = identity::read(&options.state);
    match &standing {
        Standing::Owned(stored) => {
            log::info!("provisioned as {} (generation {})", stored.identity.thing_name, stored.identity.generation);
            if matches!(stored.identity.key, DeviceKeyReference::Software { .. })
                && tpm::is_there(&options.tpm, Path::new(SYS)) == Ok(true)
            {
                log::warn!("the device's key is in a file, from before the TPM was used: provision again to have it there");
            }
        }
        Standing::Released(released) if !released.cleared => {
            log::info!("released; the earlier owner's applications are to be removed")
        }
        _ => log::info!("not provisioned: plug in a stick with a provisioning archive"),
    }
    let shared: Shared = Arc::new(Mutex::new(standing));
    let mut uevents = match options.directory {
        None => Some(Uevents::open().map_err(ServiceError::Uevents)?),
        Some(_) => None,
    };
    let signer = Keepers { tpm: tpm::Device::opener(options.tpm.clone()), secure_world: options.secure_world.clone() };
    serve(&options, &shared, Box::new(signer))?.spawn();
    belvedere_varlink::notify_ready();

    let pulse = Pulse::new("sticks", LONGEST_STEP);
    let mut appliance = Appliance { options: options.clone(), shared, pulse };
    if belvedere_varlink::restores_the_minimum() && appliance.standing().identity().is_none() {
        appliance.light(Condition::ReadyToProvision, true);
    }
    appliance.finish_network();
    if let Some(directory) = &options.directory {
        let mut stick = DirectoryStick::new(directory, || Ok(()));
        if let Some(outcome) = provision(&mut appliance, &mut stick, &Elsewhere::default()) {
            log::info!("{}", outcome.message);
        }
        return Ok(());
    }
    let sys = Path::new(SYS);
    let mut present = Vec::new();
    for disk in sticks(sys) {
        appliance.plugged_in(sys, &disk);
        present.push(disk);
    }
    while let Some(events) = uevents.as_mut() {
        match events.wait(|| appliance.pulse.beat()).map_err(ServiceError::Uevents)? {
            Some(Change::Added(disk)) if is_stick(sys, &disk) && !present.contains(&disk) => {
                appliance.plugged_in(sys, &disk);
                present.push(disk);
            }
            Some(Change::MediumChanged(disk)) if is_behind_usb(sys, &disk) => {
                if present.contains(&disk) {
                    present.retain(|known| *known != disk);
                    appliance.removed(&disk);
                }
                look_at_medium(&Path::new("/dev").join(&disk));
                if is_stick(sys, &disk) {
                    appliance.plugged_in(sys, &disk);
                    present.push(disk);
                }
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

/// Answers `org.belvedere.Provisioning`.
fn serve(options: &Options, shared: &Shared, signer: Box<dyn SignDigest>) -> Result<Server, ServiceError> {
    let (signing, signed_for) = (Signing::new(signer), Arc::clone(shared));
    let (answers, releasing, finishing) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    let (state, same_state, watched) = (options.state.clone(), options.state.clone(), Arc::clone(shared));
    let pulse = Pulse::new("calls", LONGEST_WRITE);
    let fail = |reason: &str, message: String| Failure { reason: reason.into(), message };
    let server = Server::bind(&options.socket)?
        .watch(pulse, move || !matches!(watched.try_lock(), Err(TryLockError::WouldBlock)))
        .route(move |call: Sign, _| signing.sign(&signed_for, &call))
        .route(move |_: GetIdentity, _| match &*answers.lock().unwrap_or_else(PoisonError::into_inner) {
            Standing::Owned(stored) => Ok(stored.identity.clone()),
            Standing::Released(released) if !released.cleared => {
                Err(fail(RELEASED, "the appliance was released; its earlier owner's applications are to be removed".into()))
            }
            _ => Err(fail(
                "not_provisioned",
                "the appliance has no identity yet; plug in a stick with a provisioning archive".into(),
            )),
        })
        .route(move |release: Release, _| {
            // Held while it is written: a stick that stores an identity meanwhile waits.
            let mut standing = releasing.lock().unwrap_or_else(PoisonError::into_inner);
            let after = standing.after_release(&release.thing_name, release.generation);
            if let Some(after) = after.map_err(|message| fail("another_identity", message))? {
                identity::write(&state, &after).map_err(|message| fail("storage", message))?;
                log::warn!("the service has released this appliance: {} is given up", release.thing_name);
                *standing = after;
            }
            Ok(Done {})
        })
        .route(move |_: FinishRelease, _| {
            let mut standing = finishing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Standing::Released(released) = &*standing
                && !released.cleared
            {
                let after = Standing::Released(Released { cleared: true, ..released.clone() });
                identity::write(&same_state, &after).map_err(|message| fail("storage", message))?;
                log::info!("nothing of the earlier owner is left: a stick of any service is taken");
                *standing = after;
            }
            Ok(Done {})
        });
    Ok(server)
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
    pulse: Pulse,
}

impl Appliance {
    fn plugged_in(&mut self, sys: &Path, disk: &str) {
        self.wait_for_release();
        let mut volumes = self.survey(&partitions(sys, disk));
        // A stick without a partition table; or what was taken for one is none.
        if volumes.iter().all(|volume| volume.archives.is_err()) {
            volumes.extend(self.survey(&[whole(sys, disk)]));
        }
        let result = choose_volume(&volumes).and_then(|(volume, elsewhere)| {
            log::info!("stick {disk}: reading {}", volume.name);
            let mounted = self.mount(&volume.name)?;
            provision(self, &mut mounted.stick(), &elsewhere);
            Ok(())
        });
        if let Err(message) = result {
            // Nothing can be written to it: the light and the log are all there is.
            log::error!("FAILED (stick_unreadable): {message}");
            self.light(Condition::Error, true);
        }
    }

    fn mount(&self, volume: &str) -> Result<Mounted, String> {
        self.pulse.beat();
        let device = Path::new("/dev").join(volume);
        wait_for(&device);
        Mounted::mount(&device, &self.options.mount_point)
    }

    /// Which volumes can be read, and which archives are in their root folders.
    fn survey(&self, volumes: &[Volume]) -> Vec<Surveyed> {
        let look = |volume: &Volume| {
            let listed = self.mount(&volume.name).and_then(|mounted| mounted.stick().list());
            let archives = listed.map(|listed| listed.into_iter().filter(|e| e.is_file).map(|e| e.name).collect());
            Surveyed { name: volume.name.clone(), bytes: volume.bytes, archives }
        };
        volumes.iter().map(look).collect()
    }

    /// A release takes seconds; whoever has the next stick at hand need not plug it in twice.
    fn wait_for_release(&self) {
        let unfinished = || matches!(self.standing(), Standing::Released(released) if !released.cleared);
        let began = Instant::now();
        while unfinished() && began.elapsed() < RELEASE_TIME {
            self.pulse.beat();
            std::thread::sleep(RELEASE_LOOK);
        }
    }

    fn removed(&mut self, disk: &str) {
        log::info!("stick {disk} removed");
        self.light(Condition::Error, false);
        self.light(Condition::Registering, false);
    }

    /// Step 4 of [`crate::identity`], after a power cut came before it.
    fn finish_network(&mut self) {
        let Some(stored) = self.standing().identity().cloned() else { return };
        if stored.network_kept {
            return;
        }
        log::info!("finishing the provisioning that was interrupted: keeping its network configuration");
        let result = self.network_try(&stored.network, &stored.identity.endpoints.mqtt).and_then(|_| keep_network(self));
        if let Err(message) = result {
            log::error!("{message}; trying again at the next start");
        }
    }

    /// Calls a service that may still be starting.
    fn call<M: Method>(&self, path: &Path, method: &M, time: Duration) -> Result<M::Reply, String> {
        let began = Instant::now();
        loop {
            self.pulse.beat();
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
        log::warn!("the clock is wrong: setting it to {} UTC, by the service's archive", crate::result::time_text(seconds));
        let time = rustix::time::Timespec { tv_sec: seconds, tv_nsec: 0 };
        rustix::time::clock_settime(rustix::time::ClockId::Realtime, time)
            .map_err(|error| format!("set the clock: {error}; the service needs CAP_SYS_TIME"))
    }

    fn light(&mut self, condition: Condition, active: bool) {
        self.pulse.beat();
        let call = SetCondition { source: "provisioning".into(), condition, active };
        // Without lights the appliance is provisioned all the same.
        if let Err(error) = belvedere_varlink::call(&self.options.front_panel, &call) {
            log::warn!("tell the front panel: {error}");
        }
    }

    fn network_try(&mut self, configuration: &NetworkConfiguration, service: &Endpoint) -> Result<NetworkStatus, String> {
        let service = Some(ServiceAddress { host: service.host.clone(), port: service.port });
        self.call(&self.options.network, &Try { configuration: configuration.clone(), service }, TRY_TIME)
    }

    fn network_keep(&mut self) -> Result<(), String> {
        self.call(&self.options.network, &Keep {}, TRY_TIME).map(drop)
    }

    fn network_revert(&mut self) -> Result<(), String> {
        self.call(&self.options.network, &Revert {}, TRY_TIME).map(drop)
    }

    fn make_key(&mut self) -> Result<Box<dyn DeviceKey>, String> {
        let node = &self.options.tpm;
        if tpm::is_there(node, Path::new(SYS))? {
            wait_for(node);
            // Whatever is wrong with it: a key on the disk instead is not what anybody was promised.
            return Ok(Box::new(tpm_key::make(tpm::Device::opener(node.clone()))?));
        }
        let secure_world = self.options.secure_world.clone();
        if secure_world_key::is_there(&secure_world, Path::new(SYS))? {
            wait_for(&secure_world);
            let open = move || OpTee::at(&secure_world).map_err(|error| error.to_string());
            return Ok(Box::new(secure_world_key::make(open)?));
        }
        log::warn!(
            "NO TPM at {} and no OP-TEE at {}: the device's private key is made in software and kept in a file",
            node.display(),
            secure_world.display()
        );
        Ok(Box::new(SoftwareKey::generate()?))
    }

    fn register(
        &mut self,
        archive: &Archive,
        authorities_pem: &str,
        request_pem: &str,
        serial_number: &str,
    ) -> Result<Registration, ClaimError> {
        let version = std::fs::read_to_string(&self.options.version).unwrap_or_default();
        let parameters = BTreeMap::from([
            ("SerialNumber".to_owned(), serial_number.to_owned()),
            ("SoftwareVersion".to_owned(), version.trim().to_owned()),
        ]);
        claim::register(archive, authorities_pem, request_pem, parameters, CLAIM_TIME)
    }

    fn standing(&self) -> Standing {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store_identity(&mut self, stored: &StoredIdentity) -> Result<(), String> {
        let mut standing = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*standing, Standing::Released(released) if released.generation >= stored.identity.generation) {
            return Err(format!("{} was released meanwhile", stored.identity.thing_name));
        }
        let after = Standing::Owned(stored.clone());
        identity::write(&self.options.state, &after)?;
        *standing = after;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::{FakeTpmKey, stored};
    use crate::key::KeptKey;
    use belvedere_interfaces::provisioning::Signed;
    use belvedere_interfaces::rights::Host;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn appliance(directory: &Path, tpm: &str) -> Appliance {
        let path = |name: &str| directory.join(name);
        let options = Options {
            socket: path("provisioning.sock"),
            state: path("state"),
            network: path("network.sock"),
            front_panel: path("front-panel.sock"),
            init: path("init.sock"),
            mount_point: path("mount"),
            version: path("version"),
            tpm: path(tpm),
            secure_world: path("no-op-tee"),
            directory: None,
        };
        let mut stored = stored(1);
        stored.keep_key(&FakeTpmKey::new());
        Appliance {
            options,
            shared: Arc::new(Mutex::new(Standing::Owned(stored))),
            pulse: Pulse::new("sticks", LONGEST_STEP),
        }
    }

    struct Counting(Arc<AtomicUsize>);

    impl SignDigest for Counting {
        fn sign(&self, _: &KeptKey, digest: &[u8; 32]) -> Result<Vec<u8>, String> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(digest.to_vec())
        }
    }

    #[test]
    fn who_is_not_the_agent_gets_no_signature_and_the_tpm_is_not_asked() {
        let directory = tempfile::tempdir().unwrap();
        let appliance = appliance(directory.path(), "none");
        let count = Arc::new(AtomicUsize::new(0));
        let server = || serve(&appliance.options, &appliance.shared, Box::new(Counting(Arc::clone(&count)))).unwrap();
        let sign = || belvedere_varlink::call(&appliance.options.socket, &Sign { generation: 1, digest: [7; 32] });
        // On an appliance this process is the container manager when it is root, and nobody when it is not.
        server().host(Host::Appliance).spawn();
        let error = sign().unwrap_err();
        assert_eq!(error.failure().map(|failure| failure.reason.as_str()), Some("permission_denied"), "{error}");
        assert_eq!(count.load(Ordering::SeqCst), 0);
        std::fs::remove_file(&appliance.options.socket).unwrap();
        server().host(Host::Development { user: rustix::process::getuid().as_raw() }).spawn();
        assert_eq!(sign().unwrap(), Signed { signature: vec![7; 32] });
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_key_is_made_in_software_only_where_there_is_no_tpm() {
        let directory = tempfile::tempdir().unwrap();
        let key = appliance(directory.path(), "none").make_key().unwrap();
        assert!(key.kept().is_none() && matches!(key.reference(), DeviceKeyReference::Software { .. }));
        // Something is there, and it is no TPM that answers.
        std::fs::create_dir(directory.path().join("broken")).unwrap();
        let error = appliance(directory.path(), "broken").make_key().err().unwrap();
        assert!(error.contains("open the TPM"), "{error}");
        let listener = std::os::unix::net::UnixListener::bind(directory.path().join("closes")).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let error = appliance(directory.path(), "closes").make_key().err().unwrap();
        assert!(error.contains("make the device's key"), "{error}");
    }
}
