//! The board `qemu-aarch64` as arguments for QEMU.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    /// Emulation.
    Tcg,
    /// The host's own processor, where that is an arm64 one.
    Kvm,
}

impl Acceleration {
    /// The fastest that this host has.
    ///
    /// Not for a board with a secure world: no host lends that out.
    pub fn detect() -> Self {
        let usable = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        if cfg!(target_arch = "aarch64") && usable { Self::Kvm } else { Self::Tcg }
    }
}

/// The parts of one virtual machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What executes the guest's instructions.
    pub acceleration: Acceleration,
    /// UEFI code, read only.
    pub firmware: PathBuf,
    /// UEFI variables, written to.
    pub variables: PathBuf,
    /// The disk, qcow2.
    pub disk: PathBuf,
    /// A second disk, raw, that stays as it is: what is written to it is forgotten.
    pub second_disk: Option<PathBuf>,
    /// Where the console goes; appended to.
    pub console: PathBuf,
    /// Socket on which QEMU listens for orders.
    pub monitor: PathBuf,
    /// Socket on which the TPM listens; nothing on a board without one.
    pub tpm: Option<PathBuf>,
    /// A stick that is in the port when the power comes on.
    pub stick: Option<PathBuf>,
    /// The firmware looks for something to start on the stick first, and then on the disk.
    pub stick_first: bool,
    /// What is held while the power comes on.
    pub gesture: Option<Gesture>,
    /// The processor has a secure world, and `firmware` is what it starts with (see `firmware/secure-world`): where that
    /// world's own console goes; appended to.
    pub secure_console: Option<PathBuf>,
}

/// Buttons that are held while the power comes on (developer guide, "Power and reset buttons").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gesture {
    /// "Short press reset": restore the latest software.
    ShortPressReset,
    /// "Long press reset": restore the minimum software.
    LongPressReset,
    /// "Long press power and reset": full reset.
    LongPressPowerAndReset,
}

impl Gesture {
    /// As the bootloader reads it (`firmware/bootloader`, "Buttons").
    const fn name(self) -> &'static str {
        match self {
            Self::ShortPressReset => "short-press-reset",
            Self::LongPressReset => "long-press-reset",
            Self::LongPressPowerAndReset => "long-press-power-and-reset",
        }
    }
}

/// Node and device name of the stick, for plugging and unplugging.
pub const STICK: &str = "stick";
/// Device name of the second network port.
pub const SECOND_PORT: &str = "port1";
/// The board's UEFI, beside the image (`firmware/virtual-board`).
pub const FIRMWARE: &str = "firmware.fd";

impl Machine {
    /// QEMU's arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        let mut push = |items: &[&str]| all.extend(items.iter().map(OsString::from));
        // `max` would cost a multiple under emulation for pointer authentication alone.
        let (processor, acceleration) = match self.acceleration {
            Acceleration::Tcg => ("cortex-a76", "tcg,thread=multi"),
            Acceleration::Kvm => ("host", "kvm"),
        };
        push(&["-nodefaults", "-no-user-config", "-display", "none"]);
        let world = if self.secure_console.is_some() { ",secure=on" } else { "" };
        push(&["-machine", &format!("virt,acpi=off,gic-version=3{world}"), "-cpu", processor]);
        push(&["-accel", acceleration, "-smp", "2", "-m", "1536"]);
        push(&["-action", "watchdog=reset"]);
        push(&["-device", "qemu-xhci,id=xhci", "-device", "virtio-gpu-pci"]);
        push(&["-device", "virtio-keyboard-pci", "-device", "i6300esb"]);
        push(&["-device", "virtio-rng-pci"]);
        // The ports' own boot ROMs would only make the firmware try the network.
        push(&["-netdev", "user,id=net0"]);
        push(&["-device", "virtio-net-pci,netdev=net0,id=port0,romfile=,mac=52:54:00:be:17:00"]);
        push(&["-netdev", "user,id=net1,net=10.0.3.0/24"]);
        push(&["-device", "virtio-net-pci,netdev=net1,id=port1,romfile=,mac=52:54:00:be:17:01"]);
        if self.second_disk.is_some() {
            // Before the own one, so that the kernel finds it first.
            push(&["-device", "virtio-blk-pci,drive=second-disk"]);
        }
        push(&["-device", &format!("virtio-blk-pci,drive=disk,bootindex={}", u8::from(self.stick_first))]);
        if self.tpm.is_some() {
            push(&["-device", "tpm-tis-device,tpmdev=tpm0", "-tpmdev", "emulator,id=tpm0,chardev=tpm"]);
        }
        push(&["-serial", "chardev:console"]);
        if self.secure_console.is_some() {
            push(&["-serial", "chardev:secure-console"]);
        }
        if let Some(gesture) = self.gesture {
            push(&["-fw_cfg", &format!("name=opt/org.belvedere/buttons,string={}", gesture.name())]);
        }

        let mut with_path = |option: &str, before: &str, path: &Path, after: &str| {
            let mut value = OsString::from(before);
            value.push(escaped(path));
            value.push(after);
            all.extend([OsString::from(option), value]);
        };
        with_path("-drive", "if=pflash,format=raw,unit=0,readonly=on,file=", &self.firmware, "");
        with_path("-drive", "if=pflash,format=raw,unit=1,file=", &self.variables, "");
        with_path("-drive", "if=none,id=disk,format=qcow2,file=", &self.disk, "");
        if let Some(disk) = &self.second_disk {
            with_path("-drive", "if=none,id=second-disk,format=raw,snapshot=on,file=", disk, "");
        }
        with_path("-chardev", "file,id=console,append=on,path=", &self.console, "");
        if let Some(console) = &self.secure_console {
            with_path("-chardev", "file,id=secure-console,append=on,path=", console, "");
        }
        if let Some(tpm) = &self.tpm {
            with_path("-chardev", "socket,id=tpm,path=", tpm, "");
        }
        with_path("-qmp", "unix:", &self.monitor, ",server=on,wait=off");
        if let Some(stick) = &self.stick {
            with_path("-blockdev", "driver=raw,node-name=stick,file.driver=file,file.filename=", stick, "");
            let place = if self.stick_first { ",bootindex=0" } else { "" };
            let device = format!("usb-storage,id=stick,drive=stick,bus=xhci.0,removable=true{place}");
            all.extend(["-device", &device].map(OsString::from));
        }
        all
    }
}

/// A path inside an option: a comma would end it.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_path_does_not_become_an_option() {
        let machine = Machine {
            acceleration: Acceleration::Tcg,
            firmware: FIRMWARE.into(),
            variables: "v,readonly=off".into(),
            disk: "d".into(),
            second_disk: None,
            console: "c".into(),
            monitor: "m".into(),
            tpm: None,
            stick: None,
            stick_first: false,
            gesture: None,
            secure_console: None,
        };
        let arguments = machine.arguments();
        assert!(arguments.iter().any(|argument| argument.to_string_lossy().ends_with("file=v,,readonly=off")));
        assert!(!arguments.iter().any(|argument| argument.to_string_lossy().contains("stick")));
        assert!(!arguments.iter().any(|argument| argument.to_string_lossy().contains("secure")));
        assert!(!arguments.iter().any(|argument| argument.to_string_lossy().contains("tpm")));
    }
}
