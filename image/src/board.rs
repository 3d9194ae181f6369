//! What distinguishes one board from another.

/// A board that images can be made for.
#[derive(Debug)]
pub struct Board {
    /// As on the command line, in the release directory and on the kernel's command line.
    pub name: &'static str,
    /// Fragments of the kernel's configuration; every line must survive Kconfig.
    pub kernel_configuration: &'static [&'static str],
    /// The kernel's command line, to which root hash, board and version are added. No console is in it.
    pub kernel_command_line: &'static str,
    /// The console of a development image: the words that it has and no other image.
    pub development_console: &'static str,
    /// What is appended to the machine's own device tree source.
    pub device_tree_additions: &'static str,
    /// QEMU's arguments that give the machine's own device tree; `dumpdtb=` is added to the value of `-machine`.
    pub machine: &'static str,
    /// Further arguments: whatever changes the device tree.
    pub machine_arguments: &'static [&'static str],
    /// Firmware variables to begin with. Debian's plain file is empty space that the tool cannot read; the one with
    /// Debian's test keys is, and its keys are deleted.
    pub firmware_variables_template: &'static str,
}

/// Every board.
pub const BOARDS: &[Board] = &[Board {
    name: "qemu-aarch64",
    kernel_configuration: &[
        include_str!("../kernel/appliance.config"),
        include_str!("../kernel/hardening.config"),
        include_str!("../boards/qemu-aarch64/kernel.config"),
    ],
    // acpi=off: the appliance is described by its device tree, as real boards are. panic=5: a person can read why.
    // events_dfl_poll_msecs: a card put into a reader is noticed (elsewhere udev asks for it). heartbeat: how long the
    // watchdog, which the bootloader armed, waits from its driver on for PID 1.
    kernel_command_line: "acpi=off panic=5 loglevel=5 sysctl.kernel.io_uring_disabled=2 block.events_dfl_poll_msecs=2000 \
        i6300esb.heartbeat=60",
    development_console: "console=ttyAMA0",
    device_tree_additions: include_str!("../boards/qemu-aarch64/device-tree.dtsi"),
    machine: "virt,acpi=off,gic-version=3",
    machine_arguments: &["-cpu", "cortex-a76", "-smp", "2", "-m", "1536"],
    firmware_variables_template: "/usr/share/AAVMF/AAVMF_VARS.snakeoil.fd",
}];

/// The board of this name.
pub fn find(name: &str) -> Option<&'static Board> {
    BOARDS.iter().find(|board| board.name == name)
}
