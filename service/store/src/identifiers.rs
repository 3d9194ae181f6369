//! New names: random, in the shapes that the original service's tools parse.

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// `N` bytes from the operating system. A machine that cannot give them cannot run a certificate authority: panics.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Base32 (lower case, RFC 4648 alphabet), unpadded.
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut bits, mut held) = (0u32, 0u32);
    for &byte in bytes {
        held = held << 8 | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(BASE32[(held >> bits & 31) as usize] as char);
        }
    }
    if bits > 0 {
        text.push(BASE32[(held << (5 - bits) & 31) as usize] as char);
    }
    text
}

/// `<prefix>-` and 26 characters `[a-z2-7]`: devices, packages, application instances.
pub fn resource(prefix: &str) -> String {
    format!("{prefix}-{}", base32(&random::<16>()))
}

/// `n` bytes as hexadecimal digits.
pub fn token<const N: usize>() -> String {
    hex::encode(random::<N>())
}

/// Whether a text may be one of 16 bytes.
pub fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A random UUID (version 4).
pub fn uuid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

/// `AKIA` (long-lived) or `ASIA` (session) and 16 characters.
pub fn access_key(prefix: &str) -> String {
    format!("{prefix}{}", base32(&random::<10>()).to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_agrees_with_rfc_4648() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(base32(b"f"), "my");
    }

    #[test]
    fn identifiers_have_the_lengths_that_tools_expect() {
        assert_eq!(resource("applicationInstance").len(), 46);
        assert_eq!(access_key("AKIA").len(), 20);
        assert_ne!(resource("device"), resource("device"));
    }
}
