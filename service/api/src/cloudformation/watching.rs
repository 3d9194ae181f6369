//! Alarms, topics and subscriptions as resources of a stack: their properties as types, and how they come to be.

use super::kinds::{Identity, Tag, typed};
use super::plan::Place;
use super::template::plain;
use crate::arn::Home;
use crate::cloudwatch::{alarms, shapes};
use crate::model::{Member, Shape};
use crate::{Api, cloudwatch, sns};
use belvedere_store::notifications::{NewSubscription, Subscribed};
use belvedere_store::stacks::StackResource;
use belvedere_store::{StoreError, identifiers};
use belvedere_watch::alarms as watched;
use belvedere_watch::definition::{Definition, topic_of};
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// An alarm.
pub const ALARM: &str = "AWS::CloudWatch::Alarm";
/// A topic.
pub const TOPIC: &str = "AWS::SNS::Topic";
/// A subscription.
pub const SUBSCRIPTION: &str = "AWS::SNS::Subscription";

/// `AWS::SNS::Topic`. As in SNS itself, the name to be shown and tags are taken and have no effect.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[allow(missing_docs)] // the names are CloudFormation's
pub struct TopicProperties {
    pub topic_name: Option<String>,
    pub display_name: Option<String>,
    #[serde(default)]
    pub subscription: Vec<Endpoint>,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Endpoint {
    pub protocol: String,
    pub endpoint: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SubscriptionProperties {
    pub topic_arn: String,
    pub protocol: String,
    pub endpoint: String,
    pub raw_message_delivery: Option<Value>,
}

impl SubscriptionProperties {
    fn raw(&self) -> bool {
        self.raw_message_delivery.as_ref().and_then(plain).as_deref() == Some("true")
    }
}

/// Numbers and truth values, which templates may write as text, as the shape has them.
fn as_shaped(members: &[Member], properties: &Map<String, Value>) -> Map<String, Value> {
    let shape_of = |name: &str| members.iter().find(|m| m.name == name).map(|m| m.shape.bare());
    let shaped = |name: &str, value: &Value| {
        let text = plain(value)?;
        match shape_of(name)? {
            Shape::Integer(..) => text.parse::<i64>().ok().map(Value::from),
            Shape::Boolean => text.parse::<bool>().ok().map(Value::from),
            Shape::Double => text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number),
            Shape::Text(_) | Shape::Word(_) => Some(text.into()),
            _ => None,
        }
    };
    properties.iter().map(|(name, value)| (name.clone(), shaped(name, value).unwrap_or_else(|| value.clone()))).collect()
}

/// What an alarm's properties mean. A name that nobody gave is known when the alarm is made.
pub fn alarm(properties: &Value) -> Result<Definition, String> {
    let given = properties.as_object().ok_or("Properties must be an object")?;
    let members = shapes::PUT_METRIC_ALARM;
    if let Some(name) = given.keys().find(|name| !members.iter().any(|m| m.name == name.as_str())) {
        return Err(format!("Encountered unsupported property {name}"));
    }
    let mut input = as_shaped(members, given);
    // Dimensions' values are often numbers of other resources.
    for dimension in input.get_mut("Dimensions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(value) = dimension.get_mut("Value")
            && let Some(text) = plain(value)
        {
            *value = text.into();
        }
    }
    input.entry("AlarmName").or_insert_with(|| "unnamed".into());
    alarms::definition_of(input).map_err(|e| e.to_string())
}

/// What a topic's properties mean.
pub fn topic(properties: &Value) -> Result<TopicProperties, String> {
    let topic: TopicProperties = typed(properties)?;
    if let Some(name) = &topic.topic_name {
        sns::check_topic_name(name).map_err(|e| e.to_string())?;
    }
    for to in &topic.subscription {
        sns::check_endpoint(&to.protocol, &to.endpoint, false).map_err(|e| e.to_string())?;
    }
    Ok(topic)
}

/// What a subscription's properties mean.
pub fn subscription(properties: &Value) -> Result<SubscriptionProperties, String> {
    let subscription: SubscriptionProperties = typed(properties)?;
    sns::check_endpoint(&subscription.protocol, &subscription.endpoint, subscription.raw()).map_err(|e| e.to_string())?;
    Ok(subscription)
}

/// `Ref` and `GetAtt` of an alarm's or a topic's name, or of a subscription's topic.
pub fn identity(kind: &str, place: &Place<'_>, name: &str) -> Identity {
    let attribute = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    match kind {
        ALARM => {
            let arn = belvedere_watch::message::arn(place.region, place.account, name);
            (name.to_owned(), BTreeMap::from([attribute("Arn", &arn)]))
        }
        TOPIC => {
            let arn = sns::topic_arn(&Home::new(place.region, place.account), name);
            let attributes = BTreeMap::from([attribute("TopicArn", &arn), attribute("TopicName", name)]);
            (arn, attributes)
        }
        _ => {
            let arn = format!("{name}:{}", identifiers::uuid());
            (arn.clone(), BTreeMap::from([attribute("Arn", &arn)]))
        }
    }
}

/// Whether something of this name is there that no stack made.
pub async fn is_taken(api: &Api, kind: &str, physical_id: &str) -> Result<bool, StoreError> {
    let (store, account) = (&api.fleet.store, &api.fleet.settings.account);
    match (kind, topic_of(physical_id, account)) {
        (ALARM, _) => Ok(store.alarm(physical_id).await?.is_some()),
        (TOPIC, Some(name)) => store.topic_exists(name).await,
        _ => Ok(false),
    }
}

fn internal(e: StoreError) -> String {
    sns::Refused::from(e).to_string()
}

/// Makes an alarm what its properties say, in the region that its ARN names.
pub async fn apply_alarm(api: &Api, resource: &StackResource, definition: &Definition) -> Result<(), String> {
    let region = resource.attributes.get("Arn").and_then(|arn| arn.split(':').nth(3)).unwrap_or_default();
    let definition = Definition { alarm_name: resource.physical_id.clone(), ..definition.clone() };
    let put = watched::put(&api.fleet.store, &api.fleet.settings.account, region, &definition).await;
    put.map_err(|e| cloudwatch::Refused::from(e).to_string())
}

/// Makes a topic and its own subscriptions; of those that it had before, the others go.
pub async fn apply_topic(api: &Api, arn: &str, old: Option<&TopicProperties>, new: &TopicProperties) -> Result<(), String> {
    let name = topic_of(arn, &api.fleet.settings.account).ok_or("the topic is not of this account")?;
    sns::create_topic(api, name).await.map_err(|e| e.to_string())?;
    for to in &new.subscription {
        sns::subscribe(api, name, &to.protocol, &to.endpoint, false).await.map_err(|e| e.to_string())?;
    }
    let gone: Vec<&Endpoint> =
        old.into_iter().flat_map(|o| &o.subscription).filter(|to| !new.subscription.contains(to)).collect();
    if !gone.is_empty() {
        let store = &api.fleet.store;
        for there in store.list_subscriptions(Some(name)).await.map_err(internal)? {
            if gone.iter().any(|to| to.protocol == there.protocol && to.endpoint == there.endpoint) {
                store.unsubscribe(name, &there.id).await.map_err(internal)?;
            }
        }
    }
    Ok(())
}

/// Subscribes under the identifier that the stack's other resources know already.
pub async fn apply_subscription(api: &Api, arn: &str, new: &SubscriptionProperties) -> Result<(), String> {
    let id = arn.rsplit(':').next().unwrap_or_default();
    let topic =
        topic_of(&new.topic_arn, &api.fleet.settings.account).ok_or("TopicArn is not that of a topic of this account")?;
    let to = NewSubscription { topic, protocol: &new.protocol, endpoint: &new.endpoint, raw: new.raw() };
    match api.fleet.store.subscribe_as(id.to_owned(), to).await.map_err(internal)? {
        Subscribed::Id(made) if made == id => Ok(()),
        Subscribed::Id(_) => Err(format!("the address is subscribed to {topic} already, not by this resource")),
        Subscribed::NoTopic => Err(format!("the topic {topic} does not exist")),
        Subscribed::TooMany => Err(format!("the topic {topic} has too many subscriptions already")),
    }
}

/// Removes an alarm; one that is not there is removed.
pub async fn remove_alarm(api: &Api, name: &str) -> Result<(), String> {
    let there = api.fleet.store.alarm(name).await.map_err(internal)?.is_some();
    match there {
        true => alarms::remove(api, &[name.to_owned()]).await.map(drop).map_err(|e| e.to_string()),
        false => Ok(()),
    }
}

/// Removes a topic with everybody who is subscribed.
pub async fn remove_topic(api: &Api, arn: &str) -> Result<(), String> {
    match topic_of(arn, &api.fleet.settings.account) {
        Some(name) => api.fleet.store.delete_topic(name).await.map(drop).map_err(internal),
        None => Ok(()),
    }
}

/// Ends a subscription.
pub async fn remove_subscription(api: &Api, arn: &str) -> Result<(), String> {
    let Some((topic, id)) = arn.rsplit_once(':') else { return Ok(()) };
    match topic_of(topic, &api.fleet.settings.account) {
        Some(topic) => api.fleet.store.unsubscribe(topic, id).await.map(drop).map_err(internal),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(change: Value) -> Value {
        let mut whole = json!({
            "MetricName": "DeviceActive", "Namespace": "PanoramaDeviceMetrics", "Statistic": "Average", "Period": "60",
            "EvaluationPeriods": 5, "Threshold": "1.5", "ComparisonOperator": "LessThanThreshold", "ActionsEnabled": "false",
            "Dimensions": [{"Name": "Number", "Value": 7}],
        });
        whole.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        whole
    }

    #[test]
    fn numbers_may_be_text_and_what_is_not_understood_is_named() {
        let alarm_of = alarm(&given(json!({}))).unwrap();
        assert_eq!((alarm_of.period, alarm_of.threshold, alarm_of.actions_enabled), (60, 1.5, false));
        assert_eq!(alarm_of.dimensions[0].value, "7");
        for (change, expected) in [
            (json!({"Perod": 60}), "Perod"),
            (json!({"Period": "a minute"}), "Period"),
            (json!({"Threshold": "NaN"}), "Threshold"),
            (json!({"ExtendedStatistic": "p99"}), "ExtendedStatistic"),
            (json!({"ComparisonOperator": "Like"}), "ComparisonOperator"),
        ] {
            assert!(alarm(&given(change.clone())).unwrap_err().contains(expected), "{change}");
        }
        for bad in [
            json!({"Subscription": [{"Protocol": "sms", "Endpoint": "1"}]}),
            json!({"Subscription": [{"Protocol": "email", "Endpoint": "x"}]}),
            json!({"TopicName": "a b"}),
            json!({"FifoTopic": true}),
        ] {
            assert!(topic(&bad).is_err(), "{bad}");
        }
        let raw =
            json!({"TopicArn": "arn:t", "Protocol": "email", "Endpoint": "a@example.org", "RawMessageDelivery": "true"});
        assert!(subscription(&raw).unwrap_err().contains("RawMessageDelivery"));
    }
}
