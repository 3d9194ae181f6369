//! What `init` does for a reset that the buttons asked for.
//!
//! The bootloader noted it in the slot table and started the slot that it is for; see `formats/boot-slots/src/reset.rs`
//! for the whole way. Of the releases themselves nothing is to be done here: until the reset is done, the root image is read
//! whole and compared with its signature at every start ([`crate::root::Care`]). What is left is the data, for a full reset:
//!
//! 1. before `data` is mounted, what it holds is destroyed — cut: half destroyed, and destroyed again at the next start
//! 2. the table says so, in both copies — from here on what is stored stays
//!
//! The reset ends when the appliance operates ([`crate::slots::note_operating`]).

use crate::Result;
use belvedere_boot_slots::Reset;
use belvedere_interfaces::front_panel::Condition;

/// What carrying out a reset touches.
pub trait Disk {
    /// The reset that is under way.
    fn reset(&mut self) -> Reset;
    /// Destroys what is in `data`.
    fn destroy_data(&mut self) -> Result<()>;
    /// Notes that it is destroyed.
    fn note_data_destroyed(&mut self) -> Result<()>;
    /// Tells people.
    fn say(&mut self, line: &str);
}

/// Does what is to be done before `data` is mounted. Gives the reset that is under way.
///
/// # Errors
/// When the data cannot be destroyed: nothing may run on it then. That it cannot be *noted* is no error: it is
/// destroyed again at the next start, and an appliance that works is better than one that does not.
pub fn carry_out(disk: &mut impl Disk) -> Result<Reset> {
    let reset = disk.reset();
    if reset == Reset::Full {
        disk.say("full reset: destroying everything that is stored");
        disk.destroy_data()?;
        match disk.note_data_destroyed() {
            Ok(()) => disk.say("full reset: everything that was stored is destroyed"),
            Err(error) => disk.say(&format!("full reset: {error}; what is stored now is destroyed at the next start")),
        }
    }
    Ok(reset)
}

/// What the status light says of it.
pub fn condition(reset: Reset) -> Option<Condition> {
    match reset {
        Reset::None => None,
        Reset::Latest => Some(Condition::RestoringLatest),
        Reset::Minimum | Reset::Full => Some(Condition::RestoringMinimum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at step `fail_at`, counted from 1.
    struct Fake {
        reset: Reset,
        destroyed: u32,
        fail_at: u32,
        steps: u32,
    }

    impl Fake {
        fn step(&mut self) -> Result<()> {
            self.steps += 1;
            if self.steps == self.fail_at { Err("the disk is broken".into()) } else { Ok(()) }
        }
    }

    impl Disk for Fake {
        fn reset(&mut self) -> Reset {
            self.reset
        }
        fn destroy_data(&mut self) -> Result<()> {
            self.step()?;
            self.destroyed += 1;
            Ok(())
        }
        fn note_data_destroyed(&mut self) -> Result<()> {
            assert_eq!(self.destroyed, 1, "noted before it was done");
            self.step()?;
            self.reset = Reset::Minimum;
            Ok(())
        }
        fn say(&mut self, _: &str) {}
    }

    #[test]
    fn only_a_full_reset_destroys_the_data_and_it_does_so_before_anything_else() {
        for reset in [Reset::None, Reset::Latest, Reset::Minimum, Reset::Full] {
            let mut fake = Fake { reset, destroyed: 0, fail_at: 0, steps: 0 };
            assert_eq!(carry_out(&mut fake), Ok(reset));
            assert_eq!(fake.destroyed, u32::from(reset == Reset::Full));
            // The next start destroys nothing any more.
            let again = if reset == Reset::Full { Reset::Minimum } else { reset };
            assert_eq!(carry_out(&mut fake), Ok(again));
            assert_eq!(fake.destroyed, u32::from(reset == Reset::Full));
        }
    }

    #[test]
    fn data_that_cannot_be_destroyed_is_not_used_and_a_note_that_cannot_be_made_stops_nothing() {
        let mut fake = Fake { reset: Reset::Full, destroyed: 0, fail_at: 1, steps: 0 };
        assert!(carry_out(&mut fake).is_err());
        let mut fake = Fake { reset: Reset::Full, destroyed: 0, fail_at: 2, steps: 0 };
        assert_eq!(carry_out(&mut fake), Ok(Reset::Full));
        assert_eq!(fake.reset, Reset::Full);
    }
}
