//! The table of operations: method, path, input, handler.

use super::errors::ApiError;
use super::shapes::*;
use super::{Context, devices, segments};
use crate::Api;
use crate::model::{Member, Shape};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;

type Answer = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + Send>>;

/// An operation of the API.
pub struct Operation {
    /// The model's name.
    pub name: &'static str,
    /// `GET`.
    pub method: &'static str,
    /// `/devices/{DeviceId}`.
    pub path: &'static str,
    /// What its input must be.
    pub input: &'static [Member],
    /// Runs it on a checked input.
    pub run: fn(Api, Context, Value) -> Answer,
}

macro_rules! operation {
    ($name:literal, $method:literal, $path:literal, $input:expr, $handler:path) => {
        Operation {
            name: $name,
            method: $method,
            path: $path,
            input: $input,
            run: |api, context, input| {
                Box::pin(async move { output($handler(&api, &context, typed(input)?).await?) })
            },
        }
    };
}

fn typed<T: DeserializeOwned>(input: Value) -> Result<T, ApiError> {
    serde_json::from_value(input).map_err(|e| ApiError::cannot_parse(e.to_string()))
}

fn output<T: Serialize>(value: T) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(ApiError::internal)
}

const DEVICE_ID: Member = Member::label("DeviceId", Shape::Text(&IDENTIFIER));

/// All of them. Fixed segments come before labels where paths could be mistaken for each other.
pub static OPERATIONS: &[Operation] = &[
    operation!(
        "ProvisionDevice",
        "POST",
        "/devices",
        &[
            Member::required("Name", Shape::Text(&IDENTIFIER)),
            Member::optional("Description", Shape::Text(&DESCRIPTION)),
            Member::optional("NetworkingConfiguration", Shape::Structure(NETWORK_PAYLOAD)),
            Member::optional("Tags", TAGS),
        ],
        devices::provision_device
    ),
    operation!(
        "ListDevices",
        "GET",
        "/devices",
        &[
            Member::query("DeviceAggregatedStatusFilter", "DeviceAggregatedStatusFilter", DEVICE_AGGREGATED_STATUS),
            Member::query("MaxResults", "MaxResults", MAX_SIZE_25),
            Member::query("NameFilter", "NameFilter", Shape::Text(&NAME_FILTER)),
            Member::query("NextToken", "NextToken", Shape::Text(&NEXT_TOKEN)),
            Member::query(
                "SortBy",
                "SortBy",
                Shape::Word(&["DEVICE_ID", "CREATED_TIME", "NAME", "DEVICE_AGGREGATED_STATUS"])
            ),
            Member::query("SortOrder", "SortOrder", Shape::Word(&["ASCENDING", "DESCENDING"])),
        ],
        devices::list_devices
    ),
    operation!("DescribeDevice", "GET", "/devices/{DeviceId}", &[DEVICE_ID], devices::describe_device),
    operation!("DeleteDevice", "DELETE", "/devices/{DeviceId}", &[DEVICE_ID], devices::delete_device),
];

/// The operation of a method and a raw path, with the path's labels.
pub fn find(method: &str, path: &str) -> Option<(usize, Vec<(String, String)>)> {
    let given = segments(path)?;
    OPERATIONS.iter().enumerate().filter(|(_, o)| o.method == method).find_map(|(index, operation)| {
        let wanted: Vec<&str> = operation.path[1..].split('/').collect();
        if wanted.len() != given.len() {
            return None;
        }
        let mut labels = Vec::new();
        for (want, have) in wanted.iter().zip(&given) {
            match want.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
                Some(_) if have.is_empty() => return None,
                Some(label) => labels.push((label.to_owned(), have.clone())),
                None if want != have => return None,
                None => {}
            }
        }
        Some((index, labels))
    })
}
