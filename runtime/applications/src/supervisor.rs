//! Keeps one code node's container running: makes its root tree, starts it with `crun`, forwards what it prints, and
//! starts it again when it ends. It never gives up.
//!
//! The root tree is an overlay: the unpacked archive below, read-only and shared; above it a layer that begins empty at
//! every start. What must last is in `/opt/aws/panorama/storage`.

use crate::container::{self, Container};
use crate::health::{CodeHealth, ContainerState, back_off, line};
use crate::places::Places;
use crate::spool::{Lines, Spool};
use crate::tail::Tail;
use belvedere_manifest::RuntimeDescriptor;
use rustix::mount::{MountFlags, UnmountFlags};
use sha2::{Digest, Sha256};
use std::ffi::CString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The stream of what programs print.
pub const CONSOLE: &str = "console_output";
/// Between asking a program to end and making it end.
const PATIENCE: Duration = Duration::from_secs(3);
/// A program that ran so long begins its back-off anew.
const LONG_RUN: Duration = Duration::from_secs(60);

/// What is supervised.
#[derive(Clone)]
pub struct Node {
    /// Paths.
    pub places: Places,
    /// Where lines go.
    pub spool: Arc<Spool>,
    /// The application instance.
    pub application_instance_id: String,
    /// The node.
    pub node: String,
    /// `AWS_REGION`.
    pub region: String,
    /// Name in `trees/`.
    pub tree: String,
    /// The program.
    pub entry: RuntimeDescriptor,
    /// Directory of `node.sock`.
    pub sockets: PathBuf,
    /// What is known of it.
    pub health: Arc<Mutex<CodeHealth>>,
}

/// The name of a node's places: its socket directory, and the beginning of its containers' names.
pub fn node_id(application_instance_id: &str, node: &str) -> String {
    hex::encode(&Sha256::digest(format!("{application_instance_id}/{node}"))[..8])
}

/// The runtime's name of one run of a node; also its control group's. Another one each time: a runtime process that an
/// earlier run left behind tidies up by name when its container has ended, and would take the next container's state
/// away, which nobody could end any more.
fn container_id(node: &str) -> Result<String, String> {
    let mut run = [0; 4];
    getrandom::fill(&mut run).map_err(|error| format!("name a container: {error}"))?;
    Ok(format!("{node}-{}", hex::encode(run)))
}

/// A supervised container; ends with [`Supervisor::stop`] or when dropped.
pub struct Supervisor {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the container and keeps it running.
    pub fn start(node: Node) -> Supervisor {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || node.supervise(&told));
        Supervisor { stop, thread: Some(thread) }
    }

    /// Asks for the end, without waiting for it.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Ends the container and waits until nothing of it is left running.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends whatever an earlier run of this process left behind: containers, mounts, bundles.
pub fn clean_up(places: &Places) {
    let crun = places.run.join("crun");
    for entry in std::fs::read_dir(&crun).into_iter().flatten().flatten() {
        if let Some(id) = entry.file_name().to_str() {
            log::info!("ending container {id} of an earlier run");
            kill(places, id);
        }
    }
    let bundles = places.run.join("bundles");
    for entry in std::fs::read_dir(&bundles).into_iter().flatten().flatten() {
        let _ = rustix::mount::unmount(entry.path().join("rootfs"), UnmountFlags::DETACH);
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

fn command(places: &Places) -> Command {
    let mut command = Command::new(&places.crun);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command.arg("--root").arg(places.run.join("crun"));
    command.arg(if places.cgroups { "--cgroup-manager=cgroupfs" } else { "--cgroup-manager=disabled" });
    command
}

/// Calls the runtime for something short; errors are its own concern ("no such container").
fn runtime(places: &Places, arguments: &[&str]) {
    let _ = command(places).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Ends a container, whatever it is doing, and forgets it. `delete --force` alone forgets without ending where there
/// are no control groups (crun 1.8.1).
fn kill(places: &Places, id: &str) {
    runtime(places, &["kill", id, "KILL"]);
    runtime(places, &["delete", "--force", id]);
}

impl Node {
    fn set(&self, state: ContainerState) {
        if let Ok(mut health) = self.health.lock() {
            if state != ContainerState::Running {
                health.heard = None;
            }
            health.container = state;
        }
    }

    fn say(&self, text: &str) {
        log::info!("{} {}: {text}", self.application_instance_id, self.node);
        self.spool.push(&self.application_instance_id, CONSOLE, format!("[{}] {text}", self.node).as_bytes());
    }

    fn supervise(&self, stop: &AtomicBool) {
        let mut tail = Tail::from_the_end();
        let mut quick_ends = 0;
        while !stop.load(Ordering::Relaxed) {
            self.set(ContainerState::Starting);
            let begin = Instant::now();
            let end = self.run_once(&mut tail, stop).unwrap_or_else(|problem| problem);
            if stop.load(Ordering::Relaxed) {
                break;
            }
            quick_ends = if begin.elapsed() >= LONG_RUN { 0 } else { quick_ends + 1 };
            let wait = back_off(quick_ends - u32::from(quick_ends > 0));
            let text = line(&format!("{end}; it starts again in {} s", wait.as_secs()));
            self.say(&text);
            self.set(ContainerState::Ended { detail: text });
            let until = Instant::now() + wait;
            while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        self.set(ContainerState::Starting);
    }

    /// Runs the container until it ends; says how it ended, or why it could not be started.
    fn run_once(&self, tail: &mut Tail, stop: &AtomicBool) -> Result<String, String> {
        let id = container_id(&node_id(&self.application_instance_id, &self.node))?;
        let bundle = self.places.run.join("bundles").join(&id);
        let node = self.places.node(&self.application_instance_id, &self.node);
        let outcome = self.prepare(&id, &bundle, &node).and_then(|logs| self.attend(&id, &bundle, &logs, tail, stop));
        kill(&self.places, &id);
        match rustix::mount::unmount(bundle.join("rootfs"), UnmountFlags::DETACH) {
            Err(error) if outcome.is_ok() => log::warn!("unmount the root of {}: {error}", self.node),
            _ => {}
        }
        let _ = std::fs::remove_dir_all(&bundle);
        outcome
    }

    /// Makes what the runtime starts from; the directory of the program's log files.
    fn prepare(&self, id: &str, bundle: &Path, node: &Path) -> Result<PathBuf, String> {
        let container = self.bundle(id, bundle, node)?;
        let configuration = container::configuration(&container)?;
        #[expect(clippy::disallowed_methods, reason = "on a tmpfs, for one start of the container")]
        std::fs::write(bundle.join("config.json"), configuration.to_string())
            .map_err(|error| format!("write the container's configuration: {error}"))?;
        Ok(container.logs)
    }

    /// Makes the directories and the root tree.
    fn bundle(&self, id: &str, bundle: &Path, node: &Path) -> Result<Container, String> {
        let inside = |path: &Path, mode: u32| owned_directory(path, mode, self.places.first_id);
        let outside = |path: &Path| owned_directory(path, 0o711, 0);
        let rootfs = bundle.join("rootfs");
        for path in [&self.places.run.join("bundles"), bundle, &rootfs] {
            outside(path)?;
        }
        for path in node.ancestors().take_while(|path| path.starts_with(&self.places.state)).collect::<Vec<_>>().iter().rev()
        {
            outside(path)?;
        }
        let (logs, storage) = (node.join("logs"), self.places.instance(&self.application_instance_id).join("storage"));
        inside(&logs, 0o755)?;
        inside(&storage, 0o755)?;
        let (upper, work) = (node.join("upper"), node.join("work"));
        for path in [&upper, &work] {
            match std::fs::remove_dir_all(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("empty {}: {error}", path.display()));
                }
                _ => {}
            }
            inside(path, 0o755)?;
        }
        let lower = self.places.trees().join(&self.tree);
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let options = CString::new(options).map_err(|_| "a path holds a NUL byte".to_owned())?;
        rustix::mount::mount("overlay", &rootfs, "overlay", MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str())
            .map_err(|error| format!("mount the root tree: {error}"))?;
        let hosts = bundle.join("hosts");
        #[expect(clippy::disallowed_methods, reason = "on a tmpfs, for one start of the container")]
        std::fs::write(&hosts, "127.0.0.1 localhost belvedere\n::1 localhost\n")
            .map_err(|error| format!("write {}: {error}", hosts.display()))?;
        Ok(Container {
            application_instance_id: self.application_instance_id.clone(),
            node: self.node.clone(),
            region: self.region.clone(),
            entry: self.entry.clone(),
            rootfs,
            logs,
            storage,
            sockets: self.sockets.clone(),
            sdk: self.places.sdk.clone(),
            hosts,
            first_id: self.places.first_id,
            ids: self.places.ids,
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(65_536).min(65_536),
            cgroup: self.places.cgroups.then(|| format!("/belvedere-containers/{id}")),
        })
    }

    /// Starts the container and stays with it to its end.
    fn attend(&self, id: &str, bundle: &Path, logs: &Path, tail: &mut Tail, stop: &AtomicBool) -> Result<String, String> {
        let mut child = command(&self.places)
            .arg("run")
            .arg("--bundle")
            .arg(bundle)
            .arg(id)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("start {}: {error}", self.places.crun.display()))?;
        let readers = [self.forward(child.stdout.take()), self.forward(child.stderr.take())];
        self.say("the container starts");
        self.set(ContainerState::Running);
        let mut follow = || {
            let stream = &self.node;
            if let Err(error) = tail.poll(logs, |line| self.spool.push(&self.application_instance_id, stream, line)) {
                log::warn!("follow the logs of {}: {error}", self.node);
            }
        };
        let mut next = Instant::now();
        let mut asked: Option<Instant> = None;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => return Err(format!("wait for the container: {error}")),
            }
            match (stop.load(Ordering::Relaxed), asked) {
                (true, None) => {
                    runtime(&self.places, &["kill", id, "TERM"]);
                    asked = Some(Instant::now());
                }
                (true, Some(since)) if since.elapsed() > PATIENCE => {
                    // The runtime's own process ends with the container, after it has tidied up.
                    kill(&self.places, id);
                    asked = Some(Instant::now());
                }
                _ => {}
            }
            if Instant::now() >= next {
                follow();
                next = Instant::now() + Duration::from_secs(1);
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        for reader in readers.into_iter().flatten() {
            let _ = reader.join();
        }
        follow();
        Ok(match status.code() {
            Some(code) => format!("the program ended with exit status {code}"),
            None => format!("the container's runtime ended: {status}"),
        })
    }

    fn forward(&self, pipe: Option<impl Read + Send + 'static>) -> Option<std::thread::JoinHandle<()>> {
        let mut pipe = pipe?;
        let (spool, id) = (self.spool.clone(), self.application_instance_id.clone());
        Some(std::thread::spawn(move || {
            let mut lines = Lines::default();
            let mut buffer = [0; 8_192];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                lines.feed(&buffer[..count], |line| spool.push(&id, CONSOLE, line));
            }
            lines.finish(|line| spool.push(&id, CONSOLE, line));
        }))
    }
}

/// Makes a directory (and leaves one that is there) with this mode and, when we are root, this owner.
fn owned_directory(path: &Path, mode: u32, owner: u32) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |error: std::io::Error| format!("make {}: {error}", path.display());
    std::fs::create_dir_all(path).map_err(fail)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(owner), Some(owner)).map_err(fail)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)
}
