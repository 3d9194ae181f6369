use super::*;
use belvedere_device_protocol::jobs::Status::{Failed, InProgress, Queued, Rejected, Succeeded};
use serde_json::json;
use std::collections::VecDeque;

const THING: &str = "panorama_x_Thing_1";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn topic(rest: &str) -> String {
    format!("$aws/things/{THING}/jobs/{rest}")
}

fn job(id: &str, document: Value) -> Value {
    json!({ "jobId": id, "status": "QUEUED", "statusDetails": {}, "versionNumber": 1, "jobDocument": document })
}

fn reboot(id: &str) -> Value {
    job(id, json!({ "operation": "REBOOT" }))
}

/// What becomes of a message or a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    /// The service or `init` says no.
    Refused,
    /// The other side never hears it.
    Lost,
    /// The other side does it, and its answer is lost.
    Unanswered,
}

/// A service with a queue of jobs, and a machine with its `init` and an agent, both of which may end at any time.
struct World {
    jobs: Jobs,
    now: Duration,
    boot: u32,
    /// Executions as the service keeps them, in order.
    queue: Vec<Value>,
    /// What is said and asked, in order; `Lost` and so on for those that are named here, the first ones first.
    updates: VecDeque<Fate>,
    gets: VecDeque<Fate>,
    calls: VecDeque<Fate>,
    said: Vec<(String, Update)>,
    questions: usize,
    asked: Vec<String>,
    /// Machine restarts done by `init`, with the job that was in progress.
    restarted: Vec<String>,
}

impl World {
    fn new(queue: &[Value]) -> Self {
        let (now, boot) = (s(0), 1);
        World {
            jobs: Jobs::new(THING, "boot-1\n", 7),
            now,
            boot,
            queue: queue.to_vec(),
            updates: VecDeque::new(),
            gets: VecDeque::new(),
            calls: VecDeque::new(),
            said: Vec::new(),
            questions: 0,
            asked: Vec::new(),
            restarted: Vec::new(),
        }
    }

    fn connect(&mut self) {
        let actions = self.jobs.connected(self.now);
        self.run(actions);
    }

    /// A new agent in the same boot.
    fn new_agent(&mut self) {
        self.jobs = Jobs::new(THING, &format!("boot-{}", self.boot), 7 + self.now.as_secs() as u32);
        self.connect();
    }

    /// The machine starts, by whatever cause.
    fn power_cut(&mut self) {
        self.boot += 1;
        self.new_agent();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let actions = self.jobs.poll(self.now);
        self.run(actions);
    }

    fn hear(&mut self, rest: &str, payload: &[u8]) {
        let actions = self.jobs.message(&topic(rest), payload, self.now);
        self.run(actions);
    }

    fn status(&self, id: &str) -> Status {
        let execution = self.queue.iter().find(|execution| execution["jobId"] == id).unwrap();
        serde_json::from_value(execution["status"].clone()).unwrap()
    }

    fn details(&self, id: &str) -> &Value {
        &self.queue.iter().find(|execution| execution["jobId"] == id).unwrap()["statusDetails"]
    }

    fn statuses(&self) -> Vec<Status> {
        self.said.iter().map(|(_, update)| update.status).collect()
    }

    fn run(&mut self, actions: Vec<Action>) {
        for action in actions {
            let more = match action {
                Action::Subscribe(topics) => {
                    let rest = [
                        "notify-next", "$next/get/accepted", "$next/get/rejected", "+/update/accepted", "+/update/rejected",
                    ];
                    assert_eq!(topics, rest.map(topic));
                    Vec::new()
                }
                Action::Publish { topic: to, payload } => {
                    let payload: Value = serde_json::from_str(&payload).unwrap();
                    let (answer, payload) = self.published(to.strip_prefix(&topic("")).unwrap(), &payload);
                    if answer.is_empty() {
                        continue;
                    } else {
                        self.jobs.message(&answer, payload.to_string().as_bytes(), self.now)
                    }
                }
                Action::Restart { why } => {
                    assert!(self.restart_is_noted(), "asked for a restart that the service does not know of");
                    self.asked.push(why);
                    match self.calls.pop_front().unwrap_or(Fate::Works) {
                        Fate::Works => {
                            let in_progress =
                                self.queue.iter().find(|execution| execution["status"] == "IN_PROGRESS").unwrap();
                            self.restarted.push(in_progress["jobId"].as_str().unwrap().to_owned());
                            let more = self.jobs.restart_answered(Ok(()), self.now);
                            assert!(more.is_empty(), "{more:?}");
                            self.now += s(20);
                            self.boot += 1;
                            return self.new_agent();
                        }
                        // It says yes and does nothing.
                        Fate::Unanswered => self.jobs.restart_answered(Ok(()), self.now),
                        Fate::Refused | Fate::Lost => self.jobs.restart_answered(Err("no such socket".into()), self.now),
                    }
                }
            };
            self.run(more);
        }
    }

    fn restart_is_noted(&self) -> bool {
        let boot = format!("boot-{}", self.boot);
        self.queue.iter().any(|e| e["status"] == "IN_PROGRESS" && e["statusDetails"]["boot"] == boot.as_str())
    }

    fn published(&mut self, rest: &str, payload: &Value) -> (String, Value) {
        let token = payload["clientToken"].clone();
        let refusal = json!({ "code": "VersionMismatch", "message": "no", "clientToken": token });
        if rest == "$next/get" {
            self.questions += 1;
            let ended = |e: &&Value| matches!(e["status"].as_str(), Some("QUEUED" | "IN_PROGRESS"));
            let in_progress = self.queue.iter().find(|e| e["status"] == "IN_PROGRESS");
            let next = in_progress.or(self.queue.iter().find(ended)).cloned().unwrap_or(json!({}));
            return match self.gets.pop_front().unwrap_or(Fate::Works) {
                Fate::Works => {
                    (topic("$next/get/accepted"), json!({ "clientToken": token, "timestamp": 1, "execution": next }))
                }
                Fate::Refused => (topic("$next/get/rejected"), refusal),
                Fate::Lost | Fate::Unanswered => (String::new(), Value::Null),
            };
        }
        let id = rest.strip_suffix("/update").unwrap().to_owned();
        let update: Update = serde_json::from_value(payload.clone()).unwrap();
        let fate = self.updates.pop_front().unwrap_or(Fate::Works);
        let execution = self.queue.iter_mut().find(|execution| execution["jobId"] == id.as_str()).unwrap();
        let fits = update.expected_version.is_none_or(|version| execution["versionNumber"] == version);
        if fits && matches!(fate, Fate::Works | Fate::Unanswered) {
            execution["status"] = payload["status"].clone();
            execution["statusDetails"] = payload["statusDetails"].clone();
            execution["versionNumber"] = (execution["versionNumber"].as_u64().unwrap_or(0) + 1).into();
        }
        self.said.push((id.clone(), update));
        match fate {
            Fate::Works if fits => {
                (topic(&format!("{id}/update/accepted")), json!({ "clientToken": token, "timestamp": 1 }))
            }
            Fate::Works | Fate::Refused => (topic(&format!("{id}/update/rejected")), refusal),
            Fate::Lost | Fate::Unanswered => (String::new(), Value::Null),
        }
    }
}

#[test]
fn a_restart_is_noted_done_once_and_reported() {
    let mut world = World::new(&[reboot("d-1")]);
    world.connect();
    assert_eq!(world.statuses(), [InProgress, Succeeded]);
    let (_, first) = &world.said[0];
    assert_eq!(first.expected_version, Some(1));
    assert_eq!(json!(first.status_details), json!({ "progress": "REBOOTING", "boot": "boot-1" }));
    assert_eq!(world.said[1].1.expected_version, Some(2));
    assert_eq!(world.asked, ["job d-1 of the service"]);
    assert_eq!(world.status("d-1"), Succeeded);
    world.pass(s(1000));
    assert_eq!((world.boot, world.questions), (2, 3), "nothing more is asked");
}

#[test]
fn a_change_that_is_told_of_is_looked_at() {
    let mut world = World::new(&[]);
    world.connect();
    assert_eq!(world.questions, 1);
    world.queue.push(reboot("d-1"));
    world.pass(s(100));
    assert_eq!(world.questions, 1);
    world.hear("notify-next", b"what it says is not believed");
    assert_eq!(world.status("d-1"), Succeeded);
    // Told of while a question is open: the answer may be older.
    let mut world = World::new(&[]);
    let Action::Publish { payload, .. } = &world.jobs.connected(s(0))[1] else { panic!() };
    let token = serde_json::from_str::<Value>(payload).unwrap()["clientToken"].clone();
    world.queue.push(reboot("d-1"));
    world.hear("notify-next", b"{}");
    assert_eq!(world.questions, 0);
    world.hear("$next/get/accepted", json!({ "clientToken": token }).to_string().as_bytes());
    assert_eq!(world.status("d-1"), Succeeded);
}

#[test]
fn jobs_are_done_one_after_the_other() {
    let mut world = World::new(&[reboot("d-1"), reboot("d-2")]);
    world.connect();
    assert_eq!(world.restarted, ["d-1", "d-2"]);
    assert_eq!(world.boot, 3);
}

#[test]
fn without_the_service_s_yes_nothing_is_restarted() {
    // Refused: asked anew, and what is then known decides.
    let mut world = World::new(&[reboot("d-1")]);
    world.updates.extend([Fate::Refused; 1000]);
    world.connect();
    assert_eq!((world.questions, world.said.len()), (2, 2), "the first refusal is followed by a look at once");
    for _ in 0..600 {
        world.pass(s(1));
    }
    assert!((6..=12).contains(&world.said.len()), "later ones wait: {}", world.said.len());
    assert!(world.asked.is_empty());
    assert_eq!(world.status("d-1"), Queued);
    // It was withdrawn meanwhile.
    let mut world = World::new(&[reboot("d-1")]);
    world.updates.push_back(Fate::Refused);
    world.gets.extend([Fate::Works, Fate::Lost]);
    world.connect();
    world.queue.clear();
    world.pass(s(30));
    assert_eq!((world.questions, world.asked.len(), world.boot), (3, 0, 1));
    // Lost: likewise, after a while.
    let mut world = World::new(&[reboot("d-1")]);
    world.updates.push_back(Fate::Lost);
    world.connect();
    world.pass(s(29));
    assert!(world.asked.is_empty());
    world.pass(s(1));
    assert_eq!((world.restarted.len(), world.status("d-1")), (1, Succeeded));
}

#[test]
fn another_s_yes_is_none() {
    let mut world = World::new(&[reboot("d-1")]);
    world.updates.push_back(Fate::Lost);
    world.connect();
    let token = world.said[0].1.client_token.clone().unwrap();
    world.hear("d-1/update/accepted", b"{}");
    world.hear("d-1/update/accepted", br#"{"clientToken":"of-another"}"#);
    world.hear("d-2/update/accepted", json!({ "clientToken": token }).to_string().as_bytes());
    world.hear("d-1/update/rejected", br#"{"clientToken":"of-another"}"#);
    assert!(world.asked.is_empty());
    assert_eq!(world.questions, 1);
}

#[test]
fn a_version_that_is_not_the_service_s_is_refused_there_and_restarts_nothing() {
    let mut world = World::new(&[reboot("d-1")]);
    let get = world.jobs.connected(s(0));
    let Action::Publish { payload, .. } = &get[1] else { panic!() };
    let token = serde_json::from_str::<Value>(payload).unwrap()["clientToken"].clone();
    let old = json!({ "clientToken": token, "execution": world.queue[0] }).to_string();
    world.queue[0]["versionNumber"] = 5.into();
    world.queue[0]["status"] = "FAILED".into();
    world.hear("$next/get/accepted", old.as_bytes());
    assert_eq!(world.said.len(), 1);
    assert!(world.asked.is_empty());
    assert_eq!(world.status("d-1"), Failed);
}

#[test]
fn a_yes_that_was_lost_is_found_with_the_next_look() {
    let mut world = World::new(&[reboot("d-1")]);
    world.updates.push_back(Fate::Unanswered);
    world.connect();
    assert_eq!((world.status("d-1"), world.asked.len()), (InProgress, 0));
    world.jobs.disconnected();
    world.pass(s(100));
    assert!(world.asked.is_empty(), "offline nothing is done");
    world.connect();
    assert_eq!((world.status("d-1"), world.restarted.len()), (Succeeded, 1));
}

#[test]
fn a_power_cut_after_the_note_is_the_restart() {
    let mut world = World::new(&[reboot("d-1")]);
    world.updates.push_back(Fate::Unanswered);
    world.connect();
    world.power_cut();
    assert_eq!((world.status("d-1"), world.asked.len(), world.boot), (Succeeded, 0, 2));
    // What is said at last may be lost too: the job is still no reason to restart.
    let mut world = World::new(&[reboot("d-1")]);
    world.updates.extend([Fate::Works, Fate::Lost, Fate::Refused, Fate::Unanswered]);
    world.connect();
    for _ in 0..10 {
        world.pass(s(30));
    }
    assert_eq!((world.status("d-1"), world.restarted.len(), world.boot), (Succeeded, 1, 2));
}

#[test]
fn an_init_that_does_not_is_asked_three_times() {
    for fate in [Fate::Refused, Fate::Unanswered] {
        let mut world = World::new(&[reboot("d-1"), reboot("d-2")]);
        world.calls.extend([fate; 3]);
        world.connect();
        for _ in 0..59 {
            world.pass(s(1));
            world.hear("notify-next", b"{}");
        }
        // Connections come and go; the machine may be about to end.
        world.jobs.disconnected();
        world.connect();
        assert_eq!(world.asked.len(), 1, "not before it had its time");
        for asked in 2..=3 {
            world.pass(s(1));
            assert_eq!(world.asked.len(), asked);
            world.pass(s(59));
            assert_eq!(world.asked.len(), asked);
        }
        assert_eq!(world.status("d-1"), InProgress);
        world.pass(s(1));
        assert_eq!(world.status("d-1"), Failed);
        let reason = world.details("d-1")["reason"].as_str().unwrap();
        let expected = if fate == Fate::Refused { "no such socket" } else { "init took the request" };
        assert!(reason.contains("asked 3 times") && reason.contains(expected), "{reason}");
        // The next job counts from the beginning.
        assert_eq!((world.status("d-2"), world.asked.len(), world.boot), (Succeeded, 4, 2));
    }
}

#[test]
fn an_init_that_does_it_the_second_time_is_enough() {
    let mut world = World::new(&[reboot("d-1")]);
    world.calls.push_back(Fate::Refused);
    world.connect();
    world.pass(s(60));
    assert_eq!((world.status("d-1"), world.asked.len(), world.restarted.len()), (Succeeded, 2, 1));
}

#[test]
fn an_update_of_the_software_fails_with_its_reason() {
    let document = json!({ "operation": "OTA", "imageVersion": "2.0.0", "allowMajorVersionUpdate": true });
    let mut world = World::new(&[job("d-1", document), reboot("d-2")]);
    world.connect();
    assert_eq!(world.status("d-1"), Failed);
    assert_eq!(world.details("d-1"), &json!({ "reason": "this release has no updater yet" }));
    assert_eq!(world.status("d-2"), Succeeded, "the next one follows");
}

#[test]
fn what_is_not_understood_is_rejected_with_a_reason() {
    for document in [json!({ "operation": "DANCE" }), json!({}), json!(null), json!({ "operation": "OTA" }), json!([1])] {
        let mut world = World::new(&[job("d-1", document.clone()), reboot("d-2")]);
        world.connect();
        assert_eq!(world.status("d-1"), Rejected, "{document}");
        let reason = world.details("d-1")["reason"].as_str().unwrap();
        assert!(reason.starts_with("the job is not understood: ") && reason.len() <= 4 * MAX_REASON, "{reason}");
        assert_eq!((world.status("d-2"), world.restarted.len()), (Succeeded, 1));
    }
    // A long name of an operation does not make a long reason.
    let mut world = World::new(&[job("d-1", json!({ "operation": "\u{1b}ä".repeat(5000) }))]);
    world.connect();
    let reason = world.details("d-1")["reason"].as_str().unwrap();
    assert!(reason.chars().count() == MAX_REASON && !reason.contains('\u{1b}'));
    // Without a version the service cannot be asked to compare it.
    let mut execution = reboot("d-1");
    execution["versionNumber"] = json!("one");
    let mut world = World::new(&[execution]);
    world.connect();
    assert_eq!((world.status("d-1"), world.said[0].1.expected_version), (Rejected, None));
}

#[test]
fn a_job_without_a_name_is_left_alone() {
    let long = "x".repeat(65);
    for id in [json!(null), json!(7), json!(""), json!("a/b"), json!("+"), json!("$next"), json!(long)] {
        let mut execution = reboot("d-1");
        execution["jobId"] = id.clone();
        let mut world = World::new(&[execution]);
        world.connect();
        world.pass(s(10_000));
        assert_eq!((world.said.len(), world.asked.len(), world.questions), (0, 0, 1), "{id}");
    }
}

#[test]
fn what_cannot_be_told_apart_is_not_restarted() {
    let mut world = World::new(&[reboot("d-1"), reboot("d-2")]);
    world.jobs = Jobs::new(THING, " \n", 1);
    world.connect();
    assert_eq!((world.status("d-1"), world.status("d-2")), (Failed, Failed));
    assert!(world.asked.is_empty() && world.details("d-1")["reason"].as_str().unwrap().contains("boot identifier"));
    let mut execution = reboot("d-1");
    execution["status"] = "IN_PROGRESS".into();
    let mut world = World::new(&[execution]);
    world.connect();
    assert_eq!((world.status("d-1"), world.asked.len()), (Failed, 0));
}

#[test]
fn an_ended_job_that_is_the_next_one_is_left_alone() {
    let mut world = World::new(&[]);
    world.gets.push_back(Fate::Lost);
    world.connect();
    let mut execution = reboot("d-1");
    execution["status"] = "SUCCEEDED".into();
    world.hear("$next/get/accepted", json!({ "execution": execution }).to_string().as_bytes());
    world.pass(s(1000));
    assert_eq!((world.said.len(), world.asked.len(), world.questions), (0, 0, 1));
}

#[test]
fn questions_without_answers_are_repeated() {
    let mut world = World::new(&[reboot("d-1")]);
    world.gets.extend([Fate::Lost, Fate::Refused, Fate::Refused]);
    world.connect();
    world.pass(s(30));
    assert_eq!(world.questions, 2);
    world.pass(s(1));
    assert_eq!(world.questions, 2, "not at once after a refusal");
    world.pass(s(1));
    world.pass(s(4));
    assert_eq!(world.status("d-1"), Succeeded);
}

#[test]
fn noise_and_what_is_too_large_change_nothing() {
    let mut world = World::new(&[]);
    world.gets.extend([Fate::Lost; 100]);
    world.connect();
    let mut large = json!({ "execution": reboot("d-1") });
    large["filling"] = "x".repeat(MAX_MESSAGE).into();
    let large = large.to_string();
    for rest in [
        "notify-next", "$next/get/accepted", "$next/get/rejected", "d-1/update/accepted", "d-1/update/rejected", "", "/",
        "x/y",
    ] {
        for payload in [b"".as_slice(), b"[]", b"7", b"{\"execution\":7}", b"\xff", b"{\"execution\":[]}", large.as_bytes()]
        {
            world.hear(rest, payload);
        }
    }
    assert!(world.said.is_empty() && world.asked.is_empty());
    assert!(!world.jobs.hears("$aws/things/another/jobs/notify-next"));
    assert!(!world.jobs.hears(&format!("$aws/things/{THING}/shadow/name/device/update/rejected")));
    assert!(world.jobs.hears(&topic("d-1/update/rejected")));
}

proptest::proptest! {
    /// Whatever is lost, refused or cut off in whatever order: a job restarts the machine at most once, never without the
    /// service's note (which the fake checks), and every job ends.
    #[test]
    fn no_order_of_events_restarts_twice(
        events in proptest::collection::vec((0u8..8, 0u64..90), 0..40),
        fates in proptest::collection::vec((0u8..3, 0u8..4), 0..40),
    ) {
        let mut world = World::new(&[reboot("d-1"), reboot("d-2"), reboot("d-3")]);
        for (what, fate) in fates {
            let fate = [Fate::Works, Fate::Refused, Fate::Lost, Fate::Unanswered][usize::from(fate)];
            [&mut world.updates, &mut world.gets, &mut world.calls][usize::from(what)].push_back(fate);
        }
        world.connect();
        for (event, seconds) in events {
            match event {
                0 => world.power_cut(),
                1 => world.new_agent(),
                2 => world.jobs.disconnected(),
                3 => { world.jobs.disconnected(); world.connect() }
                4 => world.hear("notify-next", b"{}"),
                _ => world.pass(s(seconds)),
            }
        }
        world.connect();
        for _ in 0..400 {
            world.pass(s(30));
        }
        for id in ["d-1", "d-2", "d-3"] {
            let restarts = world.restarted.iter().filter(|restarted| *restarted == id).count();
            proptest::prop_assert!(restarts <= 1, "{} restarted {} times", id, restarts);
            proptest::prop_assert!(matches!(world.status(id), Succeeded | Failed), "{} is {:?}", id, world.status(id));
        }
    }
}
