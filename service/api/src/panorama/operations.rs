//! The table of operations: which handler answers what the model describes.

use super::errors::ApiError;
use super::model::Signature;
use super::model::operations::{
    application_instances as instances, devices as device, jobs as job, nodes as node, packages as package, tags as tag,
};
use super::{Context, segments};
use super::{
    application_instances, dependencies, devices, imports, jobs, nodes, package_deletion, packages, signals, tags, templates,
};
use crate::Api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;

type Answer = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + Send>>;

/// An operation of the API.
pub struct Operation {
    /// Method, path, shapes.
    pub signature: &'static Signature,
    /// Runs it on a checked input.
    pub run: fn(Api, Context, Value) -> Answer,
}

macro_rules! operation {
    ($signature:expr, $handler:path) => {
        Operation {
            signature: &$signature,
            run: |api, context, input| {
                Box::pin(async move { output(&$signature, $handler(&api, &context, typed(input)?).await?) })
            },
        }
    };
}

fn typed<T: DeserializeOwned>(input: Value) -> Result<T, ApiError> {
    serde_json::from_value(input).map_err(|e| ApiError::cannot_parse(e.to_string()))
}

/// The answer to send. Debug builds, which the tests run, also hold it against the model: an output that lacks what the
/// model promises is our own fault.
fn output<T: Serialize>(signature: &Signature, value: T) -> Result<Value, ApiError> {
    let output = serde_json::to_value(value).map_err(ApiError::internal)?;
    if cfg!(debug_assertions) {
        let faults = signature.output_faults(&output);
        if !faults.is_empty() {
            return Err(ApiError::internal(format!("the output of {} is not the model's: {faults:?}", signature.name)));
        }
    }
    Ok(output)
}

/// All of them. Fixed segments come before labels where paths could be mistaken for each other.
pub static OPERATIONS: &[Operation] = &[
    operation!(device::PROVISION_DEVICE, devices::provision_device),
    operation!(device::LIST_DEVICES, devices::list_devices),
    operation!(device::DESCRIBE_DEVICE, devices::describe_device),
    operation!(device::UPDATE_DEVICE_METADATA, devices::update_device_metadata),
    operation!(device::DELETE_DEVICE, devices::delete_device),
    operation!(job::CREATE_JOB_FOR_DEVICES, jobs::create),
    operation!(job::LIST_DEVICES_JOBS, jobs::list),
    operation!(job::DESCRIBE_DEVICE_JOB, jobs::describe),
    operation!(node::CREATE_NODE_FROM_TEMPLATE_JOB, templates::create_job),
    operation!(node::DESCRIBE_NODE_FROM_TEMPLATE_JOB, templates::describe_job),
    operation!(node::LIST_NODE_FROM_TEMPLATE_JOBS, templates::list_jobs),
    operation!(node::CREATE_PACKAGE_IMPORT_JOB, imports::create_job),
    operation!(node::LIST_PACKAGE_IMPORT_JOBS, imports::list_jobs),
    operation!(node::DESCRIBE_PACKAGE_IMPORT_JOB, imports::describe_job),
    operation!(package::CREATE_PACKAGE, packages::create_package),
    operation!(package::LIST_PACKAGES, packages::list_packages),
    operation!(package::DESCRIBE_PACKAGE, packages::describe_package),
    operation!(package::DELETE_PACKAGE, package_deletion::delete_package),
    operation!(package::DESCRIBE_PACKAGE_VERSION, packages::describe_package_version),
    operation!(package::REGISTER_PACKAGE_VERSION, packages::register_package_version),
    operation!(package::DEREGISTER_PACKAGE_VERSION, packages::deregister_package_version),
    operation!(node::LIST_NODES, nodes::list_nodes),
    operation!(node::DESCRIBE_NODE, nodes::describe_node),
    operation!(instances::CREATE_APPLICATION_INSTANCE, application_instances::create),
    operation!(instances::LIST_APPLICATION_INSTANCES, application_instances::list),
    operation!(instances::DESCRIBE_APPLICATION_INSTANCE, application_instances::describe),
    operation!(instances::DESCRIBE_APPLICATION_INSTANCE_DETAILS, application_instances::describe_details),
    operation!(instances::LIST_APPLICATION_INSTANCE_NODE_INSTANCES, application_instances::list_node_instances),
    operation!(instances::LIST_APPLICATION_INSTANCE_DEPENDENCIES, dependencies::list),
    operation!(instances::SIGNAL_APPLICATION_INSTANCE_NODE_INSTANCES, signals::signal),
    operation!(instances::REMOVE_APPLICATION_INSTANCE, application_instances::remove),
    operation!(tag::TAG_RESOURCE, tags::tag_resource),
    operation!(tag::UNTAG_RESOURCE, tags::untag_resource),
    operation!(tag::LIST_TAGS_FOR_RESOURCE, tags::list_tags_for_resource),
];

/// The operation of a method and a raw path, with the path's labels.
pub fn find(method: &str, path: &str) -> Option<(usize, Vec<(String, String)>)> {
    let given = segments(path)?;
    OPERATIONS.iter().enumerate().filter(|(_, o)| o.signature.method == method).find_map(|(index, operation)| {
        let wanted: Vec<&str> = operation.signature.path[1..].split('/').collect();
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
        Some((OPERATIONS[index].signature.name, labels.into_iter().map(|(_, v)| v).collect()))
    }

    #[test]
    fn everything_that_the_model_describes_is_answered() {
        let mut answered: Vec<&str> = OPERATIONS.iter().map(|o| o.signature.name).collect();
        let mut described: Vec<&str> = super::super::model::operations::ALL.iter().map(|s| s.name).collect();
        answered.sort_unstable();
        described.sort_unstable();
        assert_eq!(answered, described);
    }

    #[test]
    fn labels_are_decoded_after_the_path_is_split() {
        let described = name("GET", "/packages/metadata/packageName%2FCODE");
        assert_eq!(described, Some(("DescribePackage", vec!["packageName/CODE".to_owned()])));
        let registered = name("PUT", "/packages/package-a/versions/1.0/patch/ab").unwrap();
        assert_eq!(registered.0, "RegisterPackageVersion");
        assert_eq!(name("GET", "/packages/template-job/x").unwrap().0, "DescribeNodeFromTemplateJob");
        assert_eq!(name("DELETE", "/packages/packageName%2FCODE").unwrap().0, "DeletePackage");
        let tagged = name("GET", "/tags/arn%3Aaws%3Apanorama%3Aus-east-1%3A1%3Adevice%2Fdevice-a").unwrap();
        assert_eq!(tagged, ("ListTagsForResource", vec!["arn:aws:panorama:us-east-1:1:device/device-a".to_owned()]));
        assert_eq!(name("GET", "/devices/"), None);
        assert_eq!(name("PATCH", "/devices"), None);
        assert_eq!(name("GET", "/devices/a/b"), None);
    }
}
