//! The kinds of resources: which properties they have, what `Ref` and `GetAtt` give, how they come to be.
//!
//! Names are chosen before anything is made, so everything that a resource refers to is known before it is made, and
//! making it is a write that can be repeated. Removing what is not there is success.

use super::plan::Place;
use super::watching::{self, ALARM, SUBSCRIPTION, SubscriptionProperties, TOPIC, TopicProperties};
use crate::Api;
use crate::access::policy::{Policy, TrustPolicy};
use crate::arn::{Arn, Home};
use crate::iam::{check_name, check_path};
use belvedere_store::StoreError;
use belvedere_store::identifiers;
use belvedere_store::roles::NewRole;
use belvedere_store::stacks::StackResource;
use belvedere_watch::definition::Definition;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A role.
pub const ROLE: &str = "AWS::IAM::Role";
/// Policies of roles' own.
pub const POLICY: &str = "AWS::IAM::Policy";
/// A policy that is attached to roles.
pub const MANAGED_POLICY: &str = "AWS::IAM::ManagedPolicy";

/// All kinds.
pub const KINDS: &[&str] = &[ROLE, POLICY, MANAGED_POLICY, ALARM, TOPIC, SUBSCRIPTION];

/// What `Ref` gives, and what `GetAtt` gives by attribute.
pub type Identity = (String, BTreeMap<String, String>);

/// Whether making one gives somebody permissions.
pub fn is_iam(kind: &str) -> bool {
    kind.starts_with("AWS::IAM::")
}

/// A resource with its properties as types, ready to be made.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned {
    /// `AWS::IAM::Role`.
    Role(RoleProperties),
    /// `AWS::IAM::Policy`.
    Policy(PolicyProperties),
    /// `AWS::IAM::ManagedPolicy`.
    ManagedPolicy(ManagedPolicyProperties),
    /// `AWS::CloudWatch::Alarm`.
    Alarm(Box<Definition>),
    /// `AWS::SNS::Topic`.
    Topic(TopicProperties),
    /// `AWS::SNS::Subscription`.
    Subscription(SubscriptionProperties),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[allow(missing_docs)] // the names are CloudFormation's
pub struct RoleProperties {
    pub role_name: Option<String>,
    pub path: Option<String>,
    pub description: Option<String>,
    pub assume_role_policy_document: Value,
    #[serde(default)]
    pub policies: Vec<InlinePolicy>,
    #[serde(default)]
    pub managed_policy_arns: Vec<String>,
    pub max_session_duration: Option<Value>,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct InlinePolicy {
    pub policy_name: String,
    pub policy_document: Value,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PolicyProperties {
    pub policy_name: String,
    pub policy_document: Value,
    pub roles: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ManagedPolicyProperties {
    pub managed_policy_name: Option<String>,
    pub path: Option<String>,
    pub description: Option<String>,
    pub policy_document: Value,
    #[serde(default)]
    pub roles: Vec<String>,
}

/// The properties that can never change, by kind: another value would be another resource.
pub fn fixed(kind: &str) -> &'static [&'static str] {
    match kind {
        ROLE => &["RoleName", "Path"],
        POLICY => &["PolicyName"],
        MANAGED_POLICY => &["ManagedPolicyName", "Path", "Description"],
        ALARM => &["AlarmName"],
        TOPIC => &["TopicName"],
        SUBSCRIPTION => &["TopicArn", "Protocol", "Endpoint", "RawMessageDelivery"],
        _ => &[],
    }
}

/// The property that may name a resource of this kind.
pub fn name_property(kind: &str) -> Option<&'static str> {
    match kind {
        ROLE => Some("RoleName"),
        MANAGED_POLICY => Some("ManagedPolicyName"),
        ALARM => Some("AlarmName"),
        TOPIC => Some("TopicName"),
        _ => None,
    }
}

/// A name for a resource that its template does not name: `<stack>-<logical name>-<12 random characters>`.
pub fn made_name(stack: &str, logical_id: &str) -> String {
    let random = identifiers::base32(&identifiers::random::<8>()).to_uppercase();
    let stack: String = stack.chars().take(24).collect();
    let logical_id: String = logical_id.chars().take(24).collect();
    format!("{stack}-{logical_id}-{}", &random[..12])
}

/// What `Ref` (the physical name) and `GetAtt` give, of a name and a path.
pub fn identity(kind: &str, place: &Place<'_>, name: &str, path: &str) -> Identity {
    // A name or path that makes no ARN is refused when the resource is planned.
    let home = Home::new(place.region, place.account);
    let text = |arn: Option<Arn>| String::from(arn.unwrap_or_else(Arn::any));
    match kind {
        ALARM | TOPIC | SUBSCRIPTION => watching::identity(kind, place, name),
        ROLE => (name.to_owned(), BTreeMap::from([("Arn".to_owned(), text(home.role(path, name)))])),
        MANAGED_POLICY => {
            let arn = text(home.policy(path, name));
            (arn.clone(), BTreeMap::from([("PolicyArn".to_owned(), arn)]))
        }
        _ => (name.to_owned(), BTreeMap::new()),
    }
}

pub(super) fn typed<T: serde::de::DeserializeOwned>(properties: &Value) -> Result<T, String> {
    serde_json::from_value(properties.clone()).map_err(|e| format!("Encountered unsupported property or value: {e}"))
}

fn document(value: &Value) -> Result<String, String> {
    let text = value.to_string();
    Policy::parse(&text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// Checks everything about a resource that can be known before it is made.
pub fn plan(kind: &str, properties: &Value) -> Result<Planned, String> {
    let words = |e: crate::query::QueryError| e.message;
    match kind {
        ROLE => {
            let role: RoleProperties = typed(properties)?;
            TrustPolicy::parse(&role.assume_role_policy_document.to_string()).map_err(|e| e.to_string())?;
            check_path(role.path.as_deref().unwrap_or("/")).map_err(words)?;
            if let Some(name) = &role.role_name {
                check_name("RoleName", name, 64).map_err(words)?;
            }
            for policy in &role.policies {
                check_name("PolicyName", &policy.policy_name, 128).map_err(words)?;
                document(&policy.policy_document)?;
            }
            max_session(&role)?;
            Ok(Planned::Role(role))
        }
        POLICY => {
            let policy: PolicyProperties = typed(properties)?;
            check_name("PolicyName", &policy.policy_name, 128).map_err(words)?;
            document(&policy.policy_document)?;
            Ok(Planned::Policy(policy))
        }
        MANAGED_POLICY => {
            let policy: ManagedPolicyProperties = typed(properties)?;
            check_path(policy.path.as_deref().unwrap_or("/")).map_err(words)?;
            if let Some(name) = &policy.managed_policy_name {
                check_name("ManagedPolicyName", name, 128).map_err(words)?;
            }
            document(&policy.policy_document)?;
            Ok(Planned::ManagedPolicy(policy))
        }
        ALARM => watching::alarm(properties).map(Box::new).map(Planned::Alarm),
        TOPIC => watching::topic(properties).map(Planned::Topic),
        SUBSCRIPTION => watching::subscription(properties).map(Planned::Subscription),
        other => {
            Err(format!("the resource type {other} is not supported by this service (supported: {})", KINDS.join(", ")))
        }
    }
}

fn max_session(role: &RoleProperties) -> Result<i64, String> {
    let Some(value) = &role.max_session_duration else { return Ok(3600) };
    let seconds = super::template::plain(value).and_then(|t| t.parse::<i64>().ok());
    seconds
        .filter(|s| (3600..=43_200).contains(s))
        .ok_or_else(|| "MaxSessionDuration must be a number from 3600 to 43200".to_owned())
}

fn internal(e: StoreError) -> String {
    tracing::error!("cannot make a stack's resource: {e}");
    "Internal Failure".to_owned()
}

/// Whether something of this name is there that no stack made.
pub async fn is_taken(api: &Api, kind: &str, physical_id: &str) -> Result<bool, StoreError> {
    let store = &api.fleet.store;
    let there = match kind {
        ROLE => store.role(physical_id).await?.is_some(),
        MANAGED_POLICY => store.managed_policy(physical_id).await?.is_some(),
        _ => watching::is_taken(api, kind, physical_id).await?,
    };
    Ok(there)
}

/// What is wrong with a resource in this account, if anything.
pub fn fault(planned: &Planned, account: &str) -> Option<String> {
    match planned {
        Planned::Alarm(definition) => definition.fault(account),
        _ => None,
    }
}

/// Makes a resource what `new` says; `old` is what it was made from before.
pub async fn apply(api: &Api, resource: &StackResource, old: Option<&Planned>, new: &Planned) -> Result<(), String> {
    let (store, physical_id) = (&api.fleet.store, resource.physical_id.as_str());
    match new {
        Planned::Alarm(definition) => watching::apply_alarm(api, resource, definition).await,
        Planned::Topic(topic) => {
            let earlier = match old {
                Some(Planned::Topic(topic)) => Some(topic),
                _ => None,
            };
            watching::apply_topic(api, physical_id, earlier, topic).await
        }
        Planned::Subscription(subscription) => watching::apply_subscription(api, physical_id, subscription).await,
        Planned::Role(role) => {
            let trust = role.assume_role_policy_document.to_string();
            let path = role.path.as_deref().unwrap_or("/");
            let tags = role.tags.iter().map(|t| (t.key.clone(), t.value.clone())).collect();
            let description = role.description.as_deref();
            let max_session_s = max_session(role)?;
            if !store.update_role(physical_id, description, &trust, max_session_s).await.map_err(internal)? {
                let new = NewRole { name: physical_id, path, description, trust_policy: &trust, max_session_s, tags: &tags };
                store.create_role(new).await.map_err(internal)?;
            }
            let id = role_id(api, physical_id).await?;
            let earlier = match old {
                Some(Planned::Role(role)) => Some(role),
                _ => None,
            };
            for policy in &role.policies {
                store
                    .put_role_policy(&id, &policy.policy_name, &document(&policy.policy_document)?)
                    .await
                    .map_err(internal)?;
            }
            let gone = earlier.into_iter().flat_map(|r| &r.policies).map(|p| &p.policy_name);
            for name in gone.filter(|n| !role.policies.iter().any(|p| p.policy_name == **n)) {
                store.delete_role_policy(&id, name).await.map_err(internal)?;
            }
            for arn in &role.managed_policy_arns {
                attach(api, physical_id, arn).await?;
            }
            let gone = earlier.into_iter().flat_map(|r| &r.managed_policy_arns);
            for arn in gone.filter(|a| !role.managed_policy_arns.contains(a)) {
                detach(api, physical_id, arn).await?;
            }
            Ok(())
        }
        Planned::Policy(policy) => {
            let text = document(&policy.policy_document)?;
            for role in &policy.roles {
                store.put_role_policy(&role_id(api, role).await?, &policy.policy_name, &text).await.map_err(internal)?;
            }
            if let Some(Planned::Policy(earlier)) = old {
                for role in earlier.roles.iter().filter(|r| !policy.roles.contains(r)) {
                    remove_inline(api, role, &earlier.policy_name).await?;
                }
            }
            Ok(())
        }
        Planned::ManagedPolicy(policy) => {
            let text = document(&policy.policy_document)?;
            if !store.update_managed_policy(physical_id, &text).await.map_err(internal)? {
                let name = physical_id.rsplit('/').next().unwrap_or(physical_id);
                let path = policy.path.as_deref().unwrap_or("/");
                store
                    .create_managed_policy(physical_id, name, path, policy.description.as_deref(), &text)
                    .await
                    .map_err(internal)?;
            }
            for role in &policy.roles {
                attach(api, role, physical_id).await?;
            }
            if let Some(Planned::ManagedPolicy(earlier)) = old {
                for role in earlier.roles.iter().filter(|r| !policy.roles.contains(r)) {
                    detach(api, role, physical_id).await?;
                }
            }
            Ok(())
        }
    }
}

/// Removes a resource.
pub async fn remove(api: &Api, physical_id: &str, planned: &Planned) -> Result<(), String> {
    let store = &api.fleet.store;
    match planned {
        Planned::Alarm(_) => watching::remove_alarm(api, physical_id).await,
        Planned::Topic(_) => watching::remove_topic(api, physical_id).await,
        Planned::Subscription(_) => watching::remove_subscription(api, physical_id).await,
        Planned::Role(_) => store.delete_role(physical_id).await.map(drop).map_err(internal),
        Planned::Policy(policy) => {
            for role in &policy.roles {
                remove_inline(api, role, &policy.policy_name).await?;
            }
            Ok(())
        }
        Planned::ManagedPolicy(policy) => {
            for role in &policy.roles {
                detach(api, role, physical_id).await?;
            }
            match store.delete_managed_policy(physical_id).await.map_err(internal)? {
                Some(_) => Ok(()),
                None => Err(format!("the policy {physical_id} is attached to roles that are not of this stack")),
            }
        }
    }
}

async fn role_id(api: &Api, name: &str) -> Result<String, String> {
    let role = api.fleet.store.role(name).await.map_err(internal)?;
    role.map(|r| r.role_id).ok_or_else(|| format!("The role with name {name} cannot be found."))
}

async fn policy_id(api: &Api, arn: &str) -> Result<String, String> {
    let policy = api.fleet.store.managed_policy(arn).await.map_err(internal)?;
    policy.map(|p| p.policy_id).ok_or_else(|| format!("Policy {arn} does not exist or is not attachable."))
}

async fn attach(api: &Api, role: &str, arn: &str) -> Result<(), String> {
    let (role, policy) = (role_id(api, role).await?, policy_id(api, arn).await?);
    api.fleet.store.attach_policy(&role, &policy).await.map_err(internal)
}

async fn detach(api: &Api, role: &str, arn: &str) -> Result<(), String> {
    let (Ok(role), Ok(policy)) = (role_id(api, role).await, policy_id(api, arn).await) else { return Ok(()) };
    api.fleet.store.detach_policy(&role, &policy).await.map(drop).map_err(internal)
}

async fn remove_inline(api: &Api, role: &str, name: &str) -> Result<(), String> {
    let Ok(role) = role_id(api, role).await else { return Ok(()) };
    api.fleet.store.delete_role_policy(&role, name).await.map(drop).map_err(internal)
}
