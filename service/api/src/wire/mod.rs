//! Forms that several services share: AWS's query protocol ([`query`]), CBOR ([`cbor`]), and outputs that are written
//! as XML, JSON or CBOR from one value ([`Output`]).

pub mod cbor;
pub mod json;
pub mod query;

use crate::sigv4::clock::iso8601;
use crate::xml::element;
use serde_json::{Map, Number, Value};
use std::io::Read;

/// What an operation answers, before it is known in which form.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// `true`, `false`.
    Boolean(bool),
    /// Milliseconds since 1970.
    Time(i64),
    /// Items.
    List(Vec<Output>),
    /// Members, in order.
    Structure(Vec<(&'static str, Output)>),
}

impl From<&str> for Output {
    fn from(text: &str) -> Self {
        Output::Text(text.to_owned())
    }
}
impl From<String> for Output {
    fn from(text: String) -> Self {
        Output::Text(text)
    }
}
impl From<bool> for Output {
    fn from(truth: bool) -> Self {
        Output::Boolean(truth)
    }
}
impl From<i64> for Output {
    fn from(number: i64) -> Self {
        Output::Integer(number)
    }
}
impl From<f64> for Output {
    fn from(number: f64) -> Self {
        Output::Number(number)
    }
}
impl<T: Into<Output>> From<Vec<T>> for Output {
    fn from(items: Vec<T>) -> Self {
        Output::List(items.into_iter().map(Into::into).collect())
    }
}

impl Output {
    /// A structure without members.
    pub fn structure() -> Output {
        Output::Structure(Vec::new())
    }

    /// With a member. Only structures have members.
    pub fn with(mut self, name: &'static str, value: impl Into<Output>) -> Output {
        if let Output::Structure(members) = &mut self {
            members.push((name, value.into()));
        }
        self
    }

    /// With a member, if there is one.
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Output>>) -> Output {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// As JSON; times are seconds.
    pub fn json(&self) -> Value {
        match self {
            Output::Text(text) => text.as_str().into(),
            Output::Integer(number) => (*number).into(),
            Output::Number(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
            Output::Boolean(truth) => (*truth).into(),
            Output::Time(ms) => Number::from_f64(*ms as f64 / 1000.0).map_or(Value::Null, Value::Number),
            Output::List(items) => items.iter().map(Output::json).collect(),
            Output::Structure(members) => {
                Value::Object(members.iter().map(|(name, value)| ((*name).to_owned(), value.json())).collect::<Map<_, _>>())
            }
        }
    }

    /// As the inside of an XML element.
    pub fn xml(&self) -> String {
        match self {
            Output::Text(text) => crate::xml::escape(text),
            Output::Integer(number) => number.to_string(),
            Output::Number(number) => format!("{number:?}"),
            Output::Boolean(truth) => truth.to_string(),
            Output::Time(ms) => iso8601(*ms),
            Output::List(items) => items.iter().map(|i| format!("<member>{}</member>", i.xml())).collect(),
            Output::Structure(members) => {
                members.iter().map(|(name, value)| format!("<{name}>{}</{name}>", value.xml())).collect()
            }
        }
    }
}

/// An answer of the query protocol.
pub fn xml_answer(namespace: &str, action: &str, output: &Output, request_id: &str) -> String {
    let result = match output {
        Output::Structure(members) if members.is_empty() => String::new(),
        output => format!("<{action}Result>{}</{action}Result>", output.xml()),
    };
    format!(
        "<{action}Response xmlns=\"{namespace}\">{result}<ResponseMetadata>{}</ResponseMetadata></{action}Response>",
        element("RequestId", request_id)
    )
}

/// An error of the query protocol.
pub fn xml_error(namespace: &str, server: bool, code: &str, message: &str, request_id: &str) -> String {
    let kind = if server { "Receiver" } else { "Sender" };
    format!(
        "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>{kind}</Type>{}{}</Error>{}</ErrorResponse>",
        element("Code", code),
        element("Message", message),
        element("RequestId", request_id)
    )
}

/// Unpacks a body that says it is packed with gzip; `None` if it is not, or holds more than `limit` bytes.
pub fn gunzip(packed: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(packed).take(limit + 1);
    reader.read_to_end(&mut body).ok()?;
    (body.len() as u64 <= limit).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_output_is_the_same_in_each_form() {
        let output = Output::structure()
            .with("Name", "a<b")
            .with("Times", vec![Output::Time(1_369_353_600_500)])
            .with("Number", 1.0)
            .with_some("None", None::<i64>)
            .with("Inner", Output::structure().with("Flag", true).with("Count", 3));
        assert_eq!(
            output.json(),
            serde_json::json!({ "Name": "a<b", "Times": [1369353600.5], "Number": 1.0, "Inner": { "Flag": true, "Count": 3 } })
        );
        let xml = xml_answer("http://n/", "Do", &output, "id");
        assert_eq!(
            xml,
            "<DoResponse xmlns=\"http://n/\"><DoResult><Name>a&lt;b</Name><Times><member>2013-05-24T00:00:00.500Z</member></Times>\
             <Number>1.0</Number><Inner><Flag>true</Flag><Count>3</Count></Inner></DoResult>\
             <ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></DoResponse>"
        );
    }

    #[test]
    fn a_packed_body_is_bounded_by_what_comes_out() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&[0; 10_000]).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(gunzip(&packed, 10_000).unwrap().len(), 10_000);
        assert_eq!(gunzip(&packed, 9_999), None);
        assert_eq!(gunzip(b"not packed", 100), None);
        assert_eq!(gunzip(&packed[..packed.len() - 9], 10_000), None, "cut off");
    }
}
