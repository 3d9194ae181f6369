//! SNS, as far as alarms need it: topics, and who subscribed to them by webhook or mail.
//!
//! A subscription counts at once. AWS first sends a message that its receiver must confirm, because anybody with an
//! account could have strangers' mailboxes flooded; here only the owner of the service subscribes, and a confirmation
//! link would lead to an address that the receiver often cannot reach.

use crate::Api;
use crate::arn::{Arn, Home};
use crate::model::{Member, Shape, Text, check};
use crate::operation::{Ask, AskedDocument, DocumentOperation, anything, one, text};
use crate::query::Form;
use crate::wire::query::input;
use crate::wire::{Output, xml_answer, xml_error};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::notifications::{MAX_SUBSCRIPTIONS, MAX_TOPICS, Message, NewSubscription, Subscribed, Subscription};
use belvedere_store::{StoreError, identifiers};
use belvedere_watch::delivery::{mail, webhook};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

const NAMESPACE: &str = "http://sns.amazonaws.com/doc/2010-03-31/";
/// Items on a page of a list, as SNS has it.
const PAGE: usize = 100;

static NAME: Text = Text { min: 1, max: 256, pattern: Some(r"^[A-Za-z0-9_\-]+$") };
static ARN: Text = Text { min: 1, max: 1024, pattern: None };
static WORD: Text = Text { min: 1, max: 64, pattern: None };
static ENDPOINT: Text = Text { min: 1, max: 2048, pattern: None };
static SUBJECT: Text = Text { min: 1, max: 100, pattern: Some(r"^[\x20-\x7e]+$") };
static MESSAGE: Text = Text { min: 1, max: 262_144, pattern: None };
static TOKEN: Text = Text { min: 0, max: 1024, pattern: None };
static VALUE: Text = Text { min: 0, max: 4096, pattern: None };

static ENTRY: &[Member] = &[Member::required("key", Shape::Text(&WORD)), Member::optional("value", Shape::Text(&VALUE))];
static ENTRY_SHAPE: Shape = Shape::Structure(ENTRY);
const ATTRIBUTES: Member = Member::optional("Attributes", Shape::List(&ENTRY_SHAPE, 0, 20));
static CREATE_TOPIC: &[Member] = &[Member::required("Name", Shape::Text(&NAME)), ATTRIBUTES];
static TOPIC: &[Member] =
    &[Member::required("TopicArn", Shape::Text(&ARN)), Member::optional("NextToken", Shape::Text(&TOKEN))];
static LIST: &[Member] = &[Member::optional("NextToken", Shape::Text(&TOKEN))];
static SUBSCRIBE: &[Member] = &[
    Member::required("TopicArn", Shape::Text(&ARN)),
    Member::required("Protocol", Shape::Text(&WORD)),
    Member::optional("Endpoint", Shape::Text(&ENDPOINT)),
    ATTRIBUTES,
];
static SUBSCRIPTION: &[Member] = &[Member::required("SubscriptionArn", Shape::Text(&ARN))];
static PUBLISH: &[Member] = &[
    Member::required("TopicArn", Shape::Text(&ARN)),
    Member::required("Message", Shape::Text(&MESSAGE)),
    Member::optional("Subject", Shape::Text(&SUBJECT)),
];

/// A request that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refused {
        Refused { status, code, message: message.into() }
    }
    fn invalid(message: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, "InvalidParameter", message)
    }
    fn missing(what: &str) -> Refused {
        Refused::new(StatusCode::NOT_FOUND, "NotFound", format!("{what} does not exist"))
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<StoreError> for Refused {
    fn from(e: StoreError) -> Self {
        let id = identifiers::token::<8>();
        tracing::error!(error_id = id, "{e}");
        let message = format!("internal error {id}; the service's log says more");
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }
}

/// An error in this service's form.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = xml_error(NAMESPACE, status.is_server_error(), code, message, &identifiers::token::<16>());
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}

fn about_name(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    one(home.topic(text(input, "Name")?))
}
fn about_topic(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    one(home.topic(home.topic_named(text(input, "TopicArn")?)?))
}
fn about_subscription(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    let (topic, id) = home.subscription_named(text(input, "SubscriptionArn")?)?;
    one(home.subscription(topic, id))
}

/// All operations.
#[rustfmt::skip]
pub static OPERATIONS: &[DocumentOperation] = &[
    DocumentOperation { name: "CreateTopic", takes: CREATE_TOPIC, asks: about_name },
    DocumentOperation { name: "DeleteTopic", takes: TOPIC, asks: about_topic },
    DocumentOperation { name: "ListTopics", takes: LIST, asks: anything },
    DocumentOperation { name: "GetTopicAttributes", takes: TOPIC, asks: about_topic },
    DocumentOperation { name: "Subscribe", takes: SUBSCRIBE, asks: about_topic },
    DocumentOperation { name: "Unsubscribe", takes: SUBSCRIPTION, asks: about_subscription },
    DocumentOperation { name: "ListSubscriptions", takes: LIST, asks: anything },
    DocumentOperation { name: "ListSubscriptionsByTopic", takes: TOPIC, asks: about_topic },
    DocumentOperation { name: "Publish", takes: PUBLISH, asks: about_topic },
];

/// Reads a request, once.
pub fn read(parts: &Parts, body: &[u8]) -> Result<AskedDocument, Refused> {
    let form = Form::of(parts, body).ok_or_else(|| Refused::invalid("the form is not well formed"))?;
    let action = form.action();
    let operation = DocumentOperation::of(OPERATIONS, action).ok_or_else(|| {
        Refused::new(StatusCode::BAD_REQUEST, "InvalidAction", format!("Could not find operation {action}"))
    })?;
    Ok(operation.asked(input(&form, operation.takes).map_err(Refused::invalid)?))
}

/// Answers a request.
pub async fn answer(api: &Api, asked: Result<AskedDocument, Refused>) -> Response {
    match run(api, asked).await {
        Ok((action, output)) => {
            let body = xml_answer(NAMESPACE, action, &output, &identifiers::token::<16>());
            ([(header::CONTENT_TYPE, "text/xml")], body).into_response()
        }
        Err(Refused { status, code, message }) => error(status, code, &message),
    }
}

async fn run(api: &Api, asked: Result<AskedDocument, Refused>) -> Result<(&'static str, Output), Refused> {
    let AskedDocument { operation, input } = asked?;
    let input = Checked(operation.takes, input);
    let output = match operation.name {
        "CreateTopic" => {
            let input: CreateTopic = input.typed()?;
            Output::structure().with("TopicArn", create_topic(api, &input.name).await?)
        }
        "DeleteTopic" => {
            let input: Topic = input.typed()?;
            if let Some(name) = api.home().topic_named(&input.topic_arn) {
                api.fleet.store.delete_topic(name).await?;
            }
            Output::structure()
        }
        "ListTopics" => list_topics(api, input.typed()?).await?,
        "GetTopicAttributes" => topic_attributes(api, input.typed()?).await?,
        "Subscribe" => {
            let input: Subscribe = input.typed()?;
            let raw = input.attributes.iter().any(|a| a.key == "RawMessageDelivery" && a.value == "true");
            let invalid = || Refused::invalid("Invalid parameter: TopicArn");
            let topic = api.home().topic_named(&input.topic_arn).map(str::to_owned).ok_or_else(invalid)?;
            let arn = subscribe(api, &topic, &input.protocol, &input.endpoint, raw).await?;
            Output::structure().with("SubscriptionArn", arn)
        }
        "Unsubscribe" => {
            let input: Unsubscribe = input.typed()?;
            // The whole ARN counts: what was asked was asked about this topic's subscription.
            let (topic, id) = api
                .home()
                .subscription_named(&input.subscription_arn)
                .ok_or_else(|| Refused::invalid("Invalid parameter: SubscriptionArn"))?;
            match api.fleet.store.unsubscribe(topic, id).await? {
                true => Output::structure(),
                false => return Err(Refused::missing("Subscription")),
            }
        }
        "ListSubscriptions" => list_subscriptions(api, None, input.typed()?).await?,
        "ListSubscriptionsByTopic" => {
            let input: Topic = input.typed()?;
            let name = existing(api, &input.topic_arn).await?;
            list_subscriptions(api, Some(name), List { next_token: input.next_token }).await?
        }
        "Publish" => publish(api, input.typed()?).await?,
        other => {
            return Err(Refused::new(StatusCode::BAD_REQUEST, "InvalidAction", format!("Could not find operation {other}")));
        }
    };
    Ok((operation.name, output))
}

/// An input and the shape that it must have.
struct Checked(&'static [Member], Map<String, Value>);

impl Checked {
    fn typed<T: DeserializeOwned>(self) -> Result<T, Refused> {
        let Checked(shape, input) = self;
        if let Some(fault) = check(shape, &input).first() {
            return Err(Refused::invalid(format!("Invalid parameter: {} Reason: {}", fault.name, fault.message)));
        }
        serde_json::from_value(Value::Object(input)).map_err(|e| Refused::invalid(e.to_string()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateTopic {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Topic {
    topic_arn: String,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subscribe {
    topic_arn: String,
    protocol: String,
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unsubscribe {
    subscription_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Publish {
    topic_arn: String,
    message: String,
    subject: Option<String>,
}

/// ARN of a topic whose name was checked when it was made.
pub fn topic_arn(home: &Home<'_>, name: &str) -> String {
    home.topic(name).unwrap_or_else(Arn::any).into()
}

/// Whether a topic may have this name.
pub fn check_topic_name(name: &str) -> Result<(), Refused> {
    let input = Map::from_iter([("Name".to_owned(), Value::from(name))]);
    match check(CREATE_TOPIC, &input).first() {
        Some(fault) => Err(Refused::invalid(format!("Invalid parameter: Topic Name Reason: {}", fault.message))),
        None => Ok(()),
    }
}

/// Makes a topic, or finds it; its ARN. Also for templates (`AWS::SNS::Topic`).
pub async fn create_topic(api: &Api, name: &str) -> Result<String, Refused> {
    check_topic_name(name)?;
    match api.fleet.store.create_topic(name).await? {
        true => Ok(topic_arn(&api.home(), name)),
        false => {
            Err(Refused::new(StatusCode::FORBIDDEN, "TopicLimitExceeded", format!("there are {MAX_TOPICS} topics already")))
        }
    }
}

/// Whether an address may be subscribed.
pub fn check_endpoint(protocol: &str, endpoint: &str, raw: bool) -> Result<(), Refused> {
    let good = match protocol {
        "http" | "https" => webhook::acceptable(protocol, endpoint),
        "email" => mail::acceptable(endpoint),
        other => {
            let message = format!("Invalid parameter: Protocol Reason: {other} is not available: use http, https or email");
            return Err(Refused::invalid(message));
        }
    };
    if !good {
        return Err(Refused::invalid(format!("Invalid parameter: Endpoint Reason: not an address for {protocol}")));
    }
    if raw && protocol == "email" {
        return Err(Refused::invalid("Invalid parameter: Attributes Reason: RawMessageDelivery is for http and https"));
    }
    Ok(())
}

/// Subscribes an address to the topic of a name; the subscription's ARN. Also for templates (a topic's own subscriptions).
pub async fn subscribe(api: &Api, topic: &str, protocol: &str, endpoint: &str, raw: bool) -> Result<String, Refused> {
    check_endpoint(protocol, endpoint, raw)?;
    match api.fleet.store.subscribe(NewSubscription { topic, protocol, endpoint, raw }).await? {
        Subscribed::Id(id) => Ok(api.home().subscription(topic, &id).unwrap_or_else(Arn::any).into()),
        Subscribed::NoTopic => Err(Refused::missing("Topic")),
        Subscribed::TooMany => {
            let message = format!("the topic has {MAX_SUBSCRIPTIONS} subscriptions already");
            Err(Refused::new(StatusCode::FORBIDDEN, "SubscriptionLimitExceeded", message))
        }
    }
}

/// The name of a topic that is there.
async fn existing(api: &Api, arn: &str) -> Result<String, Refused> {
    let name = api.home().topic_named(arn).ok_or_else(|| Refused::invalid("Invalid parameter: TopicArn"))?;
    match api.fleet.store.topic_exists(name).await? {
        true => Ok(name.to_owned()),
        false => Err(Refused::missing("Topic")),
    }
}

/// A page of a list, and the token of the next: how many items came before.
fn page<T>(items: Vec<T>, token: Option<&str>) -> Result<(Vec<T>, Option<String>), Refused> {
    let skip: usize = match token {
        None | Some("") => 0,
        Some(token) => token.parse().map_err(|_| Refused::invalid("Invalid parameter: NextToken"))?,
    };
    let next = (items.len() > skip.saturating_add(PAGE)).then(|| (skip + PAGE).to_string());
    Ok((items.into_iter().skip(skip).take(PAGE).collect(), next))
}

async fn list_topics(api: &Api, input: List) -> Result<Output, Refused> {
    let (topics, next) = page(api.fleet.store.list_topics().await?, input.next_token.as_deref())?;
    let home = api.home();
    let topics: Vec<Output> =
        topics.iter().map(|t| Output::structure().with("TopicArn", topic_arn(&home, &t.name))).collect();
    Ok(Output::structure().with("Topics", topics).with_some("NextToken", next))
}

async fn topic_attributes(api: &Api, input: Topic) -> Result<Output, Refused> {
    let name = existing(api, &input.topic_arn).await?;
    let count = api.fleet.store.list_subscriptions(Some(&name)).await?.len().to_string();
    let attributes = [
        ("TopicArn", input.topic_arn.as_str()),
        ("Owner", api.fleet.settings.account.as_str()),
        ("SubscriptionsConfirmed", count.as_str()),
        ("SubscriptionsPending", "0"),
    ];
    let entry = |(key, value): (&str, &str)| ("entry", Output::structure().with("key", key).with("value", value));
    Ok(Output::structure().with("Attributes", Output::Structure(attributes.into_iter().map(entry).collect())))
}

/// The address as lists show it: without its password, as SNS does.
fn masked(endpoint: &str) -> String {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return endpoint.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    match authority.rsplit_once('@') {
        Some((user, _)) => {
            let shown = user.split_once(':').map_or("****".to_owned(), |(name, _)| format!("{name}:****"));
            format!("{scheme}://{shown}@{}", &rest[user.len() + 1..])
        }
        None => endpoint.to_owned(),
    }
}

async fn list_subscriptions(api: &Api, topic: Option<String>, input: List) -> Result<Output, Refused> {
    let all = api.fleet.store.list_subscriptions(topic.as_deref()).await?;
    let (subscriptions, next) = page(all, input.next_token.as_deref())?;
    let (home, account) = (api.home(), &api.fleet.settings.account);
    let shown = |s: &Subscription| {
        let topic = topic_arn(&home, &s.topic);
        Output::structure()
            .with("SubscriptionArn", format!("{topic}:{}", s.id))
            .with("Owner", account.as_str())
            .with("Protocol", s.protocol.as_str())
            .with("Endpoint", masked(&s.endpoint))
            .with("TopicArn", topic)
    };
    let subscriptions: Vec<Output> = subscriptions.iter().map(shown).collect();
    Ok(Output::structure().with("Subscriptions", subscriptions).with_some("NextToken", next))
}

async fn publish(api: &Api, input: Publish) -> Result<Output, Refused> {
    let topic = existing(api, &input.topic_arn).await?;
    let subject = input.subject.unwrap_or_else(|| "Notification".into());
    let message = Message { topic, topic_arn: input.topic_arn, subject, message: input.message };
    Ok(Output::structure().with("MessageId", api.fleet.store.publish_message(&message).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_webhooks_are_not_listed() {
        for (endpoint, shown) in [
            ("https://u:hunter2@h/x@y", "https://u:****@h/x@y"),
            ("https://h/x@y", "https://h/x@y"),
            ("https://hunter2@h", "https://****@h"),
            ("ops@example.org", "ops@example.org"),
        ] {
            assert_eq!(masked(endpoint), shown);
        }
    }

    #[test]
    fn lists_come_in_pages() {
        let items: Vec<usize> = (0..PAGE * 2).collect();
        let (first, next) = page(items.clone(), None).unwrap();
        assert_eq!((first.len(), next.as_deref()), (PAGE, Some("100")));
        let (second, next) = page(items.clone(), Some("100")).unwrap();
        assert_eq!((second[0], next), (PAGE, None));
        assert!(page(items.clone(), Some("x")).is_err());
        assert!(page(items, Some("18446744073709551615")).unwrap().0.is_empty());
    }
}
