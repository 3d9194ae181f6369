//! Filter patterns for lines of text: every term must be in the line, `"more words"` as they stand, `-term` must not,
//! and of `?terms` one must. As in CloudWatch, `?terms` beside plain ones have no say. Letters' case counts.
//!
//! Patterns of JSON (`{ $.x = 1 }`), of columns (`[a, b]`) and regular expressions (`%x%`) are refused, not misread.

/// Most terms of a pattern.
const MAX_TERMS: usize = 64;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pattern {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
}

impl Pattern {
    /// Reads a pattern; the error is for people.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let mut pattern = Pattern::default();
        let mut rest = text.trim_start();
        if rest.starts_with('{') || rest.starts_with('[') {
            return Err("patterns of JSON and of columns are not available: use terms, \"quoted\", ?one-of, -without".into());
        }
        while !rest.is_empty() {
            let kind = rest.chars().next().filter(|c| "?-".contains(*c));
            if kind.is_some() {
                rest = &rest[1..];
            }
            let term = match rest.strip_prefix('"') {
                Some(quoted) => {
                    let (term, after) = quoted_term(quoted).ok_or("a quoted term does not end")?;
                    rest = after;
                    term
                }
                None => {
                    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                    let term = rest[..end].to_owned();
                    rest = &rest[end..];
                    if term.starts_with('%') && term.ends_with('%') && term.len() > 1 {
                        return Err("regular expressions are not available".into());
                    }
                    term
                }
            };
            if !term.is_empty() {
                match kind {
                    Some('?') => pattern.any.push(term),
                    Some(_) => pattern.none.push(term),
                    None => pattern.all.push(term),
                }
            }
            rest = rest.trim_start();
        }
        match pattern.all.len() + pattern.any.len() + pattern.none.len() {
            0..=MAX_TERMS => Ok(pattern),
            _ => Err(format!("a pattern has at most {MAX_TERMS} terms")),
        }
    }

    /// Whether a line fits.
    pub fn matches(&self, line: &str) -> bool {
        let has = |term: &String| line.contains(term.as_str());
        let any = !self.all.is_empty() || self.any.is_empty() || self.any.iter().any(has);
        self.all.iter().all(has) && !self.none.iter().any(has) && any
    }
}

/// A term up to its closing quote, and what follows; `\"` and `\\` stand for themselves.
fn quoted_term(text: &str) -> Option<(String, &str)> {
    let (mut term, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                if c != '"' && c != '\\' {
                    term.push('\\');
                }
                term.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((term, &text[at + 1..])),
            c => term.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_as_in_the_guide() {
        let lines = ["[ERROR 400] BAD REQUEST", "[ERROR 401] UNAUTHORIZED", "[WARN] INVALID \"x\" REQUEST", "ok"];
        for (pattern, fitting) in [
            ("", vec![0, 1, 2, 3]),
            ("ERROR", vec![0, 1]),
            ("error", vec![]),
            ("ERROR REQUEST", vec![0]),
            ("?ERROR ?WARN", vec![0, 1, 2]),
            ("ERROR -401", vec![0]),
            ("-ERROR", vec![2, 3]),
            ("\"BAD REQUEST\"", vec![0]),
            ("-\"BAD REQUEST\" REQUEST", vec![2]),
            ("?\"ERROR 401\" ?ok", vec![1, 3]),
            ("\"\\\"x\\\"\"", vec![2]),
            ("REQUEST ?ok", vec![0, 2]),
        ] {
            let pattern_read = Pattern::parse(pattern).unwrap();
            let found: Vec<usize> = (0..lines.len()).filter(|n| pattern_read.matches(lines[*n])).collect();
            assert_eq!(found, fitting, "{pattern}");
        }
    }

    #[test]
    fn what_would_be_misread_is_refused() {
        for bad in ["{ $.a = 1 }", " [a, b]", "%x%", "\"open", "-\"open"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert!(Pattern::parse(&"a ".repeat(MAX_TERMS)).is_ok());
        assert!(Pattern::parse(&"a ".repeat(MAX_TERMS + 1)).is_err());
        assert!(Pattern::parse("? - \"\"").is_ok());
    }
}
