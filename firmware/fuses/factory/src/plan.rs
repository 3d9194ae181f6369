//! What is burned: pure, from what is in the fuses and what is wanted.
//!
//! 1. A fuse bit goes from 0 to 1 and never back: what is there stays, and is part of what is burned.
//! 2. Numbers (a key's hash, the signature scheme) cannot be burned over another number: refused.
//! 3. `BootSecurityInfo` keeps the bits that are set already. New Orin modules come with `0x1e0`; who burns `0x209` over it
//!    gets an error after the key's hash is burned, and half a board.
//! 4. Encryption is not switched on without an SBK, nor the OEM keys' flag without the key.
//! 5. The level: 64 bits in two fuses, the lowest n set at level n, as in the TPM. Never lower, never something between.
//! 6. A level's fuse that `OdmLock` froze cannot be raised.
//! 7. `SecurityMode` comes last. Where it is set already, nothing but the level may still change.
//! 8. A fuse that must be known and was not read is a refusal, not a guess.
//! 9. Without a reading there is a plan to look at, which nothing lets burn ([`Plan::chip_number`] is missing).

use crate::chip::{Chip, Content, FuseKind, Jetson, LEVEL, kind};
use crate::reading::{Found, Reading, hex};
use crate::secret::Secret;
use belvedere_tpm::layout::{HIGHEST_LEVEL, level_bits, level_of};
use std::fmt;

/// What a board shall become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its generation.
    pub chip: Jetson,
    /// Hashes of the firmware signing keys, one for each of [`Chip::key_hash_fuses`].
    pub key_hashes: Vec<Vec<u8>>,
    /// SBK: encrypt the firmware, too.
    pub secure_boot_key: Option<Secret>,
    /// The key that wraps OP-TEE's.
    pub oem_key: Option<Secret>,
    /// Rollback level, 0 to [`HIGHEST_LEVEL`].
    pub level: u32,
    /// The owner's own number for the board.
    pub odm_id: Option<u64>,
    /// Close the debug port.
    pub close_debug: bool,
    /// Burn `SecurityMode`: no other fuse can be burned after that.
    pub close: bool,
}

/// A value to burn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The most significant byte first.
    Open(Vec<u8>),
    /// A key.
    Secret(Secret),
}

/// One fuse of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub fuse: &'static FuseKind,
    /// What is in it; nothing when it was not read.
    pub now: Option<Found>,
    /// What is to be in it.
    pub after: Value,
}

impl Row {
    /// Whether there is something to burn. A secret whose fuse cannot be read is burned again: the same bits change nothing.
    pub fn burns(&self) -> bool {
        match (&self.now, &self.after) {
            (Some(Found::Open(now)), Value::Open(after)) => now != after,
            (Some(Found::Secret { set }), Value::Secret(_)) => !set,
            _ => true,
        }
    }
}

/// What is burned, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The board's generation.
    pub chip: Jetson,
    /// The board's own number, if it was read.
    pub chip_number: Option<String>,
    /// The fuses that matter, those that need no burning included.
    pub rows: Vec<Row>,
    /// Level now; nothing when it was not read.
    pub level_now: Option<u32>,
    /// Level to come.
    pub level_after: u32,
}

impl Plan {
    /// The rows to burn, in order.
    pub fn to_burn(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.burns())
    }

    /// Whether the board gets closed by this.
    pub fn closes(&self) -> bool {
        self.to_burn().any(|row| row.fuse.name == "SecurityMode")
    }

    /// All secrets that it names.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.rows.iter().filter_map(|row| match &row.after {
            Value::Secret(secret) => Some(secret),
            Value::Open(_) => None,
        })
    }
}

/// Why a board is not burned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The wish itself is wrong.
    Wish(&'static str),
    /// A fuse was not read.
    NotRead(&'static str),
    /// The fuse has another key's hash.
    OtherKey(&'static str),
    /// The fuse holds something that cannot become what is wanted.
    Burned {
        /// The fuse.
        name: &'static str,
        /// Its value, hexadecimal.
        now: String,
        /// What was wanted.
        wanted: String,
    },
    /// The board decrypts its firmware and no SBK is wanted, or it has a secret where none is wanted.
    UnknownSecret(&'static str),
    /// Another signature scheme is burned.
    Scheme(u32),
    /// `SecurityMode` is set, and this fuse would have to change.
    Closed(&'static str),
    /// The level's fuses hold what no level is.
    ForeignLevel(u64),
    /// The board has a higher level.
    Lower {
        /// Its level.
        now: u32,
        /// The wanted one.
        wanted: u32,
    },
    /// `OdmLock` froze this fuse.
    Locked(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Wish(what) => f.write_str(what),
            Refusal::NotRead(name) => write!(f, "{name} was not read, and must be known"),
            Refusal::OtherKey(name) => {
                write!(
                    f,
                    "{name} holds the hash of another key: this board was burned for somebody else's firmware, or with another key directory"
                )
            }
            Refusal::Burned { name, now, wanted } => {
                write!(f, "{name} is {now} and cannot become {wanted}: a bit that is burned stays burned")
            }
            Refusal::UnknownSecret(name) => {
                write!(f, "{name} is burned already, and not asked for: whoever burned it can read what it protects")
            }
            Refusal::Scheme(now) => {
                write!(
                    f,
                    "the board is burned for firmware that is signed in another way (scheme {now}): no key of ours fits"
                )
            }
            Refusal::Closed(name) => {
                write!(f, "SecurityMode is burned already: {name} cannot change any more, and it would have to")
            }
            Refusal::ForeignLevel(bits) => {
                write!(
                    f,
                    "{} and {} hold {bits:#018x}, which is no level of ours: somebody uses these fuses for something else",
                    LEVEL[1], LEVEL[0]
                )
            }
            Refusal::Lower { now, wanted } => write!(f, "the board is at level {now}; it cannot go down to {wanted}"),
            Refusal::Locked(name) => write!(f, "{name} was frozen by OdmLock and would have to change"),
        }
    }
}

impl std::error::Error for Refusal {}

fn word(value: u32) -> Value {
    Value::Open(value.to_be_bytes().to_vec())
}

/// Checks a wish against itself.
fn check(wanted: &Wanted) -> Result<(), Refusal> {
    let chip = wanted.chip;
    let size = kind(chip, "PublicKeyHash").map_or(0, |fuse| fuse.size);
    if wanted.key_hashes.len() != chip.key_hash_fuses().len() {
        return Err(Refusal::Wish("there must be one key for each fuse of a key's hash"));
    }
    for (at, hash) in wanted.key_hashes.iter().enumerate() {
        if hash.len() != size || hash.iter().all(|byte| *byte == 0) {
            return Err(Refusal::Wish("a key's hash is of the wrong size, or zero"));
        }
        if wanted.key_hashes.iter().take(at).any(|other| other == hash) {
            return Err(Refusal::Wish("two of the keys are the same: then none of them can be revoked"));
        }
    }
    for secret in [&wanted.secure_boot_key, &wanted.oem_key].into_iter().flatten() {
        if secret.bytes().len() != chip.secret_size() || secret.bytes().iter().all(|byte| *byte == 0) {
            return Err(Refusal::Wish("a secret is of the wrong size, or zero"));
        }
    }
    if wanted.secure_boot_key.is_some() && wanted.secure_boot_key == wanted.oem_key {
        return Err(Refusal::Wish("the two secrets are the same"));
    }
    if wanted.level > HIGHEST_LEVEL {
        return Err(Refusal::Wish("the level is above the highest"));
    }
    Ok(())
}

/// Looks up a fuse; without any reading, nothing is known of it and that is no refusal.
fn known(reading: Option<&Reading>, name: &'static str) -> Result<Option<u32>, Refusal> {
    reading.map(|reading| reading.word(name).ok_or(Refusal::NotRead(name))).transpose()
}

/// A fuse of flags with its lowest one set, beside those that are there: none of them can be taken back.
fn with_flag(reading: Option<&Reading>, name: &'static str) -> Result<(&'static str, Value), Refusal> {
    Ok((name, word(known(reading, name)?.unwrap_or(0) | 1)))
}

/// Makes the plan.
///
/// # Errors
/// The reason why this board, as it was read, cannot become what is wanted.
pub fn plan(wanted: &Wanted, reading: Option<&Reading>) -> Result<Plan, Refusal> {
    check(wanted)?;
    let chip = wanted.chip;
    let mut after: Vec<(&'static str, Value)> = Vec::new();
    for (name, hash) in chip.key_hash_fuses().iter().zip(&wanted.key_hashes) {
        after.push((name, Value::Open(key_hash(name, hash, reading)?)));
    }
    if chip.key_hash_fuses().len() > 1 {
        // Without it the boot ROM takes back no key.
        after.push(with_flag(reading, "OptInEnable")?);
    }
    for (name, secret) in [("SecureBootKey", &wanted.secure_boot_key), (chip.oem_key_fuse(), &wanted.oem_key)] {
        match secret {
            Some(secret) => after.push((name, Value::Secret(secret.clone()))),
            None if burned_secret(reading, name) => return Err(Refusal::UnknownSecret(name)),
            None => {}
        }
    }
    after.push(("BootSecurityInfo", word(boot_security(wanted, known(reading, "BootSecurityInfo")?)?)));
    if let Some(number) = wanted.odm_id {
        after.push(("OdmId", Value::Open(odm_id(number, reading)?)));
    }
    if wanted.close_debug {
        after.push(with_flag(reading, chip.debug_fuse())?);
    }
    let [low, high] = [known(reading, LEVEL[0])?, known(reading, LEVEL[1])?];
    let lock = known(reading, "OdmLock")?.unwrap_or(0);
    let level_now = match (low, high) {
        (Some(low), Some(high)) => Some(level_found(u64::from(high) << 32 | u64::from(low))?),
        _ => None,
    };
    if let Some(now) = level_now.filter(|now| *now > wanted.level) {
        return Err(Refusal::Lower { now, wanted: wanted.level });
    }
    let bits = level_bits(wanted.level);
    for (name, half) in LEVEL.into_iter().zip([bits as u32, (bits >> 32) as u32]) {
        after.push((name, word(half)));
    }
    let closed = known(reading, "SecurityMode")?.is_some_and(|mode| mode != 0);
    if wanted.close {
        after.push(with_flag(reading, "SecurityMode")?);
    }

    let mut rows = Vec::new();
    for fuse in chip.fuses() {
        let Some((_, value)) = after.iter().find(|(name, _)| *name == fuse.name) else { continue };
        let now = reading.and_then(|reading| reading.fuses.get(fuse.name).cloned());
        let row = Row { fuse, now, after: value.clone() };
        if let (Some(Found::Open(now)), Value::Open(after)) = (&row.now, &row.after)
            && (now.len() != after.len() || now.iter().zip(after).any(|(now, after)| now & !after != 0))
        {
            return Err(Refusal::Burned { name: fuse.name, now: hex(now), wanted: hex(after) });
        }
        if frozen(lock, fuse.name) && row.burns() {
            return Err(Refusal::Locked(fuse.name));
        }
        // Secrets that a closed board does not show cannot be burned again either; they are left out.
        let hidden = closed && fuse.content == Content::Secret;
        let unread_hash = closed && row.now.is_none();
        if closed && row.burns() && !LEVEL.contains(&fuse.name) && !hidden && !unread_hash {
            return Err(Refusal::Closed(fuse.name));
        }
        if !hidden && !unread_hash {
            rows.push(row);
        }
    }
    let chip_number = reading.and_then(|reading| reading.chip_number.clone());
    Ok(Plan { chip, chip_number, rows, level_now, level_after: wanted.level })
}

/// The hash to have in a fuse, as the fuse shows it when it is ours already.
fn key_hash(name: &'static str, hash: &[u8], reading: Option<&Reading>) -> Result<Vec<u8>, Refusal> {
    let Some(reading) = reading else { return Ok(hash.to_vec()) };
    match reading.fuses.get(name) {
        Some(Found::Open(now)) if now.iter().all(|byte| *byte == 0) => Ok(hash.to_vec()),
        Some(Found::Open(now)) if spellings(hash).contains(now) => Ok(now.clone()),
        Some(_) => Err(Refusal::OtherKey(name)),
        // odmfuseread.sh shows the first alone; the others show in no reading seen so far.
        None if name == "PublicKeyHash" => Err(Refusal::NotRead(name)),
        None => Ok(hash.to_vec()),
    }
}

/// How the same hash may be shown: Orin's program shows it as it is burned; of Xavier's it is said that keys come out with
/// their bytes, or the bytes of their words, the other way round (forums.developer.nvidia.com, 309607).
pub(crate) fn spellings(hash: &[u8]) -> [Vec<u8>; 3] {
    let reversed = hash.iter().rev().copied().collect();
    let words = hash.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
    [hash.to_vec(), reversed, words]
}

fn burned_secret(reading: Option<&Reading>, name: &str) -> bool {
    reading.is_some_and(|reading| matches!(reading.fuses.get(name), Some(Found::Secret { set: true })))
}

fn boot_security(wanted: &Wanted, now: Option<u32>) -> Result<u32, Refusal> {
    let (chip, now) = (wanted.chip, now.unwrap_or(0));
    let scheme = now & chip.scheme_mask();
    if scheme != 0 && scheme != chip.scheme() {
        return Err(Refusal::Scheme(scheme));
    }
    if now & chip.encryption() != 0 && wanted.secure_boot_key.is_none() {
        return Err(Refusal::UnknownSecret("SecureBootKey"));
    }
    if now & chip.oem_key_valid() != 0 && wanted.oem_key.is_none() {
        return Err(Refusal::UnknownSecret(chip.oem_key_fuse()));
    }
    let encryption = if wanted.secure_boot_key.is_some() { chip.encryption() } else { 0 };
    let oem_key = if wanted.oem_key.is_some() { chip.oem_key_valid() } else { 0 };
    Ok(now | chip.scheme() | encryption | oem_key)
}

fn odm_id(number: u64, reading: Option<&Reading>) -> Result<Vec<u8>, Refusal> {
    let wanted = number.to_be_bytes().to_vec();
    match reading.map(|reading| reading.fuses.get("OdmId")) {
        None => Ok(wanted),
        Some(Some(Found::Open(now))) if *now == wanted || now.iter().all(|byte| *byte == 0) => Ok(wanted),
        Some(Some(Found::Open(now))) => Err(Refusal::Burned { name: "OdmId", now: hex(now), wanted: hex(&wanted) }),
        Some(_) => Err(Refusal::NotRead("OdmId")),
    }
}

fn level_found(bits: u64) -> Result<u32, Refusal> {
    let level = level_of(bits);
    if level_bits(level) == bits { Ok(level) } else { Err(Refusal::ForeignLevel(bits)) }
}

/// `OdmLock`: bit n freezes `ReservedOdm`n, for n up to 3.
fn frozen(lock: u32, name: &str) -> bool {
    let number = name.strip_prefix("ReservedOdm").and_then(|number| number.parse::<u32>().ok());
    number.is_some_and(|number| number < 4 && lock & 1 << number != 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::reading::{parse, tests::NEW_ORIN};
    use zeroize::Zeroizing;

    pub(crate) fn secret(byte: u8, size: usize) -> Option<Secret> {
        Some(Secret::new(Zeroizing::new(vec![byte; size])))
    }

    pub(crate) fn orin() -> Wanted {
        Wanted {
            chip: Jetson::Orin,
            key_hashes: vec![vec![1; 64], vec![2; 64], vec![3; 64]],
            secure_boot_key: secret(0xa5, 32),
            oem_key: secret(0x5a, 32),
            level: 3,
            odm_id: None,
            close_debug: true,
            close: true,
        }
    }

    fn xavier() -> Wanted {
        let key_hashes = vec![(1..=32).collect()];
        let (secure_boot_key, oem_key) = (secret(0xa5, 16), secret(0x5a, 16));
        Wanted { chip: Jetson::Xavier, key_hashes, secure_boot_key, oem_key, ..orin() }
    }

    /// A new board's reading with some fuses otherwise.
    fn reading(changes: &[(&str, &str)]) -> Reading {
        let mut text = String::new();
        for line in NEW_ORIN.lines() {
            let change = changes.iter().find(|(name, _)| line.starts_with(&format!("{name}:")));
            match change {
                Some((name, value)) => text.push_str(&format!("{name}: {value}\n")),
                None => text.push_str(&format!("{line}\n")),
            }
        }
        for (name, value) in changes.iter().filter(|(name, _)| !NEW_ORIN.contains(&format!("\n{name}:"))) {
            text.push_str(&format!("{name}: {value}\n"));
        }
        parse(Jetson::Orin, text.as_bytes()).unwrap()
    }

    fn planned(changes: &[(&str, &str)]) -> Result<Plan, Refusal> {
        plan(&orin(), Some(&reading(changes)))
    }

    fn burned(plan: &Plan) -> Vec<(&'static str, String)> {
        let text = |value: &Value| match value {
            Value::Open(bytes) => hex(bytes),
            Value::Secret(_) => "secret".into(),
        };
        plan.to_burn().map(|row| (row.fuse.name, text(&row.after))).collect()
    }

    #[test]
    fn a_new_board_gets_everything_in_the_order_of_the_reference_file() {
        let plan = planned(&[]).unwrap();
        let hash = |byte: &str| byte.repeat(64);
        assert_eq!(
            burned(&plan),
            [
                ("ArmJtagDisable", "00000001".to_owned()),
                ("ReservedOdm4", "00000007".to_owned()),
                ("OptInEnable", "00000001".to_owned()),
                ("PublicKeyHash", hash("01")),
                ("PkcPubkeyHash1", hash("02")),
                ("PkcPubkeyHash2", hash("03")),
                ("SecureBootKey", "secret".to_owned()),
                ("OemK1", "secret".to_owned()),
                // 0x209, and the 0x1e0 that were there.
                ("BootSecurityInfo", "000003e9".to_owned()),
                ("SecurityMode", "00000001".to_owned()),
            ]
        );
        assert!(plan.closes() && plan.level_now == Some(0));
    }

    /// Found by fuzzing: a plan to burn `OptInEnable` 0xaaaaaaaa to 1.
    #[test]
    fn flags_that_are_there_already_stay_in_the_plan() {
        for name in ["OptInEnable", "ArmJtagDisable", "SecurityMode"] {
            let plan = planned(&[(name, "aaaaaaaa")]);
            // A SecurityMode that is not zero closes the board: then nothing may have to change, that fuse included.
            let Ok(plan) = plan else {
                assert!(name == "SecurityMode" && matches!(plan, Err(Refusal::Closed(_))), "{name}: {plan:?}");
                continue;
            };
            assert!(burned(&plan).contains(&(name, "aaaaaaab".to_owned())), "{name}: {:?}", burned(&plan));
        }
    }

    #[test]
    fn a_plan_without_a_reading_burns_on_no_board() {
        let plan = plan(&orin(), None).unwrap();
        assert_eq!((plan.chip_number.as_deref(), plan.level_now), (None, None));
        assert_eq!(plan.to_burn().count(), plan.rows.len());
    }

    #[test]
    fn boot_security_says_what_is_burned_and_no_more() {
        let info = |wanted: Wanted| match plan(&wanted, None)
            .unwrap()
            .rows
            .iter()
            .find(|row| row.fuse.name == "BootSecurityInfo")
        {
            Some(Row { after: Value::Open(bytes), .. }) => u32::from_be_bytes(bytes.as_slice().try_into().unwrap()),
            other => panic!("{other:?}"),
        };
        assert_eq!(info(orin()), 0x209);
        assert_eq!(info(Wanted { oem_key: None, ..orin() }), 0x9);
        assert_eq!(info(Wanted { secure_boot_key: None, ..orin() }), 0x201);
        assert_eq!(info(Wanted { secure_boot_key: None, oem_key: None, ..orin() }), 0x1);
        assert_eq!(info(xavier()), 0x5);
        assert_eq!(info(Wanted { secure_boot_key: None, ..xavier() }), 0x1);
    }

    #[test]
    fn a_board_of_another_key_or_another_scheme_is_refused() {
        assert_eq!(planned(&[("PublicKeyHash", &"77".repeat(64))]), Err(Refusal::OtherKey("PublicKeyHash")));
        assert_eq!(planned(&[("PkcPubkeyHash2", &"77".repeat(64))]), Err(Refusal::OtherKey("PkcPubkeyHash2")));
        // 2 is ECDSA P-256; with our 1 burned over it, it would be 3, ECDSA P-521.
        assert_eq!(planned(&[("BootSecurityInfo", "000001e2")]), Err(Refusal::Scheme(2)));
    }

    #[test]
    fn a_run_that_was_cut_off_is_finished() {
        let plan =
            planned(&[("PublicKeyHash", &"01".repeat(64)), ("ArmJtagDisable", "00000001"), ("ReservedOdm4", "00000007")]);
        let names: Vec<_> = burned(&plan.unwrap()).into_iter().map(|(name, _)| name).collect();
        assert!(!names.contains(&"PublicKeyHash") && !names.contains(&"ArmJtagDisable") && !names.contains(&"ReservedOdm4"));
        // What cannot be read is burned again with the same bits.
        assert!(names.contains(&"SecureBootKey") && names.contains(&"SecurityMode"));
    }

    #[test]
    fn the_level_never_goes_down_and_takes_both_fuses() {
        assert_eq!(planned(&[("ReservedOdm4", "0000000f")]), Err(Refusal::Lower { now: 4, wanted: 3 }));
        assert_eq!(planned(&[("ReservedOdm4", "00000005")]), Err(Refusal::ForeignLevel(5)));
        assert_eq!(planned(&[("ReservedOdm5", "00000001")]), Err(Refusal::ForeignLevel(1 << 32)));
        assert_eq!(planned(&[("ReservedOdm4", "00000001")]).unwrap().level_now, Some(1));
        let high = plan(&Wanted { level: 33, ..orin() }, Some(&reading(&[("ReservedOdm4", "00000007")]))).unwrap();
        let level: Vec<_> = burned(&high).into_iter().filter(|(name, _)| LEVEL.contains(name)).collect();
        assert_eq!(level, [("ReservedOdm4", "ffffffff".to_owned()), ("ReservedOdm5", "00000001".to_owned())]);
        assert!(plan(&Wanted { level: 64, ..orin() }, None).is_ok());
        assert!(matches!(plan(&Wanted { level: 65, ..orin() }, None), Err(Refusal::Wish(_))));
    }

    #[test]
    fn a_closed_board_takes_a_higher_level_and_nothing_else() {
        let ours = [
            ("PublicKeyHash", "01".repeat(64)),
            ("BootSecurityInfo", "000003e9".into()),
            ("ArmJtagDisable", "00000001".into()),
            ("OptInEnable", "00000001".into()),
            ("SecurityMode", "00000001".into()),
        ];
        let ours: Vec<_> = ours.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let plan = planned(&ours).unwrap();
        assert_eq!(burned(&plan), [("ReservedOdm4", "00000007".to_owned())]);
        assert!(!plan.closes());
        let without = |left_out: &str| ours.iter().filter(|(name, _)| *name != left_out).copied().collect::<Vec<_>>();
        for name in ["PublicKeyHash", "BootSecurityInfo", "ArmJtagDisable", "OptInEnable"] {
            assert_eq!(planned(&without(name)), Err(Refusal::Closed(name)), "{name}");
        }
    }

    #[test]
    fn secrets_that_are_there_and_not_asked_for_are_refused() {
        let refused = |wanted: Wanted, changes: &[(&str, &str)]| plan(&wanted, Some(&reading(changes))).unwrap_err();
        let none = Wanted { secure_boot_key: None, oem_key: None, ..orin() };
        let encrypted = [("BootSecurityInfo", "000001e9")];
        assert_eq!(refused(none.clone(), &encrypted), Refusal::UnknownSecret("SecureBootKey"));
        assert_eq!(refused(none.clone(), &[("BootSecurityInfo", "000003e1")]), Refusal::UnknownSecret("OemK1"));
        assert_eq!(refused(none, &[("OemK1", &"77".repeat(32))]), Refusal::UnknownSecret("OemK1"));
    }

    #[test]
    fn what_must_be_known_and_was_not_read_is_refused() {
        for name in [
            "PublicKeyHash", "BootSecurityInfo", "ArmJtagDisable", "OptInEnable", "ReservedOdm4", "ReservedOdm5", "OdmLock",
            "SecurityMode",
        ] {
            let mut reading = reading(&[]);
            reading.fuses.remove(name);
            assert_eq!(plan(&orin(), Some(&reading)), Err(Refusal::NotRead(name)), "{name}");
        }
    }

    #[test]
    fn odm_lock_and_a_foreign_number_are_respected() {
        assert!(frozen(0b0100, "ReservedOdm2") && !frozen(0b0100, "ReservedOdm3") && !frozen(0xffff_ffff, "ReservedOdm4"));
        let wanted = Wanted { odm_id: Some(5), ..orin() };
        assert!(plan(&wanted, Some(&reading(&[]))).is_ok());
        let other = plan(&wanted, Some(&reading(&[("OdmId", "0000000000000004")])));
        assert!(matches!(other, Err(Refusal::Burned { name: "OdmId", .. })), "{other:?}");
    }

    #[test]
    fn a_wish_that_is_wrong_in_itself_is_refused() {
        for wrong in [
            Wanted { key_hashes: vec![vec![1; 64]], ..orin() },
            Wanted { key_hashes: vec![vec![1; 64], vec![1; 64], vec![3; 64]], ..orin() },
            Wanted { key_hashes: vec![vec![1; 64], vec![2; 32], vec![3; 64]], ..orin() },
            Wanted { key_hashes: vec![vec![0; 64], vec![2; 64], vec![3; 64]], ..orin() },
            Wanted { secure_boot_key: secret(1, 16), ..orin() },
            Wanted { oem_key: secret(0, 32), ..orin() },
            Wanted { oem_key: secret(0xa5, 32), ..orin() },
        ] {
            assert!(matches!(plan(&wrong, None), Err(Refusal::Wish(_))), "{wrong:?}");
        }
    }

    #[test]
    fn xaviers_own_key_is_known_however_its_program_spells_it() {
        let wanted = xavier();
        let base = "BootSecurityInfo: 00000000\nJtagDisable: 00000000\nReservedOdm4: 00000000\nReservedOdm5: 00000000\nOdmLock: 00000000\nSecurityMode: 00000000\n";
        let straight = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";
        let reversed = "201f1e1d1c1b1a191817161514131211100f0e0d0c0b0a090807060504030201";
        let words = "0403020108070605".to_owned() + "0c0b0a09100f0e0d" + "1413121118171615" + "1c1b1a19201f1e1d";
        for spelling in [straight, reversed, &words] {
            let reading = parse(Jetson::Xavier, format!("{base}PublicKeyHash: {}\n", spelling).as_bytes()).unwrap();
            let plan = plan(&wanted, Some(&reading)).unwrap();
            assert!(plan.to_burn().all(|row| row.fuse.name != "PublicKeyHash"));
        }
    }
}
