//! Documents made to hurt: answered in bounded time, memory and words.

mod support;

use belvedere_manifest::{
    PackageSet, Rule, check_package, parse_descriptor, parse_graph, parse_overrides, parse_package, resolve,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::{Kind, changed};

/// Far more than any takes on a busy machine without optimization, and far less than anything that grows with a product.
const MOST: Duration = Duration::from_secs(20);

fn within<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    let took = start.elapsed();
    println!("measured: {what}: {} ms", took.as_millis());
    assert!(took < MOST, "{what} took {took:?}");
    result
}

/// The most memory that this process ever had, MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn all(text: &str) -> Vec<belvedere_manifest::Error> {
    Kind::ALL.iter().filter_map(|kind| kind.parse(text).err()).collect()
}

#[test]
fn nesting_bombs_are_refused() {
    for (open, close, depth) in
        [("[", "]", 100_000), ("{\"a\":", "}", 40_000), ("[{\"a\":", "}]", 25_000), ("[", "", 200_000)]
    {
        let text = format!("{}{}", open.repeat(depth), close.repeat(depth));
        assert_eq!(within("nesting", || all(&text)).len(), 4, "{open}");
    }
    // The schema leaves string ports open: what is in there is nested too.
    let package = support::read("data/package-code.json");
    let nested = |depth: usize| {
        package.replace("\"anything\": 1", &format!("\"anything\": {}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)))
    };
    parse_package(&nested(100)).unwrap();
    assert_eq!(parse_package(&nested(20_000)).unwrap_err().rule, Rule::Json);
}

#[test]
fn huge_lists_texts_and_numbers_are_answered() {
    let list = |item: &str, length: usize| {
        format!("{{\"nodeGraph\":{{\"nodes\":[{}]}}}}", vec![item; length / (item.len() + 1)].join(","))
    };
    for item in ["1", "[]", "{}", "\"\"", "null", "{\"name\":1}"] {
        assert_eq!(within("a list", || all(&list(item, 51_000))).len(), 4);
        assert_eq!(within("a long list", || all(&list(item, 260_000))).len(), 4);
    }
    for number in ["1e308", "-1e308", "1e-400", "18446744073709551615", "-9223372036854775808", "0.1e1", "-0", "4.9e-324"] {
        for member in ["containerPort", "hostPort", "value", "maxConnections", "port", "shape"] {
            let text = format!("{{\"nodeGraph\":{{\"networkRoutingRules\":[{{\"{member}\":{number}}}]}}}}");
            assert_eq!(all(&text).len(), 4);
        }
    }
    let digits = "9".repeat(50_000);
    assert_eq!(within("a number of 50,000 digits", || all(&format!("{{\"nodeGraph\":{digits}}}"))).len(), 4);
    let key = "k".repeat(50_000);
    for error in all(&format!("{{\"{key}\":{{\"{key}\":1}}}}")) {
        assert!(error.to_string().len() < 1000, "{}", error.to_string().len());
    }
}

#[test]
fn names_of_any_script_are_refused_or_shown_whole() {
    let sample = support::json("data/graph.json");
    for name in ["\u{202e}evil", "nul\0", "e\u{301}", "\u{1f600}", "Straße", "a\u{200d}b", "\u{feff}code", "\n", "\u{661}"]
    {
        let document = changed(&sample, &json!([{ "at": "/nodeGraph/nodes/0/name", "set": name }]));
        let error = parse_graph(&document.to_string()).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("nodeGraph.nodes[0]"), "{said}");
        assert!(said.chars().all(|c| !c.is_control() && c != '\u{202e}'), "a message that changes how it is read: {said:?}");
    }
    let described = |text: String| changed(&sample, &json!([{ "at": "/nodeGraph/description", "set": text }])).to_string();
    parse_graph(&described("\u{1f600}".repeat(255))).unwrap();
    parse_graph(&described("\u{1f600}".repeat(256))).unwrap_err();
}

/// Cameras × edges, nodes × ports of their package, nodes × nodes: each is the product of two things that one document may
/// have a thousand of.
#[test]
fn products_of_small_documents_stay_small() {
    let package = |interfaces: Value| {
        let document = json!({ "nodePackage": { "envelopeVersion": "2021-01-01", "interfaces": interfaces,
            "assets": [{ "name": "a", "implementations": [{ "type": "container", "assetUri": "a", "descriptorUri": "d" }] }] } });
        let package = parse_package(&document.to_string()).unwrap();
        check_package(&package).unwrap();
        package
    };
    let ports = |count: usize| (0..count).map(|i| json!({ "name": format!("p{i}"), "type": "media" })).collect::<Vec<_>>();
    let includes = json!([{ "name": "a::b", "version": "1.0" }]);
    let graph = |nodes: Vec<Value>, edges: Vec<Value>| {
        json!({ "nodeGraph": { "envelopeVersion": "2021-01-01", "packages": includes, "nodes": nodes, "edges": edges } })
            .to_string()
    };

    // A thousand cameras for one placeholder, with hundreds of edges from it.
    let mut set = PackageSet::default();
    let camera = json!({ "name": "c", "category": "media_source", "outputs": [{ "name": "o", "type": "media" }] });
    set.insert(
        "a::b",
        "1.0",
        package(json!([camera, { "name": "d", "category": "business_logic", "asset": "a", "inputs": ports(900) }])),
    );
    let nodes = vec![
        json!({ "name": "x", "interface": "a::b.c", "overridable": true }),
        json!({ "name": "d", "interface": "a::b.d" }),
    ];
    let edges: Vec<Value> = (0..900).map(|i| json!({ "producer": "x.o", "consumer": format!("d.p{i}") })).collect();
    let wide = graph(nodes, edges);
    for (count, accepted) in [(80, true), (600, false)] {
        let new: Vec<Value> =
            (0..count).map(|i| json!({ "name": format!("n{i}"), "interface": "a::b.c", "launch": "onSignal" })).collect();
        let with: Vec<Value> = (0..count).map(|i| json!({ "name": format!("n{i}") })).collect();
        let overrides = json!({ "nodeGraphOverrides": { "envelopeVersion": "2021-01-01", "nodes": new,
            "nodeOverrides": [{ "replace": "x", "with": with }] } });
        let overrides = parse_overrides(&overrides.to_string()).unwrap();
        match within("cameras × edges", || resolve(&parse_graph(&wide).unwrap(), Some(&overrides), &set)) {
            Ok(application) => assert!(accepted && application.edges.len() == 80 * 900),
            Err(error) => assert!(!accepted && error.rule == Rule::CameraCount, "{error}"),
        }
    }

    // A thousand nodes of an interface with thousands of ports.
    let mut set = PackageSet::default();
    set.insert(
        "a::b",
        "1.0",
        package(json!([{ "name": "d", "category": "business_logic", "asset": "a", "inputs": ports(5000) }])),
    );
    let many = graph((0..1200).map(|i| json!({ "name": format!("n{i}"), "interface": "a::b.d" })).collect(), Vec::new());
    let error = within("nodes × ports", || resolve(&parse_graph(&many).unwrap(), None, &set)).unwrap_err();
    assert_eq!(error.rule, Rule::Size, "{error}");

    // A chain of a thousand nodes, and one that bites its tail.
    let mut set = PackageSet::default();
    let both = json!([{ "name": "d", "category": "business_logic", "asset": "a", "inputs": ports(1), "outputs": [{ "name": "o", "type": "media" }] }]);
    set.insert("a::b", "1.0", package(both));
    let chain = |last: usize| {
        let nodes = (0..500).map(|i| json!({ "name": format!("n{i}"), "interface": "a::b.d" })).collect();
        let edges = (0..last)
            .map(|i| json!({ "producer": format!("n{i}.o"), "consumer": format!("n{}.p0", (i + 1) % 500) }))
            .collect();
        parse_graph(&graph(nodes, edges)).unwrap()
    };
    assert!(within("a chain", || resolve(&chain(499), None, &set)).is_ok());
    let error = within("a ring", || resolve(&chain(500), None, &set)).unwrap_err();
    assert_eq!(error.rule, Rule::NoCycles);
    assert!(error.brief(255).chars().count() <= 255 && error.to_string().len() < 2000, "{}", error.to_string().len());

    println!("measured: at most {} MiB", peak());
    assert!(peak() < 600, "{} MiB", peak());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z:.$_0-9-]{0,20}".prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
            prop::sample::select(
                &[
                    "media", "string", "int32", "onSignal", "a::b.c", "1.0", "2021-01-01", "code_node",
                    "camera_node.video_out"
                ][..]
            )
            .prop_map(Value::from),
        ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("(name|type|interface|value|nodes|with|default|[a-z]{1,8})", inner), 0..4)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// A place of a document, chosen by a number.
fn place(document: &Value, chosen: usize) -> String {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        let steps: Vec<String> = match value {
            Value::Object(members) => members.keys().cloned().collect(),
            Value::Array(list) => (0..list.len()).map(|i| i.to_string()).collect(),
            _ => Vec::new(),
        };
        for step in steps {
            let at = format!("{at}/{step}");
            found.push(at.clone());
            walk(document_at(value, &step), &at, found);
        }
    }
    fn document_at<'a>(value: &'a Value, step: &str) -> &'a Value {
        value.pointer(&format!("/{step}")).unwrap()
    }
    let mut found = Vec::new();
    walk(document, "", &mut found);
    found[chosen % found.len()].clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in place of any element: no panic, and an answer that names a place in few words.
    #[test]
    fn any_value_anywhere_is_answered(chosen in any::<usize>(), twice in any::<usize>(), value in any_json(), text in "\\PC{0,60}") {
        let read = |name: &str| support::json(&format!("data/{name}.json"));
        let mut packages = PackageSet::default();
        for (name, file) in [("SAMPLE_CODE", "package-code"), ("SQUEEZENET_PYTORCH_V1", "package-model")] {
            packages.insert(format!("123456789012::{name}"), "1.0", parse_package(&read(file).to_string()).unwrap());
        }
        let mut errors = Vec::new();
        for (kind, name) in [(Kind::Graph, "graph"), (Kind::Overrides, "overrides"), (Kind::Package, "package-code"), (Kind::Descriptor, "descriptor-runtime")] {
            let sample = read(name);
            let once = changed(&sample, &json!([{ "at": place(&sample, chosen), "set": value }]));
            let document = changed(&once, &json!([{ "at": place(&once, twice), "set": value }]));
            let document = document.to_string();
            errors.extend(kind.parse(&document).err());
            errors.extend(kind.parse(&text).err());
            let (graph, overrides) = match kind {
                Kind::Graph => (document, read("overrides").to_string()),
                Kind::Overrides => (read("graph").to_string(), document),
                Kind::Package => {
                    if let Ok(package) = parse_package(&document) {
                        errors.extend(check_package(&package).err());
                        prop_assert_eq!(parse_package(&package.to_document()).unwrap(), package);
                    }
                    continue;
                }
                Kind::Descriptor => {
                    let _ = parse_descriptor(&document);
                    continue;
                }
            };
            if let (Ok(graph), Ok(overrides)) = (parse_graph(&graph), parse_overrides(&overrides)) {
                errors.extend(resolve(&graph, Some(&overrides), &packages).err());
            }
        }
        for error in errors {
            prop_assert!(!error.element.is_empty() && !error.message.is_empty());
            prop_assert!(error.to_string().chars().count() < 1000, "{}", error);
            prop_assert!(error.brief(255).chars().count() <= 255);
        }
    }
}
