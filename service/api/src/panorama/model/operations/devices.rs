//! Devices.

use crate::model::Member;
use crate::panorama::model::Signature;
use crate::panorama::model::scalars::*;
use crate::panorama::model::structures::*;

/// Makes a device and the archive that lets it join; the archive is given once.
pub static PROVISION_DEVICE: Signature = Signature {
    name: "ProvisionDevice",
    method: "POST",
    path: "/devices",
    about: "Makes a device and the archive that lets it join; the archive is given once.",
    input: &[
        Member::optional("Description", DESCRIPTION),
        Member::required("Name", DEVICE_NAME),
        Member::optional("NetworkingConfiguration", NETWORK_PAYLOAD),
        Member::optional("Tags", TAG_MAP),
    ],
    output: &[
        Member::required("Arn", DEVICE_ARN),
        Member::optional("Certificates", CERTIFICATES),
        Member::optional("DeviceId", DEVICE_ID),
        Member::optional("IotThingName", IOT_THING_NAME),
        Member::required("Status", DEVICE_STATUS),
    ],
    errors: "VACQI",
};

/// Lists devices.
pub static LIST_DEVICES: Signature = Signature {
    name: "ListDevices",
    method: "GET",
    path: "/devices",
    about: "Lists devices.",
    input: &[
        Member::query("DeviceAggregatedStatusFilter", "DeviceAggregatedStatusFilter", DEVICE_AGGREGATED_STATUS),
        Member::query("MaxResults", "MaxResults", MAX_SIZE_25),
        Member::query("NameFilter", "NameFilter", NAME_FILTER),
        Member::query("NextToken", "NextToken", NEXT_TOKEN),
        Member::query("SortBy", "SortBy", LIST_DEVICES_SORT_BY),
        Member::query("SortOrder", "SortOrder", SORT_ORDER),
    ],
    output: &[Member::required("Devices", DEVICE_LIST), Member::optional("NextToken", NEXT_TOKEN)],
    errors: "VACI",
};

/// Says how a device is.
pub static DESCRIBE_DEVICE: Signature = Signature {
    name: "DescribeDevice",
    method: "GET",
    path: "/devices/{DeviceId}",
    about: "Says how a device is.",
    input: &[Member::label("DeviceId", DEVICE_ID)],
    output: &[
        Member::optional("AlternateSoftwares", ALTERNATE_SOFTWARES),
        Member::optional("Arn", DEVICE_ARN),
        Member::optional("Brand", DEVICE_BRAND),
        Member::optional("CreatedTime", CREATED_TIME),
        Member::optional("CurrentNetworkingStatus", NETWORK_STATUS),
        Member::optional("CurrentSoftware", CURRENT_SOFTWARE),
        Member::optional("Description", DESCRIPTION),
        Member::optional("DeviceAggregatedStatus", DEVICE_AGGREGATED_STATUS),
        Member::optional("DeviceConnectionStatus", DEVICE_CONNECTION_STATUS),
        Member::optional("DeviceId", DEVICE_ID),
        Member::optional("LatestAlternateSoftware", LATEST_ALTERNATE_SOFTWARE),
        Member::optional("LatestDeviceJob", LATEST_DEVICE_JOB),
        Member::optional("LatestSoftware", LATEST_SOFTWARE),
        Member::optional("LeaseExpirationTime", LEASE_EXPIRATION_TIME),
        Member::optional("Name", DEVICE_NAME),
        Member::optional("NetworkingConfiguration", NETWORK_PAYLOAD),
        Member::optional("ProvisioningStatus", DEVICE_STATUS),
        Member::optional("SerialNumber", DEVICE_SERIAL_NUMBER),
        Member::optional("Tags", TAG_MAP),
        Member::optional("Type", DEVICE_TYPE),
    ],
    errors: "VANI",
};

/// Changes a device's description.
pub static UPDATE_DEVICE_METADATA: Signature = Signature {
    name: "UpdateDeviceMetadata",
    method: "PUT",
    path: "/devices/{DeviceId}",
    about: "Changes a device's description.",
    input: &[Member::optional("Description", DESCRIPTION), Member::label("DeviceId", DEVICE_ID)],
    output: &[Member::optional("DeviceId", DEVICE_ID)],
    errors: "VACNI",
};

/// Deletes a device and ends its access.
pub static DELETE_DEVICE: Signature = Signature {
    name: "DeleteDevice",
    method: "DELETE",
    path: "/devices/{DeviceId}",
    about: "Deletes a device and ends its access.",
    input: &[Member::label("DeviceId", DEVICE_ID)],
    output: &[Member::optional("DeviceId", DEVICE_ID)],
    errors: "VACNI",
};
