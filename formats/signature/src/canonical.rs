//! The canonical request, the string to sign, and the signature. Pure.

use crate::Scope;
use ring::hmac;

/// The name of the one algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

/// SHA-256, hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

/// Percent-encodes everything but the unreserved characters of RFC 3986 and those in `keep`.
pub fn encode(bytes: &[u8], keep: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            out.push(byte as char);
        } else {
            out.push('%');
            out.push(UPPER_HEX[usize::from(byte >> 4)] as char);
            out.push(UPPER_HEX[usize::from(byte & 15)] as char);
        }
    }
    out
}

/// Undoes percent-encoding. `plus`: whether `+` is a space. What is not an encoding stays.
pub fn decode(text: &str, plus: bool) -> Vec<u8> {
    let digit = |b: Option<&u8>| b.and_then(|b| (*b as char).to_digit(16)).map(|d| d as u8);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => match (digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
        at += 1;
    }
    out
}

/// A query string as decoded pairs, in order.
pub fn query_pairs(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = query.split('&').filter(|p| !p.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        })
        .collect()
}

/// The canonical query: decoded, encoded anew, sorted. `X-Amz-Signature` is left out.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query_pairs(query)
        .into_iter()
        .filter(|(name, _)| name != b"X-Amz-Signature")
        .map(|(name, value)| (encode(&name, b""), encode(&value, b"")))
        .collect();
    pairs.sort();
    pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&")
}

/// The canonical path. S3 signs the path encoded once; everything else normalises it and encodes it a second time.
fn canonical_path(path: &str, service: &str) -> String {
    if service == "s3" {
        return encode(&decode(path, false), b"/");
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut normal = format!("/{}", segments.join("/"));
    if path.ends_with('/') && !segments.is_empty() {
        normal.push('/');
    }
    encode(normal.as_bytes(), b"/")
}

/// The parts of a request that are signed.
pub struct Request<'a> {
    /// `GET`.
    pub method: &'a str,
    /// As it came, still encoded.
    pub path: &'a str,
    /// As it came, without `?`.
    pub query: &'a str,
    /// Signed headers, sorted, in lower case, with all their values in order.
    pub headers: &'a [(&'a str, Vec<&'a str>)],
    /// SHA-256 of the body, or the word that stands for it.
    pub payload: &'a str,
}

/// The canonical request.
pub fn canonical_request(request: &Request<'_>, service: &str) -> String {
    let mut text =
        format!("{}\n{}\n{}\n", request.method, canonical_path(request.path, service), canonical_query(request.query));
    for (name, values) in request.headers {
        let values: Vec<String> = values.iter().map(|v| v.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let names: Vec<&str> = request.headers.iter().map(|(n, _)| *n).collect();
    text.push_str(&format!("\n{}\n{}", names.join(";"), request.payload));
    text
}

/// The string to sign of a request.
pub fn string_to_sign(canonical_request: &str, amz_date: &str, scope: &Scope) -> String {
    format!("{ALGORITHM}\n{amz_date}\n{scope}\n{}", sha256(canonical_request.as_bytes()))
}

/// The key of a scope.
pub fn signing_key(secret: &str, scope: &Scope) -> hmac::Key {
    let sign = |key: &[u8], data: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes());
    let date = sign(format!("AWS4{secret}").as_bytes(), &scope.date);
    let region = sign(date.as_ref(), &scope.region);
    let service = sign(region.as_ref(), &scope.service);
    hmac::Key::new(hmac::HMAC_SHA256, sign(service.as_ref(), "aws4_request").as_ref())
}

/// The signature of a string.
pub fn signature(key: &hmac::Key, string: &str) -> String {
    hex::encode(hmac::sign(key, string.as_bytes()))
}

/// Whether a signature (hexadecimal) is that of a string; in constant time.
pub fn verify(key: &hmac::Key, string: &str, signature: &str) -> bool {
    hex::decode(signature).is_ok_and(|tag| hmac::verify(key, string.as_bytes(), &tag).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn scope(service: &str, date: &str) -> Scope {
        Scope { date: date.into(), region: "us-east-1".into(), service: service.into() }
    }
    fn sign(request: &Request<'_>, secret: &str, date: &str, scope: &Scope) -> String {
        let string = string_to_sign(&canonical_request(request, &scope.service), date, scope);
        signature(&signing_key(secret, scope), &string)
    }

    /// "Authenticating Requests: Using the Authorization Header", Amazon S3 API reference.
    #[test]
    fn published_example_s3_get_object_with_range() {
        let headers = [
            ("host", vec!["examplebucket.s3.amazonaws.com"]),
            ("range", vec!["bytes=0-9"]),
            ("x-amz-content-sha256", vec![EMPTY]),
            ("x-amz-date", vec!["20130524T000000Z"]),
        ];
        let request = Request { method: "GET", path: "/test.txt", query: "", headers: &headers, payload: EMPTY };
        assert_eq!(
            sign(&request, SECRET, "20130524T000000Z", &scope("s3", "20130524")),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn published_example_s3_put_object() {
        let payload = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let headers = [
            ("date", vec!["Fri, 24 May 2013 00:00:00 GMT"]),
            ("host", vec!["examplebucket.s3.amazonaws.com"]),
            ("x-amz-content-sha256", vec![payload]),
            ("x-amz-date", vec!["20130524T000000Z"]),
            ("x-amz-storage-class", vec!["REDUCED_REDUNDANCY"]),
        ];
        let request = Request { method: "PUT", path: "/test%24file.text", query: "", headers: &headers, payload };
        assert_eq!(
            sign(&request, SECRET, "20130524T000000Z", &scope("s3", "20130524")),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
    }

    #[test]
    fn published_example_s3_get_bucket_lifecycle_and_list() {
        let headers = [
            ("host", vec!["examplebucket.s3.amazonaws.com"]),
            ("x-amz-content-sha256", vec![EMPTY]),
            ("x-amz-date", vec!["20130524T000000Z"]),
        ];
        let request = Request { method: "GET", path: "/", query: "lifecycle", headers: &headers, payload: EMPTY };
        assert_eq!(
            sign(&request, SECRET, "20130524T000000Z", &scope("s3", "20130524")),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        let request = Request { query: "max-keys=2&prefix=J", ..request };
        assert_eq!(
            sign(&request, SECRET, "20130524T000000Z", &scope("s3", "20130524")),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    /// "Authenticating Requests: Using Query Parameters".
    #[test]
    fn published_example_s3_presigned() {
        let headers = [("host", vec!["examplebucket.s3.amazonaws.com"])];
        let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
                     &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeea";
        let request = Request { method: "GET", path: "/test.txt", query, headers: &headers, payload: "UNSIGNED-PAYLOAD" };
        assert_eq!(
            sign(&request, SECRET, "20130524T000000Z", &scope("s3", "20130524")),
            "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    /// From the Signature Version 4 test suite (`get-vanilla-query-order-key-case`, `get-utf8`, `get-relative`,
    /// `get-header-value-trim`), whose service is called `service`.
    #[test]
    fn published_test_suite() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let date = "20150830T123600Z";
        let scope = scope("service", "20150830");
        let plain = [("host", vec!["example.amazonaws.com"]), ("x-amz-date", vec![date])];
        let get = |path, query| Request { method: "GET", path, query, headers: &plain, payload: EMPTY };
        for (request, expected) in [
            (get("/", ""), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            (get("/", "Param2=value2&Param1=value1"), "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
            (get("/example/..", ""), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            // As the suite writes it: on the wire a path is encoded already, and then is encoded once more.
            (get("/ሴ", ""), "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        ] {
            assert_eq!(sign(&request, secret, date, &scope), expected, "{} {}", request.path, request.query);
        }
        let trim = [
            ("host", vec!["example.amazonaws.com"]),
            ("my-header1", vec![" value1"]),
            ("my-header2", vec![" \"a   b   c\" "]),
            ("x-amz-date", vec![date]),
        ];
        let request = Request { method: "GET", path: "/", query: "", headers: &trim, payload: EMPTY };
        assert_eq!(sign(&request, secret, date, &scope), "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
    }

    #[test]
    fn labels_with_slashes_are_encoded_twice_except_for_s3() {
        assert_eq!(
            canonical_path("/packages/metadata/packageName%2FNAME", "panorama"),
            "/packages/metadata/packageName%252FNAME"
        );
        assert_eq!(canonical_path("/b/a%20b", "s3"), "/b/a%20b");
        assert_eq!(canonical_path("/b//x/../y", "s3"), "/b//x/../y");
    }

    #[test]
    fn a_signature_that_differs_in_one_digit_does_not_verify() {
        let key = signing_key(SECRET, &scope("s3", "20130524"));
        let good = signature(&key, "text");
        assert!(verify(&key, "text", &good));
        assert!(!verify(&key, "texu", &good));
        let first = if good.starts_with('0') { "1" } else { "0" };
        assert!(!verify(&key, "text", &format!("{first}{}", &good[1..])));
        assert!(!verify(&key, "text", ""));
    }
}
