//! JSON documents from outside: how many values they hold is known before any of them is made.

use serde_json::{Map, Value};

/// Values of one document. The largest that any operation takes, 1000 samples of 150 values and counts each, fits in.
pub const MAX_VALUES: usize = 500_000;

/// A document; the error is for people. What is between two marks is one value at most, so counting the marks outside of
/// texts bounds what a reader would make of it: eight megabytes of `[[[[` or `0,0,0` are a hundred megabytes of values.
pub fn read(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    if values(bytes) > MAX_VALUES {
        return Err("the document holds too many values".into());
    }
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

/// At most so many values are in a document; of one that is too large, one more than are read.
pub fn values(bytes: &[u8]) -> usize {
    let (mut count, mut text, mut escaped) = (1, false, false);
    for byte in bytes {
        match (text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => text = !text,
            (false, b',' | b'[' | b'{' | b':') => count += 1,
            _ => {}
        }
    }
    count.min(MAX_VALUES + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(held).sum(),
            Value::Object(members) => members.values().map(held).sum(),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn no_document_holds_more_values_than_are_counted(text in "[\\[\\]{},:\"a1 \\\\]{0,40}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert!(held(&value) <= values(text.as_bytes()), "{}", text);
            }
        }
    }

    #[test]
    fn service_d19_a_document_of_many_values_is_refused_before_it_is_read() {
        let many = |n: usize| format!(r#"{{"a":[{}]}}"#, vec!["0"; n].join(","));
        assert!(read(many(1000).as_bytes()).is_ok());
        assert!(read(many(MAX_VALUES + 1).as_bytes()).unwrap_err().contains("too many values"));
        let long = format!(r#"{{"a":"{}"}}"#, "[,{:".repeat(MAX_VALUES));
        assert!(read(long.as_bytes()).is_ok(), "marks within a text are text");
    }
}
