//! What the tests of rules stand on: sample documents, changes to them, and the published schemas in a validator that
//! others wrote.
#![allow(dead_code)] // each test uses a part

pub mod constraints;
pub mod fixtures;

use belvedere_manifest::{Error, parse_descriptor, parse_graph, parse_overrides, parse_package};
use serde_json::Value;

pub fn folder(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

pub fn read(name: &str) -> String {
    let path = folder(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn json(name: &str) -> Value {
    serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Whether the fixtures are written again instead of compared: `BELVEDERE_BLESS=1`.
pub fn blessing() -> bool {
    std::env::var_os("BELVEDERE_BLESS").is_some()
}

/// Makes changes to a document. A change is `{"at": pointer, "set": value}` or `{"at": pointer, "remove": true}`; the last
/// step `-` appends to a list. `{"$repeat": ["x", 3]}` in a value is `"xxx"` (`"$after"` stands before it), and
/// `{"$copies": [value, 2]}` is that value twice in a list: fixtures stay readable.
pub fn changed(document: &Value, changes: &Value) -> Value {
    let mut document = document.clone();
    for change in changes.as_array().expect("changes are a list") {
        let at = change["at"].as_str().expect("a change has `at`");
        let Some((parent, last)) = at.rsplit_once('/') else {
            document = expanded(&change["set"]);
            continue;
        };
        let last = last.replace("~1", "/");
        let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("{at} is not in the document"));
        match (parent, change.get("set").map(expanded)) {
            (Value::Object(members), Some(value)) => drop(members.insert(last, value)),
            (Value::Object(members), None) => drop(members.remove(&last).unwrap_or_else(|| panic!("{at} is not there"))),
            (Value::Array(list), Some(value)) if last == "-" => list.push(value),
            (Value::Array(list), Some(value)) => list[last.parse::<usize>().unwrap()] = value,
            (Value::Array(list), None) => drop(list.remove(last.parse().unwrap())),
            _ => panic!("{at}: its parent holds nothing"),
        }
    }
    document
}

fn expanded(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            if let Some(repeat) = members.get("$repeat") {
                let first = members.get("$after").and_then(Value::as_str).unwrap_or("");
                return format!("{first}{}", repeat[0].as_str().unwrap().repeat(repeat[1].as_u64().unwrap() as usize))
                    .into();
            }
            if let Some(copies) = members.get("$copies") {
                return vec![copies[0].clone(); copies[1].as_u64().unwrap() as usize].into();
            }
            members.iter().map(|(name, value)| (name.clone(), expanded(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(list) => list.iter().map(expanded).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

/// The four documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Graph,
    Overrides,
    Package,
    Descriptor,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Graph, Kind::Overrides, Kind::Package, Kind::Descriptor];

    pub fn word(self) -> &'static str {
        match self {
            Kind::Graph => "graph",
            Kind::Overrides => "overrides",
            Kind::Package => "package",
            Kind::Descriptor => "descriptor",
        }
    }

    /// File of its published schema.
    pub fn schema(self) -> &'static str {
        match self {
            Kind::Graph => "nodeGraph.schema.json",
            Kind::Overrides => "nodeGraphOverrides.schema.json",
            Kind::Package => "nodePackage.schema.json",
            Kind::Descriptor => "assetDescriptor.schema.json",
        }
    }

    /// Documents that together have every member that the schema knows.
    pub fn samples(self) -> &'static [&'static str] {
        match self {
            Kind::Graph => &["rules/schema/complete-graph.json"],
            Kind::Overrides => &["rules/schema/complete-overrides.json"],
            Kind::Package => &["rules/schema/complete-package.json"],
            Kind::Descriptor => {
                &["rules/schema/complete-runtime-descriptor.json", "rules/schema/complete-model-descriptor.json"]
            }
        }
    }

    pub fn parse(self, text: &str) -> Result<(), Error> {
        match self {
            Kind::Graph => parse_graph(text).map(drop),
            Kind::Overrides => parse_overrides(text).map(drop),
            Kind::Package => parse_package(text).map(drop),
            Kind::Descriptor => parse_descriptor(text).map(drop),
        }
    }
}

/// The published schemas.
pub struct Validator {
    schemas: boon::Schemas,
    indices: Vec<boon::SchemaIndex>,
}

impl Validator {
    pub fn new() -> Validator {
        let mut compiler = boon::Compiler::new();
        let mut schemas = boon::Schemas::new();
        let indices = Kind::ALL
            .iter()
            .map(|kind| {
                let path = folder("data/schema").join(kind.schema());
                compiler.compile(path.to_str().unwrap(), &mut schemas).unwrap_or_else(|error| panic!("{error:#}"))
            })
            .collect();
        Validator { schemas, indices }
    }

    pub fn accepts(&self, kind: Kind, document: &Value) -> bool {
        self.schemas.validate(document, self.indices[kind as usize]).is_ok()
    }
}
