//! The model as a document that AWS's tools read (`aws configure add-model`): the service's own description of itself,
//! made from the tables that requests are checked against.

use super::Signature;
use super::errors::{ERRORS, ModelError, of};
use super::operations::ALL;
use crate::model::{At, MANY, Member, Shape, Text};
use serde_json::{Map, Value, json};

/// Version of the API.
const API_VERSION: &str = "2019-07-24";
/// What a shape without a name would be called.
const UNNAMED: &str = "Unnamed";

/// The whole document, in the form that botocore calls `service-2`.
pub fn document() -> Value {
    let mut shapes = Map::new();
    let operations: Map<String, Value> =
        ALL.iter().map(|signature| (signature.name.to_owned(), operation(signature, &mut shapes))).collect();
    for error in &ERRORS {
        let described = exception(error, &mut shapes);
        shapes.insert(error.name.into(), described);
    }
    json!({
        "version": "2.0",
        "metadata": {
            "apiVersion": API_VERSION,
            "endpointPrefix": "panorama",
            "jsonVersion": "1.1",
            "protocol": "rest-json",
            "protocols": ["rest-json"],
            "serviceAbbreviation": "Panorama",
            "serviceFullName": "Belvedere, answering as AWS Panorama",
            "serviceId": "Panorama",
            "signatureVersion": "v4",
            "signingName": "panorama",
            "uid": format!("panorama-{API_VERSION}"),
        },
        "documentation": "Manages a fleet of computer-vision appliances.",
        "operations": operations,
        "shapes": shapes,
    })
}

fn operation(signature: &Signature, shapes: &mut Map<String, Value>) -> Value {
    let (input, output) = (format!("{}Request", signature.name), format!("{}Response", signature.name));
    for (name, members) in [(&input, signature.input), (&output, signature.output)] {
        let described = structure(members, shapes);
        shapes.insert(name.clone(), described);
    }
    let errors: Vec<Value> = signature.errors.chars().filter_map(of).map(|e| json!({ "shape": e.name })).collect();
    json!({
        "name": signature.name,
        "documentation": signature.about,
        "http": { "method": signature.method, "requestUri": signature.path, "responseCode": 200 },
        "input": { "shape": input },
        "output": { "shape": output },
        "errors": errors,
    })
}

fn exception(error: &ModelError, shapes: &mut Map<String, Value>) -> Value {
    let mut described = structure(error.members, shapes);
    described["exception"] = true.into();
    described["documentation"] = error.about.into();
    described["error"] = json!({ "httpStatusCode": error.status });
    match error.status {
        500.. => described["fault"] = true.into(),
        _ => described["error"]["senderFault"] = true.into(),
    }
    described
}

fn structure(members: &[Member], shapes: &mut Map<String, Value>) -> Value {
    let mut all = Map::new();
    for member in members {
        let mut entry = json!({ "shape": reference(&member.shape, shapes) });
        let place = match member.at {
            At::Body => None,
            At::Path => Some(("uri", member.name)),
            At::Query(wire) => Some(("querystring", wire)),
            At::Header(wire) => Some(("header", wire)),
        };
        if let Some((location, wire)) = place {
            entry["location"] = location.into();
            entry["locationName"] = wire.into();
        }
        all.insert(member.name.into(), entry);
    }
    let required: Vec<&str> = members.iter().filter(|m| m.required).map(|m| m.name).collect();
    let mut described = json!({ "type": "structure", "members": all });
    if !required.is_empty() {
        described["required"] = required.into();
    }
    described
}

/// Describes a shape and all that it is made of; its name. A test sees to it that all have one.
fn reference(shape: &Shape, shapes: &mut Map<String, Value>) -> String {
    let (name, sensitive) = match shape {
        Shape::Named(named) => (named.name.to_owned(), named.sensitive),
        _ => (UNNAMED.to_owned(), false),
    };
    if !shapes.contains_key(&name) {
        let mut described = describe(shape.bare(), shapes);
        if sensitive {
            described["sensitive"] = true.into();
        }
        shapes.insert(name.clone(), described);
    }
    name
}

fn describe(shape: &Shape, shapes: &mut Map<String, Value>) -> Value {
    match shape {
        Shape::Text(Text { min, max, pattern }) => {
            let mut described = bounded(json!({ "type": "string" }), *min, *max);
            if let Some(pattern) = pattern {
                described["pattern"] = (*pattern).into();
            }
            described
        }
        Shape::Word(words) => json!({ "type": "string", "enum": words }),
        Shape::Integer(min, max) if (*min, *max) == (i64::from(i32::MIN), i64::from(i32::MAX)) => {
            json!({ "type": "integer" })
        }
        Shape::Integer(min, max) => json!({ "type": "integer", "min": min, "max": max }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Double => json!({ "type": "double" }),
        Shape::Timestamp => json!({ "type": "timestamp" }),
        Shape::Blob => json!({ "type": "blob" }),
        Shape::List(inner, min, max) => {
            bounded(json!({ "type": "list", "member": { "shape": reference(inner, shapes) } }), *min, *max)
        }
        Shape::Map(key, value, max) => {
            let (key, value) = (reference(key, shapes), reference(value, shapes));
            bounded(json!({ "type": "map", "key": { "shape": key }, "value": { "shape": value } }), 0, *max)
        }
        Shape::Structure(members) => structure(members, shapes),
        Shape::Union(members) => {
            let mut described = structure(members, shapes);
            described["union"] = true.into();
            described
        }
        Shape::Named(named) => describe(&named.shape, shapes),
    }
}

/// Bounds where there are any. A client checks the minima by itself.
fn bounded(mut described: Value, min: usize, max: usize) -> Value {
    if (min, max) != (0, MANY) {
        described["min"] = min.into();
    }
    if max != MANY {
        described["max"] = max.into();
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_a_name_and_every_reference_leads_somewhere() {
        let document = document();
        let shapes = document["shapes"].as_object().unwrap();
        assert!(!shapes.contains_key(UNNAMED));
        assert_eq!(document["operations"].as_object().unwrap().len(), 34);
        for (name, shape) in shapes {
            let inner = ["member", "key", "value"].iter().filter_map(|k| shape.get(k));
            let members = shape.get("members").and_then(Value::as_object).into_iter().flat_map(|m| m.values());
            for reference in inner.chain(members) {
                assert!(shapes.contains_key(reference["shape"].as_str().unwrap()), "{name}: {reference}");
            }
        }
        for operation in document["operations"].as_object().unwrap().values() {
            assert!(operation["errors"].as_array().unwrap().len() >= 2, "{operation}");
        }
    }

    #[test]
    fn constraints_are_said_as_clients_read_them() {
        let document = document();
        assert_eq!(document["shapes"]["MaxSize25"], json!({ "type": "integer", "min": 0, "max": 25 }));
        assert_eq!(
            document["shapes"]["TemplateValue"],
            json!({ "type": "string", "min": 1, "max": 255, "sensitive": true })
        );
        assert_eq!(document["shapes"]["String"], json!({ "type": "string" }));
        let tags = &document["shapes"]["UntagResourceRequest"];
        assert_eq!(tags["required"], json!(["ResourceArn", "TagKeys"]));
        assert_eq!(
            tags["members"]["TagKeys"],
            json!({ "shape": "TagKeyList", "location": "querystring", "locationName": "tagKeys" })
        );
        assert_eq!(document["shapes"]["InternalServerException"]["fault"], true);
        assert_eq!(document["shapes"]["ManifestPayload"]["union"], true);
    }
}
