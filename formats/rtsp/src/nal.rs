//! NAL units (H.264, 7.3 and 7.4): the few bits that say where an access unit begins and where decoding can.

/// A coded slice of a picture that is not IDR.
pub const SLICE: u8 = 1;
/// The first of three partitions of a slice.
pub const PARTITION_A: u8 = 2;
/// A coded slice of an IDR picture.
pub const IDR: u8 = 5;
/// Supplemental enhancement information.
pub const SEI: u8 = 6;
/// Sequence parameter set.
pub const SEQUENCE: u8 = 7;
/// Picture parameter set.
pub const PICTURE: u8 = 8;
/// Access unit delimiter.
pub const DELIMITER: u8 = 9;
/// Filler data.
pub const FILLER: u8 = 12;

/// The type of a NAL unit.
pub fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte & 0x1f)
}

/// Without the bytes that keep start codes out of the data (7.4.1), the first `limit` bytes at most.
fn unescaped(nal: &[u8], limit: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(nal.len().min(limit));
    let mut zeros = 0;
    for byte in nal {
        if bytes.len() == limit {
            break;
        }
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        bytes.push(*byte);
    }
    bytes
}

/// Reads bits, the highest of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1 == 1;
        self.at += 1;
        Some(bit)
    }

    /// ue(v) (9.1), at most 2^32 - 2.
    fn number(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let mut value: u32 = 1;
        for _ in 0..zeros {
            value = value << 1 | u32::from(self.bit()?);
        }
        Some(value - 1)
    }
}

/// What a slice says of itself in its first bits (7.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// It begins its picture (or field).
    pub first: bool,
    /// It refers to no other picture.
    pub intra: bool,
}

/// Reads a slice's first bits; the first 24 bytes of the NAL unit are enough.
pub fn slice(nal: &[u8]) -> Option<Slice> {
    let bytes = unescaped(nal.get(1..)?, 24);
    let mut bits = Bits { bytes: &bytes, at: 0 };
    let first = bits.number()? == 0;
    // Types 5 to 9 are 0 to 4, and all slices of the picture are of that type. 2 is I, 4 is SI.
    let intra = matches!(bits.number()? % 5, 2 | 4);
    Some(Slice { first, intra })
}

/// The number of a parameter set.
pub fn set_number(nal: &[u8]) -> Option<u32> {
    let skipped = match kind(nal) {
        // Profile, constraints, level.
        SEQUENCE => 4,
        PICTURE => 1,
        _ => return None,
    };
    let bytes = unescaped(nal, 16);
    Bits { bytes: bytes.get(skipped..)?, at: 0 }.number()
}

/// Whether an SEI holds a recovery point (D.1.8): from here on, or after some pictures, everything can be decoded.
pub fn recovery_point(nal: &[u8]) -> bool {
    // Who puts four kilobytes of other things in front of it gets a key picture less.
    let bytes = unescaped(nal.get(1..).unwrap_or_default(), 4096);
    let mut rest = bytes.as_slice();
    let number = |rest: &mut &[u8]| {
        let mut sum = 0_usize;
        loop {
            let (byte, behind) = rest.split_first()?;
            *rest = behind;
            sum += usize::from(*byte);
            if *byte != 0xff {
                return Some(sum);
            }
        }
    };
    // Behind the last message lies the trailing bit, 0x80.
    while rest.len() > 1 {
        let (Some(kind), Some(length)) = (number(&mut rest), number(&mut rest)) else { return false };
        if kind == 6 {
            return true;
        }
        let Some(behind) = rest.get(length..) else { return false };
        rest = behind;
    }
    false
}

/// The first start code (00 00 01) in `bytes` from `from` on.
pub fn start_code(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at + 2 < bytes.len() {
        match bytes[at + 2] {
            // Neither here nor at the next two places.
            2.. => at += 3,
            1 if bytes[at] == 0 && bytes[at + 1] == 0 => return Some(at),
            1 => at += 3,
            0 => at += 1,
        }
    }
    None
}

/// The NAL units of a byte stream, or the one that has no start code.
pub fn units(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut units = Vec::new();
    let mut from = 0;
    loop {
        let end = start_code(stream, from);
        let mut unit = &stream[from..end.unwrap_or(stream.len())];
        // No NAL unit ends with a zero: it is of the next one's start code.
        while let [rest @ .., 0] = unit {
            unit = rest;
        }
        if !unit.is_empty() {
            units.push(unit.to_vec());
        }
        match end {
            Some(end) => from = end + 3,
            None => return units,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_say_what_they_are() {
        // first_mb_in_slice, slice_type as ue(v): 0 is 1, 2 is 011, 7 is 0001000, 5 is 00110.
        assert_eq!(slice(&[0x65, 0b1000_1000, 0x80]), Some(Slice { first: true, intra: true }));
        assert_eq!(slice(&[0x41, 0b1001_1000, 0x80]), Some(Slice { first: true, intra: false }));
        assert_eq!(slice(&[0x41, 0b0111_0000, 0x80]), Some(Slice { first: false, intra: false }));
        for short in [&[][..], &[0x41], &[0x41, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(slice(short), None);
        }
    }

    #[test]
    fn parameter_sets_have_numbers() {
        assert_eq!(set_number(&[0x67, 66, 0, 31, 0b1000_0000]), Some(0));
        assert_eq!(set_number(&[0x67, 66, 0, 31, 0b0110_0000]), Some(2));
        assert_eq!(set_number(&[0x68, 0b0100_0000]), Some(1));
        assert_eq!(set_number(&[0x67, 66]), None);
        assert_eq!(set_number(&[0x68]), None);
        assert_eq!(set_number(&[0x65, 0xff]), None);
    }

    #[test]
    fn recovery_points_are_found_behind_other_messages() {
        assert!(recovery_point(&[6, 6, 1, 0xc4, 0x80]));
        assert!(recovery_point(&[6, 0, 2, 9, 9, 6, 1, 0xc4, 0x80]));
        let mut long = vec![6, 5, 0xff, 0x05];
        long.resize(long.len() + 260, 7);
        long.extend([6, 1, 0xc4, 0x80]);
        assert!(recovery_point(&long));
        // An emulation prevention byte counts for no length.
        assert!(recovery_point(&[6, 1, 4, 0, 0, 3, 1, 9, 6, 1, 0xc4, 0x80]));
        for other in [&[6][..], &[6, 0x80], &[6, 5, 6, 1, 2], &[6, 0xff], &[6, 0xff, 0xff, 0xff], &[6, 5, 1, 6, 0x80]] {
            assert!(!recovery_point(other), "{other:?}");
        }
    }

    #[test]
    fn start_codes_are_found_wherever_they_are() {
        for at in 0..9 {
            let mut bytes = vec![0x55; 12];
            bytes[at..at + 3].copy_from_slice(&[0, 0, 1]);
            assert_eq!(start_code(&bytes, 0), Some(at));
            assert_eq!(start_code(&bytes, at + 1), None);
        }
        assert_eq!(start_code(&[0, 0, 0, 1], 0), Some(1));
        assert_eq!(start_code(&[0, 0, 2, 0, 0, 3, 0, 1, 1, 0, 0], 0), None);
        assert_eq!(start_code(&[1, 0, 0, 1], 0), Some(1));
    }
}
