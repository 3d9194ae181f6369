//! Which bucket a request is for. Path style, `HOST/BUCKET/KEY`, is the way of this service; `BUCKET.HOST/KEY`, which tools
//! use on their own, is understood where the name leads here. It is looked at once, before anything is decided.

use axum::http::header::HOST;
use axum::http::request::Parts;
use belvedere_fleet::Settings;

/// The bucket that the host's name begins with; in the extensions of such a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VirtualBucket(pub(super) String);

/// Looks at the name by which a request came.
pub fn note(parts: &mut Parts, settings: &Settings) {
    let host = parts.headers.get(HOST).and_then(|v| v.to_str().ok());
    let host = host.or(parts.uri.authority().map(|a| a.as_str())).unwrap_or("");
    let known = ["localhost", settings.endpoints.https.host.as_str()];
    if let Some(bucket) = bucket_in(host, &settings.bucket, &known) {
        parts.extensions.insert(VirtualBucket(bucket));
    }
}

/// The bucket in a host's name: the one of this service in front of whatever name, or anything in front of a name that is
/// known to be this service's. Pure.
fn bucket_in(host: &str, own: &str, known: &[&str]) -> Option<String> {
    let host = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
    let host = host.to_ascii_lowercase();
    if host.strip_prefix(own).is_some_and(|rest| rest.starts_with('.')) {
        return Some(own.to_owned());
    }
    // Behind an address no name stands.
    let names = known.iter().filter(|name| name.parse::<std::net::IpAddr>().is_err());
    let mut buckets =
        names.filter_map(|name| host.strip_suffix(&name.to_ascii_lowercase())?.strip_suffix('.').map(str::to_owned));
    buckets.next().filter(|bucket| !bucket.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field case "addressing_style: virtual".
    #[test]
    fn a_bucket_may_stand_in_front_of_the_host() {
        let of = |host: &str| bucket_in(host, "panorama-1-x", &["localhost", "service.example", "10.0.2.2"]);
        for host in [
            "panorama-1-x.localhost:8000", "panorama-1-x.service.example", "panorama-1-x.elsewhere",
            "PANORAMA-1-X.Service.Example:1",
        ] {
            assert_eq!(of(host).as_deref(), Some("panorama-1-x"), "{host}");
        }
        assert_eq!(of("other.service.example:8443").as_deref(), Some("other"));
        assert_eq!(of("other.localhost").as_deref(), Some("other"));
        for host in [
            "", "localhost:8000", "service.example", "127.0.0.1:8000", "10.0.2.2:8443", "1.10.0.2.2", "[::1]:8000",
            "elsewhere.org",
        ] {
            assert_eq!(of(host), None, "{host}");
        }
    }
}
