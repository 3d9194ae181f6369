//! The table of operations: method, path, input, handler.

use super::errors::ApiError;
use super::shapes::*;
use super::{Context, application_instances, devices, jobs, nodes, packages, segments, templates};
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

const PACKAGE_ID: Member = Member::label("PackageId", Shape::Text(&NODE_PACKAGE_ID));
const PACKAGE_VERSION: Member = Member::label("PackageVersion", Shape::Text(&NODE_PACKAGE_VERSION));
const INSTANCE_ID: Member = Member::label("ApplicationInstanceId", Shape::Text(&IDENTIFIER));

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
    operation!(
        "CreateJobForDevices",
        "POST",
        "/jobs",
        &[
            Member::required("DeviceIds", DEVICE_IDS),
            Member::required("JobType", JOB_TYPE),
            Member::optional("DeviceJobConfig", Shape::Structure(DEVICE_JOB_CONFIG)),
        ],
        jobs::create
    ),
    operation!(
        "ListDevicesJobs",
        "GET",
        "/jobs",
        &[
            Member::query("DeviceId", "DeviceId", Shape::Text(&IDENTIFIER)),
            Member::query("MaxResults", "MaxResults", MAX_SIZE_25),
            Member::query("NextToken", "NextToken", Shape::Text(&NEXT_TOKEN)),
        ],
        jobs::list
    ),
    operation!(
        "DescribeDeviceJob",
        "GET",
        "/jobs/{JobId}",
        &[Member::label("JobId", Shape::Text(&IDENTIFIER))],
        jobs::describe
    ),
    operation!(
        "CreateNodeFromTemplateJob",
        "POST",
        "/packages/template-job",
        &[
            Member::required("NodeName", Shape::Text(&NODE_NAME)),
            Member::required("OutputPackageName", Shape::Text(&NODE_NAME)),
            Member::required("OutputPackageVersion", Shape::Text(&NODE_PACKAGE_VERSION)),
            Member::required("TemplateParameters", TEMPLATE_PARAMETERS),
            Member::required("TemplateType", TEMPLATE_TYPE),
            Member::optional("NodeDescription", Shape::Text(&DESCRIPTION)),
            Member::optional("JobTags", JOB_TAGS),
        ],
        templates::create_job
    ),
    operation!(
        "DescribeNodeFromTemplateJob",
        "GET",
        "/packages/template-job/{JobId}",
        &[Member::label("JobId", Shape::Text(&IDENTIFIER))],
        templates::describe_job
    ),
    operation!(
        "CreatePackage",
        "POST",
        "/packages",
        &[Member::required("PackageName", Shape::Text(&NODE_NAME)), Member::optional("Tags", TAGS)],
        packages::create_package
    ),
    operation!(
        "ListPackages",
        "GET",
        "/packages",
        &[
            Member::query("MaxResults", "maxResults", MAX_SIZE_25),
            Member::query("NextToken", "nextToken", Shape::Text(&NEXT_TOKEN)),
        ],
        packages::list_packages
    ),
    operation!(
        "DescribePackage",
        "GET",
        "/packages/metadata/{PackageId}",
        &[PACKAGE_ID],
        packages::describe_package
    ),
    operation!(
        "DescribePackageVersion",
        "GET",
        "/packages/metadata/{PackageId}/versions/{PackageVersion}",
        &[
            PACKAGE_ID,
            PACKAGE_VERSION,
            Member::query("PatchVersion", "PatchVersion", Shape::Text(&PATCH_VERSION)),
            Member::query("OwnerAccount", "OwnerAccount", Shape::Text(&OWNER_ACCOUNT)),
        ],
        packages::describe_package_version
    ),
    operation!(
        "RegisterPackageVersion",
        "PUT",
        "/packages/{PackageId}/versions/{PackageVersion}/patch/{PatchVersion}",
        &[
            PACKAGE_ID,
            PACKAGE_VERSION,
            Member::label("PatchVersion", Shape::Text(&PATCH_VERSION)),
            Member::optional("MarkLatest", Shape::Boolean),
            Member::optional("OwnerAccount", Shape::Text(&OWNER_ACCOUNT)),
        ],
        packages::register_package_version
    ),
    operation!(
        "DeregisterPackageVersion",
        "DELETE",
        "/packages/{PackageId}/versions/{PackageVersion}/patch/{PatchVersion}",
        &[
            PACKAGE_ID,
            PACKAGE_VERSION,
            Member::label("PatchVersion", Shape::Text(&PATCH_VERSION)),
            Member::query("OwnerAccount", "OwnerAccount", Shape::Text(&OWNER_ACCOUNT)),
            Member::query("UpdatedLatestPatchVersion", "UpdatedLatestPatchVersion", Shape::Text(&PATCH_VERSION)),
        ],
        packages::deregister_package_version
    ),
    operation!(
        "ListNodes",
        "GET",
        "/nodes",
        &[
            Member::query("Category", "category", NODE_CATEGORY),
            Member::query("OwnerAccount", "ownerAccount", Shape::Text(&OWNER_ACCOUNT)),
            Member::query("PackageName", "packageName", Shape::Text(&NODE_NAME)),
            Member::query("PackageVersion", "packageVersion", Shape::Text(&NODE_PACKAGE_VERSION)),
            Member::query("PatchVersion", "patchVersion", Shape::Text(&PATCH_VERSION)),
            Member::query("MaxResults", "maxResults", MAX_SIZE_25),
            Member::query("NextToken", "nextToken", Shape::Text(&NEXT_TOKEN)),
        ],
        nodes::list_nodes
    ),
    operation!(
        "CreateApplicationInstance",
        "POST",
        "/application-instances",
        &[
            Member::required("DefaultRuntimeContextDevice", Shape::Text(&IDENTIFIER)),
            Member::required(
                "ManifestPayload",
                Shape::Structure(&[Member::required("PayloadData", Shape::Text(&MANIFEST))])
            ),
            Member::optional(
                "ManifestOverridesPayload",
                Shape::Structure(&[Member::optional("PayloadData", Shape::Text(&OVERRIDES))])
            ),
            Member::optional("ApplicationInstanceIdToReplace", Shape::Text(&IDENTIFIER)),
            Member::optional("Name", Shape::Text(&IDENTIFIER)),
            Member::optional("Description", Shape::Text(&DESCRIPTION)),
            Member::optional("RuntimeRoleArn", Shape::Text(&ROLE_ARN)),
            Member::optional("Tags", TAGS),
        ],
        application_instances::create
    ),
    operation!(
        "ListApplicationInstances",
        "GET",
        "/application-instances",
        &[
            Member::query("DeviceId", "deviceId", Shape::Text(&IDENTIFIER)),
            Member::query("StatusFilter", "statusFilter", STATUS_FILTER),
            Member::query("MaxResults", "maxResults", MAX_SIZE_25),
            Member::query("NextToken", "nextToken", Shape::Text(&NEXT_TOKEN)),
        ],
        application_instances::list
    ),
    operation!(
        "DescribeApplicationInstance",
        "GET",
        "/application-instances/{ApplicationInstanceId}",
        &[INSTANCE_ID],
        application_instances::describe
    ),
    operation!(
        "DescribeApplicationInstanceDetails",
        "GET",
        "/application-instances/{ApplicationInstanceId}/details",
        &[INSTANCE_ID],
        application_instances::describe_details
    ),
    operation!(
        "ListApplicationInstanceNodeInstances",
        "GET",
        "/application-instances/{ApplicationInstanceId}/node-instances",
        &[
            INSTANCE_ID,
            Member::query("MaxResults", "maxResults", MAX_SIZE_25),
            Member::query("NextToken", "nextToken", Shape::Text(&NEXT_TOKEN)),
        ],
        application_instances::list_node_instances
    ),
    operation!(
        "RemoveApplicationInstance",
        "DELETE",
        "/application-instances/{ApplicationInstanceId}",
        &[INSTANCE_ID],
        application_instances::remove
    ),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(method: &str, path: &str) -> Option<(&'static str, Vec<String>)> {
        let (index, labels) = find(method, path)?;
        Some((OPERATIONS[index].name, labels.into_iter().map(|(_, v)| v).collect()))
    }

    #[test]
    fn labels_are_decoded_after_the_path_is_split() {
        let described = name("GET", "/packages/metadata/packageName%2FCODE");
        assert_eq!(described, Some(("DescribePackage", vec!["packageName/CODE".to_owned()])));
        let registered = name("PUT", "/packages/package-a/versions/1.0/patch/ab").unwrap();
        assert_eq!(registered.0, "RegisterPackageVersion");
        assert_eq!(name("GET", "/packages/template-job/x").unwrap().0, "DescribeNodeFromTemplateJob");
        assert_eq!(name("GET", "/devices/"), None);
        assert_eq!(name("PATCH", "/devices"), None);
        assert_eq!(name("GET", "/devices/a/b"), None);
    }
}
