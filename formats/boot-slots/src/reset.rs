//! Resets: what the buttons ask for, and how a reset that was begun is finished whatever becomes of the power.
//!
//! The developer guide, "Power and reset buttons", with its words. "A short press is 1 second. A long press is 5
//! seconds", while the appliance is plugged in and powered off:
//!
//! | gesture | the guide | here | light |
//! |---|---|---|---|
//! | "Short press reset" | "Restore latest software version: Reapplies the latest software update to the appliance." | [`Reset::Latest`] | "Slow blinking orange" |
//! | "Long press reset" | "Restore minimum software version: Reapplies the latest required software update to the appliance." | [`Reset::Minimum`] | "Fast blinking orange" |
//! | "Long press power and reset" | "Full reset: Restores the minimum software version and deletes all configuration files and applications." | [`Reset::Full`] | "Fast blinking orange" |
//!
//! Write order of a reset, and what a power cut after each number leaves behind:
//! 1. the bootloader writes the wish to both copies of the table ([`begun`]), before it shows the light or starts
//!    anything — torn: no reset was asked for, and nothing was done; whole in one copy: the reset goes on at the next
//!    start, with or without a button held. (Where the other copy can be read and not written, a later count's cut may lose
//!    this one: a full reset is not exposed to that, see [`crate::Copies::changes`])
//! 2. it starts the slot that the reset is for, or one that can be started — the same
//! 3. full reset: `init` destroys what is in `data`, before it mounts it and before any service runs — it is destroyed
//!    again at the next start
//! 4. full reset: `init` writes that it did to both copies ([`data_destroyed`]) — what is left is a minimum reset: what
//!    is stored from here on stays
//! 5. the appliance operates, and `init` writes that the reset is done to both copies ([`reset_done`]) — over

use crate::{Slot, State, Table};

/// What the buttons asked for while the power came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Buttons {
    /// Nothing held.
    #[default]
    None,
    /// "Short press reset."
    ShortReset,
    /// "Long press reset."
    LongReset,
    /// "Long press power and reset."
    FullReset,
}

impl Buttons {
    /// The reset that the guide's table gives to the gesture.
    pub const fn ask_for(self) -> Reset {
        match self {
            Self::None => Reset::None,
            Self::ShortReset => Reset::Latest,
            Self::LongReset => Reset::Minimum,
            Self::FullReset => Reset::Full,
        }
    }
}

/// A reset that was asked for and is not finished. Each does all that the one before it does. The numbers are on disk:
/// never reuse or reorder them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Reset {
    /// None.
    #[default]
    None = 0,
    /// The latest release.
    Latest = 1,
    /// The minimum release.
    Minimum = 2,
    /// The minimum release, and nothing of what was stored.
    Full = 3,
}

impl Reset {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Latest, Self::Minimum, Self::Full].into_iter().find(|reset| *reset as u8 == number)
    }

    /// Whether the minimum release is wanted.
    pub const fn restores_the_minimum(self) -> bool {
        matches!(self, Self::Minimum | Self::Full)
    }
}

/// The table after `wish` was asked for. One that is under way already and does as much goes on.
///
/// The slot that is to run becomes the preferred one, until the updater changes it, and has all its turns again: a
/// person asked for it. The minimum slot is preferred only when the table says that it can be started: an empty one must
/// not be preferred on the day when something is written to it.
pub fn begun(table: &Table, wish: Reset, fuses: u32) -> Table {
    let mut next = *table;
    if wish <= table.reset {
        return next;
    }
    next.reset = wish;
    let usable = |slot: Slot| {
        let record = table.record(slot);
        record.rollback_level >= fuses && !matches!(record.state, State::Empty | State::Bad | State::Trying { left: 0 })
    };
    if wish.restores_the_minimum() {
        if usable(Slot::Minimum) {
            next.preferred = Slot::Minimum;
        }
    } else if (next.preferred == Slot::Minimum || !usable(next.preferred))
        && let Some(latest) = table.last_good.filter(|slot| usable(*slot))
    {
        // An earlier reset made the minimum release the preferred one, or the preferred one is an update that was tried in vain.
        next.preferred = latest;
    }
    next.with_starts(next.preferred, 0)
}

/// The table after everything in `data` was destroyed, or nothing when no full reset is under way. To both copies,
/// before anything is stored.
pub fn data_destroyed(table: &Table) -> Option<Table> {
    (table.reset == Reset::Full).then_some(Table { reset: Reset::Minimum, ..*table })
}

/// The table after the appliance operates, or nothing when no reset is to be ended. To both copies. A full reset does not
/// end before the data is destroyed.
pub fn reset_done(table: &Table) -> Option<Table> {
    matches!(table.reset, Reset::Latest | Reset::Minimum).then_some(Table { reset: Reset::None, ..*table })
}
