//! Shadows on topics: what a request does, what is answered, and who else hears of it.

use crate::shadow::{Document, Refused, Update, apply, client_token, delta, limit, metadata_of, parse_update, stamp};
use crate::topics::ShadowOperation;
use crate::{Fleet, FleetError};
use belvedere_device_protocol::shadow::{CLASSIC, topic};
use belvedere_store::now_ms;
use serde_json::{Map, Value, json};

/// Two writers of one shadow are rare (the device and the service): after so many lost races something is wrong.
const ATTEMPTS: usize = 16;

/// A shadow as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadow {
    /// Grows with every change.
    pub version: u64,
    /// The halves; empty if there is none.
    pub document: Document,
    /// Whether there is one.
    pub exists: bool,
}

impl Fleet {
    /// Reads a shadow.
    pub async fn shadow(&self, thing: &str, name: &str) -> Result<Shadow, FleetError> {
        let stored = self.store.shadow(thing, name).await?;
        let document = match &stored.document {
            None => Document::default(),
            Some(text) => serde_json::from_str(text).map_err(|e| FleetError::ShadowRefused {
                thing: thing.into(),
                shadow: name.into(),
                detail: format!("the stored document is damaged: {e}"),
            })?,
        };
        Ok(Shadow { version: stored.version, document, exists: stored.document.is_some() })
    }

    /// The service's own change, heard by the device like anybody's.
    pub async fn update_shadow(&self, thing: &str, name: &str, state: Value) -> Result<(), FleetError> {
        let Value::Object(state) = state else { return Ok(()) };
        let update = Update { state, version: None, client_token: None };
        self.change(thing, name, &update).await?.map(drop).map_err(|r| FleetError::ShadowRefused {
            thing: thing.into(),
            shadow: name.into(),
            detail: r.message,
        })
    }

    /// A device's request on one of its shadows. Answers on the operation's topics.
    pub(crate) async fn shadow_request(
        &self,
        thing: &str,
        name: &str,
        operation: ShadowOperation,
        payload: &[u8],
    ) -> Result<(), FleetError> {
        let word = match operation {
            ShadowOperation::Get => "get",
            ShadowOperation::Update => "update",
            ShadowOperation::Delete => "delete",
        };
        let given: Value = match payload {
            [] => Value::Null,
            _ => serde_json::from_slice(payload).unwrap_or(Value::Null),
        };
        let answer = match operation {
            ShadowOperation::Get => self.get_shadow(thing, name, &given).await?,
            ShadowOperation::Delete => self.delete_shadow(thing, name, &given).await?,
            ShadowOperation::Update => match parse_update(payload) {
                Ok(update) => {
                    let answer = self.change(thing, name, &update).await?;
                    if answer.is_ok() && update.state.contains_key("reported") {
                        self.reported(thing, name).await?;
                    }
                    answer
                }
                Err(refused) => Err(refused),
            },
        };
        if let Err(refused) = answer {
            tracing::info!(
                thing,
                shadow = name,
                operation = word,
                code = refused.code,
                "shadow request refused: {}",
                refused.message
            );
            let mut body = json!({ "code": refused.code, "message": refused.message, "timestamp": seconds() });
            echo(&mut body, given.get("clientToken").and_then(Value::as_str));
            self.publish_json(&topic(thing, name, &format!("{word}/rejected")), &body).await?;
        }
        Ok(())
    }

    async fn get_shadow(&self, thing: &str, name: &str, given: &Value) -> Result<Result<(), Refused>, FleetError> {
        let token = match client_token(given) {
            Ok(token) => token,
            Err(refused) => return Ok(Err(refused)),
        };
        let shadow = self.shadow(thing, name).await?;
        if !shadow.exists {
            return Ok(Err(Refused::new(404, no_shadow(thing, name))));
        }
        let mut state = shadow.document.state.clone();
        if let Some(delta) = delta(&shadow.document) {
            state.insert("delta".into(), Value::Object(delta));
        }
        let mut body = json!({ "state": state, "metadata": shadow.document.metadata, "version": shadow.version, "timestamp": seconds() });
        echo(&mut body, token.as_deref());
        self.publish_json(&topic(thing, name, "get/accepted"), &body).await?;
        Ok(Ok(()))
    }

    async fn delete_shadow(&self, thing: &str, name: &str, given: &Value) -> Result<Result<(), Refused>, FleetError> {
        let token = match client_token(given) {
            Ok(token) => token,
            Err(refused) => return Ok(Err(refused)),
        };
        for _ in 0..ATTEMPTS {
            let shadow = self.shadow(thing, name).await?;
            if !shadow.exists {
                return Ok(Err(Refused::new(404, no_shadow(thing, name))));
            }
            if self.store.replace_shadow(thing, name, shadow.version, None).await? {
                let mut body = json!({ "version": shadow.version, "timestamp": seconds() });
                echo(&mut body, token.as_deref());
                self.publish_json(&topic(thing, name, "delete/accepted"), &body).await?;
                return Ok(Ok(()));
            }
        }
        Err(FleetError::ShadowBusy { thing: thing.into(), shadow: name.into() })
    }

    async fn change(&self, thing: &str, name: &str, update: &Update) -> Result<Result<(), Refused>, FleetError> {
        for _ in 0..ATTEMPTS {
            let before = self.shadow(thing, name).await?;
            if update.version.is_some_and(|v| v != before.version) {
                return Ok(Err(Refused::new(409, "Version conflict")));
            }
            let now = seconds();
            let after = match apply(&before.document, update, now, limit(name)) {
                Ok(after) => after,
                Err(refused) => return Ok(Err(refused)),
            };
            let text = serde_json::to_string(&after).unwrap_or_default();
            if !self.store.replace_shadow(thing, name, before.version, Some(&text)).await? {
                continue;
            }
            for (operation, body) in announcements(update, &before, &after, now) {
                self.publish_json(&topic(thing, name, operation), &body).await?;
            }
            return Ok(Ok(()));
        }
        Err(FleetError::ShadowBusy { thing: thing.into(), shadow: name.into() })
    }

    /// One half of a shadow; an empty object if there is none.
    pub async fn shadow_half(&self, thing: &str, name: &str, half: &str) -> Result<Map<String, Value>, FleetError> {
        let shadow = self.shadow(thing, name).await?;
        Ok(shadow.document.state.get(half).and_then(Value::as_object).cloned().unwrap_or_default())
    }
}

/// What is published after a change: operations and their bodies.
fn announcements(update: &Update, before: &Shadow, after: &Document, now: i64) -> Vec<(&'static str, Value)> {
    let version = before.version + 1;
    let mut all = vec![
        (
            "update/accepted",
            json!({ "state": update.state, "metadata": stamp(&update.state, now), "version": version, "timestamp": now }),
        ),
        (
            "update/documents",
            json!({
                "previous": { "state": before.document.state, "metadata": before.document.metadata, "version": before.version },
                "current": { "state": after.state, "metadata": after.metadata, "version": version },
                "timestamp": now,
            }),
        ),
    ];
    // A device that answers a delta by reporting must not be sent the same delta for its report: that is a circle.
    let differs = delta(after);
    if (update.state.contains_key("desired") || differs != delta(&before.document))
        && let Some(state) = differs
    {
        let desired = after.metadata.get("desired").and_then(Value::as_object);
        let metadata = desired.map(|d| metadata_of(&state, d)).unwrap_or_default();
        let body = json!({ "state": state, "metadata": metadata, "version": version, "timestamp": now });
        all.push(("update/delta", body));
    }
    all.iter_mut().for_each(|(_, body)| echo(body, update.client_token.as_deref()));
    all
}

/// AWS IoT Core names the thing for the classic shadow.
fn no_shadow(thing: &str, name: &str) -> String {
    format!("No shadow exists with name: '{}'", if name == CLASSIC { thing } else { name })
}

fn echo(body: &mut Value, token: Option<&str>) {
    if let (Some(token), Value::Object(map)) = (token, body) {
        map.insert("clientToken".into(), token.into());
    }
}

fn seconds() -> i64 {
    now_ms() / 1000
}
