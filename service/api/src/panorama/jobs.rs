//! Jobs of devices: restarts and releases.

use super::Context;
use super::errors::ApiError;
use super::paging::page;
use super::timestamp::Timestamp;
use crate::Api;
use belvedere_device_protocol::jobs::{Operation, Status, details};
use belvedere_store::device_jobs::DeviceJob;
use belvedere_store::devices::Device;
use serde::{Deserialize, Serialize};

/// `CreateJobForDevicesRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateJobForDevices {
    device_ids: Vec<String>,
    job_type: JobType,
    device_job_config: Option<DeviceJobConfig>,
}

/// `JobType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum JobType {
    /// Install a release.
    Ota,
    /// Restart.
    Reboot,
}

/// `DeviceJobConfig`.
#[derive(Deserialize)]
pub struct DeviceJobConfig {
    #[serde(rename = "OTAJobConfig")]
    ota: Option<OtaJobConfig>,
}

/// `OTAJobConfig`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OtaJobConfig {
    image_version: String,
    #[serde(default)]
    allow_major_version_update: bool,
}

/// `CreateJobForDevicesResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobsCreated {
    jobs: Vec<Job>,
}

/// `Job`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Job {
    device_id: String,
    job_id: String,
}

/// `a.b.c`, as tools compare them: number by number.
fn is_version(text: &str) -> bool {
    let numbers: Vec<&str> = text.split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|n| n.bytes().all(|b| b.is_ascii_digit()) && n.parse::<u32>().is_ok())
}

fn operation(job_type: JobType, config: Option<DeviceJobConfig>) -> Result<Operation, ApiError> {
    if job_type == JobType::Reboot {
        return Ok(Operation::Reboot {});
    }
    let member = "DeviceJobConfig.OTAJobConfig.ImageVersion";
    let config =
        config.and_then(|c| c.ota).ok_or_else(|| ApiError::field(member, "a job of the type OTA needs an ImageVersion"))?;
    if !is_version(&config.image_version) {
        return Err(ApiError::field(member, "ImageVersion must be three numbers, as in 1.2.3"));
    }
    Ok(Operation::Ota { image_version: config.image_version, allow_major_version_update: config.allow_major_version_update })
}

/// Queues a job for the one device; it waits there until the device asks.
pub async fn create(api: &Api, _: &Context, input: CreateJobForDevices) -> Result<JobsCreated, ApiError> {
    let operation = operation(input.job_type, input.device_job_config)?;
    let [id] = input.device_ids.as_slice() else {
        return Err(ApiError::field("DeviceIds", "a job is for exactly one device"));
    };
    let device = find_device(api, id).await?;
    if device.provisioning_status != "SUCCEEDED" {
        return Err(ApiError::field(
            "DeviceIds",
            format!("the device is {}: provision it first", device.provisioning_status),
        ));
    }
    let job = api
        .fleet
        .create_job(&device, &operation)
        .await?
        .ok_or_else(|| ApiError::conflict("DEVICE", id, format!("a job of {id} is running: wait until it has ended")))?;
    Ok(JobsCreated { jobs: vec![Job { job_id: job.job_id(), device_id: job.device_id }] })
}

async fn find_device(api: &Api, id: &str) -> Result<Device, ApiError> {
    api.fleet.store.device(id).await?.ok_or_else(|| ApiError::not_found("DEVICE", id))
}

/// Which job.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OneJob {
    job_id: String,
}

/// `DescribeDeviceJobResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobDescribed {
    created_time: Timestamp,
    device_arn: String,
    device_id: String,
    device_name: String,
    device_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_version: Option<String>,
    job_id: String,
    job_type: JobType,
    status: &'static str,
}

fn kind(job: &DeviceJob) -> (JobType, Option<String>) {
    match &job.operation {
        Operation::Reboot {} => (JobType::Reboot, None),
        Operation::Ota { image_version, .. } => (JobType::Ota, Some(image_version.clone())),
    }
}

/// `UpdateProgress` of a job.
pub fn progress(job: &DeviceJob) -> &'static str {
    match job.status {
        Status::Queued => "PENDING",
        Status::InProgress => match job.details.get(details::PROGRESS).map(String::as_str) {
            Some("DOWNLOADING") => "DOWNLOADING",
            Some("VERIFYING") => "VERIFYING",
            Some("REBOOTING") => "REBOOTING",
            _ => "IN_PROGRESS",
        },
        Status::Succeeded => "COMPLETED",
        Status::Failed | Status::Rejected | Status::TimedOut | Status::Canceled => "FAILED",
    }
}

/// Whether a job is restarting its device right now.
pub fn reboots(job: &DeviceJob) -> bool {
    job.operation == Operation::Reboot {} && progress(job) == "REBOOTING"
}

/// One job.
pub async fn describe(api: &Api, context: &Context, input: OneJob) -> Result<JobDescribed, ApiError> {
    let found = api.fleet.store.device_job(&input.job_id).await?;
    let job = found.ok_or_else(|| ApiError::not_found("JOB", &input.job_id))?;
    let (job_type, image_version) = kind(&job);
    Ok(JobDescribed {
        created_time: Timestamp(job.created_ms),
        device_arn: context.arn("device", &job.device_id),
        device_type: "PANORAMA_APPLIANCE",
        image_version,
        job_id: job.job_id(),
        job_type,
        status: progress(&job),
        device_id: job.device_id,
        device_name: job.device_name,
    })
}

/// `ListDevicesJobsRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListDevicesJobs {
    device_id: Option<String>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

/// `ListDevicesJobsResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobsListed {
    device_jobs: Vec<JobItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// `DeviceJob`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobItem {
    created_time: Timestamp,
    device_id: String,
    device_name: String,
    job_id: String,
    job_type: JobType,
}

/// Jobs, ended ones as well, newest first.
pub async fn list(api: &Api, _: &Context, input: ListDevicesJobs) -> Result<JobsListed, ApiError> {
    if let Some(id) = &input.device_id {
        find_device(api, id).await?;
    }
    let jobs = api.fleet.store.list_device_jobs(input.device_id.as_deref()).await?;
    let (jobs, next_token) = page(jobs, DeviceJob::job_id, input.max_results, input.next_token.as_deref())?;
    let item = |job: DeviceJob| JobItem {
        created_time: Timestamp(job.created_ms),
        job_id: job.job_id(),
        job_type: kind(&job).0,
        device_id: job.device_id,
        device_name: job.device_name,
    };
    Ok(JobsListed { device_jobs: jobs.into_iter().map(item).collect(), next_token })
}

/// `LatestDeviceJob`; empty if there never was one.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LatestDeviceJob {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_type: Option<JobType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

impl LatestDeviceJob {
    /// Of a device's newest job.
    pub fn of(job: Option<&DeviceJob>) -> LatestDeviceJob {
        let Some(job) = job else { return LatestDeviceJob::default() };
        let (job_type, image_version) = kind(job);
        LatestDeviceJob { image_version, job_type: Some(job_type), status: Some(progress(job)) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    pub fn reboot(status: Status, progress: Option<&str>) -> DeviceJob {
        let details = progress.map(|p| (details::PROGRESS.to_owned(), p.to_owned()));
        DeviceJob {
            device_id: "device-a".into(),
            device_name: "a".into(),
            number: 0,
            operation: Operation::Reboot {},
            status,
            details: BTreeMap::from_iter(details),
            version: 1,
            created_ms: 0,
            updated_ms: 0,
            times: Default::default(),
        }
    }

    #[test]
    fn the_api_shows_what_the_device_noted() {
        for (status, noted, expected) in [
            (Status::Queued, None, "PENDING"),
            (Status::Queued, Some("REBOOTING"), "PENDING"),
            (Status::InProgress, None, "IN_PROGRESS"),
            (Status::InProgress, Some("IN_PROGRESS"), "IN_PROGRESS"),
            (Status::InProgress, Some("DOWNLOADING"), "DOWNLOADING"),
            (Status::InProgress, Some("VERIFYING"), "VERIFYING"),
            (Status::InProgress, Some("REBOOTING"), "REBOOTING"),
            (Status::InProgress, Some("COMPLETED"), "IN_PROGRESS"),
            (Status::Succeeded, Some("REBOOTING"), "COMPLETED"),
            (Status::Failed, Some("REBOOTING"), "FAILED"),
            (Status::Rejected, None, "FAILED"),
            (Status::TimedOut, Some("REBOOTING"), "FAILED"),
            (Status::Canceled, None, "FAILED"),
        ] {
            assert_eq!(progress(&reboot(status, noted)), expected, "{status:?} {noted:?}");
        }
    }

    #[test]
    fn an_ota_job_needs_a_version_of_three_numbers() {
        let ota = |version: &str| {
            let ota = OtaJobConfig { image_version: version.into(), allow_major_version_update: true };
            operation(JobType::Ota, Some(DeviceJobConfig { ota: Some(ota) }))
        };
        let expected = Operation::Ota { image_version: "4.3.55".into(), allow_major_version_update: true };
        assert_eq!(ota("4.3.55"), Ok(expected));
        for wrong in ["4.3", "4.3.5.5", "4.3.x", "4..5", "+4.3.5", "4.3.99999999999", ""] {
            assert!(ota(wrong).is_err(), "{wrong}");
        }
        assert!(operation(JobType::Ota, None).is_err());
        assert!(operation(JobType::Ota, Some(DeviceJobConfig { ota: None })).is_err());
        assert_eq!(operation(JobType::Reboot, None), Ok(Operation::Reboot {}));
    }
}
