//! The services: what each is started as, what it may do, what it may use.
//!
//! One constant table, part of the verified image. Adding a service is adding a line here and its user in
//! `formats/interfaces`.

use belvedere_sandbox::launched::Launched;
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

/// What a service may write of `/sys` and the control groups. Nobody writes the kernel's settings in `/proc/sys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Nothing.
    ReadOnly,
    /// What permissions allow: the lights' files, which are given to its user.
    Lights,
    /// It makes containers and their control groups.
    Containers,
}

/// One service. It sees the root image, a `/tmp` of its own, of the `data` partition its own directory at most, and of
/// the machine's devices those that are named here ([`crate::view`]). Its program is `/usr/lib/belvedere/bin/belvedere-<name>`, its user the one of its name.
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
    /// What it may write of the kernel's files.
    pub kernel: Kernel,
    /// Device nodes in its `/dev`, which belong to its user. A `*` stands for any digits.
    pub devices: &'static [&'static str],
    /// The same for disks behind USB and their partitions, but for the disk that the appliance runs from.
    pub sticks: bool,
    /// The system calls that the launcher leaves it. `None`: it closes a tighter sandbox itself, or makes containers.
    pub sandbox: Option<Launched>,
    /// Started when these are ready (or had [`PATIENCE`] to become it: a broken one does not keep others down).
    pub after: &'static [&'static str],
    /// Whether the appliance operates without it.
    pub required: bool,
    /// Memory in MiB; more ends it.
    pub memory: u64,
    /// Its share of the processors when several want them, as the kernel's `cpu.weight`: 100 is usual. Nobody's share is
    /// taken while nobody else wants it, and nobody can take the others' all.
    pub processor_weight: u64,
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
/// How long a service that was ready may go without a sign of life. They come every few seconds; emulated machines under
/// load are the measure here, too.
pub const HEARTBEAT: Duration = Duration::from_secs(90);
/// How long a service waits for those it is to be started after.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Share of a service that computes much on bytes from outside: a flood of them leaves the others what they need.
const MUCH: u64 = 25;
/// Share of all services together, beside the containers' usual 100.
pub const SERVICES_WEIGHT: u64 = 200;

const PLAIN: Service = Service {
    name: "",
    root: false,
    capabilities: CapabilitySet::empty(),
    network: Network::None,
    kernel: Kernel::ReadOnly,
    devices: &[],
    sticks: false,
    sandbox: None,
    after: &[],
    required: true,
    memory: 128,
    processor_weight: 100,
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
    .union(CapabilitySet::AUDIT_WRITE);

/// All services, in the order in which they are started.
pub const SERVICES: &[Service] = &[
    Service {
        name: "front-panel",
        kernel: Kernel::Lights,
        sandbox: Some(Launched::FrontPanel),
        memory: 32,
        tasks: 48,
        ..PLAIN
    },
    Service {
        name: "network",
        // Addresses and routes; DHCP's packets before there is an address; NTP's and DHCP's ports; the clock.
        capabilities: CapabilitySet::NET_ADMIN
            .union(CapabilitySet::NET_RAW)
            .union(CapabilitySet::NET_BIND_SERVICE)
            .union(CapabilitySet::SYS_TIME),
        network: Network::Appliance,
        sandbox: Some(Launched::Network),
        ..PLAIN
    },
    Service {
        name: "provisioning",
        // Mounts sticks, which it does in its own name space. SYS_TIME because the certificate of a first start is
        // checked before anything else sets the clock.
        capabilities: CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_TIME),
        network: Network::Appliance,
        // The device's key: made there, and signs there.
        devices: &["tpmrm0", "tee0"],
        sticks: true,
        sandbox: Some(Launched::Provisioning),
        after: &["front-panel"],
        stream: "occ_log",
        memory: 256,
        ..PLAIN
    },
    Service {
        name: "decoder",
        devices: &["video*"],
        memory: 1024,
        processor_weight: MUCH,
        tasks: 256,
        open_files: 4096,
        ..PLAIN
    },
    Service {
        name: "camera",
        network: Network::Appliance,
        memory: 512,
        processor_weight: MUCH,
        tasks: 256,
        open_files: 4096,
        ..PLAIN
    },
    Service { name: "inference", memory: 2048, processor_weight: MUCH, tasks: 256, open_files: 4096, ..PLAIN },
    Service {
        name: "display",
        devices: &["dri/card*", "dri/renderD*"],
        memory: 256,
        processor_weight: MUCH,
        open_files: 4096,
        ..PLAIN
    },
    Service {
        name: "applications",
        // `root`, because crun gives a container its range of users by writing `uid_map` itself, which it does as user 0
        // only (as another user it looks for the set-user-ID program newuidmap, and no program of the image has that
        // bit); it also makes cgroups, mounts overlays and, for the container's network, interfaces. What it needs of
        // root's rights is the list above; what it does not have: modules, device nodes of its own making, the clock,
        // restarting the machine, tracing of the kernel or of processes (PID 1 would be among them; over its containers'
        // processes it has that right as the one who made their name space of users). It sees no disk and no other's data, like every service;
        // but with SYS_ADMIN it could mount what it does not see, and leave its control group and the device filter, so this
        // is the service that must not be taken over (docs/security.md).
        // The containers' own processes have none of it on the machine: their root is user 100000.
        root: true,
        capabilities: CONTAINERS,
        network: Network::Appliance,
        kernel: Kernel::Containers,
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
        sandbox: Some(Launched::Agent),
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
            assert!(service.capabilities.is_empty() && !service.root && !service.sticks, "{name}");
            assert_eq!(service.kernel, Kernel::ReadOnly, "{name}");
        }
        for name in ["decoder", "inference", "display", "front-panel"] {
            assert_eq!(SERVICES[number_of(name).unwrap()].network, Network::None, "{name}");
        }
    }

    /// boot L10: a decoder that was given too much to do took the processors from those that keep the appliance manageable.
    #[test]
    fn who_computes_on_bytes_from_outside_cannot_take_the_processors_from_the_others() {
        let weight = |name: &str| SERVICES[number_of(name).unwrap()].processor_weight;
        let much: u64 = ["decoder", "camera", "inference", "display"].map(weight).iter().sum();
        for name in ["front-panel", "network", "provisioning", "applications", "agent"] {
            assert!(weight(name) >= much, "{name}");
        }
    }

    /// boot D24: a service that did not close its sandbox itself had none.
    #[test]
    fn every_service_has_a_sandbox_of_its_own_or_the_launchers() {
        for service in SERVICES {
            let itself = ["camera", "decoder", "inference", "display"].contains(&service.name);
            assert!(itself || service.sandbox.is_some() || service.name == "applications", "{}", service.name);
        }
    }

    #[test]
    fn nobody_has_the_rights_that_undo_verified_boot() {
        // What they touch in fact is tried from inside in tests/inside.rs. Who traces PID 1 may do all that it may.
        let never = CapabilitySet::SYS_MODULE
            | CapabilitySet::SYS_PTRACE
            | CapabilitySet::SYS_RAWIO
            | CapabilitySet::SYS_BOOT
            | CapabilitySet::MAC_ADMIN
            | CapabilitySet::MKNOD;
        for service in SERVICES {
            assert!(!service.capabilities.intersects(never), "{}", service.name);
            for pattern in service.devices {
                let known = ["video*", "dri/card*", "dri/renderD*", "tpmrm0", "tee0"];
                assert!(known.contains(pattern), "{}: {pattern}", service.name);
            }
        }
        // The TPM without the kernel's resource manager (tpm0) is nobody's: its users would see one another's keys. Nor is
        // OP-TEE's way to its storage (teepriv0), which is served before there is any service.
        for keeper in ["tpm", "tee"] {
            let with = SERVICES.iter().filter(|service| service.devices.iter().any(|name| name.starts_with(keeper)));
            assert_eq!(with.map(|service| service.name).collect::<Vec<_>>(), ["provisioning"]);
        }
        let overriding = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        let names: Vec<&str> = SERVICES
            .iter()
            .filter(|service| service.root || service.capabilities.intersects(overriding))
            .map(|service| service.name)
            .collect();
        assert_eq!(names, ["applications"], "others' files are closed to everybody else");
    }
}
