//! The JSON area (spec 3), as far as the profile goes. Whatever else is in it is an error that names it: every algorithm
//! has one name that is understood, and no member may be unknown.
//!
//! Bounds: the text has at most 12 KiB, maps have at most as many members as the profile, and its depth is that of these
//! types, because an unknown member is refused before its value is looked at.

use crate::binary::JSON_AREA;
use crate::{DATA_OFFSET, HEADER_SIZE, ITERATIONS, KEY_SIZE, MAXIMUM_ITERATIONS, RECORD_OFFSETS, SECTOR, SLOT_SIZE, SLOTS};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Key slot numbers are below this (spec 3.2).
const MAXIMUM_NUMBER: u8 = 32;
/// How much of a parser's words is passed on: they quote bytes from outside.
const MAXIMUM_WORDS: usize = 200;
/// Longest salt, bytes; `cryptsetup` writes 32.
const MAXIMUM_SALT: usize = 64;

/// Text of the JSON area, and what the profile leaves open in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) slots: Vec<Slot>,
    pub(crate) digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) number: u8,
    /// Bytes from the start of the partition; [`SLOT_SIZE`] bytes from there lie in the key slots' room.
    pub(crate) offset: usize,
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
    pub(crate) digest: Vec<u8>,
}

/// Declares an enumeration of one name: what else stands there is refused by name.
macro_rules! only {
    ($($type:ident = $name:literal),* $(,)?) => { $(
        #[derive(Serialize, Deserialize)]
        enum $type {
            #[serde(rename = $name)]
            This,
        }
    )* };
}

only! {
    Luks2 = "luks2",
    Luks1 = "luks1",
    Raw = "raw",
    Crypt = "crypt",
    Pbkdf2 = "pbkdf2",
    HashSha256 = "sha256",
    AesXtsPlain64 = "aes-xts-plain64",
    Dynamic = "dynamic",
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    keyslots: Numbered<JsonSlot, SLOTS>,
    tokens: Numbered<String, 0>,
    segments: Numbered<JsonSegment, 1>,
    digests: Numbered<JsonDigest, 1>,
    config: JsonConfig,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSlot {
    r#type: Luks2,
    key_size: usize,
    af: JsonSplitter,
    area: JsonArea,
    kdf: JsonDerivation,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSplitter {
    r#type: Luks1,
    stripes: usize,
    hash: HashSha256,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonArea {
    r#type: Raw,
    offset: Decimal,
    size: Decimal,
    encryption: AesXtsPlain64,
    key_size: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonDerivation {
    r#type: Pbkdf2,
    hash: HashSha256,
    iterations: u32,
    salt: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSegment {
    r#type: Crypt,
    offset: Decimal,
    size: Dynamic,
    iv_tweak: Decimal,
    encryption: AesXtsPlain64,
    sector_size: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonDigest {
    r#type: Pbkdf2,
    keyslots: Vec<Decimal>,
    segments: Vec<Decimal>,
    hash: HashSha256,
    iterations: u32,
    salt: Base64,
    digest: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonConfig {
    json_size: Decimal,
    keyslots_size: Decimal,
}

/// A number as decimal digits in a string (spec 3: JSON's own are not exact above 2^53).
#[derive(PartialEq)]
struct Decimal(u64);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = text.parse().ok().filter(|value: &u64| value.to_string() == text);
        value.map(Decimal).ok_or_else(|| D::Error::custom("a number was expected in a string"))
    }
}

struct Base64(Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Base64).map_err(|_| D::Error::custom("Base64 was expected"))
    }
}

/// An object whose members are numbers; at most `MOST`, none twice.
struct Numbered<T, const MOST: usize>(Vec<(u8, T)>);

impl<T: Serialize, const MOST: usize> Serialize for Numbered<T, MOST> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (number, value) in &self.0 {
            map.serialize_entry(&Decimal(u64::from(*number)), value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Numbered<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T, const MOST: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Members<T, MOST> {
            type Value = Numbered<T, MOST>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(formatter, "an object with at most {MOST} numbered members")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(u8, T)> = Vec::new();
                while let Some(Decimal(key)) = map.next_key()? {
                    let number = u8::try_from(key).ok().filter(|number| *number < MAXIMUM_NUMBER);
                    let number = number.ok_or_else(|| A::Error::custom(format_args!("{key} is no number of a member")))?;
                    if members.len() >= MOST {
                        let most = format_args!("more than {MOST} key slots, tokens, segments or digests of a kind");
                        return Err(A::Error::custom(most));
                    }
                    if members.iter().any(|(other, _)| *other == number) {
                        return Err(A::Error::custom(format_args!("member {number} is there twice")));
                    }
                    members.push((number, map.next_value()?));
                }
                Ok(Numbered(members))
            }
        }
        deserializer.deserialize_map(Members(std::marker::PhantomData))
    }
}

/// Refuses with words unless something is so.
fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Reads a JSON area, which NULs fill up; says in words what is not of the profile.
pub(crate) fn parse(area: &[u8]) -> Result<Metadata, String> {
    let end = area.iter().position(|&byte| byte == 0).ok_or("its JSON has no end")?;
    let (text, rest) = area.split_at(end);
    must(rest.iter().all(|&byte| byte == 0), || "there is something behind its JSON".into())?;
    let document: Document = serde_json::from_slice(text).map_err(|error| {
        let words = error.to_string();
        words.chars().take(MAXIMUM_WORDS).collect::<String>()
    })?;
    let room = check_config(&document.config)?;
    let [(0, segment)] = &document.segments.0[..] else { return Err("it has not exactly one segment, number 0".into()) };
    must((segment.offset.0, segment.iv_tweak.0) == (DATA_OFFSET, 0), || {
        format!("its data begins at {} with sector number {}", segment.offset.0, segment.iv_tweak.0)
    })?;
    must(segment.sector_size == SECTOR, || format!("its sectors have {} bytes, not {SECTOR}", segment.sector_size))?;
    let mut slots = Vec::new();
    for (number, slot) in &document.keyslots.0 {
        slots.push(check_slot(*number, slot, room).map_err(|words| format!("key slot {number}: {words}"))?);
    }
    for (index, slot) in slots.iter().enumerate() {
        let apart = |other: &Slot| slot.offset.abs_diff(other.offset) >= SLOT_SIZE;
        must(slots[..index].iter().all(apart), || format!("key slot {} lies over another one", slot.number))?;
    }
    let [(0, digest)] = &document.digests.0[..] else { return Err("it has not exactly one digest, number 0".into()) };
    must(digest.segments == [Decimal(0)], || "its digest is not that of the segment".into())?;
    let named = |number: u8| digest.keyslots.contains(&Decimal(u64::from(number)));
    must(digest.keyslots.len() == slots.len() && slots.iter().all(|slot| named(slot.number)), || {
        "its digest is not that of its key slots".into()
    })?;
    check_derivation(digest.iterations, &digest.salt).map_err(|words| format!("the digest: {words}"))?;
    must(digest.digest.0.len() == 32, || format!("its digest has {} bytes, not 32", digest.digest.0.len()))?;
    let digest = Digest { salt: digest.salt.0.clone(), iterations: digest.iterations, digest: digest.digest.0.clone() };
    Ok(Metadata { slots, digest })
}

/// Where the key slots' room ends, bytes from the start of the partition.
fn check_config(config: &JsonConfig) -> Result<u64, String> {
    must(config.json_size.0 == JSON_AREA as u64, || format!("its JSON area has {} bytes", config.json_size.0))?;
    let size = config.keyslots_size.0;
    let end = size.checked_add(2 * HEADER_SIZE as u64).filter(|end| *end <= RECORD_OFFSETS[0] && size.is_multiple_of(4096));
    end.ok_or_else(|| format!("its key slots have {size} bytes, which do not fit before our record"))
}

fn check_slot(number: u8, slot: &JsonSlot, room: u64) -> Result<Slot, String> {
    must(slot.key_size == KEY_SIZE && slot.area.key_size == KEY_SIZE, || {
        format!("its keys have {} and {} bytes, not {KEY_SIZE}", slot.key_size, slot.area.key_size)
    })?;
    must(slot.af.stripes == crate::keyslot::STRIPES, || format!("it has {} stripes", slot.af.stripes))?;
    let (offset, size) = (slot.area.offset.0, slot.area.size.0);
    let inside = offset >= 2 * HEADER_SIZE as u64
        && offset.is_multiple_of(4096)
        && size == SLOT_SIZE as u64
        && offset.checked_add(size).is_some_and(|end| end <= room);
    must(inside, || format!("its area of {size} bytes at {offset} is not in the key slots' room"))?;
    check_derivation(slot.kdf.iterations, &slot.kdf.salt)?;
    let offset = usize::try_from(offset).map_err(|_| "its area is too far away")?;
    Ok(Slot { number, offset, salt: slot.kdf.salt.0.clone(), iterations: slot.kdf.iterations })
}

fn check_derivation(iterations: u32, salt: &Base64) -> Result<(), String> {
    must((ITERATIONS..=MAXIMUM_ITERATIONS).contains(&iterations), || {
        format!("{iterations} iterations are not between {ITERATIONS} and {MAXIMUM_ITERATIONS}")
    })?;
    must((16..=MAXIMUM_SALT).contains(&salt.0.len()), || format!("a salt of {} bytes", salt.0.len()))
}

/// The JSON text of our profile.
pub(crate) fn write(metadata: &Metadata) -> Vec<u8> {
    let slot = |slot: &Slot| JsonSlot {
        r#type: Luks2::This,
        key_size: KEY_SIZE,
        af: JsonSplitter { r#type: Luks1::This, stripes: crate::keyslot::STRIPES, hash: HashSha256::This },
        area: JsonArea {
            r#type: Raw::This,
            offset: Decimal(slot.offset as u64),
            size: Decimal(SLOT_SIZE as u64),
            encryption: AesXtsPlain64::This,
            key_size: KEY_SIZE,
        },
        kdf: JsonDerivation {
            r#type: Pbkdf2::This,
            hash: HashSha256::This,
            iterations: slot.iterations,
            salt: Base64(slot.salt.clone()),
        },
    };
    let segment = JsonSegment {
        r#type: Crypt::This,
        offset: Decimal(DATA_OFFSET),
        size: Dynamic::This,
        iv_tweak: Decimal(0),
        encryption: AesXtsPlain64::This,
        sector_size: SECTOR,
    };
    let digest = JsonDigest {
        r#type: Pbkdf2::This,
        keyslots: metadata.slots.iter().map(|slot| Decimal(u64::from(slot.number))).collect(),
        segments: vec![Decimal(0)],
        hash: HashSha256::This,
        iterations: metadata.digest.iterations,
        salt: Base64(metadata.digest.salt.clone()),
        digest: Base64(metadata.digest.digest.clone()),
    };
    let document = Document {
        keyslots: Numbered(metadata.slots.iter().map(|each| (each.number, slot(each))).collect()),
        tokens: Numbered(Vec::new()),
        segments: Numbered(vec![(0, segment)]),
        digests: Numbered(vec![(0, digest)]),
        config: JsonConfig { json_size: Decimal(JSON_AREA as u64), keyslots_size: Decimal((SLOTS * SLOT_SIZE) as u64) },
    };
    // These types have nothing that serde_json refuses: keys are strings, and there are no floating-point numbers.
    serde_json::to_vec(&document).unwrap_or_default()
}
