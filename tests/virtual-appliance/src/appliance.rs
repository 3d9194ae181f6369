//! One virtual appliance and what a person can do to it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::board::{Acceleration, FIRMWARE, Gesture, Machine, SECOND_PORT, STICK};
use crate::lights::{INTERVAL, Samples};
use crate::process::{self, Owned};
use crate::qmp::Qmp;
use crate::secure_world::SecureWorld;
use crate::{Error, Light, Lights, Pattern, console, disk, file_error};

/// How long QEMU and the TPM may take to come up on an overloaded machine.
const START: Duration = Duration::from_secs(60);
/// Console lines shown with an error.
const SHOWN: usize = 25;
/// Unix socket addresses end at 108 bytes.
const SOCKET_LIMIT: usize = 80;

/// Says where an appliance's parts come from; see [`Appliance::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    image: PathBuf,
    state: Option<PathBuf>,
    stick: Option<PathBuf>,
    firmware: PathBuf,
    secure_world: Option<SecureWorld>,
    second_disk: Option<PathBuf>,
    stick_first: bool,
    has_tpm: bool,
    second_port: bool,
    fresh: bool,
}

impl Builder {
    /// Where what the appliance writes is kept: disk overlay, firmware variables, TPM, console log. An appliance that
    /// is started again with the same directory is the same appliance.
    #[must_use]
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state = Some(directory.into());
        self
    }

    /// Forgets an earlier appliance in the state directory.
    #[must_use]
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// A stick that is in the port when the power comes on.
    #[must_use]
    pub fn stick(mut self, image: impl Into<PathBuf>) -> Self {
        self.stick = Some(image.into());
        self
    }

    /// The firmware tries to start from the stick before it starts from the disk.
    #[must_use]
    pub fn stick_first(mut self) -> Self {
        self.stick_first = true;
        self
    }

    /// Puts a cable into the second network port too.
    #[must_use]
    pub fn second_port(mut self) -> Self {
        self.second_port = true;
        self
    }

    /// A second disk in the machine, such as another appliance's `disk.img`. What is written to it is forgotten.
    #[must_use]
    pub fn second_disk(mut self, image: impl Into<PathBuf>) -> Self {
        self.second_disk = Some(image.into());
        self
    }

    /// Other UEFI code than what lies beside the image.
    #[must_use]
    pub fn firmware(mut self, code: impl Into<PathBuf>) -> Self {
        self.firmware = code.into();
        self
    }

    /// A board whose processor has a secure world: Trusted Firmware-A, OP-TEE and UEFI out of the directory that
    /// `firmware/secure-world/build` printed. All else is the same board. Always emulated.
    #[must_use]
    pub fn secure_world(mut self, firmware: impl Into<PathBuf>) -> Self {
        self.secure_world = Some(SecureWorld::new(firmware));
        self
    }

    /// A board without a TPM, as some have that have a secure world.
    #[must_use]
    pub fn without_tpm(mut self) -> Self {
        self.has_tpm = false;
        self
    }

    /// Makes the state, without switching on. For tests that change the disk before.
    ///
    /// # Errors
    /// When the image directory lacks `disk.img`, `firmware-variables.fd` or `firmware.fd`, or the state cannot be written.
    pub fn prepare(self) -> Result<Appliance, Error> {
        let state = self.state.ok_or_else(|| Error::Input("a virtual appliance needs a state directory".into()))?;
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(0o700);
        make.create(state.join("tpm")).map_err(file_error("create", &state))?;
        let state = fs::canonicalize(&state).map_err(file_error("find", &state))?;
        let (disk, variables) = (state.join("disk.qcow2"), state.join("variables.fd"));
        if self.fresh {
            let (console, secure_console) = (state.join("console.log"), state.join("secure-console.log"));
            for path in [&disk, &variables, &console, &secure_console, &state.join("board-fuses")] {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(file_error("remove", path)(error));
                    }
                    _ => {}
                }
            }
            let tpm = state.join("tpm");
            fs::remove_dir_all(&tpm).map_err(file_error("remove", &tpm))?;
            make.create(&tpm).map_err(file_error("create", &tpm))?;
        }
        if self.has_tpm && !state.join("tpm/tpm2-00.permall").exists() {
            make_tpm(&state.join("tpm"))?;
        }
        if !disk.exists() {
            disk::overlay(&self.image.join("disk.img"), &disk)?;
        }
        if self.secure_world.is_none() && !self.firmware.is_file() {
            return Err(Error::Input(format!(
                "{} is not there: the virtual board's UEFI, which scripts/build-appliance puts beside the image \
                 (firmware/virtual-board/fetch)",
                self.firmware.display()
            )));
        }
        if !variables.exists() {
            let original = self.image.join("firmware-variables.fd");
            // Under another name first: half a copy must not be taken for the appliance's own variables.
            let copy = state.join("variables.fd.partial");
            fs::copy(&original, &copy).map_err(file_error("copy", &original))?;
            fs::rename(&copy, &variables).map_err(file_error("rename", &copy))?;
        }
        Ok(Appliance {
            state,
            firmware: self.firmware,
            secure_world: self.secure_world,
            second_disk: self.second_disk,
            stick_first: self.stick_first,
            has_tpm: self.has_tpm,
            second_port: self.second_port,
            stick: self.stick,
            power: None,
            shared: Arc::default(),
            since: 0,
        })
    }

    /// Makes the state where there is none yet, and switches on.
    ///
    /// # Errors
    /// As [`Builder::prepare`] and [`Appliance::power_on`].
    pub fn start(self) -> Result<Appliance, Error> {
        let mut appliance = self.prepare()?;
        appliance.power_on()?;
        Ok(appliance)
    }
}

fn append(path: &Path) -> Result<fs::File, Error> {
    fs::OpenOptions::new().create(true).append(true).open(path).map_err(file_error("open", path))
}

/// A new TPM, with the SHA-256 bank alone: the firmware hashes everything that it measures once for each bank.
fn make_tpm(directory: &Path) -> Result<(), Error> {
    let mut make = Command::new("swtpm_setup");
    make.args(["--tpm2", "--pcr-banks", "sha256", "--tpmstate"]).arg(directory);
    process::run(&mut make, "swtpm-tools").map(|_| ())
}

/// A virtual appliance. It ends when this is dropped.
#[derive(Debug)]
pub struct Appliance {
    state: PathBuf,
    firmware: PathBuf,
    secure_world: Option<SecureWorld>,
    second_disk: Option<PathBuf>,
    stick_first: bool,
    has_tpm: bool,
    second_port: bool,
    stick: Option<PathBuf>,
    power: Option<Power>,
    shared: Arc<Shared>,
    /// Length of the console log at the last power-on.
    since: u64,
}

/// What the thread that watches the lights shares with everybody else.
#[derive(Debug, Default)]
struct Shared {
    monitor: Mutex<Option<Qmp>>,
    samples: Mutex<Samples>,
    /// Counts power-ons, so that a watcher of an earlier one ends.
    epoch: Mutex<u64>,
}

/// What runs while the power is on.
#[derive(Debug)]
struct Power {
    qemu: Owned,
    tpm: Option<Owned>,
    /// Where the sockets are, if not in the state directory.
    _sockets: Option<tempfile::TempDir>,
}

impl Appliance {
    /// An appliance from the directory that `belvedere-image` wrote: `disk.img`, `firmware-variables.fd` and
    /// `firmware.fd`.
    pub fn builder(image: impl Into<PathBuf>) -> Builder {
        let image = image.into();
        Builder {
            state: None,
            stick: None,
            firmware: image.join(FIRMWARE),
            image,
            secure_world: None,
            second_disk: None,
            stick_first: false,
            has_tpm: true,
            second_port: false,
            fresh: false,
        }
    }

    /// The disk as the appliance left it (qcow2). Only to be touched while the power is off; see [`crate::disk`].
    pub fn disk(&self) -> PathBuf {
        self.state.join("disk.qcow2")
    }

    /// The console log over all power-ons.
    pub fn console_log(&self) -> PathBuf {
        self.state.join("console.log")
    }

    /// What the console said since the last power-on.
    pub fn console(&self) -> String {
        console::read(&self.console_log(), self.since)
    }

    /// CPU time that QEMU has used since power-on, s: the host's load does not change it much. 0 when it cannot be read.
    #[must_use]
    pub fn processor_time(&self) -> f64 {
        let text = self.process_id().and_then(|id| fs::read_to_string(format!("/proc/{id}/stat")).ok()).unwrap_or_default();
        // The second field is the program's name, in brackets and with anything inside.
        let after = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// What the secure world said over all power-ons; nothing on a board without one.
    pub fn secure_console(&self) -> String {
        console::read(&self.secure_console_log(), 0)
    }

    fn secure_console_log(&self) -> PathBuf {
        self.state.join("secure-console.log")
    }

    /// Process id of the running QEMU.
    pub fn process_id(&self) -> Option<u32> {
        self.power.as_ref().map(|power| power.qemu.id())
    }

    /// Whether the power is on. Off also after the appliance switched itself off.
    pub fn is_on(&mut self) -> bool {
        self.power.as_mut().is_some_and(|power| power.qemu.ended().is_none())
    }

    /// Switches on; does nothing when it is on already.
    ///
    /// # Errors
    /// When QEMU or swtpm cannot be started.
    pub fn power_on(&mut self) -> Result<(), Error> {
        self.power_on_holding(None)
    }

    /// The same while buttons are held.
    ///
    /// # Errors
    /// As [`Appliance::power_on`].
    pub fn power_on_holding(&mut self, gesture: Option<Gesture>) -> Result<(), Error> {
        if self.is_on() {
            return Ok(());
        }
        self.power_cut()?;
        let mut sockets = None;
        let directory = if self.state.as_os_str().len() <= SOCKET_LIMIT {
            self.state.clone()
        } else {
            let made = tempfile::tempdir().map_err(file_error("create a directory in", std::env::temp_dir()))?;
            sockets.insert(made).path().to_owned()
        };
        let (monitor, tpm_socket) = (directory.join("monitor.sock"), directory.join("tpm.sock"));
        for socket in [&monitor, &tpm_socket] {
            let _ = fs::remove_file(socket);
        }
        let log = self.state.join("qemu.log");
        let tpm = if self.has_tpm { Some(self.start_tpm(&tpm_socket, &log)?) } else { None };
        let flash = self.secure_world.as_ref().map(|world| world.flash(&self.state)).transpose()?;
        let machine = Machine {
            acceleration: if flash.is_some() { Acceleration::Tcg } else { Acceleration::detect() },
            secure_console: flash.is_some().then(|| self.secure_console_log()),
            firmware: flash.unwrap_or_else(|| self.firmware.clone()),
            variables: self.state.join("variables.fd"),
            second_disk: self.second_disk.clone(),
            stick_first: self.stick_first,
            disk: self.disk(),
            console: self.console_log(),
            monitor: monitor.clone(),
            tpm: self.has_tpm.then_some(tpm_socket),
            stick: self.stick.clone(),
            gesture,
        };
        self.since = fs::metadata(self.console_log()).map_or(0, |metadata| metadata.len());
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(machine.arguments()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(append(&log)?);
        let mut qemu = Owned::spawn(qemu, "qemu-system-arm")?;
        let mut connected = match Qmp::connect(&monitor, START, || qemu.ended().is_none()) {
            Ok(connected) => connected,
            Err(_) if qemu.ended().is_some() => return Err(failed("qemu-system-aarch64", &log)),
            Err(error) => return Err(error),
        };
        if !self.second_port {
            connected.execute("set_link", json!({"name": SECOND_PORT, "up": false}))?;
        }
        *lock(&self.shared.monitor) = Some(connected);
        lock(&self.shared.samples).clear();
        self.power = Some(Power { qemu, tpm, _sockets: sockets });
        self.watch_lights();
        Ok(())
    }

    /// The software TPM, once it listens.
    fn start_tpm(&self, socket: &Path, log: &Path) -> Result<Owned, Error> {
        let mut tpm = Command::new("swtpm");
        tpm.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", self.state.join("tpm").display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(append(log)?);
        let mut tpm = Owned::spawn(tpm, "swtpm")?;
        let deadline = Instant::now() + START;
        while !socket.exists() {
            if tpm.ended().is_some() || Instant::now() > deadline {
                return Err(failed("swtpm", log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(tpm)
    }

    /// Cuts the power: QEMU ends at once, nothing is flushed. Does nothing when it is off.
    ///
    /// # Errors
    /// None at present.
    pub fn power_cut(&mut self) -> Result<(), Error> {
        *lock(&self.shared.epoch) += 1;
        if let Some(mut power) = self.power.take() {
            power.qemu.kill();
            // The TPM loses its power with the rest; what it was told to keep, it wrote before it answered.
            if let Some(tpm) = &mut power.tpm {
                tpm.kill();
            }
        }
        *lock(&self.shared.monitor) = None;
        lock(&self.shared.samples).clear();
        Ok(())
    }

    /// Presses the power button for a second, as the guide says: the appliance should shut down by itself.
    ///
    /// # Errors
    /// When it is off.
    pub fn press_power_button(&mut self) -> Result<(), Error> {
        // QEMU lets go of the button after a tenth of a second, which a busy machine misses: pressed again before that, it
        // stays down.
        let begun = Instant::now();
        self.order("system_powerdown", json!({}))?;
        while begun.elapsed() < Duration::from_secs(1) && self.is_on() {
            std::thread::sleep(Duration::from_millis(50));
            // It may be off by now.
            let _ = self.order("system_powerdown", json!({}));
        }
        Ok(())
    }

    /// Waits until it has switched itself off.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_for_power_off(&mut self, timeout: Duration) -> Result<(), Error> {
        self.wait("power-off", timeout, |appliance| !appliance.is_on())
    }

    /// Plugs a stick in; it stays in over power cuts until unplugged.
    ///
    /// # Errors
    /// When there is one already, it is not readable, or the appliance is off (switch off → use
    /// [`Appliance::insert_stick`]).
    pub fn plug_stick(&mut self, image: impl Into<PathBuf>) -> Result<(), Error> {
        let image = image.into();
        if self.stick.is_some() {
            return Err(Error::Input("there is a stick in the port already".into()));
        }
        let path = fs::canonicalize(&image).map_err(file_error("find", &image))?;
        self.order(
            "blockdev-add",
            json!({"driver": "raw", "node-name": STICK, "file": {"driver": "file", "filename": path.to_string_lossy()}}),
        )?;
        self.order(
            "device_add",
            json!({"driver": "usb-storage", "id": STICK, "drive": STICK, "bus": "xhci.0", "removable": true}),
        )?;
        self.stick = Some(path);
        Ok(())
    }

    /// Puts a stick into the port of an appliance that is off, or takes it out (`None`).
    ///
    /// # Errors
    /// When the appliance is on.
    pub fn insert_stick(&mut self, image: Option<PathBuf>) -> Result<(), Error> {
        if self.is_on() {
            return Err(Error::Input("the appliance is on: plug the stick in instead".into()));
        }
        self.stick = image;
        Ok(())
    }

    /// Pulls the stick out. Afterwards its image can be read with [`crate::stick`].
    ///
    /// # Errors
    /// When there is none, or QEMU does not let go of it.
    pub fn unplug_stick(&mut self) -> Result<(), Error> {
        if self.stick.is_none() {
            return Err(Error::Input("there is no stick in the port".into()));
        }
        self.order("device_del", json!({"id": STICK}))?;
        {
            let mut monitor = lock(&self.shared.monitor);
            let monitor = monitor.as_mut().ok_or_else(|| Error::Off(String::new()))?;
            monitor.wait_event("DEVICE_DELETED", Duration::from_secs(30), |event| {
                event["event"] == "DEVICE_DELETED" && event["data"]["device"] == STICK
            })?;
            monitor.execute("blockdev-del", json!({"node-name": STICK}))?;
        }
        self.stick = None;
        Ok(())
    }

    /// How often the appliance has read from the stick since it was plugged in or the power came on.
    ///
    /// # Errors
    /// When the appliance is off.
    pub fn stick_reads(&self) -> Result<u64, Error> {
        let stick = self.block_statistics(|device| {
            let name = device["qdev"].as_str().unwrap_or_default();
            name.split('/').any(|part| part == STICK)
        })?;
        Ok(stick["rd_operations"].as_u64().unwrap_or(0))
    }

    /// Bytes that the appliance has read from its disk, and written to it, since power-on.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn disk_bytes(&self) -> Result<[u64; 2], Error> {
        self.bytes_of("disk")
    }

    /// The same of the second disk.
    ///
    /// # Errors
    /// As [`Appliance::disk_bytes`].
    pub fn second_disk_bytes(&self) -> Result<[u64; 2], Error> {
        self.bytes_of("second-disk")
    }

    fn bytes_of(&self, name: &str) -> Result<[u64; 2], Error> {
        let disk = self.block_statistics(|device| device["device"] == name)?;
        Ok(["rd_bytes", "wr_bytes"].map(|field| disk[field].as_u64().unwrap_or(0)))
    }

    /// QEMU's statistics of a block device.
    fn block_statistics(&self, wanted: impl Fn(&Value) -> bool) -> Result<Value, Error> {
        let answer = self.order("query-blockstats", json!({}))?;
        let device = answer.as_array().and_then(|all| all.iter().find(|device| wanted(device)));
        Ok(device.map(|device| device["stats"].clone()).unwrap_or_default())
    }

    /// What the lights do now. Needs four seconds of looking before it is sure.
    pub fn lights(&self) -> Lights {
        lock(&self.shared.samples).lights()
    }

    /// Whether the status light is green and nothing else at this moment, as far as the last look (a tenth of a second
    /// ago) tells: a blinking one is so half of the time. For measurements; [`Appliance::lights`] looks for longer.
    pub fn status_is_green_now(&self) -> bool {
        lock(&self.shared.samples).newest().is_some_and(|lines| lines & 0b111 == 0b001)
    }

    /// Waits until a light does what is expected.
    ///
    /// # Errors
    /// [`Error::Timeout`] with what it did instead and the end of the console; [`Error::Off`].
    pub fn wait_for_light(&mut self, light: Light, pattern: Pattern, timeout: Duration) -> Result<(), Error> {
        self.wait(&format!("{light:?} light {pattern}"), timeout, |appliance| appliance.lights().of(light) == pattern)
    }

    /// Waits until the console has said `text` since the last power-on.
    ///
    /// # Errors
    /// As [`Appliance::wait_for_light`].
    pub fn console_contains(&mut self, text: &str, timeout: Duration) -> Result<(), Error> {
        self.wait(&format!("{text:?} on the console"), timeout, |appliance| appliance.console().contains(text))
    }

    /// Waits until any of `texts` is on the console, and says which (by number).
    ///
    /// # Errors
    /// As [`Appliance::wait_for_light`].
    pub fn console_contains_any(&mut self, texts: &[&str], timeout: Duration) -> Result<usize, Error> {
        let mut found = None;
        self.wait(&format!("any of {texts:?} on the console"), timeout, |appliance| {
            let console = appliance.console();
            found = texts.iter().position(|text| console.contains(text));
            found.is_some()
        })?;
        found.ok_or_else(|| Error::Off(String::new()))
    }

    /// Writes what the monitor shows to `picture`, a PNG, which is there either whole or not at all.
    ///
    /// # Errors
    /// When the appliance is off or the file cannot be written.
    pub fn screenshot(&self, picture: impl AsRef<Path>) -> Result<(), Error> {
        let picture = picture.as_ref();
        let mut partial = picture.as_os_str().to_owned();
        partial.push(".partial");
        let partial = std::path::absolute(&partial).map_err(file_error("find", picture))?;
        self.order("screendump", json!({"filename": partial.to_string_lossy(), "format": "png"}))?;
        fs::rename(&partial, picture).map_err(file_error("write", picture))
    }

    /// Pulls or plugs the cable of a network port (0 or 1).
    ///
    /// # Errors
    /// When the appliance is off or there is no such port.
    pub fn set_cable(&self, port: u8, plugged: bool) -> Result<(), Error> {
        self.order("set_link", json!({"name": format!("port{port}"), "up": plugged})).map(drop)
    }

    /// Presses or releases a key of the keyboard (QEMU's `qcode` names).
    ///
    /// # Errors
    /// When the appliance is off.
    pub fn key(&self, code: &str, down: bool) -> Result<(), Error> {
        let event = json!({"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": code}}});
        self.order("input-send-event", json!({"events": [event]})).map(drop)
    }

    /// Waits until `done`, looking ten times a second.
    fn wait(&mut self, what: &str, timeout: Duration, mut done: impl FnMut(&mut Self) -> bool) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            // Read before `done`, so that what was said just before the end counts.
            let on = self.is_on();
            if done(self) {
                return Ok(());
            }
            let console = || console::tail(&self.console(), SHOWN);
            if !on {
                return Err(Error::Off(console()));
            }
            if begun.elapsed() >= timeout {
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    waited: timeout,
                    lights: format!("{} ({})", self.lights(), lock(&self.shared.samples).history()),
                    console: console(),
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn order(&self, order: &str, arguments: Value) -> Result<Value, Error> {
        match lock(&self.shared.monitor).as_mut() {
            Some(monitor) => monitor.execute(order, arguments),
            None => Err(Error::Off(console::tail(&self.console(), SHOWN))),
        }
    }

    /// Looks at the PL061's lines until the power goes.
    fn watch_lights(&self) {
        let shared = Arc::clone(&self.shared);
        let epoch = *lock(&shared.epoch);
        std::thread::spawn(move || {
            let begun = Instant::now();
            while *lock(&shared.epoch) == epoch {
                let before = begun.elapsed();
                let answer = match lock(&shared.monitor).as_mut() {
                    Some(monitor) => monitor.human("xp /1xb 0x090303fc"),
                    None => return,
                };
                match answer.as_deref().map(lines) {
                    Ok(Some(lines)) if *lock(&shared.epoch) == epoch => {
                        lock(&shared.samples).add(before, lines);
                    }
                    Ok(_) => {}
                    // QEMU is gone, or so slow that whoever waits will say so.
                    Err(_) => return,
                }
                std::thread::sleep(INTERVAL.saturating_sub(begun.elapsed() - before));
            }
        });
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.power_cut();
    }
}

/// The value in `00000000090303fc: 0x02`.
fn lines(answer: &str) -> Option<u8> {
    let value = answer.trim().rsplit("0x").next()?;
    u8::from_str_radix(value, 16).ok()
}

/// A panic in one test thread must not hide what the others have to say.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(program: &str, log: &Path) -> Error {
    Error::Program { program: program.to_owned(), message: console::tail(&console::read(log, 0), 5) }
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn the_monitor_s_answer_is_understood() {
        assert_eq!(lines("00000000090303fc: 0x32\r\n"), Some(0x32));
        assert_eq!(lines("unknown command"), None);
    }
}
