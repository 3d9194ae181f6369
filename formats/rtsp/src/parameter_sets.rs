//! The parameter sets of a stream, by kind and number: a stream may use several of each, change them on the way, and tell
//! them in the session's description, between the pictures, or both.

use crate::nal;

/// Parameter sets that are kept: H.264 has 32 sequence parameter sets; no camera uses a tenth of its 256 picture
/// parameter sets. A further one takes the oldest one's place.
pub const MAXIMUM_SETS: usize = 64;
/// Bytes of one.
pub const MAXIMUM_SET: usize = 16 << 10;

/// Kind and number.
pub type Name = (u8, u32);

/// What is known.
#[derive(Debug, Default)]
pub struct ParameterSets(Vec<(Name, Vec<u8>)>);

/// The name of a NAL unit that is a parameter set.
pub fn name(nal: &[u8]) -> Option<Name> {
    if nal.len() > MAXIMUM_SET {
        return None;
    }
    Some((nal::kind(nal), nal::set_number(nal)?))
}

impl ParameterSets {
    /// Takes one; it replaces an earlier one of its name.
    pub fn insert(&mut self, nal: &[u8]) {
        let Some(name) = name(nal) else { return };
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) if known == nal => {}
            Some((_, known)) => *known = nal.to_vec(),
            None => {
                if self.0.len() == MAXIMUM_SETS {
                    self.0.remove(0);
                }
                self.0.push((name, nal.to_vec()));
            }
        }
    }

    /// Those that are not among `present`, sequence parameter sets first.
    pub fn missing(&self, present: &[Name]) -> impl Iterator<Item = &[u8]> {
        let of = |kind: u8| self.0.iter().filter(move |((known, _), _)| *known == kind);
        let absent = |name: &Name| !present.contains(name);
        of(nal::SEQUENCE).chain(of(nal::PICTURE)).filter(move |(name, _)| absent(name)).map(|(_, nal)| nal.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_told_apart_by_kind_and_number_and_bounded() {
        let mut sets = ParameterSets::default();
        let (picture_0, picture_1, sequence) = ([0x68, 0xce], [0x68, 0x4f], [0x67, 66, 0, 31, 0x80]);
        sets.insert(&picture_0);
        sets.insert(&picture_1);
        sets.insert(&sequence);
        sets.insert(b"\x41nothing");
        assert_eq!(sets.missing(&[]).collect::<Vec<_>>(), [&sequence[..], &picture_0, &picture_1]);
        let changed = [0x68, 0xcf, 1];
        sets.insert(&changed);
        assert_eq!(sets.missing(&[(8, 1), (7, 0)]).collect::<Vec<_>>(), [&changed[..]]);

        for number in 0..1000_u32 {
            // ue(v) of number: as many zeros as the value has further bits.
            let length = 32 - (number + 1).leading_zeros();
            let bits = u64::from(number + 1) << (64 - (2 * length - 1));
            sets.insert(&[&[0x68][..], &bits.to_be_bytes()].concat());
        }
        assert_eq!(sets.missing(&[]).count(), MAXIMUM_SETS);
        let mut large = vec![0x68, 0xff];
        large.resize(MAXIMUM_SET + 1, 1);
        assert_eq!(name(&large), None);
    }
}
