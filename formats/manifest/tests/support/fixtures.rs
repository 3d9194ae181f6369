//! Makes a valid and an invalid change of a sample for a constraint of a schema.

use super::constraints::Constraint;
use super::{Kind, Validator, changed};
use serde_json::{Value, json};

/// `(valid, invalid)`.
pub fn changes(kind: Kind, constraint: &Constraint, sample: &Value, validator: &Validator) -> (Value, Value) {
    let Constraint { label, at, keyword, value, pattern, .. } = constraint;
    let set = |value: Value| json!([{ "at": at, "set": value }]);
    let set_member = |member: &str, value: Value| json!([{ "at": format!("{at}/{member}"), "set": value }]);
    let remove = |member: &str| json!({ "at": format!("{at}/{member}"), "remove": true });
    let number = value.as_u64().unwrap_or(0) as usize;
    let as_it_is = json!([]);
    match keyword.as_str() {
        "type" => (
            as_it_is,
            set(match value.as_str().unwrap() {
                "object" | "string" => json!(7),
                "array" => json!({}),
                "boolean" => json!("true"),
                "integer" => json!(3.5),
                "number" => json!("3.5"),
                other => panic!("{label}: type {other}"),
            }),
        ),
        "const" | "enum" => (set(value.clone()), set(json!(format!("{}x", value.as_str().unwrap())))),
        // A wrong one that has the right length.
        "pattern" => (as_it_is, set(json!("a b c"))),
        "required" => {
            let member = value.as_str().unwrap();
            (as_it_is, json!([remove(member)]))
        }
        "additionalProperties" => (as_it_is, set_member("unknown", json!(1))),
        "dependencies" => {
            let (member, needs) = value.as_object().unwrap().iter().next().unwrap();
            let others = sample.pointer(at).unwrap().as_object().unwrap().keys();
            let needed = needs.as_str().unwrap();
            let mut changes: Vec<Value> =
                others.filter(|name| *name != member && *name != needed).map(|name| remove(name)).collect();
            let valid = changes.clone();
            changes.push(remove(needed));
            (valid.into(), changes.into())
        }
        // The only one in the schemas: one of two versions.
        "anyOf" => (json!([remove("minVersion")]), json!([remove("minVersion"), remove("maxVersion")])),
        "oneOf" => {
            let member = if sample.pointer(at).unwrap().get("interface").is_some() { "interface" } else { "type" };
            (as_it_is, set_member(member, json!("none-of-them")))
        }
        "minimum" | "maximum" => {
            let past = if keyword == "minimum" { number as i64 - 1 } else { number as i64 + 1 };
            (set(value.clone()), set(json!(past)))
        }
        "minItems" | "maxItems" => {
            let item = sample.pointer(at).unwrap()[0].clone();
            let copies = |count: usize| set(json!({ "$copies": [item, count] }));
            let past = if keyword == "minItems" { number - 1 } else { number + 1 };
            (copies(number), copies(past))
        }
        "minLength" | "maxLength" => {
            let past = if keyword == "minLength" { number - 1 } else { number + 1 };
            // Its beginning fits the pattern; the rest is repeated.
            let (first, rest) = match pattern.as_deref() {
                Some(pattern) if pattern.contains("::") => ("a::", "b"),
                Some(pattern) if pattern.starts_with("^[0-9]+") => ("1.", "0"),
                _ => ("", "a"),
            };
            let text = |length: usize| match length.checked_sub(first.len()) {
                Some(more) => set(json!({ "$repeat": [rest, more], "$after": first })),
                None => set(json!(first.get(..length).unwrap())),
            };
            let (valid, invalid) = (text(number), text(past));
            assert!(validator.accepts(kind, &changed(sample, &valid)), "{label}: {valid}");
            (valid, invalid)
        }
        other => panic!("{label}: no fixture is known for {other}"),
    }
}
