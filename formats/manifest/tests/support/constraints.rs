//! Every constraint that a published schema puts on a document, with a place in a sample document where it counts.

use super::{Kind, folder};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// One constraint at one kind of place.
#[derive(Debug, Clone)]
pub struct Constraint {
    /// Such as `nodeGraph.nodes[string].name maxLength 128`.
    pub label: String,
    /// Which sample.
    pub sample: usize,
    /// Where in it.
    pub at: String,
    /// The keyword of the schema.
    pub keyword: String,
    /// Its value; for `required`, `enum` and `dependencies` one of them.
    pub value: Value,
    /// The schema's `pattern` at the same place: texts of a certain length must fit it.
    pub pattern: Option<String>,
}

/// Walks the schema of a document along its samples.
pub fn constraints(kind: Kind, samples: &[Value]) -> Vec<Constraint> {
    let path = folder("data/schema").join(kind.schema());
    let places: Vec<Place> = (0..samples.len()).map(|sample| Place { sample, at: String::new() }).collect();
    let mut walk = Walk { samples, found: Vec::new() };
    let schema = load(&path);
    walk.visit(&schema, &path, &schema, "", &places);
    walk.found
}

#[derive(Debug, Clone)]
struct Place {
    sample: usize,
    at: String,
}

struct Walk<'a> {
    samples: &'a [Value],
    found: Vec<Constraint>,
}

fn load(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

impl Walk<'_> {
    fn value(&self, place: &Place) -> &Value {
        self.samples[place.sample].pointer(&place.at).unwrap()
    }

    /// `file` and `root` are where `$ref` counts from, `label` names the place, `places` are all its places in samples.
    fn visit(&mut self, schema: &Value, file: &Path, root: &Value, label: &str, places: &[Place]) {
        let members = schema.as_object().unwrap_or_else(|| panic!("{label}: a schema is an object"));
        assert!(!places.is_empty(), "no sample document has {label}");
        // In draft 7 a reference stands alone.
        if let Some(reference) = members.get("$ref") {
            let (file, root, schema) = follow(reference.as_str().unwrap(), file, root);
            return self.visit(&schema, &file, &root, label, places);
        }
        let pattern = members.get("pattern").map(|pattern| pattern.as_str().unwrap().to_owned());
        for (keyword, value) in members {
            let mut add = |value: &Value| {
                let shown = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let label = format!("{} {keyword} {shown}", if label.is_empty() { "(document)" } else { label });
                let Place { sample, at } = places[0].clone();
                self.found.push(Constraint {
                    label,
                    sample,
                    at,
                    keyword: keyword.clone(),
                    value: value.clone(),
                    pattern: pattern.clone(),
                });
            };
            match keyword.as_str() {
                "$schema" | "$id" | "title" | "examples" | "description" | "default" | "definitions" => {}
                "type" | "const" | "pattern" | "minLength" | "maxLength" | "minItems" | "maxItems" | "minimum"
                | "maximum" => add(value),
                "required" | "enum" => value.as_array().unwrap().iter().for_each(add),
                "additionalProperties" => {
                    assert_eq!(value, false, "{label}: only false is known here");
                    add(value);
                }
                "dependencies" => {
                    for (member, needs) in value.as_object().unwrap() {
                        assert_eq!(needs.as_array().unwrap().len(), 1, "{label}: one dependency is known here");
                        add(&json!({ member: needs[0] }));
                    }
                }
                "anyOf" => add(value),
                "properties" => {
                    for (member, schema) in value.as_object().unwrap() {
                        let inner: Vec<Place> = places
                            .iter()
                            .filter(|place| self.value(place).get(member).is_some())
                            .map(|place| Place { sample: place.sample, at: format!("{}/{member}", place.at) })
                            .collect();
                        let dot = if label.is_empty() { "" } else { "." };
                        self.visit(schema, file, root, &format!("{label}{dot}{member}"), &inner);
                    }
                }
                "items" => {
                    let inner: Vec<Place> = places
                        .iter()
                        .flat_map(|place| {
                            let count = self.value(place).as_array().map_or(0, Vec::len);
                            (0..count).map(move |i| Place { sample: place.sample, at: format!("{}/{i}", place.at) })
                        })
                        .collect();
                    self.visit(value, file, root, &format!("{label}[]"), &inner);
                }
                "oneOf" => self.branches(value.as_array().unwrap(), file, root, label, places),
                other => panic!("{label}: the keyword {other} is not known here; teach it to this walk"),
            }
        }
    }

    /// Alternatives are told apart by their `type` or `interface`.
    fn branches(&mut self, branches: &[Value], file: &Path, root: &Value, label: &str, places: &[Place]) {
        if let [branch] = branches {
            return self.visit(branch, file, root, label, places);
        }
        let Place { sample, at } = places[0].clone();
        let value = json!(branches.len());
        self.found.push(Constraint {
            label: format!("{label} oneOf {value}"),
            sample,
            at,
            keyword: "oneOf".into(),
            value,
            pattern: None,
        });
        for branch in branches {
            let (file, root, schema) = match branch.get("$ref") {
                Some(reference) => follow(reference.as_str().unwrap(), file, root),
                None => (file.to_owned(), root.clone(), branch.clone()),
            };
            let (member, word) = ["interface", "type"]
                .iter()
                .find_map(|member| {
                    let schema = schema["properties"].get(member)?;
                    Some((
                        *member,
                        schema
                            .get("const")
                            .or_else(|| schema.get("enum")?.get(0))
                            .and_then(Value::as_str)
                            .unwrap_or("::")
                            .to_owned(),
                    ))
                })
                .unwrap_or_else(|| panic!("{label}: a branch that nothing tells apart"));
            let fits = |place: &&Place| {
                let value = self.value(place)[member].as_str().unwrap_or("");
                if word == "::" { value.contains("::") } else { value == word }
            };
            let inner: Vec<Place> = places.iter().filter(fits).cloned().collect();
            let word = if word == "::" { "interface" } else { &word };
            let label = format!("{}[{word}]", label.trim_end_matches("[]"));
            self.visit(&schema, &file, &root, &label, &inner);
        }
    }
}

fn follow(reference: &str, file: &Path, root: &Value) -> (PathBuf, Value, Value) {
    let (name, pointer) = reference.split_once('#').unwrap_or((reference, ""));
    let (file, root) = match name {
        "" => (file.to_owned(), root.clone()),
        name => {
            let file = file.parent().unwrap().join(name);
            let root = load(&file);
            (file, root)
        }
    };
    let schema = root.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere")).clone();
    (file, root, schema)
}
