//! Shapes: what an input or an output may be, as data, and the one place that checks it.
//!
//! A [`Member`] table describes an operation's input or output in the terms of the published model: where a member comes
//! from, whether it must be there, lengths, patterns, words. [`assemble`] puts path, query and body together, [`check`]
//! names everything that is wrong with it. Clients check only presence, types and minima; the rest is ours to check.
//! [`check_output`] finds outputs that are not what the model promises.

use base64::Engine;
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

/// No upper bound of its own: the size of the whole document bounds it.
pub const MANY: usize = usize::MAX;
/// Any string.
pub static ANY_TEXT: Text = Text { min: 0, max: MANY, pattern: None };

/// A shape under the model's name.
#[derive(Debug)]
pub struct Named {
    /// The model's name: `DeviceId`.
    pub name: &'static str,
    /// What it is.
    pub shape: Shape,
    /// Whether it may be shown to nobody but its owner.
    pub sensitive: bool,
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
    /// A number.
    Double,
    /// Seconds since 1970, as a number.
    Timestamp,
    /// Bytes, in base64.
    Blob,
    /// So many, bounds included.
    List(&'static Shape, usize, usize),
    /// Keys, values, how many at most.
    Map(&'static Shape, &'static Shape, usize),
    /// Members; unknown ones are ignored in inputs.
    Structure(&'static [Member]),
    /// Members of which exactly one is there.
    Union(&'static [Member]),
    /// Another shape, under its name.
    Named(&'static Named),
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
    /// A header of this name (errors only).
    Header(&'static str),
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
    /// Must be in the query.
    pub const fn required_query(name: &'static str, wire: &'static str, shape: Shape) -> Member {
        Member { name, at: At::Query(wire), required: true, shape }
    }
}

impl Shape {
    /// The shape itself, without its name.
    pub fn bare(&self) -> &Shape {
        match self {
            Shape::Named(named) => named.shape.bare(),
            shape => shape,
        }
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
            At::Body | At::Header(_) => {}
            At::Path => {
                body.remove(member.name);
                if let Some((_, text)) = labels.iter().find(|(n, _)| n == member.name) {
                    body.insert(member.name.into(), from_text(&member.shape, text));
                }
            }
            At::Query(wire) => {
                body.remove(member.name);
                let mut values = query.iter().filter(|(n, _)| n == wire).map(|(_, v)| v);
                let value = match member.shape.bare() {
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
    match shape.bare() {
        Shape::Integer(..) => text.parse::<i64>().map_or_else(|_| text.into(), Into::into),
        Shape::Boolean => text.parse::<bool>().map_or_else(|_| text.into(), Into::into),
        _ => text.into(),
    }
}

/// Everything that is wrong with an input.
pub fn check(members: &[Member], input: &Map<String, Value>) -> Vec<Fault> {
    let mut checker = Checker { exact: false, faults: Vec::new() };
    checker.structure(members, input, "", 0);
    checker.faults
}

/// Everything that is wrong with an output: also members that the model does not have, and `null`s.
pub fn check_output(members: &[Member], output: &Value) -> Vec<Fault> {
    let mut checker = Checker { exact: true, faults: Vec::new() };
    match output {
        Value::Object(map) => checker.structure(members, map, "", 0),
        _ => checker.fault("", "Output must be a structure"),
    }
    checker.faults
}

struct Checker {
    /// Whether only known members may be there, and no `null`s.
    exact: bool,
    faults: Vec<Fault>,
}

impl Checker {
    fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(Fault { name: name.to_owned(), message: message.into() });
    }

    fn structure(&mut self, members: &[Member], map: &Map<String, Value>, at: &str, depth: usize) {
        let full = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        for member in members {
            match map.get(member.name).filter(|v| self.exact || !v.is_null()) {
                None if member.required => self.fault(&full(member.name), "Member must not be null"),
                None => {}
                Some(value) => self.value(&member.shape, value, &full(member.name), depth + 1),
            }
        }
        if self.exact {
            for unknown in map.keys().filter(|k| !members.iter().any(|m| m.name == k.as_str())) {
                self.fault(&full(unknown), "Member is not one of the model's");
            }
        }
    }

    fn value(&mut self, shape: &Shape, value: &Value, name: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return self.fault(name, "Member is nested too deeply");
        }
        match (shape, value) {
            (Shape::Named(named), value) => self.value(&named.shape, value, name, depth),
            (Shape::Text(text), Value::String(s)) => {
                if let Some(message) = text_fault(text, s) {
                    self.fault(name, message);
                }
            }
            (Shape::Word(words), Value::String(s)) => {
                if !words.contains(&s.as_str()) {
                    self.fault(name, format!("Member must satisfy enum value set: [{}]", words.join(", ")));
                }
            }
            (Shape::Integer(min, max), Value::Number(n)) => match n.as_i64() {
                Some(n) if n < *min => self.fault(name, format!("Member must have value greater than or equal to {min}")),
                Some(n) if n > *max => self.fault(name, format!("Member must have value less than or equal to {max}")),
                Some(_) => {}
                None => self.fault(name, "Member must be a whole number"),
            },
            (Shape::Boolean, Value::Bool(_)) | (Shape::Timestamp | Shape::Double, Value::Number(_)) => {}
            (Shape::Blob, Value::String(s)) => {
                if base64::engine::general_purpose::STANDARD.decode(s).is_err() {
                    self.fault(name, "Member must be base64");
                }
            }
            (Shape::List(inner, min, max), Value::Array(items)) => {
                if items.len() < *min {
                    return self.fault(name, format!("Member must have length greater than or equal to {min}"));
                }
                if items.len() > *max {
                    return self.fault(name, format!("Member must have length less than or equal to {max}"));
                }
                for (index, item) in items.iter().enumerate() {
                    self.value(inner, item, &format!("{name}[{index}]"), depth + 1);
                }
            }
            (Shape::Map(keys, values, max), Value::Object(map)) => {
                if map.len() > *max {
                    return self.fault(name, format!("Map must have at most {max} entries"));
                }
                for (key, value) in map {
                    let entry = format!("{name}.{}", shown(key));
                    let before = self.faults.len();
                    self.value(keys, &Value::String(key.clone()), &entry, depth + 1);
                    self.faults[before..].iter_mut().for_each(|fault| fault.message.insert_str(0, "Map key: "));
                    self.value(values, value, &entry, depth + 1);
                }
            }
            (Shape::Structure(members), Value::Object(map)) => self.structure(members, map, name, depth),
            (Shape::Union(members), Value::Object(map)) => {
                match members.iter().filter(|m| map.get(m.name).is_some_and(|v| !v.is_null())).count() {
                    1 => self.structure(members, map, name, depth),
                    0 => self.fault(name, format!("Member must have one of: {}", names(members))),
                    _ => self.fault(name, format!("Member must have only one of: {}", names(members))),
                }
            }
            (expected, _) => self.fault(name, format!("Member must be {}", kind(expected))),
        }
    }
}

/// The start of a key that somebody else chose: it goes into a message.
fn shown(key: &str) -> String {
    key.chars().take(128).collect()
}

fn names(members: &[Member]) -> String {
    members.iter().map(|m| m.name).collect::<Vec<_>>().join(", ")
}

fn text_fault(text: &Text, s: &str) -> Option<String> {
    let length = s.chars().count();
    if length < text.min {
        return Some(format!("Member must have length greater than or equal to {}", text.min));
    }
    if length > text.max {
        return Some(format!("Member must have length less than or equal to {}", text.max));
    }
    match text.pattern {
        Some(pattern) if !matches(pattern, s) => Some(format!("Member must satisfy regular expression pattern: {pattern}")),
        // The models say nothing of it, but PostgreSQL's texts hold none.
        _ => s.contains('\0').then(|| "Member must not contain U+0000".into()),
    }
}

fn kind(shape: &Shape) -> &'static str {
    match shape.bare() {
        Shape::Text(_) | Shape::Word(_) => "a string",
        Shape::Blob => "base64",
        Shape::Integer(..) | Shape::Timestamp | Shape::Double => "a number",
        Shape::Boolean => "true or false",
        Shape::List(..) => "a list",
        Shape::Map(..) => "a map",
        Shape::Structure(_) | Shape::Union(_) | Shape::Named(_) => "a structure",
    }
}

/// Whether a whole string matches one of the model's patterns. Patterns are constants: each is compiled once.
fn matches(pattern: &'static str, text: &str) -> bool {
    static COMPILED: OnceLock<Mutex<HashMap<&'static str, regex_lite::Regex>>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(Mutex::default);
    let mut compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = compiled.entry(pattern).or_insert_with(|| {
        regex_lite::Regex::new(&format!("^(?:{pattern})$")).expect("the model's patterns are well formed")
    });
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
        Member::optional("Tags", Shape::Map(&Shape::Text(&NAME), &Shape::Text(&ANY), 2)),
        Member::optional("Kind", Shape::Word(&["A", "B"])),
        Member::optional("Inner", Shape::Structure(&[Member::required("Flag", Shape::Boolean)])),
        Member::optional(
            "Payload",
            Shape::Union(&[
                Member::optional(
                    "Words",
                    Shape::Named(&Named { name: "Words", shape: Shape::Text(&ANY), sensitive: false }),
                ),
                Member::optional("Number", Shape::Integer(0, 1)),
            ]),
        ),
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
            (json!({ "Tags": {"a": "xyzz"} }), "Tags.a: Member must have length less than or equal to 3"),
            (json!({ "Tags": {"a": "", "b": "", "c": ""} }), "Tags: Map must have at most 2 entries"),
            (json!({ "Tags": {"a": "x\0"} }), "Tags.a: Member must not contain U+0000"),
            (json!({ "Inner": {} }), "Inner.Flag: Member must not be null"),
            (json!({ "Tags": {"A": ""} }), "Tags.A: Map key: Member must satisfy regular expression pattern: ^[a-z]+$"),
            (json!({ "Tags": {"a": 1} }), "Tags.a: Member must be a string"),
            (json!({ "Payload": {} }), "Payload: Member must have one of: Words, Number"),
            (json!({ "Payload": {"Words": "", "Number": 1} }), "Payload: Member must have only one of: Words, Number"),
            (json!({ "Payload": {"Words": "abcd"} }), "Payload.Words: Member must have length less than or equal to 3"),
            (json!({ "Keys": ["a", "b", "c"] }), "Keys: Member must have length less than or equal to 2"),
            (json!({ "Keys": ["a", "B"] }), "Keys[1]: Member must satisfy regular expression pattern: ^[a-z]+$"),
        ] {
            let mut input = json!({ "Name": "a", "Id": "a" });
            input.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            assert_eq!(faults(input), [expected]);
        }
    }

    #[test]
    fn an_output_has_what_the_model_says_and_nothing_else() {
        static OUTPUT: &[Member] = &[
            Member::required("Time", Shape::Timestamp),
            Member::optional("Bytes", Shape::Blob),
            Member::optional("Next", Shape::Text(&NAME)),
        ];
        let faults = |output: Value| check_output(OUTPUT, &output).into_iter().map(|f| f.name).collect::<Vec<_>>();
        assert!(faults(json!({ "Time": 1652409973.613, "Bytes": "AAE=" })).is_empty());
        assert_eq!(faults(json!({ "Bytes": "A" })), ["Time", "Bytes"]);
        assert_eq!(faults(json!({ "Time": 1, "Next": null, "Other": 1 })), ["Next", "Other"]);
        assert_eq!(faults(json!([])), [""]);
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
