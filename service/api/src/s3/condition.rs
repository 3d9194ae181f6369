//! Whether an object is as the client says (RFC 9110, 13): by its entity tag, or, where none is given, by its time.

use super::errors::S3Error;
use super::operation::Target;
use crate::Api;
use crate::sigv4::clock::parse_http_date;
use axum::http::HeaderMap;
use belvedere_store::objects::{ObjectInfo, Seen};

/// In front of the names of conditions on what is copied.
pub(super) const OF_SOURCE: &str = "x-amz-copy-source-";

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They hold.
    Holds,
    /// The client has this object already.
    NotModified,
    /// It is another object.
    Fails,
}

fn text<'a>(headers: &'a HeaderMap, prefix: &str, name: &str) -> Option<&'a str> {
    headers.get(format!("{prefix}{name}")).and_then(|v| v.to_str().ok())
}

fn names(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_matches('"') == etag)
}

/// Of an object that is read. `prefix` is empty, or [`OF_SOURCE`]. A time that is none is as if it were not there.
pub(super) fn verdict(headers: &HeaderMap, prefix: &str, object: &ObjectInfo) -> Verdict {
    let time = |name| text(headers, prefix, name).and_then(parse_http_date);
    // Headers know whole seconds.
    let modified = object.modified_ms.div_euclid(1000);
    let same = match text(headers, prefix, "if-match") {
        Some(list) => names(list, &object.etag),
        None => time("if-unmodified-since").is_none_or(|since| modified <= since),
    };
    let other = match text(headers, prefix, "if-none-match") {
        // Whether the bytes are the same does not matter to who has the object: W/ is as good.
        Some(list) => !names(&list.replace("W/", ""), &object.etag),
        None => time("if-modified-since").is_none_or(|since| modified > since),
    };
    match (same, other) {
        (true, true) => Verdict::Holds,
        (true, false) => Verdict::NotModified,
        (false, _) => Verdict::Fails,
    }
}

/// Whether a range may be given to who has the rest of it: `If-Range` names exactly this object.
pub(super) fn range_is_of(headers: &HeaderMap, object: &ObjectInfo) -> bool {
    text(headers, "", "if-range").map(str::trim).is_none_or(|wanted| {
        wanted == format!("\"{}\"", object.etag) || parse_http_date(wanted) == Some(object.modified_ms.div_euclid(1000))
    })
}

/// Conditions of a request that writes or deletes: what they were held against, which must be there still when it is done.
pub(super) async fn of_write(api: &Api, headers: &HeaderMap, target: &Target) -> Result<Seen, S3Error> {
    if !headers.contains_key("if-match") && !headers.contains_key("if-none-match") {
        return Ok(Seen::NotLookedAt);
    }
    let known = api.fleet.store.object(&target.bucket, &target.key).await?;
    held(headers, known.as_ref())?;
    Ok(Seen::of(known.as_ref()))
}

/// Pure.
fn held(headers: &HeaderMap, known: Option<&ObjectInfo>) -> Result<(), S3Error> {
    match (known, text(headers, "", "if-match"), text(headers, "", "if-none-match").map(str::trim)) {
        (_, None, Some(list)) if list != "*" => Err(S3Error::not_implemented()),
        (Some(_), None, Some(_)) => Err(S3Error::precondition_failed()),
        (None, Some(_), _) => Err(S3Error::no_such_key()),
        (Some(known), Some(list), _) if !names(list, &known.etag) => Err(S3Error::precondition_failed()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "Fri, 24 May 2013 00:00:00 GMT";
    const BEFORE: &str = "Thu, 23 May 2013 23:59:59 GMT";

    fn object() -> ObjectInfo {
        let mut object = ObjectInfo::default();
        object.etag = "abc".into();
        object.modified_ms = 1_369_353_600_999;
        object
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn tags_stand_above_times() {
        use Verdict::*;
        for (given, expected) in [
            (&[][..], Holds),
            (&[("if-match", "\"x\", \"abc\"")], Holds),
            (&[("if-match", "\"x\"")], Fails),
            (&[("if-match", "*"), ("if-unmodified-since", BEFORE)], Holds),
            (&[("if-unmodified-since", AT)], Holds),
            (&[("if-unmodified-since", BEFORE)], Fails),
            (&[("if-unmodified-since", "yesterday")], Holds),
            (&[("if-none-match", "W/\"abc\"")], NotModified),
            (&[("if-none-match", "\"x\""), ("if-modified-since", AT)], Holds),
            (&[("if-modified-since", AT)], NotModified),
            (&[("if-modified-since", BEFORE)], Holds),
            (&[("if-match", "\"x\""), ("if-none-match", "\"abc\"")], Fails),
        ] {
            assert_eq!(verdict(&headers(given), "", &object()), expected, "{given:?}");
        }
        let of_source = headers(&[("x-amz-copy-source-if-modified-since", AT)]);
        assert_eq!(verdict(&of_source, OF_SOURCE, &object()), NotModified);
        assert_eq!(verdict(&of_source, "", &object()), Holds);
    }

    #[test]
    fn a_range_is_of_the_object_that_is_named() {
        for (wanted, right) in [("\"abc\"", true), (AT, true), ("W/\"abc\"", false), ("\"x\"", false), (BEFORE, false)] {
            assert_eq!(range_is_of(&headers(&[("if-range", wanted)]), &object()), right, "{wanted}");
        }
        assert!(range_is_of(&HeaderMap::new(), &object()));
    }
}
