//! The model's shapes, under the model's names.

use crate::model::{Member, Shape, Text};

const fn text(min: usize, max: usize, pattern: &'static str) -> Text {
    Text { min, max, pattern: Some(pattern) }
}
const fn free(min: usize, max: usize) -> Text {
    Text { min, max, pattern: None }
}

const NAME: &str = r"^[a-zA-Z0-9\-\_]+$";
const IP_ADDRESS_PATTERN: &str = r"^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))(:(6553[0-5]|655[0-2]\d|65[0-4]\d{2}|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3}))?$";
const SERVER_PATTERN: &str = r"(^([a-z0-9]+(-[a-z0-9]+)*\.)+[a-z]{2,}$)|(^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))(:(6553[0-5]|655[0-2]\d|65[0-4]\d{2}|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3}))?$)";

/// `DeviceName`, `DeviceId`, `JobId`, `ApplicationInstanceId`, `ApplicationInstanceName`, `DefaultRuntimeContextDevice`.
pub static IDENTIFIER: Text = text(1, 255, NAME);
/// `NodeName`, `NodePackageName`, `NodeInstanceId`.
pub static NODE_NAME: Text = text(1, 128, NAME);
/// `NodePackageId`: `package-…` or `packageName/…`.
pub static NODE_PACKAGE_ID: Text = text(1, 255, r"^[a-zA-Z0-9\-\_\/]+$");
/// `NodePackageVersion`.
pub static NODE_PACKAGE_VERSION: Text = text(1, 255, r"^([0-9]+)\.([0-9]+)$");
/// `NodePackagePatchVersion`.
pub static PATCH_VERSION: Text = text(1, 255, r"^[a-z0-9]+$");
/// `PackageOwnerAccount`.
pub static OWNER_ACCOUNT: Text = text(1, 12, r"^[0-9a-z\_]+$");
/// `Description`.
pub static DESCRIPTION: Text = free(0, 255);
/// `TagKey`.
pub static TAG_KEY: Text = free(1, 128);
/// `TagValue`.
pub static TAG_VALUE: Text = free(0, 256);
/// `NextToken`, `Token`.
pub static NEXT_TOKEN: Text = free(1, 4096);
/// `NameFilter`.
pub static NAME_FILTER: Text = free(0, 255);
/// `TemplateKey`, `TemplateValue`.
pub static TEMPLATE_TEXT: Text = free(1, 255);
/// `ManifestPayloadData`.
pub static MANIFEST: Text = free(1, 51_200);
/// `ManifestOverridesPayloadData`.
pub static OVERRIDES: Text = free(0, 51_200);
/// `RuntimeRoleArn`.
pub static ROLE_ARN: Text = text(1, 255, r"^arn:[a-z0-9][-.a-z0-9]{0,62}:iam::[0-9]{12}:role/.+$");
/// `ImageVersion`.
pub static IMAGE_VERSION: Text = free(1, 255);
static IP_ADDRESS: Text = text(1, 255, IP_ADDRESS_PATTERN);
static SERVER: Text = text(1, 255, SERVER_PATTERN);
static SHORT: Text = free(1, 255);

/// `TagMap`.
pub const TAGS: Shape = Shape::Map(&TAG_KEY, &TAG_VALUE, 50);
/// `TemplateParametersMap`.
pub const TEMPLATE_PARAMETERS: Shape = Shape::Map(&TEMPLATE_TEXT, &TEMPLATE_TEXT, 50);
/// `MaxSize25`.
pub const MAX_SIZE_25: Shape = Shape::Integer(0, 25);
/// `NodeCategory`.
pub const NODE_CATEGORY: Shape = Shape::Word(&["BUSINESS_LOGIC", "ML_MODEL", "MEDIA_SOURCE", "MEDIA_SINK"]);
/// `TemplateType`.
pub const TEMPLATE_TYPE: Shape = Shape::Word(&["RTSP_CAMERA_STREAM"]);
/// `JobTagsList`.
pub const JOB_TAGS: Shape = Shape::List(
    &Shape::Structure(&[
        Member::required("ResourceType", Shape::Word(&["PACKAGE"])),
        Member::required("Tags", TAGS),
    ]),
    0,
    50,
);
/// `DeviceIdList`.
pub const DEVICE_IDS: Shape = Shape::List(&Shape::Text(&IDENTIFIER), 1, 1);
/// `JobType`.
pub const JOB_TYPE: Shape = Shape::Word(&["OTA", "REBOOT"]);
static OTA_JOB_CONFIG: &[Member] = &[
    Member::required("ImageVersion", Shape::Text(&IMAGE_VERSION)),
    Member::optional("AllowMajorVersionUpdate", Shape::Boolean),
];
/// `DeviceJobConfig`.
pub static DEVICE_JOB_CONFIG: &[Member] = &[Member::optional("OTAJobConfig", Shape::Structure(OTA_JOB_CONFIG))];
/// `DeviceAggregatedStatus`.
pub const DEVICE_AGGREGATED_STATUS: Shape = Shape::Word(&[
    "ERROR",
    "AWAITING_PROVISIONING",
    "PENDING",
    "FAILED",
    "DELETING",
    "ONLINE",
    "OFFLINE",
    "LEASE_EXPIRED",
    "UPDATE_NEEDED",
    "REBOOTING",
]);
/// `StatusFilter`.
pub const STATUS_FILTER: Shape = Shape::Word(&[
    "DEPLOYMENT_SUCCEEDED",
    "DEPLOYMENT_ERROR",
    "REMOVAL_SUCCEEDED",
    "REMOVAL_FAILED",
    "PROCESSING_DEPLOYMENT",
    "PROCESSING_REMOVAL",
    "DEPLOYMENT_FAILED",
]);

static ETHERNET: &[Member] = &[
    Member::required("ConnectionType", Shape::Word(&["STATIC_IP", "DHCP"])),
    Member::optional(
        "StaticIpConnectionInfo",
        Shape::Structure(&[
            Member::required("IpAddress", Shape::Text(&IP_ADDRESS)),
            Member::required("Mask", Shape::Text(&SHORT)),
            Member::required("Dns", Shape::List(&Shape::Text(&SHORT), 0, 16)),
            Member::required("DefaultGateway", Shape::Text(&SHORT)),
        ]),
    ),
];
static NTP: &[Member] = &[Member::required("NtpServers", Shape::List(&Shape::Text(&SERVER), 0, 5))];
/// `NetworkPayload`.
pub static NETWORK_PAYLOAD: &[Member] = &[
    Member::optional("Ethernet0", Shape::Structure(ETHERNET)),
    Member::optional("Ethernet1", Shape::Structure(ETHERNET)),
    Member::optional("Ntp", Shape::Structure(NTP)),
];
