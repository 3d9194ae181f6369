//! `scripts/demo`, after everything is built: plays the whole line and tells where to look.

#![allow(clippy::disallowed_methods, reason = "files of tests")]

use belvedere_end_to_end::progress::Progress;
use belvedere_end_to_end::{Scene, SceneConfiguration, Trouble, picture};
use belvedere_virtual_appliance::{Colour, Light, Pattern};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Boots the virtual appliance, provisions it from a stick, deploys the sample and shows the monitor.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Ends with status 0 once the monitor showed the right boxes.
    #[arg(long)]
    once: bool,
    /// The work tree.
    #[arg(long, default_value = ".")]
    top: PathBuf,
    /// Where everything is written; what an earlier run left there is removed.
    #[arg(long, default_value = "build/demo")]
    state: PathBuf,
}

/// Set by Ctrl-C and SIGTERM: everything ends in order.
static ENDING: AtomicBool = AtomicBool::new(false);

/// The first signal asks the play to stop; whatever it waits for, this process is gone five seconds later, and the
/// kernel then ends what it started (each child asked for that).
fn end_in_order_on_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            println!("\nEnding …");
            ENDING.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(5));
            std::process::exit(130);
        }
    });
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    end_in_order_on_signals();
    let mut progress = Progress::new();
    match play(&arguments, &mut progress) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if ENDING.load(Ordering::SeqCst) => {
            println!("Ended.");
            ExitCode::from(130)
        }
        Err(trouble) => {
            eprintln!(
                "\nThe demonstration did not work out.\n{trouble}\n\nEverything that was logged is in {}.",
                arguments.state.display()
            );
            ExitCode::FAILURE
        }
    }
}

fn play(arguments: &Arguments, progress: &mut Progress) -> Result<(), Trouble> {
    const DEVICE: &str = "demo";
    let top = arguments.top.canonicalize().map_err(|error| Trouble::new("finding the work tree", error))?;
    let state = if arguments.state.is_absolute() { arguments.state.clone() } else { top.join(&arguments.state) };
    if state.exists() {
        std::fs::remove_dir_all(&state).map_err(|error| Trouble::new(format!("removing {}", state.display()), error))?;
    }

    progress.stage("The service starts");
    let mut scene = Scene::open(SceneConfiguration::of_work_tree(&top, &state)?)?;
    progress.note(&format!("API at {}", scene.tools.endpoint));

    progress.stage("The appliance is switched on");
    scene.power_on()?;

    progress.stage("The sample is built, packaged and registered with panorama-cli (while the appliance boots)");
    let project = scene.package_sample()?;

    progress.stage("The camera is plugged in");
    scene.start_camera()?;
    progress.note(&scene.camera_url());
    scene.register_camera()?;

    progress.stage("Waiting for the green light");
    scene
        .appliance()?
        .wait_for_light(Light::Status, Pattern::Solid(Colour::Green), Duration::from_secs(600))
        .map_err(|error| Trouble::new("booting", error))?;
    let lights = scene.appliance()?.lights();
    progress.note(&format!("lights: {lights}"));

    progress.stage("The operator plugs in the stick that `aws panorama provision-device` made");
    let stick = scene.make_stick(DEVICE)?;
    scene.appliance()?.plug_stick(&stick).map_err(|error| Trouble::new("plugging in the stick", error))?;
    let device = scene.wait_online(DEVICE, Duration::from_secs(300))?;
    let device_id = device["DeviceId"].as_str().unwrap_or_default().to_owned();
    progress.note(&format!(
        "{device_id}: {} / {}, software {}, {}",
        device["ProvisioningStatus"].as_str().unwrap_or("-"),
        device["DeviceConnectionStatus"].as_str().unwrap_or("-"),
        device["CurrentSoftware"].as_str().unwrap_or("-"),
        device["CurrentNetworkingStatus"]["Ethernet0Status"]["IpAddress"].as_str().unwrap_or("-"),
    ));

    progress.stage("The developer deploys the application with `aws panorama create-application-instance`");
    let instance = scene.deploy(&project, &device_id)?;
    scene.wait_running(&instance, Duration::from_secs(600), |note| println!("              {note}"))?;

    progress.stage("The monitor shows the camera with a box around each word");
    let monitor = scene.file("monitor");
    std::fs::create_dir_all(&monitor).map_err(|error| Trouble::new("making the monitor's folder", error))?;
    let verdict = picture::wait_right(&mut scene, &monitor.join("monitor.png"), Duration::from_secs(180))?;
    progress.note(&verdict.to_string());
    print!("\n{}", progress.summary());

    let files = [
        format!("the monitor     {}/monitor.png", monitor.display()),
        format!("the console     {}", scene.appliance()?.console_log().display()),
        format!("logs            {}/*.log", state.display()),
    ];
    if arguments.once {
        println!("\nEverything ends now. What stays to be looked at\n  {}", files.join("\n  "));
        return Ok(());
    }
    println!("\nWhere to look (the picture is new every 3 s)\n  {}", files.join("\n  "));
    println!(
        "  the lights      {}\n  the API         paste this, then for example `aws panorama describe-device --device-id {device_id}`",
        scene.appliance()?.lights()
    );
    println!("    export PATH={}:$PATH", scene.tools.programs.display());
    for (name, value) in scene.tools.environment() {
        println!("    export {name}={value}");
    }
    println!("Ctrl-C ends everything.");
    let mut shown = String::new();
    while !ENDING.load(Ordering::SeqCst) {
        let began = Instant::now();
        scene.service.check()?;
        let appliance = scene.appliance()?;
        // Written aside and renamed, so that a viewer never sees half a picture.
        let next = monitor.join("next.png");
        if appliance.screenshot(&next).is_ok() {
            let _ = std::fs::rename(&next, monitor.join("monitor.png"));
        }
        let lights = appliance.lights().to_string();
        if lights != shown && !lights.contains("unclear") {
            progress.note(&format!("lights: {lights}"));
            shown = lights;
        }
        while began.elapsed() < Duration::from_secs(3) && !ENDING.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    println!("Ended.");
    Ok(())
}
