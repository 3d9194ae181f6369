//! The kernel's command line, which is part of the signed kernel image: what it says is trusted.

use belvedere_storage::verity::{MAXIMUM_SALT, RootImage};

/// What the command line tells `init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// `belvedere.root_hash` (64 hexadecimal digits), `belvedere.root_blocks`, `belvedere.root_salt` (hexadecimal).
    pub root: RootImage,
    /// `belvedere.board`: which board's drivers and names hold.
    pub board: String,
    /// `belvedere.version` of the release.
    pub version: String,
    /// `belvedere.rollback_level` of the release: what a keeper is told that does not know what was measured.
    pub rollback_level: u32,
    /// `belvedere.development`: programs may be missing without it being an error. Never in a production image.
    pub development: bool,
}

/// Reads the command line; says which word is missing, doubled or wrong.
pub fn parse(text: &str) -> Result<CommandLine, String> {
    let value = |key: &str| -> Result<Option<&str>, String> {
        let mut found = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let first = found.next();
        // Two answers are none: whoever could append one must not choose which counts.
        if found.next().is_some() { Err(format!("{key} is given twice on the kernel's command line")) } else { Ok(first) }
    };
    let required = |key: &str| value(key)?.ok_or_else(|| format!("{key} is missing on the kernel's command line"));
    let wrong = |key: &str, what: &str| format!("{key} on the kernel's command line is not {what}");

    let hash = hex::decode(required("belvedere.root_hash")?).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let root_hash = hash.ok_or_else(|| wrong("belvedere.root_hash", "64 hexadecimal digits"))?;
    let blocks = required("belvedere.root_blocks")?;
    let blocks = blocks.bytes().all(|byte| byte.is_ascii_digit()).then(|| blocks.parse::<u64>().ok()).flatten();
    let data_blocks = blocks
        .filter(|blocks| (1..=1 << 40).contains(blocks))
        .ok_or_else(|| wrong("belvedere.root_blocks", "a number of blocks from 1 to 2^40"))?;
    let salt = hex::decode(required("belvedere.root_salt")?).ok().filter(|salt| salt.len() <= MAXIMUM_SALT);
    let salt = salt.ok_or_else(|| wrong("belvedere.root_salt", "an even number of at most 512 hexadecimal digits"))?;
    let level = required("belvedere.rollback_level")?;
    let level = level.bytes().all(|byte| byte.is_ascii_digit()).then(|| level.parse::<u32>().ok()).flatten();
    let rollback_level = level.ok_or_else(|| wrong("belvedere.rollback_level", "a number"))?;
    let word = |key: &str| {
        let word = required(key)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte);
        let good = (1..=64).contains(&word.len()) && word.bytes().all(plain);
        if good { Ok(word.to_owned()) } else { Err(wrong(key, "a word of at most 64 letters, digits and ._+~-")) }
    };
    Ok(CommandLine {
        root: RootImage { root_hash, data_blocks, salt },
        board: word("belvedere.board")?,
        version: word("belvedere.version")?,
        rollback_level,
        development: text.split_ascii_whitespace().any(|word| word == "belvedere.development"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn line(extra: &str) -> String {
        format!(
            "console=ttyAMA0 quiet belvedere.root_hash={HASH} belvedere.root_blocks=25000 belvedere.root_salt=abcd \
             belvedere.board=qemu-aarch64 belvedere.version=0.1.0-rc.1 belvedere.rollback_level=12 panic=5{extra}\n"
        )
    }

    #[test]
    fn the_words_are_read() {
        let read = parse(&line("")).unwrap();
        assert_eq!(read.root.root_hash[..2], [0x00, 0x11]);
        assert_eq!((read.root.data_blocks, read.root.salt), (25000, vec![0xab, 0xcd]));
        assert_eq!((read.board.as_str(), read.version.as_str()), ("qemu-aarch64", "0.1.0-rc.1"));
        assert!(!read.development && read.rollback_level == 12);
        assert!(parse(&line(" belvedere.development")).unwrap().development);
        assert!(!parse(&line(" belvedere.developments")).unwrap().development);
    }

    #[test]
    fn missing_doubled_and_wrong_words_are_named() {
        for key in ["root_hash", "root_blocks", "root_salt", "board", "version", "rollback_level"] {
            let without: Vec<String> =
                line("").split(' ').map(|word| word.replace(&format!("belvedere.{key}="), "x=")).collect();
            let error = parse(&without.join(" ")).unwrap_err();
            assert!(error.contains(key) && error.contains("missing"), "{error}");
            let error = parse(&line(&format!(" belvedere.{key}=1"))).unwrap_err();
            assert!(error.contains(key) && error.contains("twice"), "{error}");
        }
        for (from, to) in [
            (HASH, "00"),
            (HASH, "zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"),
            ("=25000", "=0"),
            ("=25000", "=-1"),
            ("=25000", "=+1"),
            ("=25000", "=99999999999999999999"),
            ("=abcd", "=abc"),
            ("level=12", "level="),
            ("level=12", "level=+1"),
            ("level=12", "level=4294967296"),
            ("=qemu-aarch64", "="),
            ("=qemu-aarch64", "=../../etc"),
        ] {
            assert!(parse(&line("").replace(from, to)).is_err(), "{to}");
        }
        let long = "ab".repeat(MAXIMUM_SALT);
        assert!(parse(&line("").replace("=abcd", &format!("={long}"))).is_ok());
        assert!(parse(&line("").replace("=abcd", &format!("={long}ab"))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_command_line_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
