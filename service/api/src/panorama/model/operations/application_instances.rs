//! Application instances.

use crate::model::Member;
use crate::panorama::model::Signature;
use crate::panorama::model::scalars::*;
use crate::panorama::model::structures::*;

/// Deploys an application to a device, perhaps in place of one that runs there.
pub static CREATE_APPLICATION_INSTANCE: Signature = Signature {
    name: "CreateApplicationInstance",
    method: "POST",
    path: "/application-instances",
    about: "Deploys an application to a device, perhaps in place of one that runs there.",
    input: &[
        Member::optional("ApplicationInstanceIdToReplace", APPLICATION_INSTANCE_ID),
        Member::required("DefaultRuntimeContextDevice", DEFAULT_RUNTIME_CONTEXT_DEVICE),
        Member::optional("Description", DESCRIPTION),
        Member::optional("ManifestOverridesPayload", MANIFEST_OVERRIDES_PAYLOAD),
        Member::required("ManifestPayload", MANIFEST_PAYLOAD),
        Member::optional("Name", APPLICATION_INSTANCE_NAME),
        Member::optional("RuntimeRoleArn", RUNTIME_ROLE_ARN),
        Member::optional("Tags", TAG_MAP),
    ],
    output: &[Member::required("ApplicationInstanceId", APPLICATION_INSTANCE_ID)],
    errors: "VAQI",
};

/// Lists application instances.
pub static LIST_APPLICATION_INSTANCES: Signature = Signature {
    name: "ListApplicationInstances",
    method: "GET",
    path: "/application-instances",
    about: "Lists application instances.",
    input: &[
        Member::query("DeviceId", "deviceId", DEVICE_ID),
        Member::query("MaxResults", "maxResults", MAX_SIZE_25),
        Member::query("NextToken", "nextToken", NEXT_TOKEN),
        Member::query("StatusFilter", "statusFilter", STATUS_FILTER),
    ],
    output: &[Member::optional("ApplicationInstances", APPLICATION_INSTANCES), Member::optional("NextToken", NEXT_TOKEN)],
    errors: "AI",
};

/// Says how an application instance is.
pub static DESCRIBE_APPLICATION_INSTANCE: Signature = Signature {
    name: "DescribeApplicationInstance",
    method: "GET",
    path: "/application-instances/{ApplicationInstanceId}",
    about: "Says how an application instance is.",
    input: &[Member::label("ApplicationInstanceId", APPLICATION_INSTANCE_ID)],
    output: &[
        Member::optional("ApplicationInstanceId", APPLICATION_INSTANCE_ID),
        Member::optional("ApplicationInstanceIdToReplace", APPLICATION_INSTANCE_ID),
        Member::optional("Arn", APPLICATION_INSTANCE_ARN),
        Member::optional("CreatedTime", TIME_STAMP),
        Member::optional("DefaultRuntimeContextDevice", DEFAULT_RUNTIME_CONTEXT_DEVICE),
        Member::optional("DefaultRuntimeContextDeviceName", DEVICE_NAME),
        Member::optional("Description", DESCRIPTION),
        Member::optional("HealthStatus", APPLICATION_INSTANCE_HEALTH_STATUS),
        Member::optional("LastUpdatedTime", TIME_STAMP),
        Member::optional("Name", APPLICATION_INSTANCE_NAME),
        Member::optional("RuntimeContextStates", REPORTED_RUNTIME_CONTEXT_STATES),
        Member::optional("RuntimeRoleArn", RUNTIME_ROLE_ARN),
        Member::optional("Status", APPLICATION_INSTANCE_STATUS),
        Member::optional("StatusDescription", APPLICATION_INSTANCE_STATUS_DESCRIPTION),
        Member::optional("Tags", TAG_MAP),
    ],
    errors: "VACNI",
};

/// Gives the documents that an application instance was made from.
pub static DESCRIBE_APPLICATION_INSTANCE_DETAILS: Signature = Signature {
    name: "DescribeApplicationInstanceDetails",
    method: "GET",
    path: "/application-instances/{ApplicationInstanceId}/details",
    about: "Gives the documents that an application instance was made from.",
    input: &[Member::label("ApplicationInstanceId", APPLICATION_INSTANCE_ID)],
    output: &[
        Member::optional("ApplicationInstanceId", APPLICATION_INSTANCE_ID),
        Member::optional("ApplicationInstanceIdToReplace", APPLICATION_INSTANCE_ID),
        Member::optional("CreatedTime", TIME_STAMP),
        Member::optional("DefaultRuntimeContextDevice", DEFAULT_RUNTIME_CONTEXT_DEVICE),
        Member::optional("Description", DESCRIPTION),
        Member::optional("ManifestOverridesPayload", MANIFEST_OVERRIDES_PAYLOAD),
        Member::optional("ManifestPayload", MANIFEST_PAYLOAD),
        Member::optional("Name", APPLICATION_INSTANCE_NAME),
    ],
    errors: "VACNI",
};

/// Lists the packages that an application instance uses.
pub static LIST_APPLICATION_INSTANCE_DEPENDENCIES: Signature = Signature {
    name: "ListApplicationInstanceDependencies",
    method: "GET",
    path: "/application-instances/{ApplicationInstanceId}/package-dependencies",
    about: "Lists the packages that an application instance uses.",
    input: &[
        Member::label("ApplicationInstanceId", APPLICATION_INSTANCE_ID),
        Member::query("MaxResults", "maxResults", MAX_SIZE_25),
        Member::query("NextToken", "nextToken", NEXT_TOKEN),
    ],
    output: &[Member::optional("NextToken", NEXT_TOKEN), Member::optional("PackageObjects", PACKAGE_OBJECTS)],
    errors: "AI",
};

/// Lists the nodes of an application instance and how each is.
pub static LIST_APPLICATION_INSTANCE_NODE_INSTANCES: Signature = Signature {
    name: "ListApplicationInstanceNodeInstances",
    method: "GET",
    path: "/application-instances/{ApplicationInstanceId}/node-instances",
    about: "Lists the nodes of an application instance and how each is.",
    input: &[
        Member::label("ApplicationInstanceId", APPLICATION_INSTANCE_ID),
        Member::query("MaxResults", "maxResults", MAX_SIZE_25),
        Member::query("NextToken", "nextToken", NEXT_TOKEN),
    ],
    output: &[Member::optional("NextToken", NEXT_TOKEN), Member::optional("NodeInstances", NODE_INSTANCES)],
    errors: "AI",
};

/// Pauses or resumes camera nodes of an application instance.
pub static SIGNAL_APPLICATION_INSTANCE_NODE_INSTANCES: Signature = Signature {
    name: "SignalApplicationInstanceNodeInstances",
    method: "PUT",
    path: "/application-instances/{ApplicationInstanceId}/node-signals",
    about: "Pauses or resumes camera nodes of an application instance.",
    input: &[
        Member::label("ApplicationInstanceId", APPLICATION_INSTANCE_ID),
        Member::required("NodeSignals", NODE_SIGNAL_LIST),
    ],
    output: &[Member::required("ApplicationInstanceId", APPLICATION_INSTANCE_ID)],
    errors: "VAQI",
};

/// Removes an application from its device.
pub static REMOVE_APPLICATION_INSTANCE: Signature = Signature {
    name: "RemoveApplicationInstance",
    method: "DELETE",
    path: "/application-instances/{ApplicationInstanceId}",
    about: "Removes an application from its device.",
    input: &[Member::label("ApplicationInstanceId", APPLICATION_INSTANCE_ID)],
    output: &[],
    errors: "VACNI",
};
