//! What a person's hands do: stick, cable, plug. And what happens when the person walks away.
//!
//!     BELVEDERE_IMAGE=… scripts/cargo test -p belvedere-virtual-appliance --test appliance hands::

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use belvedere_virtual_appliance::stick::{Format, Stick};
use belvedere_virtual_appliance::{Appliance, Colour, Light, Pattern};

use crate::common::{BOOT, appliance, image, must, scratch};

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within 60 s");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn green(appliance: &mut Appliance) {
    must(appliance.wait_for_light(Light::Status, Pattern::Solid(Colour::Green), BOOT));
}

#[test]
fn a_stick_is_noticed_while_running_after_pulling_and_at_power_on_and_a_cable_shows_on_the_light() {
    let scratch = scratch();
    let stick = must(Stick::create(scratch.path().join("stick.img"), Format::Fat32Partition, &[("notes.txt", b"hello")]));
    let mut appliance = must(appliance(&image(), scratch.path()).start());
    green(&mut appliance);
    for _ in 0..2 {
        must(appliance.plug_stick(stick.path()));
        assert!(appliance.plug_stick(stick.path()).is_err(), "there is one port");
        wait_until("the stick is read", || must(appliance.stick_reads()) > 0);
        must(appliance.unplug_stick());
        assert_eq!(must(stick.read("notes.txt")).unwrap(), b"hello");
    }
    must(appliance.set_cable(0, false));
    must(appliance.wait_for_light(Light::Network, Pattern::Solid(Colour::Red), BOOT));
    must(appliance.set_cable(0, true));
    must(appliance.wait_for_light(Light::Network, Pattern::Solid(Colour::Green), BOOT));

    must(appliance.power_cut());
    must(appliance.insert_stick(Some(stick.path().to_owned())));
    must(appliance.power_on());
    wait_until("the stick in the port is read", || must(appliance.stick_reads()) > 0);
}

/// Process ids of the children of all threads of a process.
fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

#[test]
fn nothing_is_left_running_when_the_driver_is_killed() {
    let scratch = scratch();
    let mut driver = Command::new(env!("CARGO_BIN_EXE_belvedere-virtual-appliance"))
        .arg("run")
        .arg("--image")
        .arg(image())
        .arg("--state")
        .arg(scratch.path().join("state"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("QEMU and the TPM run", || children(driver.id()).len() == 2);
    let started = children(driver.id());
    driver.kill().unwrap();
    driver.wait().unwrap();
    wait_until("they end", || {
        started.iter().all(|id| {
            // A zombie that nobody collects yet has ended too.
            fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(") Z "))
        })
    });
}
