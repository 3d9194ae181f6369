//! What an update does to a shadow, as AWS IoT Core documents it. Pure.
//!
//! A document has two halves, `desired` and `reported`. An update names what changes; `null` deletes. What is in
//! `desired` and not equal in `reported` is the *delta*. Lists are values: they are replaced, never merged.

use belvedere_device_protocol::shadow::{APPLICATIONS, DEVICE};
use serde_json::{Map, Value, json};

/// Largest document, bytes of JSON, as AWS IoT Core has it.
pub const MAX_DOCUMENT: usize = 8 * 1024;
/// Largest document of the shadows that the service and its appliances use between them: ten applications with all
/// their nodes do not fit into the other.
pub const MAX_OWN_DOCUMENT: usize = 200 * 1024;
/// Deepest nesting of a half, itself included: eight levels below it, as AWS IoT Core has it.
pub const MAX_DEPTH: usize = 9;
const HALVES: [&str; 2] = ["desired", "reported"];

/// A document: each half and, leaf for leaf, when it was set.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Document {
    /// `desired`, `reported`.
    pub state: Map<String, Value>,
    /// Likewise, with `{"timestamp": seconds}` in place of values.
    pub metadata: Map<String, Value>,
}

/// A request that was refused: AWS IoT Core's code and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// HTTP-like.
    pub code: u16,
    /// For people.
    pub message: String,
}

impl Refused {
    /// A refusal.
    pub fn new(code: u16, message: impl Into<String>) -> Refused {
        Refused { code, message: message.into() }
    }
}

/// A parsed update.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// What changes.
    pub state: Map<String, Value>,
    /// Refused unless the shadow has this version.
    pub version: Option<u64>,
    /// Echoed.
    pub client_token: Option<String>,
}

/// Reads the payload of an update. Unknown members beside `state` are ignored; unknown members in it are not.
pub fn parse_update(payload: &[u8]) -> Result<Update, Refused> {
    let document: Value = serde_json::from_slice(payload).map_err(|_| Refused::new(400, "Payload contains invalid json"))?;
    let client_token = client_token(&document)?;
    let version = match document.get("version") {
        None | Some(Value::Null) => None,
        Some(v) => Some(v.as_u64().ok_or_else(|| Refused::new(400, "Invalid version"))?),
    };
    let state = match document.get("state") {
        Some(Value::Object(state)) => state.clone(),
        Some(_) => return Err(Refused::new(400, "State node must be an object")),
        None => return Err(Refused::new(400, "Missing required node: state")),
    };
    for (half, value) in &state {
        if !HALVES.contains(&half.as_str()) {
            return Err(Refused::new(400, format!("State contains an invalid node: '{half}'")));
        }
        if !(value.is_object() || value.is_null()) {
            return Err(Refused::new(400, format!("{half} node must be an object")));
        }
        if depth(value) > MAX_DEPTH {
            return Err(Refused::new(400, "JSON contains too many levels of nesting"));
        }
    }
    Ok(Update { state, version, client_token })
}

/// The client token of any shadow request; an empty payload has none.
pub fn client_token(document: &Value) -> Result<Option<String>, Refused> {
    match document.get("clientToken") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(token)) if token.len() <= 64 => Ok(Some(token.clone())),
        Some(_) => Err(Refused::new(400, "Invalid clientToken")),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The limit of a shadow's document.
pub fn limit(name: &str) -> usize {
    if [DEVICE, APPLICATIONS].contains(&name) { MAX_OWN_DOCUMENT } else { MAX_DOCUMENT }
}

/// Applies an update at `now` (seconds since 1970), if the document then has no more than `limit` bytes.
pub fn apply(before: &Document, update: &Update, now: i64, limit: usize) -> Result<Document, Refused> {
    let mut after = before.clone();
    merge(&mut after.state, &update.state, Tree::State);
    merge(&mut after.metadata, &stamp(&update.state, now), Tree::Metadata);
    if serde_json::to_vec(&after.state).map_or(0, |v| v.len()) > limit {
        return Err(Refused::new(413, "The payload exceeds the maximum size allowed"));
    }
    Ok(after)
}

#[derive(Clone, Copy, PartialEq)]
enum Tree {
    State,
    Metadata,
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>, tree: Tree) {
    for (key, value) in from {
        match value {
            Value::Null => {
                into.remove(key);
            }
            Value::Object(inner) => {
                let slot = into.entry(key.clone()).or_insert_with(|| json!({}));
                if !slot.is_object() || (tree == Tree::Metadata && is_leaf_stamp(slot) && !is_leaf_stamp(value)) {
                    *slot = json!({});
                }
                if let Value::Object(slot) = slot {
                    merge(slot, inner, tree);
                }
            }
            other => {
                into.insert(key.clone(), other.clone());
            }
        }
    }
}

/// In metadata a leaf is an object as well: it gives way when the state's leaf becomes an object.
fn is_leaf_stamp(value: &Value) -> bool {
    value.as_object().is_some_and(|o| o.len() == 1 && o.get("timestamp").is_some_and(Value::is_i64))
}

/// The same tree with `{"timestamp": now}` at its leaves, and `null` where it deletes.
pub fn stamp(from: &Map<String, Value>, now: i64) -> Map<String, Value> {
    from.iter()
        .map(|(key, value)| {
            let stamped = match value {
                Value::Null => Value::Null,
                Value::Object(inner) => Value::Object(stamp(inner, now)),
                _ => json!({ "timestamp": now }),
            };
            (key.clone(), stamped)
        })
        .collect()
}

/// What is in `desired` and not equal in `reported`; `None` if nothing.
pub fn delta(document: &Document) -> Option<Map<String, Value>> {
    let empty = Map::new();
    let desired = document.state.get("desired")?.as_object()?;
    let reported = document.state.get("reported").and_then(Value::as_object).unwrap_or(&empty);
    let difference = differing(desired, reported);
    (!difference.is_empty()).then_some(difference)
}

/// The part of `metadata` that belongs to the members of `delta`.
pub fn metadata_of(delta: &Map<String, Value>, metadata: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in delta {
        match (value, metadata.get(key)) {
            (Value::Object(inner), Some(Value::Object(stamps))) => {
                out.insert(key.clone(), Value::Object(metadata_of(inner, stamps)));
            }
            (_, Some(stamp)) => {
                out.insert(key.clone(), stamp.clone());
            }
            (_, None) => {}
        }
    }
    out
}

fn differing(desired: &Map<String, Value>, reported: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, wanted) in desired {
        match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(actual))) => {
                let inner = differing(wanted, actual);
                if !inner.is_empty() {
                    out.insert(key.clone(), Value::Object(inner));
                }
            }
            (wanted, Some(actual)) if wanted == actual => {}
            (wanted, _) => {
                out.insert(key.clone(), wanted.clone());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(state: Value) -> Update {
        parse_update(json!({ "state": state }).to_string().as_bytes()).unwrap()
    }
    fn after(updates: &[Value]) -> Document {
        updates.iter().fold(Document::default(), |d, u| apply(&d, &update(u.clone()), 7, MAX_DOCUMENT).unwrap())
    }

    #[test]
    fn updates_merge_and_null_deletes() {
        let document = after(&[
            json!({ "desired": { "a": { "b": 1, "c": 2 }, "list": [1, 2] } }),
            json!({ "desired": { "a": { "b": null, "d": 3 }, "list": [3] } }),
        ]);
        assert_eq!(Value::Object(document.state), json!({ "desired": { "a": { "c": 2, "d": 3 }, "list": [3] } }));
        let expected =
            json!({ "desired": { "a": { "c": {"timestamp": 7}, "d": {"timestamp": 7} }, "list": {"timestamp": 7} } });
        assert_eq!(Value::Object(document.metadata), expected);
        assert!(after(&[json!({ "desired": { "a": 1 } }), json!({ "desired": null })]).state.is_empty());
    }

    #[test]
    fn a_leaf_that_becomes_an_object_takes_its_metadata_along() {
        let document = after(&[json!({ "reported": { "a": 1 } }), json!({ "reported": { "a": { "b": 1 } } })]);
        assert_eq!(Value::Object(document.metadata), json!({ "reported": { "a": { "b": { "timestamp": 7 } } } }));
    }

    #[test]
    fn delta_is_what_is_desired_and_not_reported() {
        let document = after(&[
            json!({ "desired": { "a": 1, "b": { "x": 1, "y": 2 }, "c": [1] } }),
            json!({ "reported": { "a": 1, "b": { "x": 1, "y": 3 }, "z": 9 } }),
        ]);
        assert_eq!(Value::Object(delta(&document).unwrap()), json!({ "b": { "y": 2 }, "c": [1] }));
        assert_eq!(delta(&after(&[json!({ "desired": { "a": 1 }, "reported": { "a": 1, "b": 2 } })])), None);
        assert_eq!(delta(&after(&[json!({ "reported": { "a": 1 } })])), None);
    }

    #[test]
    fn a_delta_comes_with_the_times_of_its_members() {
        let document =
            after(&[json!({ "desired": { "a": 1, "b": { "x": 1, "y": 2 } }, "reported": { "a": 1, "b": { "x": 1 } } })]);
        let desired = document.metadata["desired"].as_object().unwrap();
        let times = metadata_of(&delta(&document).unwrap(), desired);
        assert_eq!(Value::Object(times), json!({ "b": { "y": { "timestamp": 7 } } }));
    }

    #[test]
    fn bad_updates_are_refused() {
        for (payload, code) in [
            ("nonsense", 400),
            ("{}", 400),
            (r#"{"state":1}"#, 400),
            (r#"{"state":{"wanted":{}}}"#, 400),
            (r#"{"state":{"desired":3}}"#, 400),
            (r#"{"state":{},"version":"x"}"#, 400),
            (r#"{"state":{},"clientToken":7}"#, 400),
        ] {
            assert_eq!(parse_update(payload.as_bytes()).unwrap_err().code, code, "{payload}");
        }
        let deep =
            format!(r#"{{"state":{{"desired":{}1{}}}}}"#, r#"{"a":"#.repeat(MAX_DEPTH + 1), "}".repeat(MAX_DEPTH + 1));
        assert!(parse_update(deep.as_bytes()).is_err());
        let frame = json!({ "desired": { "a": "" } }).to_string().len();
        let large = |bytes: usize| update(json!({ "desired": { "a": "x".repeat(bytes - frame) } }));
        let apply = |update: &Update| apply(&Document::default(), update, 7, limit("mine"));
        assert!(apply(&large(MAX_DOCUMENT)).is_ok());
        assert_eq!(apply(&large(MAX_DOCUMENT + 1)).unwrap_err().code, 413);
    }
}
