//! The virtual board's buttons: what a person would hold while the power comes on is an item of QEMU's `fw_cfg` device,
//! `-fw_cfg name=opt/org.belvedere/buttons,string=<gesture>`.
//!
//! An item is there from QEMU's start to its end, so also when the machine restarts by itself; a finger is not. What was
//! looked at once since the power came on is remembered in the match register of the clock, which keeps its value over a
//! restart of the machine and begins at 0 with the power. Nothing here uses the clock's alarm.

use belvedere_boot_slots::Buttons;

/// The item's name.
pub const ITEM: &str = "opt/org.belvedere/buttons";
/// What the match register holds once the buttons were looked at: an alarm in the year 2106.
pub const LOOKED: u32 = 0xffff_fff0;

/// QEMU's `fw_cfg` device (its specification: `docs/specs/fw_cfg`) and the clock's match register.
pub trait Ports {
    /// Chooses an item; reading begins at its start.
    fn select(&mut self, key: u16);
    /// The item's next byte; 0 behind its end.
    fn next(&mut self) -> u8;
    /// The match register.
    fn mark(&mut self) -> u32;
    /// Sets it.
    fn set_mark(&mut self, mark: u32);
}

const SIGNATURE: u16 = 0;
const DIRECTORY: u16 = 0x19;
/// Length of a name in the directory.
const NAME: usize = 56;
/// More items than any machine has.
const MAXIMUM_ITEMS: u32 = 1024;

/// The gesture that the power came on with.
pub fn buttons(ports: &mut impl Ports) -> Buttons {
    if ports.mark() == LOOKED {
        return Buttons::None;
    }
    ports.set_mark(LOOKED);
    ports.select(SIGNATURE);
    if bytes::<4>(ports) != *b"QEMU" {
        return Buttons::None;
    }
    ports.select(DIRECTORY);
    let count = u32::from_be_bytes(bytes(ports));
    for _ in 0..count.min(MAXIMUM_ITEMS) {
        let size = u32::from_be_bytes(bytes(ports));
        let key = u16::from_be_bytes(bytes(ports));
        let _reserved = bytes::<2>(ports);
        let name = bytes::<NAME>(ports);
        if name.strip_prefix(ITEM.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
            ports.select(key);
            return gesture(ports, size);
        }
    }
    Buttons::None
}

fn gesture(ports: &mut impl Ports, size: u32) -> Buttons {
    let mut text = [0u8; 32];
    let Some(text) = usize::try_from(size).ok().and_then(|size| text.get_mut(..size)) else { return Buttons::None };
    text.fill_with(|| ports.next());
    match &*text {
        b"short-press-reset" => Buttons::ShortReset,
        b"long-press-reset" => Buttons::LongReset,
        b"long-press-power-and-reset" => Buttons::FullReset,
        _ => Buttons::None,
    }
}

fn bytes<const LENGTH: usize>(ports: &mut impl Ports) -> [u8; LENGTH] {
    core::array::from_fn(|_| ports.next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// A machine with these items: key 0x20 and up, in this order.
    struct Fake {
        items: Vec<(&'static str, Vec<u8>)>,
        signature: [u8; 4],
        selected: Vec<u8>,
        mark: u32,
    }

    impl Fake {
        fn new(items: &[(&'static str, &str)]) -> Self {
            let items = items.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect();
            Self { items, signature: *b"QEMU", selected: Vec::new(), mark: 0 }
        }
    }

    impl Ports for Fake {
        fn select(&mut self, key: u16) {
            let mut content = match key {
                SIGNATURE => self.signature.to_vec(),
                DIRECTORY => {
                    let mut all = u32::try_from(self.items.len()).unwrap().to_be_bytes().to_vec();
                    for (number, (name, bytes)) in self.items.iter().enumerate() {
                        all.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
                        all.extend((0x20 + u16::try_from(number).unwrap()).to_be_bytes());
                        all.extend([0, 0]);
                        let mut padded = name.as_bytes().to_vec();
                        padded.resize(NAME, 0);
                        all.extend(padded);
                    }
                    all
                }
                key => self.items[usize::from(key) - 0x20].1.clone(),
            };
            content.reverse();
            self.selected = content;
        }
        fn next(&mut self) -> u8 {
            self.selected.pop().unwrap_or(0)
        }
        fn mark(&mut self) -> u32 {
            self.mark
        }
        fn set_mark(&mut self, mark: u32) {
            self.mark = mark;
        }
    }

    #[test]
    fn the_gesture_is_read_once_after_the_power_came_on() {
        for (text, gesture) in [
            ("short-press-reset", Buttons::ShortReset),
            ("long-press-reset", Buttons::LongReset),
            ("long-press-power-and-reset", Buttons::FullReset),
            ("long-press-power", Buttons::None),
            ("", Buttons::None),
            ("long-press-reset\n", Buttons::None),
            ("a text that is longer than every gesture is", Buttons::None),
        ] {
            let mut fake =
                Fake::new(&[("etc/other", "x"), ("opt/org.belvedere/buttonses", "long-press-reset"), (ITEM, text)]);
            assert_eq!(buttons(&mut fake), gesture, "{text}");
            // The machine restarts by itself: nobody holds anything then.
            assert_eq!(buttons(&mut fake), Buttons::None);
        }
    }

    #[test]
    fn a_machine_without_the_item_or_the_device_has_no_buttons() {
        assert_eq!(buttons(&mut Fake::new(&[])), Buttons::None);
        assert_eq!(buttons(&mut Fake::new(&[("etc/other", "long-press-reset")])), Buttons::None);
        let mut other = Fake::new(&[(ITEM, "long-press-reset")]);
        other.signature = [0xff; 4];
        assert_eq!(buttons(&mut other), Buttons::None);
    }
}
