//! The users that services run as. The image writes `/etc/passwd` from this table, `init` sets them.

/// A service's user; its group has the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Name, the same as the service's.
    pub name: &'static str,
    /// User and group number.
    pub id: u32,
}

/// Every user of the appliance, `root` apart. Numbers are never reused.
pub const USERS: &[User] = &[
    User { name: "front-panel", id: 101 },
    User { name: "network", id: 102 },
    User { name: "provisioning", id: 103 },
    User { name: "agent", id: 104 },
    User { name: "camera", id: 105 },
    User { name: "decoder", id: 106 },
    User { name: "inference", id: 107 },
    User { name: "display", id: 108 },
    User { name: "applications", id: 109 },
];

/// The group that may use the last blocks of the `data` partition. All services are in it but `applications`, whose root may
/// use them anyway; containers are not, so that no application can keep the appliance from writing its own state.
pub const RESERVE_GROUP: u32 = 120;
/// The user that may use them too, as the file system wants to know of one: nobody. (It would be root, and with root's
/// rights the kernel writes what containers write into their own layer.)
pub const RESERVE_NOBODY: u32 = 119;

/// First host user of the range that is mapped into containers (root in the container is this one).
pub const CONTAINER_FIRST_ID: u32 = 100_000;
/// How many users a container has.
pub const CONTAINER_IDS: u32 = 65_536;

/// The number of a service's user.
pub fn id_of(name: &str) -> Option<u32> {
    USERS.iter().find(|user| user.name == name).map(|user| user.id)
}
