//! The rules between documents, each broken once.

use belvedere_manifest::{
    Category, Error, Launch, PackageSet, PortType, Rule, Value, camera_package, check_package, parse_graph, parse_overrides,
    parse_package, resolve,
};
use proptest::prelude::*;

fn data(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn packages() -> PackageSet {
    let mut set = PackageSet::default();
    set.insert("123456789012::SAMPLE_CODE", "1.0", parse_package(&data("package-code.json")).unwrap());
    set.insert("123456789012::SQUEEZENET_PYTORCH_V1", "1.0", parse_package(&data("package-model.json")).unwrap());
    for camera in ["warehouse-floor", "entrance-north"] {
        let package = camera_package(&camera.to_owned().try_into().unwrap(), &"1.0".to_owned().try_into().unwrap());
        set.insert(format!("123456789012::{camera}"), "1.0", parse_package(&package.to_document()).unwrap());
    }
    set
}

/// Resolves the sample with text replaced in graph and overrides.
fn sample(graph: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<belvedere_manifest::Application, Error> {
    let apply = |mut text: String, changes: &[(&str, &str)]| {
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in the document");
            text = text.replacen(from, to, 1);
        }
        text
    };
    let graph = parse_graph(&apply(data("graph.json"), graph))?;
    let overrides = parse_overrides(&apply(data("overrides.json"), overrides))?;
    resolve(&graph, Some(&overrides), &packages())
}

fn refused(result: Result<belvedere_manifest::Application, Error>, rule: Rule, words: &str) {
    let error = result.expect_err("must be refused");
    assert_eq!(error.rule, rule, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn the_sample_becomes_an_application() {
    let application = sample(&[], &[]).unwrap();
    let names: Vec<&str> = application.node_names().collect();
    assert_eq!(names, ["warehouse-floor", "entrance-north", "code_node", "model_node", "output_node"]);
    assert_eq!(application.cameras[1].launch, Launch::OnSignal);
    let code = &application.code[0];
    assert_eq!(code.asset.asset, "aa11.tar.gz");
    assert_eq!(code.asset.descriptor.as_deref(), Some("bb22.json"));
    assert!(code.wants_accelerator);
    assert_eq!(code.inputs[0].bound, ["warehouse-floor", "entrance-north"]);
    assert_eq!(code.inputs[0].value, None);
    assert_eq!(code.inputs[1].value, Some(Value::Float32(20.0)), "overridden");
    assert_eq!(code.inputs[2].value, Some(Value::String("INFO".into())), "connected");
    assert_eq!(code.inputs[3].value, Some(Value::Int32(2)), "the port's default");
    assert_eq!(code.outputs[0].bound, ["output_node"]);
    assert_eq!(application.models[0].asset.asset, "cc33.tar.gz");
    assert_eq!(application.open_ports[0].host_port, 8081);
    assert_eq!(application.edges.iter().filter(|edge| edge.kind == PortType::Media).count(), 3);
}

#[test]
fn a_graph_without_overrides_and_without_cameras_resolves() {
    let graph = r#"{"nodeGraph":{"envelopeVersion":"2021-01-01","packages":[{"name":"123456789012::SAMPLE_CODE","version":"1.0"}],
        "nodes":[{"name":"code","interface":"123456789012::SAMPLE_CODE.interface"}]}}"#;
    let application = resolve(&parse_graph(graph).unwrap(), None, &packages()).unwrap();
    assert_eq!(application.code[0].inputs[1].value, Some(Value::Float32(50.5)));
    assert!(application.open_ports.is_empty());
}

#[test]
fn ports_stay_closed_unless_the_overrides_repeat_the_rule() {
    let rule = r#"[{"node": "code_node", "containerPort": 80, "hostPort": 8081}]"#;
    assert!(sample(&[], &[(rule, "[]")]).unwrap().open_ports.is_empty());
    refused(sample(&[], &[("8081", "80")]), Rule::NetworkRule, "8000 to 9000");
    refused(sample(&[], &[("\"containerPort\": 80", "\"containerPort\": 81")]), Rule::NetworkRule, "no inbound port 81");
}

#[test]
fn each_rule_names_its_element() {
    refused(sample(&[("SAMPLE_CODE.interface", "SAMPLE_CODE.other")], &[]), Rule::InterfaceExists, "no interface other");
    refused(sample(&[("{\"name\": \"123456789012::SAMPLE_CODE\", \"version\": \"1.0\"},", "")], &[]), Rule::InterfaceExists, "nodeGraph.nodes[0]");
    refused(sample(&[("panorama::hdmi_data_sink\", \"version\": \"1.0", "panorama::hdmi_data_sink\", \"version\": \"2.0")], &[]), Rule::InterfaceExists, "2.0");
    refused(sample(&[("code_node.threshold", "code_node.treshold")], &[]), Rule::EdgeEndExists, "nodeGraph.edges[2].consumer");
    refused(sample(&[("\"producer\": \"log_level\"", "\"producer\": \"no_such\"")], &[]), Rule::EdgeEndExists, "no_such");
    refused(sample(&[("\"producer\": \"log_level\"", "\"producer\": \"verbose\"")], &[]), Rule::PortTypesMatch, "boolean");
    refused(sample(&[("\"producer\": \"log_level\", \"consumer\": \"code_node.log_level\"", "\"producer\": \"threshold_param\", \"consumer\": \"code_node.threshold\"")], &[]), Rule::PortConnections, "twice");
    refused(sample(&[("\"name\": \"verbose\"", "\"name\": \"batch_size\"")], &[]), Rule::UniqueNames, "batch_size");
    refused(sample(&[], &[("\"replace\": \"threshold_param\"", "\"replace\": \"threshold\"")]), Rule::OverrideTargetExists, "threshold");
    refused(sample(&[], &[("\"replace\": \"threshold_param\"", "\"replace\": \"batch_size\"")]), Rule::Overridable, "batch_size");
    refused(sample(&[], &[("\"replace\": \"threshold_param\"", "\"replace\": \"log_level\"")]), Rule::OverrideKind, "float32");
    refused(sample(&[], &[("\"replace\": \"camera_node\", \"with\": [{\"name\": \"warehouse-floor\"}, {\"name\": \"entrance-north\"}]", "\"replace\": \"log_level\", \"with\": []")]), Rule::OverrideKind, "log_level");
    refused(sample(&[], &[("{\"replace\": \"camera_node\", \"with\": [{\"name\": \"warehouse-floor\"}, {\"name\": \"entrance-north\"}]},", "")]), Rule::OverrideMandatory, "camera_node");
    refused(sample(&[("\"overrideMandatory\": true,", "")], &[("{\"replace\": \"camera_node\", \"with\": [{\"name\": \"warehouse-floor\"}, {\"name\": \"entrance-north\"}]},", "")]), Rule::CameraChosen, "camera_node");
    refused(sample(&[], &[("{\"name\": \"my_threshold\"}", "{\"name\": \"elsewhere\"}")]), Rule::OverrideTargetExists, "elsewhere");
}

#[test]
fn nine_active_cameras_are_too_many_and_eight_are_not() {
    let build = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("cam{i}")).collect();
        let nodes: Vec<String> =
            names.iter().map(|n| format!(r#"{{"name":"{n}","interface":"123456789012::warehouse-floor.warehouse-floor"}}"#)).collect();
        let text = format!(
            r#"{{"nodeGraph":{{"envelopeVersion":"2021-01-01","packages":[{{"name":"123456789012::warehouse-floor","version":"1.0"}}],"nodes":[{}]}}}}"#,
            nodes.join(",")
        );
        resolve(&parse_graph(&text).unwrap(), None, &packages())
    };
    assert_eq!(build(8).unwrap().cameras.len(), 8);
    refused(build(9), Rule::CameraCount, "9 cameras");
}

#[test]
fn packages_are_checked_by_themselves() {
    let code = data("package-code.json");
    check_package(&parse_package(&code).unwrap()).unwrap();
    let refuse = |from: &str, to: &str, words: &str| {
        assert!(code.contains(from));
        let error = check_package(&parse_package(&code.replacen(from, to, 1)).unwrap()).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    };
    refuse("\"asset\": \"code_asset\"", "\"asset\": \"other\"", "other");
    refuse("\"type\": \"container\"", "\"type\": \"model\"", "container");
    refuse("\"name\": \"verbose\"", "\"name\": \"threshold\"", "threshold");
    refuse("aa11.tar.gz", "../aa11.tar.gz", "plain file name");
}

#[test]
fn what_panorama_cli_makes_first_is_refused_with_help() {
    let skeleton = r#"{"nodePackage":{"envelopeVersion":"2021-01-01","name":"X","version":"1.0","description":"d","assets":[],"interfaces":[]}}"#;
    assert!(parse_package(skeleton).unwrap_err().to_string().contains("nodePackage.interfaces: needs at least one"));
}

#[test]
fn built_in_packages_have_the_documented_interfaces() {
    let camera = belvedere_manifest::built_in("abstract_rtsp_media_source", "1.0").unwrap();
    assert_eq!(camera.interface("rtsp_v1_interface").unwrap().category, Category::MediaSource);
    let display = belvedere_manifest::built_in("hdmi_data_sink", "1.0").unwrap();
    assert_eq!(display.interface("hdmi0").unwrap().inputs[0].name.to_string(), "video_in");
    for package in [camera, display] {
        check_package(&package).unwrap();
    }
}

#[test]
fn limits_hold_at_the_limit_and_one_past_it() {
    let graph = data("graph.json");
    let pad = |length: usize| format!("{graph}{}", " ".repeat(length - graph.chars().count()));
    assert!(parse_graph(&pad(51_200)).is_ok());
    assert_eq!(parse_graph(&pad(51_201)).unwrap_err().rule, Rule::Size);
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(parse_graph(&deep).unwrap_err().rule, Rule::Schema);
}

#[test]
fn errors_name_the_place_in_the_document() {
    let error = parse_graph(&data("graph.json").replace("\"value\": 4", "\"value\": \"4\"")).unwrap_err();
    assert!(error.element.starts_with("nodeGraph.nodes[6]"), "{error}");
    assert!(error.message.contains("batch_size"), "{error}");
    let error = parse_graph(&data("graph.json").replace("\"launch\"", "\"lunch\"")).unwrap_err();
    assert!(error.to_string().contains("lunch"), "{error}");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}", at in 0usize..2000, cut in 0usize..40) {
        let _ = parse_graph(&text);
        for name in ["graph.json", "overrides.json", "package-code.json", "descriptor-runtime.json"] {
            let mut document: Vec<char> = data(name).chars().collect();
            let at = at.min(document.len());
            let end = (at + cut).min(document.len());
            document.splice(at..end, text.chars());
            let document: String = document.into_iter().collect();
            if let (Ok(graph), Ok(overrides)) = (parse_graph(&document), parse_overrides(&data("overrides.json"))) {
                let _ = resolve(&graph, Some(&overrides), &packages());
            }
            if let (Ok(graph), Ok(overrides)) = (parse_graph(&data("graph.json")), parse_overrides(&document)) {
                let _ = resolve(&graph, Some(&overrides), &packages());
            }
            let _ = parse_package(&document).map(|package| check_package(&package));
            let _ = belvedere_manifest::parse_descriptor(&document);
        }
    }
}
