//! Every rule between the documents has valid and invalid documents.
//!
//! `rules/between/<rule>.json` holds its cases: how the sample documents (`data/`) are changed so that they are still valid
//! and so that the rule is broken, and what is said then. `BELVEDERE_BLESS=1` writes the messages again; read them.

mod support;

use belvedere_manifest::{
    Error, ImplementationKind, PackageSet, Rule, check_descriptor, check_package, parse_descriptor, parse_graph,
    parse_overrides, parse_package, resolve,
};
use serde_json::{Value, json};
use support::{blessing, changed, folder};

/// The sample: everything that one deployment is made of.
fn sample() -> Value {
    let data = |name: &str| support::json(&format!("data/{name}.json"));
    let camera = |name: &str| {
        let package =
            belvedere_manifest::camera_package(&name.to_owned().try_into().unwrap(), &"1.0".to_owned().try_into().unwrap());
        serde_json::from_str::<Value>(&package.to_document()).unwrap()
    };
    let mut packages = serde_json::Map::new();
    packages.insert("123456789012::SAMPLE_CODE 1.0".into(), data("package-code"));
    packages.insert("123456789012::SQUEEZENET_PYTORCH_V1 1.0".into(), data("package-model"));
    for name in ["warehouse-floor", "entrance-north"] {
        packages.insert(format!("123456789012::{name} 1.0"), camera(name));
    }
    json!({
        "graph": data("graph"), "overrides": data("overrides"), "packages": packages,
        "descriptors": { "container": data("descriptor-runtime"), "model": data("descriptor-model") },
    })
}

/// Everything that service and appliance do with the documents, in their order. A document may also be given as text.
fn judge(documents: &Value) -> Result<(), Error> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (word, kind) in [("container", ImplementationKind::Container), ("model", ImplementationKind::Model)] {
        check_descriptor(kind, &parse_descriptor(&text(&documents["descriptors"][word]))?)?;
    }
    let mut packages = PackageSet::default();
    for (key, document) in documents["packages"].as_object().unwrap() {
        let (name, version) = key.split_once(' ').unwrap();
        let package = parse_package(&text(document))?;
        check_package(&package)?;
        packages.insert(name, version, package);
    }
    let graph = parse_graph(&text(&documents["graph"]))?;
    let overrides = documents.get("overrides").map(|overrides| parse_overrides(&text(overrides))).transpose()?;
    resolve(&graph, overrides.as_ref(), &packages).map(drop)
}

#[test]
fn every_rule_has_cases_and_every_case_is_judged_as_it_says() {
    let sample = sample();
    judge(&sample).unwrap_or_else(|error| panic!("the sample itself: {error}"));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for rule in Rule::ALL {
        if *rule == Rule::Schema {
            continue; // tests/schema_rules.rs
        }
        let name = format!("rules/between/{}.json", rule.word());
        let mut cases = support::json(&name);
        let list = cases.as_array_mut().unwrap();
        assert!(!list.is_empty(), "{name} has no case");
        for case in list {
            count += 1;
            let what = format!("{}: {}", rule.word(), case["case"].as_str().unwrap());
            if let Err(error) = judge(&changed(&sample, &case["valid"])) {
                wrong.push(format!("{what}: the valid documents are refused: {error}"));
            }
            match judge(&changed(&sample, &case["invalid"])) {
                Ok(()) => wrong.push(format!("{what}: the invalid documents are accepted")),
                Err(error) if error.rule != *rule => wrong.push(format!("{what}: another rule is broken: {error}")),
                Err(error) if blessing() => case["message"] = error.to_string().into(),
                Err(error) if case["message"] != error.to_string() => {
                    wrong.push(format!("{what}: is said: {error}\n  expected: {}", case["message"]));
                }
                Err(error) if error.to_string().chars().count() > 255 => wrong.push(format!("{what}: too long: {error}")),
                Err(_) => {}
            }
        }
        if blessing() {
            let lines: Vec<String> = cases.as_array().unwrap().iter().map(Value::to_string).collect();
            std::fs::write(folder(&name), format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
        }
    }
    println!("measured: {count} cases of {} rules between documents", Rule::ALL.len() - 1);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
