//! Packages and their versions.

use crate::model::Member;
use crate::panorama::model::Signature;
use crate::panorama::model::scalars::*;
use crate::panorama::model::structures::*;

/// Makes a package and says where its files go.
pub static CREATE_PACKAGE: Signature = Signature {
    name: "CreatePackage",
    method: "POST",
    path: "/packages",
    about: "Makes a package and says where its files go.",
    input: &[Member::required("PackageName", NODE_PACKAGE_NAME), Member::optional("Tags", TAG_MAP)],
    output: &[
        Member::optional("Arn", NODE_PACKAGE_ARN),
        Member::optional("PackageId", NODE_PACKAGE_ID),
        Member::required("StorageLocation", STORAGE_LOCATION),
    ],
    errors: "VACI",
};

/// Lists packages.
pub static LIST_PACKAGES: Signature = Signature {
    name: "ListPackages",
    method: "GET",
    path: "/packages",
    about: "Lists packages.",
    input: &[Member::query("MaxResults", "maxResults", MAX_SIZE_25), Member::query("NextToken", "nextToken", TOKEN)],
    output: &[Member::optional("NextToken", NEXT_TOKEN), Member::optional("Packages", PACKAGE_LIST)],
    errors: "VACNI",
};

/// Gives a package and where its files are.
pub static DESCRIBE_PACKAGE: Signature = Signature {
    name: "DescribePackage",
    method: "GET",
    path: "/packages/metadata/{PackageId}",
    about: "Gives a package and where its files are.",
    input: &[Member::label("PackageId", NODE_PACKAGE_ID)],
    output: &[
        Member::required("Arn", NODE_PACKAGE_ARN),
        Member::required("CreatedTime", TIME_STAMP),
        Member::required("PackageId", NODE_PACKAGE_ID),
        Member::required("PackageName", NODE_PACKAGE_NAME),
        Member::optional("ReadAccessPrincipalArns", PRINCIPAL_ARNS_LIST),
        Member::required("StorageLocation", STORAGE_LOCATION),
        Member::required("Tags", TAG_MAP),
        Member::optional("WriteAccessPrincipalArns", PRINCIPAL_ARNS_LIST),
    ],
    errors: "VACNI",
};

/// Deletes a package; with force, its versions and files too.
pub static DELETE_PACKAGE: Signature = Signature {
    name: "DeletePackage",
    method: "DELETE",
    path: "/packages/{PackageId}",
    about: "Deletes a package; with force, its versions and files too.",
    input: &[Member::query("ForceDelete", "ForceDelete", BOOLEAN), Member::label("PackageId", NODE_PACKAGE_ID)],
    output: &[],
    errors: "VACNI",
};

/// Registers an uploaded version of a package.
pub static REGISTER_PACKAGE_VERSION: Signature = Signature {
    name: "RegisterPackageVersion",
    method: "PUT",
    path: "/packages/{PackageId}/versions/{PackageVersion}/patch/{PatchVersion}",
    about: "Registers an uploaded version of a package.",
    input: &[
        Member::optional("MarkLatest", MARK_LATEST_PATCH),
        Member::optional("OwnerAccount", PACKAGE_OWNER_ACCOUNT),
        Member::label("PackageId", NODE_PACKAGE_ID),
        Member::label("PackageVersion", NODE_PACKAGE_VERSION),
        Member::label("PatchVersion", NODE_PACKAGE_PATCH_VERSION),
    ],
    output: &[],
    errors: "VACI",
};

/// Gives a version of a package and its state.
pub static DESCRIBE_PACKAGE_VERSION: Signature = Signature {
    name: "DescribePackageVersion",
    method: "GET",
    path: "/packages/metadata/{PackageId}/versions/{PackageVersion}",
    about: "Gives a version of a package and its state.",
    input: &[
        Member::query("OwnerAccount", "OwnerAccount", PACKAGE_OWNER_ACCOUNT),
        Member::label("PackageId", NODE_PACKAGE_ID),
        Member::label("PackageVersion", NODE_PACKAGE_VERSION),
        Member::query("PatchVersion", "PatchVersion", NODE_PACKAGE_PATCH_VERSION),
    ],
    output: &[
        Member::required("IsLatestPatch", BOOLEAN),
        Member::optional("OwnerAccount", PACKAGE_OWNER_ACCOUNT),
        Member::optional("PackageArn", NODE_PACKAGE_ARN),
        Member::required("PackageId", NODE_PACKAGE_ID),
        Member::required("PackageName", NODE_PACKAGE_NAME),
        Member::required("PackageVersion", NODE_PACKAGE_VERSION),
        Member::required("PatchVersion", NODE_PACKAGE_PATCH_VERSION),
        Member::optional("RegisteredTime", TIME_STAMP),
        Member::required("Status", PACKAGE_VERSION_STATUS),
        Member::optional("StatusDescription", PACKAGE_VERSION_STATUS_DESCRIPTION),
    ],
    errors: "VACNI",
};

/// Takes back a registered version of a package.
pub static DEREGISTER_PACKAGE_VERSION: Signature = Signature {
    name: "DeregisterPackageVersion",
    method: "DELETE",
    path: "/packages/{PackageId}/versions/{PackageVersion}/patch/{PatchVersion}",
    about: "Takes back a registered version of a package.",
    input: &[
        Member::query("OwnerAccount", "OwnerAccount", PACKAGE_OWNER_ACCOUNT),
        Member::label("PackageId", NODE_PACKAGE_ID),
        Member::label("PackageVersion", NODE_PACKAGE_VERSION),
        Member::label("PatchVersion", NODE_PACKAGE_PATCH_VERSION),
        Member::query("UpdatedLatestPatchVersion", "UpdatedLatestPatchVersion", NODE_PACKAGE_PATCH_VERSION),
    ],
    output: &[],
    errors: "VACNI",
};
