//! Client and server against each other, and each against peers that misbehave.

use belvedere_interfaces::front_panel::{Condition, SetCondition};
use belvedere_interfaces::logs::{LogBatch, LogEntry, ReadLogs};
use belvedere_interfaces::machine::Restart;
use belvedere_interfaces::rights::{Caller, Host};
use belvedere_interfaces::{Done, Failure};
use belvedere_varlink::{CallError, Client, MAXIMUM_CONNECTIONS_PER_USER, MAXIMUM_MESSAGE, Peer, Pulse, Server};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn condition(active: bool) -> SetCondition {
    SetCondition { source: "test".into(), condition: Condition::Operating, active }
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service.sock");
    (directory, path)
}

/// Answers `SetCondition` when it is active and fails otherwise; keeps who asked.
fn serve(path: &PathBuf) -> Arc<Mutex<Vec<Peer>>> {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&peers);
    Server::bind(path)
        .unwrap()
        .patience(Duration::from_secs(20), Duration::from_millis(300))
        .route(move |call: SetCondition, peer| {
            seen.lock().unwrap().push(peer);
            if call.active { Ok(Done {}) } else { Err(Failure { reason: "dark".into(), message: "no light".into() }) }
        })
        .route(|call: ReadLogs, _| {
            let entry = LogEntry {
                sequence: 1,
                application_instance_id: None,
                stream: "syslog".into(),
                timestamp_ms: 0,
                message: "x".repeat(call.limit as usize),
            };
            Ok(LogBatch { entries: vec![entry], dropped: 0 })
        })
        .spawn();
    peers
}

/// Sends bytes, returns what comes until the server closes.
fn raw(path: &PathBuf, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn a_call_is_answered_and_the_peer_is_known() {
    let (_directory, path) = directory();
    let peers = serve(&path);
    let mut client = Client::connect(&path).unwrap();
    assert_eq!(client.server().unwrap().pid, std::process::id() as i32);
    assert_eq!(client.call(&condition(true)).unwrap(), Done {});
    let error = client.call(&condition(false)).unwrap_err();
    assert_eq!(error.failure().unwrap().reason, "dark");
    assert_eq!(belvedere_varlink::call(&path, &condition(true)).unwrap(), Done {});
    let peers = peers.lock().unwrap();
    assert_eq!(peers.len(), 3);
    assert_eq!(peers[0].pid, std::process::id() as i32);
    assert_eq!(peers[0].caller, Some(Caller::Developer));
    assert_eq!(peers[0].uid, rustix::process::getuid().as_raw());
}

/// boot D10: being root opened every door. This test is root or nobody that an appliance knows.
#[test]
fn on_an_appliance_the_table_of_rights_is_asked_before_anything_is_read() {
    let (directory, _) = directory();
    let root = rustix::process::getuid().is_root();
    let serve = |name: &str| {
        let path = directory.path().join(format!("{name}.sock"));
        let server = Server::bind(&path).unwrap().host(Host::Appliance);
        server
            .route(|_: Restart, _| Ok(Done {}))
            .route(|_: belvedere_interfaces::camera::GetStreams, _| Ok(Default::default()))
            .spawn();
        path
    };
    // The container manager, which root that is not process 1 is, has no business with init at all …
    let init = serve("init");
    let error = belvedere_varlink::call(&init, &Restart { why: "x".into() }).unwrap_err();
    assert_eq!(error.failure().map(|failure| failure.reason.as_str()), Some("permission_denied"), "{error}");
    let mut silent = UnixStream::connect(&init).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    silent.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("permission_denied"), "said and closed though nothing was sent: {answer}");
    // … and asks the camera for some things and not for others, which are refused whatever their parameters are.
    let camera = serve("camera");
    let asked = belvedere_varlink::call(&camera, &belvedere_interfaces::camera::GetStreams {});
    assert_eq!(asked.is_ok(), root, "{asked:?}");
    let refused = raw(&camera, b"{\"method\":\"org.belvedere.Machine.Restart\",\"parameters\":[]}\0");
    assert!(String::from_utf8(refused).unwrap().contains("permission_denied"));
}

#[test]
fn the_bytes_on_the_wire_are_varlink() {
    let (_directory, path) = directory();
    serve(&path);
    let call = br#"{"method":"org.belvedere.FrontPanel.SetCondition","parameters":{"source":"t","condition":"error","active":true}}"#;
    assert_eq!(raw(&path, &[call.as_slice(), b"\0"].concat()), b"{\"parameters\":{}}\0");
    let call = br#"{"method":"org.belvedere.FrontPanel.SetCondition","parameters":{"source":"t","condition":"error","active":false}}"#;
    assert_eq!(
        raw(&path, &[call.as_slice(), b"\0"].concat()),
        b"{\"error\":\"org.belvedere.Error\",\"parameters\":{\"reason\":\"dark\",\"message\":\"no light\"}}\0"
    );
    // Two calls in one write, the first without an answer.
    let two =
        b"{\"method\":\"org.varlink.service.GetInfo\",\"oneway\":true}\0{\"method\":\"org.varlink.service.GetInfo\"}\0";
    let answer = String::from_utf8(raw(&path, two)).unwrap();
    assert_eq!(answer.matches("interfaces").count(), 1, "{answer}");
    assert!(answer.contains("org.belvedere.FrontPanel") && answer.contains("org.varlink.service"), "{answer}");
}

#[test]
fn unknown_methods_interfaces_and_wrong_parameters_are_refused() {
    let (_directory, path) = directory();
    serve(&path);
    let error = |call: &str| String::from_utf8(raw(&path, format!("{call}\0").as_bytes())).unwrap();
    assert!(error(r#"{"method":"org.belvedere.FrontPanel.Explode"}"#).contains("org.varlink.service.MethodNotFound"));
    assert!(error(r#"{"method":"org.example.Nothing"}"#).contains("org.varlink.service.InterfaceNotFound"));
    assert!(error(r#"{"method":"nonsense"}"#).contains("org.varlink.service.MethodNotFound"));
    let wrong = error(
        r#"{"method":"org.belvedere.FrontPanel.SetCondition","parameters":{"source":"secret","condition":5,"active":true}}"#,
    );
    assert!(wrong.contains("org.varlink.service.InvalidParameter") && !wrong.contains('5'), "{wrong}");
    assert!(error(r#"{"method":"org.belvedere.FrontPanel.SetCondition"}"#).contains("missing field"));
}

#[test]
fn garbage_and_truncated_messages_end_the_connection_and_nothing_else() {
    let (_directory, path) = directory();
    let peers = serve(&path);
    let deep = [vec![b'['; 100_000], vec![0]].concat();
    for bytes in [b"\0".as_slice(), b"not json\0", b"{\"method\":\0", b"\xff\xfe\0", b"[]\0", &deep, b"{\"method\":\"org"] {
        assert_eq!(raw(&path, bytes), b"");
    }
    assert!(peers.lock().unwrap().is_empty());
    belvedere_varlink::call(&path, &condition(true)).unwrap();
}

#[test]
fn a_message_of_the_limit_passes_and_one_byte_more_does_not() {
    let (_directory, path) = directory();
    let peers = serve(&path);
    let call = br#"{"method":"org.belvedere.FrontPanel.SetCondition","parameters":{"source":"t","condition":"error","active":true}}"#;
    let padded = |length: usize| [call.as_slice(), &vec![b' '; length - call.len()], b"\0"].concat();
    assert_eq!(raw(&path, &padded(MAXIMUM_MESSAGE)), b"{\"parameters\":{}}\0");
    assert_eq!(raw(&path, &padded(MAXIMUM_MESSAGE + 1)), b"");
    // Without an end: cut off at the limit, not collected forever.
    assert_eq!(raw(&path, &vec![b'a'; 3 * MAXIMUM_MESSAGE]), b"");
    assert_eq!(peers.lock().unwrap().len(), 1);
}

/// boot D7: what a server takes is its own decision; PID 1 takes little.
#[test]
fn a_server_may_take_shorter_messages_only() {
    let (_directory, path) = directory();
    Server::bind(&path).unwrap().maximum_message(200).route(|_: SetCondition, _| Ok(Done {})).spawn();
    let call = br#"{"method":"org.belvedere.FrontPanel.SetCondition","parameters":{"source":"t","condition":"error","active":true}}"#;
    let padded = |length: usize| [call.as_slice(), &vec![b' '; length - call.len()], b"\0"].concat();
    assert_eq!(raw(&path, &padded(200)), b"{\"parameters\":{}}\0");
    assert_eq!(raw(&path, &padded(201)), b"");
}

/// What another program may write: parameters before the method, `null`, members that nobody knows, and members twice.
#[test]
fn a_message_is_what_it_says_in_any_order_and_says_it_once() {
    let (_directory, path) = directory();
    let peers = serve(&path);
    let parameters = r#"{"active":true,"source":"t","condition":"error","else":[[{"a":0}]]}"#;
    let method = r#""method":"org.belvedere.FrontPanel.SetCondition""#;
    let good = format!("{{\"parameters\":{parameters},\"more\":false,{method}}}\0");
    assert_eq!(raw(&path, good.as_bytes()), b"{\"parameters\":{}}\0");
    let none = raw(&path, b"{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":null}\0");
    assert!(none.starts_with(b"{\"parameters\":{\"interfaces\""));
    for twice in [
        format!("{{{method},\"parameters\":{parameters},\"parameters\":{parameters}}}\0"),
        format!("{{{method},{method},\"parameters\":{parameters}}}\0"),
    ] {
        assert_eq!(raw(&path, twice.as_bytes()), b"");
    }
    assert_eq!(peers.lock().unwrap().len(), 1);
}

#[test]
fn a_reply_over_the_limit_becomes_a_failure() {
    let (_directory, path) = directory();
    serve(&path);
    let mut client = Client::connect(&path).unwrap();
    let error = client.call(&ReadLogs { after: 0, limit: MAXIMUM_MESSAGE as u32 }).unwrap_err();
    assert_eq!(error.failure().unwrap().reason, "reply_too_large");
    assert_eq!(client.call(&ReadLogs { after: 0, limit: 500_000 }).unwrap().entries[0].message.len(), 500_000);
}

#[test]
fn a_slow_peer_is_cut_off_and_does_not_hold_up_others() {
    let (_directory, path) = directory();
    serve(&path);
    let mut slow = UnixStream::connect(&path).unwrap();
    slow.write_all(b"{\"method\"").unwrap();
    belvedere_varlink::call(&path, &condition(true)).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let started = Instant::now();
    assert_eq!(slow.read(&mut [0; 16]).unwrap(), 0);
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[test]
fn connections_over_the_bound_are_told_so_and_places_come_back() {
    let (_directory, path) = directory();
    serve(&path);
    let mut held: Vec<Client> = (0..MAXIMUM_CONNECTIONS_PER_USER).map(|_| Client::connect(&path).unwrap()).collect();
    for client in &mut held {
        client.call(&condition(true)).unwrap();
    }
    let mut one_more = UnixStream::connect(&path).unwrap();
    one_more.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    one_more.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("busy"), "{answer}");
    // A caller of ours learns the reason, whether the server closed before or after its call was sent.
    let error = belvedere_varlink::call(&path, &condition(true)).unwrap_err();
    assert_eq!(error.failure().map(|failure| failure.reason.as_str()), Some("busy"), "{error}");
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(20);
    while belvedere_varlink::call(&path, &condition(true)).is_err() {
        assert!(Instant::now() < deadline, "the places did not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_silent_server_gives_a_time_out() {
    let (_directory, path) = directory();
    let _listener = UnixListener::bind(&path).unwrap();
    let mut client = Client::connect(&path).unwrap();
    let started = Instant::now();
    let error = client.call_within(&condition(true), Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(100));
}

/// A server that takes one call and answers with these bytes.
fn answer_with(bytes: &'static [u8]) -> CallError {
    let (_directory, path) = directory();
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut call = [0u8; 4096];
        let _ = stream.read(&mut call).unwrap();
        let _ = stream.write_all(bytes);
    });
    let error = belvedere_varlink::call(&path, &condition(true)).unwrap_err();
    server.join().unwrap();
    error
}

#[test]
fn wrong_answers_are_errors_of_their_own() {
    assert!(matches!(answer_with(b""), CallError::Closed { .. }));
    assert!(matches!(answer_with(b"{\"parameters\":{}"), CallError::Closed { .. }));
    assert!(matches!(answer_with(b"nonsense\0"), CallError::Decode { .. }));
    assert!(matches!(answer_with(b"{\"error\":\"org.belvedere.Error\",\"parameters\":{}}\0"), CallError::Decode { .. }));
    assert!(matches!(answer_with(b"{\"error\":\"org.example.Other\"}\0"), CallError::Refused { .. }));
}

#[test]
fn a_stale_socket_is_replaced_a_served_one_and_a_file_are_not() {
    let (_directory, path) = directory();
    drop(UnixListener::bind(&path).unwrap());
    serve(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    belvedere_varlink::call(&path, &condition(true)).unwrap();
    assert!(matches!(Server::bind(&path), Err(belvedere_varlink::BindError::Served(_))));
    let file = path.with_file_name("file");
    std::fs::write(&file, "kept").unwrap();
    assert!(matches!(Server::bind(&file), Err(belvedere_varlink::BindError::NotASocket(_))));
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_client_outlives_the_restart_of_its_service() {
    let (_directory, path) = directory();
    let listener = UnixListener::bind(&path).unwrap();
    let first = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let mut client = Client::connect(&path).unwrap();
    first.join().unwrap();
    assert!(client.call(&condition(true)).is_err());
    serve(&path);
    client.call(&condition(true)).unwrap();
}

#[test]
fn a_missing_service_is_a_connect_error() {
    let (_directory, path) = directory();
    assert!(matches!(Client::connect(&path), Err(CallError::Connect { .. })));
}

/// A service whose calls nobody makes lives, too: the loop that takes connections turns by itself, and still answers.
#[test]
fn a_watched_server_looks_whether_its_state_can_be_had() {
    let (_directory, path) = directory();
    let state = Arc::new(Mutex::new(0));
    let looked = Arc::clone(&state);
    let (sender, looks) = std::sync::mpsc::channel();
    Server::bind(&path)
        .unwrap()
        .watch(Pulse::new("calls", Duration::from_secs(30)), move || {
            let free = looked.try_lock().is_ok();
            let _ = sender.send(free);
            free
        })
        .route(|_: SetCondition, _| Ok(Done {}))
        .spawn();
    let patience = Duration::from_secs(30);
    assert!(looks.recv_timeout(patience).unwrap());
    let held = state.lock().unwrap();
    while looks.recv_timeout(patience).unwrap() {}
    // It does not wait for the lock, and takes connections meanwhile.
    belvedere_varlink::call(&path, &condition(true)).unwrap();
    drop(held);
    while !looks.recv_timeout(patience).unwrap() {}
}
