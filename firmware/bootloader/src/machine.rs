//! The real machine: UEFI.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use belvedere_boot_slots::{
    BLOCK, Buttons, Change, MEASURED, MEASUREMENT_VARIABLE, Mark, Refusal, SLOT_VARIABLE, Slot, TABLE_VARIABLE, VENDOR_GUID,
};
use belvedere_bootloader::updates::File;
use belvedere_bootloader::watchdog::Watchdog;
use belvedere_bootloader::{Machine, Rounds};
use belvedere_device_tree::Firmware;
use belvedere_firmware_console::say;
use belvedere_fuses::Fuses;
use belvedere_kernel_stub::{Image, RELEASE, UPDATES, rollback_level};
use belvedere_panel::Condition;
use belvedere_secure_boot::{Database, update};
use uefi::boot::{self, LoadImageSource};
use uefi::proto::BootPolicy;
use uefi::proto::device_path::DevicePath;
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::tcg::v2::{HashLogExtendEventFlags, PcrEventInputs, Tcg};
use uefi::proto::tcg::{EventType, PcrIndex};
use uefi::runtime::{self, ResetType, VariableAttributes, VariableVendor};
use uefi::{CString16, Guid, Handle, Status, cstr16};

use crate::disk::{Disk, NotFound, shared};
use crate::panel::{self, Panel};
use crate::pci;
use crate::tpm::FirmwareTpm;

/// The firmware restarts the machine when nothing happens for so long, seconds.
const WATCHDOG: usize = 300;
const WATCHDOG_CODE: u64 = 0x1_0000;
/// The board's own watchdog does the same, and also when the firmware hangs, seconds: verifying and loading one image is
/// the longest that is done without a sign of life, 10 s on an emulated board.
const HARDWARE_WATCHDOG: u16 = 120;
/// How long a slot has from its start to its kernel's watchdog driver, seconds: an emulated board needs a few. Three of
/// them, with what comes before, are over within five minutes.
const KERNEL_TIME: u16 = 75;

/// Where the firmware looks for this program.
const BOOTLOADER: &str = "\\EFI\\BOOT\\BOOTAA64.EFI";

/// Runs for ever: until a slot's kernel takes over. Comes back only when it was started from a stick, and the firmware goes on to
/// its next place to start from.
pub fn run() -> Status {
    let watchdog = pci::arm_watchdog(HARDWARE_WATCHDOG);
    let (watchdog, unarmed) = watchdog.map_or_else(|why| (None, Some(why)), |watchdog| (watchdog, None));
    let disk = match Disk::find() {
        Err(NotFound::Usb) => {
            say(format_args!(
                "belvedere: this is a stick, which is not started from; write its image to the appliance's disk"
            ));
            return Status::UNSUPPORTED;
        }
        Err(NotFound::Other(reason)) => Err(reason),
        Ok(disk) => Ok(disk),
    };
    let mut machine = Uefi { disk, panel: panel::find(), places: Vec::new(), watchdog };
    machine.show(Condition::Booting);
    if let Some(why) = unarmed {
        machine.say(&format!("the watchdog is not armed before the kernel arms it: {why}"));
    }
    if !secure_boot() {
        machine.say("Secure Boot is off: no signature is checked");
    }
    let mut rounds = Rounds::begin(&mut machine);
    loop {
        machine.sign_of_life(HARDWARE_WATCHDOG);
        rounds.round(&mut machine);
        if machine.disk.is_err() {
            // It may have been slow to appear.
            machine.disk = Disk::find().map_err(NotFound::words);
        }
    }
}

/// A slot's image, and where it came from.
struct Loaded {
    handle: Handle,
    from: String,
}

struct Uefi {
    disk: Result<Disk, String>,
    panel: Box<dyn Panel>,
    /// Where the image of the slot whose turn it is may lie.
    places: Vec<(String, Vec<u8>)>,
    /// The board's own, where it has one.
    watchdog: Option<Watchdog<pci::Device>>,
}

impl Uefi {
    /// To both watchdogs; `seconds` is what the board's own waits for the next one.
    fn sign_of_life(&mut self, seconds: u16) {
        let _ = boot::set_watchdog_timer(WATCHDOG, WATCHDOG_CODE, None);
        if let Some(watchdog) = &mut self.watchdog {
            // Who does not get it through is restarted.
            let _ = watchdog.set(seconds);
        }
    }
}

impl Machine for Uefi {
    type Image = Loaded;

    fn read_copy(&mut self, copy: usize, block: &mut [u8; BLOCK]) -> Result<(), String> {
        self.disk.as_ref().map_err(String::clone)?.read_copy(copy, block)
    }

    fn write(&mut self, change: &Change) -> Result<(), String> {
        let disk = self.disk.as_ref().map_err(String::clone)?;
        disk.write(change.offset, &change.block)
    }

    fn fuses(&mut self) -> Result<u32, String> {
        let Some(mut tpm) = FirmwareTpm::find()? else {
            // OP-TEE keeps the level then, and nobody serves its storage yet: it gives an older release no secret, so that
            // stops in its first stage.
            // A TPM that the board has and the firmware does not show is a fault, and no reason to start older releases.
            let by_op_tee = crate::tree::with(|tree| {
                let found = Firmware::of(tree);
                found.op_tee && found.no_tpm
            });
            return if by_op_tee { Ok(0) } else { Err("rollback fuses: there is no TPM".into()) };
        };
        // Who signs policies is in each release, and not here; attributes and size of the fuses are compared.
        belvedere_fuses::read(&mut tpm, None).map(Fuses::level).map_err(|error| format!("{error}"))
    }

    fn buttons(&mut self) -> Buttons {
        self.panel.buttons()
    }

    fn show(&mut self, condition: Condition) {
        self.panel.show(condition);
    }

    fn wait(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.sign_of_life(HARDWARE_WATCHDOG);
            boot::stall(Duration::from_secs(1));
        }
    }

    fn places(&mut self, slot: Slot) -> Result<usize, String> {
        self.places = self.disk.as_ref().map_err(String::clone)?.kernel_paths(slot);
        Ok(self.places.len())
    }

    fn load(&mut self, slot: Slot, place: usize) -> Result<(Loaded, u32), (Refusal, String)> {
        let file = slot.kernel_path();
        let Some((partition, path)) = self.places.get(place) else {
            return Err((Refusal::Missing, format!("no ESP of this disk has {file}")));
        };
        let from = format!("{file} on {partition}");
        let path = path.clone();
        // Each place has its own time.
        self.sign_of_life(HARDWARE_WATCHDOG);
        match load(&path) {
            Ok((handle, level)) => Ok((Loaded { handle, from }, level)),
            Err(status) => Err(not_loaded(file, &from, status)),
        }
    }

    fn unload(&mut self, image: Loaded) {
        let _ = boot::unload_image(image.handle);
    }

    fn updates(&mut self, image: &Loaded) -> Option<Vec<u8>> {
        loaded_section(image.handle, UPDATES).ok()?
    }

    fn database(&mut self, database: Database) -> Result<Vec<u8>, String> {
        let name = CString16::try_from(database.name()).map_err(|error| format!("{error:?}"))?;
        match runtime::get_variable_boxed(&name, &VariableVendor::IMAGE_SECURITY_DATABASE) {
            Ok((content, _)) => Ok(content.into_vec()),
            Err(error) if error.status() == Status::NOT_FOUND => Ok(Vec::new()),
            Err(error) => Err(format!("{} cannot be read: {}", database.name(), error.status())),
        }
    }

    fn append(&mut self, database: Database, content: &[u8]) -> Result<(), String> {
        let name = CString16::try_from(database.name()).map_err(|error| format!("{error:?}"))?;
        let attributes = VariableAttributes::from_bits_retain(update::ATTRIBUTES);
        runtime::set_variable(&name, &VariableVendor::IMAGE_SECURITY_DATABASE, attributes, content)
            .map_err(|error| format!("the firmware refuses the update: {}", error.status()))
    }

    fn files(&mut self, file: File, look: &mut dyn FnMut(&str, &[u8])) -> Result<(), String> {
        let path = match file {
            File::Bootloader => BOOTLOADER,
            File::Kernel(slot) => slot.kernel_path(),
        };
        // Up to two large files are read.
        self.sign_of_life(HARDWARE_WATCHDOG);
        self.disk.as_ref().map_err(String::clone)?.files(path, look)
    }

    fn measure(&mut self, slot: Slot) -> Result<(), String> {
        measure(slot)
    }

    fn name(&mut self, slot: Slot, measured: &Result<(), String>, table: Option<Mark>) {
        let measured = measured.as_ref().map_or_else(String::as_str, |()| MEASURED).as_bytes();
        let table = table.as_ref().map_or(&[][..], |mark| mark);
        for (name, value) in
            [(SLOT_VARIABLE, slot.name().as_bytes()), (MEASUREMENT_VARIABLE, measured), (TABLE_VARIABLE, table)]
        {
            if let Err(status) = set_variable(name, value) {
                self.say(&format!("slot {}: cannot set {name}: {status}", slot.name()));
            }
        }
    }

    fn restart(&mut self) {
        runtime::reset(ResetType::COLD, Status::ABORTED, None)
    }

    fn start(&mut self, slot: Slot, image: Loaded) -> String {
        self.say(&format!("slot {}: starting {}", slot.name(), image.from));
        self.sign_of_life(KERNEL_TIME);
        let status = boot::start_image(image.handle).err().map_or(Status::SUCCESS, |error| error.status());
        format!("came back: {status}")
    }

    fn say(&mut self, line: &str) {
        say(format_args!("belvedere: {line}"));
    }
}

/// Has the firmware verify and load the file at a device path, and reads the rollback level in it.
fn load(path: &[u8]) -> Result<(Handle, u32), Status> {
    let path = <&DevicePath>::try_from(path).map_err(|_| Status::INVALID_PARAMETER)?;
    let source = LoadImageSource::FromDevicePath { device_path: path, boot_policy: BootPolicy::ExactMatch };
    let handle = boot::load_image(boot::image_handle(), source).map_err(|error| error.status())?;
    let level = signed_level(handle);
    if level.is_err() {
        let _ = boot::unload_image(handle);
    }
    level.map(|level| (handle, level))
}

/// The rollback level in an image as the firmware loaded it. An image without the section was made before there were levels:
/// level 0.
fn signed_level(image: Handle) -> Result<u32, Status> {
    match loaded_section(image, RELEASE)? {
        None => Ok(0),
        Some(section) => rollback_level(&section).ok_or(Status::LOAD_ERROR),
    }
}

/// A section of an image as the firmware loaded it: of the bytes that it verified, not of the file, which may have changed
/// since.
fn loaded_section(image: Handle, name: &str) -> Result<Option<Vec<u8>>, Status> {
    let loaded = shared::<LoadedImage>(image)?;
    let (base, size) = loaded.info();
    let size = usize::try_from(size).map_err(|_| Status::LOAD_ERROR)?;
    if base.is_null() {
        return Err(Status::LOAD_ERROR);
    }
    // SAFETY: the firmware loaded the image to `base` with `size` bytes, nothing of it runs yet, and it is not unloaded
    // before this function returns.
    let memory = unsafe { core::slice::from_raw_parts(base.cast::<u8>(), size) };
    let sections = Image::parse(memory).map_err(|_| Status::LOAD_ERROR)?;
    Ok(sections.loaded_section(name).map(<[u8]>::to_vec))
}

fn not_loaded(file: &str, from: &str, status: Status) -> (Refusal, String) {
    match status {
        Status::NOT_FOUND => (Refusal::Missing, format!("no ESP of this disk has {file}")),
        Status::ACCESS_DENIED | Status::SECURITY_VIOLATION => (
            Refusal::SecureBoot,
            format!(
                "refused by Secure Boot: {from} is not signed by a key that this machine trusts, or was changed ({status})"
            ),
        ),
        status => (Refusal::Failed, format!("{from} cannot be loaded: {status}")),
    }
}

/// Sets a volatile variable that the operating system can read; an empty one is not there.
fn set_variable(name: &str, value: &[u8]) -> Result<(), Status> {
    let name = CString16::try_from(name).map_err(|_| Status::INVALID_PARAMETER)?;
    let guid = Guid::try_parse(VENDOR_GUID).map_err(|_| Status::INVALID_PARAMETER)?;
    let vendor = VariableVendor(guid);
    // A left-over with other attributes (somebody's non-volatile one, say) would make the firmware refuse ours.
    let _ = runtime::delete_variable(&name, &vendor);
    let attributes = VariableAttributes::BOOTSERVICE_ACCESS | VariableAttributes::RUNTIME_ACCESS;
    if value.is_empty() {
        return Ok(());
    }
    runtime::set_variable(&name, &vendor, attributes, value).map_err(|error| error.status())
}

/// Extends the TPM with the choice: PCR 12, event data `belvedere slot <name>`.
fn measure(slot: Slot) -> Result<(), String> {
    let data = format!("belvedere slot {}", slot.name());
    let handle = boot::get_handle_for_protocol::<Tcg>().map_err(|_| String::from("the firmware shows no TPM"))?;
    let failed = |what: &str, status: Status| format!("{what}: {status}");
    let mut tpm = boot::open_protocol_exclusive::<Tcg>(handle).map_err(|error| failed("open the TPM", error.status()))?;
    let event = PcrEventInputs::new_in_box(PcrIndex(12), EventType::IPL, data.as_bytes())
        .map_err(|error| failed("make the event", error.status()))?;
    let flags = HashLogExtendEventFlags::empty();
    tpm.hash_log_extend_event(flags, data.as_bytes(), &event).map_err(|error| failed("extend PCR 12", error.status()))
}

fn secure_boot() -> bool {
    let mut value = [0u8; 4];
    matches!(runtime::get_variable(cstr16!("SecureBoot"), &VariableVendor::GLOBAL_VARIABLE, &mut value), Ok(([1], _)))
}
