//! Which slot to start, and what to write before.

use belvedere_panel::Condition;

use crate::{Buttons, Copies, Reset, Slot, State, Table, begun};

/// How often an unproven slot is started.
pub const TRIES: u8 = 3;
/// How often in a row a proven slot is started without operating before the next one has its turn. More than [`TRIES`]:
/// an impatient hand at the power switch must not easily take the turn from a slot that is well.
pub const STARTS: u8 = 5;
/// How often it is started while a slot is passed over, before that one has its turn: two rounds. More than [`STARTS`], or whoever
/// has the power switch and nothing else could have a release run that was tried in vain by cutting the power five times.
pub const STARTS_BEFORE_A_BAD_ONE: u8 = 2 * STARTS;
/// Marks the slot that had the last turn of a round, in place of its starts. No count reaches it.
const LAST_TURN: u8 = STARTS_BEFORE_A_BAD_ONE + 1;
/// Seconds to wait before the first, second, … retry when nothing is bootable. After the last one the bootloader restarts the
/// machine; who does not waits as long again and again.
pub const BACK_OFF: [u32; 5] = [5, 10, 30, 60, 300];

/// Why a slot did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The firmware refused its signature.
    SecureBoot,
    /// Its file is not there.
    Missing,
    /// It could not be read or loaded.
    Failed,
    /// It was started and came back.
    CameBack,
    /// The rollback level in its signed image is below the fuses.
    RolledBack {
        /// That level.
        level: u32,
    },
}

/// All that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'copies> {
    /// The table's two copies.
    pub copies: &'copies Copies,
    /// The rollback level in the fuses.
    pub fuses: u32,
    /// What the buttons asked for when the power came on: the same in every round of a power-on.
    pub buttons: Buttons,
    /// Slots (by number) that did not start since the last back-off.
    pub refused: [bool; 3],
    /// How many back-offs there were since power-on.
    pub back_offs: u32,
}

/// What to do, in this order: write, then wait or start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The table to write, flush and read back before anything else.
    pub write: Option<Table>,
    /// A reset begins with that: to both copies ([`Copies::durable_changes`]). When it cannot be written, decide again
    /// without buttons: a reset that a power cut could make half a one is not begun.
    pub begins_reset: bool,
    /// The slot is not to be started when `write` does not hold: uncounted it could be started for ever while others could.
    /// Note it in [`Inputs::refused`], decide again.
    pub only_counted: bool,
    /// What then.
    pub next: Next,
    /// What the status light shows meanwhile.
    pub shows: Condition,
}

/// What to do after the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start this slot. If it cannot be loaded: [`refused`], note it in [`Inputs::refused`], decide again. If it was started
    /// and comes back: [`refused`], then restart the machine, for its measurements are in the TPM already and no other
    /// slot's fit behind them.
    Start(Slot),
    /// Wait so many seconds, forget [`Inputs::refused`], count the back-off, decide again.
    BackOff(u32),
}

/// Chooses.
///
/// 1. A slot that the table says is below the fuses is passed over. (What *forbids* a slot is the level in its signed
///    image, which the bootloader compares when it has loaded it: [`Refusal::RolledBack`].)
/// 2. What the buttons ask for is noted ([`begun`]) and goes on until it is done, at every start: with a minimum or full
///    reset the minimum slot comes first. When it cannot be started the others follow: no reset keeps an appliance from
///    starting.
/// 3. The preferred slot, then proven ones, the last one proven first, then unproven ones; `a` and `b` before `minimum`.
/// 4. An unproven slot loses a try before it is started; without tries left it becomes bad.
/// 5. Starts of a proven slot are counted, until it operates ([`operating`]). After [`STARTS`] of them the next slot has
///    its turn; the proof stays. When every proven one has had its turns, all begin again, and the one of the last turn comes
///    last; that all had them and none operates is worth a back-off.
/// 6. Before they begin again, and after that back-off, one slot that is passed over has one start: a bad one, or one that the
///    table says is below the fuses (it may be wrong, and the image will tell). While there is one the proven ones have two
///    rounds before it ([`STARTS_BEFORE_A_BAD_ONE`]), but for one that cannot be loaded, and an unproven one has its tries
///    after the first. The same write says that the others begin again, so that it is one start and no more; whose it is of
///    several, the generation says. A bad one that operates proves nothing, but leaves the proven ones one start each until it
///    is started again.
/// 7. With nothing left: a back-off, then everything from the start, and after that whatever has any content at all. No
///    state is changed by that: it is a last resort, not a proof. But the table is written, and its generation says whose
///    turn it is: one that never operates must not keep the others from being tried.
/// 8. With no valid table: a back-off (it may have been a passing fault), then the table is made anew
///    ([`Table::made_anew`]), and the rules above hold. Where it may not be written, the slots are tried in their order, at
///    every start the same: there is no place for whose turn it is.
pub fn decide(inputs: Inputs<'_>) -> Decision {
    let current = inputs.copies.current();
    let anew = Table::made_anew(inputs.fuses);
    let table = match current {
        Some(table) => table,
        None if inputs.back_offs > 0 && inputs.copies.change(anew).is_some() => anew,
        None => {
            let next = after_a_back_off(inputs, Slot::ALL.into_iter());
            return Decision { write: None, begins_reset: false, only_counted: false, next, shows: Condition::Error };
        }
    };
    let mut next = begun(&table, inputs.buttons.ask_for(), inputs.fuses);
    let begins_reset = next.reset != table.reset;
    for slot in Slot::ALL {
        let record = next.record(slot);
        if record.state == (State::Trying { left: 0 }) {
            next = next.with_state(slot, State::Bad);
        }
    }
    let allowed = |slot: &Slot| next.record(*slot).rollback_level >= inputs.fuses;
    let startable = |slot: &Slot| allowed(slot) && !inputs.refused[*slot as usize];
    let untried = Slot::ALL.into_iter().any(|slot| startable(&slot) && is_unproven(&next, slot));
    let rounds = if !untried && Slot::ALL.into_iter().any(|slot| is_passed_over(&next, slot, allowed)) { 2 } else { 1 };
    let choose = |table: &Table| {
        (1..=rounds).find_map(|round| {
            order(table).filter(startable).find(|slot| match table.record(*slot).state {
                State::Written | State::Trying { .. } => true,
                State::Good => table.record(*slot).starts < STARTS * round,
                State::Empty | State::Bad => false,
            })
        })
    };
    let begun_again = Slot::ALL.into_iter().fold(next, |table, slot| table.with_starts(slot, 0));
    let waits = |slot: &Slot| !inputs.refused[*slot as usize] && is_passed_over(&next, *slot, allowed);
    let chosen = match choose(&next) {
        Some(slot) => Some((slot, next)),
        None if inputs.back_offs == 0 => None,
        None => choose(&begun_again).map(|slot| (rotated(&next).find(waits).unwrap_or(slot), begun_again)),
    };
    let Some((slot, next)) = chosen else {
        // Also those that the table says are below the fuses, in their turn: it may be wrong, and their images will tell.
        let what = after_a_back_off(inputs, rotated(&next));
        let changed = current != Some(next) || matches!(what, Next::Start(_));
        let write = changed.then_some(next);
        return Decision { write, begins_reset, only_counted: false, next: what, shows: Condition::Error };
    };
    let only_counted = is_passed_over(&next, slot, allowed) || inputs.back_offs == 0 && is_unproven(&next, slot);
    let next = match next.record(slot).state {
        State::Written => next.with_state(slot, State::Trying { left: TRIES - 1 }),
        State::Trying { left } => next.with_state(slot, State::Trying { left: left.saturating_sub(1) }),
        State::Good => count_start(next, slot, allowed),
        State::Bad | State::Empty => next,
    };
    let shows = match next.reset {
        // It did not go well a moment ago: a person should see that until something starts.
        _ if inputs.back_offs > 0 => Condition::Error,
        Reset::None => Condition::Booting,
        Reset::Latest => Condition::RestoringLatest,
        Reset::Minimum | Reset::Full => Condition::RestoringMinimum,
    };
    let write = (current != Some(next)).then_some(next);
    Decision { write, begins_reset, only_counted, next: Next::Start(slot), shows }
}

/// Rule 6: there is something in it, and rules 1 and 4 give it no turn.
fn is_passed_over(table: &Table, slot: Slot, allowed: impl Fn(&Slot) -> bool) -> bool {
    match table.record(slot).state {
        State::Empty => false,
        State::Bad => true,
        State::Written | State::Trying { .. } | State::Good => !allowed(&slot),
    }
}

/// It is to be proven yet.
const fn is_unproven(table: &Table, slot: Slot) -> bool {
    matches!(table.record(slot).state, State::Written | State::Trying { .. })
}

/// Rules 6 and 7: every slot with content once, the one whose turn it is first.
fn rotated(table: &Table) -> impl Iterator<Item = Slot> + use<> {
    let table = *table;
    let with_content = move |slot: &Slot| table.record(*slot).state != State::Empty;
    let all = distinct(table.last_good.into_iter().chain([table.preferred]).chain(Slot::ALL).filter(with_content));
    let turns = all.clone().count();
    let turn = usize::try_from(scattered(table.generation) % turns.max(1) as u64).unwrap_or_default();
    all.cycle().skip(turn).take(turns)
}

/// Rule 5: one start more. Who has the last turn of a round is marked ([`LAST_TURN`]): the others begin again before it, even if
/// it is the preferred one, and its mark goes with the end of the next turn. Where a slot is unproven or passed over, it has its
/// turn first (rules 3 and 6), and the round does not end here: the starts are counted on.
fn count_start(table: Table, slot: Slot, allowed: impl Fn(&Slot) -> bool) -> Table {
    let starts = table.record(slot).starts.saturating_add(1);
    if !starts.is_multiple_of(STARTS) {
        return table.with_starts(slot, starts);
    }
    let others = || Slot::ALL.into_iter().filter(|other| *other != slot);
    let marked = |table: &Table, other: Slot| table.record(other).starts >= LAST_TURN;
    let next = others().fold(table, |next, other| if marked(&table, other) { next.with_starts(other, 0) } else { next });
    let mut proven = others().filter(|other| table.record(*other).state == State::Good && allowed(other)).peekable();
    let waits = others().any(|other| is_unproven(&table, other) || is_passed_over(&table, other, &allowed));
    if !waits && proven.peek().is_some() && proven.all(|other| next.record(other).starts >= STARTS) {
        others().fold(next, |next, other| next.with_starts(other, 0)).with_starts(slot, LAST_TURN)
    } else {
        next.with_starts(slot, starts)
    }
}

/// Rules 2 and 3: every slot at least once, the one to start first comes first.
fn order(table: &Table) -> impl Iterator<Item = Slot> {
    let turns = [Slot::A, Slot::B];
    let table = *table;
    table
        .reset
        .restores_the_minimum()
        .then_some(Slot::Minimum)
        .into_iter()
        .chain([table.preferred])
        .chain(table.last_good.filter(|slot| table.record(*slot).state == State::Good))
        .chain(turns.into_iter().filter(move |slot| table.record(*slot).state == State::Good))
        .chain(turns)
        .chain([Slot::Minimum])
}

/// A number that goes through all remainders though the generation may grow by the same few at every start: multiples of
/// the golden ratio (a Weyl sequence), of which the upper half is taken.
fn scattered(generation: u64) -> u64 {
    generation.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// Each slot once, in the order of its first appearance.
fn distinct(slots: impl Iterator<Item = Slot>) -> impl Iterator<Item = Slot> + Clone {
    let mut found = [None; 3];
    for slot in slots {
        if !found.contains(&Some(slot))
            && let Some(free) = found.iter_mut().find(|place| place.is_none())
        {
            *free = Some(slot);
        }
    }
    found.into_iter().flatten()
}

/// Rule 7.
fn after_a_back_off(inputs: Inputs<'_>, mut candidates: impl Iterator<Item = Slot>) -> Next {
    let last = BACK_OFF.len() - 1;
    let seconds = BACK_OFF[usize::try_from(inputs.back_offs).unwrap_or(last).min(last)];
    if inputs.back_offs == 0 {
        return Next::BackOff(seconds);
    }
    candidates.find(|slot| !inputs.refused[*slot as usize]).map_or(Next::BackOff(seconds), Next::Start)
}

/// The table after `slot` did not start, or nothing when it stays as it is.
///
/// An unproven slot that is missing, or whose signature or level was refused, becomes bad at once: more tries cannot
/// help. A proven one keeps its state: the cause may be a passing one, and the proof must survive that. An unproven one
/// that merely failed has lost its try already. A proven one that came back has had its turns of this round: more of them would
/// come back as well, each with a restart of the machine. A level that the signed image contradicts is put right.
pub fn refused(table: &Table, slot: Slot, why: Refusal) -> Option<Table> {
    let mut next = *table;
    if is_unproven(table, slot) && !matches!(why, Refusal::Failed | Refusal::CameBack) {
        next = next.with_state(slot, State::Bad);
    }
    if why == Refusal::CameBack && table.record(slot).state == State::Good {
        // One that could not be counted had a turn, too.
        let starts = table.record(slot).starts.max(1);
        let round_ended = if starts < STARTS_BEFORE_A_BAD_ONE { starts.next_multiple_of(STARTS) } else { starts };
        next = next.with_starts(slot, round_ended);
    }
    if let Refusal::RolledBack { level } = why {
        next = next.with(slot, crate::Record { rollback_level: level, ..next.record(slot) });
    }
    (next != *table).then_some(next)
}

/// The table after the image in `slot` was loaded, or nothing when it stays as it is. `level` is signed in it: where the table
/// has a lower one, it is put right, or the slot would be passed over for ever.
pub fn loaded(table: &Table, slot: Slot, level: u32) -> Option<Table> {
    let record = table.record(slot);
    (level > record.rollback_level).then(|| table.with(slot, crate::Record { rollback_level: level, ..record }))
}

/// The table after the appliance operates in `slot`, or nothing when it stays as it is: a proven slot's starts are
/// forgotten. Proving an unproven one takes more than that, and is the updater's.
///
/// A bad slot stays bad. But it ran because no proven one came up, so each of these has one start at the next power-on and not
/// all of its turns. Not none: power cuts may have taken them, and a release that was tried in vain must not take the place of
/// one that is well.
pub fn operating(table: &Table, slot: Slot) -> Option<Table> {
    let next = match table.record(slot).state {
        State::Good => table.with_starts(slot, 0),
        State::Bad => proven(table).fold(*table, |next, other| next.with_starts(other, STARTS_BEFORE_A_BAD_ONE - 1)),
        State::Empty | State::Written | State::Trying { .. } => return None,
    };
    (next != *table).then_some(next)
}

/// The slots that are good, whatever else is known of them.
fn proven(table: &Table) -> impl Iterator<Item = Slot> + use<> {
    let table = *table;
    Slot::ALL.into_iter().filter(move |slot| table.record(*slot).state == State::Good)
}

/// The proven slots that were started [`STARTS`] times in a row and never operated: people should be told of them.
pub fn given_up(table: &Table) -> impl Iterator<Item = Slot> {
    let table = *table;
    proven(&table).filter(move |slot| table.record(*slot).starts >= STARTS)
}
