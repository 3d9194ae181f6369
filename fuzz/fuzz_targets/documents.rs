//! Documents of the API before anything is known of them but their size: CBOR, JSON, and the fields of forms.
#![no_main]

use belvedere_api::model::{Member, Shape, Text, check};
use belvedere_api::{form, wire};
use http::Request;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static TEXT: Text = Text { min: 0, max: 64, pattern: None };
static INNER: &[Member] = &[
    Member::required("Name", Shape::Text(&TEXT)),
    Member::optional("Value", Shape::Double),
    Member::optional("At", Shape::Timestamp),
];
static MEMBERS: &[Member] = &[
    Member::required("Name", Shape::Text(&TEXT)),
    Member::optional("Flag", Shape::Boolean),
    Member::optional("Count", Shape::Integer(0, 9)),
    Member::optional("Items", Shape::List(&Shape::Structure(INNER), 0, 99)),
];

fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(members) => members.values().map(values).sum(),
        _ => 0,
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, bytes)) = data.split_first() else { return };
    match mode % 3 {
        0 => {
            if let Ok(value) = wire::cbor::read(bytes) {
                assert!(values(&value) <= bytes.len().max(1), "more values than bytes");
                if let Value::Object(input) = &value {
                    check(MEMBERS, input);
                }
            }
        }
        1 => {
            if let Ok(input) = wire::json::read(bytes) {
                check(MEMBERS, &input);
                assert!(values(&Value::Object(input)) <= wire::json::values(bytes), "more values than were counted");
            }
        }
        _ => {
            let Ok(request) = Request::builder().uri("/").body(()) else { return };
            let Some(form) = form::Form::of(&request.into_parts().0, bytes) else { return };
            let count = form.fields().count();
            assert!(count <= form::fields(bytes), "more fields than were counted");
            if let Ok(input) = wire::query::input(&form, MEMBERS) {
                check(MEMBERS, &input);
            }
            assert!(form.only(&["Name", "Items"]).fields().count() <= count);
        }
    }
});
