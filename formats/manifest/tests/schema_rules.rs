//! Every rule of the published schemas has a valid and an invalid document, and the parser says what the schema says.
//!
//! `rules/schema/<document>.json` holds one line for each constraint at each place: how the complete sample document is
//! changed so that it is just valid and just invalid, and what is said then. `BELVEDERE_BLESS=1` writes the lines again
//! (they are made from the schemas); without it they are compared with what the schemas and the parser are today.

mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::constraints::constraints;
use support::{Kind, Validator, blessing, changed, folder, read};

fn samples(kind: Kind) -> Vec<Value> {
    kind.samples().iter().map(|name| support::json(name)).collect()
}

fn fixtures(kind: Kind) -> Vec<Value> {
    let text = read(&format!("rules/schema/{}.json", kind.word()));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn message(kind: Kind, document: &Value) -> String {
    match kind.parse(&document.to_string()) {
        Ok(()) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Writes the fixtures, when asked to.
fn bless(kind: Kind, validator: &Validator) {
    let samples = samples(kind);
    let mut lines = String::new();
    for constraint in constraints(kind, &samples) {
        let sample = &samples[constraint.sample];
        let (valid, invalid) = support::fixtures::changes(kind, &constraint, sample, validator);
        let message = message(kind, &changed(sample, &invalid));
        let line = json!({ "rule": constraint.label, "sample": constraint.sample, "valid": valid, "invalid": invalid, "message": message });
        lines.push_str(&format!("{line}\n"));
    }
    std::fs::write(folder(&format!("rules/schema/{}.json", kind.word())), lines).unwrap();
}

#[test]
fn every_constraint_of_the_schemas_has_a_fixture() {
    let mut all = 0;
    for kind in Kind::ALL {
        if blessing() {
            bless(kind, &Validator::new());
        }
        let needed: BTreeSet<String> =
            constraints(kind, &samples(kind)).into_iter().map(|constraint| constraint.label).collect();
        let there: BTreeSet<String> =
            fixtures(kind).iter().map(|fixture| fixture["rule"].as_str().unwrap().to_owned()).collect();
        let missing: Vec<&String> = needed.difference(&there).collect();
        let of_nothing: Vec<&String> = there.difference(&needed).collect();
        assert!(
            missing.is_empty() && of_nothing.is_empty(),
            "{kind:?}: without a fixture {missing:#?}, of no constraint {of_nothing:#?}"
        );
        all += there.len();
    }
    println!("measured: {all} constraints of the schemas, each with a valid and an invalid document");
    assert!(all > 500, "{all}");
}

#[test]
fn the_samples_are_accepted_by_both() {
    let validator = Validator::new();
    for kind in Kind::ALL {
        for (name, sample) in kind.samples().iter().zip(samples(kind)) {
            kind.parse(&sample.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(validator.accepts(kind, &sample), "{name}");
        }
    }
}

#[test]
fn every_fixture_is_judged_by_both_as_it_says_and_the_message_names_the_place() {
    if blessing() {
        return;
    }
    let validator = Validator::new();
    let mut wrong = Vec::new();
    for kind in Kind::ALL {
        let samples = samples(kind);
        for fixture in fixtures(kind) {
            let sample = &samples[fixture["sample"].as_u64().unwrap() as usize];
            let (valid, invalid) = (changed(sample, &fixture["valid"]), changed(sample, &fixture["invalid"]));
            let mut expect = |good: bool, what: &str| {
                if !good {
                    wrong.push(format!("{} {}: {what}", kind.word(), fixture["rule"]));
                }
            };
            expect(validator.accepts(kind, &valid), "the schema refuses the valid document");
            expect(!validator.accepts(kind, &invalid), "the schema accepts the invalid document");
            expect(kind.parse(&valid.to_string()).is_ok(), &format!("the valid document: {}", message(kind, &valid)));
            let said = message(kind, &invalid);
            expect(said == fixture["message"], &format!("is said: {said}\n  expected: {}", fixture["message"]));
            let change = &fixture["invalid"].as_array().unwrap().last().unwrap();
            for word in words(&invalid, change["at"].as_str().unwrap()) {
                expect(said.contains(&word), &format!("{word} is not named: {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What a message about the place `at` must hold: the element of the innermost list with its index and its name, and the
/// member itself. Members whose kind is told by another member are named by that one.
fn words(document: &Value, at: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut value, mut pointer, mut before) = (document, String::new(), "");
    for step in at.split('/').skip(1) {
        pointer = format!("{pointer}/{step}");
        let next = document.pointer(&pointer);
        if value.is_array() {
            words.clear();
            words.push(format!("{before}[{step}]"));
            let name = ["name", "replace", "node"].iter().find_map(|member| next?.get(member)?.as_str());
            words.extend(
                name.map(|name| format!("{:?}", name.chars().take(20).collect::<String>()).trim_end_matches('"').to_owned()),
            );
        } else {
            before = step;
        }
        value = next.unwrap_or(&Value::Null);
    }
    if at.rsplit('/').next().is_some_and(|last| last.parse::<usize>().is_err()) {
        words.push(before.to_owned());
    }
    words
}

/// Where we are stricter than the schema on purpose. The README says why.
fn stricter(kind: Kind, path: &[Value], value: &Value) -> bool {
    let path: Vec<&str> = path.iter().filter_map(Value::as_str).collect();
    let beyond = |most: f64| value.as_f64().is_some_and(|value| value.abs() > most);
    match path[..] {
        // The one root member must be there.
        [_] => true,
        // A name that no node can have.
        [.., "replace"] | [.., "with", "name"] => value.as_str().is_some_and(|name| name.len() > 128),
        // Whole numbers that no program could hold.
        [.., "value" | "default"] => beyond(2147483647.0),
        [.., "maxConnections"] => beyond(4294967295.0),
        [.., "hostPort" | "shape"] => beyond(1e15),
        // A member that the schema leaves open.
        [.., "anything"] => kind == Kind::Package && value.is_array(),
        _ => false,
    }
}

fn places(value: &Value, path: Vec<Value>, found: &mut Vec<(Vec<Value>, Value)>) {
    let below: Vec<(Value, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| (json!(name), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, value)| (json!(i), value)).collect(),
        _ => Vec::new(),
    };
    for (step, inner) in below {
        let path: Vec<Value> = path.iter().cloned().chain([step]).collect();
        found.push((path.clone(), inner.clone()));
        places(inner, path, found);
    }
}

/// Every element of every sample is removed, and replaced by many values.
#[test]
fn parser_and_validator_agree_about_small_changes_of_every_element() {
    let texts = [
        "", "x", "a-b", "a b", "a::b", "a::b.c", "a.b", "a.b.c", ".a", "a.", "$a", "$a::b.c", "a-b::c.d", "1.0", "1.",
        "1.0.0", "01.20", "2021-01-01", "boolean", "media", "float32", "ota", "onExit", "\u{e9}", "a\n", "1.0\n",
        "\u{661}.\u{660}", "1.8a", "1.8-a",
    ];
    let long = [50, 51, 128, 129, 255, 256].map(|length| "x".repeat(length));
    let others = [
        json!(null),
        json!(true),
        json!(7),
        json!(7.0),
        json!(80.0),
        json!(1e2),
        json!(-1),
        json!(0),
        json!(-0.0),
        json!(65535),
        json!(65536),
        json!(3.5),
        json!(2147483648u64),
        json!(-2147483649i64),
        json!(1e300),
        json!(u64::MAX),
        json!([]),
        json!({}),
        json!([1]),
        json!([[]]),
    ];
    let validator = Validator::new();
    let (mut differences, mut count) = (Vec::new(), 0);
    let documents = Kind::ALL.iter().flat_map(|kind| samples(*kind).into_iter().map(|sample| (*kind, sample)));
    let real = [(Kind::Overrides, "overrides"), (Kind::Package, "package-code")]
        .map(|(kind, name)| (kind, support::json(&format!("data/{name}.json"))));
    for (kind, document) in documents.chain(real) {
        let mut found = Vec::new();
        places(&document, Vec::new(), &mut found);
        // What overrides share with graphs is looked at there.
        found.retain(|(path, _)| kind != Kind::Overrides || path.len() < 4 || path[1] == "nodeOverrides");
        for (path, value) in found {
            let at: String =
                path.iter().map(|step| format!("/{}", step.as_str().map_or(step.to_string(), str::to_owned))).collect();
            let set = |value: Value| (json!([{ "at": at, "set": value }]), value);
            let mut changes = vec![(json!([{ "at": at, "remove": true }]), Value::Null)];
            changes.extend(others.iter().cloned().map(set));
            if value.is_string() {
                changes.extend(texts.iter().copied().chain(long.iter().map(String::as_str)).map(|text| set(json!(text))));
            }
            if value.is_object() {
                changes.push((json!([{ "at": format!("{at}/unknown"), "set": 1 }]), json!(1)));
            }
            if let Some(list) = value.as_array() {
                changes.push(set(list.iter().cycle().take(list.len() * 12).cloned().collect::<Vec<_>>().into()));
            }
            for (change, value) in changes {
                count += 1;
                let document = changed(&document, &change);
                let (ours, theirs) = (kind.parse(&document.to_string()), validator.accepts(kind, &document));
                if ours.is_ok() != theirs && !(theirs && stricter(kind, &path, &value)) {
                    differences.push(format!("{kind:?} {change}: the schema says {theirs}, we say {ours:?}"));
                }
            }
        }
    }
    println!("measured: {count} changed documents, {} differences", differences.len());
    assert!(count > 8000, "{count}");
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
