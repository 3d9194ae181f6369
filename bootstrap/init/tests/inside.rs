//! boot D9: what a service can touch is what the table says, seen from inside: real processes with the real launcher's
//! steps around them. Needs root, as the launcher does.
//!
//! A test starts this program again with the name of a service; the second process lays out a machine in a mount name
//! space of its own, becomes the service, and tries everything in [`forbidden`].

use belvedere_init::table::{Kernel, SERVICES, Service, number_of};
use belvedere_init::{devices, launcher, machine, view};
use belvedere_interfaces::paths;
use belvedere_storage::mounts;
use rustix::fs::{CWD, FileType, Mode, makedev};
use rustix::mount::MountFlags;
use std::fs::OpenOptions;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

const INSIDE: &str = "BELVEDERE_TEST_INSIDE";
const EFI: &str = "/sys/firmware/efi/efivars";

/// A machine with a disk, memory, EFI variables, a camera and everybody's data, that nobody else sees.
fn lay_out() {
    // SAFETY: this thread alone gets the name space, and nothing of it is shared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    mounts::make_private().unwrap();
    for path in ["/run", "/var", "/dev"] {
        mounts::mount("tmpfs", path, "tmpfs", MountFlags::empty(), "mode=755").unwrap();
    }
    let node = |name: &str, kind: FileType, major: u32, minor: u32| {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, Path::new("/dev").join(name), kind, mode, makedev(major, minor)).unwrap();
    };
    node("vda", FileType::BlockDevice, 7, 0);
    node("vda6", FileType::BlockDevice, 7, 1);
    node("mem", FileType::CharacterDevice, 1, 1);
    node("kmsg", FileType::CharacterDevice, 1, 11);
    node("watchdog0", FileType::CharacterDevice, 1, 3);
    node("tpm0", FileType::CharacterDevice, 1, 3);
    node("tpmrm0", FileType::CharacterDevice, 1, 3);
    node("tee0", FileType::CharacterDevice, 1, 3);
    node("teepriv0", FileType::CharacterDevice, 1, 3);
    // Stands for a camera's decoder: reads as zeros.
    node("video0", FileType::CharacterDevice, 1, 5);
    mounts::mount("tmpfs", "/sys/firmware", "tmpfs", MountFlags::empty(), "mode=755").unwrap();
    std::fs::create_dir_all(EFI).unwrap();
    mounts::mount("tmpfs", EFI, "tmpfs", MountFlags::empty(), "mode=755").unwrap();
    std::fs::write(format!("{EFI}/BootOrder"), "x").unwrap();
    for service in SERVICES {
        let directory = format!("{}/{}", paths::DATA, service.name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(format!("{directory}/state"), "x").unwrap();
        let id = belvedere_init::table::user_of(service);
        std::os::unix::fs::chown(&directory, Some(id), Some(id)).unwrap();
        std::os::unix::fs::chown(format!("{directory}/state"), Some(id), Some(id)).unwrap();
    }
    std::fs::create_dir(view::WHOLE_PROC).unwrap();
    machine::make_sockets_directories().unwrap();
    devices::make_directories().unwrap();
    assert_eq!(devices::Nodes::default().give(), [""; 0]);
}

fn opens(path: &str, write: bool) -> bool {
    OpenOptions::new().read(!write).write(write).open(path).is_ok()
}

/// What no service may do, and whether it could. `service` is its name.
fn forbidden(service: &str) -> Vec<(String, bool)> {
    let mut tried: Vec<(String, bool)> = [
        ("/dev/vda", false),
        ("/dev/vda", true),
        ("/dev/vda6", true),
        ("/dev/kmsg", true),
        ("/dev/watchdog0", true),
        ("/dev/tpm0", true),
        ("/proc/sys/kernel/core_pattern", true),
        ("/proc/sys/vm/overcommit_memory", true),
        ("/sys/firmware/efi/efivars/BootOrder", true),
        ("/sys/firmware/efi/efivars/BootOrder", false),
    ]
    .map(|(path, write)| (format!("{} {path}", if write { "write" } else { "read" }), opens(path, write)))
    .to_vec();
    // /dev/mem refuses most programs on its own; that it is not there is what counts.
    tried.push(("see /dev/mem".into(), Path::new("/dev/mem").exists()));
    for other in SERVICES.iter().filter(|other| other.name != service) {
        let state = format!("{}/{}/state", paths::DATA, other.name);
        tried.push((format!("read the state of {}", other.name), opens(&state, false)));
        tried.push((format!("see the devices of {}", other.name), devices::directory_of(other).join("null").exists()));
    }
    // boot D14: all sockets were in one directory of everybody's. The container manager has root's rights over files.
    if service != "applications" {
        for other in SERVICES.iter().map(|other| other.name).filter(|other| *other != service).chain(["init", "."]) {
            let name = format!("{}/{other}/.taken", paths::SOCKETS);
            let could = std::fs::create_dir(&name).is_ok();
            tried.push((format!("take a name where {other} makes its socket"), could));
            let _ = std::fs::remove_dir(&name);
        }
    }
    let made = rustix::fs::mknodat(CWD, "/tmp/disk", FileType::BlockDevice, Mode::from_raw_mode(0o600), makedev(7, 0));
    tried.push(("make a node of the disk".into(), made.is_ok()));
    if made.is_ok() {
        let _ = std::fs::remove_file("/tmp/disk");
    }
    if service != "decoder" {
        tried.push(("read /dev/video0".into(), opens("/dev/video0", false)));
    }
    if service != "provisioning" {
        tried.push(("write /dev/tpmrm0".into(), opens("/dev/tpmrm0", true)));
        tried.push(("write /dev/tee0".into(), opens("/dev/tee0", true)));
    }
    // Who serves OP-TEE's storage could serve it an older one.
    tried.push(("write /dev/teepriv0".into(), opens("/dev/teepriv0", true)));
    tried
}

/// What the service needs and must still have.
fn needed(service: &Service) -> Vec<(&'static str, bool)> {
    let own = format!("{}/{}/state", paths::DATA, service.name);
    let mut tried = vec![
        ("write /dev/null", opens("/dev/null", true)),
        ("read /dev/urandom", opens("/dev/urandom", false)),
        ("write its own state", opens(&own, true)),
        ("read its own status", std::fs::read_to_string("/proc/thread-self/status").is_ok()),
        ("read the boot's number", opens("/proc/sys/kernel/random/boot_id", false)),
        ("write a temporary file", std::fs::write("/tmp/x", "x").is_ok()),
        ("write shared memory", std::fs::write("/dev/shm/x", "x").is_ok()),
        ("make its own socket", UnixListener::bind(format!("{}/{}/x.sock", paths::SOCKETS, service.name)).is_ok()),
    ];
    if service.name == "decoder" {
        tried.push(("read /dev/video0", opens("/dev/video0", false)));
    }
    if service.name == "provisioning" {
        tried.push(("write /dev/tpmrm0", opens("/dev/tpmrm0", true)));
        tried.push(("write /dev/tee0", opens("/dev/tee0", true)));
    }
    if service.kernel != Kernel::Containers {
        let flags = rustix::fs::statvfs("/sys").unwrap().f_flag;
        let read_only = flags.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        tried.push(("have /sys as the table says", read_only == (service.kernel == Kernel::ReadOnly)));
        // Process 1 is root's: it is not even seen.
        tried.push(("not see others' processes", !Path::new("/proc/1").exists()));
    }
    tried
}

/// A host may itself lack a right or a limit that a service gets on an appliance; all it has is given.
fn as_far_as_this_host_goes(service: &Service) -> Service {
    let permitted = rustix::thread::capabilities(None).unwrap().permitted;
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let capabilities = service.capabilities.intersection(permitted);
    Service { capabilities, open_files: service.open_files.min(most), ..*service }
}

fn perform(name: &str) -> ! {
    lay_out();
    let wrong: Vec<String> = if name == "nobody" {
        // Without the launcher's steps all of it is possible: the tests below can fail.
        forbidden("").into_iter().filter(|(_, could)| !could).map(|(what, _)| format!("cannot {what}")).collect()
    } else {
        let service = &as_far_as_this_host_goes(&SERVICES[number_of(name).unwrap()]);
        launcher::narrow(service).unwrap();
        let could = forbidden(name).into_iter().filter(|(_, could)| *could).map(|(what, _)| format!("can {what}"));
        let lacks = needed(service).into_iter().filter(|(_, could)| !could).map(|(what, _)| format!("cannot {what}"));
        could.chain(lacks).collect()
    };
    for line in &wrong {
        eprintln!("{name} {line}");
    }
    std::process::exit(if wrong.is_empty() { 42 } else { 1 })
}

/// Does nothing unless started by another test.
#[test]
fn inside() {
    if let Ok(name) = std::env::var(INSIDE) {
        perform(&name);
    }
}

fn outcome(name: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside", "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.code() == Some(42) {
        return String::new();
    }
    format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// Where the host has control groups of the second version.
fn control_groups() -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("mount a cgroup2 file system");
    line.split(' ').nth(1).unwrap().to_owned()
}

/// Removed when the test ends.
struct Group(String);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A service that can mount makes itself the nodes, or mounts the kernel's: the filter of its control group holds.
#[test]
fn no_way_to_a_node_opens_a_disk_or_a_device_that_the_table_does_not_name() {
    assert!(rustix::process::geteuid().is_root(), "run the tests as root: they start services as init does");
    // Opens what its name says, in the group that it is told, with all the rights of root.
    let try_to_open = |group: Option<&str>, device: &str| {
        let script = "[ -z \"$1\" ] || echo 0 > $1/cgroup.procs; exec dd if=$2 of=/dev/null count=0";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", group.unwrap_or_default(), device]).stdin(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    };
    let nodes = tempfile::tempdir().unwrap();
    let node = |name: &str, kind: FileType, major: u32, minor: u32| {
        let path = nodes.path().join(name);
        rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), makedev(major, minor)).unwrap();
        path.display().to_string()
    };
    let disk = node("disk", FileType::BlockDevice, 7, 0);
    let zero = node("zero", FileType::CharacterDevice, 1, 5);
    let log = node("log", FileType::CharacterDevice, 1, 11);
    for device in [&disk, &log] {
        assert!(try_to_open(None, device), "without a filter {device} opens: this test can fail");
    }
    let registered = std::fs::read_to_string("/proc/devices").unwrap();
    for service in SERVICES {
        let group = Group(format!("{}/belvedere-test-{}-{}", control_groups(), std::process::id(), service.name));
        std::fs::create_dir(&group.0).unwrap();
        belvedere_init::device_filter::attach(&group.0, &devices::rules(service, &registered)).unwrap();
        assert!(!try_to_open(Some(&group.0), &disk), "{} opens the disk", service.name);
        assert!(!try_to_open(Some(&group.0), &log), "{} opens the kernel's log", service.name);
        assert!(try_to_open(Some(&group.0), &zero), "{} opens /dev/zero", service.name);
    }
}

#[test]
fn without_the_launcher_all_of_it_is_possible() {
    assert!(rustix::process::geteuid().is_root(), "run the tests as root: they start services as init does");
    assert_eq!(outcome("nobody"), "");
}

#[test]
fn no_service_reaches_disks_efi_variables_kernel_settings_or_anothers_data() {
    assert!(rustix::process::geteuid().is_root(), "run the tests as root: they start services as init does");
    for service in SERVICES {
        assert_eq!(outcome(service.name), "", "{}", service.name);
    }
}
