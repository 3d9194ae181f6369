//! Shapes: what an input may be, as data, and the one place that checks it.
//!
//! A [`Member`] table describes an operation's input in the terms of the published model: where a member comes from,
//! whether it must be there, lengths, patterns, words. [`assemble`] puts path, query and body together, [`check`]
//! names everything that is wrong with it. Clients check only presence, types and minima; the rest is ours to check.

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A string.
#[derive(Debug)]
pub struct Text {
    /// Fewest characters.
    pub min: usize,
    /// Most characters.
    pub max: usize,
    /// Regular expression over the whole string; `None` where the model says `^.*$` or `^.+$` (read generously: line
    /// ends are allowed, since boto3's users send documents as they wrote them).
    pub pattern: Option<&'static str>,
}

/// What a value may be.
#[derive(Debug)]
pub enum Shape {
    /// A string.
    Text(&'static Text),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number, bounds included.
    Integer(i64, i64),
    /// `true`, `false`.
    Boolean,
    /// So many, bounds included.
    List(&'static Shape, usize, usize),
    /// Keys, values, how many at most.
    Map(&'static Text, &'static Text, usize),
    /// Members; unknown ones are ignored.
    Structure(&'static [Member]),
}

/// Where a member is in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The JSON body.
    Body,
    /// A label of the path.
    Path,
    /// The query, under this name.
    Query(&'static str),
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// The model's name.
    pub name: &'static str,
    /// Where it is.
    pub at: At,
    /// Whether it must be there.
    pub required: bool,
    /// What it may be.
    pub shape: Shape,
}

impl Member {
    /// Must be in the body.
    pub const fn required(name: &'static str, shape: Shape) -> Member {
        Member { name, at: At::Body, required: true, shape }
    }
    /// May be in the body.
    pub const fn optional(name: &'static str, shape: Shape) -> Member {
        Member { name, at: At::Body, required: false, shape }
    }
    /// A label of the path.
    pub const fn label(name: &'static str, shape: Shape) -> Member {
        Member { name, at: At::Path, required: true, shape }
    }
    /// May be in the query.
    pub const fn query(name: &'static str, wire: &'static str, shape: Shape) -> Member {
        Member { name, at: At::Query(wire), required: false, shape }
    }
}

/// Something wrong with a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the member: `NetworkingConfiguration.Ntp.NtpServers[0]`.
    pub name: String,
    /// What is wrong, in the words of AWS's own messages.
    pub message: String,
}

/// Deepest nesting of an input.
const MAX_DEPTH: usize = 16;

/// Puts an input together from where its members are.
pub fn assemble(
    members: &[Member],
    labels: &[(String, String)],
    query: &[(String, String)],
    mut body: Map<String, Value>,
) -> Map<String, Value> {
    body.retain(|_, value| !value.is_null());
    for member in members {
        match member.at {
            At::Body => {}
            At::Path => {
                body.remove(member.name);
                if let Some((_, text)) = labels.iter().find(|(n, _)| n == member.name) {
                    body.insert(member.name.into(), from_text(&member.shape, text));
                }
            }
            At::Query(wire) => {
                body.remove(member.name);
                let mut values = query.iter().filter(|(n, _)| n == wire).map(|(_, v)| v);
                let value = match &member.shape {
                    Shape::List(inner, ..) => {
                        let all: Vec<Value> = values.map(|v| from_text(inner, v)).collect();
                        (!all.is_empty()).then_some(Value::Array(all))
                    }
                    shape => values.next().map(|v| from_text(shape, v)),
                };
                if let Some(value) = value {
                    body.insert(member.name.into(), value);
                }
            }
        }
    }
    body
}

/// Text of a path or query as the value that its shape wants; as text if it is not one.
fn from_text(shape: &Shape, text: &str) -> Value {
    match shape {
        Shape::Integer(..) => text.parse::<i64>().map_or_else(|_| text.into(), Into::into),
        Shape::Boolean => text.parse::<bool>().map_or_else(|_| text.into(), Into::into),
        _ => text.into(),
    }
}

/// Everything that is wrong with an input.
pub fn check(members: &[Member], input: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = Vec::new();
    structure(members, input, "", 0, &mut faults);
    faults
}

fn structure(members: &[Member], input: &Map<String, Value>, at: &str, depth: usize, faults: &mut Vec<Fault>) {
    for member in members {
        let name = if at.is_empty() { member.name.to_owned() } else { format!("{at}.{}", member.name) };
        match input.get(member.name).filter(|v| !v.is_null()) {
            None if member.required => faults.push(Fault { name, message: "Member must not be null".into() }),
            None => {}
            Some(value) => check_value(&member.shape, value, &name, depth + 1, faults),
        }
    }
}

fn check_value(shape: &Shape, value: &Value, name: &str, depth: usize, faults: &mut Vec<Fault>) {
    let mut fault = |message: String| faults.push(Fault { name: name.to_owned(), message });
    if depth > MAX_DEPTH {
        return fault("Member is nested too deeply".into());
    }
    match (shape, value) {
        (Shape::Text(text), Value::String(s)) => {
            if let Some(message) = text_fault(text, s) {
                fault(message);
            }
        }
        (Shape::Word(words), Value::String(s)) => {
            if !words.contains(&s.as_str()) {
                fault(format!("Member must satisfy enum value set: [{}]", words.join(", ")));
            }
        }
        (Shape::Integer(min, max), Value::Number(n)) => match n.as_i64() {
            Some(n) if n < *min => fault(format!("Member must have value greater than or equal to {min}")),
            Some(n) if n > *max => fault(format!("Member must have value less than or equal to {max}")),
            Some(_) => {}
            None => fault("Member must be a whole number".into()),
        },
        (Shape::Boolean, Value::Bool(_)) => {}
        (Shape::List(inner, min, max), Value::Array(items)) => {
            if items.len() < *min {
                return fault(format!("Member must have length greater than or equal to {min}"));
            }
            if items.len() > *max {
                return fault(format!("Member must have length less than or equal to {max}"));
            }
            for (index, item) in items.iter().enumerate() {
                check_value(inner, item, &format!("{name}[{index}]"), depth + 1, faults);
            }
        }
        (Shape::Map(keys, values, max), Value::Object(map)) => {
            if map.len() > *max {
                return fault(format!("Map must have at most {max} entries"));
            }
            for (key, value) in map {
                let wrong = text_fault(keys, key).map(|m| format!("Map keys: {m}")).or_else(|| match value {
                    Value::String(s) => text_fault(values, s).map(|m| format!("Map value of {key}: {m}")),
                    _ => Some(format!("Map value of {key} must be a string")),
                });
                if let Some(message) = wrong {
                    faults.push(Fault { name: name.to_owned(), message });
                }
            }
        }
        (Shape::Structure(members), Value::Object(map)) => structure(members, map, name, depth, faults),
        (expected, _) => fault(format!("Member must be {}", kind(expected))),
    }
}

fn text_fault(text: &Text, s: &str) -> Option<String> {
    let length = s.chars().count();
    if length < text.min {
        return Some(format!("Member must have length greater than or equal to {}", text.min));
    }
    if length > text.max {
        return Some(format!("Member must have length less than or equal to {}", text.max));
    }
    let pattern = text.pattern?;
    (!matches(pattern, s)).then(|| format!("Member must satisfy regular expression pattern: {pattern}"))
}

fn kind(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text(_) | Shape::Word(_) => "a string",
        Shape::Integer(..) => "a number",
        Shape::Boolean => "true or false",
        Shape::List(..) => "a list",
        Shape::Map(..) => "a map",
        Shape::Structure(_) => "a structure",
    }
}

/// Whether a whole string matches one of the model's patterns. Patterns are constants: each is compiled once.
fn matches(pattern: &'static str, text: &str) -> bool {
    static COMPILED: OnceLock<Mutex<HashMap<&'static str, regex_lite::Regex>>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(Mutex::default);
    let mut compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = compiled
        .entry(pattern)
        .or_insert_with(|| regex_lite::Regex::new(&format!("^(?:{pattern})$")).expect("the model's patterns are well formed"));
    regex.is_match(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    static NAME: Text = Text { min: 1, max: 5, pattern: Some(r"^[a-z]+$") };
    static ANY: Text = Text { min: 0, max: 3, pattern: None };
    static MEMBERS: &[Member] = &[
        Member::required("Name", Shape::Text(&NAME)),
        Member::label("Id", Shape::Text(&NAME)),
        Member::query("MaxResults", "maxResults", Shape::Integer(0, 25)),
        Member::query("Keys", "tagKeys", Shape::List(&Shape::Text(&NAME), 1, 2)),
        Member::optional("Tags", Shape::Map(&NAME, &ANY, 2)),
        Member::optional("Kind", Shape::Word(&["A", "B"])),
        Member::optional("Inner", Shape::Structure(&[Member::required("Flag", Shape::Boolean)])),
    ];

    fn faults(input: Value) -> Vec<String> {
        let Value::Object(map) = input else { panic!("an object") };
        check(MEMBERS, &map).into_iter().map(|f| format!("{}: {}", f.name, f.message)).collect()
    }

    #[test]
    fn a_right_input_has_no_faults_at_every_limit() {
        let good = json!({ "Name": "abcde", "Id": "a", "MaxResults": 25, "Tags": {"a": "", "b": "xyz"}, "Kind": "B", "Inner": {"Flag": true, "Other": 1} });
        assert!(faults(good).is_empty());
    }

    #[test]
    fn one_past_each_limit_is_a_fault() {
        for (change, expected) in [
            (json!({ "Name": "abcdef" }), "Name: Member must have length less than or equal to 5"),
            (json!({ "Name": "" }), "Name: Member must have length greater than or equal to 1"),
            (json!({ "Name": "A" }), "Name: Member must satisfy regular expression pattern: ^[a-z]+$"),
            (json!({ "Name": "a\n" }), "Name: Member must satisfy regular expression pattern: ^[a-z]+$"),
            (json!({ "Name": null }), "Name: Member must not be null"),
            (json!({ "Name": 3 }), "Name: Member must be a string"),
            (json!({ "MaxResults": 26 }), "MaxResults: Member must have value less than or equal to 25"),
            (json!({ "MaxResults": "x" }), "MaxResults: Member must be a number"),
            (json!({ "Kind": "C" }), "Kind: Member must satisfy enum value set: [A, B]"),
            (json!({ "Tags": {"a": "xyzz"} }), "Tags: Map value of a: Member must have length less than or equal to 3"),
            (json!({ "Tags": {"a": "", "b": "", "c": ""} }), "Tags: Map must have at most 2 entries"),
            (json!({ "Inner": {} }), "Inner.Flag: Member must not be null"),
            (json!({ "Keys": ["a", "b", "c"] }), "Keys: Member must have length less than or equal to 2"),
            (json!({ "Keys": ["a", "B"] }), "Keys[1]: Member must satisfy regular expression pattern: ^[a-z]+$"),
        ] {
            let mut input = json!({ "Name": "a", "Id": "a" });
            input.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            assert_eq!(faults(input), [expected]);
        }
    }

    #[test]
    fn path_and_query_win_over_a_body_that_names_their_members() {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
        let body = json!({ "Id": "forged", "MaxResults": 9, "Name": "a", "Kind": null }).as_object().unwrap().clone();
        let query = pairs(&[("maxResults", "7"), ("tagKeys", "a"), ("tagKeys", "b")]);
        let input = assemble(MEMBERS, &pairs(&[("Id", "real")]), &query, body);
        assert_eq!(Value::Object(input), json!({ "Id": "real", "MaxResults": 7, "Name": "a", "Keys": ["a", "b"] }));
    }
}
