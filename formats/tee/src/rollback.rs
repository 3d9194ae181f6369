//! Rollback indices as OP-TEE's trusted application AVB keeps them (`ta/avb/include/ta_avb.h`, OP-TEE 4.10): 256 numbers that
//! it raises and never lowers.

use crate::call::{PARAMETERS, Parameter};
use crate::{Malformed, Uuid};

/// 023f8f1a-292a-432b-8fc4-de8471358067.
pub const APPLICATION: Uuid =
    [0x02, 0x3f, 0x8f, 0x1a, 0x29, 0x2a, 0x43, 0x2b, 0x8f, 0xc4, 0xde, 0x84, 0x71, 0x35, 0x80, 0x67];
/// How many indices there are.
pub const INDICES: u32 = 256;

/// Number and parameters of a command.
pub type Command = (u32, [Parameter; PARAMETERS]);

/// Reads an index (`TA_AVB_CMD_READ_ROLLBACK_INDEX`); [`value`] understands the answer. One that was never raised is 0.
pub fn read(index: u32) -> Command {
    (0, [Parameter::Input(index.into(), 0, 0), Parameter::Output(0, 0, 0), Parameter::None, Parameter::None])
}

/// Raises an index (`TA_AVB_CMD_WRITE_ROLLBACK_INDEX`). To a lower value it is refused, with [`crate::Code::SECURITY`].
pub fn raise(index: u32, to: u64) -> Command {
    let value = Parameter::Input(to >> 32, to & 0xffff_ffff, 0);
    (1, [Parameter::Input(index.into(), 0, 0), value, Parameter::None, Parameter::None])
}

/// The value in the answer to [`read`].
///
/// # Errors
/// When it is none.
pub fn value(answer: &[Parameter; PARAMETERS]) -> Result<u64, Malformed> {
    let [_, Parameter::Output(high, low, _), _, _] = *answer else { return Err(Malformed("a rollback index is missing")) };
    let half = |number: u64| u32::try_from(number).map_err(|_| Malformed("a rollback index is out of range"));
    Ok(u64::from(half(high)?) << 32 | u64::from(half(low)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_in_halves() {
        let (command, parameters) = raise(3, 0x1_0000_0002);
        assert_eq!(command, 1);
        assert_eq!(parameters[..2], [Parameter::Input(3, 0, 0), Parameter::Input(1, 2, 0)]);
        let (command, mut parameters) = read(3);
        assert_eq!((command, value(&parameters)), (0, Ok(0)));
        parameters[1] = Parameter::Output(1, 2, 0);
        assert_eq!(value(&parameters), Ok(0x1_0000_0002));
        parameters[1] = Parameter::Output(1 << 32, 2, 0);
        assert!(value(&parameters).is_err());
        parameters[1] = Parameter::None;
        assert!(value(&parameters).is_err());
    }
}
