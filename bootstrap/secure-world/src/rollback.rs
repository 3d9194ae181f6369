//! A rollback index that the secure world keeps: it goes up and never down.

use crate::{Argument, Error, SecureWorld, Session};
use belvedere_tee::call::{PARAMETERS, Parameter};
use belvedere_tee::rollback;

/// Which of the trusted application's indices is the appliance's rollback level.
pub const LEVEL: u32 = 0;

/// Reads the level below which no release may start; 0 when it was never raised.
///
/// # Errors
/// When the secure world does not answer: then nothing may be concluded.
pub fn read(world: &impl SecureWorld) -> Result<u64, Error> {
    read_in(&mut world.open(&rollback::APPLICATION)?)
}

/// Raises the level and reads it back.
///
/// # Errors
/// When the secure world refuses, as it does for a lower level than it has, or reads another one afterwards.
pub fn raise(world: &impl SecureWorld, to: u64) -> Result<(), Error> {
    let mut session = world.open(&rollback::APPLICATION)?;
    let (command, [index, value, ..]) = rollback::raise(LEVEL, to);
    session.command(
        "raise the rollback index",
        command,
        [argument(index), argument(value), Argument::None, Argument::None],
    )?;
    let found = read_in(&mut session)?;
    if found == to { Ok(()) } else { Err(Error::NotRaised { wanted: to, found }) }
}

fn read_in(session: &mut impl Session) -> Result<u64, Error> {
    let (command, [index, value, ..]) = rollback::read(LEVEL);
    let arguments = [argument(index), argument(value), Argument::None, Argument::None];
    let back = session.command("read the rollback index", command, arguments)?;
    let mut answer = [Parameter::None; PARAMETERS];
    answer[1] = Parameter::Output(back[1].0, back[1].1, 0);
    Ok(rollback::value(&answer)?)
}

fn argument(parameter: Parameter) -> Argument<'static> {
    match parameter {
        Parameter::Input(a, b, _) => Argument::Numbers(a, b),
        Parameter::Output(..) => Argument::NumbersBack,
        _ => Argument::None,
    }
}
