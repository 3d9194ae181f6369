//! AWS Signature Version 4, the signing side, for the few requests of the agent: no query strings, one body.
//!
//! The steps are those of "Create a signed AWS API request" in the IAM user guide.

use crate::time::amz_date;
use belvedere_device_protocol::credentials::Credentials;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What is signed.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// `GET`, `POST`.
    pub method: &'a str,
    /// `host:port` as in the `Host` header.
    pub host: &'a str,
    /// Path, not encoded yet.
    pub path: &'a str,
    /// More headers to sign, names in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// `s3`, `logs`.
    pub service: &'a str,
    /// Signing region.
    pub region: &'a str,
}

/// SHA-256 in hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// A path with everything but `A-Z a-z 0-9 - . _ ~ /` encoded, once (what S3 signs, and what is sent).
pub fn encode_path(path: &str) -> String {
    path.bytes()
        .map(
            |b| {
                if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) {
                    (b as char).to_string()
                } else {
                    format!("%{b:02X}")
                }
            },
        )
        .collect()
}

/// The headers to add to the request (besides `host` and those of `request.headers`), for `now` in seconds since 1970.
pub fn sign(request: &Request<'_>, credentials: &Credentials, now: i64) -> Vec<(&'static str, String)> {
    let date_time = amz_date(now);
    let date = &date_time[..8];
    let payload = sha256_hex(request.body);
    // 1. The canonical request.
    let mut headers: Vec<(&str, &str)> = vec![
        ("host", request.host),
        ("x-amz-content-sha256", &payload),
        ("x-amz-date", &date_time),
        ("x-amz-security-token", &credentials.session_token),
    ];
    headers.extend(request.headers);
    headers.sort_unstable();
    let signed_headers = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let canonical_headers: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical =
        format!("{}\n{}\n\n{canonical_headers}\n{signed_headers}\n{payload}", request.method, encode_path(request.path));
    // 2. The string to sign.
    let scope = format!("{date}/{}/{}/aws4_request", request.region, request.service);
    let string = format!("AWS4-HMAC-SHA256\n{date_time}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
    // 3. The signature.
    let mut key = mac(format!("AWS4{}", credentials.secret_access_key).as_bytes(), date);
    for part in [request.region, request.service, "aws4_request"] {
        key = mac(&key, part);
    }
    let signature = hex(&mac(&key, &string));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed_headers}, Signature={signature}",
        credentials.access_key_id
    );
    vec![
        ("x-amz-date", date_time),
        ("x-amz-content-sha256", payload),
        ("x-amz-security-token", credentials.session_token.clone()),
        ("authorization", authorization),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_an_independent_implementation() {
        // Made with botocore (S3SigV4Auth, SigV4Auth): see tests/signature-vectors.py.
        let credentials = Credentials {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: "token/with+signs==".into(),
            expiration: String::new(),
        };
        let get = Request {
            method: "GET",
            host: "belvedere.example:8443",
            path: "/bucket/acct/devices/device-a/deployments/application Instance+x.json",
            headers: &[],
            body: b"",
            service: "s3",
            region: "us-east-1",
        };
        let signature = |request: &Request<'_>| {
            let headers = sign(request, &credentials, 1_795_348_800);
            let authorization = headers.into_iter().find(|(name, _)| *name == "authorization").unwrap().1;
            authorization.rsplit_once("Signature=").unwrap().1.to_owned()
        };
        assert_eq!(signature(&get), include_str!("../tests/signature-s3.txt").trim());
        let post = Request {
            method: "POST",
            path: "/",
            headers: &[("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "Logs_20140328.PutLogEvents")],
            body: b"{}",
            service: "logs",
            ..get
        };
        assert_eq!(signature(&post), include_str!("../tests/signature-logs.txt").trim());
    }

    #[test]
    fn paths_are_encoded_once() {
        assert_eq!(encode_path("/a b/ü+~._-/%"), "/a%20b/%C3%BC%2B~._-/%25");
    }
}
