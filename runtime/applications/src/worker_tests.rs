//! What a node may reach.

use super::*;
use crate::deployment::PreparedCode;
use crate::places::Places;
use crate::shared::Known;
use belvedere_device_protocol::{Deployment, NodeSignal};
use belvedere_interfaces::camera::StreamConfiguration;
use belvedere_interfaces::channel::node::Port;
use belvedere_manifest::{Application, CameraNode, Descriptor, Instance, Launch, parse_descriptor};

fn desired() -> DesiredDeployment {
    let deployment = Deployment {
        application_instance_id: "a".into(),
        name: String::new(),
        created_ms: 0,
        graph: serde_json::json!({}),
        overrides: None,
        packages: Vec::new(),
        cameras: Vec::new(),
        desired_state: DesiredState::Running,
        replaces: None,
        runtime_role_arn: None,
    };
    DesiredDeployment { sha256: String::new(), deployment, signals: BTreeMap::new() }
}

/// It came out of its removal as removed, ran, was reported for ten more minutes, and then never again.
#[test]
fn an_instance_that_is_asked_for_again_while_it_is_removed_is_not_a_removed_one() {
    let directory = tempfile::tempdir().unwrap();
    let places = Places { state: directory.path().to_owned(), ..Places::default() };
    let shared = Arc::new(Shared::new(places, [0; 32], String::new()));
    shared.note(|model| model.instances.insert("a".into(), Known { has_worker: true, ..Known::new("s".into()) }));
    let mut worker = Worker {
        shared: shared.clone(),
        store: Store::open(directory.path()).unwrap(),
        id: "a".into(),
        actual: Actual::default(),
        prepared: None,
        running: None,
        refused: Some("s".into()),
    };
    // The worker found it not wanted; then it is wanted again, and then the worker removes it.
    shared.wish(|model| model.desired.insert("a".into(), DesiredDeployment { sha256: "s".into(), ..desired() }));
    worker.remove().unwrap();
    assert!(!worker.may_go());
    assert_eq!(worker.refused, None, "what could not be installed once is tried anew");
    let model = shared.lock();
    let known = &model.instances["a"];
    assert_eq!((known.removed, &known.stage), (None, &Stage::Requested));
}

/// An application whose code node `code` has the camera node `front`.
fn with_a_camera() -> Prepared {
    let entry = r#"{"runtimeDescriptor":{"envelopeVersion":"2021-01-01","entry":{"name":"/app.py"}}}"#;
    let Descriptor::Runtime(entry) = parse_descriptor(entry).unwrap() else { panic!() };
    let node = Instance {
        name: "front".into(),
        package: "1::CAM".into(),
        version: "1.0".into(),
        patch: None,
        interface: "CAM".into(),
    };
    let port = Port { name: "video_in".into(), kind: "media".into(), value: None, bound: vec!["front".into()] };
    let stream =
        StreamConfiguration { stream_id: "stream-a".into(), url: "rtsp://camera".into(), username: None, password: None };
    Prepared {
        application: Application {
            cameras: vec![CameraNode { node, launch: Launch::OnAppStart }],
            ..Application::default()
        },
        code: vec![PreparedCode { node: "code".into(), tree: String::new(), entry, inputs: vec![port], outputs: vec![] }],
        models: Vec::new(),
        streams: BTreeMap::from([("front".into(), stream)]),
    }
}

/// Runtime D14: a paused camera was not asked for, but whoever opened its stream got the pictures that others watched.
#[test]
fn the_pictures_of_a_paused_camera_node_are_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let places = Places { frames: directory.path().join("frames.sock"), ..Places::default() };
    let frames = packet::listen(&places.frames).unwrap();
    let shared = Arc::new(Shared::new(places, [0; 32], String::new()));
    let prepared = with_a_camera();
    let open = opener(&shared, "a", 0, "code".into(), &prepared);
    let target = Target::Frames { port: "video_in".into(), index: 0 };
    let signal = |signal: NodeSignal| {
        let signals = BTreeMap::from([("front".into(), signal)]);
        shared.wish(|model| model.desired.insert("a".into(), DesiredDeployment { signals, ..desired() }));
    };
    open(&target).expect("nothing was signalled");
    signal(NodeSignal::Pause);
    assert!(open(&target).unwrap_err().contains("camera node front is paused"));
    signal(NodeSignal::Resume);
    open(&target).expect("it was resumed");
    drop(frames);
}

/// Runtime D14, its kind: who was resumed, opened a stream and was paused again within two seconds kept it.
#[test]
fn a_stream_that_was_opened_between_two_looks_at_a_pause_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let places = Places { frames: directory.path().join("frames.sock"), ..Places::default() };
    let frames = packet::listen(&places.frames).unwrap();
    let shared = Arc::new(Shared::new(places.clone(), [0; 32], String::new()));
    let prepared = with_a_camera();
    let nodes = Nodes {
        application: prepared.application.clone(),
        streams: prepared.streams.clone(),
        code: BTreeMap::new(),
        models: BTreeMap::new(),
        active: true,
    };
    shared.note(|model| model.instances.insert("a".into(), Known { nodes: Some(nodes), ..Known::new("s".into()) }));
    let signal = |signal: NodeSignal| {
        let signals = BTreeMap::from([("front".into(), signal)]);
        shared.wish(|model| model.desired.insert("a".into(), DesiredDeployment { signals, ..desired() }));
    };
    let mut pauses = crate::pauses::Pauses::default();
    let mut look = || {
        let now = crate::pauses::pauses(&shared.lock());
        pauses.follow(&places, &now);
    };
    let open = opener(&shared, "a", 0, "code".into(), &prepared);
    let target = Target::Frames { port: "video_in".into(), index: 0 };
    let heard = || packet::receive::<frames::Request>(&packet::accept(&frames).unwrap()).unwrap().0;
    signal(NodeSignal::Pause);
    look();
    assert!(matches!(heard(), frames::Request::Withdraw { .. }));
    signal(NodeSignal::Resume);
    let _channel = open(&target).unwrap();
    assert!(matches!(heard(), frames::Request::Subscribe { .. }));
    signal(NodeSignal::Pause);
    look();
    let mut polled = [rustix::event::PollFd::new(&frames, rustix::event::PollFlags::IN)];
    let moment = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert!(rustix::event::poll(&mut polled, Some(&moment)).unwrap() > 0, "the stream goes on");
    assert!(matches!(heard(), frames::Request::Withdraw { .. }));
}
