//! The second stage's preparations: mounts, directories, control groups, the `data` partition.

use crate::command_line::{self, CommandLine};
use crate::console::Console;
use crate::table::{Kernel, SERVICES, SERVICES_WEIGHT, Service, user_of};
use crate::watchdog::{Watchdog, feed_during};
use crate::{Result, device_filter, devices, named, slots, view};
use belvedere_boot_slots::Reset;
use belvedere_interfaces::{paths, users};
use belvedere_storage::{data, mapped, mounts, partitions};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::MountFlags;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const CGROUPS: &str = "/sys/fs/cgroup";
/// What control groups limit and count.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
/// Where the control groups of containers are, made by crun as `applications` tells it.
pub const CONTAINERS_CGROUP: &str = "/sys/fs/cgroup/belvedere-containers";
/// How long mounting `data` may take: the journal of an unclean end is written back by then.
const MOUNT_TIME: Duration = Duration::from_secs(15 * 60);

/// The program of a service.
pub fn program_of(name: &str) -> String {
    format!("{}/belvedere-{name}", paths::PROGRAMS)
}

/// The control group of a service.
pub fn cgroup_of(service: &Service) -> String {
    format!("{CGROUPS}/services/{}", service.name)
}

/// Writes a file of `/proc`, `/sys` or a control group.
pub fn write_kernel_file(path: &str, value: &str) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).map_err(named("open", path))?;
    file.write_all(value.as_bytes()).map_err(named(&format!("write {value:?} to"), path))
}

fn text<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

/// Mounts what needs no disk. What a development kernel lacks is said and left out.
pub fn mount_kernel_file_systems() -> Result<()> {
    let nodes = MountFlags::NOSUID | MountFlags::NOEXEC;
    mounts::mount_new("devpts", "/dev/pts", "devpts", nodes, "ptmxmode=0666,mode=620").map_err(text)?;
    mounts::mount_new("tmpfs", "/dev/shm", "tmpfs", mounts::DATA_ONLY, "mode=1777").map_err(text)?;
    mounts::mount("tmpfs", "/run", "tmpfs", mounts::PLAIN, "mode=755").map_err(text)?;
    mounts::mount("tmpfs", "/tmp", "tmpfs", mounts::PLAIN, "mode=1777").map_err(text)?;
    mounts::mount("tmpfs", "/var", "tmpfs", mounts::PLAIN, "mode=755").map_err(text)?;
    mounts::mount("cgroup2", CGROUPS, "cgroup2", mounts::DATA_ONLY, "").map_err(text)
}

/// The EFI variables, read-only; without UEFI there are none.
pub fn mount_efi_variables(console: &Console) {
    if Path::new(slots::VARIABLES).is_dir()
        && let Err(error) = slots::mount_variables()
    {
        console.say(&error);
    }
}

/// Reads the signed command line again: the first stage hands nothing over but the verified root.
pub fn read_command_line() -> Result<CommandLine> {
    command_line::parse(&std::fs::read_to_string("/proc/cmdline").map_err(named("read", "/proc/cmdline"))?)
}

/// Makes a directory, or takes the one that is there, with this owner and mode. A link is not taken: who can write the
/// disk from outside would choose with one which directory of the machine is given away.
fn directory(path: &str, owner: u32, mode: u32) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(named("make", path)(error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(named("open the directory", path))?;
    rustix::fs::fchown(&opened, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner))).map_err(named("give away", path))?;
    rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode)).map_err(named("set the mode of", path))
}

/// Settings of the kernel that close what nobody here uses: following and reusing others' files in directories where
/// everybody writes, and addresses, messages and programs of the kernel.
const SETTINGS: [(&str, &str); 8] = [
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    ("fs/suid_dumpable", "0"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/unprivileged_bpf_disabled", "1"),
];

/// Writes them; what a kernel does not have is said.
fn write_settings(console: &Console) {
    for (name, value) in SETTINGS {
        if let Err(error) = write_kernel_file(&format!("/proc/sys/{name}"), value) {
            console.say(&error);
        }
    }
}

/// The sockets' directory, which is root's, and in it a directory for each service, which is that service's: nobody can
/// take a name, place a link or leave a file where another makes its socket.
pub fn make_sockets_directories() -> Result<()> {
    directory(paths::SOCKETS, 0, 0o755)?;
    directory(&format!("{}/init", paths::SOCKETS), 0, 0o755)?;
    for service in SERVICES {
        directory(&format!("{}/{}", paths::SOCKETS, service.name), user_of(service), 0o755)?;
    }
    Ok(())
}

/// Brings up the loopback interface.
pub fn loopback_up() -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    /// `struct ifreq`: name, then a union whose first two bytes are the flags here.
    #[repr(C, align(8))]
    struct Request([u8; 40]);
    const SIOCSIFFLAGS: rustix::ioctl::Opcode = 0x8914;
    let mut request = Request([0; 40]);
    request.0[..2].copy_from_slice(b"lo");
    // IFF_UP | IFF_RUNNING
    request.0[16..18].copy_from_slice(&0x41u16.to_ne_bytes());
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(named("open", "a socket"))?;
    // SAFETY: SIOCSIFFLAGS reads a `struct ifreq`, which is 40 bytes on 64-bit machines, and writes nothing.
    unsafe {
        let call = rustix::ioctl::Setter::<SIOCSIFFLAGS, Request>::new(request);
        rustix::ioctl::ioctl(&socket, call).map_err(named("bring up", "the loopback interface"))
    }
}

/// Control groups of all services, with their limits, and the group of all containers.
pub fn make_control_groups(console: &Console) -> Result<()> {
    let enable = |group: &str| {
        for controller in CONTROLLERS {
            if let Err(error) = write_kernel_file(&format!("{group}/cgroup.subtree_control"), &format!("+{controller}")) {
                // A kernel without it (development) limits less, and works.
                console.say(&format!("no limits by {controller}: {error}"));
            }
        }
    };
    enable(CGROUPS);
    for group in [format!("{CGROUPS}/services"), CONTAINERS_CGROUP.to_owned()] {
        std::fs::create_dir_all(&group).map_err(named("make", &group))?;
        enable(&group);
    }
    if let Err(error) = write_kernel_file(&format!("{CGROUPS}/services/cpu.weight"), &SERVICES_WEIGHT.to_string()) {
        console.say(&error);
    }
    let registered = std::fs::read_to_string("/proc/devices").map_err(named("read", "/proc/devices"))?;
    for service in SERVICES {
        let group = cgroup_of(service);
        std::fs::create_dir_all(&group).map_err(named("make", &group))?;
        let limits = [
            ("memory.max", service.memory * 1024 * 1024),
            ("cpu.weight", service.processor_weight),
            ("pids.max", service.tasks),
        ];
        for (file, value) in limits {
            if let Err(error) = write_kernel_file(&format!("{group}/{file}"), &value.to_string()) {
                console.say(&error);
            }
        }
        let _ = write_kernel_file(&format!("{group}/memory.oom.group"), "1");
        device_filter::attach(&group, &devices::rules(service, &registered))?;
    }
    Ok(())
}

/// Ends everything in a control group and below.
pub fn kill_group(group: &str) {
    let _ = write_kernel_file(&format!("{group}/cgroup.kill"), "1");
}

/// Mounts the `data` volume, which the first stage opened, making its file system at the first start, and the services'
/// directories on it. Gives the reset that is under way, whose part before that is done.
pub fn mount_data(console: &Console, watchdog: &mut Option<Watchdog>) -> Result<Reset> {
    let partition = mapped::find(partitions::SYSFS, "data").map_err(text)?;
    let reset = slots::partition().map_or(Reset::None, |table| slots::reset_under_way(&table.device));
    let made = feed_during(watchdog, data::LONGEST, || data::prepare(&partition, &mut |line| console.say(line)));
    let made = made.map_err(text)?;
    if made {
        console.say(&format!("made the data file system on {}", partition.device.display()));
    }
    let reserve = data::Reserve { user: users::RESERVE_NOBODY, group: users::RESERVE_GROUP };
    let mount = || data::mount(&partition, paths::DATA, reserve);
    if let Err(error) = feed_during(watchdog, MOUNT_TIME, mount) {
        console.say(&format!("{error}; it is checked, and mounted again"));
        feed_during(watchdog, data::LONGEST, || data::repair(&partition, &mut |line| console.say(line))).map_err(text)?;
        feed_during(watchdog, MOUNT_TIME, mount).map_err(text)?;
    }
    feed_during(watchdog, MOUNT_TIME, own_directories)?;
    Ok(reset)
}

/// Makes the services' directories on the mounted partition, or gives them to their services.
fn own_directories() -> Result<()> {
    directory(paths::DATA, 0, 0o755)?;
    for (path, name) in [
        (paths::IDENTITY, "provisioning"),
        (paths::NETWORK_STATE, "network"),
        (paths::AGENT_STATE, "agent"),
        (paths::APPLICATIONS_STATE, "applications"),
    ] {
        let owner = SERVICES.iter().find(|service| service.name == name).map_or(0, user_of);
        // Containers' files are below; their users must be able to pass, not to list.
        let containers = SERVICES.iter().any(|service| service.name == name && service.kernel == Kernel::Containers);
        let mode = if containers { 0o711 } else { 0o700 };
        directory(path, owner, mode)?;
    }
    let data = rustix::fs::open(paths::DATA, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, Mode::empty())
        .map_err(named("open", paths::DATA))?;
    rustix::fs::syncfs(&data).map_err(named("synchronise", paths::DATA))
}

/// What the preparations found.
pub struct Prepared {
    /// The signed command line.
    pub line: CommandLine,
    /// The services' device nodes.
    pub nodes: devices::Nodes,
    /// The reset that is under way.
    pub reset: Reset,
}

/// Everything before the first service, and the services' device nodes.
pub fn prepare(console: &Console, watchdog: &mut Option<Watchdog>) -> Result<Prepared> {
    mount_kernel_file_systems()?;
    write_settings(console);
    mount_efi_variables(console);
    let line = read_command_line()?;
    rustix::system::sethostname(b"belvedere").map_err(named("set", "the host name"))?;
    loopback_up()?;
    make_sockets_directories()?;
    directory(view::WHOLE_PROC, 0, 0o700)?;
    devices::make_directories()?;
    make_control_groups(console)?;
    let reset = mount_data(console, watchdog)?;
    let mut nodes = devices::Nodes::default();
    for error in nodes.give().into_iter().chain(devices::give_lights()) {
        console.say(&error);
    }
    Ok(Prepared { line, nodes, reset })
}

#[cfg(test)]
mod tests {
    use super::directory;
    use std::os::unix::fs::{MetadataExt, symlink};

    /// boot L12: a link on `data` chose which directory of the machine was given away.
    #[test]
    fn a_directory_is_made_or_taken_and_a_link_is_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        let owner = rustix::process::getuid().as_raw();
        let mode = |name: &str| std::fs::metadata(path(name)).unwrap().mode() & 0o7777;
        for _ in 0..2 {
            directory(&path("agent"), owner, 0o700).unwrap();
            assert_eq!(mode("agent"), 0o700);
        }
        directory(&path("agent"), owner, 0o711).unwrap();
        assert_eq!(mode("agent"), 0o711);
        symlink(path("agent"), path("link")).unwrap();
        assert!(directory(&path("link"), owner, 0o777).is_err());
        assert_eq!(mode("agent"), 0o711);
        std::fs::write(path("file"), "").unwrap();
        assert!(directory(&path("file"), owner, 0o700).is_err());
    }
}
