//! Damaged and lying headers.

use belvedere_luks2::{DATA_OFFSET, HEADER_SIZE, Header, ITERATIONS, MAXIMUM_ITERATIONS, Malformed, Passphrase};
use belvedere_luks2::{RECORD_OFFSETS, Randomness, SLOT_SIZE, TWINS, VolumeKey};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

const BINARY: usize = 4096;

fn fill(value: u8) -> impl FnMut(&mut [u8]) -> Result<(), std::convert::Infallible> {
    let mut next = value;
    move |bytes| {
        for byte in bytes {
            next = next.wrapping_mul(5).wrapping_add(73);
            *byte = next;
        }
        Ok(())
    }
}

fn passphrase() -> Passphrase {
    Passphrase::new(b"the passphrase".to_vec())
}

/// A good header area of 1 MiB.
fn area() -> &'static [u8] {
    static AREA: OnceLock<Vec<u8>> = OnceLock::new();
    AREA.get_or_init(|| {
        let Ok(key) = VolumeKey::fill(fill(1));
        let Ok(random) = Randomness::fill(fill(2));
        let mut bytes = Header::create("label", &passphrase(), &key, &random);
        assert_eq!(bytes.len() as u64, RECORD_OFFSETS[0]);
        bytes.resize(DATA_OFFSET as usize, 0);
        bytes
    })
}

fn seal(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let checksum = Sha256::digest(&copy[..HEADER_SIZE]);
    copy[448..480].copy_from_slice(&checksum);
}

fn seal_both(area: &mut [u8]) {
    seal(&mut area[..HEADER_SIZE]);
    seal(&mut area[HEADER_SIZE..2 * HEADER_SIZE]);
}

fn json() -> String {
    let text = &area()[BINARY..HEADER_SIZE];
    String::from_utf8(text.iter().copied().take_while(|&byte| byte != 0).collect()).unwrap()
}

/// The good header with another JSON text in both copies.
fn with_json(text: &str) -> Vec<u8> {
    let mut bytes = area().to_vec();
    for start in [0, HEADER_SIZE] {
        let room = &mut bytes[start + BINARY..start + HEADER_SIZE];
        room.fill(0);
        room[..text.len()].copy_from_slice(text.as_bytes());
    }
    seal_both(&mut bytes);
    bytes
}

#[test]
fn what_is_created_is_read_and_opened() {
    let header = Header::decode(area()).unwrap();
    assert_eq!((header.label(), header.sequence(), header.repair()), ("label", 1, None));
    let slots: Vec<_> = header.slots().map(|slot| (slot.start, slot.end)).collect();
    let end = |slots: u64| 32768 + slots * SLOT_SIZE as u64;
    assert_eq!(slots, [(32768, end(1)), (end(1), end(2))]);
    assert_eq!((header.uuid()[6] >> 4, header.uuid()[8] >> 6), (4, 2));
    let Ok(key) = VolumeKey::fill(fill(1));
    assert_eq!(header.unlock(area(), &passphrase()).unwrap().bytes(), key.bytes());
    assert!(header.unlock(area(), &Passphrase::new(b"the passphrasf".to_vec())).is_err());
    assert!(header.unlock(&area()[..2 * HEADER_SIZE + SLOT_SIZE - 4096], &passphrase()).is_err());
    // Key slots of which each has one wrong byte, the first, the last, open nothing.
    for at in [32768, 32768 + 100_000, 32768 + 255_999] {
        let mut damaged = area().to_vec();
        damaged[at] ^= 1;
        damaged[at + SLOT_SIZE] ^= 1;
        assert!(header.unlock(&damaged, &passphrase()).is_err(), "byte {at}");
    }
}

/// One altered byte of the one key slot was the end of everything in a volume whose header and record are kept twice.
#[test]
fn with_one_key_slot_altered_or_gone_the_other_opens_and_the_lost_one_is_made_anew() {
    let header = Header::decode(area()).unwrap();
    let key = header.unlock(area(), &passphrase()).unwrap();
    assert!(header.lost_slots(area(), &passphrase(), 0).is_empty());
    let salts = json().matches("\"salt\":").count();
    let different: std::collections::BTreeSet<String> =
        json().split("\"salt\":").skip(1).map(|rest| rest[..46].into()).collect();
    assert_eq!(different.len(), salts, "two salts are alike");
    for number in 0..TWINS as u8 {
        let start = 32768 + usize::from(number) * SLOT_SIZE;
        let alterations = [start..start + 1, start + 100_000..start + 100_001, start + 255_999..start + 256_000];
        // A bad block reads as zeros.
        for range in alterations.into_iter().chain([start + 4096..start + 8192, start..start + SLOT_SIZE]) {
            let mut bytes = area().to_vec();
            let one = range.len() == 1;
            bytes[range.clone()].iter_mut().for_each(|byte| *byte = if one { *byte ^ 1 } else { 0 });
            let (found, opened) = header.unlock_by(&bytes, &passphrase()).unwrap();
            assert_eq!((found.bytes(), opened), (key.bytes(), 1 - number), "{range:?}");
            assert_eq!(header.lost_slots(&bytes, &passphrase(), opened), [number], "{range:?}");
            let Ok(renewed) = header.renewed_slot(number, &passphrase(), &found, fill(9));
            let renewed = renewed.unwrap();
            assert_eq!((renewed.offset, renewed.bytes.len()), (start as u64, SLOT_SIZE));
            bytes[start..start + SLOT_SIZE].copy_from_slice(&renewed.bytes);
            assert!(header.lost_slots(&bytes, &passphrase(), opened).is_empty());
            // It opens by itself.
            let other = 32768 + usize::from(opened) * SLOT_SIZE;
            bytes[other..other + SLOT_SIZE].fill(0);
            assert_eq!(header.unlock(&bytes, &passphrase()).unwrap().bytes(), key.bytes());
        }
    }
    assert_eq!(header.renewed_slot(2, &passphrase(), &key, fill(9)), Ok(None));
}

#[test]
fn every_single_altered_byte_of_a_copy_is_noticed_and_the_other_copy_is_used() {
    let good = Header::decode(area()).unwrap();
    let mut bytes = area()[..2 * HEADER_SIZE].to_vec();
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        let found = Header::decode(&bytes).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        let repair = found.repair().unwrap_or_else(|| panic!("byte {at} was not noticed"));
        assert_eq!(repair.offset, (at / HEADER_SIZE * HEADER_SIZE) as u64, "byte {at}");
        assert_eq!((found.label(), found.uuid()), (good.label(), good.uuid()));
        bytes[at] ^= 1 << (at % 8);
    }
}

#[test]
fn both_copies_damaged_are_no_header() {
    for (first, second) in [(0, 0), (5, 300), (448, 480), (BINARY, BINARY), (HEADER_SIZE - 1, 500)] {
        let mut bytes = area().to_vec();
        bytes[first] ^= 4;
        bytes[HEADER_SIZE + second] ^= 4;
        let error = Header::decode(&bytes).unwrap_err();
        assert!(matches!(error, Malformed::Damaged { .. } | Malformed::Absent), "{first} {second}: {error}");
    }
    assert_eq!(Header::decode(&[0; 40000]), Err(Malformed::Absent));
    assert_eq!(Header::decode(&area()[..2 * HEADER_SIZE - 1]), Err(Malformed::Short(2 * HEADER_SIZE - 1)));
}

#[test]
fn the_newer_copy_holds_and_the_older_is_repaired() {
    for newer in [0, HEADER_SIZE] {
        let mut bytes = area().to_vec();
        bytes[newer + 23] = 9;
        seal_both(&mut bytes);
        let header = Header::decode(&bytes).unwrap();
        let repair = header.repair().unwrap();
        assert_eq!((header.sequence(), repair.offset), (9, (HEADER_SIZE - newer) as u64));
        bytes[repair.offset as usize..][..HEADER_SIZE].copy_from_slice(&repair.bytes);
        let repaired = Header::decode(&bytes).unwrap();
        assert_eq!((repaired.sequence(), repaired.repair()), (9, None));
        repaired.unlock(&bytes, &passphrase()).unwrap();
    }
}

#[test]
fn copies_of_the_same_age_that_differ_are_refused() {
    let mut bytes = area().to_vec();
    bytes[24] ^= 1;
    seal_both(&mut bytes);
    assert_eq!(Header::decode(&bytes), Err(Malformed::Contradiction));
}

/// An older copy may name a key slot that was revoked.
#[test]
fn a_newer_copy_that_is_not_understood_is_not_passed_over_for_the_older_one() {
    let mut bytes = with_json(&json().replace("\"tokens\":{}", "\"tokens\":{\"0\":{}}"));
    bytes[HEADER_SIZE..2 * HEADER_SIZE].copy_from_slice(&area()[HEADER_SIZE..2 * HEADER_SIZE]);
    bytes[23] = 2;
    seal_both(&mut bytes);
    assert!(matches!(Header::decode(&bytes), Err(Malformed::NotUnderstood(_))));
}

#[test]
fn what_the_metadata_may_not_say_is_refused_in_words() {
    assert_eq!(Header::decode(&with_json(&json())).unwrap(), Header::decode(area()).unwrap());
    let iterations = |count: u64| (format!("\"iterations\":{ITERATIONS}"), format!("\"iterations\":{count}"));
    let (from, few) = iterations(999);
    let (_, many) = iterations(u64::from(MAXIMUM_ITERATIONS) + 1);
    let (_, absurd) = iterations(u64::MAX);
    let slot = &json()[json().find("\"0\":").unwrap() + 4..json().find(",\"1\":").unwrap()];
    let second = |offset: u64| format!("{slot},\"2\":{}", slot.replace("\"32768\"", &format!("\"{offset}\"")));
    for (from, to, words) in [
        ("\"type\":\"luks2\"", "\"type\":\"reencrypt\"", "reencrypt"),
        ("\"type\":\"pbkdf2\"", "\"type\":\"argon2id\"", "argon2id"),
        ("\"hash\":\"sha256\"", "\"hash\":\"sha1\"", "sha1"),
        ("aes-xts-plain64", "aes-xts-plain", "aes-xts-plain"),
        ("\"type\":\"crypt\"", "\"type\":\"linear\"", "linear"),
        (from.as_str(), few.as_str(), "999 iterations"),
        (&from, &many, "iterations"),
        (&from, &absurd, "18446744073709551615"),
        ("\"stripes\":4000", "\"stripes\":1", "1 stripes"),
        ("\"key_size\":64", "\"key_size\":32", "32"),
        ("\"sector_size\":4096", "\"sector_size\":512", "512 bytes"),
        ("\"sector_size\":4096", "\"sector_size\":4096,\"integrity\":{\"type\":\"hmac\"}", "integrity"),
        ("\"offset\":\"1048576\"", "\"offset\":\"1048575\"", "1048575"),
        ("\"size\":\"dynamic\"", "\"size\":\"4096\"", "4096"),
        ("\"iv_tweak\":\"0\"", "\"iv_tweak\":\"1\"", "sector number 1"),
        ("\"offset\":\"32768\"", "\"offset\":\"32769\"", "32769"),
        ("\"offset\":\"32768\"", "\"offset\":\"28672\"", "28672"),
        ("\"offset\":\"32768\"", "\"offset\":\"18446744073709551615\"", "18446744073709551615"),
        ("\"offset\":\"32768\"", "\"offset\":\"18446744073709547520\"", "18446744073709547520"),
        ("\"offset\":\"32768\"", "\"offset\":\"552960\"", "552960"),
        ("\"offset\":\"32768\"", "\"offset\":\"032768\"", "number"),
        ("\"offset\":\"32768\"", "\"offset\":\"-1\"", "number"),
        ("\"size\":\"258048\"", "\"size\":\"258049\"", "258049"),
        ("\"keyslots_size\":\"774144\"", "\"keyslots_size\":\"1048576\"", "before our record"),
        ("\"keyslots_size\":\"774144\"", "\"keyslots_size\":\"18446744073709547520\"", "before our record"),
        ("\"json_size\":\"12288\"", "\"json_size\":\"16384\"", "16384"),
        ("\"keyslots\":[\"0\",\"1\"]", "\"keyslots\":[]", "its key slots"),
        ("\"keyslots\":[\"0\",\"1\"]", "\"keyslots\":[\"1\"]", "its key slots"),
        ("\"segments\":[\"0\"]", "\"segments\":[\"1\"]", "of the segment"),
        ("\"tokens\":{}", "\"tokens\":{\"0\":{\"type\":\"x\"}}", "more than 0"),
        ("\"tokens\":{}", "\"tokens\":{},\"more\":1", "more"),
        ("\"json_size\"", "\"requirements\":{\"mandatory\":[\"online-reencrypt\"]},\"json_size\"", "requirements"),
        ("\"json_size\"", "\"flags\":[\"allow-discards\"],\"json_size\"", "flags"),
        ("{\"keyslots\":{\"0\":", "{\"keyslots\":{\"32\":", "32"),
        ("{\"keyslots\":{\"0\":", "{\"keyslots\":{\"x\":", "number"),
        ("\"af\":{", "\"af\":{},\"af\":{", "missing"),
        ("{\"keyslots\":{", "{\"keyslots\":{\"0\":[[[[[[[", "expected"),
        (slot, &second(32768), "over another"),
        (slot, &second(36864), "over another"),
        (slot, &second(548_864), "its key slots"),
        ("\"segments\":{\"0\"", "\"segments\":{\"1\"", "one segment"),
        ("\"digests\":{\"0\"", "\"digests\":{\"7\"", "one digest"),
    ] {
        assert!(json().contains(from), "{from}");
        // Every place, and the last one alone: what both a slot and the digest say is checked in both.
        let everywhere = json().replace(from, to);
        let at = json().rfind(from).unwrap();
        let last = format!("{}{to}{}", &json()[..at], &json()[at + from.len()..]);
        for text in [everywhere, last] {
            let error = Header::decode(&with_json(&text)).expect_err(to);
            assert!(matches!(error, Malformed::NotUnderstood(_)), "{to}: {error}");
            assert!(error.to_string().contains(words), "{to}: {error}");
        }
    }
    let twice = format!("{slot},\"0\":{slot}");
    let error = Header::decode(&with_json(&json().replace(slot, &twice))).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    // Not one byte behind the text, and an end of it.
    let mut behind = area().to_vec();
    behind[HEADER_SIZE - 1] = b'x';
    behind[2 * HEADER_SIZE - 1] = b'x';
    seal_both(&mut behind);
    assert!(Header::decode(&behind).unwrap_err().to_string().contains("behind its JSON"));
    let endless = json().replace("{\"keyslots\"", &format!("{{{}\"keyslots\"", " ".repeat(12288 - json().len())));
    assert!(Header::decode(&with_json(&endless)).unwrap_err().to_string().contains("no end"));
}

#[test]
fn what_the_binary_header_may_not_say_is_refused_in_words() {
    for (at, words) in
        [(300, "padding"), (600, "padding"), (208, "subsystem"), (171, "UUID"), (30, "label"), (262, "elsewhere")]
    {
        let mut bytes = area().to_vec();
        for start in [0, HEADER_SIZE] {
            bytes[start + at] = 0x7f;
        }
        seal_both(&mut bytes);
        let error = Header::decode(&bytes).unwrap_err();
        assert!(matches!(error, Malformed::NotUnderstood(_)) && error.to_string().contains(words), "byte {at}: {error}");
    }
    for (at, value, words) in
        [(7, 1, "version 1"), (7, 3, "version 3"), (14, 0x80, "32768 bytes"), (72, b'S', "not SHA-256")]
    {
        let mut bytes = area().to_vec();
        bytes[at] = value;
        bytes[HEADER_SIZE + at] = value;
        seal_both(&mut bytes);
        let error = Header::decode(&bytes).unwrap_err();
        assert!(error.to_string().contains(words), "byte {at}: {error}");
    }
}

proptest! {
    #[test]
    fn no_change_with_a_right_checksum_breaks_the_reader(changes in prop::collection::vec((0..2 * HEADER_SIZE, any::<u8>()), 1..6),
        text in 0..700usize, letter in "[\\x20-\\x7f]") {
        let mut bytes = area().to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes[BINARY + text] = letter.as_bytes()[0];
        seal_both(&mut bytes);
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert!(header.slots().all(|slot| slot.start >= 32768 && slot.end <= RECORD_OFFSETS[0]));
        }
    }

    #[test]
    fn labels_of_any_length_are_read_as_far_as_they_fit(label in "\\PC{0,60}") {
        let label = label.replace('\0', "");
        let Ok(key) = VolumeKey::fill(fill(3));
        let Ok(random) = Randomness::fill(fill(4));
        let bytes = Header::create(&label, &passphrase(), &key, &random);
        let header = Header::decode(&bytes).unwrap();
        prop_assert!(label.starts_with(header.label()) && header.label().len() + 4 > label.len().min(47));
    }
}
