//! The hardware watchdog's registers, as the firmware shows them (EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL).

use alloc::format;
use alloc::string::String;

use belvedere_bootloader::watchdog::{IDENTITY, IDENTITY_REGISTER, Registers, Watchdog};
use uefi::boot::{self, ScopedProtocol};
use uefi::proto::pci::PciIoAddress;
use uefi::proto::pci::root_bridge::PciRootBridgeIo;

use crate::disk::shared;

/// Devices on a bus.
const DEVICES: u8 = 32;

/// One device's registers.
pub struct Device {
    bridge: ScopedProtocol<PciRootBridgeIo>,
    device: PciIoAddress,
}

/// Arms the board's watchdog. None where there is none: PID 1 says that.
///
/// # Errors
/// In words, when there is one and it cannot be armed.
pub fn arm_watchdog(seconds: u16) -> Result<Option<Watchdog<Device>>, String> {
    let handles = boot::find_handles::<PciRootBridgeIo>().unwrap_or_default();
    for handle in handles {
        let Ok(bridge) = shared::<PciRootBridgeIo>(handle) else {
            continue;
        };
        let mut device = Device { bridge, device: PciIoAddress::new(0, 0, 0) };
        // The board has it on the first bus.
        for number in 0..DEVICES {
            device.device = PciIoAddress::new(0, number, 0);
            if device.configuration_32(IDENTITY_REGISTER) == Ok(IDENTITY) {
                return Watchdog::arm(device, seconds).map(Some);
            }
        }
    }
    Ok(None)
}

fn words(error: uefi::Error) -> String {
    format!("{}", error.status())
}

impl Registers for Device {
    fn configuration_32(&mut self, offset: u8) -> Result<u32, String> {
        self.bridge.pci().read_one(self.device.with_register(offset)).map_err(words)
    }

    fn configuration_16(&mut self, offset: u8) -> Result<u16, String> {
        self.bridge.pci().read_one(self.device.with_register(offset)).map_err(words)
    }

    fn configuration_8(&mut self, offset: u8) -> Result<u8, String> {
        self.bridge.pci().read_one(self.device.with_register(offset)).map_err(words)
    }

    fn set_configuration_16(&mut self, offset: u8, value: u16) -> Result<(), String> {
        self.bridge.pci().write_one(self.device.with_register(offset), value).map_err(words)
    }

    fn set_configuration_8(&mut self, offset: u8, value: u8) -> Result<(), String> {
        self.bridge.pci().write_one(self.device.with_register(offset), value).map_err(words)
    }

    fn set_memory_16(&mut self, address: u64, value: u16) -> Result<(), String> {
        self.bridge.memory().write_one(address, value).map_err(words)
    }

    fn set_memory_32(&mut self, address: u64, value: u32) -> Result<(), String> {
        self.bridge.memory().write_one(address, value).map_err(words)
    }
}
