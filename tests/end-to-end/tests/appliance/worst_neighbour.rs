//! An application that made everything as bad as it can (deep trees, a full disk, all channels taken, a model that is
//! asked too much, all memory) stands beside a good one: the good one is served, the appliance restarts, and the bad one is removed
//! with the AWS CLI.
//!
//! Half an hour of emulation, so it is run by `scripts/test --long` alone; by hand:
//! `BELVEDERE_IMAGE=$PWD/build/appliance scripts/cargo test -p belvedere-end-to-end --test appliance worst_neighbour:: -- --ignored --nocapture`

use belvedere_end_to_end::progress::Progress;
use belvedere_end_to_end::{Scene, SceneConfiguration, Trouble, picture};
use belvedere_virtual_appliance::{Colour, Light, Pattern};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DEVICE: &str = "crowded";
const MINUTE: Duration = Duration::from_secs(60);
const PROGRAM: &str = include_str!("../../src/worst_neighbour.py");

fn seen(doing: &str) -> impl Fn(belvedere_virtual_appliance::Error) -> Trouble + '_ {
    move |error| Trouble::new(doing, error)
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) -> Result<(), Trouble> {
    let failed = |error: &dyn std::fmt::Display| Trouble::new(format!("changing {}", path.display()), error);
    let mut document: Value =
        serde_json::from_slice(&std::fs::read(path).map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    change(&mut document);
    std::fs::write(path, document.to_string()).map_err(|error| failed(&error))
}

/// The sample's project once more, with another name, another program and no way to the monitor. The container's files are
/// the same.
fn package_the_worst(scene: &Scene, sample: &Path) -> Result<PathBuf, Trouble> {
    let project = scene.file("worst/text-finder");
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |error: std::io::Error| Trouble::new(doing, error)
    };
    std::fs::create_dir_all(&project).map_err(failed("making the project"))?;
    let copied = std::process::Command::new("cp").arg("-r").arg(sample.join(".")).arg(&project).status();
    if !copied.map_err(failed("copying the sample"))?.success() {
        return Err(Trouble::new("copying the sample", "cp failed"));
    }
    let packages = project.join("packages");
    for entry in std::fs::read_dir(&packages).map_err(failed("reading the packages"))?.flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.contains("TEXT_FINDER_CODE") {
            let new = packages.join(name.replace("TEXT_FINDER_CODE", "WORST_CODE"));
            std::fs::rename(entry.path(), &new).map_err(failed("renaming the package"))?;
            let descriptor = json!({"runtimeDescriptor": {"envelopeVersion": "2021-01-01",
                "entry": {"path": "python3", "name": "-c", "arguments": [PROGRAM]}}})
            .to_string();
            let uri = format!("{}.json", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&descriptor)));
            std::fs::write(project.join("assets").join(&uri), &descriptor).map_err(failed("writing the descriptor"))?;
            std::fs::write(new.join("descriptor.json"), &descriptor).map_err(failed("writing the descriptor"))?;
            edit(&new.join("package.json"), |document| {
                document["nodePackage"]["name"] = "WORST_CODE".into();
                document["nodePackage"]["assets"][0]["implementations"][0]["descriptorUri"] = uri.into();
            })?;
        }
    }
    let graph = project.join("graphs/text-finder/graph.json");
    edit(&graph, |document| {
        let text = document.to_string().replace("TEXT_FINDER_CODE", "WORST_CODE");
        *document = serde_json::from_str(&text).unwrap_or_default();
        if let Some(edges) = document["nodeGraph"]["edges"].as_array_mut() {
            edges.retain(|edge| edge["consumer"] != "output_node.video_in");
        }
    })?;
    scene.tools.panorama_cli(&["package-application"], &project)?;
    Ok(project)
}

fn wait_description(scene: &Scene, instance: &str, words: &str, timeout: Duration) -> Result<(), Trouble> {
    let deadline = Instant::now() + timeout;
    loop {
        let described = scene.describe_application(instance)?;
        if described["StatusDescription"].as_str().is_some_and(|text| text.contains(words)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let console = scene.console_tail(80);
            return Err(Trouble::new(format!("waiting for {words:?}"), format!("{described:#}\n{console}")));
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

fn live() -> Result<(), Trouble> {
    let mut progress = Progress::new();
    progress.stage("an appliance with the sample on it");
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .canonicalize()
        .map_err(|error| Trouble::new("finding the work tree", error))?;
    let state = top.join("build/end-to-end/worst-neighbour");
    let _ = std::fs::remove_dir_all(&state);
    let mut scene = Scene::open(SceneConfiguration::of_work_tree(&top, &state)?)?;
    scene.power_on()?;
    scene.start_camera()?;
    let green = Pattern::Solid(Colour::Green);
    scene.appliance()?.wait_for_light(Light::Status, green, 5 * MINUTE).map_err(seen("booting"))?;
    let stick = scene.make_stick(DEVICE)?;
    scene.appliance()?.plug_stick(&stick).map_err(seen("plugging in the stick"))?;
    let device = scene.wait_online(DEVICE, 5 * MINUTE)?;
    let device_id = device["DeviceId"].as_str().unwrap_or_default().to_owned();
    let project = scene.package_sample()?;
    scene.register_camera()?;
    let good = scene.deploy(&project, &device_id)?;
    scene.wait_running(&good, 10 * MINUTE, |_| {})?;
    let png = scene.file("monitor.png");
    picture::wait_right(&mut scene, &png, 5 * MINUTE)?;

    progress.stage("the worst neighbour moves in, and is named as the one who fills the disk");
    let project = package_the_worst(&scene, &project)?;
    let bad = scene.deploy(&project, &device_id)?;
    wait_description(&scene, &bad, "this application fills the appliance's disk", 20 * MINUTE)?;
    let verdict = picture::wait_new(&mut scene, &png, 5 * MINUTE)?;
    progress.note(&format!("measured: {verdict}"));

    progress.stage("the appliance restarts with a full disk, and serves the good one again");
    let restart =
        scene.tools.aws(&["panorama", "create-job-for-devices", "--device-ids", &device_id, "--job-type", "REBOOT"])?;
    let job_id = restart["Jobs"][0]["JobId"].as_str().unwrap_or_default().to_owned();
    let deadline = Instant::now() + 10 * MINUTE;
    while scene.tools.aws(&["panorama", "describe-device-job", "--job-id", &job_id])?["Status"] != "COMPLETED" {
        assert!(Instant::now() < deadline, "the appliance restarts: {}", scene.console_tail(80));
        std::thread::sleep(Duration::from_secs(2));
    }
    scene.wait_online(DEVICE, 5 * MINUTE)?;
    let verdict = picture::wait_right(&mut scene, &png, 10 * MINUTE)?;
    progress.note(&format!("measured: {verdict}"));

    // Tried applications A5: "exit status 137" was all that was said.
    progress.stage(
        "the worst neighbour eats memory from its second start on, is ended again and again, and its author is told why",
    );
    wait_description(&scene, &bad, "out of memory (limit 1 GiB)", 10 * MINUTE)?;
    let verdict = picture::wait_new(&mut scene, &png, 5 * MINUTE)?;
    progress.note(&format!("measured: {verdict}"));

    progress.stage("the worst neighbour is removed, and the good one does not notice");
    scene.tools.aws(&["panorama", "remove-application-instance", "--application-instance-id", &bad])?;
    let deadline = Instant::now() + 5 * MINUTE;
    while scene.describe_application(&bad)?["Status"] != "REMOVAL_SUCCEEDED" {
        assert!(Instant::now() < deadline, "the worst one is removed: {}", scene.console_tail(80));
        std::thread::sleep(Duration::from_secs(2));
    }
    let verdict = picture::wait_new(&mut scene, &png, 5 * MINUTE)?;
    progress.note(&format!("measured: {verdict}"));
    scene.wait_running(&good, MINUTE, |_| {})?;
    println!("{}", progress.summary());
    Ok(())
}

#[test]
#[ignore = "half an hour of emulation: scripts/test --long runs it"]
fn the_worst_neighbour_harms_nobody_and_is_removed() {
    if let Err(trouble) = live() {
        panic!("{trouble}");
    }
}
