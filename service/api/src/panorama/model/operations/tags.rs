//! Tags of resources.

use crate::model::Member;
use crate::panorama::model::Signature;
use crate::panorama::model::scalars::*;
use crate::panorama::model::structures::*;

/// Lists a resource's tags.
pub static LIST_TAGS_FOR_RESOURCE: Signature = Signature {
    name: "ListTagsForResource",
    method: "GET",
    path: "/tags/{ResourceArn}",
    about: "Lists a resource's tags.",
    input: &[Member::label("ResourceArn", RESOURCE_ARN)],
    output: &[Member::optional("Tags", TAG_MAP)],
    errors: "VNI",
};

/// Adds tags to a resource.
pub static TAG_RESOURCE: Signature = Signature {
    name: "TagResource",
    method: "POST",
    path: "/tags/{ResourceArn}",
    about: "Adds tags to a resource.",
    input: &[Member::label("ResourceArn", RESOURCE_ARN), Member::required("Tags", TAG_MAP)],
    output: &[],
    errors: "VNI",
};

/// Takes tags off a resource.
pub static UNTAG_RESOURCE: Signature = Signature {
    name: "UntagResource",
    method: "DELETE",
    path: "/tags/{ResourceArn}",
    about: "Takes tags off a resource.",
    input: &[Member::label("ResourceArn", RESOURCE_ARN), Member::required_query("TagKeys", "tagKeys", TAG_KEY_LIST)],
    output: &[],
    errors: "VNI",
};
