//! What a device publishes: updates of shadows, requests of provisioning, messages about jobs. A device is trusted with
//! nothing but its own state, so none of this may break the service or grow without bound.
#![no_main]

use belvedere_device_protocol::provisioning::{CreateFromCsr, RegisterThing};
use belvedere_device_protocol::{ApplicationReport, jobs};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

// The rules of shadows are pure and lie beside the code that stores them; taken in by path, they come without the
// database and the broker, which would be compiled with the fuzzer's instrumentation for minutes.
#[path = "../../service/fleet/src/shadow.rs"]
#[allow(dead_code)]
mod shadow;

use shadow::{Document, MAX_DOCUMENT, Update, apply, delta, parse_update};

/// Updates one after the other, as a device or an application sends them.
fn shadows(data: &[u8]) {
    let mut document = Document::default();
    for payload in data.split(|b| *b == b'\n').take(32) {
        let Ok(update) = parse_update(payload) else { continue };
        let Ok(after) = apply(&document, &update, 7, MAX_DOCUMENT) else { continue };
        assert!(serde_json::to_vec(&after.state).is_ok_and(|v| v.len() <= MAX_DOCUMENT), "a document is too large");
        // Twice is once.
        assert_eq!(apply(&after, &update, 7, MAX_DOCUMENT).map(|d| d.state), Ok(after.state.clone()));
        if let Some(difference) = delta(&after) {
            let desired = after.state.get("desired").and_then(Value::as_object);
            assert!(desired.is_some_and(|d| difference.keys().all(|k| d.contains_key(k))), "a delta of what nobody wants");
            // A device that does all that is wanted is left alone.
            let mut half = Map::new();
            half.insert("reported".into(), Value::Null);
            let nothing = Update { state: half.clone(), version: None, client_token: None };
            half.insert("reported".into(), after.state["desired"].clone());
            let all = Update { state: half, version: None, client_token: None };
            let done = apply(&after, &nothing, 8, usize::MAX).and_then(|d| apply(&d, &all, 9, usize::MAX));
            assert_eq!(done.map(|d| delta(&d)), Ok(None), "there is still a delta");
        }
        document = after;
    }
}

fn read<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(payload: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(payload).ok()?;
    let again = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&again).ok().as_ref(), Some(&value), "and is the same");
    Some(value)
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, payload)) = data.split_first() else { return };
    match mode % 4 {
        0 => shadows(payload),
        1 => {
            read::<jobs::GetNext>(payload);
            read::<jobs::Update>(payload);
        }
        2 => {
            read::<RegisterThing>(payload);
            read::<ApplicationReport>(payload);
        }
        _ => {
            // A request for a certificate, as the authority reads it.
            let pem = read::<CreateFromCsr>(payload).map(|r| r.certificate_signing_request);
            let pem = pem.or_else(|| String::from_utf8(payload.to_vec()).ok());
            if let Some(pem) = pem.filter(|p| p.len() <= 16 * 1024) {
                let _ = rcgen::CertificateSigningRequestParams::from_pem(&pem);
            }
            let _ = rcgen::CertificateSigningRequestParams::from_der(&payload.into());
        }
    }
});
