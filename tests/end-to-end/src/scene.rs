//! The furniture: one service, one camera, one appliance; and what an operator and a developer do with them.

use crate::Trouble;
use crate::children::{self, Running};
use crate::tools::Tools;
use base64::Engine;
use belvedere_virtual_appliance::Appliance;
use belvedere_virtual_appliance::stick::{Format, Stick};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How the appliance, in QEMU's user network, sees this machine's loopback address.
const HOST_SEEN_FROM_APPLIANCE: &str = "10.0.2.2";
/// The camera's user.
const CAMERA_USER: &str = "camera";
/// The camera node's name: package, node and interface.
const CAMERA: &str = "demo-camera";

/// Where things are.
#[derive(Debug, Clone)]
pub struct SceneConfiguration {
    /// The work tree.
    pub top: PathBuf,
    /// What `scripts/build-appliance` made.
    pub image: PathBuf,
    /// Everything this scene writes; empty or absent at first.
    pub state: PathBuf,
    /// `belvedere-service` and friends for this machine.
    pub programs: PathBuf,
    /// Directory of `aws` and `panorama-cli`.
    pub tools: PathBuf,
    /// Development keys.
    pub keys: PathBuf,
    /// The appliance is the board with a secure world and without a TPM: directory of its firmware (`firmware/secure-world`).
    pub op_tee: Option<PathBuf>,
}

impl SceneConfiguration {
    /// The usual places of a work tree; `BELVEDERE_IMAGE`, `BELVEDERE_KEYS` and `CARGO_TARGET_DIR` are honoured.
    ///
    /// # Errors
    /// When the tools cannot be made ready.
    pub fn of_work_tree(top: &Path, state: &Path) -> Result<SceneConfiguration, Trouble> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = variable("HOME").unwrap_or_else(|| PathBuf::from("/root"));
        let tools = Command::new(top.join("tests/tools/environment"))
            .output()
            .map_err(|error| Trouble::new("running tests/tools/environment", error))?;
        if !tools.status.success() {
            return Err(Trouble::new(
                "installing the AWS CLI and panorama-cli (tests/tools/environment)",
                String::from_utf8_lossy(&tools.stderr),
            ));
        }
        let tools = String::from_utf8_lossy(&tools.stdout).trim().to_owned();
        Ok(SceneConfiguration {
            top: top.to_owned(),
            image: variable("BELVEDERE_IMAGE").unwrap_or_else(|| top.join("build/appliance")),
            state: state.to_owned(),
            programs: variable("CARGO_TARGET_DIR").unwrap_or_else(|| top.join("target")).join("debug"),
            tools: PathBuf::from(tools).join("bin"),
            keys: variable("BELVEDERE_KEYS").unwrap_or_else(|| {
                variable("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("belvedere/keys")
            }),
            op_tee: None,
        })
    }
}

/// Everything that runs. Fields are dropped in this order: the appliance first.
pub struct Scene {
    /// The appliance, once it has been bought.
    pub appliance: Option<Appliance>,
    /// The camera, while it is plugged in.
    pub camera: Option<Running>,
    /// The service.
    pub service: Running,
    /// The developer's and the administrator's tools.
    pub tools: Tools,
    configuration: SceneConfiguration,
    camera_port: u16,
    camera_password: String,
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// A random word for a password that nobody needs to remember.
fn random_word() -> String {
    let mut bytes = [0u8; 12];
    // The kernel's generator; an empty word would still only weaken a test camera.
    let _ = std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

impl Scene {
    /// Somebody else's service, with keys of its own and nothing else.
    ///
    /// # Errors
    /// When the keys cannot be made, or it does not answer within a minute.
    pub fn open_strangers(&self) -> Result<Scene, Trouble> {
        let state = self.file("stranger");
        std::fs::create_dir_all(&state).map_err(|error| Trouble::new(format!("making {}", state.display()), error))?;
        let keys = state.join("keys");
        let program = self.configuration.programs.join("belvedere-keys");
        let output = Command::new(&program)
            .arg("init")
            .arg(&keys)
            .output()
            .map_err(|error| Trouble::new(format!("running {}", program.display()), error))?;
        if !output.status.success() {
            return Err(Trouble::new("belvedere-keys init", String::from_utf8_lossy(&output.stderr)));
        }
        Scene::open(SceneConfiguration { keys, state, ..self.configuration.clone() })
    }

    /// Makes the service's data directory and starts it.
    ///
    /// # Errors
    /// When it does not answer within a minute.
    pub fn open(configuration: SceneConfiguration) -> Result<Scene, Trouble> {
        let state = &configuration.state;
        std::fs::create_dir_all(state).map_err(|error| Trouble::new(format!("making {}", state.display()), error))?;
        let data = state.join("service");
        let program = configuration.programs.join("belvedere-service");
        let key_file = state.join("access-key.sh");
        if !data.exists() {
            let output = Command::new(&program)
                .args(["init", "--data"])
                .arg(&data)
                .arg("--keys")
                .arg(&configuration.keys)
                .args(["--name", HOST_SEEN_FROM_APPLIANCE])
                .output()
                .map_err(|error| Trouble::new(format!("running {}", program.display()), error))?;
            if !output.status.success() {
                return Err(Trouble::new("belvedere-service init", String::from_utf8_lossy(&output.stderr)));
            }
            write_private(&key_file, &output.stdout)?;
        }
        let key = std::fs::read_to_string(&key_file).map_err(|error| Trouble::new("reading the first access key", error))?;
        let word = |name: &str| {
            key.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default().to_owned()
        };
        let mut service = children::start(
            "the service",
            Command::new(&program)
                .args(["serve", "--api", "127.0.0.1:0", "--device-https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"])
                .args(["--advertise-host", HOST_SEEN_FROM_APPLIANCE, "--data"])
                .arg(&data),
            &state.join("service.log"),
        )?;
        let endpoints = data.join("endpoints.json");
        let id = service.id();
        let endpoint = service.wait_until("answer", Duration::from_secs(60), || {
            let value = read_json(&endpoints)?;
            // A file left by an earlier run speaks of ports of an earlier run.
            (value["process"].as_u64() == Some(u64::from(id))).then(|| value["api"].as_str().map(str::to_owned)).flatten()
        })?;
        let tools = Tools {
            programs: configuration.tools.clone(),
            endpoint: format!("http://{}", endpoint.trim_start_matches("http://")),
            region: "us-east-1".to_owned(),
            access_key_id: word("AWS_ACCESS_KEY_ID"),
            secret_access_key: word("AWS_SECRET_ACCESS_KEY"),
        };
        Ok(Scene {
            appliance: None,
            camera: None,
            service,
            tools,
            configuration,
            camera_port: 0,
            camera_password: random_word(),
        })
    }

    /// Where this scene keeps a file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.configuration.state.join(name)
    }

    /// Plugs the camera in (at the same port as before when it was plugged in earlier).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_camera(&mut self) -> Result<(), Trouble> {
        let state = self.file("camera");
        std::fs::create_dir_all(&state).map_err(|error| Trouble::new("making the camera's directory", error))?;
        let _ = std::fs::remove_file(state.join("url"));
        let mut camera = children::start(
            "the camera",
            Command::new(self.configuration.top.join("samples/camera/serve"))
                .args([
                    "--port",
                    &self.camera_port.to_string(),
                    "--user",
                    CAMERA_USER,
                    "--password",
                    &self.camera_password,
                    "--state",
                ])
                .arg(&state),
            &self.file("camera.log"),
        )?;
        // The first time it renders its clip, which takes a while.
        let url = camera.wait_until("answer", Duration::from_secs(600), || {
            std::fs::read_to_string(state.join("url")).ok().filter(|url| !url.trim().is_empty())
        })?;
        self.camera_port = url
            .trim()
            .rsplit_once(':')
            .and_then(|(_, rest)| rest.split('/').next())
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| Trouble::new("reading the camera's address", url.clone()))?;
        self.camera = Some(camera);
        Ok(())
    }

    /// Pulls the camera's plug.
    pub fn stop_camera(&mut self) {
        self.camera = None;
    }

    /// What is right for every picture of the camera.
    pub fn truth(&self) -> PathBuf {
        self.file("camera").join("truth.json")
    }

    /// The service from the camera's and the operator's view: as the appliance reaches the camera.
    pub fn camera_url(&self) -> String {
        format!("rtsp://{HOST_SEEN_FROM_APPLIANCE}:{}/stream", self.camera_port)
    }

    /// Unpacks an appliance and switches it on.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn power_on(&mut self) -> Result<(), Trouble> {
        if let Some(appliance) = &mut self.appliance {
            return appliance.power_on().map_err(|error| Trouble::new("switching the appliance on", error));
        }
        let mut builder = Appliance::builder(&self.configuration.image).state_dir(self.file("appliance"));
        if let Some(firmware) = &self.configuration.op_tee {
            builder = builder.secure_world(firmware).without_tpm();
        }
        let appliance = builder.start().map_err(|error| Trouble::new("switching the appliance on", error))?;
        self.appliance = Some(appliance);
        Ok(())
    }

    /// The appliance.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn appliance(&mut self) -> Result<&mut Appliance, Trouble> {
        self.appliance.as_mut().ok_or_else(|| Trouble::new("looking at the appliance", "it was never switched on"))
    }

    /// The last lines of the appliance's console.
    pub fn console_tail(&self, lines: usize) -> String {
        let text = self.appliance.as_ref().map(Appliance::console).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// `aws panorama provision-device` and the operator's stick: its image file, ready to be plugged in.
    ///
    /// # Errors
    /// When the service refuses or the stick cannot be made.
    pub fn make_stick(&self, device: &str) -> Result<PathBuf, Trouble> {
        self.make_stick_as(device, Format::Fat32Partition)
    }

    /// The same, partitioned in another way.
    ///
    /// # Errors
    /// Likewise.
    pub fn make_stick_as(&self, device: &str, format: Format) -> Result<PathBuf, Trouble> {
        let answer = self.tools.aws(&["panorama", "provision-device", "--name", device])?;
        let archive = answer["Certificates"]
            .as_str()
            .ok_or_else(|| Trouble::new("provision-device", "the answer has no Certificates"))?;
        let archive = base64::engine::general_purpose::STANDARD
            .decode(archive)
            .map_err(|error| Trouble::new("decoding Certificates", error))?;
        let path = self.file(&format!("stick-{device}.img"));
        Stick::create(&path, format, &[(&format!("certificates-omni_{device}.zip"), &archive)])
            .map_err(|error| Trouble::new("making a stick", error))?;
        Ok(path)
    }

    /// Another stick for a device whose first one is still plugged in.
    ///
    /// # Errors
    /// When the service refuses or the stick cannot be made.
    pub fn stick_again(&self, device: &str) -> Result<PathBuf, Trouble> {
        let first = self.file(&format!("stick-{device}.img"));
        let kept = self.file(&format!("stick-{device}-first.img"));
        // The one that is plugged in keeps its content under another name; QEMU holds it open.
        std::fs::rename(&first, &kept).map_err(|error| Trouble::new("putting the first stick aside", error))?;
        self.make_stick(device)
    }

    /// A FAT32 stick with these files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn stick_with(&self, name: &str, files: &[(&str, &[u8])]) -> Result<PathBuf, Trouble> {
        let path = self.file(&format!("stick-{name}.img"));
        Stick::create(&path, Format::Fat32Partition, files).map_err(|error| Trouble::new("making a stick", error))?;
        Ok(path)
    }

    /// What `describe-device` says of the device of that name; `Null` when there is none.
    ///
    /// # Errors
    /// When the service refuses.
    pub fn describe_device(&self, device: &str) -> Result<Value, Trouble> {
        let list = self.tools.aws(&["panorama", "list-devices"])?;
        let found = list["Devices"]
            .as_array()
            .and_then(|devices| devices.iter().find(|one| one["Name"] == device))
            .and_then(|one| one["DeviceId"].as_str());
        match found {
            Some(id) => self.tools.aws(&["panorama", "describe-device", "--device-id", id]),
            None => Ok(Value::Null),
        }
    }

    /// Waits until `describe-device` shows SUCCEEDED and ONLINE with a software version; its answer.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub fn wait_online(&mut self, device: &str, timeout: Duration) -> Result<Value, Trouble> {
        let deadline = Instant::now() + timeout;
        loop {
            let described = self.describe_device(device)?;
            if described["ProvisioningStatus"] == "SUCCEEDED"
                && described["DeviceConnectionStatus"] == "ONLINE"
                && described["CurrentSoftware"].as_str().is_some_and(|version| version != "NOT_AVAILABLE")
                && described["CurrentNetworkingStatus"].is_object()
            {
                return Ok(described);
            }
            self.service.check()?;
            if Instant::now() > deadline {
                let console = self.console_tail(40);
                return Err(Trouble::new(
                    "waiting for the device to be online",
                    format!("describe-device says {described:#}\nthe console:\n{console}"),
                ));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// A developer packages the sample and registers it with panorama-cli; where the project is.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn package_sample(&self) -> Result<PathBuf, Trouble> {
        let project = self.file("text-finder");
        let output = Command::new(self.configuration.top.join("samples/text-finder/build"))
            .arg("--output")
            .arg(&project)
            .output()
            .map_err(|error| Trouble::new("running samples/text-finder/build", error))?;
        if !output.status.success() {
            return Err(Trouble::new("samples/text-finder/build", String::from_utf8_lossy(&output.stderr)));
        }
        self.tools.panorama_cli(&["import-application"], &project)?;
        self.tools.panorama_cli(&["package-application"], &project)?;
        Ok(project)
    }

    /// The administrator registers the camera: a node from the RTSP template.
    ///
    /// # Errors
    /// When the job does not succeed within 30 s.
    pub fn register_camera(&self) -> Result<(), Trouble> {
        let parameters =
            json!({"StreamUrl": self.camera_url(), "Username": CAMERA_USER, "Password": self.camera_password}).to_string();
        let job = self.tools.aws(&[
            "panorama", "create-node-from-template-job", "--template-type", "RTSP_CAMERA_STREAM", "--output-package-name",
            CAMERA, "--output-package-version", "1.0", "--node-name", CAMERA, "--template-parameters", &parameters,
        ])?;
        let id = job["JobId"].as_str().unwrap_or_default().to_owned();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.tools.aws(&["panorama", "describe-node-from-template-job", "--job-id", &id])?;
            if status["Status"] == "SUCCEEDED" {
                return Ok(());
            }
            if status["Status"] == "FAILED" || Instant::now() > deadline {
                return Err(Trouble::new("registering the camera", format!("{status:#}")));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The developer deploys the sample to the device with the camera; the instance's identifier.
    ///
    /// # Errors
    /// When the service refuses.
    pub fn deploy(&self, project: &Path, device_id: &str) -> Result<String, Trouble> {
        let account = self.tools.aws(&["sts", "get-caller-identity"])?["Account"].as_str().unwrap_or_default().to_owned();
        let graph = std::fs::read_to_string(project.join("graphs/text-finder/graph.json"))
            .map_err(|error| Trouble::new("reading the sample's graph", error))?;
        let overrides = json!({"nodeGraphOverrides": {
            "envelopeVersion": "2021-01-01",
            "packages": [{"name": format!("{account}::{CAMERA}"), "version": "1.0"}],
            "nodes": [{"name": "my_camera", "interface": format!("{account}::{CAMERA}.{CAMERA}"), "overridable": false, "launch": "onAppStart"}],
            "nodeOverrides": [{"replace": "camera_node", "with": [{"name": "my_camera"}]}],
        }});
        let payload = |text: String| json!({"PayloadData": text}).to_string();
        let answer = self.tools.aws(&[
            "panorama",
            "create-application-instance",
            "--name",
            "text-finder",
            "--default-runtime-context-device",
            device_id,
            "--manifest-payload",
            &payload(graph),
            "--manifest-overrides-payload",
            &payload(overrides.to_string()),
        ])?;
        answer["ApplicationInstanceId"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Trouble::new("create-application-instance", format!("{answer:#}")))
    }

    /// What `describe-application-instance` says.
    ///
    /// # Errors
    /// When the service refuses.
    pub fn describe_application(&self, instance: &str) -> Result<Value, Trouble> {
        self.tools.aws(&["panorama", "describe-application-instance", "--application-instance-id", instance])
    }

    /// Waits until the application is `DEPLOYMENT_SUCCEEDED` and `RUNNING`; every change is told to `note`.
    ///
    /// # Errors
    /// When it fails or takes longer than `timeout`.
    pub fn wait_running(&mut self, instance: &str, timeout: Duration, mut note: impl FnMut(&str)) -> Result<Value, Trouble> {
        let deadline = Instant::now() + timeout;
        let mut last = String::new();
        loop {
            let described = self.describe_application(instance)?;
            let word = |name: &str| described[name].as_str().unwrap_or("-").to_owned();
            let now = format!("{} / {}: {}", word("Status"), word("HealthStatus"), word("StatusDescription"));
            if now != last {
                note(&now);
                last = now;
            }
            if described["Status"] == "DEPLOYMENT_SUCCEEDED" && described["HealthStatus"] == "RUNNING" {
                return Ok(described);
            }
            let failed = matches!(described["Status"].as_str(), Some("DEPLOYMENT_FAILED"));
            if failed || Instant::now() > deadline {
                let console = self.console_tail(60);
                return Err(Trouble::new(
                    "waiting for the application to run",
                    format!("{described:#}\nthe appliance's console:\n{console}"),
                ));
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// The newest lines of a log stream of an application instance.
    ///
    /// # Errors
    /// When the service refuses, also when the stream does not exist yet.
    pub fn log_lines(&self, device_id: &str, instance: &str, stream: &str) -> Result<Vec<String>, Trouble> {
        let group = format!("/aws/panorama/devices/{device_id}/applications/{instance}");
        let answer = self
            .tools
            .aws(&["logs", "get-log-events", "--log-group-name", &group, "--log-stream-name", stream, "--limit", "150"])?;
        Ok(answer["events"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|event| event["message"].as_str().map(str::to_owned))
            .collect())
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Trouble> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| Trouble::new(format!("writing {}", path.display()), error))
}
