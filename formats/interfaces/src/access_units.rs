//! Coded pictures on their way from `camera` to `decoder`: a Unix stream socket at [`crate::paths::DECODER`], one
//! connection per camera stream. The other way `decoder` sends nothing but [`Report`]s.
//!
//! A connection is a sequence of records, each a header of [`HEADER`] bytes and a payload, little endian:
//!
//! | bytes | meaning |
//! |---|---|
//! | 1 | kind: 1 open, 2 access unit, 3 state |
//! | 1 | flags: bit 0 key (access unit: decoding can begin here; state: playing), bit 1 gap (something before it was lost), bit 2 intra (refers to no other picture: decoding can begin here where nothing better comes) |
//! | 2 | zero |
//! | 4 | length of the payload |
//! | 8 | access unit: microseconds since 1970 at which it arrived; otherwise zero |
//!
//! - *open* comes first and once: the stream's identifier.
//! - *access unit*: H.264 in the byte stream format (Annex B), parameter sets inside, before every key picture.
//! - *state*: one line for people; how the stream is from now on.
//!
//! When the connection ends, the stream is offline. Whatever breaks these rules ends the connection.

/// Bytes of a record's header.
pub const HEADER: usize = 16;
/// Bytes of an access unit. A key picture of 3840×2160 at the highest quality of common cameras is below 2 MB.
pub const MAXIMUM_ACCESS_UNIT: usize = 4 << 20;
/// Bytes of a stream's identifier.
pub const MAXIMUM_STREAM_ID: usize = 128;
/// Bytes of a state's text.
pub const MAXIMUM_DETAIL: usize = 512;

const OPEN: u8 = 1;
const ACCESS_UNIT: u8 = 2;
const STATE: u8 = 3;
const KEY: u8 = 1;
const GAP: u8 = 2;
const INTRA: u8 = 4;

/// What a record is; its payload follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The stream's identifier.
    Open,
    /// One coded picture.
    AccessUnit {
        /// Decoding can begin here.
        key: bool,
        /// Something before it was lost: wait for a key picture.
        gap: bool,
        /// It refers to no other picture, but it is not said that what follows it refers to none before it.
        intra: bool,
        /// Microseconds since 1970.
        timestamp_us: i64,
    },
    /// How the stream is.
    State {
        /// Pictures arrive.
        playing: bool,
    },
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Bytes that follow.
    pub length: usize,
}

/// A header that is not one, or a payload larger than its kind allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a record of coded pictures, or one that is too large")
    }
}

impl Kind {
    /// The largest payload of this kind.
    pub fn maximum(&self) -> usize {
        match self {
            Kind::Open => MAXIMUM_STREAM_ID,
            Kind::AccessUnit { .. } => MAXIMUM_ACCESS_UNIT,
            Kind::State { .. } => MAXIMUM_DETAIL,
        }
    }
}

impl Header {
    /// The header of a payload; refuses what [`Header::decode`] would refuse.
    pub fn new(kind: Kind, payload: &[u8]) -> Result<Self, Malformed> {
        let header = Header { kind, length: payload.len() };
        if payload.is_empty() && !matches!(kind, Kind::State { .. }) || payload.len() > kind.maximum() {
            return Err(Malformed);
        }
        Ok(header)
    }

    /// To bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let (kind, flags, timestamp_us) = match self.kind {
            Kind::Open => (OPEN, 0, 0),
            Kind::AccessUnit { key, gap, intra, timestamp_us } => {
                let flags =
                    [(key, KEY), (gap, GAP), (intra, INTRA)].iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
                (ACCESS_UNIT, flags, timestamp_us)
            }
            Kind::State { playing } => (STATE, if playing { KEY } else { 0 }, 0),
        };
        let mut bytes = [0; HEADER];
        bytes[0] = kind;
        bytes[1] = flags;
        // Payloads are bounded far below 4 GiB.
        bytes[4..8].copy_from_slice(&(self.length as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&timestamp_us.to_le_bytes());
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Self, Malformed> {
        let word = |range: core::ops::Range<usize>| bytes[range].try_into().map_err(|_| Malformed);
        let flags = bytes[1];
        let timestamp_us = i64::from_le_bytes(bytes[8..16].try_into().map_err(|_| Malformed)?);
        let kind = match (bytes[0], flags, timestamp_us) {
            (OPEN, 0, 0) => Kind::Open,
            (ACCESS_UNIT, 0..=7, _) => {
                Kind::AccessUnit { key: flags & KEY != 0, gap: flags & GAP != 0, intra: flags & INTRA != 0, timestamp_us }
            }
            (STATE, 0..=1, 0) => Kind::State { playing: flags & KEY != 0 },
            _ => return Err(Malformed),
        };
        let length = u32::from_le_bytes(word(4..8)?) as usize;
        let empty_allowed = matches!(kind, Kind::State { .. });
        if bytes[2..4] != [0, 0] || length > kind.maximum() || (length == 0 && !empty_allowed) {
            return Err(Malformed);
        }
        Ok(Header { kind, length })
    }
}

/// Bytes of a report.
pub const REPORT: usize = 16;

/// What came of the access units: sent by `decoder` with the first picture and when their size changes, and at most twice
/// a second otherwise. Little endian: pictures, width, height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Pictures decoded and offered to clients since the connection began.
    pub pictures: u64,
    /// Pixels of the last one, after cropping.
    pub width: u32,
    /// Pixels of the last one, after cropping.
    pub height: u32,
}

impl Report {
    /// To bytes.
    pub fn encode(&self) -> [u8; REPORT] {
        let mut bytes = [0; REPORT];
        bytes[..8].copy_from_slice(&self.pictures.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.width.to_le_bytes());
        bytes[12..].copy_from_slice(&self.height.to_le_bytes());
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; REPORT]) -> Self {
        let [pictures @ .., w0, w1, w2, w3, h0, h1, h2, h3] = *bytes;
        Report {
            pictures: u64::from_le_bytes(pictures),
            width: u32::from_le_bytes([w0, w1, w2, w3]),
            height: u32::from_le_bytes([h0, h1, h2, h3]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_comes_back_as_it_was() {
        let mut kinds = vec![Kind::Open, Kind::State { playing: true }, Kind::State { playing: false }];
        for flags in 0..8 {
            let (key, gap, intra) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            kinds.push(Kind::AccessUnit { key, gap, intra, timestamp_us: -5 });
            kinds.push(Kind::AccessUnit { key, gap, intra, timestamp_us: i64::MAX });
        }
        for kind in kinds {
            for length in [1, kind.maximum()] {
                let header = Header::new(kind, &vec![0; length]).unwrap();
                assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
            assert_eq!(Header::new(kind, &vec![0; kind.maximum() + 1]), Err(Malformed));
            let beyond = Header { kind, length: kind.maximum() + 1 };
            assert_eq!(Header::decode(&beyond.encode()), Err(Malformed));
        }
    }

    #[test]
    fn reports_come_back_as_they_were() {
        let report = Report { pictures: u64::MAX - 1, width: 318, height: 244 };
        assert_eq!(Report::decode(&report.encode()), report);
    }

    #[test]
    fn what_is_not_a_header_is_refused() {
        let good = Header::new(Kind::Open, b"camera").unwrap().encode();
        for (at, value) in [(0, 0), (0, 4), (1, 1), (2, 1), (3, 1), (7, 1), (8, 1)] {
            let mut bytes = good;
            bytes[at] = value;
            assert_eq!(Header::decode(&bytes), Err(Malformed), "byte {at} = {value}");
        }
        assert_eq!(Header::new(Kind::Open, b""), Err(Malformed));
        assert!(Header::new(Kind::State { playing: true }, b"").is_ok());
    }
}
