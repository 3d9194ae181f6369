//! What is in a board's fuses now: the output of NVIDIA's `odmfuseread.sh`, or the file `fuse_info.txt` that it leaves.
//!
//! Lines of one fuse each, `BootSecurityInfo: 000001e0`, among whatever else the scripts say; and the chip's own number,
//! `BR_CID: 0x…` (when it is spoken to) or `ECID is 0x…`. Every name that is known here must read well; the rest is passed over.

use crate::chip::{Chip, Content, Jetson};
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

/// The most that is read, bytes. A whole run with all its messages has some tens of kilobytes.
pub const LIMIT: usize = 1 << 20;

/// What a fuse was found to hold.
#[derive(Clone, PartialEq, Eq)]
pub enum Found {
    /// Its bytes, the most significant first.
    Open(Vec<u8>),
    /// A key: whether there is one. Its bytes are not kept.
    Secret {
        /// Any bit is set.
        set: bool,
    },
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Open(bytes) => f.write_str(&hex(bytes)),
            Found::Secret { set } => f.write_str(if *set { "a secret" } else { "no secret" }),
        }
    }
}

/// A board's fuses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The chip's number, lower-case hexadecimal digits; nothing when it was not said.
    pub chip_number: Option<String>,
    /// By name; fuses that the program does not read are missing.
    pub fuses: BTreeMap<&'static str, Found>,
}

/// Why an output is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadingError {
    /// More than [`LIMIT`].
    TooLong,
    /// No fuse is in it.
    Nothing,
    /// A fuse does not have the right number of hexadecimal digits.
    Malformed(&'static str),
    /// A fuse is there twice, with different values.
    Twice(&'static str),
    /// Two chips: more than one board is connected.
    TwoBoards,
}

impl fmt::Display for ReadingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadingError::TooLong => write!(f, "the output is longer than {LIMIT} bytes"),
            ReadingError::Nothing => f.write_str("the output holds no fuse: the board was not read"),
            ReadingError::Malformed(name) => write!(f, "{name} does not read as a fuse of its size"),
            ReadingError::Twice(name) => write!(f, "{name} is there twice, with different values"),
            ReadingError::TwoBoards => f.write_str("two chips answered: connect one board alone"),
        }
    }
}

impl std::error::Error for ReadingError {}

/// Reads an output.
///
/// # Errors
/// When it says anything that is not clear. A fuse that it does not name is no error here; [`crate::plan`] knows which it needs.
pub fn parse(chip: Jetson, output: &[u8]) -> Result<Reading, ReadingError> {
    if output.len() > LIMIT {
        return Err(ReadingError::TooLong);
    }
    let mut reading = Reading::default();
    for line in output.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| std::str::from_utf8(line).ok()) {
        if let Some(number) = chip_number(line) {
            if reading.chip_number.replace(number.clone()).is_some_and(|before| before != number) {
                return Err(ReadingError::TwoBoards);
            }
            continue;
        }
        let Some((name, value)) = line.trim().split_once(':') else { continue };
        let Some(fuse) = chip.fuses().iter().find(|fuse| fuse.name == name) else { continue };
        let bytes = bytes_of(value.trim(), fuse.size).ok_or(ReadingError::Malformed(fuse.name))?;
        let found = match fuse.content {
            Content::Open => Found::Open(bytes.to_vec()),
            Content::Secret => Found::Secret { set: bytes.iter().any(|byte| *byte != 0) },
        };
        if reading.fuses.insert(fuse.name, found.clone()).is_some_and(|before| before != found) {
            return Err(ReadingError::Twice(fuse.name));
        }
    }
    if reading.fuses.is_empty() { Err(ReadingError::Nothing) } else { Ok(reading) }
}

fn chip_number(line: &str) -> Option<String> {
    let (_, after) = line.split_once("BR_CID: 0x").or_else(|| line.split_once("ECID is 0x"))?;
    let digits = after.trim_end();
    let right = (16..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    right.then(|| digits.to_ascii_lowercase())
}

fn bytes_of(text: &str, size: usize) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if digits.len() != size * 2 {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    for pair in digits.chunks(2) {
        let [high, low] = pair else { return None };
        let digit = |letter: &u8| char::from(*letter).to_digit(16);
        bytes.push((digit(high)? << 4 | digit(low)?) as u8);
    }
    Some(bytes)
}

/// Hexadecimal digits, lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Reading {
    /// A fuse of four bytes.
    pub fn word(&self, name: &str) -> Option<u32> {
        match self.fuses.get(name)? {
            Found::Open(bytes) => bytes.as_slice().try_into().ok().map(u32::from_be_bytes),
            Found::Secret { .. } => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As the field shows it (forums.developer.nvidia.com, 368604 and 325198), without its key.
    pub(crate) const NEW_ORIN: &str = include_str!("../fixtures/new-orin.txt");

    #[test]
    fn the_output_of_a_new_board_is_read() {
        let reading = parse(Jetson::Orin, NEW_ORIN.as_bytes()).unwrap();
        assert_eq!(reading.chip_number.as_deref(), Some("80012344705df1172c0000000d020080"));
        assert_eq!(reading.word("BootSecurityInfo"), Some(0x1e0));
        assert_eq!(reading.fuses["PublicKeyHash"], Found::Open(vec![0; 64]));
        assert_eq!(reading.fuses["OdmId"], Found::Open(vec![0; 8]));
        assert_eq!(reading.fuses.len(), 17);
    }

    #[test]
    fn a_secret_is_not_kept() {
        let text = format!("SecureBootKey: {}\nKek2: {}\n", "ab".repeat(16), "0".repeat(32));
        let reading = parse(Jetson::Xavier, text.as_bytes()).unwrap();
        assert_eq!(reading.fuses["SecureBootKey"], Found::Secret { set: true });
        assert_eq!(reading.fuses["Kek2"], Found::Secret { set: false });
        assert!(!format!("{reading:?}").contains("abab"));
    }

    #[test]
    fn whatever_is_not_clear_is_refused() {
        let read = |text: &str| parse(Jetson::Orin, text.as_bytes()).unwrap_err();
        assert_eq!(read("nothing of the kind\n"), ReadingError::Nothing);
        assert_eq!(read("Error: read fuse info failed.\n"), ReadingError::Nothing);
        for wrong in ["", "0", "000000001", "0000000g", "0x0000", "00000000 00000000"] {
            assert_eq!(read(&format!("SecurityMode: {wrong}\n")), ReadingError::Malformed("SecurityMode"), "{wrong}");
        }
        assert_eq!(read("OdmLock: 00000000\nOdmLock: 00000001\n"), ReadingError::Twice("OdmLock"));
        assert!(parse(Jetson::Orin, b"OdmLock: 00000000\nOdmLock: 00000000\n").is_ok());
        let two =
            "BR_CID: 0x80012344705DF1172C0000000D020080\nECID is 0x80012344705DF1172C0000000D020081\nOdmLock: 00000000\n";
        assert_eq!(read(two), ReadingError::TwoBoards);
        assert_eq!(parse(Jetson::Orin, &vec![b'\n'; LIMIT + 1]), Err(ReadingError::TooLong));
        assert_eq!(parse(Jetson::Orin, &vec![b'\n'; LIMIT]), Err(ReadingError::Nothing));
    }
}
