//! What each service finds in its `/dev`: the device nodes of the table and nothing else.
//!
//! The kernel's own `/dev` holds every node of the machine, the disks among them, and whoever is root or overrides file
//! permissions opens them. So a service never sees it. `init` keeps a directory of nodes for each service on a file
//! system of its own, [`ROOT`]; the launcher mounts a service's directory on its `/dev`. Nodes of devices that come later
//! appear there, and those of devices that are gone disappear, before another device can have their number.
//!
//! [`changes`] decides, [`Nodes::give`] does it.

use crate::device_filter::Rule;
use crate::table::{SERVICES, Service, user_of};
use crate::{Result, named};
use belvedere_interfaces::paths;
use belvedere_storage::mounts;
use rustix::fs::{CWD, Dev, FileType, Gid, Mode, Uid};
use rustix::mount::MountFlags;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The services' directories of nodes; nobody but root passes.
pub const ROOT: &str = "/run/belvedere-devices";
/// What every program may expect: name, major and minor number.
const COMMON: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Where the devices of the table's patterns are: pattern, the name under which the kernel has registered their major number
/// (`/proc/devices`), and their minor number, or all with that name. A pattern that is not here opens nothing.
const REGISTERED: [(&str, &str, Option<u32>); 5] = [
    ("video*", "video4linux", None),
    ("dri/card*", "drm", None),
    ("dri/renderD*", "drm", None),
    // Behind the room for those without the resource manager (`TPM_NUM_DEVICES`).
    ("tpmrm0", "tpm", Some(65_536)),
    // `teepriv0` is 16.
    ("tee0", "tee", Some(0)),
];
/// Major number of SCSI disks, which USB sticks are.
const SCSI_DISKS: u32 = 8;

/// What the processes of a service may open: what can be in its `/dev`. `registered` is the text of `/proc/devices`.
/// Not the nodes that there are, as devices come later.
pub fn rules(service: &Service, registered: &str) -> Vec<Rule> {
    let characters = registered.split("\nBlock devices:").next().unwrap_or_default();
    let major_of = |wanted: &str| {
        characters.lines().find_map(|line| {
            let (major, name) = line.trim().split_once(' ')?;
            (name == wanted).then(|| major.parse().ok())?
        })
    };
    let common = COMMON.iter().map(|(_, major, minor)| Rule { block: false, major: *major, minor: Some(*minor) });
    let of_pattern = |pattern: &&str| {
        let (_, name, minor) = REGISTERED.iter().find(|(known, _, _)| known == pattern)?;
        Some(Rule { block: false, major: major_of(name)?, minor: *minor })
    };
    let sticks = service.sticks.then_some(Rule { block: true, major: SCSI_DISKS, minor: None });
    common.chain(service.devices.iter().filter_map(of_pattern)).chain(sticks).collect()
}

/// A node: what kind, which device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// A block device, and not a character device.
    pub block: bool,
    /// Its number.
    pub device: Dev,
}

/// The nodes of one service, by their path below `/dev`.
pub type Given = BTreeMap<String, Node>;

/// The difference between what a service has and what it is to have.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// First: take these away.
    pub take: Vec<String>,
    /// Then: make these.
    pub make: Vec<(String, Node)>,
}

/// What to do so that a service that has `given` has `wanted`.
pub fn changes(given: &Given, wanted: &Given) -> Changes {
    let stays = |path: &String, node: &Node| wanted.get(path) == Some(node);
    Changes {
        take: given.iter().filter(|(path, node)| !stays(path, node)).map(|(path, _)| path.clone()).collect(),
        make: wanted
            .iter()
            .filter(|(path, node)| given.get(*path) != Some(node))
            .map(|(path, node)| (path.clone(), *node))
            .collect(),
    }
}

/// The directory of a service's nodes.
pub fn directory_of(service: &Service) -> PathBuf {
    Path::new(ROOT).join(service.name)
}

/// Makes the directories, with what every program expects in them.
pub fn make_directories() -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mounts::mount_new("tmpfs", ROOT, "tmpfs", flags, "size=1m,mode=700").map_err(|error| error.to_string())?;
    for service in SERVICES {
        make_directory(&directory_of(service))?;
    }
    Ok(())
}

/// Makes one such directory.
pub fn make_directory(directory: &Path) -> Result<()> {
    for path in [directory.to_owned(), directory.join("shm"), directory.join("pts")] {
        std::fs::create_dir_all(&path).map_err(named("make", path.display()))?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o755)).map_err(named("set the mode of", path.display()))?;
    }
    for (name, major, minor) in COMMON {
        let node = Node { block: false, device: rustix::fs::makedev(major, minor) };
        make_node(&directory.join(name), node, 0, 0o666)?;
    }
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")]
    {
        std::os::unix::fs::symlink(target, directory.join(name)).map_err(named("make", name))?;
    }
    Ok(())
}

fn make_node(path: &Path, node: Node, owner: u32, mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(named("make", parent.display()))?;
    }
    let kind = if node.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), node.device)
        .map_err(named("make the node", path.display()))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(named("set the mode of", path.display()))?;
    rustix::fs::chown(path, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
        .map_err(named("give away", path.display()))
}

/// All services' nodes, as they are now.
#[derive(Default)]
pub struct Nodes {
    given: BTreeMap<&'static str, Given>,
    /// What could not be made is said once, not at every look.
    said: std::collections::BTreeSet<String>,
}

impl Nodes {
    /// Looks which devices there are and gives each service its own. Returns what could not be done and was not said yet.
    pub fn give(&mut self) -> Vec<String> {
        let mut errors = Vec::new();
        for service in SERVICES {
            let wanted = wanted(service, Path::new("/"));
            let given = self.given.entry(service.name).or_default();
            let directory = directory_of(service);
            let changes = changes(given, &wanted);
            for path in changes.take {
                let _ = std::fs::remove_file(directory.join(&path));
                given.remove(&path);
            }
            for (path, node) in changes.make {
                match make_node(&directory.join(&path), node, user_of(service), 0o600) {
                    Ok(()) => drop(given.insert(path, node)),
                    Err(error) => errors.push(error),
                }
            }
        }
        errors.retain(|error| self.said.len() < 1000 && self.said.insert(error.clone()));
        errors
    }
}

/// What a service is to have of the devices that there are, below `root`.
fn wanted(service: &Service, root: &Path) -> Given {
    let mut wanted = Given::new();
    for pattern in service.devices {
        for path in matching(&root.join("dev"), pattern) {
            let Ok(found) = rustix::fs::lstat(root.join("dev").join(&path)) else { continue };
            let block = match FileType::from_raw_mode(found.st_mode) {
                FileType::BlockDevice => true,
                FileType::CharacterDevice => false,
                _ => continue,
            };
            wanted.insert(path, Node { block, device: found.st_rdev });
        }
    }
    if service.sticks {
        wanted.extend(sticks(&root.join("sys"), own_disk(&root.join("sys"), paths::DATA).as_deref()));
    }
    wanted
}

/// Disks behind USB and their partitions; never the one that the appliance itself runs from.
fn sticks(sys: &Path, own: Option<&str>) -> Given {
    let entries = std::fs::read_dir(sys.join("class/block")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let path = std::fs::canonicalize(entry.path()).ok()?;
            let part =
                |test: &dyn Fn(&str) -> bool| path.components().any(|part| part.as_os_str().to_str().is_some_and(test));
            if !part(&|part| part.starts_with("usb")) || part(&|part| Some(part) == own) {
                return None;
            }
            let numbers = std::fs::read_to_string(path.join("dev")).ok()?;
            let (major, minor) = numbers.trim().split_once(':')?;
            let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
            Some((entry.file_name().into_string().ok()?, Node { block: true, device }))
        })
        .collect()
}

/// The disk that a directory's file system is on.
fn own_disk(sys: &Path, directory: &str) -> Option<String> {
    let device = rustix::fs::stat(directory).ok()?.st_dev;
    let link = sys.join("dev/block").join(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)));
    let path = std::fs::canonicalize(link).ok()?;
    let disk = if path.join("partition").exists() { path.parent()? } else { path.as_path() };
    Some(disk.file_name()?.to_str()?.to_owned())
}

/// The lights' files, given to the service that drives them.
pub fn give_lights() -> Vec<String> {
    use belvedere_lights::{Led, SysfsLeds};
    let Some(id) = belvedere_interfaces::users::id_of("front-panel") else { return Vec::new() };
    let class = SysfsLeds::new(SysfsLeds::ROOT);
    let mut errors = Vec::new();
    for led in Led::ALL {
        for file in ["delay_on", "delay_off"] {
            let path = class.path(led, file);
            if path.exists()
                && let Err(error) = rustix::fs::chown(&path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))
            {
                errors.push(format!("give {} to front-panel: {error}", path.display()));
            }
        }
    }
    errors
}

/// The files below `root` whose path is `pattern`, in which a `*` in the last part stands for one or more digits.
fn matching(root: &Path, pattern: &str) -> Vec<String> {
    let Some((before, behind)) = pattern.split_once('*') else {
        return if root.join(pattern).exists() { vec![pattern.to_owned()] } else { Vec::new() };
    };
    let (directory, start) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(root.join(directory)) else { return Vec::new() };
    let fits = |name: &str| {
        let digits = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(behind));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| fits(name));
    names.map(|name| if directory.is_empty() { name } else { format!("{directory}/{name}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_digits_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dri")).unwrap();
        for name in ["dri/card0", "dri/card12", "dri/card", "dri/cardx", "dri/renderD128", "tpmrm0"] {
            std::fs::File::create(root.path().join(name)).unwrap();
        }
        let mut found = matching(root.path(), "dri/card*");
        found.sort();
        assert_eq!(found, ["dri/card0", "dri/card12"]);
        assert_eq!(matching(root.path(), "tpmrm*"), ["tpmrm0"]);
        assert_eq!(matching(root.path(), "tpmrm0"), ["tpmrm0"]);
        assert!(matching(root.path(), "nothing*").is_empty() && matching(root.path(), "no/where*").is_empty());
    }

    #[test]
    fn a_service_opens_what_can_be_in_its_dev_and_nothing_else() {
        let registered = "Character devices:\n  1 mem\n 10 misc\n 81 video4linux\n226 drm\n249 tee\n250 tpm\n\n\
                          Block devices:\n  8 sd\n254 tee\n";
        let of = |name: &str, registered: &str| {
            let service = SERVICES.iter().find(|service| service.name == name).unwrap();
            let mut rules = rules(service, registered);
            let common = rules.drain(..COMMON.len()).map(|rule| (rule.block, rule.major, rule.minor));
            assert!(common.eq(COMMON.map(|(_, major, minor)| (false, major, Some(minor)))));
            rules.into_iter().map(|rule| (rule.block, rule.major, rule.minor)).collect::<Vec<_>>()
        };
        let stick = (true, 8, None);
        assert_eq!(of("provisioning", registered), [(false, 250, Some(65_536)), (false, 249, Some(0)), stick]);
        assert_eq!(of("decoder", registered), [(false, 81, None)]);
        assert_eq!(of("display", registered), [(false, 226, None), (false, 226, None)]);
        for service in ["applications", "agent", "network", "camera", "inference", "front-panel"] {
            assert_eq!(of(service, registered), [], "{service}");
        }
        // A board without the devices.
        assert_eq!(of("provisioning", ""), [stick]);
        for pattern in SERVICES.iter().flat_map(|service| service.devices) {
            assert!(REGISTERED.iter().any(|(known, _, _)| known == pattern), "{pattern} would open nothing");
        }
    }

    fn node(minor: u32) -> Node {
        Node { block: true, device: rustix::fs::makedev(8, minor) }
    }

    #[test]
    fn a_number_that_another_device_has_now_is_taken_away_before_it_is_given() {
        let given = Given::from([("sda".into(), node(0)), ("sda1".into(), node(1)), ("sdb".into(), node(16))]);
        let wanted = Given::from([("sda".into(), node(32)), ("sdb".into(), node(16)), ("sdc".into(), node(1))]);
        let expected = Changes {
            take: vec!["sda".into(), "sda1".into()],
            make: vec![("sda".into(), node(32)), ("sdc".into(), node(1))],
        };
        assert_eq!(changes(&given, &wanted), expected);
        assert_eq!(changes(&wanted, &wanted), Changes { take: vec![], make: vec![] });
    }

    /// A part of `/sys`: a device's directory, and the link to it.
    fn block_device(sys: &Path, path: &str, numbers: &str, partition: bool) {
        let directory = sys.join("devices").join(path);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("dev"), format!("{numbers}\n")).unwrap();
        if partition {
            std::fs::write(directory.join("partition"), "1\n").unwrap();
        }
        for link in [format!("class/block/{}", path.rsplit_once('/').unwrap().1), format!("dev/block/{numbers}")] {
            let link = sys.join(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&directory, link).unwrap();
        }
    }

    #[test]
    fn sticks_are_what_is_behind_usb_and_not_the_disk_we_run_from() {
        let sys = tempfile::tempdir().unwrap();
        block_device(sys.path(), "virtio1/block/vda", "254:0", false);
        block_device(sys.path(), "virtio1/block/vda/vda6", "254:6", true);
        block_device(sys.path(), "pci/usb1/1-1/block/sda", "8:0", false);
        block_device(sys.path(), "pci/usb1/1-1/block/sda/sda1", "8:1", true);
        block_device(sys.path(), "pci/usb1/1-2/block/sdb", "8:16", false);
        let names = |own: Option<&str>| sticks(sys.path(), own).into_keys().collect::<Vec<_>>();
        assert_eq!(names(Some("vda")), ["sda", "sda1", "sdb"]);
        assert_eq!(names(Some("sda")), ["sdb"]);
        assert_eq!(sticks(sys.path(), None).get("sda1"), Some(&node(1)));
    }
}
