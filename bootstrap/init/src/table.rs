//! The services: what each is started as, what it may do, what it may use.
//!
//! One constant table, part of the verified image. Adding a service is adding a line here and its user in
//! `formats/interfaces`.

use rustix::thread::CapabilitySet;
use std::time::Duration;

/// Which network a service sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The appliance's.
    Appliance,
    /// An empty one of its own: it can talk over Unix sockets only.
    None,
}

/// Which files a service sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// The machine's, so that what it mounts is seen by what it starts.
    Machine,
    /// The root image, a `/tmp` of its own, and of the `data` partition its own directory at most.
    Own,
}

/// One service. Its program is `/usr/lib/belvedere/bin/belvedere-<name>`, its user the one of its name.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Name.
    pub name: &'static str,
    /// Runs as `root` instead of its own user. The reason stands beside the entry.
    pub root: bool,
    /// All the capabilities that it and what it starts can ever have.
    pub capabilities: CapabilitySet,
    /// Network.
    pub network: Network,
    /// Files.
    pub files: Files,
    /// Device nodes that are given to its user. A `*` stands for any digits.
    pub devices: &'static [&'static str],
    /// Started when these are ready (or had [`PATIENCE`] to become it: a broken one does not keep others down).
    pub after: &'static [&'static str],
    /// Whether the appliance operates without it.
    pub required: bool,
    /// Memory in MiB; more ends it.
    pub memory: u64,
    /// Processes and threads.
    pub tasks: u64,
    /// Open files.
    pub open_files: u64,
    /// Stream of the device's log group that its lines go to.
    pub stream: &'static str,
    /// Ended in the first round of a shutdown, while the others still answer.
    pub first_to_end: bool,
}

/// How long a service may take to become ready. Emulated machines under load are the measure.
pub const READY_WITHIN: Duration = Duration::from_secs(90);
/// How long a service waits for those it is to be started after.
pub const PATIENCE: Duration = Duration::from_secs(15);

const PLAIN: Service = Service {
    name: "",
    root: false,
    capabilities: CapabilitySet::empty(),
    network: Network::None,
    files: Files::Own,
    devices: &[],
    after: &[],
    required: true,
    memory: 128,
    tasks: 64,
    open_files: 1024,
    stream: "syslog",
    first_to_end: false,
};

/// What `applications` may do; see there.
const CONTAINERS: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE);

/// All services, in the order in which they are started.
pub const SERVICES: &[Service] = &[
    Service { name: "front-panel", memory: 32, tasks: 48, ..PLAIN },
    Service {
        name: "network",
        // Addresses and routes; DHCP's packets before there is an address; NTP's and DHCP's ports; the clock.
        capabilities: CapabilitySet::NET_ADMIN
            .union(CapabilitySet::NET_RAW)
            .union(CapabilitySet::NET_BIND_SERVICE)
            .union(CapabilitySet::SYS_TIME),
        network: Network::Appliance,
        ..PLAIN
    },
    Service {
        name: "provisioning",
        // Mounts sticks, which it does in its own name space, and reads their blocks to tell what is wrong with them.
        // DAC_OVERRIDE because sticks' nodes come and go and belong to root; SYS_TIME because the certificate of a
        // first start is checked before anything else sets the clock.
        capabilities: CapabilitySet::SYS_ADMIN.union(CapabilitySet::DAC_OVERRIDE).union(CapabilitySet::SYS_TIME),
        network: Network::Appliance,
        devices: &["/dev/tpmrm*"],
        after: &["front-panel"],
        stream: "occ_log",
        memory: 256,
        ..PLAIN
    },
    Service { name: "decoder", devices: &["/dev/video*"], memory: 1024, tasks: 256, open_files: 4096, ..PLAIN },
    Service { name: "camera", network: Network::Appliance, memory: 512, tasks: 256, open_files: 4096, ..PLAIN },
    Service { name: "inference", memory: 2048, tasks: 256, open_files: 4096, ..PLAIN },
    Service { name: "display", devices: &["/dev/dri/card*", "/dev/dri/renderD*"], memory: 256, open_files: 4096, ..PLAIN },
    Service {
        name: "applications",
        // `root`, because crun gives a container its range of users by writing `uid_map` itself, which it does as user 0
        // only (as another user it looks for the set-user-ID program newuidmap, and no program of the image has that
        // bit); it also makes cgroups, mounts overlays and, for the container's network, interfaces. What it needs of
        // root's rights is the list above; what it does not have: modules, raw disks, the clock, restarting the machine,
        // other tracing of the kernel. The containers' own processes have none of it on the machine: their root is user
        // 100000.
        root: true,
        capabilities: CONTAINERS,
        network: Network::Appliance,
        files: Files::Machine,
        memory: 512,
        tasks: 512,
        open_files: 65_536,
        after: &["decoder", "camera", "inference", "display"],
        stream: "occ_log",
        first_to_end: true,
        ..PLAIN
    },
    Service {
        name: "agent",
        network: Network::Appliance,
        memory: 256,
        after: &["provisioning"],
        stream: "occ_log",
        first_to_end: true,
        ..PLAIN
    },
];

/// A service's number in [`SERVICES`].
pub fn number_of(name: &str) -> Option<usize> {
    SERVICES.iter().position(|service| service.name == name)
}

/// The user and group number that a service runs as.
pub fn user_of(service: &Service) -> u32 {
    if service.root { 0 } else { belvedere_interfaces::users::id_of(service.name).unwrap_or(65_534) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_interfaces::users;

    #[test]
    fn every_service_has_its_user_and_every_user_its_service() {
        for service in SERVICES {
            assert!(users::id_of(service.name).is_some(), "{}", service.name);
        }
        for user in users::USERS {
            assert_eq!(SERVICES.iter().filter(|service| service.name == user.name).count(), 1, "{}", user.name);
        }
    }

    #[test]
    fn services_come_after_what_they_wait_for() {
        for (number, service) in SERVICES.iter().enumerate() {
            for name in service.after {
                assert!(number_of(name).unwrap() < number, "{} waits for {name}", service.name);
            }
        }
    }

    #[test]
    fn who_parses_hostile_bytes_has_no_rights_and_no_files() {
        for name in ["camera", "decoder", "inference", "display", "agent"] {
            let service = &SERVICES[number_of(name).unwrap()];
            assert!(service.capabilities.is_empty() && !service.root && service.files == Files::Own, "{name}");
        }
        for name in ["decoder", "inference", "display", "front-panel"] {
            assert_eq!(SERVICES[number_of(name).unwrap()].network, Network::None, "{name}");
        }
    }

    #[test]
    fn nobody_has_the_rights_that_undo_verified_boot() {
        let never =
            CapabilitySet::SYS_MODULE | CapabilitySet::SYS_RAWIO | CapabilitySet::SYS_BOOT | CapabilitySet::MAC_ADMIN;
        for service in SERVICES {
            assert!(!service.capabilities.intersects(never), "{}", service.name);
        }
    }
}
