//! What mosquitto's dynamic-security plug-in is told: who exists, and what topics each has. Pure.
//!
//! The plug-in is configured with JSON documents at `$CONTROL/dynamic-security/v1`, and keeps what it was told in its own
//! file. A device is one client and one role under its thing name; all devices are in one group, which is how all of them
//! can be made to come again.
//!
//! The plug-in writes its whole file with every change, and stands still meanwhile: a role says only what no pattern can
//! say, which is what may be subscribed to. What may be published and heard is in mosquitto's own file of patterns, which
//! is asked where the plug-in says nothing. It grants every subscription: the group's role refuses those that the
//! device's own does not grant.

use base64::{Engine, prelude::BASE64_STANDARD};
use belvedere_store::identifiers::random;
use serde::Deserialize;
use serde_json::{Value, json};
use std::num::NonZeroU32;

/// Commands go here.
pub(super) const CONTROL: &str = "$CONTROL/dynamic-security/v1";
/// Answers come from here.
pub(super) const ANSWER: &str = "$CONTROL/dynamic-security/v1/response";
/// The service's own user and role.
pub(super) const SERVICE: &str = "belvedere-service";
/// The group of all devices, and its role.
const DEVICES: &str = "belvedere-devices";
/// The plug-in's own number, from its source.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(101).unwrap();

/// What devices ask, as filters: nothing that the service says itself is among them.
pub(super) fn requests(thing: &str) -> Vec<String> {
    let shadows =
        ["", "name/+/"].into_iter().flat_map(|name| ["get", "update", "delete"].map(|o| format!("shadow/{name}{o}")));
    // `+/get` includes `$next/get`.
    let jobs = ["get", "start-next", "+/get", "+/update"].map(|o| format!("jobs/{o}"));
    shadows.chain(jobs).map(|rest| format!("$aws/things/{thing}/{rest}")).collect()
}

/// What the service says to a device.
fn answers(thing: &str) -> Vec<String> {
    let jobs = ["notify", "notify-next", "get/+", "start-next/+", "+/get/+", "+/update/+"].map(|o| format!("jobs/{o}"));
    let shadows = ["shadow/+/+", "shadow/name/+/+/+"].map(str::to_owned);
    shadows.into_iter().chain(jobs).map(|rest| format!("$aws/things/{thing}/{rest}")).collect()
}

/// What a device says to itself and to whoever publishes there.
fn own(thing: &str) -> [String; 2] {
    [format!("panorama/{thing}/#"), format!("belvedere/things/{thing}/#")]
}

fn allowed(kind: &'static str, topics: impl IntoIterator<Item = String>) -> impl Iterator<Item = Value> {
    topics.into_iter().map(move |topic| json!({ "acltype": kind, "topic": topic, "priority": 0, "allow": true }))
}

fn role_of(thing: &str) -> Value {
    let reserved = ["shadow", "jobs"].map(|part| format!("$aws/things/{thing}/{part}/#"));
    let acls: Vec<Value> = allowed("subscribePattern", reserved.into_iter().chain(own(thing))).collect();
    json!({ "rolename": thing, "acls": acls })
}

/// The role of all devices: what their own ones do not grant is refused.
fn role_of_all() -> Value {
    let nothing_else = json!({ "acltype": "subscribePattern", "topic": "#", "priority": 0, "allow": false });
    json!({ "rolename": DEVICES, "acls": [nothing_else] })
}

/// mosquitto's file of patterns: what a client may publish and hear, by its user name.
pub(super) fn patterns() -> String {
    let name = "%u";
    let lines = requests(name).into_iter().map(|topic| ("write", topic));
    let lines = lines.chain(answers(name).into_iter().map(|topic| ("read", topic)));
    let lines = lines.chain(own(name).into_iter().map(|topic| ("readwrite", topic)));
    lines.map(|(access, topic)| format!("pattern {access} {topic}\n")).collect()
}

fn client_of(thing: &str) -> Value {
    json!({
        "username": thing,
        // Nobody else can take a session over by its name.
        "clientid": thing,
        "roles": [{ "rolename": thing }],
        "groups": [{ "groupname": DEVICES }],
    })
}

fn command(name: &str, mut members: Value) -> Value {
    members["command"] = name.into();
    members
}

/// A device may come. Safe to say again.
pub(super) fn admit(thing: &str, password: &str) -> [Value; 2] {
    let mut client = client_of(thing);
    client["password"] = password.into();
    [command("createRole", role_of(thing)), command("createClient", client)]
}

/// A device may not come any more; its connection is cut. Safe to say again.
pub(super) fn dismiss(thing: &str) -> [Value; 2] {
    [command("deleteClient", json!({ "username": thing })), command("deleteRole", json!({ "rolename": thing }))]
}

/// All devices' connections are cut; they come again. (Any change of a group does that.)
pub(super) fn everybody_again() -> Value {
    command("modifyGroup", json!({ "groupname": DEVICES, "textdescription": "Devices of the Belvedere service" }))
}

/// Asks which devices the plug-in knows.
pub(super) fn ask_devices() -> Value {
    command("getGroup", json!({ "groupname": DEVICES }))
}

/// An answer to one command.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Reply {
    /// Of which.
    pub(super) command: String,
    /// What is wrong, if anything is.
    pub(super) error: Option<String>,
    /// What was asked for.
    #[serde(default)]
    pub(super) data: Value,
    #[serde(rename = "correlationData", default)]
    pub(super) correlation: String,
}

impl Reply {
    /// What is wrong, unless things are as they were to become.
    pub(super) fn problem(&self) -> Option<&str> {
        let harmless = matches!(
            (self.command.as_str(), self.error.as_deref()),
            ("createRole", Some("Role already exists"))
                | ("createClient", Some("Client already exists"))
                | ("deleteRole", Some("Role not found"))
                | ("deleteClient", Some("Client not found"))
        );
        self.error.as_deref().filter(|_| !harmless)
    }
}

/// Reads an answer; those that cannot be read say nothing.
pub(super) fn replies(payload: &[u8]) -> Vec<Reply> {
    #[derive(Deserialize)]
    struct Answer {
        responses: Vec<Reply>,
    }
    serde_json::from_slice(payload).map(|answer: Answer| answer.responses).unwrap_or_default()
}

/// The devices of the answer to [`ask_devices`].
pub(super) fn devices(data: &Value) -> Option<Vec<String>> {
    let clients = data.get("group")?.get("clients")?.as_array()?;
    Some(clients.iter().filter_map(|c| c.get("username")?.as_str().map(str::to_owned)).collect())
}

/// A password as the plug-in keeps it: PBKDF2 with SHA-512.
fn hashed(mut client: Value, password: &str) -> Value {
    let (salt, mut hash) = (random::<12>(), [0; 64]);
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA512, ITERATIONS, &salt, password.as_bytes(), &mut hash);
    client["password"] = BASE64_STANDARD.encode(hash).into();
    client["salt"] = BASE64_STANDARD.encode(salt).into();
    client["iterations"] = ITERATIONS.get().into();
    client
}

/// The plug-in's file at its first start: the service, and the devices there are, with their passwords' hashes.
pub(super) fn initial<'a>(password: &str, devices: impl Iterator<Item = (&'a str, String)>) -> Value {
    let service: Vec<Value> =
        allowed("publishClientSend", [CONTROL, "$aws/things/#", "panorama/#", "belvedere/things/#"].map(str::to_owned))
            .chain(allowed("publishClientReceive", [ANSWER, "$aws/things/#", "$SYS/#"].map(str::to_owned)))
            .chain(allowed("subscribePattern", [ANSWER, "$aws/things/#", "$SYS/#"].map(str::to_owned)))
            .collect();
    let mut clients = vec![hashed(json!({ "username": SERVICE, "roles": [{ "rolename": SERVICE }] }), password)];
    let mut roles = vec![json!({ "rolename": SERVICE, "acls": service }), role_of_all()];
    let mut members = Vec::new();
    for (thing, password) in devices {
        clients.push(hashed(client_of(thing), &password));
        roles.push(role_of(thing));
        members.push(json!({ "username": thing }));
    }
    json!({
        "defaultACLAccess": { "publishClientSend": false, "publishClientReceive": false, "subscribe": false, "unsubscribe": true },
        "clients": clients,
        "groups": [{ "groupname": DEVICES, "roles": [{ "rolename": DEVICES }], "clients": members }],
        "roles": roles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::topics::{matches, may_subscribe, publication};
    use belvedere_store::certificates::CertificateKind;

    const THING: &str = "panorama_cam_Thing_1";

    /// What the patterns allow: `write` or `read`.
    fn topics(access: &str) -> Vec<String> {
        let patterns = patterns();
        let lines = patterns.lines().map(|line| line.strip_prefix("pattern ").unwrap().split_once(' ').unwrap());
        lines.filter(|(a, _)| a.contains(access)).map(|(_, topic)| topic.replace("%u", THING)).collect()
    }

    /// What our own broker allows, and nothing else.
    #[test]
    fn a_device_has_the_topics_that_it_has_at_the_service() {
        let me =
            Identity { name: THING.into(), device_id: "d".into(), fingerprint: "f".into(), kind: CertificateKind::Device };
        let may_publish = |topic: &str| topics("write").iter().any(|filter| matches(filter, topic));
        for rest in [
            "$aws/things/T/shadow/get",
            "$aws/things/T/shadow/name/device/update",
            "$aws/things/T/shadow/update/accepted",
            "$aws/things/T/shadow/name/device/update/delta",
            "$aws/things/T/jobs/get",
            "$aws/things/T/jobs/$next/get",
            "$aws/things/T/jobs/device-0/update",
            "$aws/things/T/jobs/notify",
            "$aws/things/T/jobs/device-0/update/accepted",
            "panorama/T",
            "panorama/T/x/y",
            "belvedere/things/T/connection",
            "panorama/other",
            "elsewhere",
            CONTROL,
        ] {
            let topic = rest.replace('T', THING);
            assert_eq!(may_publish(&topic), publication(&me, &topic).is_some(), "{topic}");
            let other = rest.replace('T', "panorama_cam_Thing_11");
            assert!(!may_publish(&other), "{other}");
        }
        let role = role_of(THING);
        let granted: Vec<&str> = role["acls"].as_array().unwrap().iter().map(|a| a["topic"].as_str().unwrap()).collect();
        assert!(granted.len() == 4 && granted.iter().all(|filter| may_subscribe(&me, filter)), "{granted:?}");
        assert_eq!(role_of_all()["acls"][0]["allow"], false);
    }

    #[test]
    fn a_device_hears_answers_and_not_its_own_requests() {
        let hears = |topic: &str| topics("read").iter().any(|f| matches(f, &topic.replace('T', THING)));
        for answer in [
            "$aws/things/T/shadow/get/accepted",
            "$aws/things/T/shadow/update/delta",
            "$aws/things/T/shadow/name/device/update/documents",
            "$aws/things/T/jobs/notify",
            "$aws/things/T/jobs/notify-next",
            "$aws/things/T/jobs/get/accepted",
            "$aws/things/T/jobs/start-next/rejected",
            "$aws/things/T/jobs/$next/get/accepted",
            "$aws/things/T/jobs/device-0/update/rejected",
            "panorama/T/x",
        ] {
            assert!(hears(answer), "{answer}");
        }
        for request in requests(THING) {
            assert!(!hears(&request.replace('+', "x")), "{request}");
        }
    }

    #[test]
    fn answers_are_read_and_what_is_done_already_is_no_problem() {
        let text = br#"{"responses":[{"command":"createRole","error":"Role already exists","correlationData":"7"},
            {"command":"createClient","correlationData":"7"},{"command":"deleteClient","error":"Internal error"}]}"#;
        let read = replies(text);
        assert_eq!(read.iter().map(Reply::problem).collect::<Vec<_>>(), [None, None, Some("Internal error")]);
        assert_eq!(read[0].correlation, "7");
        assert!(replies(b"no JSON").is_empty() && replies(b"{}").is_empty());
        let group = json!({ "group": { "groupname": DEVICES, "clients": [{ "username": "a" }, { "username": "b" }] } });
        assert_eq!(devices(&group).unwrap(), ["a", "b"]);
        assert_eq!(devices(&Value::Null), None);
    }

    #[test]
    fn the_first_file_holds_no_password_in_clear() {
        let file = initial("geheim-1", [(THING, "geheim-2".to_owned())].into_iter());
        let text = file.to_string();
        assert!(!text.contains("geheim") && text.contains(THING), "{text}");
        assert_eq!(file["defaultACLAccess"]["subscribe"], false);
        assert_eq!(file["groups"][0]["clients"][0]["username"], THING);
        let other = initial("geheim-1", std::iter::empty());
        assert_ne!(file["clients"][0]["password"], other["clients"][0]["password"], "each with its own salt");
    }
}
