//! Nodes, and the jobs that make them.

use crate::model::Member;
use crate::panorama::model::Signature;
use crate::panorama::model::scalars::*;
use crate::panorama::model::structures::*;

/// Lists nodes.
pub static LIST_NODES: Signature = Signature {
    name: "ListNodes",
    method: "GET",
    path: "/nodes",
    about: "Lists nodes.",
    input: &[
        Member::query("Category", "category", NODE_CATEGORY),
        Member::query("MaxResults", "maxResults", MAX_SIZE_25),
        Member::query("NextToken", "nextToken", TOKEN),
        Member::query("OwnerAccount", "ownerAccount", PACKAGE_OWNER_ACCOUNT),
        Member::query("PackageName", "packageName", NODE_PACKAGE_NAME),
        Member::query("PackageVersion", "packageVersion", NODE_PACKAGE_VERSION),
        Member::query("PatchVersion", "patchVersion", NODE_PACKAGE_PATCH_VERSION),
    ],
    output: &[Member::optional("NextToken", TOKEN), Member::optional("Nodes", NODES_LIST)],
    errors: "VCI",
};

/// Gives a node and its ports.
pub static DESCRIBE_NODE: Signature = Signature {
    name: "DescribeNode",
    method: "GET",
    path: "/nodes/{NodeId}",
    about: "Gives a node and its ports.",
    input: &[Member::label("NodeId", NODE_ID), Member::query("OwnerAccount", "OwnerAccount", PACKAGE_OWNER_ACCOUNT)],
    output: &[
        Member::optional("AssetName", NODE_ASSET_NAME),
        Member::required("Category", NODE_CATEGORY),
        Member::required("CreatedTime", TIME_STAMP),
        Member::required("Description", DESCRIPTION),
        Member::required("LastUpdatedTime", TIME_STAMP),
        Member::required("Name", NODE_NAME),
        Member::required("NodeId", NODE_ID),
        Member::required("NodeInterface", NODE_INTERFACE),
        Member::required("OwnerAccount", PACKAGE_OWNER_ACCOUNT),
        Member::optional("PackageArn", NODE_PACKAGE_ARN),
        Member::required("PackageId", NODE_PACKAGE_ID),
        Member::required("PackageName", NODE_PACKAGE_NAME),
        Member::required("PackageVersion", NODE_PACKAGE_VERSION),
        Member::required("PatchVersion", NODE_PACKAGE_PATCH_VERSION),
    ],
    errors: "VACNI",
};

/// Makes a camera node from a template.
pub static CREATE_NODE_FROM_TEMPLATE_JOB: Signature = Signature {
    name: "CreateNodeFromTemplateJob",
    method: "POST",
    path: "/packages/template-job",
    about: "Makes a camera node from a template.",
    input: &[
        Member::optional("JobTags", JOB_TAGS_LIST),
        Member::optional("NodeDescription", DESCRIPTION),
        Member::required("NodeName", NODE_NAME),
        Member::required("OutputPackageName", NODE_PACKAGE_NAME),
        Member::required("OutputPackageVersion", NODE_PACKAGE_VERSION),
        Member::required("TemplateParameters", TEMPLATE_PARAMETERS_MAP),
        Member::required("TemplateType", TEMPLATE_TYPE),
    ],
    output: &[Member::required("JobId", JOB_ID)],
    errors: "VACI",
};

/// Lists template jobs.
pub static LIST_NODE_FROM_TEMPLATE_JOBS: Signature = Signature {
    name: "ListNodeFromTemplateJobs",
    method: "GET",
    path: "/packages/template-job",
    about: "Lists template jobs.",
    input: &[Member::query("MaxResults", "MaxResults", MAX_SIZE_25), Member::query("NextToken", "NextToken", NEXT_TOKEN)],
    output: &[
        Member::optional("NextToken", NEXT_TOKEN),
        Member::required("NodeFromTemplateJobs", NODE_FROM_TEMPLATE_JOB_LIST),
    ],
    errors: "VACI",
};

/// Says how far a template job is.
pub static DESCRIBE_NODE_FROM_TEMPLATE_JOB: Signature = Signature {
    name: "DescribeNodeFromTemplateJob",
    method: "GET",
    path: "/packages/template-job/{JobId}",
    about: "Says how far a template job is.",
    input: &[Member::label("JobId", JOB_ID)],
    output: &[
        Member::required("CreatedTime", CREATED_TIME),
        Member::required("JobId", JOB_ID),
        Member::optional("JobTags", JOB_TAGS_LIST),
        Member::required("LastUpdatedTime", LAST_UPDATED_TIME),
        Member::optional("NodeDescription", DESCRIPTION),
        Member::required("NodeName", NODE_NAME),
        Member::required("OutputPackageName", NODE_PACKAGE_NAME),
        Member::required("OutputPackageVersion", NODE_PACKAGE_VERSION),
        Member::required("Status", NODE_FROM_TEMPLATE_JOB_STATUS),
        Member::required("StatusMessage", NODE_FROM_TEMPLATE_JOB_STATUS_MESSAGE),
        Member::required("TemplateParameters", TEMPLATE_PARAMETERS_MAP),
        Member::required("TemplateType", TEMPLATE_TYPE),
    ],
    errors: "VACI",
};

/// Imports a package version from a file in a bucket.
pub static CREATE_PACKAGE_IMPORT_JOB: Signature = Signature {
    name: "CreatePackageImportJob",
    method: "POST",
    path: "/packages/import-jobs",
    about: "Imports a package version from a file in a bucket.",
    input: &[
        Member::required("ClientToken", CLIENT_TOKEN),
        Member::required("InputConfig", PACKAGE_IMPORT_JOB_INPUT_CONFIG),
        Member::optional("JobTags", JOB_TAGS_LIST),
        Member::required("JobType", PACKAGE_IMPORT_JOB_TYPE),
        Member::required("OutputConfig", PACKAGE_IMPORT_JOB_OUTPUT_CONFIG),
    ],
    output: &[Member::required("JobId", JOB_ID)],
    errors: "VACI",
};

/// Lists import jobs.
pub static LIST_PACKAGE_IMPORT_JOBS: Signature = Signature {
    name: "ListPackageImportJobs",
    method: "GET",
    path: "/packages/import-jobs",
    about: "Lists import jobs.",
    input: &[Member::query("MaxResults", "MaxResults", MAX_SIZE_25), Member::query("NextToken", "NextToken", NEXT_TOKEN)],
    output: &[Member::optional("NextToken", NEXT_TOKEN), Member::required("PackageImportJobs", PACKAGE_IMPORT_JOB_LIST)],
    errors: "VACI",
};

/// Says how far an import job is.
pub static DESCRIBE_PACKAGE_IMPORT_JOB: Signature = Signature {
    name: "DescribePackageImportJob",
    method: "GET",
    path: "/packages/import-jobs/{JobId}",
    about: "Says how far an import job is.",
    input: &[Member::label("JobId", JOB_ID)],
    output: &[
        Member::optional("ClientToken", CLIENT_TOKEN),
        Member::required("CreatedTime", CREATED_TIME),
        Member::required("InputConfig", PACKAGE_IMPORT_JOB_INPUT_CONFIG),
        Member::required("JobId", JOB_ID),
        Member::optional("JobTags", JOB_TAGS_LIST),
        Member::required("JobType", PACKAGE_IMPORT_JOB_TYPE),
        Member::required("LastUpdatedTime", LAST_UPDATED_TIME),
        Member::required("Output", PACKAGE_IMPORT_JOB_OUTPUT),
        Member::required("OutputConfig", PACKAGE_IMPORT_JOB_OUTPUT_CONFIG),
        Member::required("Status", PACKAGE_IMPORT_JOB_STATUS),
        Member::required("StatusMessage", PACKAGE_IMPORT_JOB_STATUS_MESSAGE),
    ],
    errors: "VACI",
};
