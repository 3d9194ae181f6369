//! The slot table, and which slot to start. Pure, `no_std`, no allocation: the bootloader, the updater and the image
//! tool share it.
//!
//! The partition [`PARTITION`] holds two copies of one 4096-byte block ([`encode`]), at [`COPY_OFFSETS`], and nothing
//! else. The valid copy with the newer generation is the table; a change is written over the *other* copy
//! ([`Copies::change`]). So whatever a power cut does to the block being written, the table before the change is
//! still there. A copy of a version that this code does not know is never written over (see [`Copies::change`]).
//!
//! Nothing in the table is trusted: it says in which order *signed* slots are tried. Whether a slot may run is in its
//! signed kernel image, which carries its rollback level; the level in the table is advice for choosing.
//!
//! Who writes what: the bootloader turns `written` into `trying`, counts tries down, counts starts of good slots, marks
//! unproven slots `bad`, makes a lost table anew and begins resets ([`begun`]); `init` clears the count of the slot that
//! operates ([`operating`]), counts how often it failed all the same ([`failed_again`], [`works`]) and ends resets
//! ([`reset_done`]); the updater writes everything else (`empty`, `written`, `good`, the preferred slot). They take turns: from
//! the start of a slot on the table belongs to what runs in it.
//!
//! Two ways to write, of which a caller chooses one by what the loss of one copy may cost:
//! - [`Copies::changes`], one block, or another one when it cannot be written: counts and refusals. The older copy is one such
//!   change behind, one that cannot be written as many as there were since.
//! - [`Copies::durable_changes`], both copies one after the other: whatever must not be undone by the loss of one.
//!
//! Write order of a commit (the updater's), and what a power cut after each number leaves behind:
//! 1. the copy that does not hold, with the release `good` ([`Table::committed`]) — torn: it is unproven still, and proven
//!    again; whole: committed, as long as this copy lasts
//! 2. the other copy, with the same — committed, whichever copy is lost
//! 3. the fuses are moved, only when [`Copies::both_hold`]: no table that says otherwise is left
//!
//! Write order of a start, and what a power cut after each number leaves behind:
//! 1. the bootloader writes the table with the try or start counted — that start counts, although it never was one;
//! 2. the slot starts, and operates — the same;
//! 3. `init` writes the table with the count cleared — nothing is counted.
//! 4. when what operated fails for long, `init` writes that it was given up, and restarts the machine — torn: not counted;
//!    whole: counted

#![cfg_attr(not(test), no_std)]

mod decide;
mod encoding;
mod failing;
mod reset;

pub use decide::{
    BACK_OFF, Decision, Inputs, Next, Refusal, STARTS, STARTS_BEFORE_A_BAD_ONE, TRIES, decide, given_up, loaded, operating,
    refused,
};
pub use encoding::{BLOCK, Change, Copies, Defect, Mark, decode, encode, initial};
pub use failing::{failed_again, works};
pub use reset::{Buttons, Reset, begun, data_destroyed, reset_done};

/// GPT name of the partition that holds the table.
pub const PARTITION: &str = "boot-slots";
/// Where the two copies begin, bytes from the start of the partition. Far apart: flash that loses a whole erase
/// block loses one copy.
pub const COPY_OFFSETS: [u64; 2] = [0, 64 * 1024];
/// Smallest usable size of the partition, bytes.
pub const PARTITION_SIZE: u64 = COPY_OFFSETS[1] + BLOCK as u64;

/// Vendor GUID of the bootloader's UEFI variables.
pub const VENDOR_GUID: &str = "5d2c6f4e-9a41-4c0b-8f35-1d7a0c2e6b88";
/// Volatile UEFI variable (boot-service and run-time access) that names the slot that was started: `a`, `b` or
/// `minimum`, ASCII, no NUL. Linux shows it as
/// `/sys/firmware/efi/efivars/BelvedereBootSlot-5d2c6f4e-9a41-4c0b-8f35-1d7a0c2e6b88`, after four bytes of attributes.
pub const SLOT_VARIABLE: &str = "BelvedereBootSlot";
/// The volatile variable with the [`Mark`] of the slot table as the bootloader left it: which disk it started from, where
/// several have one.
pub const TABLE_VARIABLE: &str = "BelvedereSlotTable";
/// Volatile UEFI variable, of the same vendor and attributes, with the signed policy of the release that was started
/// (section `.belvpol` of its unified kernel image).
pub const POLICY_VARIABLE: &str = "BelvedereBootPolicy";
/// Another one, with what should be measured when that release starts (section `.belvexp`), for people.
pub const EXPECTED_VARIABLE: &str = "BelvedereExpectedEvents";
/// Another one, which says whether the choice was measured into the TPM: [`MEASURED`], or in words why not.
pub const MEASUREMENT_VARIABLE: &str = "BelvedereBootMeasurement";
/// See [`MEASUREMENT_VARIABLE`].
pub const MEASURED: &str = "measured";

/// A place for a release. The numbers are on disk: never reuse or reorder them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Slot {
    /// The first of the two that take turns.
    A = 0,
    /// The second of them.
    B = 1,
    /// The latest required release, for the resets.
    Minimum = 2,
}

impl Slot {
    /// Every slot.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::Minimum];

    /// `a`, `b` or `minimum`: in partition names, file names and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::Minimum => "minimum",
        }
    }

    /// The slot of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|slot| slot.name() == name)
    }

    /// Its unified kernel image, as a path on the ESP for the firmware.
    pub const fn kernel_path(self) -> &'static str {
        match self {
            Self::A => "\\EFI\\belvedere\\slot-a.efi",
            Self::B => "\\EFI\\belvedere\\slot-b.efi",
            Self::Minimum => "\\EFI\\belvedere\\slot-minimum.efi",
        }
    }

    /// GPT name of the ESP on which it is looked for first. Both ESPs of the disk hold every slot's: the other one is looked
    /// at when it is not there, is damaged or is refused.
    pub const fn esp(self) -> &'static str {
        match self {
            Self::A | Self::Minimum => "esp-a",
            Self::B => "esp-b",
        }
    }

    /// GPT name of the partition with its root image.
    pub const fn system(self) -> &'static str {
        match self {
            Self::A => "system-a",
            Self::B => "system-b",
            Self::Minimum => "system-minimum",
        }
    }
}

/// What is known about a slot's content. The numbers are on disk (see `encoding`): never reuse or reorder them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing usable in it, or being written to.
    Empty,
    /// Completely written and read back, never started.
    Written,
    /// Started at least once, not proven yet.
    Trying {
        /// How often it may still be started.
        left: u8,
    },
    /// Proven.
    Good,
    /// Tried in vain, or refused while unproven.
    Bad,
}

/// One slot in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What is known about its content.
    pub state: State,
    /// The rollback level of the release in it, as far as the table knows: advice. The level that decides whether it
    /// may run is in its signed kernel image.
    pub rollback_level: u32,
    /// How often in a row it was started without operating afterwards; counted for good slots only.
    pub starts: u8,
}

impl Record {
    /// An empty slot.
    pub const EMPTY: Self = Self { state: State::Empty, rollback_level: 0, starts: 0 };
}

/// The slot table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Grows by one with every change, and begins at 0 again after its end.
    pub generation: u64,
    /// The slot that the updater wants to run.
    pub preferred: Slot,
    /// The slot that was proven last: what is retried when nothing else is left.
    pub last_good: Option<Slot>,
    /// The reset that is under way.
    pub reset: Reset,
    records: [Record; 3],
    /// How often in a row each slot operated and was given up all the same, see [`failed_again`].
    failures: [u8; 3],
}

impl Table {
    /// A table with three empty slots.
    pub const fn empty(preferred: Slot) -> Self {
        Self { generation: 0, preferred, last_good: None, reset: Reset::None, records: [Record::EMPTY; 3], failures: [0; 3] }
    }

    /// The table of an appliance that lost it: nothing is known of any slot, so each is taken for what it would be on
    /// an appliance that operated until now, and the bounded number of starts ([`STARTS`]) finds out what is not so.
    /// `rollback_level` is that of the fuses: no slot is *known* to be below.
    pub const fn made_anew(rollback_level: u32) -> Self {
        let record = Record { state: State::Good, rollback_level, starts: 0 };
        Self {
            generation: 0,
            preferred: Slot::A,
            last_good: None,
            reset: Reset::None,
            records: [record; 3],
            failures: [0; 3],
        }
    }

    /// Whether what runs in `slot` operated before, as this table knows: reason enough to do what cannot be undone for it. A
    /// table that was made anew takes every slot for good, and none for proven.
    pub fn proves(&self, slot: Slot) -> bool {
        self.last_good == Some(slot) && self.record(slot).state == State::Good
    }

    /// Whether the two differ in nothing but the generation.
    pub fn says_the_same(&self, other: &Self) -> bool {
        Self { generation: other.generation, ..*self } == *other
    }

    /// What is known about `slot`.
    pub const fn record(&self, slot: Slot) -> Record {
        self.records[slot as usize]
    }

    /// The same table with another record for `slot`.
    #[must_use]
    pub const fn with(mut self, slot: Slot, record: Record) -> Self {
        self.records[slot as usize] = record;
        self
    }

    /// The same table after a release of this rollback level was written to `slot` completely and read back.
    #[must_use]
    pub const fn written(self, slot: Slot, rollback_level: u32) -> Self {
        self.with(slot, Record { state: State::Written, rollback_level, starts: 0 }).with_failures(slot, 0)
    }

    /// The same table while nothing usable is in `slot`: before it is written to, and when that failed.
    #[must_use]
    pub const fn emptied(self, slot: Slot) -> Self {
        self.with(slot, Record::EMPTY)
    }

    /// The same table with another state for `slot`, whose release stays the same, and no starts counted.
    const fn with_state(self, slot: Slot, state: State) -> Self {
        let rollback_level = self.record(slot).rollback_level;
        self.with(slot, Record { state, rollback_level, starts: 0 }).with_failures(slot, 0)
    }

    /// The same table with another count of starts for `slot`.
    #[must_use]
    pub const fn with_starts(self, slot: Slot, starts: u8) -> Self {
        let mut record = self.record(slot);
        record.starts = starts;
        self.with(slot, record)
    }

    /// The same table with another count of how often in a row `slot` operated and was given up.
    const fn with_failures(mut self, slot: Slot, times: u8) -> Self {
        self.failures[slot as usize] = times;
        self
    }

    /// The same table after `slot` was proven: it is good, the last good one, and the preferred one.
    #[must_use]
    pub const fn committed(self, slot: Slot) -> Self {
        let mut table = self.with_state(slot, State::Good);
        table.preferred = slot;
        table.last_good = Some(slot);
        table
    }
}
