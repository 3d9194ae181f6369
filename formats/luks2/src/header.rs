//! The whole header: two copies, the one that holds, a key slot that opens.

use crate::binary::{self, Defect, Fields, Intact, MAXIMUM_LABEL, Place};
use crate::keyslot::{self, MATERIAL};
use crate::metadata::{self, Digest, Metadata, Slot};
use crate::{HEADER_SIZE, ITERATIONS, Malformed, Passphrase, RECORD_OFFSETS, SLOT_SIZE, TWINS, VolumeKey, WrongKey, secret};
use subtle::ConstantTimeEq;

/// A header that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    fields: Fields,
    metadata: Metadata,
    json: Vec<u8>,
    repair: Option<Place>,
}

/// A copy of the header to write over a damaged or outdated one, or a key slot over a lost one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// Bytes from the start of the partition.
    pub offset: u64,
    /// What to write there, [`HEADER_SIZE`] or [`SLOT_SIZE`] bytes.
    pub bytes: Vec<u8>,
}

/// All random bytes of a new header. Wiped when dropped: the stripes protect a destroyed key slot.
pub struct Randomness {
    uuid: [u8; 16],
    salts: [[u8; 64]; 2],
    slot_salts: [[u8; 32]; TWINS],
    digest_salt: [u8; 32],
    stripes: zeroize::Zeroizing<Vec<u8>>,
}

impl Randomness {
    /// Takes them from `fill`, such as the kernel's random numbers; it is asked several times.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn fill<E>(mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Randomness, E> {
        let mut random = Randomness {
            uuid: [0; 16],
            salts: [[0; 64]; 2],
            slot_salts: [[0; 32]; TWINS],
            digest_salt: [0; 32],
            stripes: vec![0; TWINS * MATERIAL].into(),
        };
        let ([first, second], slots) = (&mut random.salts, random.slot_salts.as_flattened_mut());
        let parts: [&mut [u8]; 6] = [&mut random.uuid, first, second, slots, &mut random.digest_salt, &mut random.stripes];
        for part in parts {
            fill(part)?;
        }
        // RFC 9562, 5.4: version 4, variant 10.
        random.uuid[6] = random.uuid[6] & 0x0f | 0x40;
        random.uuid[8] = random.uuid[8] & 0x3f | 0x80;
        Ok(random)
    }
}

impl std::fmt::Debug for Randomness {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Randomness(hidden)")
    }
}

impl Header {
    /// Reads the header from the first bytes of a partition, [`DATA_OFFSET`](crate::DATA_OFFSET) of them (at least both
    /// copies, 32 KiB).
    ///
    /// 1. Of the copies with a right checksum the one with the higher sequence number holds (spec 2.3).
    /// 2. Its content must be of the profile. An older copy is no way out: it may name a key slot that was revoked.
    /// 3. When the other copy is damaged or older, [`repair`](Self::repair) says what to write over it.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn decode(area: &[u8]) -> Result<Header, Malformed> {
        if area.len() < 2 * HEADER_SIZE {
            return Err(Malformed::Short(area.len()));
        }
        let (first, second) = (binary::read(area, Place::Primary), binary::read(area, Place::Secondary));
        let (copy, place, repair) = match (&first, &second) {
            (Ok(first), Ok(second)) if first.sequence() == second.sequence() => {
                if !same(first, second) {
                    return Err(Malformed::Contradiction);
                }
                (first, Place::Primary, false)
            }
            (Ok(first), Ok(second)) if first.sequence() > second.sequence() => (first, Place::Primary, true),
            (_, Ok(second)) => (second, Place::Secondary, true),
            (Ok(first), Err(_)) => (first, Place::Primary, true),
            (Err(Defect::Absent), Err(Defect::Absent)) => return Err(Malformed::Absent),
            (Err(first), Err(second)) => {
                return Err(Malformed::Damaged { first: first.to_string(), second: second.to_string() });
            }
        };
        let fields = copy.fields().map_err(Malformed::NotUnderstood)?;
        let metadata = metadata::parse(copy.json()).map_err(Malformed::NotUnderstood)?;
        let repair = repair.then(|| place.other());
        Ok(Header { fields, metadata, json: copy.json().to_vec(), repair })
    }

    /// A new header with [`TWINS`] key slots for the one passphrase: the first [`RECORD_OFFSETS`]`[0]` bytes of a partition,
    /// all that comes before our volume record. They replace whatever was there, old key slots too. Labels are cut to 47 bytes.
    pub fn create(label: &str, passphrase: &Passphrase, key: &VolumeKey, random: &Randomness) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_OFFSETS[0] as usize];
        let mut slots = Vec::new();
        for (number, (salt, stripes)) in (0..).zip(random.slot_salts.iter().zip(random.stripes.chunks_exact(MATERIAL))) {
            let offset = 2 * HEADER_SIZE + usize::from(number) * SLOT_SIZE;
            let slot = Slot { number, offset, salt: salt.to_vec(), iterations: ITERATIONS };
            let area = &mut bytes[offset..offset + MATERIAL];
            area.copy_from_slice(stripes);
            keyslot::seal(area, key, passphrase, &slot.salt, slot.iterations);
            slots.push(slot);
        }
        let mut digest = vec![0; 32];
        keyslot::derive(key.bytes(), &random.digest_salt, ITERATIONS, &mut digest);
        let digest = Digest { salt: random.digest_salt.to_vec(), iterations: ITERATIONS, digest };
        let json = metadata::write(&Metadata { slots, digest });
        let mut length = label.len().min(MAXIMUM_LABEL);
        while !label.is_char_boundary(length) {
            length -= 1;
        }
        for (place, salt) in [Place::Primary, Place::Secondary].into_iter().zip(random.salts) {
            let (label, uuid) = (label[..length].to_owned(), binary::uuid_text(random.uuid));
            let copy = binary::write(place, &Fields { sequence: 1, label, uuid, salt }, &json);
            bytes[place.offset()..place.offset() + HEADER_SIZE].copy_from_slice(&copy);
        }
        bytes
    }

    /// Tries the key slots one after another; `area` is what [`decode`](Self::decode) was given, with the key slots.
    ///
    /// # Errors
    /// No key slot opens, or `area` ends before them.
    pub fn unlock(&self, area: &[u8], passphrase: &Passphrase) -> Result<VolumeKey, WrongKey> {
        Ok(self.unlock_by(area, passphrase)?.0)
    }

    /// The same, and the number of the key slot that opened.
    ///
    /// # Errors
    /// Those of [`unlock`](Self::unlock).
    pub fn unlock_by(&self, area: &[u8], passphrase: &Passphrase) -> Result<(VolumeKey, u8), WrongKey> {
        let open = |slot: &Slot| Some((self.open(slot, area, passphrase)?, slot.number));
        self.metadata.slots.iter().find_map(open).ok_or(WrongKey)
    }

    /// Numbers of the twins, the key slots below [`TWINS`], that do not open with the passphrase, although `opened` did:
    /// lost to a bad block or an altered byte. What is written over one is [`renewed_slot`](Self::renewed_slot).
    pub fn lost_slots(&self, area: &[u8], passphrase: &Passphrase, opened: u8) -> Vec<u8> {
        let twins = self.metadata.slots.iter().filter(|slot| usize::from(slot.number) < TWINS && slot.number != opened);
        twins.filter(|slot| self.open(slot, area, passphrase).is_none()).map(|slot| slot.number).collect()
    }

    /// A key slot's area anew, for the salt that the header names; the header itself stays as it is. `fill` gives random
    /// bytes. Nothing where there is no such key slot.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn renewed_slot<E>(
        &self,
        number: u8,
        passphrase: &Passphrase,
        key: &VolumeKey,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Repair>, E> {
        let Some(slot) = self.metadata.slots.iter().find(|slot| slot.number == number) else { return Ok(None) };
        let mut bytes = vec![0; SLOT_SIZE];
        fill(&mut bytes[..MATERIAL])?;
        keyslot::seal(&mut bytes[..MATERIAL], key, passphrase, &slot.salt, slot.iterations);
        Ok(Some(Repair { offset: slot.offset as u64, bytes }))
    }

    fn open(&self, slot: &Slot, area: &[u8], passphrase: &Passphrase) -> Option<VolumeKey> {
        let material = area.get(slot.offset..)?.first_chunk::<MATERIAL>()?;
        let key = keyslot::open(material, passphrase, &slot.salt, slot.iterations);
        let mut digest = [0; 32];
        keyslot::derive(key.bytes(), &self.metadata.digest.salt, self.metadata.digest.iterations, &mut digest);
        let right = digest[..].ct_eq(&self.metadata.digest.digest[..]).into();
        secret::wipe(&mut digest);
        if right { Some(key) } else { None }
    }

    /// What to write, and where, when one copy is damaged or older than the other; then flush and read again.
    pub fn repair(&self) -> Option<Repair> {
        let place = self.repair?;
        // A copy's salt only makes its checksum differ from the other copy's.
        let mut salt = [0; 64];
        keyslot::derive(&self.fields.salt, b"the other copy", 1, &mut salt);
        let fields = Fields { salt, ..self.fields.clone() };
        let end = self.json.iter().position(|&byte| byte == 0).unwrap_or(self.json.len());
        Some(Repair { offset: place.offset() as u64, bytes: binary::write(place, &fields, &self.json[..end]) })
    }

    /// The volume's identity.
    pub fn uuid(&self) -> [u8; 16] {
        // `decode` took no other text.
        binary::parse_uuid(&self.fields.uuid).unwrap_or_default()
    }

    /// The volume's name, such as `belvedere-data`.
    pub fn label(&self) -> &str {
        &self.fields.label
    }

    /// Grows with every change of the header.
    pub fn sequence(&self) -> u64 {
        self.fields.sequence
    }

    /// Where the key slots in use lie: bytes from the start of the partition, each [`SLOT_SIZE`] bytes long.
    pub fn slots(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        self.metadata.slots.iter().map(|slot| slot.offset as u64..(slot.offset + SLOT_SIZE) as u64)
    }
}

/// Whether two intact copies say the same; their salts differ.
fn same(first: &Intact<'_>, second: &Intact<'_>) -> bool {
    let said = |copy: &Intact<'_>| copy.fields().map(|fields| (fields.label, fields.uuid));
    first.json() == second.json() && said(first) == said(second)
}
