//! Tags of devices, packages and application instances.

use super::Context;
use super::errors::ApiError;
use super::packages::Empty;
use crate::Api;
use belvedere_store::devices::Tags;
use belvedere_store::tags::Tagged;
use serde::{Deserialize, Serialize};

/// Tags of one resource.
const MAX_TAGS: usize = 50;
/// Somebody else may change the same tags meanwhile; so often in a row nobody does.
const ATTEMPTS: usize = 16;

/// `TagResourceRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagResource {
    resource_arn: String,
    tags: Tags,
}

/// `UntagResourceRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UntagResource {
    resource_arn: String,
    tag_keys: Vec<String>,
}

/// `ListTagsForResourceRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OneResource {
    resource_arn: String,
}

/// `ListTagsForResourceResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagsListed {
    tags: Tags,
}

/// What an ARN of this account and region names.
#[derive(Debug, PartialEq, Eq)]
struct Resource<'a> {
    what: Tagged,
    kind: &'static str,
    id: &'a str,
}

fn resource<'a>(context: &Context, arn: &'a str) -> Result<Resource<'a>, ApiError> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", "aws", "panorama", region, account, name] = parts[..] else {
        return Err(ApiError::field("ResourceArn", "the ARN must be like arn:aws:panorama:<region>:<account>:device/<id>"));
    };
    let (what, kind, id) = match name.split_once('/') {
        Some(("device", id)) => (Tagged::Device, "DEVICE", id),
        Some(("package", id)) => (Tagged::Package, "PACKAGE", id),
        Some(("applicationInstance", id)) => (Tagged::ApplicationInstance, "APPLICATION_INSTANCE", id),
        _ => return Err(ApiError::field("ResourceArn", "devices, packages and application instances have tags")),
    };
    if region != context.region || account != context.account {
        return Err(ApiError::not_found(kind, arn));
    }
    Ok(Resource { what, kind, id })
}

/// Tags with further ones; `None` if they are too many then.
fn with(mut tags: Tags, new: &Tags) -> Option<Tags> {
    tags.extend(new.iter().map(|(k, v)| (k.clone(), v.clone())));
    (tags.len() <= MAX_TAGS).then_some(tags)
}

async fn change(
    api: &Api,
    context: &Context,
    arn: &str,
    change: impl Fn(Tags) -> Result<Tags, ApiError>,
) -> Result<Empty, ApiError> {
    let resource = resource(context, arn)?;
    let store = &api.fleet.store;
    for _ in 0..ATTEMPTS {
        let before = store.tags(resource.what, resource.id).await?.ok_or_else(|| ApiError::not_found(resource.kind, arn))?;
        let after = change(before.clone())?;
        if before == after || store.replace_tags(resource.what, resource.id, &before, &after).await? {
            return Ok(Empty {});
        }
    }
    Err(ApiError::internal(format!("the tags of {arn} change all the time")))
}

/// Adds tags, or changes their values.
pub async fn tag_resource(api: &Api, context: &Context, input: TagResource) -> Result<Empty, ApiError> {
    let too_many = || ApiError::field("Tags", format!("a resource has at most {MAX_TAGS} tags"));
    change(api, context, &input.resource_arn, |tags| with(tags, &input.tags).ok_or_else(too_many)).await
}

/// Removes tags. Keys that are not there are no error.
pub async fn untag_resource(api: &Api, context: &Context, input: UntagResource) -> Result<Empty, ApiError> {
    let without = |mut tags: Tags| {
        tags.retain(|key, _| !input.tag_keys.contains(key));
        Ok(tags)
    };
    change(api, context, &input.resource_arn, without).await
}

/// Tags of a resource.
pub async fn list_tags_for_resource(api: &Api, context: &Context, input: OneResource) -> Result<TagsListed, ApiError> {
    let resource = resource(context, &input.resource_arn)?;
    let found = api.fleet.store.tags(resource.what, resource.id).await?;
    let tags = found.ok_or_else(|| ApiError::not_found(resource.kind, &input.resource_arn))?;
    Ok(TagsListed { tags })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context { region: "us-east-1".into(), account: "123456789012".into() }
    }

    #[test]
    fn an_arn_names_a_thing_of_this_account_and_region() {
        let arn = context().arn("applicationInstance", "applicationInstance-a");
        let expected =
            Resource { what: Tagged::ApplicationInstance, kind: "APPLICATION_INSTANCE", id: "applicationInstance-a" };
        assert_eq!(resource(&context(), &arn), Ok(expected));
        for (arn, found) in [
            ("arn:aws:panorama:us-east-1:123456789012:device/device-a", true),
            ("arn:aws:panorama:us-west-2:123456789012:device/device-a", false),
            ("arn:aws:panorama:us-east-1:999999999999:package/package-a", false),
            ("arn:aws:s3:us-east-1:123456789012:device/device-a", false),
            ("arn:aws:panorama:us-east-1:123456789012:job/x", false),
            ("device-a", false),
            ("", false),
        ] {
            assert_eq!(resource(&context(), arn).is_ok(), found, "{arn}");
        }
    }

    #[test]
    fn fifty_tags_are_enough() {
        let tags = |range: std::ops::Range<usize>| range.map(|n| (format!("k{n}"), "v".to_owned())).collect::<Tags>();
        assert_eq!(with(tags(0..49), &tags(0..50)).unwrap().len(), 50);
        assert_eq!(with(tags(0..50), &tags(3..9)).unwrap().len(), 50);
        assert_eq!(with(tags(0..50), &tags(50..51)), None);
    }
}
