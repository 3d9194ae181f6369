//! Who may call what: one table for every socket of the appliance.
//!
//! The servers ask it before they read a caller's parameters. What is not in the table is refused: unknown users, the
//! containers' users, and services that have no business with each other.
//!
//! # Who a caller is
//!
//! The kernel tells a server the other side's user and process (`SO_PEERCRED`). Every service has a user of its own, with
//! two exceptions that are user 0: `init`, which is process 1 and nothing else ever is, and `applications`, whose
//! container runtime insists on user 0. So user 0 is `init` when it is process 1 and `applications` when it is not: being
//! root opens no door by itself.
//!
//! What this does not keep out: `applications` holds CAP_SETUID, because it starts containers. A container manager that
//! an attacker has taken over whole can become another service's user first. The table keeps honest code from doing what
//! it must not, and everything that has no such right from everything.

use crate::users;

/// The environment variable in which `init` tells a service its name. A server that has it, or is process 1, runs on an
/// appliance.
pub const SERVICE_VARIABLE: &str = "BELVEDERE_SERVICE";

/// Who is at the other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Caller {
    /// Process 1.
    Init,
    /// A service, by its name.
    Service(&'static str),
    /// Whoever started the server by hand, on a development host; may do everything there.
    Developer,
}

impl Caller {
    /// The name that it gives itself, such as the source of a fact for the front panel.
    pub fn name(self) -> &'static str {
        match self {
            Caller::Init => "init",
            Caller::Service(name) => name,
            Caller::Developer => "developer",
        }
    }
}

/// Where a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// On an appliance: users are those of [`crate::users`].
    Appliance,
    /// Anywhere else: users are somebody's, and only the server's own and root count.
    Development {
        /// The server's own.
        user: u32,
    },
}

impl Host {
    /// From what a server knows of itself: its process number, whether [`SERVICE_VARIABLE`] is set, and its user.
    pub fn of(process: u32, told_by_init: bool, user: u32) -> Host {
        if process == 1 || told_by_init { Host::Appliance } else { Host::Development { user } }
    }
}

/// Who this is, by user and process as the kernel gives them; `None` is nobody that we know.
pub fn caller(user: u32, process: i32, host: Host) -> Option<Caller> {
    match host {
        Host::Development { user: own } => (user == own || user == 0).then_some(Caller::Developer),
        Host::Appliance if user == 0 && process == 1 => Some(Caller::Init),
        Host::Appliance if user == 0 => Some(Caller::Service("applications")),
        Host::Appliance => users::USERS.iter().find(|known| known.id == user).map(|known| Caller::Service(known.name)),
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// The socket's name without `.sock`.
    pub server: &'static str,
    /// Full name of a Varlink method, or [`CHANNEL`].
    pub method: &'static str,
    /// Who may.
    pub callers: &'static [Caller],
}

/// Stands for a method where a socket is a channel, or a stream of its own kind.
pub const CHANNEL: &str = "";

const AGENT: Caller = Caller::Service("agent");
const APPLICATIONS: Caller = Caller::Service("applications");
const CAMERA: Caller = Caller::Service("camera");
const NETWORK: Caller = Caller::Service("network");
const PROVISIONING: Caller = Caller::Service("provisioning");

const fn right(server: &'static str, method: &'static str, callers: &'static [Caller]) -> Right {
    Right { server, method, callers }
}

/// Who may call what.
pub const RIGHTS: &[Right] = &[
    // What services printed may say what they were sent. The agent sends it to the service, provisioning to the stick.
    right("init", "org.belvedere.Logs.ReadLogs", &[AGENT, PROVISIONING]),
    // The service asks for it, through the agent.
    right("init", "org.belvedere.Machine.Restart", &[AGENT]),
    // Each speaks for itself alone; the front panel holds the source against the caller's name.
    right("front-panel", "org.belvedere.FrontPanel.SetCondition", &[Caller::Init, PROVISIONING]),
    right("front-panel", "org.belvedere.FrontPanel.SetNetwork", &[NETWORK, AGENT]),
    right("network", "org.belvedere.Network.Try", &[PROVISIONING]),
    right("network", "org.belvedere.Network.Keep", &[PROVISIONING]),
    right("network", "org.belvedere.Network.Revert", &[PROVISIONING]),
    right("network", "org.belvedere.Network.GetStatus", &[AGENT, PROVISIONING]),
    // With it comes the broker's password, and the private key where there is no TPM.
    right("provisioning", "org.belvedere.Provisioning.GetIdentity", &[AGENT]),
    // Whoever may do this is this appliance to its service.
    right("provisioning", "org.belvedere.Provisioning.Sign", &[AGENT]),
    // The service gives the appliance up, through the agent; there is no way back but a stick.
    right("provisioning", "org.belvedere.Provisioning.Release", &[AGENT]),
    right("provisioning", "org.belvedere.Provisioning.FinishRelease", &[AGENT]),
    // Cameras' passwords go in, never out.
    right("camera", "org.belvedere.Camera.SetStreams", &[APPLICATIONS]),
    right("camera", "org.belvedere.Camera.GetStreams", &[APPLICATIONS]),
    right("applications", "org.belvedere.Applications.SetDesired", &[AGENT]),
    right("applications", "org.belvedere.Applications.SetObjectAccess", &[AGENT]),
    right("applications", "org.belvedere.Applications.GetReports", &[AGENT]),
    right("applications", "org.belvedere.Logs.ReadLogs", &[AGENT]),
    right("decoder", CHANNEL, &[CAMERA]),
    right("frames", CHANNEL, &[APPLICATIONS]),
    right("inference", CHANNEL, &[APPLICATIONS]),
    right("display", CHANNEL, &[APPLICATIONS]),
];

/// Whether a caller may call a method of a server.
pub fn may_call(server: &str, method: &str, caller: Caller) -> bool {
    caller == Caller::Developer
        || RIGHTS.iter().any(|right| right.server == server && right.method == method && right.callers.contains(&caller))
}

/// Whether a caller has any business with a server at all.
pub fn may_connect(server: &str, caller: Caller) -> bool {
    caller == Caller::Developer || RIGHTS.iter().any(|right| right.server == server && right.callers.contains(&caller))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Method;
    use crate::users::{CONTAINER_FIRST_ID, CONTAINER_IDS, USERS, id_of};

    fn of(user: u32, process: i32) -> Option<Caller> {
        caller(user, process, Host::Appliance)
    }

    fn servers() -> std::collections::BTreeSet<&'static str> {
        RIGHTS.iter().map(|right| right.server).collect()
    }

    /// The name of every method of this crate, from its source: a new one cannot be forgotten here.
    fn methods() -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let names = text.lines().filter_map(|line| line.trim().strip_prefix("const NAME: &'static str = \""));
            found.extend(names.filter_map(|rest| rest.strip_suffix("\";")).map(str::to_owned));
        }
        assert!(found.len() >= 14, "{found:?}");
        found
    }

    /// boot D10: user 0 counted as init everywhere, and the container manager is user 0.
    #[test]
    fn root_is_init_only_as_process_one() {
        assert_eq!(of(0, 1), Some(Caller::Init));
        assert_eq!(of(0, 2), Some(APPLICATIONS));
        assert_eq!(of(0, 0), Some(APPLICATIONS));
        assert_eq!(of(0, -1), Some(APPLICATIONS));
        assert_eq!(of(id_of("agent").unwrap(), 1), Some(AGENT), "a service never becomes init by its process number");
    }

    /// boot D10: the private key, the network, the restart and the word of init were open to the container manager.
    #[test]
    fn the_container_manager_has_its_own_business_and_no_other() {
        let manager = of(0, 500).unwrap();
        let may: Vec<&str> = servers().into_iter().filter(|server| may_connect(server, manager)).collect();
        assert_eq!(may, ["camera", "display", "frames", "inference"]);
        assert!(!may_call("provisioning", crate::provisioning::GetIdentity::NAME, manager));
        assert!(!may_call("init", crate::machine::Restart::NAME, manager));
        assert!(!may_call("network", crate::network::Try::NAME, manager));
        assert!(!may_call("front-panel", crate::front_panel::SetCondition::NAME, manager));
    }

    /// boot D11: whoever was in no table could speak for anybody.
    #[test]
    fn containers_and_unknown_users_are_nobody() {
        let unknown = [1, 33, 99, 100, 110, 1000, 65_534, CONTAINER_FIRST_ID - 1, u32::MAX];
        let containers = [CONTAINER_FIRST_ID, CONTAINER_FIRST_ID + 104, CONTAINER_FIRST_ID + CONTAINER_IDS - 1];
        for user in unknown.into_iter().chain(containers) {
            for process in [1, 2, 40_000] {
                assert_eq!(of(user, process), None, "user {user}");
            }
        }
    }

    #[test]
    fn the_devices_key_is_used_by_the_agent_alone() {
        let sign = crate::provisioning::Sign::NAME;
        let mut may: Vec<&str> = USERS
            .iter()
            .filter(|user| may_call("provisioning", sign, Caller::Service(user.name)))
            .map(|user| user.name)
            .collect();
        may.extend(may_call("provisioning", sign, Caller::Init).then_some("init"));
        assert_eq!(may, ["agent"]);
        assert!(!may_call("provisioning", sign, of(0, 500).unwrap()), "not root as such either");
    }

    #[test]
    fn every_service_is_known_by_its_user() {
        for user in USERS {
            assert_eq!(of(user.id, 77), Some(Caller::Service(user.name)));
        }
    }

    #[test]
    fn every_name_in_the_table_is_a_service_and_every_method_one_of_ours() {
        let methods = methods();
        for right in RIGHTS {
            let known = methods.iter().any(|method| method == right.method);
            assert!(right.method == CHANNEL || known, "{}", right.method);
            assert!(!right.callers.is_empty());
            for caller in right.callers {
                assert!(matches!(caller, Caller::Init) || id_of(caller.name()).is_some(), "{caller:?}");
                assert_ne!(caller.name(), right.server, "nobody needs a right to itself");
            }
            let same = RIGHTS.iter().filter(|other| (other.server, other.method) == (right.server, right.method));
            assert_eq!(same.count(), 1, "{} {} has two lines", right.server, right.method);
        }
        for method in &methods {
            assert!(RIGHTS.iter().any(|right| right.method == method), "nobody may call {method}: give it a line");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        assert!(!may_call("init", "org.belvedere.Machine.Explode", AGENT));
        assert!(!may_call("camera", crate::machine::Restart::NAME, AGENT), "a method is called where it is served");
        assert!(!may_call("", CHANNEL, AGENT) && !may_connect("nothing", AGENT));
    }

    #[test]
    fn development_hosts_know_their_developer_alone() {
        let host = Host::of(4711, false, 1000);
        assert_eq!(host, Host::Development { user: 1000 });
        assert_eq!(caller(1000, 5, host), Some(Caller::Developer));
        assert_eq!(caller(0, 5, host), Some(Caller::Developer));
        // A host's user with the number of one of our services is nobody of ours.
        assert_eq!(caller(104, 5, host), None);
        assert!(may_call("init", crate::machine::Restart::NAME, Caller::Developer));
        // What init started, and init itself, is on an appliance, whoever it runs as.
        assert_eq!(Host::of(1, false, 0), Host::Appliance);
        assert_eq!(Host::of(300, true, 104), Host::Appliance);
        assert_eq!(caller(104, 300, Host::Appliance), Some(AGENT), "also the server's own user is only itself");
    }
}
