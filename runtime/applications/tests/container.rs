//! A real container on this machine: the program of this crate, crun, panoramasdk and ONNX Runtime are real; camera,
//! pictures, display and object store are played by the test. Needs root, crun and python3-numpy (scripts/debian-packages).

use belvedere_applications::deployment;
use belvedere_device_protocol::{ApplicationReport, CameraSource, Deployment, DesiredState, Object, PackageVersion};
use belvedere_frames::{packet, server::Server as Frames};
use belvedere_interfaces::applications::{DesiredDeployment, GetReports, Reports, SetDesired, SetObjectAccess};
use belvedere_interfaces::camera::{GetStreams, SetStreams, StreamConfiguration, StreamState, StreamStatus, Streams};
use belvedere_interfaces::channel::display;
use belvedere_interfaces::{Done, logs::ReadLogs};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const ID: &str = "applicationInstance-abcdefghijklmnopqrstuvwxyz";

/// Everything around the program under test.
struct World {
    directory: tempfile::TempDir,
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    endpoint: String,
    streams: Arc<Mutex<Vec<StreamConfiguration>>>,
    shown: Arc<Mutex<Vec<display::Request>>>,
    program: Option<Child>,
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl World {
    fn new() -> World {
        let directory = tempfile::Builder::new().prefix("belvedere-container").tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let endpoint = object_store(objects.clone());
        let streams: Arc<Mutex<Vec<StreamConfiguration>>> = Arc::default();
        camera(&directory.path().join("camera.sock"), streams.clone());
        pictures(&directory.path().join("frames.sock"), streams.clone());
        let shown: Arc<Mutex<Vec<display::Request>>> = Arc::default();
        monitor(&directory.path().join("display.sock"), shown.clone());
        World { directory, objects, endpoint, streams, shown, program: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self) {
        // crun 1.8 refuses machines with both versions of cgroups: give it a view of version 2 alone.
        let script = "[ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            env!("CARGO_BIN_EXE_belvedere-applications"),
            "--without-cgroups",
        ]);
        for (flag, name) in [
            ("--state", "state"),
            ("--run", "run"),
            ("--socket", "applications.sock"),
            ("--camera", "camera.sock"),
            ("--frames", "frames.sock"),
            ("--display", "display.sock"),
        ] {
            command.arg(flag).arg(self.path(name));
        }
        command.arg("--inference").arg(models());
        command.arg("--sdk").arg(Path::new(HERE).join("../panoramasdk"));
        self.program = Some(command.spawn().unwrap());
        self.wait("the program to answer", || {
            belvedere_varlink::call(self.path("applications.sock"), &GetReports {}).is_ok()
        });
    }

    fn signal(&mut self, signal: &str) {
        let mut child = self.program.take().unwrap();
        Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                assert!(std::thread::panicking(), "the program did not end within 30 s of signal {signal}");
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn put(&self, bytes: Vec<u8>, name: &str) -> Object {
        // Once: without optimisation a root file system takes seconds.
        let sha256 = hash(&bytes);
        let name = name.replace("{}", &sha256);
        let object = Object {
            bucket: "bucket".into(),
            key: format!("binaries/{sha256}/{name}"),
            size: bytes.len() as u64,
            name,
            sha256,
        };
        self.objects.lock().unwrap().insert(format!("/bucket/{}", object.key), bytes);
        object
    }

    fn package(&self, name: &str, manifest: &str, assets: Vec<Object>) -> PackageVersion {
        let manifest = self.put(manifest.as_bytes().to_vec(), "package.json");
        PackageVersion {
            name: format!("123456789012::{name}"),
            version: "1.0".into(),
            patch: manifest.sha256.clone(),
            manifest,
            assets,
        }
    }

    fn report(&self, id: &str) -> ApplicationReport {
        let reports = self.reports().applications;
        let found = reports.into_iter().find(|report| report.application_instance_id == id);
        found.unwrap_or_else(|| panic!("no report of {id}"))
    }

    /// How often a program of the tests has started.
    fn starts(&self, id: &str) -> usize {
        std::fs::read(self.path("state/instances").join(id).join("storage/starts")).map_or(0, |starts| starts.len())
    }

    /// How many programs run in containers of this test, and of no other that runs beside it.
    fn programs(&self) -> usize {
        let found = Command::new("pgrep").args(["-f", "python3 /panorama/app.py -a"]).output().unwrap();
        let own = self.path("state").display().to_string();
        let mounts = |number: &str| std::fs::read_to_string(format!("/proc/{number}/mountinfo")).unwrap_or_default();
        String::from_utf8_lossy(&found.stdout).lines().filter(|number| mounts(number).contains(&own)).count()
    }

    fn reports(&self) -> Reports {
        belvedere_varlink::call(self.path("applications.sock"), &GetReports {}).unwrap()
    }

    fn lines(&self, stream: &str) -> Vec<String> {
        let batch = belvedere_varlink::call(self.path("applications.sock"), &ReadLogs { after: 0, limit: 1_000 }).unwrap();
        batch.entries.into_iter().filter(|entry| entry.stream == stream).map(|entry| entry.message).collect()
    }

    fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(300);
        while !condition() {
            if Instant::now() > end {
                let reports = belvedere_varlink::call(self.path("applications.sock"), &GetReports {});
                let lines = belvedere_varlink::call(self.path("applications.sock"), &ReadLogs { after: 0, limit: 60 });
                let lines: Vec<String> = lines.unwrap_or_default().entries.into_iter().map(|entry| entry.message).collect();
                panic!("waited in vain for {what}; reports: {reports:#?}\n{}", lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn access(&self) -> SetObjectAccess {
        SetObjectAccess {
            endpoint: self.endpoint.clone(),
            ca_pem: String::new(),
            region: "eu-west-7".into(),
            access_key_id: "key".into(),
            secret_access_key: "secret".into(),
            session_token: "token".into(),
            expires: 0,
        }
    }

    fn wait_running(&self) {
        self.wait("the application to run", || {
            let reports = self.reports().applications;
            reports
                .iter()
                .any(|r| r.application_instance_id == ID && r.status == "DEPLOYMENT_SUCCEEDED" && r.health == "RUNNING")
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.program.is_some() {
            self.signal("-TERM");
        }
        // The temporary directory removes itself by recursion, which ends this process when a test failed beside deep trees.
        let state = self.path("state");
        let discard = belvedere_applications::discard::Discard::new(&state);
        let _ = discard.take(&state.join("instances"));
        let _ = discard.empty(&|| true);
    }
}

fn object_store(objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = String::new();
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|count| count > 0) {}
            let path = head.split(['?', ' ']).nth(1).unwrap_or("").to_owned();
            let content = objects.lock().unwrap().get(&path).cloned();
            let (status, content) = content.map_or(("404 Not Found", Vec::new()), |content| ("200 OK", content));
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            let _ = stream.write_all(&content);
        }
    });
    endpoint
}

fn camera(path: &Path, streams: Arc<Mutex<Vec<StreamConfiguration>>>) {
    let set = streams.clone();
    let server = belvedere_varlink::Server::bind(path)
        .unwrap()
        .route(move |call: SetStreams, _| {
            *set.lock().unwrap() = call.streams;
            Ok(Done {})
        })
        .route(move |_: GetStreams, _| {
            let playing = |stream: &StreamConfiguration| StreamStatus {
                stream_id: stream.stream_id.clone(),
                state: StreamState::Playing,
                detail: "64x48".into(),
                access_units: 1,
            };
            Ok(Streams { streams: streams.lock().unwrap().iter().map(playing).collect() })
        })
        .spawn();
    std::mem::forget(server);
}

/// Ten pictures a second on every stream that the camera was told of; all bytes of picture n are n % 100.
fn pictures(path: &Path, streams: Arc<Mutex<Vec<StreamConfiguration>>>) {
    let server = Arc::new(Frames::new());
    let serving = server.clone();
    let path = path.to_owned();
    std::thread::spawn(move || serving.serve_at(path));
    std::thread::spawn(move || {
        let mut writers = BTreeMap::new();
        for number in 0_u64.. {
            for stream in streams.lock().unwrap().iter() {
                let writer = writers.entry(stream.stream_id.clone()).or_insert_with(|| server.writer(&stream.stream_id));
                writer.condition(true, "64x48");
                writer.offer(64, 48, number as i64, |bytes, _| {
                    bytes.fill((number % 100) as u8);
                    true
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

fn monitor(path: &Path, shown: Arc<Mutex<Vec<display::Request>>>) {
    let listener = packet::listen(path).unwrap();
    std::thread::spawn(move || {
        while let Ok(connection) = packet::accept(&listener) {
            let shown = shown.clone();
            std::thread::spawn(move || {
                while let Ok((request, _)) = packet::receive::<display::Request>(&connection) {
                    if let display::Request::Show { sequence, .. } = &request {
                        let _ = packet::send(&connection, &display::Event::Shown { sequence: *sequence }, &[]);
                    }
                    shown.lock().unwrap().push(request);
                }
            });
        }
    });
}

/// Serves models; one for all tests of this process, since ONNX Runtime is there once.
fn models() -> &'static Path {
    static SERVED: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    SERVED.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap().keep();
        let path = directory.join("inference.sock");
        serve_models(&path);
        path
    })
}

fn serve_models(path: &Path) {
    let library = Command::new(Path::new(HERE).join("../inference/host-library")).output().unwrap();
    assert!(library.status.success(), "runtime/inference/host-library: {}", String::from_utf8_lossy(&library.stderr));
    let library =
        std::env::var("ORT_DYLIB_PATH").unwrap_or_else(|_| String::from_utf8(library.stdout).unwrap().trim().to_owned());
    let engine = belvedere_inference::onnx_runtime::OnnxRuntime::new(Path::new(&library), 1).unwrap();
    let listener = packet::listen(path).unwrap();
    let server = belvedere_inference::server::Server::new(Box::new(engine));
    std::thread::spawn(move || server.serve(listener));
}

fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

fn the_deployment(world: &World) -> Deployment {
    deployment_of(world, ID, ENTRY, good_model())
}

const ENTRY: &str = r#"{"runtimeDescriptor":{"envelopeVersion":"2021-01-01","entry":{"path":"python3","name":"/panorama/app.py","arguments":["-a"]}}}"#;

fn good_model() -> Vec<u8> {
    let model = std::fs::read(Path::new(HERE).join("../inference/tests/data/double.onnx")).unwrap();
    archive("model/double.onnx", &model)
}

/// The root file system of all containers here. Once: to pack it, hash it and unpack it takes most of a test's time.
fn rootfs() -> &'static [u8] {
    static PACKED: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    PACKED.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let rootfs = directory.path().join("rootfs.tar.gz");
        let program = Path::new(HERE).join("tests/data/app.py");
        let status = Command::new(Path::new(HERE).join("tests/host-rootfs")).arg(&rootfs).arg(program).status();
        assert!(status.unwrap().success());
        std::fs::read(&rootfs).unwrap()
    })
}

/// An application instance with this descriptor of its container, and this archive as its model.
fn deployment_of(world: &World, id: &str, entry: &str, model: Vec<u8>) -> Deployment {
    let tree = world.put(rootfs().to_vec(), "{}.tar.gz");
    let entry = world.put(entry.as_bytes().to_vec(), "{}.json");
    let model = world.put(model, "{}.tar.gz");
    let shape = r#"{"mlModelDescriptor":{"envelopeVersion":"2021-01-01","framework":"PYTORCH","inputs":[{"name":"x","shape":[1,2]}]}}"#;
    let shape = world.put(shape.as_bytes().to_vec(), "{}.json");
    let code = format!(
        r#"{{"nodePackage":{{"envelopeVersion":"2021-01-01","name":"CODE","version":"1.0",
        "assets":[{{"name":"code","implementations":[{{"type":"container","assetUri":"{}","descriptorUri":"{}"}}]}}],
        "interfaces":[{{"name":"interface","category":"business_logic","asset":"code",
          "inputs":[{{"name":"video_in","type":"media"}},{{"name":"threshold","type":"float32"}}],
          "outputs":[{{"name":"video_out","type":"media"}}]}}]}}}}"#,
        tree.name, entry.name
    );
    let package = format!(
        r#"{{"nodePackage":{{"envelopeVersion":"2021-01-01","name":"MODEL","version":"1.0",
        "assets":[{{"name":"model","implementations":[{{"type":"model","assetUri":"{}","descriptorUri":"{}"}}]}}],
        "interfaces":[{{"name":"interface","category":"ml_model","asset":"model","inputs":[{{"name":"video_in","type":"media"}}],
          "outputs":[{{"name":"video_out","type":"media"}}]}}]}}}}"#,
        model.name, shape.name
    );
    let camera =
        belvedere_manifest::camera_package(&"CAM".to_owned().try_into().unwrap(), &"1.0".to_owned().try_into().unwrap());
    let graph = serde_json::json!({"nodeGraph": {"envelopeVersion": "2021-01-01",
        "packages": [
            {"name": "123456789012::CODE", "version": "1.0"}, {"name": "123456789012::MODEL", "version": "1.0"},
            {"name": "panorama::abstract_rtsp_media_source", "version": "1.0"}, {"name": "panorama::hdmi_data_sink", "version": "1.0"}],
        "nodes": [
            {"name": "code_node", "interface": "123456789012::CODE.interface"},
            {"name": "model_node", "interface": "123456789012::MODEL.interface"},
            {"name": "camera_node", "interface": "panorama::abstract_rtsp_media_source.rtsp_v1_interface", "overridable": true},
            {"name": "output_node", "interface": "panorama::hdmi_data_sink.hdmi0"},
            {"name": "threshold", "interface": "float32", "value": 20, "overridable": true}],
        "edges": [
            {"producer": "camera_node.video_out", "consumer": "code_node.video_in"},
            {"producer": "threshold", "consumer": "code_node.threshold"},
            {"producer": "code_node.video_out", "consumer": "output_node.video_in"}]}});
    let overrides = serde_json::json!({"nodeGraphOverrides": {"envelopeVersion": "2021-01-01",
        "packages": [{"name": "123456789012::CAM", "version": "1.0"}],
        "nodes": [
            {"name": "front", "interface": "123456789012::CAM.CAM"},
            {"name": "my_threshold", "interface": "float32", "value": 50}],
        "nodeOverrides": [
            {"replace": "camera_node", "with": [{"name": "front"}]},
            {"replace": "threshold", "with": [{"name": "my_threshold"}]}]}});
    Deployment {
        application_instance_id: id.into(),
        name: "test".into(),
        created_ms: 1_700_000_000_000,
        graph,
        overrides: Some(overrides),
        packages: vec![
            world.package("CODE", &code, vec![tree, entry]),
            world.package("MODEL", &package, vec![model, shape]),
            world.package("CAM", &camera.to_document(), vec![]),
        ],
        cameras: vec![CameraSource {
            package: "123456789012::CAM".into(),
            stream_url: "rtsp://camera/1".into(),
            username: Some("user".into()),
            password: Some("secret".into()),
        }],
        desired_state: DesiredState::Running,
        replaces: None,
        runtime_role_arn: None,
    }
}

fn desired(deployment: &Deployment) -> SetDesired {
    all_desired(&[deployment])
}

fn all_desired(deployments: &[&Deployment]) -> SetDesired {
    let desired = |deployment: &&Deployment| {
        let sha256 = hash(&serde_json::to_vec(deployment).unwrap());
        DesiredDeployment { sha256, deployment: (*deployment).clone(), signals: BTreeMap::new() }
    };
    SetDesired { deployments: deployments.iter().map(desired).collect() }
}

#[test]
fn an_application_runs_in_its_container_and_comes_back() {
    let ready = rustix::process::geteuid().is_root() && Path::new("/usr/bin/crun").exists();
    assert!(ready, "this test needs root and crun (scripts/install-packages)");
    let mut world = World::new();
    world.start();
    let socket = world.path("applications.sock");
    let deployment = the_deployment(&world);
    deployment::application(&deployment, &[]).expect_err("packages are needed");

    // 1. Without access nothing can be fetched; that is said, and waited for.
    belvedere_varlink::call(&socket, &desired(&deployment)).unwrap();
    world.wait("a reason", || world.reports().applications[0].status_description.contains("no access to the object store"));
    assert_eq!(world.reports().applications[0].status, "DEPLOYMENT_IN_PROGRESS");

    // 2. With access it is installed and runs.
    let access = world.access();
    belvedere_varlink::call(&socket, &access).unwrap();
    world.wait_running();
    let report = world.reports().applications.remove(0);
    assert_eq!(report.device_reported_status, "RUNNING");
    world.wait("all nodes", || world.reports().applications[0].nodes.iter().all(|node| node.status == "RUNNING"));
    let names: Vec<String> = world.reports().applications[0].nodes.iter().map(|node| node.node.clone()).collect();
    assert_eq!(names, ["front", "code_node", "model_node", "output_node"]);
    assert_eq!(world.streams.lock().unwrap()[0].password.as_deref(), Some("secret"));

    // 3. Pictures with marks that the model computed come out.
    world.wait("pictures", || world.shown.lock().unwrap().len() > 5);
    let shown = world.shown.lock().unwrap().clone();
    assert!(
        matches!(&shown[0], display::Request::Open { application_instance_id, started_us: 1_700_000_000_000_000 } if application_instance_id == ID)
    );
    let display::Request::Show { stream_id, rectangles, labels, width: 64, height: 48, .. } = shown.last().unwrap() else {
        panic!()
    };
    let value: f32 = labels[0].0.strip_prefix("value ").unwrap().parse().unwrap();
    assert_eq!(stream_id, "front");
    assert!((rectangles[0][2] - value * 2.0 / 1000.0).abs() < 1e-4 && rectangles[0][3] == 0.5, "{rectangles:?} {value}");

    // 4. What it printed and logged arrives, and says that it is confined.
    let console = world.lines("console_output").join("\n");
    for expected in [
        &format!("environment {ID} code_node eu-west-7 / ['-a']"),
        "written before: False",
        "NoNewPrivs=1 Seccomp=2 CapEff=00000000000004fb",
        "users ['0', '100000', '65536']",
        "mount -1 unshare -1",
        "interfaces ['lo']",
        "processes 1",
    ] {
        assert!(console.contains(expected), "{expected:?} is missing in:\n{console}");
    }
    assert!(!console.contains("WRITABLE"), "{console}");
    world.wait("the log file's line", || world.lines("code_node").contains(&"ready, started 1 times".to_owned()));

    // 5. A program that ends is started again, with a fresh root and its old storage.
    let storage = world.path("state/instances").join(ID).join("storage");
    std::fs::write(storage.join("die"), "").unwrap();
    world.wait("the second start", || world.lines("code_node").contains(&"ready, started 2 times".to_owned()));
    let console = world.lines("console_output").join("\n");
    assert!(console.contains("the program ended with exit status 3; it starts again in 1 s"), "{console}");
    assert_eq!(console.matches("written before: False").count(), 2);
    world.wait_running();

    // 6. The process is killed: everything comes back, and the service is not needed.
    world.objects.lock().unwrap().clear();
    world.signal("-KILL");
    world.start();
    world.wait_running();
    world.wait("the third start", || std::fs::read(storage.join("starts")).is_ok_and(|starts| starts.len() == 3));
    assert_eq!(world.programs(), 1, "the containers of the killed process are gone");

    // 7. An orderly end within the ten seconds that the machine has.
    let begin = Instant::now();
    world.signal("-TERM");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    world.start();
    world.wait_running();

    // 8. Stopped, started, removed.
    let stopped = Deployment { desired_state: DesiredState::Stopped, ..deployment.clone() };
    belvedere_varlink::call(&socket, &desired(&stopped)).unwrap();
    world.wait("the stop", || world.reports().applications[0].device_reported_status == "STOPPED");
    assert!(world.streams.lock().unwrap().len() <= 1);
    world.wait("the camera to be left alone", || world.streams.lock().unwrap().is_empty());
    belvedere_varlink::call(&socket, &desired(&deployment)).unwrap();
    world.wait_running();
    belvedere_varlink::call(&socket, &SetDesired { deployments: vec![] }).unwrap();
    world.wait("the removal", || world.reports().applications[0].status == "REMOVAL_SUCCEEDED");
    for directory in ["trees", "models", "objects", "instances"] {
        let left: Vec<_> =
            std::fs::read_dir(world.path("state").join(directory)).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    // 9. What cannot run is refused with a reason, and does not disturb.
    let mut broken = deployment;
    broken.graph["nodeGraph"]["edges"][0]["consumer"] = "code_node.nowhere".into();
    world.objects.lock().unwrap().clear();
    let broken = Deployment { packages: the_deployment(&world).packages, ..broken };
    belvedere_varlink::call(&socket, &access).unwrap();
    belvedere_varlink::call(&socket, &desired(&broken)).unwrap();
    world.wait("the refusal", || world.reports().applications[0].status == "DEPLOYMENT_FAILED");
    assert!(world.reports().applications[0].status_description.contains("nodeGraph.edges[0].consumer"));
}

/// The issue's sight of a hostile application, and runtime D1, D11, D32; tried applications A5, A7, A9.
#[test]
fn an_application_that_leaves_the_worst_behind_harms_nobody_and_updates_that_fail_stop_nothing() {
    const BAD: &str = "applicationInstance-bad";
    const NEXT: &str = "applicationInstance-next";
    let ready = rustix::process::geteuid().is_root() && Path::new("/usr/bin/crun").exists();
    assert!(ready, "this test needs root and crun (scripts/install-packages)");
    let mut world = World::new();
    world.start();
    let socket = world.path("applications.sock");
    let good = the_deployment(&world);
    let program = include_str!("data/bad.py");
    let entry = serde_json::json!({"runtimeDescriptor": {"envelopeVersion": "2021-01-01",
        "entry": {"path": "python3", "name": "-c", "arguments": [program]}}});
    let bad = deployment_of(&world, BAD, &entry.to_string(), good_model());
    belvedere_varlink::call(&socket, &world.access()).unwrap();
    belvedere_varlink::call(&socket, &all_desired(&[&good, &bad])).unwrap();
    world.wait_running();

    // 1. Twenty thousand levels in its root, its storage and its logs, and it crashes: it is said to restart, all the time,
    //    and nothing else notices.
    world.wait("its second start", || world.starts(BAD) >= 2);
    world.wait("words", || {
        let report = world.report(BAD);
        report.health == "ERROR" && report.status_description.contains("segmentation fault")
    });
    world.wait("its third start", || {
        assert_eq!(world.report(BAD).health, "ERROR", "{:?}", world.report(BAD));
        world.starts(BAD) >= 3
    });
    assert_eq!((world.report(ID).health.as_str(), world.starts(ID)), ("RUNNING", 1));
    assert!(world.program.as_mut().unwrap().try_wait().unwrap().is_none(), "the program still runs");

    // 2. The same directories are met by the next start, and by the removal.
    world.signal("-KILL");
    world.start();
    world.wait_running();
    let before = world.starts(BAD);
    world.wait("another start", || world.starts(BAD) > before);
    belvedere_varlink::call(&socket, &desired(&good)).unwrap();
    world.wait("the removal", || world.report(BAD).status == "REMOVAL_SUCCEEDED");
    let discarded = world.path("state/discarded");
    world.wait("what it left to go", || std::fs::read_dir(&discarded).unwrap().next().is_none());
    assert_eq!((world.report(ID).health.as_str(), world.starts(ID)), ("RUNNING", 2));

    // 3. An update that cannot run here: that is said, and what runs goes on, also after a restart of the process.
    let broken = deployment_of(&world, ID, ENTRY, archive("model.pth", b"x"));
    belvedere_varlink::call(&socket, &world.access()).unwrap();
    belvedere_varlink::call(&socket, &desired(&broken)).unwrap();
    let failed = |report: ApplicationReport| {
        report.status == "DEPLOYMENT_FAILED"
            && report.health == "RUNNING"
            && report.status_description.contains("the model of package MODEL 1.0, node model_node")
    };
    world.wait("the refusal", || failed(world.report(ID)));
    assert_eq!(world.starts(ID), 2, "it was not even restarted");
    world.signal("-KILL");
    world.start();
    world.wait("the old version again", || world.starts(ID) == 3);
    belvedere_varlink::call(&socket, &world.access()).unwrap();
    world.wait("the refusal again", || failed(world.report(ID)));

    // 4. Another instance takes its place: the old one runs until the new one can, which it cannot while its objects are
    //    missing; and removals do not wait for it.
    let next = Deployment { application_instance_id: NEXT.into(), replaces: Some(ID.into()), ..good.clone() };
    let kept = std::mem::take(&mut *world.objects.lock().unwrap());
    std::fs::remove_dir_all(world.path("state/models")).unwrap();
    belvedere_varlink::call(&socket, &desired(&next)).unwrap();
    world.wait("the old one to stay", || {
        let report = world.report(ID);
        report.status_description.contains("which replaces it, is ready") && report.health == "RUNNING"
    });
    assert_eq!(world.starts(NEXT), 0);
    *world.objects.lock().unwrap() = kept;
    belvedere_varlink::call(&socket, &world.access()).unwrap();
    world.wait("the new one", || world.report(NEXT).health == "RUNNING");
    world.wait("the old one's removal", || world.report(ID).status == "REMOVAL_SUCCEEDED");
    assert_eq!(world.starts(NEXT), 1);
}
