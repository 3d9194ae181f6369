//! The virtual board's hardware watchdog, an Intel 6300ESB (data sheet 300641-004, section 16; in QEMU
//! `hw/watchdog/wdt_i6300esb.c`), armed before the kernel is there.
//!
//! Linux's driver switches the device off when it finds it, and PID 1 on again when it opens it: a kernel or a `/init` that
//! hangs between the two would hang for ever. So it is locked here: what is locked ignores being switched off, until the
//! machine is reset. The driver sets the time anew when it finds the device (`i6300esb.heartbeat` on the kernel's command
//! line) and PID 1 when it opens it; both, and the signs of life, work on a locked one.
//!
//! The flag "the watchdog ended the last start" is not touched: it is the kernel's to read.

use alloc::format;
use alloc::string::String;

/// What a device's first register says when it is one: its number, then its maker's.
pub const IDENTITY: u32 = 0x25ab_8086;

/// Registers of the PCI configuration space, and bits in them.
const COMMAND: u8 = 0x04;
const COMMAND_MEMORY: u16 = 1 << 1;
const BASE: u8 = 0x10;
const CONFIGURATION: u8 = 0x60;
/// 1 kHz, no interrupt after the first half of the time, a reset after the second one.
const CONFIGURATION_RESET: u16 = 0b11;
const LOCK: u8 = 0x68;
const ENABLED_AND_LOCKED: u8 = 0b11;
/// Registers in memory.
const FIRST_HALF: u64 = 0x00;
const SECOND_HALF: u64 = 0x04;
const RELOAD: u64 = 0x0c;
const RELOAD_NOW: u16 = 1 << 8;
/// What is written to [`RELOAD`] before each write to one of them.
const UNLOCK: [u16; 2] = [0x80, 0x86];
/// Ticks of half a second, as a power of two: the clock is 33 MHz / 2^15. Linux's driver counts the same.
const HALF_SECOND: u32 = 9;
/// The longest time, seconds: the timers have 20 bits.
pub const LONGEST: u16 = 2046;

/// The device's registers. The errors say in words why one cannot be reached.
pub trait Registers {
    /// Reads a register of 4 bytes in the configuration space.
    fn configuration_32(&mut self, offset: u8) -> Result<u32, String>;
    /// Reads a register of 2 bytes.
    fn configuration_16(&mut self, offset: u8) -> Result<u16, String>;
    /// Reads a register of 1 byte.
    fn configuration_8(&mut self, offset: u8) -> Result<u8, String>;
    /// Writes a register of 2 bytes.
    fn set_configuration_16(&mut self, offset: u8, value: u16) -> Result<(), String>;
    /// Writes a register of 1 byte.
    fn set_configuration_8(&mut self, offset: u8, value: u8) -> Result<(), String>;
    /// Writes 2 bytes at an address of the bus.
    fn set_memory_16(&mut self, address: u64, value: u16) -> Result<(), String>;
    /// Writes 4 bytes at an address of the bus.
    fn set_memory_32(&mut self, address: u64, value: u32) -> Result<(), String>;
}

/// An armed watchdog: it resets the machine when nothing is heard for the time that was set last.
#[derive(Debug)]
pub struct Watchdog<R> {
    registers: R,
    base: u64,
}

impl<R: Registers> Watchdog<R> {
    /// Arms the device for `seconds` and locks it.
    ///
    /// # Errors
    /// In words, when that is not what it says afterwards.
    pub fn arm(mut registers: R, seconds: u16) -> Result<Self, String> {
        let identity = registers.configuration_32(IDENTITY_REGISTER)?;
        if identity != IDENTITY {
            return Err(format!("the device is {identity:#010x}"));
        }
        // The low bits say that it is memory.
        let base = u64::from(registers.configuration_32(BASE)? & !0xf);
        if base == 0 {
            return Err(String::from("the firmware gave it no memory"));
        }
        let command = registers.configuration_16(COMMAND)?;
        registers.set_configuration_16(COMMAND, command | COMMAND_MEMORY)?;
        registers.set_configuration_16(CONFIGURATION, CONFIGURATION_RESET)?;
        let mut watchdog = Self { registers, base };
        watchdog.set(seconds)?;
        watchdog.registers.set_configuration_8(LOCK, ENABLED_AND_LOCKED)?;
        let lock = watchdog.registers.configuration_8(LOCK)?;
        if lock & ENABLED_AND_LOCKED != ENABLED_AND_LOCKED {
            return Err(format!("it does not stay armed ({lock:#04x})"));
        }
        Ok(watchdog)
    }

    /// Gives a sign of life and sets how long the next one may take, seconds; at most [`LONGEST`].
    ///
    /// # Errors
    /// In words.
    pub fn set(&mut self, seconds: u16) -> Result<(), String> {
        let half = u32::from(seconds.clamp(1, LONGEST)) << HALF_SECOND;
        for timer in [FIRST_HALF, SECOND_HALF] {
            self.unlock()?;
            self.registers.set_memory_32(self.base + timer, half)?;
        }
        self.unlock()?;
        self.registers.set_memory_16(self.base + RELOAD, RELOAD_NOW)
    }

    fn unlock(&mut self) -> Result<(), String> {
        UNLOCK.into_iter().try_for_each(|word| self.registers.set_memory_16(self.base + RELOAD, word))
    }
}

/// Where [`IDENTITY`] is.
pub const IDENTITY_REGISTER: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    /// The device as QEMU has it. Each access fails once `left` of them are done.
    #[derive(Debug)]
    struct Device {
        identity: u32,
        base: u32,
        command: u16,
        reset: bool,
        lock: u8,
        ignores_enable: bool,
        halves: [u32; 2],
        unlocked: u8,
        /// Seconds until the reset; none while it is off.
        remaining: Option<u32>,
        triggered: bool,
        left: usize,
    }

    const MEMORY: u64 = 0x1000_1000;

    fn device() -> Device {
        Device {
            identity: IDENTITY,
            base: 0x1000_1000,
            command: 0x100,
            reset: false,
            lock: 0,
            ignores_enable: false,
            halves: [0xf_ffff; 2],
            unlocked: 0,
            remaining: None,
            triggered: true,
            left: usize::MAX,
        }
    }

    impl Device {
        fn access(&mut self) -> Result<(), String> {
            self.left = self.left.checked_sub(1).ok_or("no answer")?;
            Ok(())
        }

        fn restart(&mut self) {
            if self.lock & 2 != 0 {
                self.remaining = Some((self.halves[0] + self.halves[1]) >> 10);
            }
        }

        /// What Linux's driver does when it finds the device.
        fn found_by_linux(&mut self) {
            self.set_configuration_8(0x68, 0).unwrap();
        }
    }

    impl Registers for Device {
        fn configuration_32(&mut self, offset: u8) -> Result<u32, String> {
            self.access()?;
            Ok(match offset {
                0 => self.identity,
                0x10 => self.base,
                _ => panic!("{offset:#x}"),
            })
        }

        fn configuration_16(&mut self, offset: u8) -> Result<u16, String> {
            self.access()?;
            assert_eq!(offset, 4);
            Ok(self.command)
        }

        fn configuration_8(&mut self, offset: u8) -> Result<u8, String> {
            self.access()?;
            assert_eq!(offset, 0x68);
            Ok(self.lock)
        }

        fn set_configuration_16(&mut self, offset: u8, value: u16) -> Result<(), String> {
            self.access()?;
            match offset {
                4 => self.command = value,
                0x60 => self.reset = value & 0x20 == 0 && value & 0x04 == 0,
                _ => panic!("{offset:#x}"),
            }
            Ok(())
        }

        fn set_configuration_8(&mut self, offset: u8, value: u8) -> Result<(), String> {
            self.access()?;
            assert_eq!(offset, 0x68);
            if self.lock & 1 == 0 && !self.ignores_enable {
                self.lock = value;
                self.remaining = None;
                self.restart();
            }
            Ok(())
        }

        fn set_memory_16(&mut self, address: u64, value: u16) -> Result<(), String> {
            self.access()?;
            assert!(self.command & 2 != 0, "the memory is off");
            assert_eq!(address, MEMORY + 0x0c);
            match (value, self.unlocked) {
                (0x80, _) => self.unlocked = 1,
                (0x86, 1) => self.unlocked = 2,
                (_, 2) => {
                    if value & 0x100 != 0 {
                        self.restart();
                    }
                    self.triggered &= value & 0x200 == 0;
                    self.unlocked = 0;
                }
                _ => {}
            }
            Ok(())
        }

        fn set_memory_32(&mut self, address: u64, value: u32) -> Result<(), String> {
            self.access()?;
            assert!(self.command & 2 != 0, "the memory is off");
            if self.unlocked == 2 {
                let half = usize::try_from((address - MEMORY) / 4).unwrap();
                self.halves[half] = value & 0xf_ffff;
            }
            self.unlocked = 0;
            Ok(())
        }
    }

    fn armed(seconds: u16) -> Watchdog<Device> {
        Watchdog::arm(device(), seconds).unwrap()
    }

    #[test]
    fn it_is_armed_for_the_time_and_linux_s_driver_does_not_switch_it_off() {
        let mut device = armed(120).registers;
        assert_eq!(device.remaining, Some(120));
        assert!(device.reset && device.command == 0x102);
        device.found_by_linux();
        assert_eq!(device.remaining, Some(120));
        assert!(device.triggered, "what the kernel is to read");
    }

    #[test]
    fn a_sign_of_life_sets_the_next_time() {
        let mut watchdog = armed(120);
        watchdog.registers.remaining = Some(1);
        watchdog.set(75).unwrap();
        assert_eq!(watchdog.registers.remaining, Some(75));
        for (asked, given) in [(0, 1), (u16::MAX, 2046)] {
            watchdog.set(asked).unwrap();
            assert_eq!(watchdog.registers.remaining, Some(given));
        }
    }

    /// One that another program armed and locked before: its time is ours all the same.
    #[test]
    fn one_that_is_locked_already_is_taken_over() {
        let again = Watchdog::arm(armed(30).registers, 120).unwrap();
        assert_eq!(again.registers.remaining, Some(120));
    }

    #[test]
    fn what_does_not_arm_is_told() {
        let of = |device: Device| Watchdog::arm(device, 120).unwrap_err();
        assert!(of(Device { identity: 0xffff_ffff, ..device() }).contains("0xffffffff"));
        assert!(of(Device { base: 0, ..device() }).contains("no memory"));
        assert!(of(Device { ignores_enable: true, ..device() }).contains("does not stay armed"));
        // Each access fails once.
        let fails = |&left: &usize| Watchdog::arm(Device { left, ..device() }, 120).is_err_and(|error| error == "no answer");
        assert_eq!((0..).take_while(fails).count(), 16);
    }
}
