//! The service without containers: what waits for what.

use super::*;
use belvedere_device_protocol::{Deployment, DesiredState, Object, PackageVersion};
use std::net::TcpListener;

fn deployment(id: &str, replaces: Option<&str>) -> DesiredDeployment {
    let manifest = Object {
        name: "package.json".into(),
        bucket: "bucket".into(),
        key: format!("{id}.json"),
        size: 1_000,
        sha256: hex::encode(<sha2::Sha256 as sha2::Digest>::digest(id)),
    };
    let package =
        PackageVersion { name: "1::P".into(), version: "1.0".into(), patch: "p".into(), manifest, assets: Vec::new() };
    let deployment = Deployment {
        application_instance_id: id.into(),
        name: id.into(),
        created_ms: 0,
        graph: serde_json::json!({}),
        overrides: None,
        packages: vec![package],
        cameras: Vec::new(),
        desired_state: DesiredState::Running,
        replaces: replaces.map(str::to_owned),
        runtime_role_arn: None,
    };
    DesiredDeployment { sha256: "a".repeat(64), deployment, signals: BTreeMap::new() }
}

fn places(directory: &std::path::Path) -> Places {
    let at = |name: &str| directory.join(name);
    Places { state: at("state"), run: at("run"), camera: at("camera.sock"), cgroups: false, ..Places::default() }
}

fn within(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runtime D6, tried applications A7: a connection that went silent held the lock that removals and other installations need,
/// and the end of the process waited for it.
#[test]
fn a_download_that_goes_silent_holds_up_no_removal_no_installation_and_no_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{");
            kept.push(stream);
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(places(directory.path())).unwrap();
    service.set_access(SetObjectAccess {
        endpoint,
        ca_pem: String::new(),
        region: "eu-central-1".into(),
        access_key_id: "key".into(),
        secret_access_key: "secret".into(),
        session_token: "token".into(),
        expires: i64::MAX,
    });
    let (one, two) = (deployment("one", None), deployment("two", None));
    service.set_desired(SetDesired { deployments: vec![one.clone(), two] }).unwrap();
    let report = |id: &str| {
        let reports = service.reports().applications;
        reports.into_iter().find(|report| report.application_instance_id == id).unwrap()
    };
    for id in ["one", "two"] {
        within(10, "both downloads to begin", || {
            report(id).status_description.starts_with("downloading the manifest of package 1::P 1.0")
        });
    }
    service.set_desired(SetDesired { deployments: vec![one] }).unwrap();
    within(10, "the removal", || report("two").status == "REMOVAL_SUCCEEDED");
    assert_eq!(report("one").status, "DEPLOYMENT_IN_PROGRESS");
    let begin = Instant::now();
    service.end();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// What a power cut leaves at each step of a replacement (README, "Updates and replacements"), as the next start finds it.
#[test]
fn what_is_replaced_goes_on_until_the_new_one_has_been_kept_as_what_runs() {
    let desired = BTreeMap::from([("new".to_owned(), deployment("new", Some("old")))]);
    let goes_on = |model: &Model, desired: &BTreeMap<String, DesiredDeployment>, kept: &[&str]| {
        let ran = |id: &str| kept.contains(&id).then(|| deployment(id, None));
        let retiring = retiring(model, desired, &ran);
        assert!(retiring.values().all(|retiring| retiring.replaced_by == "new"));
        retiring.into_keys().collect::<Vec<_>>()
    };
    let fresh = Model::default();
    assert_eq!(goes_on(&fresh, &desired, &["old"]), ["old"], "1: the new one is not ready");
    assert_eq!(goes_on(&fresh, &desired, &["old", "new"]), [""; 0], "2 and 3: the new one is what runs");
    assert_eq!(goes_on(&fresh, &desired, &["new"]), [""; 0], "4: the old one was renamed away");
    assert_eq!(goes_on(&fresh, &desired, &[]), [""; 0], "the old one never ran");
    // The old one is wanted for itself; or a name would lead elsewhere.
    let both = BTreeMap::from([("new".into(), deployment("new", Some("old"))), ("old".into(), deployment("old", None))]);
    assert_eq!(goes_on(&fresh, &both, &["old"]), [""; 0]);
    let evil = BTreeMap::from([("new".into(), deployment("new", Some("../old")))]);
    assert_eq!(goes_on(&fresh, &evil, &["../old"]), [""; 0]);
    // As it was wanted last, with its signals; and not once it was removed.
    let mut model = Model::default();
    model.desired.insert("old".into(), DesiredDeployment { sha256: "b".repeat(64), ..deployment("old", None) });
    let kept = |id: &str| (id == "old").then(|| deployment("old", None));
    assert_eq!(retiring(&model, &desired, &kept)["old"].desired.sha256, "b".repeat(64));
    model.instances.insert("old".into(), Known { removed: Some(Instant::now()), ..Known::new(String::new()) });
    assert_eq!(goes_on(&model, &desired, &["old"]), [""; 0]);
}

/// A first replacement that could not be deployed was replaced itself, and what had gone on running till then ended at once.
#[test]
fn what_runs_goes_on_when_its_replacement_is_replaced_before_it_ran() {
    let mut model = Model::default();
    model.desired.insert("first".into(), deployment("first", None));
    let kept = |id: &str| (id == "first").then(|| deployment("first", None));
    let mut next = |new: &str, old: &str, kept: &dyn Fn(&str) -> Option<DesiredDeployment>| {
        let desired = BTreeMap::from([(new.to_owned(), deployment(new, Some(old)))]);
        model.retiring = retiring(&model, &desired, kept);
        model.desired = desired;
        model.retiring.iter().map(|(id, known)| (id.clone(), known.replaced_by.clone())).collect::<Vec<_>>()
    };
    let goes_on = |until: &str| vec![("first".to_owned(), until.to_owned())];
    assert_eq!(next("second", "first", &kept), goes_on("second"));
    assert_eq!(next("third", "second", &kept), goes_on("third"));
    assert_eq!(next("third", "second", &kept), goes_on("third"), "said again, such as with a signal");
    let both = |id: &str| ["first", "third"].contains(&id).then(|| deployment(id, None));
    assert_eq!(next("third", "second", &both), [], "the newest one is what runs");
}

/// Nothing is wanted, and nothing was known to be wanted: so nothing was done, and a release left what the owner before had.
#[test]
fn a_wish_for_nothing_clears_what_an_unreadable_wish_left() {
    let directory = tempfile::tempdir().unwrap();
    let places = places(directory.path());
    let storage = places.instance("old").join("storage");
    std::fs::create_dir_all(&storage).unwrap();
    std::fs::write(storage.join("theirs"), "secret").unwrap();
    std::fs::write(places.state.join("desired.json"), "{\"deployments\": [{\"password\": \"theirs").unwrap();
    let service = Service::start(places.clone()).unwrap();
    assert!(storage.exists(), "it is better to wait for the service than to remove applications because of it");
    service.set_desired(SetDesired { deployments: Vec::new() }).unwrap();
    assert!(!storage.exists());
    assert_eq!(service.store.desired().unwrap(), SetDesired { deployments: Vec::new() });
    service.end();
}

/// Runs `work` on a thread that can start no other one: as a user with no right to more processes than it has.
fn without_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::thread::{Uid, set_thread_res_uid};
    assert!(rustix::process::geteuid().is_root(), "this test becomes another user: run it as root");
    std::thread::scope(|scope| {
        let limited = scope.spawn(|| {
            // The limit is the process's; root's threads are not held to it.
            let before = getrlimit(Resource::Nproc);
            setrlimit(Resource::Nproc, Rlimit { current: Some(1), ..before }).unwrap();
            let user = Uid::from_raw(59_321);
            set_thread_res_uid(user, user, user).unwrap();
            assert!(std::thread::Builder::new().spawn(|| {}).is_err());
            work()
        });
        limited.join().unwrap()
    })
}

/// Runtime D4, its kind: a program with many connections used the threads up, and the next one that was started, for
/// anybody, ended the process with all containers.
#[test]
fn an_instance_for_which_there_is_no_thread_gets_one_later() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(places(directory.path())).unwrap();
    without_threads(|| service.adopt(vec![deployment("one", None)]));
    within(10, "the thread", || {
        let reports = service.reports().applications;
        reports.iter().any(|report| report.status == "DEPLOYMENT_IN_PROGRESS")
    });
    service.end();
}

/// Two sets at a time could be kept in one order and carried out in the other: after a power cut the wrong one came back.
#[test]
fn what_is_kept_is_what_is_carried_out_whoever_asks_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(places(directory.path())).unwrap();
    let begin = std::sync::Barrier::new(2);
    for round in 0..100 {
        std::thread::scope(|scope| {
            for set in [vec![deployment("one", None)], vec![deployment("two", None)], Vec::new()]
                .into_iter()
                .skip(round % 2)
                .take(2)
            {
                let (service, begin) = (&service, &begin);
                scope.spawn(move || {
                    begin.wait();
                    service.set_desired(SetDesired { deployments: set }).unwrap();
                });
            }
        });
        let kept = service.store.desired().unwrap().deployments;
        let kept: Vec<&str> = kept.iter().map(|wanted| wanted.deployment.application_instance_id.as_str()).collect();
        assert_eq!(kept, service.shared.lock().desired.keys().collect::<Vec<_>>(), "in round {round}");
    }
    service.end();
}

/// Applications A3, its kind: who is named for a full disk was found by adding up all files every twenty seconds, without a
/// pause when that took minutes.
#[test]
fn adding_up_files_takes_a_tenth_of_a_processor_at_most() {
    let at = Instant::now();
    let shortage = crate::disk::Shortage { space: Space { free: 0, total: 0, free_files: 0, files: 0 }, largest: None };
    let measured = Measured { shortage, took: Duration::from_secs(60), at };
    assert!(!measured.is_old(at + Duration::from_secs(539)) && measured.is_old(at + Duration::from_secs(540)));
}
