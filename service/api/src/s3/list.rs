//! Lists: objects in both versions, the one bucket, its place.

use super::errors::S3Error;
use super::operation::Target;
use super::xml;
use crate::Api;
use crate::sigv4::canonical::encode;
use crate::sigv4::clock::iso8601;
use crate::xml::element;
use axum::response::Response;
use belvedere_store::objects::ObjectInfo;

const MAX_KEYS: usize = 1000;

/// GET of the service: the one bucket.
pub(super) fn buckets(api: &Api) -> Response {
    let settings = &api.fleet.settings;
    xml(format!(
        "<ListAllMyBucketsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Owner>{}</Owner><Buckets><Bucket>{}{}</Bucket></Buckets></ListAllMyBucketsResult>",
        element("ID", &settings.account),
        element("Name", &settings.bucket),
        element("CreationDate", &iso8601(0))
    ))
}

/// GET `?location`.
pub(super) fn location(region: &str) -> Response {
    // us-east-1 is the empty constraint.
    let place = if region == "us-east-1" { "" } else { region };
    xml(format!(
        "<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}</LocationConstraint>",
        crate::xml::escape(place)
    ))
}

/// What is on a page.
enum Entry {
    Object(ObjectInfo),
    Prefix(String),
}

/// GET of the bucket, version 1 or 2.
pub(super) async fn objects(api: &Api, target: &Target) -> Result<Response, S3Error> {
    let second = target.query("list-type") == Some("2");
    let prefix = target.query("prefix").unwrap_or("");
    let delimiter = target.query("delimiter").filter(|d| !d.is_empty());
    let url = target.query("encoding-type") == Some("url");
    let max_keys = match target.query("max-keys") {
        None => MAX_KEYS,
        Some(text) => text.parse::<usize>().map_err(|_| S3Error::invalid("max-keys must be a number"))?.min(MAX_KEYS),
    };
    let token = target.query("continuation-token");
    let after = match (second, token) {
        (true, Some(token)) => hex::decode(token)
            .ok()
            .and_then(|t| String::from_utf8(t).ok())
            .ok_or_else(|| S3Error::invalid("The continuation token provided is incorrect"))?,
        (true, None) => target.query("start-after").unwrap_or("").to_owned(),
        (false, _) => target.query("marker").unwrap_or("").to_owned(),
    };
    let (entries, last) = page(api, target, prefix, delimiter, after, max_keys).await?;
    let shown = |text: &str| if url { encode(text.as_bytes(), b"/") } else { text.to_owned() };
    let mut body = format!("{}{}", element("Name", &target.bucket), element("Prefix", &shown(prefix)));
    if let Some(delimiter) = delimiter {
        body += &element("Delimiter", &shown(delimiter));
    }
    body += &element("MaxKeys", &max_keys.to_string());
    if url {
        body += &element("EncodingType", "url");
    }
    body += &element("IsTruncated", if last.is_some() { "true" } else { "false" });
    match (second, &last) {
        (true, last) => {
            body += &element("KeyCount", &entries.len().to_string());
            if let Some(token) = token {
                body += &element("ContinuationToken", token);
            }
            if let Some(last) = last {
                body += &element("NextContinuationToken", &hex::encode(last));
            }
        }
        (false, last) => {
            body += &element("Marker", &shown(target.query("marker").unwrap_or("")));
            if let Some(last) = last {
                body += &element("NextMarker", &shown(last));
            }
        }
    }
    for entry in &entries {
        match entry {
            Entry::Object(object) => {
                body += &format!(
                    "<Contents>{}{}{}{}{}</Contents>",
                    element("Key", &shown(&object.key)),
                    element("LastModified", &iso8601(object.modified_ms)),
                    element("ETag", &format!("\"{}\"", object.etag)),
                    element("Size", &object.size.to_string()),
                    element("StorageClass", "STANDARD")
                );
            }
            Entry::Prefix(prefix) => {
                body += &format!("<CommonPrefixes>{}</CommonPrefixes>", element("Prefix", &shown(prefix)));
            }
        }
    }
    Ok(xml(format!("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{body}</ListBucketResult>")))
}

/// At most `max` entries after `after`, and where the next page begins if there is one.
async fn page(
    api: &Api,
    target: &Target,
    prefix: &str,
    delimiter: Option<&str>,
    after: String,
    max: usize,
) -> Result<(Vec<Entry>, Option<String>), S3Error> {
    let mut entries = Vec::new();
    let mut at = after;
    if max == 0 {
        return Ok((entries, None));
    }
    loop {
        let batch = api.fleet.store.list_objects(&target.bucket, prefix, &at, MAX_KEYS + 1).await?;
        if batch.is_empty() {
            return Ok((entries, None));
        }
        for object in batch {
            // Already told of by the common prefix that it stands behind.
            if object.key <= at {
                continue;
            }
            if entries.len() == max {
                return Ok((entries, Some(at)));
            }
            let common = delimiter.and_then(|d| {
                let rest = object.key.get(prefix.len()..)?;
                rest.find(d).map(|p| object.key[..prefix.len() + p + d.len()].to_owned())
            });
            match common {
                Some(common) => {
                    // Everything behind this prefix comes before this.
                    at = format!("{common}{}", char::MAX);
                    entries.push(Entry::Prefix(common));
                }
                None => {
                    at = object.key.clone();
                    entries.push(Entry::Object(object));
                }
            }
        }
    }
}
