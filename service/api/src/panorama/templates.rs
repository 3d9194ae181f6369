//! Nodes from templates: cameras. The package and its node are there when the call returns; the job is `PENDING` for a
//! second, as its callers expect.

use super::Context;
use super::errors::ApiError;
use super::locations::manifest_key;
use super::packages::ensure;
use super::paging::page;
use super::quotas;
use super::registration::node;
use super::timestamp::Timestamp;
use crate::Api;
use crate::sigv4::canonical::sha256;
use belvedere_manifest::{PackageName, Version, camera_package};
use belvedere_store::devices::Tags;
use belvedere_store::packages::NewVersion;
use belvedere_store::template_jobs::TemplateJob;
use belvedere_store::{identifiers, now_ms};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long a job is `PENDING`, milliseconds.
const PENDING_MS: i64 = 1000;
/// What stands in for a secret.
const SAVED_AS_SECRET: &str = "SAVED_AS_SECRET";
/// The template's parameters.
pub const STREAM_URL: &str = "StreamUrl";
/// Likewise.
pub const USERNAME: &str = "Username";
/// Likewise.
pub const PASSWORD: &str = "Password";

/// `CreateNodeFromTemplateJobRequest`.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateNodeFromTemplateJob {
    node_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_description: Option<String>,
    output_package_name: String,
    output_package_version: String,
    template_parameters: Tags,
    template_type: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    job_tags: Vec<JobTags>,
}

/// `JobResourceTags`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobTags {
    pub(super) resource_type: String,
    pub(super) tags: Tags,
}

/// `CreateNodeFromTemplateJobResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobCreated {
    job_id: String,
}

fn parameters(given: &Tags) -> Result<(), ApiError> {
    for name in given.keys() {
        if ![STREAM_URL, USERNAME, PASSWORD].contains(&name.as_str()) {
            return Err(ApiError::field("TemplateParameters", format!("{name} is not a parameter of RTSP_CAMERA_STREAM")));
        }
    }
    let Some(url) = given.get(STREAM_URL) else {
        return Err(ApiError::field("TemplateParameters", "StreamUrl is required"));
    };
    let address = url.strip_prefix("rtsp://").or_else(|| url.strip_prefix("rtsps://"));
    match address {
        Some(rest) if !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c.is_control()) => Ok(()),
        _ => Err(ApiError::field("TemplateParameters", "StreamUrl must be like rtsp://address:554/path")),
    }
}

/// Makes a camera: a package of the given name, whose only interface is the node. Doing it again for a version that is
/// there registers a new patch of it: that is how a camera's address or password is changed.
pub async fn create_job(api: &Api, context: &Context, input: CreateNodeFromTemplateJob) -> Result<JobCreated, ApiError> {
    parameters(&input.template_parameters)?;
    let (name, version) = (&input.output_package_name, &input.output_package_version);
    let wrong = |field: &'static str| move |e: String| ApiError::field(field, e);
    let package_name = PackageName::try_from(name.clone()).map_err(wrong("OutputPackageName"))?;
    let package_version = Version::try_from(version.clone()).map_err(wrong("OutputPackageVersion"))?;
    let mut document = camera_package(&package_name, &package_version);
    let interface = PackageName::try_from(input.node_name.clone()).map_err(wrong("NodeName"))?;
    for made in &mut document.interfaces {
        made.name = interface.clone();
        made.description = input.node_description.clone().filter(|d| !d.is_empty());
    }
    let manifest = document.to_document();
    let job_id = identifiers::token::<16>();
    // The document of a camera never changes, its parameters do: the job makes the patch unique.
    let patch = sha256(format!("{job_id}\n{manifest}").as_bytes());

    let store = &api.fleet.store;
    let tags = input.job_tags.iter().find(|t| t.resource_type == "PACKAGE").map(|t| t.tags.clone()).unwrap_or_default();
    let package = ensure(api, name, &tags).await?;
    let _place = quotas::version(api, &package, version, &patch).await?;
    let settings = &api.fleet.settings;
    let key = manifest_key(&settings.account, name, version, &patch);
    store.put_bytes(&settings.bucket, &key, "application/json", manifest.as_bytes()).await?;
    let nodes: Vec<_> = document.interfaces.iter().map(|i| node(name, version, &patch, i)).collect();
    let new = NewVersion {
        package_id: &package.package_id,
        version,
        patch: &patch,
        status: "REGISTER_COMPLETED",
        status_description: None,
        mark_latest: true,
        manifest: &manifest,
        camera: Some(&input.template_parameters),
        nodes: &nodes,
    };
    store.register_package_version(new).await?;
    let mut told = input.clone();
    for secret in [USERNAME, PASSWORD] {
        if let Some(value) = told.template_parameters.get_mut(secret) {
            *value = SAVED_AS_SECRET.to_owned();
        }
    }
    // The original says the node's name where no description was given.
    told.node_description.get_or_insert_with(|| input.node_name.clone());
    let told = serde_json::to_value(&told).map_err(ApiError::internal)?;
    store.add_template_job(&job_id, &told).await?;
    tracing::info!(account = context.account, package = name, version, "camera registered");
    Ok(JobCreated { job_id })
}

/// Which job.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OneJob {
    job_id: String,
}

/// Status of a job at a time, and since when.
fn progress(created_ms: i64, now: i64) -> (&'static str, i64) {
    let done_ms = created_ms + PENDING_MS;
    if now >= done_ms { ("SUCCEEDED", done_ms) } else { ("PENDING", created_ms) }
}

/// `ListNodeFromTemplateJobsRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListJobs {
    max_results: Option<usize>,
    next_token: Option<String>,
}

/// `ListNodeFromTemplateJobsResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobsListed {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    node_from_template_jobs: Vec<JobItem>,
}

/// `NodeFromTemplateJob`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobItem {
    created_time: Timestamp,
    job_id: String,
    node_name: String,
    status: &'static str,
    status_message: &'static str,
    template_type: String,
}

/// Jobs, newest first.
pub async fn list_jobs(api: &Api, _: &Context, input: ListJobs) -> Result<JobsListed, ApiError> {
    let jobs = api.fleet.store.list_template_jobs().await?;
    let (jobs, next_token) = page(jobs, |j| j.job_id.clone(), input.max_results, input.next_token.as_deref())?;
    let now = now_ms();
    let text = |job: &TemplateJob, member: &str| job.input[member].as_str().unwrap_or_default().to_owned();
    let item = |job: TemplateJob| JobItem {
        created_time: Timestamp(job.created_ms),
        node_name: text(&job, "NodeName"),
        template_type: text(&job, "TemplateType"),
        status: progress(job.created_ms, now).0,
        status_message: "",
        job_id: job.job_id,
    };
    Ok(JobsListed { next_token, node_from_template_jobs: jobs.into_iter().map(item).collect() })
}

/// A job's request, and how it is.
pub async fn describe_job(api: &Api, _: &Context, input: OneJob) -> Result<Value, ApiError> {
    let found = api.fleet.store.template_job(&input.job_id).await?;
    let job = found.ok_or_else(|| ApiError::not_found("JOB", &input.job_id))?;
    let (status, updated_ms) = progress(job.created_ms, now_ms());
    let mut output = job.input;
    output["JobId"] = job.job_id.into();
    output["CreatedTime"] = json!(Timestamp(job.created_ms));
    output["LastUpdatedTime"] = json!(Timestamp(updated_ms));
    output["Status"] = status.into();
    output["StatusMessage"] = "".into();
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cameras_need_an_rtsp_address_and_nothing_unknown() {
        let with = |pairs: &[(&str, &str)]| {
            parameters(&pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()).is_ok()
        };
        assert!(with(&[(STREAM_URL, "rtsp://10.0.2.2:8554/words")]));
        assert!(with(&[(STREAM_URL, "rtsp://c/1"), (USERNAME, "u"), (PASSWORD, "p")]));
        assert!(!with(&[]));
        assert!(!with(&[(STREAM_URL, "http://c/1")]));
        assert!(!with(&[(STREAM_URL, "rtsp://")]));
        assert!(!with(&[(STREAM_URL, "rtsp://c /1")]));
        assert!(!with(&[(STREAM_URL, "rtsp://c/1"), ("Other", "x")]));
    }

    #[test]
    fn a_job_is_pending_for_a_second() {
        assert_eq!(progress(5000, 5000), ("PENDING", 5000));
        assert_eq!(progress(5000, 5999), ("PENDING", 5000));
        assert_eq!(progress(5000, 6000), ("SUCCEEDED", 6000));
    }
}
