//! What a container looks like from inside: the OCI configuration of one code node. Pure.

use crate::seccomp;
use belvedere_interfaces::paths;
use belvedere_manifest::RuntimeDescriptor;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Memory of one container, bytes.
pub const MEMORY: u64 = 1 << 30;
/// Processes and threads of one container.
pub const PROCESSES: i64 = 512;

/// Where the original appliance had them, and applications look for them.
const LOGS: &str = "/opt/aws/panorama/logs";
const STORAGE: &str = "/opt/aws/panorama/storage";

/// What a container is made from.
#[derive(Debug, Clone)]
pub struct Container {
    /// `AppGraph_Uid`.
    pub application_instance_id: String,
    /// `Node_Uid`.
    pub node: String,
    /// `AWS_REGION`.
    pub region: String,
    /// The program.
    pub entry: RuntimeDescriptor,
    /// The mounted root tree.
    pub rootfs: PathBuf,
    /// The application's logs.
    pub logs: PathBuf,
    /// The application's storage.
    pub storage: PathBuf,
    /// Directory of `node.sock`.
    pub sockets: PathBuf,
    /// `panoramasdk`.
    pub sdk: PathBuf,
    /// A file with the names of the loopback address.
    pub hosts: PathBuf,
    /// First host user.
    pub first_id: u32,
    /// Number of users.
    pub ids: u32,
    /// Open files of a process; in its user namespace the runtime cannot raise the limit that we have ourselves.
    pub open_files: u64,
    /// Below the root of the control groups; `None` for no limits.
    pub cgroup: Option<String>,
}

/// The command line, `path name arguments…`. `$default` is Python.
pub fn command(descriptor: &RuntimeDescriptor) -> Result<Vec<String>, String> {
    let entry = descriptor.entry.as_ref().ok_or("the asset descriptor has no entry, so there is nothing to run")?;
    let name = entry.name.as_ref().ok_or("the asset descriptor's entry names no file to run")?;
    let path = match entry.path.as_deref() {
        None | Some("$default") => "python3",
        Some(path) => path,
    };
    let mut command = vec![path.to_owned(), name.to_string()];
    command.extend(entry.arguments.iter().flatten().cloned());
    Ok(command)
}

/// The environment of the original appliance, then the descriptor's own.
pub fn environment(container: &Container) -> Vec<String> {
    let mut environment: Vec<(String, String)> = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("TERM", "xterm"),
        ("container", "podman"),
        ("HOME", "/root"),
        ("AppGraph_Uid", &container.application_instance_id),
        ("Node_Uid", &container.node),
        ("AWS_REGION", &container.region),
        ("AWS_DEFAULT_REGION", &container.region),
        // Port of the metadata server, read as the digits of a path. Nothing answers there yet; but the AWS SDK must
        // find a credentials endpoint that fails, since applications catch that failure and no other.
        ("AWS_CONTAINER_METADATA_RELATIVE_URI", "/9000/"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ":9000/getCredentials"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        // Lines must reach the log when they are printed.
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONPATH", paths::SDK_IN_CONTAINER),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let own = container.entry.entry.iter().flat_map(|entry| entry.environment.iter().flatten());
    for variable in own {
        let name = variable.name.to_string();
        // The SDK stays first, whatever the application adds.
        let value = match name.as_str() {
            "PYTHONPATH" => format!("{}:{}", paths::SDK_IN_CONTAINER, variable.value),
            "AppGraph_Uid" | "Node_Uid" => continue,
            _ => variable.value.clone(),
        };
        environment.retain(|(existing, _)| *existing != name);
        environment.push((name, value));
    }
    environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// `config.json`.
pub fn configuration(container: &Container) -> Result<Value, String> {
    let capabilities = json!([
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID",
        "CAP_SETUID"
    ]);
    let bind = |from: &PathBuf, to: &str, writable: bool| {
        let mut options = vec!["bind", "nosuid", "nodev"];
        options.push(if writable { "rw" } else { "ro" });
        json!({ "destination": to, "type": "bind", "source": from, "options": options })
    };
    let socket_directory = paths::NODE_SOCKET_IN_CONTAINER.rsplit_once('/').map_or("/", |(directory, _)| directory);
    let mapping = json!([{ "containerID": 0, "hostID": container.first_id, "size": container.ids }]);
    let mut linux = json!({
        "namespaces": [
            { "type": "user" }, { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
            { "type": "cgroup" },
            // Loopback only, until applications' networks are built.
            { "type": "network" },
        ],
        "uidMappings": mapping,
        "gidMappings": mapping,
        "seccomp": seccomp::profile(),
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/fs/selinux", "/sys/dev/block",
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    if let Some(cgroup) = &container.cgroup {
        linux["cgroupsPath"] = json!(cgroup);
        linux["resources"] = json!({
            "memory": { "limit": MEMORY },
            "pids": { "limit": PROCESSES },
        });
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": command(&container.entry)?,
            "env": environment(container),
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": [],
            },
            "rlimits": [
                { "type": "RLIMIT_NOFILE", "soft": container.open_files.min(8192), "hard": container.open_files },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            ],
            "noNewPrivileges": true,
            // Before the appliance's own services, when memory runs out.
            "oomScoreAdj": 500,
        },
        "root": { "path": container.rootfs, "readonly": false },
        "hostname": "belvedere",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=268435456"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            bind(&container.logs, LOGS, true),
            bind(&container.storage, STORAGE, true),
            bind(&container.sdk, paths::SDK_IN_CONTAINER, false),
            bind(&container.sockets, socket_directory, false),
            bind(&container.hosts, "/etc/hosts", false),
        ],
        "linux": linux,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_manifest::{Descriptor, parse_descriptor};

    fn sample(descriptor: &str) -> Container {
        let Descriptor::Runtime(entry) = parse_descriptor(descriptor).unwrap() else { panic!() };
        Container {
            application_instance_id: "applicationInstance-a".into(),
            node: "code_node".into(),
            region: "eu-central-1".into(),
            entry,
            rootfs: "/r".into(),
            logs: "/l".into(),
            storage: "/s".into(),
            sockets: "/n".into(),
            sdk: "/sdk".into(),
            hosts: "/h".into(),
            first_id: 100_000,
            ids: 65_536,
            open_files: 4_096,
            cgroup: Some("/belvedere/x".into()),
        }
    }

    const ENTRY: &str = r#"{"runtimeDescriptor":{"envelopeVersion":"2021-01-01","entry":{"path":"python3","name":"/panorama/app.py",
        "arguments":["-v"],"environment":[{"name":"PYTHONPATH","value":"/opt/x"},{"name":"AppGraph_Uid","value":"forged"},{"name":"TERM","value":"dumb"}]}}}"#;

    #[test]
    fn the_entry_becomes_path_name_arguments() {
        assert_eq!(command(&sample(ENTRY).entry).unwrap(), ["python3", "/panorama/app.py", "-v"]);
        let default = r#"{"runtimeDescriptor":{"envelopeVersion":"2021-01-01","entry":{"name":"/app.py"}}}"#;
        assert_eq!(command(&sample(default).entry).unwrap(), ["python3", "/app.py"]);
        let nothing = r#"{"runtimeDescriptor":{"envelopeVersion":"2021-01-01"}}"#;
        assert!(command(&sample(nothing).entry).unwrap_err().contains("no entry"));
    }

    #[test]
    fn the_environment_is_the_original_appliances() {
        let environment = environment(&sample(ENTRY));
        let value = |name: &str| {
            let found: Vec<&String> = environment.iter().filter(|line| line.starts_with(&format!("{name}="))).collect();
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            found[0].split_once('=').unwrap().1.to_owned()
        };
        assert_eq!(value("AppGraph_Uid"), "applicationInstance-a");
        assert_eq!(value("Node_Uid"), "code_node");
        assert_eq!(value("AWS_DEFAULT_REGION"), "eu-central-1");
        assert_eq!(value("PYTHONPATH"), "/usr/lib/belvedere/python:/opt/x");
        assert_eq!(value("TERM"), "dumb");
        assert_eq!(value("container"), "podman");
        let port: String = value("AWS_CONTAINER_METADATA_RELATIVE_URI").chars().filter(char::is_ascii_digit).collect();
        assert_eq!(port, "9000");
    }

    #[test]
    fn a_container_is_confined() {
        let config = configuration(&sample(ENTRY)).unwrap();
        assert_eq!(config["process"]["noNewPrivileges"], true);
        let kinds: Vec<&str> =
            config["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect();
        for kind in ["user", "pid", "mount", "ipc", "uts", "cgroup", "network"] {
            assert!(kinds.contains(&kind), "{kind}");
        }
        assert_eq!(config["linux"]["uidMappings"][0]["hostID"], 100_000);
        assert_eq!(config["linux"]["resources"]["memory"]["limit"], MEMORY);
        assert!(!config["process"]["capabilities"].to_string().contains("SYS_ADMIN"));
        let writable: Vec<&str> = config["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|m| m["type"] == "bind" && m["options"].as_array().unwrap().contains(&json!("rw")))
            .map(|m| m["destination"].as_str().unwrap())
            .collect();
        assert_eq!(writable, [LOGS, STORAGE]);
    }
}
