//! Lists, maps and structures that inputs and outputs share.

use super::scalars::*;
use crate::model::{MANY, Member, Named, Shape};

// Four lists and maps of inputs have a bound that the published model lacks: nobody needs more, and without one a single
// request could ask for any amount of work.
shapes! {
    ALTERNATE_SOFTWARES "AlternateSoftwares" = Shape::List(&ALTERNATE_SOFTWARE_METADATA, 0, MANY);
    APPLICATION_INSTANCES "ApplicationInstances" = Shape::List(&APPLICATION_INSTANCE, 0, MANY);
    CONFLICT_EXCEPTION_ERROR_ARGUMENT_LIST "ConflictExceptionErrorArgumentList" = Shape::List(&CONFLICT_EXCEPTION_ERROR_ARGUMENT, 0, MANY);
    DEVICE_ID_LIST "DeviceIdList" = Shape::List(&DEVICE_ID, 1, 1);
    DEVICE_JOB_LIST "DeviceJobList" = Shape::List(&DEVICE_JOB, 0, MANY);
    DEVICE_LIST "DeviceList" = Shape::List(&DEVICE, 0, MANY);
    DNS_LIST "DnsList" = Shape::List(&DNS, 0, 16);
    INPUT_PORT_LIST "InputPortList" = Shape::List(&NODE_INPUT_PORT, 0, MANY);
    JOB_LIST "JobList" = Shape::List(&JOB, 0, MANY);
    JOB_TAGS_LIST "JobTagsList" = Shape::List(&JOB_RESOURCE_TAGS, 0, 50);
    NODE_FROM_TEMPLATE_JOB_LIST "NodeFromTemplateJobList" = Shape::List(&NODE_FROM_TEMPLATE_JOB, 0, MANY);
    NODE_INSTANCES "NodeInstances" = Shape::List(&NODE_INSTANCE, 0, MANY);
    NODE_SIGNAL_LIST "NodeSignalList" = Shape::List(&NODE_SIGNAL, 1, 256);
    NODES_LIST "NodesList" = Shape::List(&NODE, 0, MANY);
    NTP_SERVER_LIST "NtpServerList" = Shape::List(&IP_ADDRESS_OR_SERVER_NAME, 0, 5);
    OUTPUT_PORT_LIST "OutputPortList" = Shape::List(&NODE_OUTPUT_PORT, 0, MANY);
    PACKAGE_IMPORT_JOB_LIST "PackageImportJobList" = Shape::List(&PACKAGE_IMPORT_JOB, 0, MANY);
    PACKAGE_LIST "PackageList" = Shape::List(&PACKAGE_LIST_ITEM, 0, MANY);
    PACKAGE_OBJECTS "PackageObjects" = Shape::List(&PACKAGE_OBJECT, 0, MANY);
    PRINCIPAL_ARNS_LIST "PrincipalArnsList" = Shape::List(&PRINCIPAL_ARN, 0, MANY);
    REPORTED_RUNTIME_CONTEXT_STATES "ReportedRuntimeContextStates" = Shape::List(&REPORTED_RUNTIME_CONTEXT_STATE, 0, MANY);
    TAG_KEY_LIST "TagKeyList" = Shape::List(&TAG_KEY, 1, 50);
    TAG_MAP "TagMap" = Shape::Map(&TAG_KEY, &TAG_VALUE, 50);
    TEMPLATE_PARAMETERS_MAP "TemplateParametersMap" = Shape::Map(&TEMPLATE_KEY, &TEMPLATE_VALUE, 50);
    VALIDATION_EXCEPTION_ERROR_ARGUMENT_LIST "ValidationExceptionErrorArgumentList" = Shape::List(&VALIDATION_EXCEPTION_ERROR_ARGUMENT, 0, MANY);
    VALIDATION_EXCEPTION_FIELD_LIST "ValidationExceptionFieldList" = Shape::List(&VALIDATION_EXCEPTION_FIELD, 0, MANY);
}

shapes! {
    ALTERNATE_SOFTWARE_METADATA "AlternateSoftwareMetadata" = Shape::Structure(&[
        Member::optional("Version", VERSION),
    ]);
    APPLICATION_INSTANCE "ApplicationInstance" = Shape::Structure(&[
        Member::optional("ApplicationInstanceId", APPLICATION_INSTANCE_ID),
        Member::optional("Arn", APPLICATION_INSTANCE_ARN),
        Member::optional("CreatedTime", TIME_STAMP),
        Member::optional("DefaultRuntimeContextDevice", DEFAULT_RUNTIME_CONTEXT_DEVICE),
        Member::optional("DefaultRuntimeContextDeviceName", DEVICE_NAME),
        Member::optional("Description", DESCRIPTION),
        Member::optional("HealthStatus", APPLICATION_INSTANCE_HEALTH_STATUS),
        Member::optional("Name", APPLICATION_INSTANCE_NAME),
        Member::optional("RuntimeContextStates", REPORTED_RUNTIME_CONTEXT_STATES),
        Member::optional("Status", APPLICATION_INSTANCE_STATUS),
        Member::optional("StatusDescription", APPLICATION_INSTANCE_STATUS_DESCRIPTION),
        Member::optional("Tags", TAG_MAP),
    ]);
    CONFLICT_EXCEPTION_ERROR_ARGUMENT "ConflictExceptionErrorArgument" = Shape::Structure(&[
        Member::required("Name", STRING),
        Member::required("Value", STRING),
    ]);
    DEVICE "Device" = Shape::Structure(&[
        Member::optional("Brand", DEVICE_BRAND),
        Member::optional("CreatedTime", CREATED_TIME),
        Member::optional("CurrentSoftware", CURRENT_SOFTWARE),
        Member::optional("Description", DESCRIPTION),
        Member::optional("DeviceAggregatedStatus", DEVICE_AGGREGATED_STATUS),
        Member::optional("DeviceId", DEVICE_ID),
        Member::optional("LastUpdatedTime", LAST_UPDATED_TIME),
        Member::optional("LatestDeviceJob", LATEST_DEVICE_JOB),
        Member::optional("LeaseExpirationTime", LEASE_EXPIRATION_TIME),
        Member::optional("Name", DEVICE_NAME),
        Member::optional("ProvisioningStatus", DEVICE_STATUS),
        Member::optional("Tags", TAG_MAP),
        Member::optional("Type", DEVICE_TYPE),
    ]);
    DEVICE_JOB "DeviceJob" = Shape::Structure(&[
        Member::optional("CreatedTime", CREATED_TIME),
        Member::optional("DeviceId", DEVICE_ID),
        Member::optional("DeviceName", DEVICE_NAME),
        Member::optional("JobId", JOB_ID),
        Member::optional("JobType", JOB_TYPE),
    ]);
    DEVICE_JOB_CONFIG "DeviceJobConfig" = Shape::Structure(&[
        Member::optional("OTAJobConfig", OTA_JOB_CONFIG),
    ]);
    ETHERNET_PAYLOAD "EthernetPayload" = Shape::Structure(&[
        Member::required("ConnectionType", CONNECTION_TYPE),
        Member::optional("StaticIpConnectionInfo", STATIC_IP_CONNECTION_INFO),
    ]);
    ETHERNET_STATUS "EthernetStatus" = Shape::Structure(&[
        Member::optional("ConnectionStatus", NETWORK_CONNECTION_STATUS),
        Member::optional("HwAddress", HW_ADDRESS),
        Member::optional("IpAddress", IP_ADDRESS),
    ]);
    JOB "Job" = Shape::Structure(&[
        Member::optional("DeviceId", DEVICE_ID),
        Member::optional("JobId", JOB_ID),
    ]);
    JOB_RESOURCE_TAGS "JobResourceTags" = Shape::Structure(&[
        Member::required("ResourceType", JOB_RESOURCE_TYPE),
        Member::required("Tags", TAG_MAP),
    ]);
    LATEST_DEVICE_JOB "LatestDeviceJob" = Shape::Structure(&[
        Member::optional("ImageVersion", IMAGE_VERSION),
        Member::optional("JobType", JOB_TYPE),
        Member::optional("Status", UPDATE_PROGRESS),
    ]);
    MANIFEST_OVERRIDES_PAYLOAD "ManifestOverridesPayload" = Shape::Union(&[
        Member::optional("PayloadData", MANIFEST_OVERRIDES_PAYLOAD_DATA),
    ]);
    MANIFEST_PAYLOAD "ManifestPayload" = Shape::Union(&[
        Member::optional("PayloadData", MANIFEST_PAYLOAD_DATA),
    ]);
    NETWORK_PAYLOAD "NetworkPayload" = Shape::Structure(&[
        Member::optional("Ethernet0", ETHERNET_PAYLOAD),
        Member::optional("Ethernet1", ETHERNET_PAYLOAD),
        Member::optional("Ntp", NTP_PAYLOAD),
    ]);
    NETWORK_STATUS "NetworkStatus" = Shape::Structure(&[
        Member::optional("Ethernet0Status", ETHERNET_STATUS),
        Member::optional("Ethernet1Status", ETHERNET_STATUS),
        Member::optional("LastUpdatedTime", LAST_UPDATED_TIME),
        Member::optional("NtpStatus", NTP_STATUS),
    ]);
    NODE "Node" = Shape::Structure(&[
        Member::required("Category", NODE_CATEGORY),
        Member::required("CreatedTime", TIME_STAMP),
        Member::optional("Description", DESCRIPTION),
        Member::required("Name", NODE_NAME),
        Member::required("NodeId", NODE_ID),
        Member::optional("OwnerAccount", PACKAGE_OWNER_ACCOUNT),
        Member::optional("PackageArn", NODE_PACKAGE_ARN),
        Member::required("PackageId", NODE_PACKAGE_ID),
        Member::required("PackageName", NODE_PACKAGE_NAME),
        Member::required("PackageVersion", NODE_PACKAGE_VERSION),
        Member::required("PatchVersion", NODE_PACKAGE_PATCH_VERSION),
    ]);
    NODE_FROM_TEMPLATE_JOB "NodeFromTemplateJob" = Shape::Structure(&[
        Member::optional("CreatedTime", CREATED_TIME),
        Member::optional("JobId", JOB_ID),
        Member::optional("NodeName", NODE_NAME),
        Member::optional("Status", NODE_FROM_TEMPLATE_JOB_STATUS),
        Member::optional("StatusMessage", NODE_FROM_TEMPLATE_JOB_STATUS_MESSAGE),
        Member::optional("TemplateType", TEMPLATE_TYPE),
    ]);
    NODE_INPUT_PORT "NodeInputPort" = Shape::Structure(&[
        Member::optional("DefaultValue", PORT_DEFAULT_VALUE),
        Member::optional("Description", DESCRIPTION),
        Member::optional("MaxConnections", MAX_CONNECTIONS),
        Member::optional("Name", PORT_NAME),
        Member::optional("Type", PORT_TYPE),
    ]);
    NODE_INSTANCE "NodeInstance" = Shape::Structure(&[
        Member::required("CurrentStatus", NODE_INSTANCE_STATUS),
        Member::optional("NodeId", NODE_ID),
        Member::required("NodeInstanceId", NODE_INSTANCE_ID),
        Member::optional("NodeName", NODE_NAME),
        Member::optional("PackageName", NODE_PACKAGE_NAME),
        Member::optional("PackagePatchVersion", NODE_PACKAGE_PATCH_VERSION),
        Member::optional("PackageVersion", NODE_PACKAGE_VERSION),
    ]);
    NODE_INTERFACE "NodeInterface" = Shape::Structure(&[
        Member::required("Inputs", INPUT_PORT_LIST),
        Member::required("Outputs", OUTPUT_PORT_LIST),
    ]);
    NODE_OUTPUT_PORT "NodeOutputPort" = Shape::Structure(&[
        Member::optional("Description", DESCRIPTION),
        Member::optional("Name", PORT_NAME),
        Member::optional("Type", PORT_TYPE),
    ]);
    NODE_SIGNAL "NodeSignal" = Shape::Structure(&[
        Member::required("NodeInstanceId", NODE_INSTANCE_ID),
        Member::required("Signal", NODE_SIGNAL_VALUE),
    ]);
    NTP_PAYLOAD "NtpPayload" = Shape::Structure(&[
        Member::required("NtpServers", NTP_SERVER_LIST),
    ]);
    NTP_STATUS "NtpStatus" = Shape::Structure(&[
        Member::optional("ConnectionStatus", NETWORK_CONNECTION_STATUS),
        Member::optional("IpAddress", IP_ADDRESS),
        Member::optional("NtpServerName", NTP_SERVER_NAME),
    ]);
    OTA_JOB_CONFIG "OTAJobConfig" = Shape::Structure(&[
        Member::optional("AllowMajorVersionUpdate", BOOLEAN),
        Member::required("ImageVersion", IMAGE_VERSION),
    ]);
    OUTPUT_S3_LOCATION "OutPutS3Location" = Shape::Structure(&[
        Member::required("BucketName", BUCKET_NAME),
        Member::required("ObjectKey", OBJECT_KEY),
    ]);
    PACKAGE_IMPORT_JOB "PackageImportJob" = Shape::Structure(&[
        Member::optional("CreatedTime", CREATED_TIME),
        Member::optional("JobId", JOB_ID),
        Member::optional("JobType", PACKAGE_IMPORT_JOB_TYPE),
        Member::optional("LastUpdatedTime", LAST_UPDATED_TIME),
        Member::optional("Status", PACKAGE_IMPORT_JOB_STATUS),
        Member::optional("StatusMessage", PACKAGE_IMPORT_JOB_STATUS_MESSAGE),
    ]);
    PACKAGE_IMPORT_JOB_INPUT_CONFIG "PackageImportJobInputConfig" = Shape::Structure(&[
        Member::optional("PackageVersionInputConfig", PACKAGE_VERSION_INPUT_CONFIG),
    ]);
    PACKAGE_IMPORT_JOB_OUTPUT "PackageImportJobOutput" = Shape::Structure(&[
        Member::required("OutputS3Location", OUTPUT_S3_LOCATION),
        Member::required("PackageId", NODE_PACKAGE_ID),
        Member::required("PackageVersion", NODE_PACKAGE_VERSION),
        Member::required("PatchVersion", NODE_PACKAGE_PATCH_VERSION),
    ]);
    PACKAGE_IMPORT_JOB_OUTPUT_CONFIG "PackageImportJobOutputConfig" = Shape::Structure(&[
        Member::optional("PackageVersionOutputConfig", PACKAGE_VERSION_OUTPUT_CONFIG),
    ]);
    PACKAGE_LIST_ITEM "PackageListItem" = Shape::Structure(&[
        Member::optional("Arn", NODE_PACKAGE_ARN),
        Member::optional("CreatedTime", TIME_STAMP),
        Member::optional("PackageId", NODE_PACKAGE_ID),
        Member::optional("PackageName", NODE_PACKAGE_NAME),
        Member::optional("Tags", TAG_MAP),
    ]);
    PACKAGE_OBJECT "PackageObject" = Shape::Structure(&[
        Member::required("Name", NODE_PACKAGE_NAME),
        Member::required("PackageVersion", NODE_PACKAGE_VERSION),
        Member::required("PatchVersion", NODE_PACKAGE_PATCH_VERSION),
    ]);
    PACKAGE_VERSION_INPUT_CONFIG "PackageVersionInputConfig" = Shape::Structure(&[
        Member::required("S3Location", S3_LOCATION),
    ]);
    PACKAGE_VERSION_OUTPUT_CONFIG "PackageVersionOutputConfig" = Shape::Structure(&[
        Member::optional("MarkLatest", MARK_LATEST_PATCH),
        Member::required("PackageName", NODE_PACKAGE_NAME),
        Member::required("PackageVersion", NODE_PACKAGE_VERSION),
    ]);
    REPORTED_RUNTIME_CONTEXT_STATE "ReportedRuntimeContextState" = Shape::Structure(&[
        Member::required("DesiredState", DESIRED_STATE),
        Member::required("DeviceReportedStatus", DEVICE_REPORTED_STATUS),
        Member::required("DeviceReportedTime", TIME_STAMP),
        Member::required("RuntimeContextName", RUNTIME_CONTEXT_NAME),
    ]);
    S3_LOCATION "S3Location" = Shape::Structure(&[
        Member::required("BucketName", BUCKET_NAME),
        Member::required("ObjectKey", OBJECT_KEY),
        Member::optional("Region", REGION),
    ]);
    STATIC_IP_CONNECTION_INFO "StaticIpConnectionInfo" = Shape::Structure(&[
        Member::required("DefaultGateway", DEFAULT_GATEWAY),
        Member::required("Dns", DNS_LIST),
        Member::required("IpAddress", IP_ADDRESS),
        Member::required("Mask", MASK),
    ]);
    STORAGE_LOCATION "StorageLocation" = Shape::Structure(&[
        Member::required("BinaryPrefixLocation", OBJECT),
        Member::required("Bucket", BUCKET),
        Member::required("GeneratedPrefixLocation", OBJECT),
        Member::required("ManifestPrefixLocation", OBJECT),
        Member::required("RepoPrefixLocation", OBJECT),
    ]);
    VALIDATION_EXCEPTION_ERROR_ARGUMENT "ValidationExceptionErrorArgument" = Shape::Structure(&[
        Member::required("Name", STRING),
        Member::required("Value", STRING),
    ]);
    VALIDATION_EXCEPTION_FIELD "ValidationExceptionField" = Shape::Structure(&[
        Member::required("Message", STRING),
        Member::required("Name", STRING),
    ]);
}
