//! Keeps secrets out of what is shown and logged. NVIDIA's programs print the values of the fuses that they burn.

use crate::secret::Secret;

/// What stands for a run of hexadecimal digits.
const HIDDEN: &str = "[…]";
/// What stands for a whole line.
const WITHHELD: &str = "[a line with key material was left out]";
/// From this many hexadecimal digits on, a run of them is hidden.
const LONGEST: usize = 8;

/// Hides every longer hexadecimal number, and every line in which four bytes of a secret stand in whatever spelling: apart,
/// with `0x` between them, or the last byte first.
pub fn masked(output: &str, secrets: &[&Secret]) -> String {
    let words: Vec<String> = secrets.iter().flat_map(|secret| spellings(secret.bytes())).collect();
    let mut text = String::new();
    for line in output.lines() {
        let digits = line.to_ascii_lowercase().replace("0x", "").replace("\\x", "");
        let digits: String = digits.chars().filter(char::is_ascii_hexdigit).collect();
        if words.iter().any(|word| digits.contains(word.as_str())) {
            text.push_str(WITHHELD);
        } else {
            hide_numbers(line, &mut text);
        }
        text.push('\n');
    }
    text
}

/// Each four bytes of a secret, forwards and backwards. Words that are everywhere (all digits the same) tell nothing.
fn spellings(bytes: &[u8]) -> Vec<String> {
    let hex = |bytes: &mut dyn Iterator<Item = &u8>| bytes.map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut words = Vec::new();
    for word in bytes.chunks_exact(4) {
        for spelling in [hex(&mut word.iter()), hex(&mut word.iter().rev())] {
            if spelling.chars().any(|digit| !spelling.starts_with(digit)) {
                words.push(spelling);
            }
        }
    }
    words
}

fn hide_numbers(line: &str, text: &mut String) {
    let mut run = String::new();
    for letter in line.chars().chain(['\n']) {
        if letter.is_ascii_hexdigit() {
            run.push(letter);
            continue;
        }
        text.push_str(if run.len() < LONGEST { &run } else { HIDDEN });
        run.clear();
        if letter != '\n' {
            text.push(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    #[test]
    fn no_spelling_of_a_secret_gets_through() {
        let bytes: Vec<u8> = (0x10..0x30).collect();
        let secret = Secret::new(Zeroizing::new(bytes.clone()));
        let spelled = |between: &str| bytes.iter().map(|byte| format!("{between}{byte:02X}")).collect::<String>();
        let backwards = bytes.iter().rev().map(|byte| format!(" {byte:02x}")).collect::<String>();
        let words = bytes.chunks(4).map(|word| format!(" 0x{:02x}{:02x}{:02x}{:02x}", word[0], word[1], word[2], word[3]));
        let words = words.collect::<String>();
        for text in [spelled(""), spelled(" "), spelled(" 0x"), spelled("\\x"), spelled(":"), backwards, words] {
            let shown = masked(&format!("before\nvalue={text}\nafter"), &[&secret]);
            assert_eq!(shown, format!("before\n{WITHHELD}\nafter\n"), "{text}");
        }
    }

    #[test]
    fn longer_numbers_are_hidden_and_messages_stay() {
        assert_eq!(masked("Error 0x62170302 in 1234567 steps", &[]), "Error 0x[…] in 1234567 steps\n");
        assert_eq!(
            masked("E> FUSE: Failed to burn fuse addr: 0x2fe.\n", &[]),
            "E> FUSE: Failed to burn fuse addr: 0x2fe.\n"
        );
    }
}
