//! IoT data's Publish: a message for an appliance, as its applications and MQTT clients hear it.
//!
//! Every topic lies in the space of one appliance (`panorama/<thing>/…`, `belvedere/things/<thing>/…`); AWS IoT's
//! reserved topics are the service's own. A topic that nobody could subscribe to is refused, not swallowed.

use crate::Api;
use crate::arn::Home;
use crate::operation::{Ask, one};
use crate::sigv4::canonical::{decode, query_pairs};
use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_fleet::broker::MAX_PAYLOAD;
use belvedere_fleet::message::Message;
use belvedere_fleet::topics::{MAX_SLASHES, MAX_TOPIC, owner};
use belvedere_store::{identifiers, now_ms};
use serde_json::json;

/// Longest life of a message, seconds (AWS IoT Core's limit).
const MAX_EXPIRY_S: i64 = 604_800;

/// An error in this service's form.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "message": message }).to_string();
    (status, [(header::CONTENT_TYPE.as_str(), "application/json"), ("x-amzn-errortype", code)], body).into_response()
}

fn wrong(message: impl AsRef<str>) -> Response {
    error(StatusCode::BAD_REQUEST, "InvalidRequestException", message.as_ref())
}

/// The topic of a publication; `None` if the request is something else.
pub fn topic(parts: &Parts) -> Option<String> {
    let path = parts.uri.path().strip_prefix("/topics/").filter(|_| parts.method == Method::POST)?;
    String::from_utf8(decode(path, false)).ok().filter(|t| !t.is_empty())
}

/// What the query says about a message.
#[derive(Debug, Default, PartialEq)]
struct Options {
    quality: u8,
    retain: bool,
    expiry_s: Option<i64>,
}

impl Options {
    fn of(query: &str) -> Result<Options, String> {
        let mut options = Options::default();
        for (name, value) in query_pairs(query) {
            let (name, value) = (String::from_utf8_lossy(&name), String::from_utf8_lossy(&value));
            match (name.as_ref(), value.as_ref()) {
                ("qos", "0") => options.quality = 0,
                ("qos", "1") => options.quality = 1,
                ("qos", _) => return Err("qos must be 0 or 1".into()),
                ("retain", "true") => options.retain = true,
                ("retain", "false") => options.retain = false,
                ("retain", _) => return Err("retain must be true or false".into()),
                ("messageExpiry", text) => {
                    let expiry = text.parse::<i64>().ok().filter(|s| (0..=MAX_EXPIRY_S).contains(s));
                    options.expiry_s =
                        Some(expiry.ok_or_else(|| format!("messageExpiry must be a number from 0 to {MAX_EXPIRY_S}"))?);
                }
                (other, _) if other.get(..6).is_some_and(|p| p.eq_ignore_ascii_case("x-amz-")) => {}
                (other, _) => return Err(format!("{other} is not supported by this service")),
            }
        }
        Ok(options)
    }
}

fn check(topic: &str) -> Result<&str, String> {
    let name = owner(topic).filter(|_| !topic.starts_with('$')).ok_or_else(|| {
        "messages can be published to panorama/<thing name>/… and belvedere/things/<thing name>/… only".to_owned()
    })?;
    let slashes = topic.bytes().filter(|b| *b == b'/').count();
    if topic.len() > MAX_TOPIC + name.len() || slashes > MAX_SLASHES || topic.contains(['#', '+', '\0']) {
        return Err(format!("a topic has at most {MAX_TOPIC} bytes and {MAX_SLASHES} slashes, and no #, + or zero"));
    }
    Ok(name)
}

/// What is asked before a message goes to a topic.
pub fn asks(topic: &str, home: &Home<'_>) -> Option<Vec<Ask>> {
    one(home.mqtt_topic(topic))
}

/// Answers a request whose topic was read ([`topic`]).
pub async fn answer(api: &Api, parts: &Parts, topic: Option<String>, payload: Bytes) -> Response {
    let Some(topic) = topic else {
        return error(
            StatusCode::NOT_FOUND,
            "ResourceNotFoundException",
            "this service publishes only: POST /topics/<topic>",
        );
    };
    if parts.headers.keys().any(|n| n.as_str().starts_with("x-amz-mqtt5-")) {
        return wrong("properties of MQTT 5 are not supported by this service");
    }
    let options = match Options::of(parts.uri.query().unwrap_or("")) {
        Ok(options) => options,
        Err(message) => return wrong(message),
    };
    let name = match check(&topic) {
        Ok(name) => name,
        Err(message) => return wrong(message),
    };
    if payload.len() > MAX_PAYLOAD {
        return error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLargeException",
            &format!("a message has at most {MAX_PAYLOAD} bytes"),
        );
    }
    let fleet = &api.fleet;
    let published = async {
        if fleet.store.device_of_thing(name).await?.is_none() {
            return Ok(Err(wrong(format!("there is no device with the thing name {name}"))));
        }
        let mut message = Message::new(topic.clone(), payload);
        message.quality = options.quality;
        message.retain = options.retain;
        message.expires_ms = options.expiry_s.map(|s| now_ms() + s * 1000);
        if options.retain && !fleet.retain(&message).await? {
            return Ok(Err(wrong("the device has too many retained messages")));
        }
        fleet.publish(message).await?;
        Ok::<_, belvedere_fleet::FleetError>(Ok(()))
    };
    match published.await {
        Ok(Ok(())) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], r#"{"message":"OK"}"#).into_response(),
        Ok(Err(refused)) => refused,
        Err(e) => {
            let id = identifiers::token::<8>();
            tracing::error!(error_id = id, "{e}");
            error(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailureException", &format!("internal error {id}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_options_are_checked() {
        for good in ["panorama/thing", "panorama/thing/a/b", "belvedere/things/thing/x"] {
            assert_eq!(check(good), Ok("thing"), "{good}");
        }
        for bad in [
            "$aws/things/thing/shadow/update", "other/thing", "panorama/", "panorama/thing/+", "panorama/thing/#",
            "panorama/thing/1/2/3/4/5/6/7",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&format!("panorama/thing/{}", "x".repeat(300))).is_err());
        let all = Options::of("qos=1&retain=true&messageExpiry=60&X-Amz-Date=x").unwrap();
        assert_eq!(all, Options { quality: 1, retain: true, expiry_s: Some(60) });
        for bad in ["qos=2", "retain=yes", "messageExpiry=-1", "messageExpiry=604801", "responseTopic=x"] {
            assert!(Options::of(bad).is_err(), "{bad}");
        }
    }
}
