//! One appliance's life, seen by the people around it: an operator with good and bad sticks, an administrator with the
//! AWS CLI, a developer with an application, someone who trips over the camera's plug, and someone who pulls the power.
//!
//! One test, because it is one life: each step stands on the one before. `BELVEDERE_IMAGE` names the image.

use crate::sticks;
use base64::Engine;
use belvedere_end_to_end::progress::Progress;
use belvedere_end_to_end::{Scene, SceneConfiguration, Trouble, picture};
use belvedere_virtual_appliance::stick::{Format, Stick};
use belvedere_virtual_appliance::{Colour, Light, Pattern};
use std::path::Path;
use std::time::{Duration, Instant};

const DEVICE: &str = "lifetime";
const OTHER_DEVICE: &str = "second-life";
const MINUTE: Duration = Duration::from_secs(60);

fn open(name: &str) -> Result<Scene, Trouble> {
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .canonicalize()
        .map_err(|error| Trouble::new("finding the work tree", error))?;
    let state = top.join("build/end-to-end").join(name);
    let _ = std::fs::remove_dir_all(&state);
    Scene::open(SceneConfiguration::of_work_tree(&top, &state)?)
}

fn seen(doing: &str) -> impl Fn(belvedere_virtual_appliance::Error) -> Trouble + '_ {
    move |error| Trouble::new(doing, error)
}

fn wait_green(scene: &mut Scene, doing: &str) -> Result<(), Trouble> {
    scene.appliance()?.wait_for_light(Light::Status, Pattern::Solid(Colour::Green), 5 * MINUTE).map_err(seen(doing))
}

/// Plugs a bad stick in, sees the red light, pulls it out, sees the green light, reads what the appliance wrote onto it.
fn try_bad_stick(scene: &mut Scene, name: &str, stick: Stick, reasons: &[&str]) -> Result<(), Trouble> {
    let doing = format!("the stick {name}");
    let lines: Vec<String> = reasons.iter().map(|reason| format!("({reason})")).collect();
    let appliance = scene.appliance()?;
    appliance.plug_stick(stick.path()).map_err(seen(&doing))?;
    appliance.console_contains_any(&lines.iter().map(String::as_str).collect::<Vec<_>>(), MINUTE).map_err(seen(&doing))?;
    appliance.wait_for_light(Light::Status, Pattern::Fast(Colour::Red), MINUTE).map_err(seen(&doing))?;
    // The result file is on the stick once the appliance has let go of it; the red light comes no later.
    std::thread::sleep(Duration::from_secs(2));
    appliance.unplug_stick().map_err(seen(&doing))?;
    wait_green(scene, &doing)?;
    if reasons.contains(&"stick_unreadable") {
        return Ok(());
    }
    let result = stick
        .read("panorama/provisioning-result.txt")
        .map_err(seen(&doing))?
        .ok_or_else(|| Trouble::new(&doing, "there is no result file on it"))?;
    let text = String::from_utf8_lossy(&result).into_owned();
    let first = text.lines().next().unwrap_or_default();
    if !reasons.iter().any(|reason| first.starts_with(&format!("FAILED ({reason}): "))) {
        return Err(Trouble::new(doing, format!("expected one of {reasons:?}, the result file says: {text}")));
    }
    Ok(())
}

fn live() -> Result<(), Trouble> {
    let mut progress = Progress::new();
    progress.stage("the service and the camera start, the appliance is switched on");
    let mut scene = open("life")?;
    scene.power_on()?;
    scene.start_camera()?;
    wait_green(&mut scene, "booting")?;

    progress.stage("bad sticks on a new appliance: a reason on each, a red light, and nothing changed");
    let good = scene.tools.aws(&["panorama", "provision-device", "--name", DEVICE])?;
    let good = base64::engine::general_purpose::STANDARD
        .decode(good["Certificates"].as_str().unwrap_or_default())
        .map_err(|error| Trouble::new("decoding Certificates", error))?;
    for bad in sticks::some_of(sticks::bad(&good)) {
        progress.note(bad.name);
        let files: Vec<(&str, &[u8])> = bad.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let stick = Stick::create(scene.file(&format!("stick-{}.img", bad.name)), Format::Fat32Partition, &files)
            .map_err(seen("making a stick"))?;
        try_bad_stick(&mut scene, bad.name, stick, bad.reasons)?;
    }
    progress.note("wrong file system");
    let stick = Stick::create(scene.file("stick-ext4.img"), Format::Ext4, &[]).map_err(seen("making a stick"))?;
    try_bad_stick(&mut scene, "ext4", stick, &["stick_unreadable"])?;
    let described = scene.describe_device(DEVICE)?;
    // FAILED once the five minutes of its archive are over.
    let waits = ["AWAITING_PROVISIONING", "FAILED"].map(|s| described["ProvisioningStatus"] == s);
    assert!(waits.contains(&true), "no bad stick provisioned anything: {described:#}");

    progress.stage("a good stick: the appliance registers and is online");
    // The archive from before may be older than its five minutes by now.
    let id = described["DeviceId"].as_str().unwrap_or_default().to_owned();
    scene.tools.aws(&["panorama", "delete-device", "--device-id", &id])?;
    let stick = Stick::create(scene.file("stick-spent.img"), Format::Fat32, &[("certificates-omni_spent.zip", &good)])
        .map_err(seen("making a stick"))?;
    try_bad_stick(&mut scene, "a claim that the service ended", stick, &["service_refused", "claim_expired"])?;
    let path = scene.make_stick_as(DEVICE, Format::Fat32Logical)?;
    scene.appliance()?.plug_stick(&path).map_err(seen("plugging in the stick"))?;
    scene.appliance()?.wait_for_light(Light::Status, Pattern::Slow(Colour::Blue), MINUTE).map_err(seen("registering"))?;
    let device = scene.wait_online(DEVICE, 5 * MINUTE)?;
    let device_id = device["DeviceId"].as_str().unwrap_or_default().to_owned();
    assert_eq!(device["DeviceAggregatedStatus"], "ONLINE", "{device:#}");
    assert_eq!(device["CurrentSoftware"], env!("CARGO_PKG_VERSION"), "{device:#}");
    assert_eq!(device["CurrentNetworkingStatus"]["Ethernet0Status"]["ConnectionStatus"], "CONNECTED", "{device:#}");
    assert_eq!(device["CurrentNetworkingStatus"]["Ethernet0Status"]["IpAddress"], "10.0.2.15/24", "{device:#}");
    scene.appliance()?.console_contains("(provisioned)", MINUTE).map_err(seen("provisioning"))?;
    wait_green(&mut scene, "provisioned")?;
    scene
        .appliance()?
        .wait_for_light(Light::Network, Pattern::Fast(Colour::Green), MINUTE)
        .map_err(seen("talking to the service"))?;
    scene.appliance()?.unplug_stick().map_err(seen("pulling the stick out"))?;
    let stick = Stick::open(&path).map_err(seen("reading the stick"))?;
    let files = stick.files().map_err(seen("reading the stick"))?;
    for log in ["occ.log", "ota_agent.log", "syslog.log", "kern.log", "provisioning-result.txt"] {
        assert!(files.iter().any(|file| file.ends_with(log)), "{log} is on the stick: {files:?}");
    }
    assert!(!files.iter().any(|file| file.ends_with(".zip")), "the archive was wiped: {files:?}");

    progress.stage("a bad stick on an appliance in operation: it stays who it is");
    let stick = Stick::create(scene.file("stick-again.img"), Format::Fat32, &[("certificates-omni_x.zip", &good[..100])])
        .map_err(seen("making a stick"))?;
    try_bad_stick(&mut scene, "damaged again", stick, &["archive_damaged"])?;
    scene.wait_online(DEVICE, MINUTE)?;

    progress.stage("boot D8: another service's stick on an appliance in operation is refused, and changes nothing");
    let mut stranger = scene.open_strangers()?;
    let path = stranger.make_stick_as(OTHER_DEVICE, Format::Fat32BehindEfi)?;
    let archive = format!("certificates-omni_{OTHER_DEVICE}.zip");
    let stick = Stick::open(&path).map_err(seen("reading the stick"))?;
    try_bad_stick(&mut scene, "another service's", stick.clone(), &["already_provisioned"])?;
    assert!(stick.read(&archive).map_err(seen("reading the stick"))?.is_some(), "another appliance can still use it");
    let text = stick.read("panorama/provisioning-result.txt").map_err(seen("reading the stick"))?.unwrap_or_default();
    assert!(String::from_utf8_lossy(&text).contains(&device_id), "the text says whose it is");
    scene.wait_online(DEVICE, MINUTE)?;
    let described = stranger.describe_device(OTHER_DEVICE)?;
    assert_eq!(described["ProvisioningStatus"], "AWAITING_PROVISIONING", "{described:#}");

    progress.stage("the developer packages and deploys the sample");
    let project = scene.package_sample()?;
    scene.register_camera()?;
    let instance = scene.deploy(&project, &device_id)?;
    let mut notes = Vec::new();
    scene.wait_running(&instance, 10 * MINUTE, |note| notes.push(note.to_owned()))?;
    progress.note(&notes.join("\n"));

    progress.stage("the monitor shows a box around each word");
    let png = scene.file("monitor.png");
    let verdict = picture::wait_right(&mut scene, &png, 5 * MINUTE)?;
    progress.note(&format!("measured: {verdict}"));

    progress.stage("what the API says of nodes, and the application's own lines");
    let nodes = scene.tools.aws(&[
        "panorama",
        "list-application-instance-node-instances",
        "--application-instance-id",
        &instance,
    ])?;
    let nodes = nodes["NodeInstances"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = nodes.iter().filter_map(|node| node["NodeInstanceId"].as_str()).collect();
    for name in ["code_node", "my_camera", "output_node", "text_detector"] {
        assert!(names.contains(&name), "{name} is among the node instances: {names:?}");
    }
    for node in &nodes {
        assert_eq!(node["CurrentStatus"], "RUNNING", "{node:#}");
    }
    for stream in ["code_node", "console_output"] {
        let deadline = Instant::now() + MINUTE;
        loop {
            let lines = scene.log_lines(&device_id, &instance, stream).unwrap_or_default();
            if lines.iter().any(|line| line.contains("words") || line.contains("text")) {
                progress.note(&format!(
                    "{stream}: {} lines, the last: {}",
                    lines.len(),
                    lines.last().map(String::as_str).unwrap_or_default()
                ));
                break;
            }
            assert!(Instant::now() < deadline, "the application's own lines are in the log stream {stream}: {lines:?}");
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    progress.stage("the camera is away for 30 s: the picture comes back by itself, the application never dies");
    let started = |scene: &Scene| {
        scene
            .appliance
            .as_ref()
            .map(|appliance| appliance.console().matches("the container starts").count())
            .unwrap_or_default()
    };
    let before = started(&scene);
    assert!(before > 0, "the console tells of the container's start");
    scene.stop_camera();
    std::thread::sleep(Duration::from_secs(30));
    scene.start_camera()?;
    let verdict = picture::wait_new(&mut scene, &png, 2 * MINUTE)?;
    progress.note(&format!("measured: back {verdict}"));
    assert_eq!(started(&scene), before, "the application was not started again");

    progress.stage("power is cut while everything runs: everything comes back, without the service");
    scene.appliance()?.power_cut().map_err(seen("pulling the power"))?;
    scene.service.signal(rustix::process::Signal::STOP);
    scene.power_on()?;
    let verdict = picture::wait_right(&mut scene, &png, 5 * MINUTE);
    scene.service.signal(rustix::process::Signal::CONT);
    progress.note(&format!("measured: {}", verdict?));
    scene.wait_online(DEVICE, 3 * MINUTE)?;

    progress.stage("the administrator restarts the appliance with `create-job-for-devices`");
    let job =
        scene.tools.aws(&["panorama", "create-job-for-devices", "--device-ids", &device_id, "--job-type", "REBOOT"])?;
    let job_id = job["Jobs"][0]["JobId"].as_str().unwrap_or_default().to_owned();
    let deadline = Instant::now() + 5 * MINUTE;
    let mut statuses: Vec<String> = Vec::new();
    loop {
        let job = scene.tools.aws(&["panorama", "describe-device-job", "--job-id", &job_id])?;
        let status = job["Status"].as_str().unwrap_or_default().to_owned();
        if statuses.last() != Some(&status) {
            statuses.push(status.clone());
        }
        if status == "COMPLETED" {
            break;
        }
        assert!(
            status != "FAILED" && Instant::now() < deadline,
            "the restart is completed: {job:#}\n{}",
            scene.console_tail(60)
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    progress.note(&format!("the job was {}", statuses.join(", ")));
    let verdict = picture::wait_right(&mut scene, &png, 5 * MINUTE)?;
    progress.note(&format!("measured: {verdict}"));
    let console = scene.appliance()?.console();
    assert_eq!(console.matches("restart asked for").count(), 1, "the appliance restarted once: {}", scene.console_tail(60));
    assert!(
        console.matches("belvedere: operating (").count() >= 2,
        "init started anew in the same power-on: {}",
        scene.console_tail(60)
    );

    progress.stage("the application is removed");
    scene.tools.aws(&["panorama", "remove-application-instance", "--application-instance-id", &instance])?;
    let deadline = Instant::now() + 2 * MINUTE;
    loop {
        let described = scene.describe_application(&instance)?;
        if described["Status"] == "REMOVAL_SUCCEEDED" {
            break;
        }
        assert!(Instant::now() < deadline, "the application is removed: {described:#}\n{}", scene.console_tail(40));
        std::thread::sleep(Duration::from_secs(1));
    }

    progress
        .stage("boot D8: the administrator deletes the device: the appliance forgets its owner and takes another's stick");
    let id = stranger.describe_device(OTHER_DEVICE)?["DeviceId"].as_str().unwrap_or_default().to_owned();
    stranger.tools.aws(&["panorama", "delete-device", "--device-id", &id])?;
    scene.tools.aws(&["panorama", "delete-device", "--device-id", &device_id])?;
    scene
        .appliance()?
        .console_contains("nothing of the earlier owner is left; restarting", 3 * MINUTE)
        .map_err(seen("releasing"))?;
    // Made only now, for its five minutes; plugged in while the appliance restarts.
    let path = stranger.make_stick_as(OTHER_DEVICE, Format::Fat32BehindEfi)?;
    scene.appliance()?.plug_stick(&path).map_err(seen("plugging in the stick"))?;
    stranger.wait_online(OTHER_DEVICE, 5 * MINUTE)?;
    wait_green(&mut scene, "another owner's")?;
    let list = stranger.tools.aws(&["panorama", "list-application-instances"])?;
    assert_eq!(list["ApplicationInstances"].as_array().map(Vec::len), Some(0), "{list:#}");
    scene.appliance()?.unplug_stick().map_err(seen("pulling the stick out"))?;

    progress.stage("the power button: everything ends in order within 10 s");
    scene.appliance()?.press_power_button().map_err(seen("pressing the power button"))?;
    scene.appliance()?.wait_for_power_off(Duration::from_secs(30)).map_err(seen("switching off"))?;
    println!("{}", progress.summary());
    Ok(())
}

#[test]
fn one_appliances_life() {
    if let Err(trouble) = live() {
        panic!("{trouble}");
    }
}
