//! What the sample documents become. (Each rule broken once: between_rules.rs.)

use belvedere_manifest::{
    Category, Error, Launch, PackageSet, PortType, Value, camera_package, check_package, document_text, host_ports,
    included, parse_descriptor, parse_graph, parse_overrides, parse_package, resolve,
};

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
fn ports_stay_closed_unless_the_overrides_open_them() {
    let rule = r#"[{"node": "code_node", "containerPort": 80, "hostPort": 8081}]"#;
    assert!(sample(&[], &[(rule, "[]")]).unwrap().open_ports.is_empty());
    assert_eq!(sample(&[], &[(", \"hostPort\": 8081", "")]).unwrap().open_ports[0].host_port, 8080, "the graph's wish");
}

/// Field cases port-package, port-graph, port-overrides: the sample inbound_network of the original appliance has its rule in
/// the overrides alone.
#[test]
fn what_a_package_offers_the_overrides_may_open_without_a_rule_in_the_graph() {
    let case = |name: &str| data(&format!("field-cases/port-{name}.json"));
    let package = parse_package(&case("package")).unwrap();
    let graph = parse_graph(&case("graph")).unwrap();
    let mut packages = PackageSet::default();
    let include = &graph.packages[0];
    packages.insert(&*include.name, &*include.version, package);
    let overrides = parse_overrides(&case("overrides")).unwrap();
    let application = resolve(&graph, Some(&overrides), &packages).unwrap();
    let open: Vec<_> =
        application.open_ports.iter().map(|port| (port.node.as_str(), port.container_port, port.host_port)).collect();
    assert_eq!(open, [("code_node", 8080, 8081)]);
    assert_eq!(host_ports(&graph, Some(&overrides)), [8081].into());
    assert!(resolve(&graph, None, &packages).unwrap().open_ports.is_empty());
}

/// Field case graph-with-byte-order-mark, as editors on Windows write it, and what is like it.
#[test]
fn documents_are_read_as_windows_editors_write_them() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/field-cases/graph-with-byte-order-mark.json");
    let bytes = std::fs::read(path).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.starts_with('\u{feff}') && text.contains("\r\n"), "the fixture lost what it is about");
    parse_graph(&text).unwrap();
    parse_graph(document_text(&bytes).unwrap()).unwrap();
    let marked = |name: &str| format!("\u{feff}{}", data(name).replace('\n', "\r\n"));
    parse_overrides(&marked("overrides.json")).unwrap();
    parse_package(&marked("package-code.json")).unwrap();
    parse_descriptor(&marked("descriptor-runtime.json")).unwrap();
    // One mark is one too many for a value, and a second one is no JSON.
    assert!(parse_graph(&format!("\u{feff}{text}")).is_err());
    let twice = parse_graph(&format!("\u{feff}{text}")).unwrap_err().to_string();
    assert!(twice.contains("two byte order marks"), "{twice}");
    // UTF-16 is named, with and without its mark, whichever way round.
    let plain = data("graph.json");
    let little: Vec<u8> = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = plain.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [[&[0xff, 0xfe], &little[..]].concat(), [&[0xfe, 0xff], &big[..]].concat(), little.clone(), big] {
        assert_eq!(document_text(&bytes).unwrap_err(), "is UTF-16 text; save it as UTF-8");
    }
    assert!(document_text(b"{\"a\": \"\xe4\"}").unwrap_err().contains("byte 8 "));
    let error = parse_graph(&String::from_utf8(little).unwrap()).unwrap_err().to_string();
    assert!(error.contains("UTF-16"), "{error}");
    assert_eq!(document_text(b"").unwrap(), "");
    assert_eq!(document_text(b"7").unwrap(), "7");
}

#[test]
fn what_other_applications_may_not_open_is_known_without_packages() {
    let graph = parse_graph(&data("graph.json")).unwrap();
    let overrides = parse_overrides(&data("overrides.json")).unwrap();
    assert_eq!(host_ports(&graph, Some(&overrides)), [8081].into());
    let wish = data("overrides.json").replace(", \"hostPort\": 8081", "");
    assert_eq!(host_ports(&graph, Some(&parse_overrides(&wish).unwrap())), [8080].into());
    assert!(host_ports(&graph, None).is_empty());
}

#[test]
fn a_package_is_taken_once_with_the_patch_that_any_document_names() {
    let graph = parse_graph(&data("graph.json")).unwrap();
    let more = r#"{"name": "123456789012::SAMPLE_CODE", "version": "1.0", "patchVersion": "def456"},
        {"name": "123456789012::SQUEEZENET_PYTORCH_V1", "version": "1.0", "patchVersion": "package"},
        {"name": "123456789012::warehouse-floor", "version": "1.0"}"#;
    let overrides = data("overrides.json").replace(r#"{"name": "123456789012::warehouse-floor", "version": "1.0"}"#, more);
    let all = included(&graph, Some(&parse_overrides(&overrides).unwrap())).unwrap();
    let patches: Vec<(&str, Option<&str>)> =
        all.iter().map(|listed| (listed.package.name.name(), listed.package.patch())).collect();
    assert_eq!(
        patches,
        [
            ("SAMPLE_CODE", Some("def456")),
            ("SQUEEZENET_PYTORCH_V1", Some("abc123")),
            ("abstract_rtsp_media_source", None),
            ("hdmi_data_sink", None),
            ("warehouse-floor", None),
            ("entrance-north", None),
        ]
    );
}

#[test]
fn a_rule_follows_its_node_when_that_is_replaced() {
    let application = sample(
        &[("\"overridable\": false, \"launch\": \"onAppStart\"", "\"overridable\": true")],
        &[
            ("{\"name\": \"my_threshold\"", "{\"name\": \"my_code\", \"interface\": \"123456789012::SAMPLE_CODE.interface\"}, {\"name\": \"my_threshold\""),
            ("{\"replace\": \"threshold_param\"", "{\"replace\": \"code_node\", \"with\": [{\"name\": \"my_code\"}]}, {\"replace\": \"threshold_param\""),
        ],
    )
    .unwrap();
    assert_eq!((application.open_ports[0].node.as_str(), application.code[0].node.name.as_str()), ("my_code", "my_code"));
    assert_eq!(application.code[0].inputs[0].bound, ["warehouse-floor", "entrance-north"], "edges follow too");
}

#[test]
fn what_panorama_cli_makes_first_is_refused_with_help() {
    let skeleton = r#"{"nodePackage":{"envelopeVersion":"2021-01-01","name":"X","version":"1.0","description":"d","assets":[],"interfaces":[]}}"#;
    assert!(
        parse_package(skeleton)
            .unwrap_err()
            .to_string()
            .contains("nodePackage.interfaces: is empty, and needs at least one")
    );
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
