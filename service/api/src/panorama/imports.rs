//! Import jobs: an archive in the object store becomes a registered package version. The work is done inside the call;
//! a call that is cut off leaves nothing but files that the next one finds or replaces, and is made again with the same
//! token.

use super::Context;
use super::errors::ApiError;
use super::import_archive::{Limits, unpack};
use super::locations::{binary_key, manifest_key};
use super::packages::ensure;
use super::paging::page;
use super::quotas;
use super::registration::{document, examine, misnamed};
use super::templates::JobTags;
use super::timestamp::Timestamp;
use crate::Api;
use crate::sigv4::canonical::sha256;
use belvedere_store::devices::Tags;
use belvedere_store::import_jobs::ImportJob;
use belvedere_store::metadata::Metadata;
use belvedere_store::objects::{Current, ObjectInfo};
use belvedere_store::packages::NewVersion;
use belvedere_store::{StoreError, identifiers, now_ms};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What stands where a failed job has no patch version.
const NO_PATCH: &str = "none";

/// `CreatePackageImportJobRequest`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreatePackageImportJob {
    client_token: String,
    input_config: InputConfig,
    job_type: String,
    output_config: OutputConfig,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    job_tags: Vec<JobTags>,
}

/// `PackageImportJobInputConfig`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InputConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    package_version_input_config: Option<VersionInput>,
}

/// `PackageVersionInputConfig`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
pub struct VersionInput {
    #[serde(rename = "S3Location")]
    location: Location,
}

/// `S3Location`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Location {
    bucket_name: String,
    object_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
}

/// `PackageImportJobOutputConfig`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OutputConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    package_version_output_config: Option<VersionOutput>,
}

/// `PackageVersionOutputConfig`.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionOutput {
    package_name: String,
    package_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark_latest: Option<bool>,
}

/// `CreatePackageImportJobResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobCreated {
    job_id: String,
}

/// The job of a token, if the request is the one that made it.
fn repeated(known: &ImportJob, request: &Value) -> Result<JobCreated, ApiError> {
    if known.input == *request {
        return Ok(JobCreated { job_id: known.job_id.clone() });
    }
    let message = "the client token belongs to an import job with other parameters";
    Err(ApiError::conflict("JOB", &known.job_id, message))
}

/// Imports a package version. What is wrong with the archive is the job's status, not an error of the call.
pub async fn create_job(api: &Api, context: &Context, input: CreatePackageImportJob) -> Result<JobCreated, ApiError> {
    let store = &api.fleet.store;
    let request = serde_json::to_value(&input).map_err(ApiError::internal)?;
    if let Some(known) = store.import_job_of_token(&input.client_token).await? {
        return repeated(&known, &request);
    }
    if input.job_type != "NODE_PACKAGE_VERSION" {
        return Err(ApiError::field(
            "JobType",
            "this service has no marketplace: only NODE_PACKAGE_VERSION can be imported",
        ));
    }
    let missing = |member: &str| ApiError::field(member, "Member must not be null");
    let from = input.input_config.package_version_input_config.as_ref();
    let from = &from.ok_or_else(|| missing("InputConfig.PackageVersionInputConfig"))?.location;
    let to = input.output_config.package_version_output_config.as_ref();
    let to = to.ok_or_else(|| missing("OutputConfig.PackageVersionOutputConfig"))?;
    if store.object(&from.bucket_name, &from.object_key).await?.is_none() {
        let message = format!("there is no object {} in the bucket {}", from.object_key, from.bucket_name);
        return Err(ApiError::field("InputConfig.PackageVersionInputConfig.S3Location", message));
    }
    let created_ms = now_ms();
    let tags = input.job_tags.iter().find(|t| t.resource_type == "PACKAGE").map(|t| t.tags.clone()).unwrap_or_default();
    let imported = import(api, from, to, &tags).await?;
    let job_id = identifiers::token::<16>();
    tracing::info!(
        account = context.account,
        job_id,
        package = to.package_name,
        problem = imported.problem,
        "package import ended"
    );
    let job = ImportJob {
        job_id: job_id.clone(),
        client_token: input.client_token.clone(),
        input: request.clone(),
        status: if imported.problem.is_none() { "SUCCEEDED" } else { "FAILED" }.to_owned(),
        status_message: imported.problem.clone().unwrap_or_default(),
        output: output(api, to, &imported),
        created_ms,
        updated_ms: now_ms(),
    };
    match store.add_import_job(&job).await {
        Ok(()) => Ok(JobCreated { job_id }),
        // The same request at the same time: both did the same, one of them is the job.
        Err(StoreError::Exists { .. }) => match store.import_job_of_token(&input.client_token).await? {
            Some(known) => repeated(&known, &request),
            None => Err(ApiError::internal("an import job vanished")),
        },
        Err(other) => Err(other.into()),
    }
}

/// What came of an import.
#[derive(Default)]
struct Imported {
    package_id: Option<String>,
    patch: Option<String>,
    problem: Option<String>,
}

fn output(api: &Api, to: &VersionOutput, imported: &Imported) -> Value {
    let settings = &api.fleet.settings;
    let patch = imported.patch.as_deref().unwrap_or(NO_PATCH);
    let key = manifest_key(&settings.account, &to.package_name, &to.package_version, patch);
    json!({
        "OutputS3Location": { "BucketName": settings.bucket, "ObjectKey": key },
        "PackageId": imported.package_id.clone().unwrap_or_else(|| format!("packageName/{}", to.package_name)),
        "PackageVersion": to.package_version,
        "PatchVersion": patch,
    })
}

/// Every fault of the archive is a problem of the job; errors are our own, or a quota's.
async fn import(api: &Api, from: &Location, to: &VersionOutput, tags: &Tags) -> Result<Imported, ApiError> {
    let store = &api.fleet.store;
    let mut imported = Imported::default();
    let limits = Limits::default();
    let fits = |object: &ObjectInfo| (object.size <= limits.archive).then_some((0, object.size));
    let found = store.open_current(&from.bucket_name, &from.object_key, fits).await?;
    let Some(Current { bytes, .. }) = found else {
        imported.problem = Some("the archive is not there any more".into());
        return Ok(imported);
    };
    let Some(archive) = bytes else {
        imported.problem = Some(format!("the archive is larger than {} bytes", limits.archive));
        return Ok(imported);
    };
    let mut unpacked = match unpack(api, archive, limits).await {
        Ok(unpacked) => unpacked,
        Err(problem) => {
            imported.problem = Some(problem);
            return Ok(imported);
        }
    };
    // As panorama-cli has it: the document's own hash.
    let patch = sha256(&unpacked.manifest);
    imported.patch = Some(patch.clone());
    let checked = belvedere_manifest::document_text(&unpacked.manifest)
        .map_err(|fault| format!("package.json {fault}"))
        .and_then(|text| document(text, &to.package_name, &to.package_version).map(|parsed| (text.to_owned(), parsed)));
    let (text, parsed) = match checked {
        Ok(checked) => checked,
        Err(problem) => {
            imported.problem = Some(problem);
            return Ok(imported);
        }
    };
    let mut files = Vec::new();
    for file in parsed.files() {
        match unpacked.files.remove(file) {
            Some(written) => match misnamed(file, &written.sha256) {
                None => files.push((file.to_owned(), written)),
                Some(problem) => imported.problem = Some(problem),
            },
            // Two assets may share a file.
            None if files.iter().any(|(name, _)| name == file) => {}
            None => imported.problem = Some(format!("the package names {file}, which is not in the archive")),
        }
    }
    if imported.problem.is_some() {
        return Ok(imported);
    }
    let package = ensure(api, &to.package_name, tags).await?;
    let _place = quotas::version(api, &package, &to.package_version, &patch).await?;
    imported.package_id = Some(package.package_id.clone());
    let settings = &api.fleet.settings;
    for (file, written) in files {
        let key = binary_key(&settings.account, &package.name, &file);
        store.put_object(&settings.bucket, &key, "application/octet-stream", &Metadata::default(), written).await?;
    }
    let key = manifest_key(&settings.account, &package.name, &to.package_version, &patch);
    store.put_bytes(&settings.bucket, &key, "application/json", text.as_bytes()).await?;
    let examined = examine(api, &package.name, &to.package_version, &patch).await?;
    match examined.outcome {
        Err(problem) => imported.problem = Some(problem),
        Ok(nodes) => {
            let new = NewVersion {
                package_id: &package.package_id,
                version: &to.package_version,
                patch: &patch,
                status: "REGISTER_COMPLETED",
                status_description: None,
                mark_latest: to.mark_latest.unwrap_or(false),
                manifest: &examined.manifest,
                camera: None,
                nodes: &nodes,
            };
            store.register_package_version(new).await?;
        }
    }
    Ok(imported)
}

/// Which job.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OneJob {
    job_id: String,
}

/// A job's request, and what came of it.
pub async fn describe_job(api: &Api, _: &Context, input: OneJob) -> Result<Value, ApiError> {
    let found = api.fleet.store.import_job(&input.job_id).await?;
    // The model has no "not found" here; every tool reads it as what it is.
    let job = found.ok_or_else(|| ApiError::not_found("JOB", &input.job_id))?;
    let mut shown = job.input;
    shown["JobId"] = job.job_id.into();
    shown["CreatedTime"] = json!(Timestamp(job.created_ms));
    shown["LastUpdatedTime"] = json!(Timestamp(job.updated_ms));
    shown["Status"] = job.status.into();
    shown["StatusMessage"] = job.status_message.into();
    shown["Output"] = job.output;
    Ok(shown)
}

/// `ListPackageImportJobsRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListJobs {
    max_results: Option<usize>,
    next_token: Option<String>,
}

/// `ListPackageImportJobsResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobsListed {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    package_import_jobs: Vec<JobItem>,
}

/// `PackageImportJob`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobItem {
    created_time: Timestamp,
    job_id: String,
    job_type: String,
    last_updated_time: Timestamp,
    status: String,
    status_message: String,
}

/// Jobs, newest first.
pub async fn list_jobs(api: &Api, _: &Context, input: ListJobs) -> Result<JobsListed, ApiError> {
    let jobs = api.fleet.store.list_import_jobs().await?;
    let (jobs, next_token) = page(jobs, |j| j.job_id.clone(), input.max_results, input.next_token.as_deref())?;
    let item = |job: ImportJob| JobItem {
        created_time: Timestamp(job.created_ms),
        job_type: job.input["JobType"].as_str().unwrap_or_default().to_owned(),
        job_id: job.job_id,
        last_updated_time: Timestamp(job.updated_ms),
        status: job.status,
        status_message: job.status_message,
    };
    Ok(JobsListed { next_token, package_import_jobs: jobs.into_iter().map(item).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_request() {
        let job = ImportJob {
            job_id: "j".into(),
            client_token: "t".into(),
            input: json!({ "a": 1 }),
            status: "SUCCEEDED".into(),
            status_message: String::new(),
            output: json!({}),
            created_ms: 0,
            updated_ms: 0,
        };
        assert_eq!(repeated(&job, &json!({ "a": 1 })).unwrap().job_id, "j");
        assert!(matches!(repeated(&job, &json!({ "a": 2 })), Err(ApiError::Conflict { .. })));
    }
}
