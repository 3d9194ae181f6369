//! Strings, words, numbers and times: lengths, patterns and values as the published model has them.

use crate::model::{MANY, Named, Shape, Text};

const NAME: &str = r"^[a-zA-Z0-9\-\_]+$";
const IP_ADDRESS_PATTERN: &str = r"^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))(:(6553[0-5]|655[0-2]\d|65[0-4]\d{2}|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3}))?$";
const SERVER_PATTERN: &str = r"(^([a-z0-9]+(-[a-z0-9]+)*\.)+[a-z]{2,}$)|(^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))(:(6553[0-5]|655[0-2]\d|65[0-4]\d{2}|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3}))?$)";

/// A string of `min` to `max` characters that matches a pattern.
macro_rules! text {
    ($min:expr, $max:expr, $pattern:expr) => {
        Shape::Text(&Text { min: $min, max: $max, pattern: Some($pattern) })
    };
}
/// A string of `min` to `max` characters: the model has no pattern, or one of `^.*$` and `^.+$`.
macro_rules! free {
    ($min:expr, $max:expr) => {
        Shape::Text(&Text { min: $min, max: $max, pattern: None })
    };
}
macro_rules! word {
    ($($word:literal),+) => { Shape::Word(&[$($word),+]) };
}

shapes! {
    APPLICATION_INSTANCE_ARN "ApplicationInstanceArn" = free!(1, 255);
    APPLICATION_INSTANCE_ID "ApplicationInstanceId" = text!(1, 255, NAME);
    APPLICATION_INSTANCE_NAME "ApplicationInstanceName" = text!(1, 255, NAME);
    APPLICATION_INSTANCE_STATUS_DESCRIPTION "ApplicationInstanceStatusDescription" = free!(1, 255);
    BUCKET "Bucket" = free!(0, MANY);
    BUCKET_NAME "BucketName" = free!(1, 255);
    CLIENT_TOKEN "ClientToken" = text!(1, 64, NAME);
    CURRENT_SOFTWARE "CurrentSoftware" = free!(1, 255);
    DEFAULT_GATEWAY "DefaultGateway" = free!(1, 255);
    DEFAULT_RUNTIME_CONTEXT_DEVICE "DefaultRuntimeContextDevice" = text!(1, 255, NAME);
    DESCRIPTION "Description" = free!(0, 255);
    DEVICE_ARN "DeviceArn" = free!(1, 255);
    DEVICE_ID "DeviceId" = text!(1, 255, NAME);
    DEVICE_NAME "DeviceName" = text!(1, 255, NAME);
    DEVICE_SERIAL_NUMBER "DeviceSerialNumber" = text!(0, MANY, r"^[0-9]{1,20}$");
    DNS "Dns" = free!(1, 255);
    HW_ADDRESS "HwAddress" = free!(1, 255);
    IMAGE_VERSION "ImageVersion" = free!(1, 255);
    IOT_THING_NAME "IotThingName" = free!(1, 255);
    IP_ADDRESS "IpAddress" = text!(1, 255, IP_ADDRESS_PATTERN);
    IP_ADDRESS_OR_SERVER_NAME "IpAddressOrServerName" = text!(1, 255, SERVER_PATTERN);
    JOB_ID "JobId" = text!(1, 255, NAME);
    LATEST_ALTERNATE_SOFTWARE "LatestAlternateSoftware" = free!(1, 255);
    LATEST_SOFTWARE "LatestSoftware" = free!(1, 255);
    MANIFEST_OVERRIDES_PAYLOAD_DATA "ManifestOverridesPayloadData" = free!(0, 51_200);
    MANIFEST_PAYLOAD_DATA "ManifestPayloadData" = free!(1, 51_200);
    MASK "Mask" = free!(1, 255);
    NAME_FILTER "NameFilter" = free!(0, 255);
    NEXT_TOKEN "NextToken" = free!(1, 4096);
    NODE_ASSET_NAME "NodeAssetName" = text!(1, 255, NAME);
    NODE_FROM_TEMPLATE_JOB_STATUS_MESSAGE "NodeFromTemplateJobStatusMessage" = free!(0, MANY);
    NODE_ID "NodeId" = text!(1, 255, r"^[a-zA-Z0-9\-\_\.]+$");
    NODE_INSTANCE_ID "NodeInstanceId" = text!(1, 128, NAME);
    NODE_NAME "NodeName" = text!(1, 128, NAME);
    NODE_PACKAGE_ARN "NodePackageArn" = free!(1, 255);
    NODE_PACKAGE_ID "NodePackageId" = text!(1, 255, r"^[a-zA-Z0-9\-\_\/]+$");
    NODE_PACKAGE_NAME "NodePackageName" = text!(1, 128, NAME);
    NODE_PACKAGE_PATCH_VERSION "NodePackagePatchVersion" = text!(1, 255, r"^[a-z0-9]+$");
    NODE_PACKAGE_VERSION "NodePackageVersion" = text!(1, 255, r"^([0-9]+)\.([0-9]+)$");
    NTP_SERVER_NAME "NtpServerName" = free!(1, 255);
    OBJECT "Object" = free!(0, MANY);
    OBJECT_KEY "ObjectKey" = free!(1, 255);
    PACKAGE_IMPORT_JOB_STATUS_MESSAGE "PackageImportJobStatusMessage" = free!(0, MANY);
    PACKAGE_OWNER_ACCOUNT "PackageOwnerAccount" = text!(1, 12, r"^[0-9a-z\_]+$");
    PACKAGE_VERSION_STATUS_DESCRIPTION "PackageVersionStatusDescription" = free!(1, 255);
    PORT_DEFAULT_VALUE "PortDefaultValue" = free!(1, 255);
    PORT_NAME "PortName" = text!(1, 50, r"^[a-zA-Z0-9\_]+$");
    PRINCIPAL_ARN "PrincipalArn" = text!(1, 255, r"^arn:[a-z0-9][-.a-z0-9]{0,62}:iam::[0-9]{12}:[a-zA-Z0-9+=,.@\-_/]+$");
    REGION "Region" = free!(1, 255);
    RESOURCE_ARN "ResourceArn" = free!(1, 2048);
    RUNTIME_CONTEXT_NAME "RuntimeContextName" = free!(1, 255);
    RUNTIME_ROLE_ARN "RuntimeRoleArn" = text!(1, 255, r"^arn:[a-z0-9][-.a-z0-9]{0,62}:iam::[0-9]{12}:role/.+$");
    STRING "String" = free!(0, MANY);
    TAG_KEY "TagKey" = free!(1, 128);
    TAG_VALUE "TagValue" = free!(0, 256);
    TEMPLATE_KEY "TemplateKey" = free!(1, 255);
    @sensitive TEMPLATE_VALUE "TemplateValue" = free!(1, 255);
    TOKEN "Token" = free!(1, 4096);
    VERSION "Version" = free!(1, 255);
}

shapes! {
    APPLICATION_INSTANCE_HEALTH_STATUS "ApplicationInstanceHealthStatus" = word!("RUNNING", "ERROR", "NOT_AVAILABLE");
    APPLICATION_INSTANCE_STATUS "ApplicationInstanceStatus" = word!("DEPLOYMENT_PENDING", "DEPLOYMENT_REQUESTED", "DEPLOYMENT_IN_PROGRESS", "DEPLOYMENT_ERROR", "DEPLOYMENT_SUCCEEDED", "REMOVAL_PENDING", "REMOVAL_REQUESTED", "REMOVAL_IN_PROGRESS", "REMOVAL_FAILED", "REMOVAL_SUCCEEDED", "DEPLOYMENT_FAILED");
    CONNECTION_TYPE "ConnectionType" = word!("STATIC_IP", "DHCP");
    DESIRED_STATE "DesiredState" = word!("RUNNING", "STOPPED", "REMOVED");
    DEVICE_AGGREGATED_STATUS "DeviceAggregatedStatus" = word!("ERROR", "AWAITING_PROVISIONING", "PENDING", "FAILED", "DELETING", "ONLINE", "OFFLINE", "LEASE_EXPIRED", "UPDATE_NEEDED", "REBOOTING");
    DEVICE_BRAND "DeviceBrand" = word!("AWS_PANORAMA", "LENOVO");
    DEVICE_CONNECTION_STATUS "DeviceConnectionStatus" = word!("ONLINE", "OFFLINE", "AWAITING_CREDENTIALS", "NOT_AVAILABLE", "ERROR");
    DEVICE_REPORTED_STATUS "DeviceReportedStatus" = word!("STOPPING", "STOPPED", "STOP_ERROR", "REMOVAL_FAILED", "REMOVAL_IN_PROGRESS", "STARTING", "RUNNING", "INSTALL_ERROR", "LAUNCHED", "LAUNCH_ERROR", "INSTALL_IN_PROGRESS");
    DEVICE_STATUS "DeviceStatus" = word!("AWAITING_PROVISIONING", "PENDING", "SUCCEEDED", "FAILED", "ERROR", "DELETING");
    DEVICE_TYPE "DeviceType" = word!("PANORAMA_APPLIANCE_DEVELOPER_KIT", "PANORAMA_APPLIANCE");
    JOB_RESOURCE_TYPE "JobResourceType" = word!("PACKAGE");
    JOB_TYPE "JobType" = word!("OTA", "REBOOT");
    LIST_DEVICES_SORT_BY "ListDevicesSortBy" = word!("DEVICE_ID", "CREATED_TIME", "NAME", "DEVICE_AGGREGATED_STATUS");
    NETWORK_CONNECTION_STATUS "NetworkConnectionStatus" = word!("CONNECTED", "NOT_CONNECTED", "CONNECTING");
    NODE_CATEGORY "NodeCategory" = word!("BUSINESS_LOGIC", "ML_MODEL", "MEDIA_SOURCE", "MEDIA_SINK");
    NODE_FROM_TEMPLATE_JOB_STATUS "NodeFromTemplateJobStatus" = word!("PENDING", "SUCCEEDED", "FAILED");
    NODE_INSTANCE_STATUS "NodeInstanceStatus" = word!("RUNNING", "ERROR", "NOT_AVAILABLE", "PAUSED");
    NODE_SIGNAL_VALUE "NodeSignalValue" = word!("PAUSE", "RESUME");
    PACKAGE_IMPORT_JOB_STATUS "PackageImportJobStatus" = word!("PENDING", "SUCCEEDED", "FAILED");
    PACKAGE_IMPORT_JOB_TYPE "PackageImportJobType" = word!("NODE_PACKAGE_VERSION", "MARKETPLACE_NODE_PACKAGE_VERSION");
    PACKAGE_VERSION_STATUS "PackageVersionStatus" = word!("REGISTER_PENDING", "REGISTER_COMPLETED", "FAILED", "DELETING");
    PORT_TYPE "PortType" = word!("BOOLEAN", "STRING", "INT32", "FLOAT32", "MEDIA");
    SORT_ORDER "SortOrder" = word!("ASCENDING", "DESCENDING");
    STATUS_FILTER "StatusFilter" = word!("DEPLOYMENT_SUCCEEDED", "DEPLOYMENT_ERROR", "REMOVAL_SUCCEEDED", "REMOVAL_FAILED", "PROCESSING_DEPLOYMENT", "PROCESSING_REMOVAL", "DEPLOYMENT_FAILED");
    TEMPLATE_TYPE "TemplateType" = word!("RTSP_CAMERA_STREAM");
    UPDATE_PROGRESS "UpdateProgress" = word!("PENDING", "IN_PROGRESS", "VERIFYING", "REBOOTING", "DOWNLOADING", "COMPLETED", "FAILED");
    VALIDATION_EXCEPTION_REASON "ValidationExceptionReason" = word!("UNKNOWN_OPERATION", "CANNOT_PARSE", "FIELD_VALIDATION_FAILED", "OTHER");
}

shapes! {
    BOOLEAN "Boolean" = Shape::Boolean;
    CERTIFICATES "Certificates" = Shape::Blob;
    CREATED_TIME "CreatedTime" = Shape::Timestamp;
    LAST_UPDATED_TIME "LastUpdatedTime" = Shape::Timestamp;
    LEASE_EXPIRATION_TIME "LeaseExpirationTime" = Shape::Timestamp;
    MARK_LATEST_PATCH "MarkLatestPatch" = Shape::Boolean;
    MAX_CONNECTIONS "MaxConnections" = Shape::Integer(i32::MIN as i64, i32::MAX as i64);
    MAX_SIZE_25 "MaxSize25" = Shape::Integer(0, 25);
    RETRY_AFTER_SECONDS "RetryAfterSeconds" = Shape::Integer(i32::MIN as i64, i32::MAX as i64);
    TIME_STAMP "TimeStamp" = Shape::Timestamp;
    UPDATE_CREATED_TIME "UpdateCreatedTime" = Shape::Timestamp;
}
