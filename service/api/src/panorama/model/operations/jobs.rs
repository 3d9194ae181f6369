//! Jobs for devices.

use crate::model::Member;
use crate::panorama::model::Signature;
use crate::panorama::model::scalars::*;
use crate::panorama::model::structures::*;

/// Has a device restart or take a new release.
pub static CREATE_JOB_FOR_DEVICES: Signature = Signature {
    name: "CreateJobForDevices",
    method: "POST",
    path: "/jobs",
    about: "Has a device restart or take a new release.",
    input: &[
        Member::required("DeviceIds", DEVICE_ID_LIST),
        Member::optional("DeviceJobConfig", DEVICE_JOB_CONFIG),
        Member::required("JobType", JOB_TYPE),
    ],
    output: &[Member::required("Jobs", JOB_LIST)],
    errors: "VACNI",
};

/// Lists the jobs of devices.
pub static LIST_DEVICES_JOBS: Signature = Signature {
    name: "ListDevicesJobs",
    method: "GET",
    path: "/jobs",
    about: "Lists the jobs of devices.",
    input: &[
        Member::query("DeviceId", "DeviceId", DEVICE_ID),
        Member::query("MaxResults", "MaxResults", MAX_SIZE_25),
        Member::query("NextToken", "NextToken", NEXT_TOKEN),
    ],
    output: &[Member::optional("DeviceJobs", DEVICE_JOB_LIST), Member::optional("NextToken", NEXT_TOKEN)],
    errors: "VACNI",
};

/// Says how far a device's job is.
pub static DESCRIBE_DEVICE_JOB: Signature = Signature {
    name: "DescribeDeviceJob",
    method: "GET",
    path: "/jobs/{JobId}",
    about: "Says how far a device's job is.",
    input: &[Member::label("JobId", JOB_ID)],
    output: &[
        Member::optional("CreatedTime", UPDATE_CREATED_TIME),
        Member::optional("DeviceArn", DEVICE_ARN),
        Member::optional("DeviceId", DEVICE_ID),
        Member::optional("DeviceName", DEVICE_NAME),
        Member::optional("DeviceType", DEVICE_TYPE),
        Member::optional("ImageVersion", IMAGE_VERSION),
        Member::optional("JobId", JOB_ID),
        Member::optional("JobType", JOB_TYPE),
        Member::optional("Status", UPDATE_PROGRESS),
    ],
    errors: "VACNI",
};
