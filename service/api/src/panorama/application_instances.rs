//! Application instances.

use super::Context;
use super::errors::ApiError;
use super::packages::Empty;
use super::paging::page;
use super::planning::{host_ports_are_free, plan};
use super::quotas;
use super::signals::watched;
use super::timestamp::Timestamp;
use crate::Api;
use crate::sigv4::canonical::sha256;
use belvedere_device_protocol::{Deployment, DesiredState};
use belvedere_store::application_instances::ApplicationInstance;
use belvedere_store::devices::{Device, Tags};
use belvedere_store::{identifiers, now_ms};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NOT_AVAILABLE: &str = "NOT_AVAILABLE";
const REMOVED: &str = "REMOVAL_SUCCEEDED";
/// How long removed instances stay in lists, milliseconds; describing one works for ever.
const SHOWN_AFTER_REMOVAL_MS: i64 = 7 * 24 * 3600 * 1000;

/// `{"PayloadData": "…"}`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Payload {
    payload_data: Option<String>,
}

/// `CreateApplicationInstanceRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateApplicationInstance {
    default_runtime_context_device: String,
    manifest_payload: Payload,
    manifest_overrides_payload: Option<Payload>,
    application_instance_id_to_replace: Option<String>,
    name: Option<String>,
    description: Option<String>,
    runtime_role_arn: Option<String>,
    #[serde(default)]
    tags: Tags,
}

/// `CreateApplicationInstanceResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InstanceCreated {
    application_instance_id: String,
}

/// Checks everything, stores it, and asks the appliance for it.
pub async fn create(api: &Api, _: &Context, input: CreateApplicationInstance) -> Result<InstanceCreated, ApiError> {
    let device_member = "DefaultRuntimeContextDevice";
    let device = api.fleet.store.device(&input.default_runtime_context_device).await?;
    let device = device.ok_or_else(|| ApiError::field(device_member, "there is no such device"))?;
    if device.provisioning_status != "SUCCEEDED" {
        return Err(ApiError::field(
            device_member,
            format!("the device is {}: provision it first", device.provisioning_status),
        ));
    }
    let replaced = match &input.application_instance_id_to_replace {
        None => None,
        Some(id) => {
            let found = api.fleet.store.application_instance(id).await?;
            let found = found.filter(|i| i.device_id == device.device_id && !i.removed);
            let message = "no such application instance runs on this device";
            Some(found.ok_or_else(|| ApiError::field("ApplicationInstanceIdToReplace", message))?)
        }
    };
    let manifest = input.manifest_payload.payload_data.unwrap_or_default();
    let overrides = input.manifest_overrides_payload.and_then(|p| p.payload_data).filter(|t| !t.is_empty());
    let plan = plan(api, &manifest, overrides.as_deref()).await?;
    quotas::cameras(api, &device.device_id, watched(&plan.nodes, &BTreeMap::new()))?;
    let _place = quotas::deployment(api, &device, replaced.is_some(), !plan.open_ports.is_empty()).await?;
    host_ports_are_free(api, &device.device_id, replaced.as_ref().map(|r| r.id.as_str()), &plan.open_ports).await?;

    let id = identifiers::resource("applicationInstance");
    let now = now_ms();
    let deployment = Deployment {
        application_instance_id: id.clone(),
        name: input.name.clone().unwrap_or_else(|| id.clone()),
        created_ms: now,
        graph: plan.graph,
        overrides: plan.overrides,
        packages: plan.packages,
        cameras: plan.cameras,
        desired_state: DesiredState::Running,
        replaces: replaced.as_ref().map(|replaced| replaced.id.clone()),
        runtime_role_arn: input.runtime_role_arn.clone(),
    };
    let document = serde_json::to_vec(&deployment).map_err(ApiError::internal)?;
    let readable: Vec<(String, String)> = deployment
        .packages
        .iter()
        .flat_map(|p| std::iter::once(&p.manifest).chain(&p.assets))
        .map(|o| (o.bucket.clone(), o.key.clone()))
        .collect();
    let (status, status_description) = match device.connected {
        true => ("DEPLOYMENT_REQUESTED", "The appliance was asked to deploy the application."),
        false => ("DEPLOYMENT_PENDING", "The appliance is offline; it deploys the application when it is back."),
    };
    let instance = ApplicationInstance {
        id: id.clone(),
        device_id: device.device_id.clone(),
        device_name: device.name.clone(),
        name: input.name,
        description: input.description,
        manifest,
        overrides,
        role_arn: input.runtime_role_arn,
        tags: input.tags,
        replaces: replaced.as_ref().map(|r| r.id.clone()),
        created_ms: now,
        updated_ms: now,
        removed: false,
        status: status.to_owned(),
        status_description: status_description.to_owned(),
        health: NOT_AVAILABLE.to_owned(),
        device_reported_status: None,
        device_reported_ms: None,
        document_sha256: sha256(&document),
        nodes: plan.nodes,
    };
    // The row is there before the appliance hears of it: what it reports at once finds its place.
    api.fleet.store.add_application_instance(&instance, &document, &readable).await?;
    let mut remove = Vec::new();
    if let Some(replaced) = replaced {
        note_removal(api, &replaced, Some(&device)).await?;
        remove.push(replaced.id);
    }
    let reference = api.fleet.reference(&instance, BTreeMap::new());
    api.fleet.desire(&device.thing_name, &[(id.clone(), reference)], &remove).await?;
    tracing::info!(application_instance_id = id, device_id = device.device_id, "application instance made");
    Ok(InstanceCreated { application_instance_id: id })
}

async fn note_removal(api: &Api, instance: &ApplicationInstance, device: Option<&Device>) -> Result<(), ApiError> {
    let (status, description) = match device {
        Some(device) if device.connected => ("REMOVAL_REQUESTED", "The appliance was asked to remove the application."),
        Some(_) => ("REMOVAL_PENDING", "The appliance is offline; it removes the application when it is back."),
        None => (REMOVED, "The device does not exist any more."),
    };
    Ok(api.fleet.store.remove_application_instance(&instance.id, status, description).await?)
}

/// Which instance.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OneInstance {
    application_instance_id: String,
}

pub(super) async fn find(api: &Api, id: &str) -> Result<ApplicationInstance, ApiError> {
    let found = api.fleet.store.application_instance(id).await?;
    found.ok_or_else(|| ApiError::not_found("APPLICATION_INSTANCE", id))
}

/// Asks the appliance to remove an instance. Asking twice is asking once.
pub async fn remove(api: &Api, _: &Context, input: OneInstance) -> Result<Empty, ApiError> {
    let instance = find(api, &input.application_instance_id).await?;
    if instance.removed {
        return Ok(Empty {});
    }
    let device = api.fleet.store.device(&instance.device_id).await?;
    note_removal(api, &instance, device.as_ref()).await?;
    if let Some(device) = device {
        api.fleet.desire(&device.thing_name, &[], &[instance.id]).await?;
    }
    Ok(Empty {})
}

/// Puts members that are there into an object.
fn with(mut object: Value, members: &[(&str, Option<&str>)]) -> Value {
    for (name, value) in members {
        if let Some(value) = value {
            object[*name] = (*value).into();
        }
    }
    object
}

fn shown(context: &Context, instance: &ApplicationInstance) -> Value {
    let mut output = json!({
        "ApplicationInstanceId": instance.id,
        "Arn": context.arn("applicationInstance", &instance.id),
        "CreatedTime": Timestamp(instance.created_ms),
        "DefaultRuntimeContextDevice": instance.device_id,
        "DefaultRuntimeContextDeviceName": instance.device_name,
        "HealthStatus": instance.health,
        "Status": instance.status,
        "StatusDescription": instance.status_description,
        "Tags": instance.tags,
    });
    if let (Some(status), Some(time)) = (&instance.device_reported_status, instance.device_reported_ms) {
        output["RuntimeContextStates"] = json!([{
            "DesiredState": if instance.removed { "REMOVED" } else { "RUNNING" },
            "DeviceReportedStatus": status,
            "DeviceReportedTime": Timestamp(time),
            "RuntimeContextName": "default",
        }]);
    }
    with(output, &[("Name", instance.name.as_deref()), ("Description", instance.description.as_deref())])
}

/// How an instance is.
pub async fn describe(api: &Api, context: &Context, input: OneInstance) -> Result<Value, ApiError> {
    let instance = find(api, &input.application_instance_id).await?;
    let mut output = shown(context, &instance);
    output["LastUpdatedTime"] = json!(Timestamp(instance.updated_ms));
    let further =
        [("ApplicationInstanceIdToReplace", instance.replaces.as_deref()), ("RuntimeRoleArn", instance.role_arn.as_deref())];
    Ok(with(output, &further))
}

/// What an instance was made of.
pub async fn describe_details(api: &Api, _: &Context, input: OneInstance) -> Result<Value, ApiError> {
    let instance = find(api, &input.application_instance_id).await?;
    let mut output = json!({
        "ApplicationInstanceId": instance.id,
        "CreatedTime": Timestamp(instance.created_ms),
        "DefaultRuntimeContextDevice": instance.device_id,
        "ManifestPayload": { "PayloadData": instance.manifest },
    });
    if let Some(overrides) = &instance.overrides {
        output["ManifestOverridesPayload"] = json!({ "PayloadData": overrides });
    }
    let further = [
        ("ApplicationInstanceIdToReplace", instance.replaces.as_deref()),
        ("Name", instance.name.as_deref()),
        ("Description", instance.description.as_deref()),
    ];
    Ok(with(output, &further))
}

/// `ListApplicationInstancesRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListInstances {
    device_id: Option<String>,
    status_filter: Option<String>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

/// Whether a status passes a filter; two filters stand for three transient states each.
fn passes(filter: Option<&str>, status: &str) -> bool {
    match filter {
        None => true,
        Some("PROCESSING_DEPLOYMENT") => {
            ["DEPLOYMENT_PENDING", "DEPLOYMENT_REQUESTED", "DEPLOYMENT_IN_PROGRESS"].contains(&status)
        }
        Some("PROCESSING_REMOVAL") => ["REMOVAL_PENDING", "REMOVAL_REQUESTED", "REMOVAL_IN_PROGRESS"].contains(&status),
        Some(filter) => filter == status,
    }
}

/// Instances, newest first.
pub async fn list(api: &Api, context: &Context, input: ListInstances) -> Result<Value, ApiError> {
    let oldest = now_ms() - SHOWN_AFTER_REMOVAL_MS;
    let mut instances = api.fleet.store.list_application_instances(input.device_id.as_deref()).await?;
    instances
        .retain(|i| passes(input.status_filter.as_deref(), &i.status) && (i.status != REMOVED || i.updated_ms > oldest));
    let (instances, next) = page(instances, |i| i.id.clone(), input.max_results, input.next_token.as_deref())?;
    let shown: Vec<Value> = instances.iter().map(|i| shown(context, i)).collect();
    Ok(with(json!({ "ApplicationInstances": shown }), &[("NextToken", next.as_deref())]))
}

/// `ListApplicationInstanceNodeInstancesRequest`, `ListApplicationInstanceDependenciesRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListOfInstance {
    pub(super) application_instance_id: String,
    pub(super) max_results: Option<usize>,
    pub(super) next_token: Option<String>,
}

/// Whether nothing of an instance is left on its appliance.
pub(super) fn is_gone(instance: &ApplicationInstance) -> bool {
    instance.status == REMOVED
}

/// The nodes of an instance; none once it is removed.
pub async fn list_node_instances(api: &Api, _: &Context, input: ListOfInstance) -> Result<Value, ApiError> {
    let instance = find(api, &input.application_instance_id).await?;
    let nodes = if is_gone(&instance) { Vec::new() } else { instance.nodes };
    let (nodes, next) = page(nodes, |n| n.instance.clone(), input.max_results, input.next_token.as_deref())?;
    let shown: Vec<Value> = nodes
        .iter()
        .map(|n| {
            json!({
                "CurrentStatus": n.status,
                "NodeId": n.node_id,
                "NodeInstanceId": n.instance,
                "NodeName": n.node_name,
                "PackageName": n.package_name,
                "PackagePatchVersion": n.patch,
                "PackageVersion": n.package_version,
            })
        })
        .collect();
    Ok(with(json!({ "NodeInstances": shown }), &[("NextToken", next.as_deref())]))
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn two_filters_stand_for_the_transient_states() {
        assert!(passes(None, "REMOVAL_FAILED"));
        assert!(passes(Some("PROCESSING_DEPLOYMENT"), "DEPLOYMENT_IN_PROGRESS"));
        assert!(!passes(Some("PROCESSING_DEPLOYMENT"), "DEPLOYMENT_SUCCEEDED"));
        assert!(passes(Some("PROCESSING_REMOVAL"), "REMOVAL_PENDING"));
        assert!(passes(Some("REMOVAL_FAILED"), "REMOVAL_FAILED"));
    }
}
