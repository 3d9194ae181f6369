//! The virtual board's status light: three lines of its PL061.

use belvedere_panel::{Colour, Light};
use core::time::Duration;

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

/// The lines that are on in tick number `tick`. Orange is red and green at once.
pub fn lines(light: Light, tick: u32) -> u8 {
    let colour = match light.colour {
        Colour::Green => 0b001,
        Colour::Red => 0b010,
        Colour::Orange => 0b011,
        Colour::Blue => 0b100,
    };
    if light.rhythm.is_lit(Duration::from_millis(TICK) * tick) { colour } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_panel::Condition;

    #[test]
    fn fast_is_once_a_second_and_slow_once_in_three() {
        let pattern = |condition: Condition| core::array::from_fn::<u8, 12, _>(|tick| lines(condition.light(), tick as u32));
        assert_eq!(pattern(Condition::Error), [2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0]);
        assert_eq!(pattern(Condition::RestoringLatest), [3, 3, 3, 0, 0, 0, 3, 3, 3, 0, 0, 0]);
        // After three weeks of waiting for a disk, too.
        assert!([0, 2].contains(&lines(Condition::Error.light(), u32::MAX)));
    }
}
