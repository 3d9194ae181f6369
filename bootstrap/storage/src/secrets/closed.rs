//! Whether what was measured may have the secrets, and in words why not. Pure; the TPM decides the same on its own.

use belvedere_tpm::Digest;
use belvedere_tpm::boot_policy::{BootPolicy, Entry};
use belvedere_tpm::layout::{OPERATING_PHASE, RELEASE_PCR, SECURE_BOOT_PCR};
use belvedere_tpm::policy::{extend, sha256};
use std::fmt;

/// A PCR that does not hold what an entry of the boot policy names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcrDifference {
    /// The entry, counted from 1.
    pub entry: usize,
    /// The PCR.
    pub pcr: u8,
    /// What it holds.
    pub measured: Digest,
    /// What the release was signed for.
    pub expected: Digest,
}

/// Why the TPM keeps the secrets from what runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// Other values were measured than any entry names: the differences from the entries that are nearest.
    Measured(Vec<PcrDifference>),
    /// The operating phase began; the next start opens again.
    Operating,
    /// The fuses are above the release's rollback level.
    BelowFuses {
        /// The fuses' level.
        fuses: u32,
        /// The release's.
        level: u32,
    },
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the TPM keeps the appliance's secrets closed: ")?;
        match self {
            Closed::Operating => f.write_str("the operating phase has begun; they open at the next start"),
            Closed::BelowFuses { fuses, level } => write!(
                f,
                "this release has rollback level {level}, and this machine has run releases of level {fuses}; install a \
                 newer release"
            ),
            Closed::Measured(differences) => {
                for (at, difference) in differences.iter().enumerate() {
                    let PcrDifference { entry, pcr, measured, expected } = difference;
                    let what = match *pcr {
                        SECURE_BOOT_PCR => "the keys of Secure Boot changed, or it is switched off",
                        _ => "not this signed release, or a part of it was changed",
                    };
                    let (measured, expected) = (hex::encode(measured), hex::encode(expected));
                    let separator = if at == 0 { "" } else { "; " };
                    write!(
                        f,
                        "{separator}PCR {pcr} differs from entry {entry} of the boot policy ({what}): measured {measured}, \
                         expected {expected}"
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Closed {}

fn differences(number: usize, entry: &Entry, pcr7: &Digest, pcr11: &Digest) -> Vec<PcrDifference> {
    [(SECURE_BOOT_PCR, *pcr7, entry.pcr7), (RELEASE_PCR, *pcr11, entry.pcr11)]
        .into_iter()
        .filter(|(_, measured, expected)| measured != expected)
        .map(|(pcr, measured, expected)| PcrDifference { entry: number, pcr, measured, expected })
        .collect()
}

/// The entry of what was measured.
///
/// # Errors
/// When there is none, or it is below the fuses.
pub fn entry<'a>(policy: &'a BootPolicy, pcr7: &Digest, pcr11: &Digest, fuses: u32) -> Result<&'a Entry, Closed> {
    if let Some(entry) = policy.entry(pcr7, pcr11) {
        let level = entry.level;
        return if fuses > level { Err(Closed::BelowFuses { fuses, level }) } else { Ok(entry) };
    }
    let phase = sha256(&[OPERATING_PHASE]);
    if policy.entries.iter().any(|entry| entry.pcr7 == *pcr7 && extend(&entry.pcr11, &phase) == *pcr11) {
        return Err(Closed::Operating);
    }
    let of_each: Vec<_> =
        policy.entries.iter().zip(1..).map(|(entry, number)| differences(number, entry, pcr7, pcr11)).collect();
    let fewest = of_each.iter().map(Vec::len).min();
    Err(Closed::Measured(of_each.into_iter().filter(|found| Some(found.len()) == fewest).flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_tpm::{PolicyKey, PolicySignature};

    const NONE: PolicySignature = PolicySignature([0; 256]);

    fn policy(entries: &[(u8, u8, u32)]) -> BootPolicy {
        let entry = |&(pcr7, pcr11, level): &(u8, u8, u32)| Entry {
            pcr7: [pcr7; 32],
            pcr11: [pcr11; 32],
            level,
            storage: NONE,
            fuses: NONE,
        };
        BootPolicy { key: PolicyKey([0; 256]), entries: entries.iter().map(entry).collect() }
    }

    fn closed(entries: &[(u8, u8, u32)], pcr7: u8, pcr11: u8, fuses: u32) -> Closed {
        entry(&policy(entries), &[pcr7; 32], &[pcr11; 32], fuses).unwrap_err()
    }

    #[test]
    fn the_entry_of_what_was_measured_opens_up_to_its_level() {
        let policy = policy(&[(1, 2, 3), (1, 4, 5)]);
        assert_eq!(entry(&policy, &[1; 32], &[4; 32], 5), Ok(&policy.entries[1]));
        let below = Closed::BelowFuses { fuses: 6, level: 5 };
        assert_eq!(entry(&policy, &[1; 32], &[4; 32], 6), Err(below));
    }

    #[test]
    fn the_words_name_the_pcr_that_differs_and_the_entry() {
        let text = closed(&[(1, 2, 0), (3, 9, 0)], 5, 9, 0).to_string();
        assert!(text.contains("PCR 7 differs from entry 2") && text.contains("Secure Boot"), "{text}");
        assert!(text.contains(&"05".repeat(32)) && text.contains(&"03".repeat(32)), "{text}");
        assert!(!text.contains("PCR 11") && !text.contains("entry 1"), "{text}");
        let text = closed(&[(1, 2, 0), (3, 9, 0)], 1, 9, 0).to_string();
        assert!(text.contains("PCR 11 differs from entry 1") && text.contains("PCR 7 differs from entry 2"), "{text}");
        let text = closed(&[(1, 2, 0)], 5, 6, 0).to_string();
        assert!(text.contains("PCR 7") && text.contains("PCR 11 differs from entry 1"), "{text}");
    }

    #[test]
    fn the_operating_phase_is_recognised() {
        let pcr11 = extend(&[2; 32], &sha256(&[OPERATING_PHASE]));
        assert_eq!(entry(&policy(&[(1, 2, 0)]), &[1; 32], &pcr11, 0), Err(Closed::Operating));
        assert!(matches!(entry(&policy(&[(1, 2, 0)]), &[3; 32], &pcr11, 0), Err(Closed::Measured(_))));
    }
}
