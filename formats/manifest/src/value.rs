//! Types of ports, and values of parameters.

use crate::text::{shown, whole};
use serde::{Deserialize, Serialize};

/// What goes through a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortType {
    /// `true` or `false`.
    Boolean,
    /// A 32-bit integer.
    Int32,
    /// A number.
    Float32,
    /// A text.
    String,
    /// Pictures.
    Media,
}

impl PortType {
    /// As documents write it.
    pub fn word(self) -> &'static str {
        match self {
            PortType::Boolean => "boolean",
            PortType::Int32 => "int32",
            PortType::Float32 => "float32",
            PortType::String => "string",
            PortType::Media => "media",
        }
    }

    /// The parameter type of that name.
    pub(crate) fn parameter(word: &str) -> Option<PortType> {
        [PortType::Boolean, PortType::Int32, PortType::Float32, PortType::String].into_iter().find(|t| t.word() == word)
    }

    /// What the schema gives a parameter that has no value.
    pub(crate) fn empty(self) -> Option<Value> {
        match self {
            PortType::Boolean => Some(Value::Boolean(false)),
            PortType::Int32 => Some(Value::Int32(0)),
            PortType::Float32 => Some(Value::Float32(0.0)),
            PortType::String => Some(Value::String(String::new())),
            PortType::Media => None,
        }
    }

    /// Reads a value of this type.
    pub(crate) fn read(self, json: &serde_json::Value) -> Result<Value, String> {
        use serde_json::Value as Json;
        match (self, json) {
            (PortType::Boolean, Json::Bool(value)) => Ok(Value::Boolean(*value)),
            (PortType::String, Json::String(value)) => Ok(Value::String(value.clone())),
            (PortType::Float32, Json::Number(number)) => number
                .as_f64()
                .filter(|value| value.is_finite() && value.abs() <= f64::from(f32::MAX))
                .map(Value::Float32)
                .ok_or_else(|| format!("{number} is not a 32-bit floating point number")),
            (PortType::Int32, Json::Number(number)) => whole(number)
                .and_then(|value| i32::try_from(value).ok())
                .map(Value::Int32)
                .ok_or_else(|| format!("{number} is not a 32-bit integer")),
            _ => {
                let written = match json {
                    Json::String(text) => shown(text),
                    Json::Array(_) => "a list".to_owned(),
                    Json::Object(_) => "an object".to_owned(),
                    other => other.to_string(),
                };
                Err(format!("{written} is not of type {}", self.word()))
            }
        }
    }
}

/// A parameter's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `boolean`.
    Boolean(bool),
    /// `int32`.
    Int32(i32),
    /// `float32`, as precise as the document wrote it.
    Float32(f64),
    /// `string`.
    String(String),
}

impl Value {
    /// Its type.
    pub fn kind(&self) -> PortType {
        match self {
            Value::Boolean(_) => PortType::Boolean,
            Value::Int32(_) => PortType::Int32,
            Value::Float32(_) => PortType::Float32,
            Value::String(_) => PortType::String,
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Boolean(value) => (*value).into(),
            Value::Int32(value) => (*value).into(),
            Value::Float32(value) => (*value).into(),
            Value::String(value) => value.as_str().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_as_precise_as_the_document_wrote_it(number in -f64::from(f32::MAX)..f64::from(f32::MAX), small in -1.0..1.0) {
            for number in [number, small] {
                let read: serde_json::Value = serde_json::from_str(&format!("{number:?}")).unwrap();
                prop_assert_eq!(PortType::Float32.read(&read), Ok(Value::Float32(number)));
            }
        }
    }
}
