//! Jobs of the service: what the next one asks for and what is said of it, decided without sockets, files or a clock.
//!
//! Nothing is remembered on the device. A restart is noted at the service first, with the kernel's boot identifier, and asked
//! of `init` only after the service accepted the note. Whoever finds the job afterwards, this process or the one after the
//! next start, compares: another boot identifier means that the machine restarted, by whatever cause, and the job is done;
//! the same one means that it did not, and a restart is due. So no job restarts the machine twice, wherever the power fails.
//!
//! `notify-next` and a job that ended are only reasons to ask: what counts is the answer to the last `$next/get`.

use belvedere_device_protocol::jobs::{
    Execution, GetNext, Next, Operation, Status, Update, details, next_topic, notify_next_topic, update_topic,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Without an answer for so long, ask for the next job again: it shows whether what was said has arrived.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Wait after the second refusal in a row; doubled up to [`LAST_REFUSED_WAIT`]. After the first one there is none.
const FIRST_REFUSED_WAIT: Duration = Duration::from_secs(2);
const LAST_REFUSED_WAIT: Duration = Duration::from_secs(120);
/// How long `init` may take from being asked to the machine's end: ordered shutdowns take at most 10 s, slow machines more.
/// It holds for a request without an answer too, which may have been heard.
const RESTART_WAIT: Duration = Duration::from_secs(60);
/// How often a restart is asked for before the job fails.
const RESTARTS_ASKED: u32 = 3;
/// Largest message that is looked at; documents of jobs are some hundred bytes.
const MAX_MESSAGE: usize = 64 << 10;
/// Longest job identifier, as AWS IoT Core has it.
const MAX_JOB_ID: usize = 64;
/// Longest reason in characters.
const MAX_REASON: usize = 255;

/// What the owner has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Subscribe to these topics.
    Subscribe(Vec<String>),
    /// Publish with at-least-once delivery.
    Publish {
        /// Topic.
        topic: String,
        /// JSON.
        payload: String,
    },
    /// Ask `init` to restart the machine; answer with [`Jobs::restart_answered`].
    Restart {
        /// One line for the console.
        why: String,
    },
}

/// What follows when the service accepted an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The machine restarts.
    Restart,
    /// The job is over; there may be another one.
    Look,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing is under way; the next job is asked for at this time, if there is one.
    Resting { look_at: Option<Duration> },
    /// The next job was asked for.
    Asked { token: String, since: Duration },
    /// An update was sent.
    Said { job: String, token: String, since: Duration, then: Then },
    /// `init` was asked.
    Restarting,
}

/// What is to be done about an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Say { status: Status, details: BTreeMap<String, String>, then: Then },
    Restart,
    Nothing,
}

/// The memory of what is under way; lost without harm.
#[derive(Debug)]
pub struct Jobs {
    thing: String,
    /// Of the running kernel; `None` when it could not be read: then nothing is restarted.
    boot: Option<String>,
    /// Start of this process's tokens.
    nonce: u32,
    tokens: u64,
    connected: bool,
    state: State,
    /// A change was told of while the next job was asked for.
    look_again: bool,
    /// The next job is not asked for before this time.
    hold: Duration,
    /// In a row.
    refusals: u32,
    /// The job that a restart was asked for, how often, and why the last one did not happen.
    asked: Option<(String, u32, String)>,
}

impl Jobs {
    /// For a thing; not connected. `boot` is the kernel's boot identifier as read, `nonce` makes this process's client
    /// tokens differ from its predecessor's.
    pub fn new(thing: &str, boot: &str, nonce: u32) -> Self {
        let boot = boot.trim();
        let fits = (1..=64).contains(&boot.len()) && boot.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        Self {
            thing: thing.to_owned(),
            boot: fits.then(|| boot.to_owned()),
            nonce,
            tokens: 0,
            connected: false,
            state: State::Resting { look_at: None },
            look_again: false,
            hold: Duration::ZERO,
            refusals: 0,
            asked: None,
        }
    }

    /// Whether a message at this topic is for [`Jobs::message`].
    pub fn hears(&self, topic: &str) -> bool {
        self.rest_of(topic).is_some()
    }

    /// The topic without what all topics of this thing's jobs begin with.
    fn rest_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix("$aws/things/")?.strip_prefix(self.thing.as_str())?.strip_prefix("/jobs/")
    }

    /// MQTT is connected, with a new session.
    pub fn connected(&mut self, now: Duration) -> Vec<Action> {
        self.connected = true;
        let answers = [next_topic(&self.thing), update_topic(&self.thing, "+")];
        let mut topics = vec![notify_next_topic(&self.thing)];
        topics.extend(answers.iter().flat_map(|topic| ["accepted", "rejected"].map(|answer| format!("{topic}/{answer}"))));
        self.look(now);
        let mut actions = vec![Action::Subscribe(topics)];
        actions.extend(self.poll(now));
        actions
    }

    /// MQTT is gone, and with it the answers that were awaited.
    pub fn disconnected(&mut self) {
        self.connected = false;
        if self.state != State::Restarting {
            self.state = State::Resting { look_at: None };
        }
    }

    /// A message came at a topic that [`Jobs::hears`].
    pub fn message(&mut self, topic: &str, payload: &[u8], now: Duration) -> Vec<Action> {
        let Some(rest) = self.rest_of(topic) else { return Vec::new() };
        // A message that is too large or not JSON says no more than that it came.
        let answer: Value = match payload.len() <= MAX_MESSAGE {
            true => serde_json::from_slice(payload).unwrap_or_default(),
            false => Value::Null,
        };
        match rest {
            "notify-next" => match self.state {
                State::Resting { .. } => self.look(now),
                State::Asked { .. } => self.look_again = true,
                // Both end with a look.
                State::Said { .. } | State::Restarting => {}
            },
            "$next/get/accepted" if self.awaits_next(&answer) => return self.next(answer, now),
            "$next/get/rejected" if self.awaits_next(&answer) => {
                log::warn!("the next job was refused: {}", shown(&answer["message"]));
                // Never at once: nothing else happens in between.
                self.refusals = self.refusals.max(1);
                self.refused(now);
            }
            _ => {
                if let Some(job) = rest.strip_suffix("/update/accepted") {
                    return self.accepted(job, &answer, now);
                }
                if let Some(job) = rest.strip_suffix("/update/rejected") {
                    self.rejected(job, &answer, now);
                }
            }
        }
        self.poll(now)
    }

    /// Whether this answers the last question for the next job.
    fn awaits_next(&self, answer: &Value) -> bool {
        matches!(&self.state, State::Asked { token, .. } if answer["clientToken"].as_str().is_none_or(|answered| answered == token))
    }

    fn accepted(&mut self, of: &str, answer: &Value, now: Duration) -> Vec<Action> {
        match &self.state {
            State::Said { job, token, then, .. } if job == of && answer["clientToken"] == token.as_str() => {
                let (job, then) = (job.clone(), *then);
                self.refusals = 0;
                match then {
                    Then::Restart => self.restart(job),
                    Then::Look => {
                        self.look(now);
                        self.poll(now)
                    }
                }
            }
            _ => Vec::new(),
        }
    }

    /// What was to follow does not: what the service knows is asked for anew, and decided upon.
    fn rejected(&mut self, of: &str, answer: &Value, now: Duration) {
        if matches!(&self.state, State::Said { job, token, .. } if job == of && answer["clientToken"] == token.as_str()) {
            log::warn!("the update of job {of} was refused: {}: {}", shown(&answer["code"]), shown(&answer["message"]));
            self.refused(now);
        }
    }

    fn refused(&mut self, now: Duration) {
        let wait = match self.refusals {
            0 => Duration::ZERO,
            refusals => FIRST_REFUSED_WAIT.saturating_mul(1 << (refusals - 1).min(16)).min(LAST_REFUSED_WAIT),
        };
        self.refusals = self.refusals.saturating_add(1);
        self.hold = now + wait;
        self.state = State::Resting { look_at: Some(self.hold) };
    }

    /// Asks for the next job as soon as that may be.
    fn look(&mut self, now: Duration) {
        if self.state != State::Restarting {
            self.state = State::Resting { look_at: Some(now.max(self.hold)) };
        }
    }

    /// The answer to [`Action::Restart`]: `init` took it, or why not.
    pub fn restart_answered(&mut self, answer: Result<(), String>, now: Duration) -> Vec<Action> {
        let message = match answer {
            Ok(()) => format!("init took the request and the machine still ran {} s later", RESTART_WAIT.as_secs()),
            Err(message) => {
                log::error!("ask init for the restart: {message}");
                message
            }
        };
        self.hold = now + RESTART_WAIT;
        if let Some((_, _, why_not)) = &mut self.asked {
            *why_not = message;
        }
        self.state = State::Resting { look_at: Some(self.hold) };
        self.poll(now)
    }

    /// When [`Jobs::poll`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            _ if !self.connected => None,
            State::Resting { look_at } => *look_at,
            State::Asked { since, .. } | State::Said { since, .. } => Some(*since + ANSWER_WAIT),
            State::Restarting => None,
        }
    }

    /// Asks what is due.
    pub fn poll(&mut self, now: Duration) -> Vec<Action> {
        if self.deadline().is_none_or(|at| now < at) {
            return Vec::new();
        }
        let token = self.token();
        self.look_again = false;
        let payload = serde_json::to_string(&GetNext { client_token: Some(token.clone()) }).unwrap_or_default();
        self.state = State::Asked { token, since: now };
        vec![Action::Publish { topic: next_topic(&self.thing), payload }]
    }

    fn token(&mut self) -> String {
        self.tokens += 1;
        format!("{:08x}-{}", self.nonce, self.tokens)
    }

    /// The next job is known.
    fn next(&mut self, answer: Value, now: Duration) -> Vec<Action> {
        self.state = State::Resting { look_at: None };
        // These two are read apart, so that a job that is not understood can be refused by its name.
        let job = answer["execution"]["jobId"].as_str().filter(|id| is_job_id(id)).map(str::to_owned);
        let version = answer["execution"]["versionNumber"].as_u64();
        let execution = match serde_json::from_value::<Next>(answer) {
            Ok(next) => next.execution,
            Err(error) => {
                let reason = format!("the job is not understood: {error}");
                return match job {
                    Some(job) => self.say(job, version, Status::Rejected, because(&reason), Then::Look, now),
                    None => {
                        log::error!("{}", cleaned(&reason));
                        self.rest(now)
                    }
                };
            }
        };
        let Some(execution) = execution else { return self.rest(now) };
        let Some(job) = job else {
            log::error!("the next job's identifier is not one; nothing is done about it");
            return self.rest(now);
        };
        let (count, why_not) = match &self.asked {
            Some((asked, count, why_not)) if *asked == job => (*count, why_not.as_str()),
            _ => (0, ""),
        };
        match decide(&execution, self.boot.as_deref(), count, why_not) {
            Decision::Nothing => {
                log::warn!("job {job} is {:?} and still the next one; nothing is done about it", execution.status);
                self.rest(now)
            }
            Decision::Restart => self.restart(job),
            Decision::Say { status, details, then } => self.say(job, version, status, details, then, now),
        }
    }

    /// Nothing to do, unless something was told meanwhile.
    fn rest(&mut self, now: Duration) -> Vec<Action> {
        self.refusals = 0;
        if std::mem::take(&mut self.look_again) {
            self.look(now);
        }
        self.poll(now)
    }

    fn say(
        &mut self,
        job: String,
        version: Option<u64>,
        status: Status,
        details: BTreeMap<String, String>,
        then: Then,
        now: Duration,
    ) -> Vec<Action> {
        log::info!(
            "job {job}: {status:?} {}",
            details.get(details::REASON).or(details.get(details::PROGRESS)).map_or("", String::as_str)
        );
        let token = self.token();
        let update =
            Update { status, status_details: details, expected_version: version, client_token: Some(token.clone()) };
        let topic = update_topic(&self.thing, &job);
        let payload = serde_json::to_string(&update).unwrap_or_default();
        self.state = State::Said { job, token, since: now, then };
        vec![Action::Publish { topic, payload }]
    }

    fn restart(&mut self, job: String) -> Vec<Action> {
        let count = match &self.asked {
            Some((asked, count, _)) if *asked == job => *count,
            _ => 0,
        };
        let why = format!("job {job} of the service");
        self.asked = Some((job, count.saturating_add(1), String::new()));
        self.state = State::Restarting;
        vec![Action::Restart { why }]
    }
}

/// `boot`: the running kernel's; `asked`: how often a restart was asked for this job; `why_not`: what came of the last time.
fn decide(execution: &Execution, boot: Option<&str>, asked: u32, why_not: &str) -> Decision {
    let end = |status, details| Decision::Say { status, details, then: Then::Look };
    let failed = |reason: &str| end(Status::Failed, because(reason));
    if !matches!(execution.status, Status::Queued | Status::InProgress) {
        return Decision::Nothing;
    }
    match execution.job_document {
        Operation::Ota { .. } => failed("this release has no updater yet"),
        Operation::Reboot {} => {
            let Some(boot) = boot else {
                return failed("the kernel's boot identifier cannot be read, so that a restart could not be told from none");
            };
            if execution.status == Status::Queued {
                let noted = [(details::PROGRESS, "REBOOTING"), (details::BOOT, boot)];
                let details = noted.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
                return Decision::Say { status: Status::InProgress, details, then: Then::Restart };
            }
            match execution.status_details.get(details::BOOT) {
                Some(noted) if noted != boot => end(Status::Succeeded, BTreeMap::new()),
                Some(_) if asked < RESTARTS_ASKED => Decision::Restart,
                Some(_) => failed(&format!("the machine did not restart, asked {asked} times: {why_not}")),
                // It may have restarted for this already.
                None => failed("the job is in progress without the boot identifier that it began with"),
            }
        }
    }
}

fn because(reason: &str) -> BTreeMap<String, String> {
    [(details::REASON.to_owned(), cleaned(reason))].into()
}

/// One line, bounded.
fn cleaned(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| "without saying why".into(), cleaned)
}

/// Whether it can be a level of a topic; AWS IoT Core's alphabet.
fn is_job_id(text: &str) -> bool {
    (1..=MAX_JOB_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
