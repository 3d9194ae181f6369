//! What a request says about its own signature, in its headers or its query: nothing breaks the reader, nothing that was
//! not signed is believed, and what was signed is.
#![no_main]

use belvedere_signature::canonical::{Request, canonical_request, decode, encode, signing_key, string_to_sign};
use belvedere_signature::claims::Claims;
use belvedere_signature::{Scope, clock};
use http::request::Parts;
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const DATE: &str = "20150830T123600Z";
const PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// A request from lines: method, target, then `name:value`.
fn parts(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|b| *b == b'\n');
    let method = http::Method::from_bytes(lines.next()?).ok()?;
    let mut builder = http::Request::builder().method(method).uri(lines.next()?);
    for line in lines.take(64) {
        let at = line.iter().position(|b| *b == b':')?;
        builder = builder.header(&line[..at], &line[at + 1..]);
    }
    Some(builder.body(()).ok()?.into_parts().0)
}

/// Signs a request as a client would, and gives it its header.
fn sign(mut parts: Parts, service: &str) -> Option<Parts> {
    parts.headers.remove("authorization");
    parts.headers.insert("host", http::HeaderValue::from_static("localhost"));
    parts.headers.insert("x-amz-date", http::HeaderValue::from_static(DATE));
    parts.headers.insert("x-amz-content-sha256", http::HeaderValue::from_static(PAYLOAD));
    let mut names: Vec<String> = parts.headers.keys().map(|n| n.as_str().to_owned()).collect();
    names.sort();
    let mut headers: Vec<(&str, Vec<&str>)> = Vec::new();
    for name in &names {
        let values = parts.headers.get_all(name).iter().map(|v| v.to_str().ok()).collect::<Option<Vec<_>>>()?;
        headers.push((name, values));
    }
    let scope = Scope { date: "20150830".into(), region: "us-east-1".into(), service: service.into() };
    let request = Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or(""),
        headers: &headers,
        payload: PAYLOAD,
    };
    let text = string_to_sign(&canonical_request(&request, service), DATE, &scope);
    let tag = ring::hmac::sign(&signing_key(SECRET, &scope), text.as_bytes());
    let header = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders={}, Signature={}",
        names.join(";"),
        hex::encode(tag.as_ref())
    );
    parts.headers.insert("authorization", http::HeaderValue::try_from(header).ok()?);
    Some(parts)
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, rest)) = data.split_first() else { return };
    assert_eq!(decode(&encode(rest, b""), false), rest, "what was encoded is decoded to the same");
    let Some(parts) = parts(rest) else { return };
    if let Ok(claims) = Claims::of(&parts) {
        let _ = claims.timely(clock::parse(DATE).unwrap_or_default());
        assert!(claims.verify(&parts, SECRET, &claims.payload).is_err(), "a signature was guessed");
    }
    let service = if mode & 1 == 0 { "s3" } else { "panorama" };
    let names = parts.headers.keys_len();
    let Some(signed) = sign(parts, service) else { return };
    // More headers than anybody signs are refused as such.
    if names > 60 {
        return;
    }
    let claims = Claims::of(&signed).expect("what was signed is understood");
    assert_eq!(claims.timely(clock::parse(DATE).unwrap_or_default()), Ok(()));
    assert!(claims.verify(&signed, SECRET, PAYLOAD).is_ok(), "what was signed is believed");
    assert!(claims.verify(&signed, "another secret", PAYLOAD).is_err());
});
