//! The virtual board's status light: three lines of its PL061.

use belvedere_boot_slots::Light;

/// Where QEMU's `virt` machine has its PL061.
pub const BASE: usize = 0x0903_0000;
/// Offset of the data register for the three lines of the status light alone: address bits 9..2 are the mask.
pub const STATUS_DATA: usize = (STATUS as usize) << 2;
/// Offset of the direction register.
pub const DIRECTION: usize = 0x400;
/// Lines 0 green, 1 red, 2 blue.
pub const STATUS: u8 = 0b111;
/// How often [`lines`] is to be asked, milliseconds.
pub const TICK: u64 = 500;

/// The lines that are on in tick number `tick`.
pub fn lines(light: Light, tick: u32) -> u8 {
    let (colour, ticks) = match light {
        Light::FastGreen => (0b001, 1),
        Light::FastRed => (0b010, 1),
        Light::FastOrange => (0b011, 1),
        Light::SlowOrange => (0b011, 3),
    };
    if (tick / ticks).is_multiple_of(2) { colour } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_is_once_a_second_and_slow_once_in_three() {
        let pattern = |light| core::array::from_fn::<u8, 12, _>(|tick| lines(light, tick as u32));
        assert_eq!(pattern(Light::FastRed), [2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0]);
        assert_eq!(pattern(Light::SlowOrange), [3, 3, 3, 0, 0, 0, 3, 3, 3, 0, 0, 0]);
    }
}
