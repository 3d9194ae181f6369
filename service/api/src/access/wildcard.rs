//! `*` and `?` in policies. Pure.

/// Whether the whole of `text` matches `pattern`: `*` is any number of characters, `?` is one.
///
/// Walks back to the last `*` only, so the work is at most length times length.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    t = *from;
                    p = *at + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Whether an ARN matches a pattern part by part: a `*` in one part never reaches into the next one. The last part
/// (the sixth) is the resource, colons included. `*` alone matches everything.
pub fn matches_arn(pattern: &str, arn: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (pattern.splitn(6, ':').collect(), arn.splitn(6, ':').collect());
    patterns.len() == 6 && parts.len() == 6 && patterns.iter().zip(&parts).all(|(p, t)| matches(p, t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, without any cleverness.
    fn defined(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|n| defined(rest, &text[n..])),
            Some(('?', rest)) => !text.is_empty() && defined(rest, &text[1..]),
            Some((c, rest)) => text.first() == Some(c) && defined(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_its_definition(pattern in "[ab*?]{0,9}", text in "[abc]{0,9}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), defined(&p, &t));
        }

        #[test]
        fn text_without_wildcards_matches_itself_alone(a in "[a-z:/]{0,12}", b in "[a-z:/]{0,12}") {
            prop_assert!(matches(&a, &a));
            prop_assert_eq!(matches(&a, &b), a == b);
        }
    }

    #[test]
    fn a_star_stays_within_its_part_of_an_arn() {
        assert!(matches_arn("arn:aws:s3:::b/*", "arn:aws:s3:::b/a:b/c"));
        assert!(matches_arn("arn:aws:logs:*:*:log-group:/x*", "arn:aws:logs:us-east-1:1:log-group:/x/y:log-stream:z"));
        assert!(!matches_arn("arn:aws:s3:::b/*", "arn:aws:s3:::bb/a"));
        assert!(!matches_arn("arn:*:b/*", "arn:aws:s3:::b/a"), "five parts");
        assert!(!matches_arn("arn:aws:*:::b/*", "arn:aws:s3:r:1:b/a"));
        assert!(matches_arn("*", "*"));
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer_than_length_times_length() {
        let started = std::time::Instant::now();
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
        assert!(!matches(&format!("{}b", "a*".repeat(2000)), &"a".repeat(4000)));
        assert!(started.elapsed().as_secs() < 5);
    }
}
