//! Jobs on topics: what a device asks, what is answered, and when it is told of its next job.

use crate::job::{Refused, allow, parse, parse_update, token};
use crate::{Fleet, FleetError};
use belvedere_device_protocol::jobs::{Execution, Next, Operation, next_topic, notify_next_topic, update_topic};
use belvedere_store::device_jobs::DeviceJob;
use belvedere_store::devices::Device;
use belvedere_store::now_ms;
use serde_json::{Map, Value, json};

/// Two writers of one job are rare (a device and its own earlier connection): after so many lost races something is
/// wrong.
const ATTEMPTS: usize = 16;

fn execution(job: DeviceJob) -> Execution {
    Execution {
        job_id: job.job_id(),
        status: job.status,
        status_details: job.details,
        version_number: job.version,
        job_document: job.operation,
    }
}

/// `executionState`.
fn state(job: &DeviceJob) -> Value {
    json!({ "status": job.status, "statusDetails": job.details, "versionNumber": job.version })
}

/// A refusal, and how the job stands if that says more.
type Answer = Result<Map<String, Value>, (Refused, Option<DeviceJob>)>;

impl Fleet {
    /// Queues a job and tells the device; `None` if one of its jobs has not ended yet.
    pub async fn create_job(&self, device: &Device, operation: &Operation) -> Result<Option<DeviceJob>, FleetError> {
        let Some(job) = self.store.create_device_job(&device.device_id, operation).await? else { return Ok(None) };
        tracing::info!(job = job.job_id(), "job queued");
        // No job ran, so this is the next one.
        self.notify_next(&device.thing_name, &device.device_id).await?;
        Ok(Some(job))
    }

    async fn next_job(&self, device_id: &str, client_token: Option<String>) -> Result<Next, FleetError> {
        let execution = self.store.next_device_job(device_id).await?.map(execution);
        Ok(Next { client_token, timestamp: seconds(), execution })
    }

    async fn notify_next(&self, thing: &str, device_id: &str) -> Result<(), FleetError> {
        let next = self.next_job(device_id, None).await?;
        self.publish_json(&notify_next_topic(thing), &json!(next));
        Ok(())
    }

    /// A device asks for its next job.
    pub(crate) async fn next_job_request(&self, thing: &str, device_id: &str, payload: &[u8]) -> Result<(), FleetError> {
        let topic = next_topic(thing);
        match parse(payload).and_then(|given| token(&given)) {
            Ok(token) => {
                let next = self.next_job(device_id, token).await?;
                self.publish_json(&format!("{topic}/accepted"), &json!(next));
            }
            Err(refused) => self.reject(&topic, payload, refused, None),
        }
        Ok(())
    }

    /// A device says where one of its jobs stands.
    pub(crate) async fn update_job_request(
        &self,
        thing: &str,
        device_id: &str,
        job_id: &str,
        payload: &[u8],
    ) -> Result<(), FleetError> {
        let topic = update_topic(thing, job_id);
        let next = self.next_job(device_id, None).await?.execution.map(|e| e.job_id);
        match self.update_job(device_id, job_id, payload).await? {
            Ok(answer) => self.publish_json(&format!("{topic}/accepted"), &Value::Object(answer)),
            Err((refused, job)) => {
                self.reject(&topic, payload, refused, job);
                return Ok(());
            }
        }
        let then = self.next_job(device_id, None).await?.execution.map(|e| e.job_id);
        if next != then {
            self.notify_next(thing, device_id).await?;
        }
        Ok(())
    }

    async fn update_job(&self, device_id: &str, job_id: &str, payload: &[u8]) -> Result<Answer, FleetError> {
        let update = match parse(payload).and_then(|given| parse_update(&given)) {
            Ok(update) => update,
            Err(refused) => return Ok(Err((refused, None))),
        };
        for _ in 0..ATTEMPTS {
            let found = self.store.device_job(job_id).await?.filter(|j| j.device_id == device_id);
            let Some(before) = found else {
                return Ok(Err((Refused::new("ResourceNotFound", format!("this device has no job {job_id}")), None)));
            };
            if let Err(refused) = allow(before.status, before.version, &update) {
                return Ok(Err((refused, Some(before))));
            }
            let details = update.details.as_ref().unwrap_or(&before.details);
            if !self.store.update_device_job(&before, update.status, details).await? {
                continue;
            }
            tracing::info!(job = job_id, status = ?update.status, "job updated");
            let mut answer = Map::from_iter([("timestamp".to_owned(), json!(seconds()))]);
            answer.extend(update.client_token.map(|t| ("clientToken".to_owned(), json!(t))));
            return Ok(Ok(answer));
        }
        Err(FleetError::JobBusy { job: job_id.into() })
    }

    fn reject(&self, topic: &str, payload: &[u8], refused: Refused, job: Option<DeviceJob>) {
        tracing::info!(topic, code = refused.code, "job request refused: {}", refused.message);
        let mut body = json!({ "code": refused.code, "message": refused.message, "timestamp": seconds() });
        if let Some(token) = parse(payload).ok().and_then(|given| token(&given).ok().flatten()) {
            body["clientToken"] = token.into();
        }
        if let Some(job) = job {
            body["executionState"] = state(&job);
        }
        self.publish_json(&format!("{topic}/rejected"), &body);
    }

    fn publish_json(&self, topic: &str, body: &Value) {
        self.hub().publish(topic, body.to_string().as_bytes());
    }
}

fn seconds() -> i64 {
    now_ms() / 1000
}
