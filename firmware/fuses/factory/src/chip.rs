//! The fuses of a generation of Jetson boards, by the names of NVIDIA's configuration file.
//!
//! Sources: Jetson Linux Developer Guide, "Secure Boot" (R35.4.1 for Xavier, R36.5 and R38.4 for Orin: names, sizes, order,
//! examples); `odmfuse.sh` of R35 (BSD licence: hash of a Xavier key, values of `BootSecurityInfo`, rules for `OdmLock`).

pub use belvedere_keys::jetson::Jetson;
use sha2::{Digest, Sha256, Sha512};

/// What a fuse holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Anybody may know it.
    Open,
    /// A key: never shown.
    Secret,
}

/// One fuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FuseKind {
    /// Its name in NVIDIA's files.
    pub name: &'static str,
    /// Bytes.
    pub size: usize,
    /// What it holds.
    pub content: Content,
}

const fn open(name: &'static str, size: usize) -> FuseKind {
    FuseKind { name, size, content: Content::Open }
}

const fn secret(name: &'static str, size: usize) -> FuseKind {
    FuseKind { name, size, content: Content::Secret }
}

/// The level's fuses, the low 32 bits first. Not `ReservedOdm0` to `3`: `OdmLock` can freeze those, and with them the level.
pub const LEVEL: [&str; 2] = ["ReservedOdm4", "ReservedOdm5"];

/// In the order in which they are burned: what depends on another comes after it, `SecurityMode` last.
const ORIN: [FuseKind; 23] = [
    open("OdmId", 8),
    open("ArmJtagDisable", 4),
    open("ReservedOdm0", 4),
    open("ReservedOdm1", 4),
    open("ReservedOdm2", 4),
    open("ReservedOdm3", 4),
    open("ReservedOdm4", 4),
    open("ReservedOdm5", 4),
    open("ReservedOdm6", 4),
    open("ReservedOdm7", 4),
    open("OdmLock", 4),
    open("DebugAuthentication", 4),
    open("SwReserved", 4),
    open("OptInEnable", 4),
    open("PublicKeyHash", 64),
    open("PkcPubkeyHash1", 64),
    open("PkcPubkeyHash2", 64),
    secret("SecureBootKey", 32),
    secret("Kdk0", 32),
    secret("OemK1", 32),
    secret("OemK2", 32),
    open("BootSecurityInfo", 4),
    open("SecurityMode", 4),
];

const XAVIER: [FuseKind; 20] = [
    open("OdmId", 8),
    open("JtagDisable", 4),
    open("ReservedOdm0", 4),
    open("ReservedOdm1", 4),
    open("ReservedOdm2", 4),
    open("ReservedOdm3", 4),
    open("ReservedOdm4", 4),
    open("ReservedOdm5", 4),
    open("ReservedOdm6", 4),
    open("ReservedOdm7", 4),
    open("OdmLock", 4),
    open("DebugAuthentication", 4),
    open("PublicKeyHash", 32),
    secret("SecureBootKey", 16),
    secret("Kek0", 16),
    secret("Kek1", 16),
    secret("Kek2", 16),
    secret("Kek256", 32),
    open("BootSecurityInfo", 4),
    open("SecurityMode", 4),
];

/// Facts about a generation.
pub trait Chip {
    /// All fuses that are known here, in the order in which they are burned.
    fn fuses(self) -> &'static [FuseKind];
    /// NVIDIA's number, `-i` of its scripts.
    fn number(self) -> &'static str;
    /// NVIDIA's name.
    fn name(self) -> &'static str;
    /// The fuses of the firmware signing keys' hashes.
    fn key_hash_fuses(self) -> &'static [&'static str];
    /// The fuse that wraps OP-TEE's keys.
    fn oem_key_fuse(self) -> &'static str;
    /// The fuse that closes the debug port.
    fn debug_fuse(self) -> &'static str;
    /// `BootSecurityInfo`: the bits that say how firmware is signed; a number, not flags.
    fn scheme_mask(self) -> u32;
    /// `BootSecurityInfo`: signed by an RSA key of the size that we use.
    fn scheme(self) -> u32;
    /// `BootSecurityInfo`: firmware is encrypted with the SBK.
    fn encryption(self) -> u32;
    /// `BootSecurityInfo`: the OEM keys are there and to be loaded. 0 where there is no such flag.
    fn oem_key_valid(self) -> u32;
    /// The hash that the boot ROM compares, of a key's modulus (big-endian).
    fn key_hash(self, modulus: &[u8]) -> Vec<u8>;
}

impl Chip for Jetson {
    fn fuses(self) -> &'static [FuseKind] {
        match self {
            Jetson::Orin => &ORIN,
            Jetson::Xavier => &XAVIER,
        }
    }

    fn number(self) -> &'static str {
        match self {
            Jetson::Orin => "0x23",
            Jetson::Xavier => "0x19",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Jetson::Orin => "Jetson Orin (T234)",
            Jetson::Xavier => "Jetson Xavier (T194)",
        }
    }

    fn key_hash_fuses(self) -> &'static [&'static str] {
        match self {
            Jetson::Orin => &["PublicKeyHash", "PkcPubkeyHash1", "PkcPubkeyHash2"],
            Jetson::Xavier => &["PublicKeyHash"],
        }
    }

    fn oem_key_fuse(self) -> &'static str {
        match self {
            Jetson::Orin => "OemK1",
            Jetson::Xavier => "Kek2",
        }
    }

    fn debug_fuse(self) -> &'static str {
        match self {
            Jetson::Orin => "ArmJtagDisable",
            Jetson::Xavier => "JtagDisable",
        }
    }

    fn scheme_mask(self) -> u32 {
        match self {
            Jetson::Orin => 0x7,
            Jetson::Xavier => 0x3,
        }
    }

    fn scheme(self) -> u32 {
        // Orin: RSA-3072; Xavier: RSA-2048.
        1
    }

    fn encryption(self) -> u32 {
        match self {
            Jetson::Orin => 0x8,
            Jetson::Xavier => 0x4,
        }
    }

    fn oem_key_valid(self) -> u32 {
        match self {
            Jetson::Orin => 0x200,
            Jetson::Xavier => 0,
        }
    }

    /// Orin: SHA-512 of the public parameters, 384 bytes, which for RSA-3072 are the modulus, least significant byte first.
    /// Xavier: SHA-256 of 1216 bytes that begin with the modulus of RSA-2048 in the same order and are zero otherwise.
    fn key_hash(self, modulus: &[u8]) -> Vec<u8> {
        let mut parameters: Vec<u8> = modulus.iter().rev().copied().collect();
        match self {
            Jetson::Orin => {
                parameters.resize(384, 0);
                Sha512::digest(&parameters).to_vec()
            }
            Jetson::Xavier => {
                parameters.resize(1216, 0);
                Sha256::digest(&parameters).to_vec()
            }
        }
    }
}

/// A fuse by its name.
pub fn kind(chip: Jetson, name: &str) -> Option<&'static FuseKind> {
    chip.fuses().iter().find(|fuse| fuse.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_security_mode_is_burned_last_and_boot_security_after_everything_that_it_switches_on() {
        for chip in [Jetson::Orin, Jetson::Xavier] {
            let names: Vec<_> = chip.fuses().iter().map(|fuse| fuse.name).collect();
            assert_eq!(names[names.len() - 2..], ["BootSecurityInfo", "SecurityMode"]);
            for name in chip.key_hash_fuses().iter().chain([&chip.oem_key_fuse(), &chip.debug_fuse()]).chain(&LEVEL) {
                assert!(kind(chip, name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn a_keys_hash_goes_over_its_modulus_from_the_other_end() {
        // Computed with another program (Python's hashlib), the way odmfuse.sh and tegrasign_v3.py do it.
        let modulus = |size: usize| (0..size).map(|at| (at % 251 + 1) as u8).collect::<Vec<u8>>();
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(Jetson::Orin.key_hash(&modulus(384))), include_str!("../fixtures/orin-hash").trim());
        assert_eq!(hex(Jetson::Xavier.key_hash(&modulus(256))), include_str!("../fixtures/xavier-hash").trim());
    }
}
