//! Documents of the API before anything is known of them but their size: CBOR, JSON, and the fields of forms.
#![no_main]

use http::Request;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

// Taken in by path, they come without the database.
mod sigv4 {
    pub use belvedere_signature::{canonical, clock};
}
#[path = "../../service/api/src/form.rs"]
#[allow(dead_code)]
mod form;
#[path = "../../service/api/src/model.rs"]
#[allow(dead_code)]
mod model;
mod query {
    pub use crate::form::Form;
}
#[allow(dead_code)]
mod wire {
    /// What an operation answers; only its writer needs it.
    pub enum Output {
        Text(String),
        Integer(i64),
        Number(f64),
        Boolean(bool),
        Time(i64),
        List(Vec<Output>),
        Structure(Vec<(&'static str, Output)>),
    }
    #[path = "../../../service/api/src/wire/cbor.rs"]
    pub mod cbor;
    #[path = "../../../service/api/src/wire/json.rs"]
    pub mod json;
    #[path = "../../../service/api/src/wire/query.rs"]
    pub mod query;
}

use model::{Member, Shape, Text, check};

static TEXT: Text = Text { min: 0, max: 64, pattern: None };
static INNER: &[Member] =
    &[Member::required("Name", Shape::Text(&TEXT)), Member::optional("Value", Shape::Double), Member::optional("At", Shape::Timestamp)];
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
