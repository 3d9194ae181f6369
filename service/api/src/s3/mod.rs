//! The part of S3 that tools and appliances use, path style (or with the bucket in the host's name): one bucket, objects, uploads in parts, lists.
//!
//! Appliances read what their own deployments name and nothing else. Deployment documents (they hold camera passwords)
//! are read by their own appliance alone, not even by administrators, and are not listed.

pub mod addressing;
mod body;
mod checksum;
mod condition;
mod copy;
mod delete;
mod errors;
mod get;
mod list;
mod metadata;
mod multipart;
pub mod operation;
mod put;
mod uploads;

pub use errors::error;

use crate::Api;
use crate::entry::Request;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::{Store, now_ms};
use errors::S3Error;
use operation::{Operation, Target};

/// Answers a request.
pub async fn answer(api: &Api, request: Request) -> Response {
    run(api, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn run(api: &Api, request: Request) -> Result<Response, S3Error> {
    let target = Target::of(&request.parts)?;
    let operation = Operation::of(&request.parts, &target).ok_or_else(S3Error::not_implemented)?;
    if operation == Operation::ListBuckets {
        return Ok(list::buckets(api));
    }
    if target.bucket != api.fleet.settings.bucket {
        let message = "The specified bucket does not exist. This service has one bucket (list-buckets names it), and takes it in the path: \
                       https://HOST/BUCKET/KEY (boto3: Config(s3={'addressing_style': 'path'}))";
        return Err(S3Error::new(StatusCode::NOT_FOUND, "NoSuchBucket", message));
    }
    match operation {
        Operation::HeadBucket => Ok(StatusCode::OK.into_response()),
        Operation::GetBucketLocation => Ok(list::location(&api.fleet.settings.region)),
        Operation::ListObjects => list::objects(api, &target).await,
        Operation::ReadObject => get::object(api, &request.parts, &request.caller, &target).await,
        Operation::PutObject => put::object(api, request, &target).await,
        Operation::CreateUpload => multipart::create(api, &request.parts.headers, &target).await,
        Operation::PutPart => multipart::part(api, request, &target).await,
        Operation::CompleteUpload => multipart::complete(api, request, &target).await,
        Operation::AbortUpload => multipart::abort(api, &target).await,
        Operation::DeleteObject => {
            let seen = condition::of_write(api, &request.parts.headers, &target).await?;
            // Deleting what is not there is success.
            api.fleet.store.delete_object_over(seen, &target.bucket, &target.key).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Operation::DeleteObjects => delete::objects(api, request, &target).await,
        Operation::CopyObject => copy::object(api, &request.parts.headers, &target).await,
        Operation::CopyPart => copy::part(api, &request.parts.headers, &target).await,
        Operation::ListUploads => uploads::list(api, &target).await,
        Operation::ListParts => uploads::parts(api, &target).await,
        // Answered before the bucket was looked at.
        Operation::ListBuckets => Err(S3Error::not_implemented()),
    }
}

/// How long an upload in parts may take.
pub const UPLOAD_DAYS: i64 = 7;

/// Gives up uploads that nobody ends, every hour, until the store is closed.
pub async fn give_up_uploads(store: Store) {
    let mut hourly = tokio::time::interval(std::time::Duration::from_secs(3600));
    loop {
        hourly.tick().await;
        match store.abort_uploads_before(now_ms() - UPLOAD_DAYS * 24 * 3600 * 1000).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "abandoned uploads given up"),
            Err(e) => tracing::error!("cannot give up abandoned uploads: {e}"),
        }
    }
}

fn xml(body: String) -> Response {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/xml")], Body::from(text)).into_response()
}
