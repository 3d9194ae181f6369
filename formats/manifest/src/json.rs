//! From text to JSON: no member twice, bounded, and errors that say where.

use crate::text::shown;
use crate::{Error, Rule};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

/// The document as a whole, where no element can be named.
pub(crate) const DOCUMENT: &str = "(document)";

/// The text of a document that a person wrote, as it lies in a file. Editors on Windows begin UTF-8 with a byte order mark,
/// which is no part of the text (RFC 8259, 8.1, allows to ignore it); UTF-16, which they write too, is not JSON.
pub fn document_text(bytes: &[u8]) -> Result<&str, String> {
    let utf16 = "is UTF-16 text; save it as UTF-8";
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(utf16.into()),
        // Without a mark: JSON begins with two ASCII characters.
        [0, other, ..] | [other, 0, ..] if *other != 0 => return Err(utf16.into()),
        _ => {}
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("is not UTF-8 text: byte {} is none of it; save it as UTF-8", error.valid_up_to() + 1))?;
    Ok(without_mark(text))
}

/// Text without the byte order mark that it may begin with.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Reads a document of at most `characters`. Depth is bounded by serde_json (128), and by the types to far less.
pub(crate) fn read<T: DeserializeOwned>(text: &str, characters: usize, what: &str) -> Result<(T, Value), Error> {
    // A byte count is quick, and exact enough to refuse the enormous before walking it.
    if text.len() > characters.saturating_mul(4) || text.chars().count() > characters {
        return Err(Error::new(DOCUMENT, Rule::Size, format!("the {what} is longer than {characters} characters")));
    }
    let text = without_mark(text);
    if text.starts_with(['\u{fffe}', '\u{fffd}', '\0']) || text.get(1..2) == Some("\0") {
        let message = format!("the {what} is not good JSON: it looks like UTF-16 text; save it as UTF-8");
        return Err(Error::new(DOCUMENT, Rule::Json, message));
    }
    if text.starts_with('\u{feff}') {
        let message = format!("the {what} is not good JSON: it begins with two byte order marks; save it without one");
        return Err(Error::new(DOCUMENT, Rule::Json, message));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let json = serde_path_to_error::deserialize::<_, Strict>(&mut deserializer).map_err(|error| {
        let place = place(&Value::Null, error.path());
        Error::new(place, Rule::Json, format!("the {what} is not good JSON: {}", error.into_inner()))
    })?;
    deserializer.end().map_err(|error| Error::new(DOCUMENT, Rule::Json, format!("the {what} is not good JSON: {error}")))?;
    let json = json.0;
    let document = serde_path_to_error::deserialize(&json).map_err(|error| {
        let place = place(&json, error.path());
        Error::new(place, Rule::Schema, error.into_inner().to_string())
    });
    // A member that nobody knows is said to be that, also when it is a list.
    if !matches!(&document, Err(error) if error.message.starts_with("unknown field")) {
        only_lists_are_arrays(&json, &mut Vec::new(), &json, false)?;
    }
    let document = document.map_err(|error| Error { message: reword(&error.message), ..error })?;
    Ok((document, json))
}

/// Reads JSON in which no object has a member twice; for other documents than manifests, too.
pub fn unambiguous_json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).map(|Strict(value)| value)
}

/// JSON in which no object has a member twice: which of the two would count is something readers disagree about.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Strict;
            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_string<E>(self, value: String) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Strict, A::Error> {
                let mut values = Vec::new();
                while let Some(Strict(value)) = list.next_element()? {
                    values.push(value);
                }
                Ok(Strict(values.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Strict, A::Error> {
                let mut members = Map::new();
                while let Some(name) = object.next_key::<String>()? {
                    if members.contains_key(&name) {
                        return Err(A::Error::custom(format!("member {} is there twice", shown(&name))));
                    }
                    let Strict(value) = object.next_value()?;
                    members.insert(name, value);
                }
                Ok(Strict(members.into()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A path with the names of the elements on it: `nodeGraph.nodes[2] "front_door".interface`.
fn place(json: &Value, path: &Path) -> String {
    let mut at = Some(json);
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Map { key } => {
                at = at.and_then(|value| value.get(key));
                push_member(&mut text, key);
            }
            Segment::Seq { index } => {
                at = at.and_then(|value| value.get(index));
                push_index(&mut text, *index, at);
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    finished(text)
}

/// A place as errors show it. Elements of our documents lie six deep at most; what lies deeper is no element of ours, and
/// its way is cut in the middle.
fn finished(text: String) -> String {
    const SHOWN: usize = 400;
    let characters = text.chars().count();
    match characters {
        0 => DOCUMENT.to_owned(),
        1..=SHOWN => text,
        _ => {
            let beginning = text.chars().take(SHOWN / 2);
            let end = text.chars().skip(characters - SHOWN / 2 + 1);
            beginning.chain(['…']).chain(end).collect()
        }
    }
}

fn push_member(text: &mut String, key: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    text.extend(key.chars().take(40).map(|character| if character.is_control() { '\u{fffd}' } else { character }));
}

fn push_index(text: &mut String, index: usize, element: Option<&Value>) {
    text.push_str(&format!("[{index}]"));
    let name = ["name", "replace", "node"].iter().find_map(|member| element?.get(member)?.as_str());
    if let Some(name) = name {
        text.push_str(&format!(" {}", crate::text::shown_at_most(name, 40)));
    }
}

/// Members that are lists, in all documents.
const LISTS: &[&str] = &[
    "arguments", "assets", "edges", "environment", "events", "implementations", "inboundPorts", "inferenceAccelerators",
    "inputs", "interfaces", "networkRoutingRules", "nodeOverrides", "nodes", "outputs", "packages", "requirements", "shape",
    "with",
];

enum Step<'a> {
    Member(&'a str),
    Index(usize),
}

/// serde also reads an object from an array of its members' values; the schemas do not. No list of ours holds lists,
/// so an array is allowed as a member that is a list, and nowhere else.
fn only_lists_are_arrays<'a>(json: &'a Value, path: &mut Vec<Step<'a>>, whole: &'a Value, list: bool) -> Result<(), Error> {
    match json {
        Value::Object(members) => {
            for (key, value) in members {
                path.push(Step::Member(key));
                only_lists_are_arrays(value, path, whole, LISTS.contains(&key.as_str()))?;
                path.pop();
            }
            Ok(())
        }
        Value::Array(elements) if list => {
            for (i, value) in elements.iter().enumerate() {
                path.push(Step::Index(i));
                only_lists_are_arrays(value, path, whole, false)?;
                path.pop();
            }
            Ok(())
        }
        Value::Array(_) => {
            let (mut text, mut at) = (String::new(), Some(whole));
            for step in path.iter() {
                match step {
                    Step::Member(key) => {
                        at = at.and_then(|value| value.get(key));
                        push_member(&mut text, key);
                    }
                    Step::Index(index) => {
                        at = at.and_then(|value| value.get(index));
                        push_index(&mut text, *index, at);
                    }
                }
            }
            Err(Error::new(finished(text), Rule::Schema, "is a list, and may not be one"))
        }
        _ => Ok(()),
    }
}

/// serde's words in ours.
fn reword(message: &str) -> String {
    let quoted = |text: &str| shown(text.trim_matches('`'));
    if let Some(rest) = message.strip_prefix("missing field `") {
        return format!("member \"{}\" is missing", rest.trim_end_matches('`'));
    }
    if let Some(rest) = message.strip_prefix("unknown field `") {
        return match rest.rsplit_once("`, expected ") {
            Some((name, known)) => format!("has a member {}, which is not {}", shown(name), choices(known)),
            None => format!("has a member {}, which is not known here", quoted(rest.split('`').next().unwrap_or(""))),
        };
    }
    if let Some(rest) = message.strip_prefix("unknown variant `")
        && let Some((name, known)) = rest.rsplit_once("`, expected ")
    {
        return format!("{} is not {}", shown(name), choices(known));
    }
    for kind in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = message.strip_prefix(kind)
            && let Some((found, expected)) = rest.rsplit_once(", expected ")
        {
            return format!("is {}, and must be {}", found_words(found), expected_words(expected));
        }
    }
    message.to_owned()
}

/// `` `a` or `b` `` and `` one of `a`, `b` `` as `one of "a", "b"`.
fn choices(known: &str) -> String {
    let list = known.trim_start_matches("one of ").replace("` or `", "`, `").replace('`', "\"");
    if list.contains(", ") { format!("one of {list}") } else { list }
}

fn found_words(found: &str) -> String {
    match found {
        "map" => "an object".into(),
        "sequence" => "a list".into(),
        "unit value" => "null".into(),
        _ => match found.split_once(' ') {
            Some(("string", text)) => shown(text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)),
            Some(("integer" | "boolean", value)) => value.trim_matches('`').to_owned(),
            Some(("floating", rest)) => rest.trim_start_matches("point ").trim_matches('`').to_owned(),
            _ => found.to_owned(),
        },
    }
}

fn expected_words(expected: &str) -> &str {
    match expected {
        "a string" | "string or map" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "a JSON number" => "a number",
        _ if expected.starts_with("struct ") || expected.starts_with("internally tagged") => "an object",
        _ if expected.starts_with("enum ") => "a text",
        _ => expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_is_deeper_than_any_document_is_cut_in_the_middle() {
        let key = "k".repeat(100);
        let deep = |inside: &str| (0..100).fold(inside.to_owned(), |inner, i| format!("{{\"{i:04}{key}\":{inner}}}"));
        for inside in ["!", "{\"a\":1,\"a\":2}", "[]"] {
            let error = read::<Value>(&deep(inside), 1_000_000, "graph").expect_err(inside);
            assert_eq!(error.element.chars().count(), 400, "{error}");
            assert!(error.element.starts_with("0099kkk") && error.element.contains("k…k"), "{error}");
        }
    }

    #[test]
    fn escapes_count_in_what_is_shown() {
        assert_eq!(shown(&"\u{1}".repeat(80)).chars().count(), 80 / 5 * 5 + 3);
        assert_eq!(shown("it's \"so\""), "\"it's \\\"so\\\"\"");
    }
}
