//! The power button while the machine runs. The reset button and the gestures at power-on are the bootloader's.

use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

const DIRECTORY: &str = "/dev/input";
/// `struct input_event` on 64-bit machines: two longs of time, type, code, value.
const EVENT: usize = 24;
/// How often one device is read in one turn.
const ROUNDS: usize = 16;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// All input devices.
#[derive(Default)]
pub struct Buttons {
    devices: BTreeMap<PathBuf, OwnedFd>,
}

impl Buttons {
    /// Opens devices that are new; to be called now and then.
    pub fn look(&mut self) {
        let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let event = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("event"));
            if event && !self.devices.contains_key(&path) && self.devices.len() < 64 {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                if let Ok(device) = rustix::fs::open(&path, flags, Mode::empty()) {
                    self.devices.insert(path, device);
                }
            }
        }
    }

    /// What to poll.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.devices.values().map(AsFd::as_fd)
    }

    /// Reads what came; says whether the power button was pressed. Devices that are gone are closed.
    pub fn power_pressed(&mut self) -> bool {
        let mut pressed = false;
        self.devices.retain(|_, device| {
            let mut events = [0u8; EVENT * 32];
            // A device that never falls silent waits for the next turn with the rest.
            for _ in 0..ROUNDS {
                match rustix::io::read(&*device, &mut events) {
                    Ok(0) => return false,
                    Ok(count) => pressed |= has_power_press(&events[..count]),
                    Err(rustix::io::Errno::AGAIN) => return true,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return false,
                }
            }
            true
        });
        pressed
    }
}

fn has_power_press(events: &[u8]) -> bool {
    events.chunks_exact(EVENT).any(|event| {
        let number = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
        number(16) == EV_KEY && number(18) == KEY_POWER && value == 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut event = vec![0x55; 16];
        event.extend(kind.to_ne_bytes());
        event.extend(code.to_ne_bytes());
        event.extend(value.to_ne_bytes());
        event
    }

    #[test]
    fn only_the_press_of_the_power_button_counts() {
        let sync = event(0, 0, 0);
        assert!(has_power_press(&[event(1, 116, 1), sync.clone()].concat()));
        assert!(has_power_press(&[event(1, 30, 1), sync.clone(), event(1, 116, 1)].concat()));
        assert!(!has_power_press(&[event(1, 116, 0), sync.clone()].concat()));
        assert!(!has_power_press(&[event(1, 116, 2), event(1, 30, 1), event(2, 116, 1), sync].concat()));
        assert!(!has_power_press(&event(1, 116, 1)[..23]));
    }
}
