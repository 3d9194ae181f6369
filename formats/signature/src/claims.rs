//! What a request says about its own signature: in the `Authorization` header or in its query. Pure.

use crate::Scope;
use crate::canonical::{ALGORITHM, Request, canonical_request, query_pairs, signing_key, string_to_sign, verify};
use crate::clock;
use http::request::Parts;

/// How far a request's clock may be off, seconds.
pub const MAX_SKEW_S: i64 = 15 * 60;
/// Longest life of a presigned request, seconds.
pub const MAX_EXPIRES_S: i64 = 7 * 24 * 3600;

/// A request's words about itself. Nothing in it is believed before [`Claims::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Access key.
    pub access_key_id: String,
    /// Scope.
    pub scope: Scope,
    /// Of a device's keys.
    pub session_token: Option<String>,
    signed_headers: Vec<String>,
    signature: String,
    amz_date: String,
    /// Seconds after `amz_date`; presigned requests only.
    expires: Option<i64>,
    /// `x-amz-content-sha256`, or what stands for it.
    pub payload: String,
}

/// Why a request is not what it says. Words as AWS has them, so that tools know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Neither header nor query.
    Missing,
    /// Not understood.
    Malformed,
    /// No such key.
    UnknownKey,
    /// A token that is not ours, or has ended.
    BadToken,
    /// The clock is off.
    Skewed,
    /// A presigned request after its time.
    Expired,
    /// The signature is of something else.
    Mismatch,
    /// The signature does not cover a header that it must.
    Uncovered,
    /// The very request was taken already.
    Replayed,
    /// Signed in another way than [`ALGORITHM`]: with Signature Version 2, such as boto3 presigns for S3 by itself, or 4A.
    OtherVersion,
}

fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name).and_then(|v| v.to_str().ok())
}

impl Claims {
    /// Reads a request's claims.
    pub fn of(parts: &Parts) -> Result<Claims, Denied> {
        let query = parts.uri.query().unwrap_or("");
        match header(parts, "authorization") {
            Some(text) => Claims::from_header(parts, text),
            None if query.contains("X-Amz-Algorithm=") => Claims::from_query(parts, query),
            None if is_version_2(query) => Err(Denied::OtherVersion),
            None => Err(Denied::Missing),
        }
    }

    /// What is signed of the body: its hash, or for S3 a word that says that none is. Everywhere else the hash is always
    /// that of the body which comes (empty here): a word would let whoever has a presigned address add a body to it.
    fn payload_of(service: &str, said: Option<&str>, unsaid: &str) -> String {
        match said {
            _ if service != "s3" && said.is_none_or(|p| p.len() != 64) => String::new(),
            Some(said) => said.to_owned(),
            None => unsaid.to_owned(),
        }
    }

    fn from_header(parts: &Parts, text: &str) -> Result<Claims, Denied> {
        if text.starts_with("AWS ") || text.starts_with("AWS4-ECDSA-P256-SHA256") {
            return Err(Denied::OtherVersion);
        }
        let fields = text.strip_prefix(ALGORITHM).filter(|r| r.starts_with(' ')).ok_or(Denied::Malformed)?;
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field.trim().split_once('=').ok_or(Denied::Malformed)?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return Err(Denied::Malformed),
            };
            if slot.replace(value).is_some() {
                return Err(Denied::Malformed);
            }
        }
        let (access_key_id, scope) = credential_scope(credential.ok_or(Denied::Malformed)?)?;
        let amz_date = header(parts, "x-amz-date").ok_or(Denied::Malformed)?.to_owned();
        let payload = Claims::payload_of(&scope.service, header(parts, "x-amz-content-sha256"), "");
        Ok(Claims {
            access_key_id,
            scope,
            session_token: header(parts, "x-amz-security-token").map(str::to_owned),
            signed_headers: signed_headers(signed.ok_or(Denied::Malformed)?)?,
            signature: signature.ok_or(Denied::Malformed)?.to_owned(),
            amz_date,
            expires: None,
            payload,
        })
    }

    fn from_query(parts: &Parts, query: &str) -> Result<Claims, Denied> {
        let pairs = query_pairs(query);
        let one = |name: &str| -> Result<Option<String>, Denied> {
            let mut values = pairs.iter().filter(|(n, _)| n == name.as_bytes());
            let value = values.next().map(|(_, v)| String::from_utf8(v.clone()));
            if values.next().is_some() {
                return Err(Denied::Malformed);
            }
            value.transpose().map_err(|_| Denied::Malformed)
        };
        let need = |name: &str| one(name)?.ok_or(Denied::Malformed);
        if need("X-Amz-Algorithm")? != ALGORITHM {
            return Err(Denied::OtherVersion);
        }
        let (access_key_id, scope) = credential_scope(&need("X-Amz-Credential")?)?;
        let expires: i64 = need("X-Amz-Expires")?.parse().map_err(|_| Denied::Malformed)?;
        if !(1..=MAX_EXPIRES_S).contains(&expires) {
            return Err(Denied::Malformed);
        }
        // In a header, or, as some SDKs presign, in the address.
        let in_query = one("X-Amz-Content-Sha256")?;
        let said = header(parts, "x-amz-content-sha256").or(in_query.as_deref());
        let payload = Claims::payload_of(&scope.service, said, "UNSIGNED-PAYLOAD");
        Ok(Claims {
            access_key_id,
            scope,
            session_token: one("X-Amz-Security-Token")?,
            signed_headers: signed_headers(&need("X-Amz-SignedHeaders")?)?,
            signature: need("X-Amz-Signature")?,
            amz_date: need("X-Amz-Date")?,
            expires: Some(expires),
            payload,
        })
    }

    /// What tells this request from others: the beginning of its signature, and whether no two rightly have the same. It is
    /// so where the signature covers the name that SDKs give to every attempt of every call; elsewhere a caller may ask
    /// the same twice within the second that is signed. `None` for presigned requests, which are made to be used again.
    pub fn fingerprint(&self) -> Option<([u8; 16], bool)> {
        if self.expires.is_some() {
            return None;
        }
        let named =
            ["amz-sdk-invocation-id", "amz-sdk-request"].iter().all(|name| self.signed_headers.iter().any(|h| h == name));
        let mut bytes = [0; 16];
        hex::decode_to_slice(self.signature.get(..32)?, &mut bytes).ok()?;
        Some((bytes, named))
    }

    /// Whether the request is in time at `now` (seconds since 1970).
    pub fn timely(&self, now: i64) -> Result<(), Denied> {
        let signed = clock::parse(&self.amz_date).ok_or(Denied::Malformed)?;
        if !self.amz_date.starts_with(&self.scope.date) {
            return Err(Denied::Malformed);
        }
        match self.expires {
            None if (now - signed).abs() > MAX_SKEW_S => Err(Denied::Skewed),
            Some(_) if signed - now > MAX_SKEW_S => Err(Denied::Skewed),
            Some(life) if now > signed + life => Err(Denied::Expired),
            _ => Ok(()),
        }
    }

    /// Whether the signature is that of this request under `secret`. `payload` is [`Claims::payload`], or the body's
    /// real SHA-256 where the request does not say it.
    pub fn verify(&self, parts: &Parts, secret: &str, payload: &str) -> Result<SeedSignature, Denied> {
        let covered = |name: &str| self.signed_headers.iter().any(|h| h == name);
        // What decides about the request must be signed: who it is for, and every x-amz header that is there.
        let amz = parts.headers.keys().filter(|n| n.as_str().starts_with("x-amz-"));
        if !covered("host") || amz.into_iter().any(|n| !covered(n.as_str())) {
            return Err(Denied::Uncovered);
        }
        let authority = parts.uri.authority().map(|a| a.as_str());
        let mut headers: Vec<(&str, Vec<&str>)> = Vec::new();
        for name in &self.signed_headers {
            let mut values: Vec<&str> = parts
                .headers
                .get_all(name)
                .iter()
                // Metadata may be UTF-8: signed as it is, and what becomes of it is not decided here.
                .map(|v| std::str::from_utf8(v.as_bytes()).map_err(|_| Denied::Malformed))
                .collect::<Result<_, _>>()?;
            if values.is_empty() && name == "host" {
                values.extend(authority);
            }
            if values.is_empty() {
                return Err(Denied::Mismatch);
            }
            headers.push((name, values));
        }
        let request = Request {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or(""),
            headers: &headers,
            payload,
        };
        let string = string_to_sign(&canonical_request(&request, &self.scope.service), &self.amz_date, &self.scope);
        let key = signing_key(secret, &self.scope);
        match verify(&key, &string, &self.signature) {
            true => Ok(SeedSignature {
                key,
                signature: self.signature.clone(),
                amz_date: self.amz_date.clone(),
                scope: self.scope.clone(),
            }),
            false => Err(Denied::Mismatch),
        }
    }
}

/// A verified signature, with what is needed to verify the chunks of a body that follow it.
#[derive(Clone)]
pub struct SeedSignature {
    pub(crate) key: ring::hmac::Key,
    pub(crate) signature: String,
    pub(crate) amz_date: String,
    pub(crate) scope: Scope,
}

impl SeedSignature {
    /// Of a request that is known to be right.
    pub fn new(key: ring::hmac::Key, signature: &str, amz_date: &str, scope: Scope) -> SeedSignature {
        SeedSignature { key, signature: signature.into(), amz_date: amz_date.into(), scope }
    }

    /// What is signed of a chunk whose content has this SHA-256 and which follows this signature.
    pub(crate) fn chunk_text(&self, before: &str, hash: &str) -> String {
        let nothing = crate::canonical::sha256(b"");
        format!("AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{before}\n{nothing}\n{hash}", self.amz_date, self.scope)
    }

    /// The signature of such a chunk, as a client makes it.
    pub fn next(&self, before: &str, hash: &str) -> String {
        hex::encode(ring::hmac::sign(&self.key, self.chunk_text(before, hash).as_bytes()).as_ref())
    }
}

/// Whether a query holds a signature of version 2: S3's form, or that of the query services.
fn is_version_2(query: &str) -> bool {
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    has("AWSAccessKeyId") && has("Signature")
}

fn credential_scope(text: &str) -> Result<(String, Scope), Denied> {
    let fields: Vec<&str> = text.split('/').collect();
    match fields[..] {
        [key, date, region, service, "aws4_request"]
            if is_key(key) && is_date(date) && is_name(region) && is_name(service) =>
        {
            let scope = Scope { date: date.into(), region: region.into(), service: service.into() };
            Ok((key.to_owned(), scope))
        }
        _ => Err(Denied::Malformed),
    }
}

/// What stands in keys that anybody gives out.
fn is_key(key: &str) -> bool {
    (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_date(date: &str) -> bool {
    date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit())
}

/// `us-east-1`, `s3`: whatever a reader makes of a scope, nothing in it is more than a word.
fn is_name(word: &str) -> bool {
    (1..=64).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn signed_headers(text: &str) -> Result<Vec<String>, Denied> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    let sorted = names.windows(2).all(|w| w[0] < w[1]);
    let lower = names.iter().all(|n| !n.is_empty() && !n.bytes().any(|b| b.is_ascii_uppercase()));
    if sorted && lower && names.len() <= 64 { Ok(names) } else { Err(Denied::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().method("GET").uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }
    const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
        SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    fn vanilla(extra: &[(&str, &str)]) -> Parts {
        let base = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z"), ("authorization", AUTHORIZATION)];
        parts("/", &[&base[..], extra].concat())
    }

    #[test]
    fn the_vanilla_request_of_the_test_suite_verifies_and_a_changed_one_does_not() {
        let parts = vanilla(&[]);
        let claims = Claims::of(&parts).unwrap();
        assert_eq!(claims.scope.service, "service");
        assert!(claims.verify(&parts, SECRET, EMPTY).is_ok());
        assert_eq!(claims.verify(&parts, "another secret", EMPTY).err(), Some(Denied::Mismatch));
        assert_eq!(claims.verify(&parts, SECRET, "another body").err(), Some(Denied::Mismatch));
        let unsigned = vanilla(&[("x-amz-acl", "public-read")]);
        assert_eq!(claims.verify(&unsigned, SECRET, EMPTY).err(), Some(Denied::Uncovered));
    }

    #[test]
    fn requests_are_good_for_fifteen_minutes() {
        let claims = Claims::of(&vanilla(&[])).unwrap();
        let signed = clock::parse("20150830T123600Z").unwrap();
        assert_eq!(claims.timely(signed + MAX_SKEW_S), Ok(()));
        assert_eq!(claims.timely(signed + MAX_SKEW_S + 1), Err(Denied::Skewed));
        assert_eq!(claims.timely(signed - MAX_SKEW_S - 1), Err(Denied::Skewed));
    }

    #[test]
    fn the_published_presigned_request_verifies_until_it_expires() {
        let uri = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        let parts = parts(uri, &[("host", "examplebucket.s3.amazonaws.com")]);
        let claims = Claims::of(&parts).unwrap();
        assert!(claims.verify(&parts, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", &claims.payload).is_ok());
        let signed = clock::parse("20130524T000000Z").unwrap();
        assert_eq!(claims.timely(signed + 86_400), Ok(()));
        assert_eq!(claims.timely(signed + 86_401), Err(Denied::Expired));
    }

    #[test]
    fn only_what_is_signed_with_a_name_of_its_own_is_unique() {
        let first = [0x5f, 0xa0, 0x0f];
        let (bytes, unique) = Claims::of(&vanilla(&[])).unwrap().fingerprint().unwrap();
        assert_eq!((&bytes[..3], unique), (&first[..], false));
        let named = AUTHORIZATION.replace("SignedHeaders=host", "SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;host");
        let parts = parts("/", &[("x-amz-date", "20150830T123600Z"), ("authorization", &named)]);
        assert!(Claims::of(&parts).unwrap().fingerprint().unwrap().1);
        let unsigned = vanilla(&[("amz-sdk-invocation-id", "x"), ("amz-sdk-request", "attempt=1")]);
        assert!(!Claims::of(&unsigned).unwrap().fingerprint().unwrap().1);
    }

    /// Field case "Signature Version 2": refused for what it is.
    #[test]
    fn another_version_of_the_signature_is_known() {
        for uri in [
            "/b/k?AWSAccessKeyId=AKIA&Signature=x%3D&Expires=1",
            "/?Action=x&AWSAccessKeyId=AKIA&SignatureVersion=2&Signature=x",
        ] {
            assert_eq!(Claims::of(&parts(uri, &[])).err(), Some(Denied::OtherVersion), "{uri}");
        }
        assert_eq!(Claims::of(&parts("/?NotAWSAccessKeyId=x&Signature=x", &[])).err(), Some(Denied::Missing));
        let a = "/?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256&X-Amz-Credential=x";
        assert_eq!(Claims::of(&parts(a, &[])).err(), Some(Denied::OtherVersion));
        for text in ["AWS AKIA:x", "AWS4-ECDSA-P256-SHA256 Credential=x"] {
            assert_eq!(Claims::of(&parts("/", &[("authorization", text)])).err(), Some(Denied::OtherVersion), "{text}");
        }
    }

    #[test]
    fn only_s3_has_bodies_that_are_not_signed() {
        let presigned = |service: &str, more: &str| {
            let uri = format!(
                "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20150830%2Fus-east-1%2F{service}%2Faws4_request\
                 &X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00{more}"
            );
            Claims::of(&parts(&uri, &[])).unwrap().payload
        };
        assert_eq!(presigned("s3", ""), "UNSIGNED-PAYLOAD");
        assert_eq!(presigned("sts", ""), "", "the hash of the body that comes");
        assert_eq!(presigned("sts", "&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD"), "");
        assert_eq!(presigned("s3", &format!("&X-Amz-Content-Sha256={EMPTY}")), EMPTY);
        assert_eq!(presigned("sts", &format!("&X-Amz-Content-Sha256={EMPTY}")), EMPTY);
        let header = vanilla(&[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]);
        assert_eq!(Claims::of(&header).unwrap().payload, "");
    }

    #[test]
    fn service_d1_a_scope_holds_words_and_nothing_that_reaches_into_other_names() {
        let scope = |text: &str| credential_scope(text).map(|(_, scope)| scope.region).ok();
        assert_eq!(scope("AKID/20261128/us-east-1/logs/aws4_request").as_deref(), Some("us-east-1"));
        for bad in [
            "AKID/20261128/us-east-1:123456789012:log-group:mine/logs/aws4_request",
            "AKID/20261128/*/logs/aws4_request",
            "AKID/20261128/us-east-1/logs:x/aws4_request",
            "AK:ID/20261128/us-east-1/logs/aws4_request",
            "AKID/2026112x/us-east-1/logs/aws4_request",
            "AKID/20261128//logs/aws4_request",
            "AKID/20261128/us east/logs/aws4_request",
            "AKID/20261128/us-east-1/lo\ngs/aws4_request",
        ] {
            assert_eq!(scope(bad), None, "{bad}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Claims::of(&parts("/", &[])).err(), Some(Denied::Missing));
        for text in ["", "Basic x", "AWS4-HMAC-SHA256 x", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=1"]
        {
            let parts = parts("/", &[("authorization", text), ("x-amz-date", "20150830T123600Z")]);
            assert_eq!(Claims::of(&parts).err(), Some(Denied::Malformed), "{text}");
        }
    }
}
