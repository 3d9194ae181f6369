//! What each operation of the API looks like from outside.

pub mod application_instances;
pub mod devices;
pub mod jobs;
pub mod nodes;
pub mod packages;
pub mod tags;

use super::Signature;

/// All of them.
pub static ALL: [&Signature; 34] = [
    &devices::PROVISION_DEVICE,
    &devices::LIST_DEVICES,
    &devices::DESCRIBE_DEVICE,
    &devices::UPDATE_DEVICE_METADATA,
    &devices::DELETE_DEVICE,
    &jobs::CREATE_JOB_FOR_DEVICES,
    &jobs::LIST_DEVICES_JOBS,
    &jobs::DESCRIBE_DEVICE_JOB,
    &packages::CREATE_PACKAGE,
    &packages::LIST_PACKAGES,
    &packages::DESCRIBE_PACKAGE,
    &packages::DELETE_PACKAGE,
    &packages::REGISTER_PACKAGE_VERSION,
    &packages::DESCRIBE_PACKAGE_VERSION,
    &packages::DEREGISTER_PACKAGE_VERSION,
    &nodes::LIST_NODES,
    &nodes::DESCRIBE_NODE,
    &nodes::CREATE_NODE_FROM_TEMPLATE_JOB,
    &nodes::LIST_NODE_FROM_TEMPLATE_JOBS,
    &nodes::DESCRIBE_NODE_FROM_TEMPLATE_JOB,
    &nodes::CREATE_PACKAGE_IMPORT_JOB,
    &nodes::LIST_PACKAGE_IMPORT_JOBS,
    &nodes::DESCRIBE_PACKAGE_IMPORT_JOB,
    &application_instances::CREATE_APPLICATION_INSTANCE,
    &application_instances::LIST_APPLICATION_INSTANCES,
    &application_instances::DESCRIBE_APPLICATION_INSTANCE,
    &application_instances::DESCRIBE_APPLICATION_INSTANCE_DETAILS,
    &application_instances::LIST_APPLICATION_INSTANCE_DEPENDENCIES,
    &application_instances::LIST_APPLICATION_INSTANCE_NODE_INSTANCES,
    &application_instances::SIGNAL_APPLICATION_INSTANCE_NODE_INSTANCES,
    &application_instances::REMOVE_APPLICATION_INSTANCE,
    &tags::LIST_TAGS_FOR_RESOURCE,
    &tags::TAG_RESOURCE,
    &tags::UNTAG_RESOURCE,
];
