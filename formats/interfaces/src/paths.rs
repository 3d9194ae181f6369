//! Where things are on a running appliance.

/// Directory of all service sockets: root's, with one directory in it for each service, which is that service's alone.
/// On a tmpfs, made by `init`.
pub const SOCKETS: &str = "/run/belvedere";
/// Sockets of the Varlink services.
pub const FRONT_PANEL: &str = "/run/belvedere/front-panel/front-panel.sock";
/// See [`crate::network`].
pub const NETWORK: &str = "/run/belvedere/network/network.sock";
/// See [`crate::provisioning`].
pub const PROVISIONING: &str = "/run/belvedere/provisioning/provisioning.sock";
/// See [`crate::camera`].
pub const CAMERA: &str = "/run/belvedere/camera/camera.sock";
/// See [`crate::applications`].
pub const APPLICATIONS: &str = "/run/belvedere/applications/applications.sock";
/// `init` itself: [`crate::logs::ReadLogs`] for what the services printed, and [`crate::machine`].
pub const INIT: &str = "/run/belvedere/init/init.sock";
/// Coded pictures from `camera` to `decoder` (see [`crate::access_units`]).
pub const DECODER: &str = "/run/belvedere/decoder/decoder.sock";
/// Channel: decoded pictures ([`crate::channel::frames`]), served by `decoder`.
pub const FRAMES: &str = "/run/belvedere/decoder/frames.sock";
/// Channel: model calls ([`crate::channel::inference`]), served by `inference`.
pub const INFERENCE: &str = "/run/belvedere/inference/inference.sock";
/// Which models run at the moment, noted by `inference` for its next process.
pub const INFERENCE_CALLS: &str = "/run/belvedere/inference/inference.calls";
/// Channel: pictures to show ([`crate::channel::display`]), served by `display`.
pub const DISPLAY: &str = "/run/belvedere/display/display.sock";

/// Name servers, written by `network`; `/etc/resolv.conf` is a link to it.
pub const RESOLV_CONF: &str = "/run/belvedere/network/resolv.conf";
/// The TPM, through the kernel's resource manager; `provisioning`'s.
pub const TPM: &str = "/dev/tpmrm0";
/// OP-TEE, on boards that have one; `provisioning`'s.
pub const SECURE_WORLD: &str = "/dev/tee0";
/// Where `provisioning` mounts a stick, in its own name space.
pub const STICK: &str = "/run/belvedere/provisioning/stick";

/// The `data` partition.
pub const DATA: &str = "/var/lib/belvedere";
/// Identity and the link to the service; owned by `provisioning`.
pub const IDENTITY: &str = "/var/lib/belvedere/provisioning";
/// Network configuration; owned by `network`.
pub const NETWORK_STATE: &str = "/var/lib/belvedere/network";
/// Spool and cursor of the agent.
pub const AGENT_STATE: &str = "/var/lib/belvedere/agent";
/// Packages, container trees, storage and logs of applications; owned by `applications`.
pub const APPLICATIONS_STATE: &str = "/var/lib/belvedere/applications";

/// Inside every application's container: the channel to its own `applications` process.
pub const NODE_SOCKET_IN_CONTAINER: &str = "/run/belvedere/node.sock";
/// Inside every container: where `panoramasdk` is mounted; first on `PYTHONPATH`.
pub const SDK_IN_CONTAINER: &str = "/usr/lib/belvedere/python";
/// On the root image: `panoramasdk` and its package directory.
pub const SDK_ON_APPLIANCE: &str = "/usr/lib/belvedere/python";
/// On the root image: our programs, `belvedere-<service>`.
pub const PROGRAMS: &str = "/usr/lib/belvedere/bin";
/// On the root image: ONNX Runtime.
pub const ONNX_RUNTIME: &str = "/usr/lib/belvedere/lib/libonnxruntime.so";
/// On the root image: `version`, `board` and `manifest.json` of the release that runs.
pub const RELEASE: &str = "/usr/lib/belvedere/release";
