//! Keeps one code node's container running: makes its root tree, starts it with `crun`, forwards what it prints, and
//! starts it again when it ends. It never gives up.
//!
//! The root tree is an overlay: the unpacked archive below, read-only and shared; above it a layer that begins empty at
//! every start. What must last is in `/opt/aws/panorama/storage`. The layer of the run before is not emptied but taken
//! away by one rename ([`crate::discard`]): what a program left in it must not keep anybody from starting.

use crate::container::{self, Container};
use crate::discard::Discard;
use crate::disk::Space;
use crate::ending::{self, MemoryWatch};
use crate::health::{CodeHealth, ContainerState, back_off, line};
use crate::places::Places;
use crate::reserve;
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
/// A call of the runtime that takes longer is ended: it must not keep a supervisor from its other duties.
const CALL: Duration = Duration::from_secs(10);
/// How long what a container printed last is waited for, once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// With less room than this on the disk a container's own layer is made in memory, so that one application that fills the
/// disk does not keep others from starting.
const ROOM: u64 = 16 << 20;
/// Likewise, files.
const ROOM_FILES: u64 = 256;
/// How large such a layer may become.
const LAYER_IN_MEMORY: &std::ffi::CStr = c"size=64m,nr_inodes=16k,mode=711";
/// A program that ran so long begins its back-off anew.
const LONG_RUN: Duration = Duration::from_secs(60);

/// What is supervised.
#[derive(Clone)]
pub struct Node {
    /// Paths.
    pub places: Places,
    /// Where lines go.
    pub spool: Arc<Spool>,
    /// Where layers of earlier runs go.
    pub discard: Arc<Discard>,
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
    /// Starts the container and keeps it running, if there can be a thread for it.
    pub fn start(node: Node) -> std::io::Result<Supervisor> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::Builder::new().spawn(move || node.supervise(&told))?;
        Ok(Supervisor { stop, thread: Some(thread) })
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
        if let Err(error) = remove_bundle(&entry.path()) {
            log::warn!("remove {}: {error}", entry.path().display());
        }
    }
    if places.cgroups {
        // Groups of nodes; those of containers went with them.
        for entry in std::fs::read_dir(format!("/sys/fs/cgroup{CGROUP}")).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Below the root of the control groups; `init` makes it.
const CGROUP: &str = "/belvedere-containers";

/// Removes what [`Node::bundle`] made. By name and never by walking: as long as the root tree is mounted, a walk would
/// go through what the application has written.
fn remove_bundle(bundle: &Path) -> std::io::Result<()> {
    for name in ["rootfs", "memory"] {
        let path = bundle.join(name);
        // More than once, should it be mounted twice; an error is that it is not mounted.
        while rustix::mount::unmount(&path, UnmountFlags::DETACH).is_ok() {}
        none_is_fine(std::fs::remove_dir(&path))?;
    }
    for name in ["config.json", "hosts"] {
        none_is_fine(std::fs::remove_file(bundle.join(name)))?;
    }
    none_is_fine(std::fs::remove_dir(bundle))
}

fn none_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
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
    if !within(command(places).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()), CALL) {
        log::warn!("{} {arguments:?} did not end within {} s", places.crun.display(), CALL.as_secs());
    }
}

/// Runs a program to its end, or to its end by us.
fn within(command: &mut Command, time: Duration) -> bool {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            log::warn!("start {:?}: {error}", command.get_program());
            return true;
        }
    };
    let until = Instant::now() + time;
    while Instant::now() < until {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            _ => return true,
        }
    }
    let _ = child.kill();
    // A process that the kernel does not let go of is not waited for.
    std::thread::sleep(Duration::from_millis(50));
    let _ = child.try_wait();
    false
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
            match &state {
                ContainerState::Running => health.since = Some(Instant::now()),
                ContainerState::Starting => (health.heard, health.since) = (None, None),
                ContainerState::Ended { detail } => {
                    (health.heard, health.since) = (None, None);
                    health.ended = Some(detail.clone());
                }
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
        if let Some(group) = self.group() {
            let _ = std::fs::remove_dir(format!("/sys/fs/cgroup{group}"));
        }
    }

    /// The node's control group, above those of its containers: it outlives them, and tells of them afterwards.
    fn group(&self) -> Option<String> {
        self.places.cgroups.then(|| format!("{CGROUP}/{}", node_id(&self.application_instance_id, &self.node)))
    }

    /// Runs the container until it ends; says how it ended, or why it could not be started.
    fn run_once(&self, tail: &mut Tail, stop: &AtomicBool) -> Result<String, String> {
        let id = container_id(&node_id(&self.application_instance_id, &self.node))?;
        let bundle = self.places.run.join("bundles").join(&id);
        let node = self.places.node(&self.application_instance_id, &self.node);
        let outcome = self.prepare(&id, &bundle, &node).and_then(|logs| self.attend(&id, &bundle, &logs, tail, stop));
        kill(&self.places, &id);
        if let Err(error) = remove_bundle(&bundle) {
            log::warn!("remove the bundle of {}: {error}", self.node);
        }
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
        for name in ["upper", "work"] {
            let path = node.join(name);
            self.discard.take(&path).map_err(|error| format!("take {} away: {error}", path.display()))?;
        }
        let layer = self.layer(bundle, node)?;
        let (upper, work) = (layer.join("upper"), layer.join("work"));
        for path in [&upper, &work] {
            inside(path, 0o755)?;
        }
        let lower = self.places.trees().join(&self.tree);
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let options = CString::new(options).map_err(|_| "a path holds a NUL byte".to_owned())?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        reserve::without(|| rustix::mount::mount("overlay", &rootfs, "overlay", flags, options.as_c_str()))
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
            cgroup: self.group().map(|group| format!("{group}/{id}")),
        })
    }

    /// Where the container's own layer is made: on the disk, unless that is full.
    fn layer(&self, bundle: &Path, node: &Path) -> Result<PathBuf, String> {
        match Space::of(&self.places.state) {
            Ok(space) if space.free < ROOM || (space.files > 0 && space.free_files < ROOM_FILES) => {}
            _ => return Ok(node.to_owned()),
        }
        let memory = bundle.join("memory");
        owned_directory(&memory, 0o711, 0)?;
        rustix::mount::mount("layer", &memory, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, LAYER_IN_MEMORY)
            .map_err(|error| format!("make the container's layer in memory: {error}"))?;
        self.say("the appliance's disk is full: what the program writes outside storage and logs is kept in memory, at most 64 MiB");
        Ok(memory)
    }

    /// Starts the container and stays with it to its end.
    fn attend(&self, id: &str, bundle: &Path, logs: &Path, tail: &mut Tail, stop: &AtomicBool) -> Result<String, String> {
        let memory = self.group().map(|group| MemoryWatch::begin(&group));
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
        // The runtime's process may have ended without its container, which then holds the pipes: end that first.
        kill(&self.places, id);
        let until = Instant::now() + LAST_WORDS;
        for reader in readers.into_iter().flatten() {
            while !reader.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            // One that is not finished by now ends when the last holder of its pipe does.
        }
        follow();
        Ok(match status.code() {
            Some(code) => ending::in_words(code, memory.is_some_and(|memory| memory.out_of_memory())),
            None => format!("the container's runtime ended: {status}"),
        })
    }

    fn forward(&self, pipe: Option<impl Read + Send + 'static>) -> Option<std::thread::JoinHandle<()>> {
        let mut pipe = pipe?;
        let (spool, id) = (self.spool.clone(), self.application_instance_id.clone());
        let reader = std::thread::Builder::new().spawn(move || {
            let mut lines = Lines::default();
            let mut buffer = [0; 8_192];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                lines.feed(&buffer[..count], |line| spool.push(&id, CONSOLE, line));
            }
            lines.finish(|line| spool.push(&id, CONSOLE, line));
        });
        reader.map_err(|error| log::error!("read what {} prints: {error}", self.node)).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runtime D23: a call of the runtime had no deadline.
    #[test]
    fn a_runtime_that_hangs_is_ended() {
        let begin = Instant::now();
        assert!(!within(Command::new("sleep").arg("60"), Duration::from_millis(200)));
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert!(within(&mut Command::new("true"), Duration::from_secs(10)));
    }

    /// Runtime D1, its kind: the bundle was removed by a walk that would have gone through a root still mounted in it.
    #[test]
    fn a_bundle_is_removed_by_name_and_what_is_mounted_in_it_stays() {
        assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
        let directory = tempfile::tempdir().unwrap();
        let (bundle, tree) = (directory.path().join("bundle"), directory.path().join("tree"));
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("precious"), "x").unwrap();
        for name in ["config.json", "hosts"] {
            std::fs::write(bundle.join(name), "x").unwrap();
        }
        for _ in 0..2 {
            rustix::mount::mount_bind(&tree, bundle.join("rootfs")).unwrap();
        }
        remove_bundle(&bundle).unwrap();
        assert!(!bundle.exists() && tree.join("precious").exists());
        remove_bundle(&bundle).unwrap();
        // What we did not make is not removed either.
        std::fs::create_dir_all(bundle.join("rootfs/x")).unwrap();
        assert!(remove_bundle(&bundle).is_err() && bundle.join("rootfs/x").exists());
    }
}
