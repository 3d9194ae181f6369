//! The parser agrees with the published schemas about thousands of small changes of real documents.

use belvedere_manifest::{parse_descriptor, parse_graph, parse_overrides, parse_package};
use serde_json::Value;

fn data(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn parses(name: &str, text: &str) -> Result<(), belvedere_manifest::Error> {
    match name.split(['-', '.']).next().unwrap() {
        "graph" => parse_graph(text).map(drop),
        "overrides" => parse_overrides(text).map(drop),
        "package" => parse_package(text).map(drop),
        _ => parse_descriptor(text).map(drop),
    }
}

fn changed(document: &Value, path: &[Value], operation: &str, value: &Value) -> Value {
    let mut document = document.clone();
    let mut at = &mut document;
    let (last, path) = path.split_last().unwrap();
    for step in path {
        at = match step {
            Value::String(key) => &mut at[key.as_str()],
            step => &mut at[step.as_u64().unwrap() as usize],
        };
    }
    match (last, operation) {
        (Value::String(key), "set") => at[key.as_str()] = value.clone(),
        (Value::String(key), _) => drop(at.as_object_mut().unwrap().remove(key)),
        (index, "set") => at[index.as_u64().unwrap() as usize] = value.clone(),
        (index, _) => drop(at.as_array_mut().unwrap().remove(index.as_u64().unwrap() as usize)),
    }
    document
}

/// Where we are stricter on purpose, with the reason.
fn stricter(path: &[Value], value: &Value) -> bool {
    let path: Vec<&str> = path.iter().filter_map(Value::as_str).collect();
    // The one root member must be there, with the right document in it.
    path.len() == 1
        // A name that no node can have.
        || matches!(path[..], [.., "replace"] | [.., "with", "name"]) && value.as_str().is_some_and(|name| name.len() > 128)
        // A member that the schema leaves open.
        || path.last() == Some(&"anything") && value.is_array()
}

#[test]
fn the_documents_themselves_are_accepted() {
    for name in
        ["graph.json", "overrides.json", "package-code.json", "package-model.json", "descriptor-runtime.json", "descriptor-model.json"]
    {
        parses(name, &data(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn parser_and_schema_agree() {
    let verdicts: Vec<(String, Vec<Value>, String, Value, bool)> = serde_json::from_str(&data("verdicts.json")).unwrap();
    assert!(verdicts.len() > 3000, "{}", verdicts.len());
    let mut differences = Vec::new();
    let mut document = (String::new(), Value::Null);
    for (name, path, operation, value, schema) in &verdicts {
        if document.0 != *name {
            document = (name.clone(), serde_json::from_str(&data(name)).unwrap());
        }
        let text = changed(&document.1, path, operation, value).to_string();
        let ours = parses(name, &text);
        if ours.is_ok() != *schema && !(*schema && stricter(path, value)) {
            let path: Vec<String> = path.iter().map(Value::to_string).collect();
            differences.push(format!("{name} {operation} {} = {value}: schema {schema}, we say {ours:?}", path.join("/")));
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
