//! Jobs on topics, as AWS IoT Core documents them ("Jobs device MQTT API"): what a device asks, what is answered, and
//! when it is told.
//!
//! `notify` says what is pending whenever a job comes or ends, `notify-next` which is the next one whenever that is
//! another one. A job that is begun has a time (see [`crate::job::times`]); when it is over, the service ends the job.

use crate::job::{Refused, Step, Update, allow, ended, parse, parse_describe, parse_start, parse_update, times, token};
use crate::message::Message;
use crate::topics::JobRequest;
use crate::{Fleet, FleetError};
use belvedere_device_protocol::jobs::{
    Operation, Status, describe_topic, next_topic, notify_next_topic, notify_topic, pending_topic, start_next_topic,
    update_topic,
};
use belvedere_store::device_jobs::DeviceJob;
use belvedere_store::devices::Device;
use belvedere_store::now_ms;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Two writers of one job are rare (a device and its own earlier connection): after so many lost races something is
/// wrong.
const ATTEMPTS: usize = 16;
/// Pending jobs that are listed, more than there can be.
const LISTED: usize = 50;

/// `JobExecutionSummary`.
fn summary(job: &DeviceJob) -> Value {
    let mut summary = json!({
        "jobId": job.job_id(),
        "queuedAt": job.created_ms / 1000,
        "lastUpdatedAt": job.updated_ms / 1000,
        "executionNumber": 1,
        "versionNumber": job.version,
    });
    if let Some(started) = job.times.started_ms {
        summary["startedAt"] = (started / 1000).into();
    }
    summary
}

/// `JobExecution`.
fn execution(thing: &str, job: &DeviceJob, document: bool) -> Value {
    let mut execution = summary(job);
    execution["thingName"] = thing.into();
    execution["status"] = json!(job.status);
    execution["statusDetails"] = json!(job.details);
    if document {
        execution["jobDocument"] = json!(job.operation);
    }
    let deadline = [job.times.deadline_ms, job.times.step_deadline_ms].into_iter().flatten().min();
    if let Some(deadline) = deadline {
        execution["approximateSecondsBeforeTimedOut"] = ((deadline - now_ms()).max(0) / 1000).into();
    }
    execution
}

/// `JobExecutionState`.
fn state(job: &DeviceJob) -> Value {
    json!({ "status": job.status, "statusDetails": job.details, "versionNumber": job.version })
}

/// A refusal, and how the job stands if that says more.
type Answer = Result<Map<String, Value>, (Refused, Option<DeviceJob>)>;

fn plainly(refused: Refused) -> (Refused, Option<DeviceJob>) {
    (refused, None)
}

fn body(members: Value) -> Map<String, Value> {
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

impl Fleet {
    /// Queues a job and tells the device; `None` if one of its jobs has not ended yet.
    pub async fn create_job(&self, device: &Device, operation: &Operation) -> Result<Option<DeviceJob>, FleetError> {
        let Some(job) = self.store.create_device_job(&device.device_id, operation).await? else { return Ok(None) };
        tracing::info!(job = job.job_id(), "job queued");
        self.tell(&device.thing_name, &device.device_id, None).await?;
        Ok(Some(job))
    }

    /// Ends what a device has to do, and tells it.
    pub async fn cancel_jobs(&self, device: &Device) -> Result<(), FleetError> {
        let pending = self.store.pending_device_jobs(&device.device_id, LISTED).await?;
        for job in &pending {
            self.conclude(&device.thing_name, job, Status::Canceled).await?;
        }
        Ok(())
    }

    /// Ends jobs whose devices took too long.
    pub(crate) async fn time_out_jobs(&self) -> Result<(), FleetError> {
        for job in self.store.overdue_device_jobs(now_ms()).await? {
            if let Some(device) = self.store.device(&job.device_id).await? {
                self.conclude(&device.thing_name, &job, Status::TimedOut).await?;
            }
        }
        Ok(())
    }

    /// The service itself ends a job; if the device was faster, that stands.
    async fn conclude(&self, thing: &str, job: &DeviceJob, status: Status) -> Result<(), FleetError> {
        let next = self.next_job(&job.device_id).await?;
        let clocks = times(&job.operation, job.times, (job.status, status), Step::Kept, now_ms());
        if self.store.update_device_job(job, status, &job.details, clocks).await? {
            tracing::warn!(job = job.job_id(), ?status, "job ended by the service");
            self.tell(thing, &job.device_id, next).await?;
        }
        Ok(())
    }

    /// A device asks about its jobs. Answers on the request's topics.
    pub(crate) async fn job_request(
        &self,
        thing: &str,
        device_id: &str,
        request: JobRequest<'_>,
        payload: &[u8],
    ) -> Result<(), FleetError> {
        let next = self.next_job(device_id).await?;
        let (topic, answer) = match request {
            JobRequest::Pending => (pending_topic(thing), self.pending(device_id, payload).await?),
            JobRequest::StartNext => (start_next_topic(thing), self.start_next(thing, device_id, payload).await?),
            JobRequest::Next => (next_topic(thing), self.describe(thing, device_id, None, payload).await?),
            JobRequest::Describe(job) => {
                (describe_topic(thing, job), self.describe(thing, device_id, Some(job), payload).await?)
            }
            JobRequest::Update(job) => (update_topic(thing, job), self.update_job(device_id, job, payload).await?),
        };
        let token = parse(payload).ok().and_then(|given| token(&given).ok().flatten());
        match answer {
            Ok(mut answer) => {
                answer.insert("timestamp".into(), seconds().into());
                answer.extend(token.map(|t| ("clientToken".to_owned(), json!(t))));
                self.publish_json(&format!("{topic}/accepted"), &Value::Object(answer)).await?;
            }
            Err((refused, job)) => {
                tracing::info!(topic, code = refused.code, "job request refused: {}", refused.message);
                let mut body = json!({ "code": refused.code, "message": refused.message, "timestamp": seconds() });
                if let Some(token) = token {
                    body["clientToken"] = token.into();
                }
                if let Some(job) = job {
                    body["executionState"] = state(&job);
                }
                return self.publish_json(&format!("{topic}/rejected"), &body).await;
            }
        }
        if let JobRequest::Update(job) = request
            && self.store.device_job(job).await?.is_some_and(|j| ended(j.status))
        {
            self.tell(thing, device_id, next).await?;
        }
        Ok(())
    }

    async fn next_job(&self, device_id: &str) -> Result<Option<DeviceJob>, FleetError> {
        Ok(self.store.next_device_job(device_id).await?)
    }

    /// A job came or ended: the device hears what is pending and, if that is another one than `before`, what is next.
    async fn tell(&self, thing: &str, device_id: &str, before: Option<DeviceJob>) -> Result<(), FleetError> {
        let pending = self.store.pending_device_jobs(device_id, LISTED).await?;
        let mut jobs: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for job in &pending {
            let word = if job.status == Status::Queued { "QUEUED" } else { "IN_PROGRESS" };
            jobs.entry(word).or_default().push(summary(job));
        }
        self.publish_json(&notify_topic(thing), &json!({ "timestamp": seconds(), "jobs": jobs })).await?;
        let next = pending.first();
        if next.map(DeviceJob::job_id) != before.map(|j| j.job_id()) {
            let mut body = json!({ "timestamp": seconds() });
            if let Some(job) = next {
                body["execution"] = execution(thing, job, true);
            }
            self.publish_json(&notify_next_topic(thing), &body).await?;
        }
        Ok(())
    }

    async fn pending(&self, device_id: &str, payload: &[u8]) -> Result<Answer, FleetError> {
        if let Err(refused) = parse(payload).and_then(|given| token(&given)) {
            return Ok(Err(plainly(refused)));
        }
        let pending = self.store.pending_device_jobs(device_id, LISTED).await?;
        let of = |queued| pending.iter().filter(|j| (j.status == Status::Queued) == queued).map(summary).collect::<Vec<_>>();
        Ok(Ok(body(json!({ "inProgressJobs": of(false), "queuedJobs": of(true) }))))
    }

    async fn describe(
        &self,
        thing: &str,
        device_id: &str,
        job_id: Option<&str>,
        payload: &[u8],
    ) -> Result<Answer, FleetError> {
        let asked = match parse(payload).and_then(|given| parse_describe(&given)) {
            Ok(asked) => asked,
            Err(refused) => return Ok(Err(plainly(refused))),
        };
        let job = match job_id {
            // No next one: an answer without an execution.
            None => match self.next_job(device_id).await? {
                Some(job) => job,
                None => return Ok(Ok(Map::new())),
            },
            Some(id) => match self.job_of(device_id, id).await? {
                Some(job) if ended(job.status) => {
                    return Ok(Err((Refused::new("TerminalStateReached", "the job has ended"), Some(job))));
                }
                Some(job) => job,
                None => return Ok(Err(plainly(no_such_job(id)))),
            },
        };
        Ok(Ok(body(json!({ "execution": execution(thing, &job, asked.include_document) }))))
    }

    async fn start_next(&self, thing: &str, device_id: &str, payload: &[u8]) -> Result<Answer, FleetError> {
        let start = match parse(payload).and_then(|given| parse_start(&given)) {
            Ok(start) => start,
            Err(refused) => return Ok(Err(plainly(refused))),
        };
        for _ in 0..ATTEMPTS {
            let Some(before) = self.next_job(device_id).await? else { return Ok(Ok(Map::new())) };
            // What is in progress goes on as it is.
            if before.status == Status::Queued {
                let details = start.details.as_ref().unwrap_or(&before.details);
                let clocks =
                    times(&before.operation, before.times, (before.status, Status::InProgress), start.step, now_ms());
                if !self.store.update_device_job(&before, Status::InProgress, details, clocks).await? {
                    continue;
                }
            }
            let Some(job) = self.job_of(device_id, &before.job_id()).await? else { continue };
            return Ok(Ok(body(json!({ "execution": execution(thing, &job, true) }))));
        }
        Err(FleetError::JobBusy { job: format!("next of {device_id}") })
    }

    async fn job_of(&self, device_id: &str, job_id: &str) -> Result<Option<DeviceJob>, FleetError> {
        Ok(self.store.device_job(job_id).await?.filter(|j| j.device_id == device_id))
    }

    async fn update_job(&self, device_id: &str, job_id: &str, payload: &[u8]) -> Result<Answer, FleetError> {
        let update = match parse(payload).and_then(|given| parse_update(&given)) {
            Ok(update) => update,
            Err(refused) => return Ok(Err(plainly(refused))),
        };
        for _ in 0..ATTEMPTS {
            let Some(before) = self.job_of(device_id, job_id).await? else { return Ok(Err(plainly(no_such_job(job_id)))) };
            if let Err(refused) = allow(before.status, before.version, &update) {
                return Ok(Err((refused, Some(before))));
            }
            let details = update.details.as_ref().unwrap_or(&before.details);
            let clocks = times(&before.operation, before.times, (before.status, update.status), update.step, now_ms());
            if !self.store.update_device_job(&before, update.status, details, clocks).await? {
                continue;
            }
            tracing::info!(job = job_id, status = ?update.status, "job updated");
            return Ok(Ok(updated(before, &update)));
        }
        Err(FleetError::JobBusy { job: job_id.into() })
    }

    pub(crate) async fn publish_json(&self, topic: &str, body: &Value) -> Result<(), FleetError> {
        self.publish(Message::new(topic, body.to_string())).await
    }
}

fn no_such_job(job_id: &str) -> Refused {
    Refused::new("ResourceNotFound", format!("this device has no job {job_id}"))
}

/// The answer to an update: as much as the device asked for.
fn updated(before: DeviceJob, update: &Update) -> Map<String, Value> {
    let mut answer = Map::new();
    if update.include_state {
        let details = update.details.clone().unwrap_or(before.details.clone());
        let after = DeviceJob { status: update.status, details, version: before.version + 1, ..before.clone() };
        answer.insert("executionState".into(), state(&after));
    }
    if update.include_document {
        answer.insert("jobDocument".into(), json!(before.operation));
    }
    answer
}

fn seconds() -> i64 {
    now_ms() / 1000
}
