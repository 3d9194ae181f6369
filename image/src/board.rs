//! What distinguishes one board from another.

use crate::error::{Error, Result};
use belvedere_luks2::record::FACTORY_OFFSET;

const MEGABYTE: u64 = 1 << 20;

/// How large the partitions of a board's disk are, bytes, each a multiple of 1 MiB. `boot-slots` is the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Each EFI system partition: the bootloader, the kernel images of three slots, and one more while it is replaced.
    pub esp: u64,
    /// Each of the three system partitions: the root image with its verity tree, and the volume's header before it.
    pub system: u64,
    /// Applications, their storage and logs.
    pub data: u64,
}

/// FAT32 has at least 65,525 clusters, of 4 KiB here, which firmware reads faster than small ones; and its own tables.
const SMALLEST_ESP: u64 = 65_525 * 4096 + 2 * MEGABYTE;
/// How many kernel images of a release an ESP must hold at once.
const KERNELS: u64 = 4;

impl Sizes {
    /// Whether a release fits, for the board of this name; bytes of its unified kernel image and of its root image.
    ///
    /// # Errors
    /// What does not fit, and how large it would have to be.
    pub fn check(&self, board: &str, kernel: u64, root: u64) -> Result<()> {
        let too_small = |what: &str, has: u64, needs: u64, why: &str| {
            let (has, needs) = (has / MEGABYTE, needs.div_ceil(MEGABYTE));
            let text = format!("{what} has {has} MiB and needs {needs} MiB: {why} (Board::sizes in image/src/board.rs)");
            Err(Error::invalid(format!("board {board}"), text))
        };
        for (what, bytes) in
            [("its ESP", self.esp), ("its system partition", self.system), ("its data partition", self.data)]
        {
            if bytes % MEGABYTE != 0 || bytes == 0 {
                return Err(Error::invalid(format!("board {board}"), format!("{what} is no multiple of 1 MiB")));
            }
        }
        if self.esp < SMALLEST_ESP {
            return too_small("its ESP", self.esp, SMALLEST_ESP, "FAT32 has no smaller ones");
        }
        let kernels = KERNELS * kernel + 2 * MEGABYTE;
        if self.esp < kernels {
            return too_small("its ESP", self.esp, kernels, "it holds the kernel images of three slots and one more");
        }
        let volume = FACTORY_OFFSET + root;
        if self.system < volume {
            return too_small("its system partition", self.system, volume, "the root image does not fit");
        }
        Ok(())
    }
}

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
    /// The partitions of its disk.
    pub sizes: Sizes,
    /// Firmware variables to begin with. Debian's plain file is empty space that the tool cannot read; the one with
    /// Debian's test keys is, and its keys are deleted.
    pub firmware_variables_template: &'static str,
}

impl Board {
    /// The same board with larger system partitions, of so many MiB: for measurements with a root image that its own do not
    /// hold.
    ///
    /// # Errors
    /// When they would be smaller than the board's own.
    pub fn with_system_partitions(&self, mebibytes: u64) -> Result<Board> {
        let system = mebibytes.saturating_mul(MEGABYTE);
        if system < self.sizes.system {
            let own = self.sizes.system / MEGABYTE;
            let text = format!("its system partitions have {own} MiB, and cannot be made smaller ({mebibytes} MiB)");
            return Err(Error::invalid(format!("board {}", self.name), text));
        }
        Ok(Board { sizes: Sizes { system, ..self.sizes }, ..*self })
    }
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
    // System: three times the first root image at the least, and what ten years may add. ESP: many times the first kernel.
    sizes: Sizes { esp: 288 * MEGABYTE, system: 512 * MEGABYTE, data: 8192 * MEGABYTE },
    firmware_variables_template: "/usr/share/AAVMF/AAVMF_VARS.snakeoil.fd",
}];

/// The board of this name.
pub fn find(name: &str) -> Option<&'static Board> {
    BOARDS.iter().find(|board| board.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root image with CUDA has gigabytes.
    #[test]
    fn what_does_not_fit_a_board_is_said_and_fits_a_bigger_one() {
        let small = find("qemu-aarch64").unwrap().sizes;
        let big = Sizes { esp: 1024 * MEGABYTE, system: 8192 * MEGABYTE, data: 65_536 * MEGABYTE };
        let (kernel, root) = (30 * MEGABYTE, 150 * MEGABYTE);
        small.check("small", kernel, root).unwrap();
        let said = |sizes: Sizes, kernel, root| sizes.check("small", kernel, root).unwrap_err().to_string();
        let text = said(small, kernel, 5000 * MEGABYTE);
        assert!(text.contains("512 MiB and needs 5005 MiB") && text.contains("root image"), "{text}");
        let text = said(small, 90 * MEGABYTE, root);
        assert!(text.contains("288 MiB and needs 362 MiB") && text.contains("kernel images"), "{text}");
        big.check("big", 90 * MEGABYTE, 5000 * MEGABYTE).unwrap();
        assert!(said(Sizes { esp: 128 * MEGABYTE, ..big }, kernel, root).contains("FAT32"));
        assert!(said(Sizes { data: 5, ..big }, kernel, root).contains("multiple"));
        // To the byte.
        assert!(big.check("big", kernel, 8192 * MEGABYTE - FACTORY_OFFSET).is_ok());
        assert!(big.check("big", kernel, 8192 * MEGABYTE - FACTORY_OFFSET + 1).is_err());
        for board in BOARDS {
            board.sizes.check(board.name, MEGABYTE, MEGABYTE).unwrap();
        }
    }

    #[test]
    fn larger_system_partitions_change_nothing_else_and_smaller_ones_are_refused() {
        let board = find("qemu-aarch64").unwrap();
        let own = board.sizes.system / MEGABYTE;
        let larger = board.with_system_partitions(own + 1).unwrap();
        assert_eq!(larger.sizes, Sizes { system: board.sizes.system + MEGABYTE, ..board.sizes });
        assert_eq!((larger.name, larger.kernel_command_line), (board.name, board.kernel_command_line));
        assert!(board.with_system_partitions(own).is_ok());
        assert!(board.with_system_partitions(own - 1).is_err());
        assert!(board.with_system_partitions(0).is_err());
    }
}
