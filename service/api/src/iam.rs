//! IAM, as far as roles of applications need it: roles, their own policies, policies attached to several.

use crate::Api;
use crate::access::policy::{Policy, TrustPolicy};
use crate::arn::{Arn, Home};
use crate::operation::{Ask, AskedForm, FormOperation, Subject, anything, one};
use crate::query::{self, Form, QueryError, members};
use crate::sigv4::canonical::encode;
use crate::sigv4::clock::iso8601;
use crate::xml::element;
use axum::http::StatusCode;
use axum::response::Response;
use belvedere_store::StoreError;
use belvedere_store::roles::{ManagedPolicy, NewRole, Role};
use std::collections::BTreeMap;

/// Of its XML.
pub const NAMESPACE: &str = "https://iam.amazonaws.com/doc/2010-05-08/";
/// Most roles, and most policies.
const MAX_ROLES: usize = 1000;
/// Most policies of a role, of each kind.
const MAX_POLICIES: usize = 20;
/// Longest and shortest of a role's longest session, seconds.
const MAX_SESSION: (i64, i64) = (3600, 43_200);

/// `arn:aws:iam::<account>:role<path><name>`. Names and paths are checked when roles are made.
pub fn role_arn(home: &Home<'_>, role: &Role) -> String {
    home.role(&role.path, &role.name).unwrap_or_else(Arn::any).into()
}

/// What is done to a role is asked about the role, also what attaches a policy to it.
fn about_role(form: &Form, _: &Home<'_>) -> Option<Vec<Ask>> {
    Some(vec![Ask::about(Subject::Role(form.get("RoleName")?.to_owned()))])
}
fn about_policy(form: &Form, home: &Home<'_>) -> Option<Vec<Ask>> {
    one(home.named(form.get("PolicyArn")?))
}
fn new_role(form: &Form, home: &Home<'_>) -> Option<Vec<Ask>> {
    one(home.role(form.get("Path").unwrap_or("/"), form.get("RoleName")?))
}
fn new_policy(form: &Form, home: &Home<'_>) -> Option<Vec<Ask>> {
    one(home.policy(form.get("Path").unwrap_or("/"), form.get("PolicyName")?))
}

/// All operations.
#[rustfmt::skip]
pub static OPERATIONS: &[FormOperation] = &[
    FormOperation { name: "CreateRole", asks: new_role, takes: &[
        "RoleName", "Path", "AssumeRolePolicyDocument", "PermissionsBoundary", "Description", "MaxSessionDuration", "Tags"] },
    FormOperation { name: "GetRole", asks: about_role, takes: &["RoleName"] },
    FormOperation { name: "ListRoles", asks: anything, takes: &["PathPrefix"] },
    FormOperation { name: "DeleteRole", asks: about_role, takes: &["RoleName"] },
    FormOperation { name: "UpdateAssumeRolePolicy", asks: about_role, takes: &["RoleName", "PolicyDocument"] },
    FormOperation { name: "PutRolePolicy", asks: about_role, takes: &["RoleName", "PolicyName", "PolicyDocument"] },
    FormOperation { name: "GetRolePolicy", asks: about_role, takes: &["RoleName", "PolicyName"] },
    FormOperation { name: "ListRolePolicies", asks: about_role, takes: &["RoleName"] },
    FormOperation { name: "DeleteRolePolicy", asks: about_role, takes: &["RoleName", "PolicyName"] },
    FormOperation { name: "CreatePolicy", asks: new_policy, takes: &["PolicyName", "Path", "PolicyDocument", "Description"] },
    FormOperation { name: "GetPolicy", asks: about_policy, takes: &["PolicyArn"] },
    FormOperation { name: "ListPolicies", asks: anything, takes: &[] },
    FormOperation { name: "DeletePolicy", asks: about_policy, takes: &["PolicyArn"] },
    FormOperation { name: "AttachRolePolicy", asks: about_role, takes: &["RoleName", "PolicyArn"] },
    FormOperation { name: "DetachRolePolicy", asks: about_role, takes: &["RoleName", "PolicyArn"] },
    FormOperation { name: "ListAttachedRolePolicies", asks: about_role, takes: &["RoleName"] },
];

/// Answers a request.
pub async fn answer(api: &Api, asked: Result<AskedForm, QueryError>) -> Response {
    query::respond(NAMESPACE, run(api, asked).await)
}

async fn run(api: &Api, asked: Result<AskedForm, QueryError>) -> Result<(String, String), QueryError> {
    let AskedForm { operation, input: form } = asked?;
    let result = match operation.name {
        "CreateRole" => create_role(api, &form).await,
        "GetRole" => get_role(api, &form).await,
        "ListRoles" => list_roles(api, &form).await,
        "DeleteRole" => delete_role(api, &form).await,
        "UpdateAssumeRolePolicy" => update_trust(api, &form).await,
        "PutRolePolicy" => put_role_policy(api, &form).await,
        "GetRolePolicy" => get_role_policy(api, &form).await,
        "ListRolePolicies" => list_role_policies(api, &form).await,
        "DeleteRolePolicy" => delete_role_policy(api, &form).await,
        "CreatePolicy" => create_policy(api, &form).await,
        "GetPolicy" => get_policy(api, &form).await,
        "ListPolicies" => list_policies(api, &form).await,
        "DeletePolicy" => delete_policy(api, &form).await,
        "AttachRolePolicy" => attach(api, &form).await,
        "DetachRolePolicy" => detach(api, &form).await,
        "ListAttachedRolePolicies" => list_attached(api, &form).await,
        other => Err(query::unknown(other)),
    };
    Ok((operation.name.to_owned(), result?))
}

fn no_such(what: &str) -> QueryError {
    QueryError { status: StatusCode::NOT_FOUND, code: "NoSuchEntity", message: format!("{what} cannot be found.") }
}
fn conflict(code: &'static str, message: impl Into<String>) -> QueryError {
    QueryError { status: StatusCode::CONFLICT, code, message: message.into() }
}
fn exists(e: StoreError) -> QueryError {
    match e {
        StoreError::Exists { what } => conflict("EntityAlreadyExists", format!("{what} already exists.")),
        other => QueryError::internal(other),
    }
}
/// A document in the words of its refusal.
fn malformed(e: impl std::fmt::Display) -> QueryError {
    QueryError::new("MalformedPolicyDocument", e.to_string())
}

fn need<'a>(form: &'a Form, name: &str) -> Result<&'a str, QueryError> {
    form.get(name).ok_or_else(|| QueryError::validation(format!("{name} must not be null")))
}

/// A name of a role or policy: `[\w+=,.@-]{1,max}`.
pub fn check_name(member: &str, name: &str, max: usize) -> Result<(), QueryError> {
    let good = (1..=max).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b));
    match good {
        true => Ok(()),
        false => Err(QueryError::validation(format!("{member} must be 1 to {max} letters, digits and +=,.@-_ characters"))),
    }
}

/// `/` or `/…/`, at most 512 characters.
pub fn check_path(path: &str) -> Result<(), QueryError> {
    let inner = path.bytes().all(|b| b.is_ascii_graphic() && !b"*?:".contains(&b));
    match path.starts_with('/') && path.ends_with('/') && path.len() <= 512 && inner && !path.contains("//") {
        true => Ok(()),
        false => Err(QueryError::validation("Path must begin and end with / and have at most 512 characters")),
    }
}

fn tags(form: &Form) -> Result<BTreeMap<String, String>, QueryError> {
    let tags: BTreeMap<String, String> = form
        .structures("Tags", ["Key", "Value"])
        .into_iter()
        .map(|[key, value]| (key.unwrap_or("").to_owned(), value.unwrap_or("").to_owned()))
        .collect();
    let good =
        tags.len() <= 50 && tags.iter().all(|(k, v)| (1..=128).contains(&k.chars().count()) && v.chars().count() <= 256);
    if good {
        Ok(tags)
    } else {
        Err(QueryError::validation("Tags: at most 50, with keys of 1 to 128 and values of up to 256 characters"))
    }
}

async fn role(api: &Api, form: &Form) -> Result<Role, QueryError> {
    let name = need(form, "RoleName")?;
    api.fleet.store.role(name).await?.ok_or_else(|| no_such(&format!("The role with name {name}")))
}

fn show(home: &Home<'_>, role: &Role) -> String {
    let mut text = element("Path", &role.path)
        + &element("RoleName", &role.name)
        + &element("RoleId", &role.role_id)
        + &element("Arn", &role_arn(home, role))
        + &element("CreateDate", &iso8601(role.created_ms))
        // Documents travel percent-encoded.
        + &element("AssumeRolePolicyDocument", &encode(role.trust_policy.as_bytes(), b""))
        + &element("MaxSessionDuration", &role.max_session_s.to_string());
    if let Some(description) = &role.description {
        text += &element("Description", description);
    }
    if !role.tags.is_empty() {
        text += &members("Tags", role.tags.iter().map(|(k, v)| element("Key", k) + &element("Value", v)));
    }
    text
}

async fn create_role(api: &Api, form: &Form) -> Result<String, QueryError> {
    let name = need(form, "RoleName")?;
    check_name("RoleName", name, 64)?;
    let path = form.get("Path").unwrap_or("/");
    check_path(path)?;
    let trust_policy = need(form, "AssumeRolePolicyDocument")?;
    TrustPolicy::parse(trust_policy).map_err(malformed)?;
    if form.has("PermissionsBoundary") {
        return Err(QueryError::validation("PermissionsBoundary is not supported by this service"));
    }
    let description = form.get("Description");
    if description.is_some_and(|d| d.chars().count() > 1000) {
        return Err(QueryError::validation("Description must have at most 1000 characters"));
    }
    let max_session_s = match form.get("MaxSessionDuration") {
        None => MAX_SESSION.0,
        Some(text) => text.parse().ok().filter(|s| (MAX_SESSION.0..=MAX_SESSION.1).contains(s)).ok_or_else(|| {
            QueryError::validation(format!(
                "MaxSessionDuration must be a number from {} to {}",
                MAX_SESSION.0, MAX_SESSION.1
            ))
        })?,
    };
    if api.fleet.store.list_roles().await?.len() >= MAX_ROLES {
        return Err(conflict("LimitExceeded", format!("there are {MAX_ROLES} roles already")));
    }
    let tags = tags(form)?;
    let new = NewRole { name, path, description, trust_policy, max_session_s, tags: &tags };
    let role = api.fleet.store.create_role(new).await.map_err(exists)?;
    Ok(format!("<Role>{}</Role>", show(&api.home(), &role)))
}

async fn get_role(api: &Api, form: &Form) -> Result<String, QueryError> {
    Ok(format!("<Role>{}</Role>", show(&api.home(), &role(api, form).await?)))
}

/// All at once: there are at most [`MAX_ROLES`].
async fn list_roles(api: &Api, form: &Form) -> Result<String, QueryError> {
    let prefix = form.get("PathPrefix").unwrap_or("/");
    let home = api.home();
    let roles = api.fleet.store.list_roles().await?;
    let shown = roles.iter().filter(|r| r.path.starts_with(prefix)).map(|r| show(&home, r));
    Ok(members("Roles", shown) + &element("IsTruncated", "false"))
}

async fn delete_role(api: &Api, form: &Form) -> Result<String, QueryError> {
    let role = role(api, form).await?;
    let store = &api.fleet.store;
    if !store.role_policies(&role.role_id).await?.is_empty() || !store.attached_policies(&role.role_id).await?.is_empty() {
        return Err(conflict("DeleteConflict", "Cannot delete entity, must delete policies first."));
    }
    store.delete_role(&role.name).await?;
    Ok(String::new())
}

async fn update_trust(api: &Api, form: &Form) -> Result<String, QueryError> {
    let role = role(api, form).await?;
    let document = need(form, "PolicyDocument")?;
    TrustPolicy::parse(document).map_err(malformed)?;
    api.fleet.store.update_role(&role.name, role.description.as_deref(), document, role.max_session_s).await?;
    Ok(String::new())
}

async fn put_role_policy(api: &Api, form: &Form) -> Result<String, QueryError> {
    let role = role(api, form).await?;
    let name = need(form, "PolicyName")?;
    check_name("PolicyName", name, 128)?;
    let document = need(form, "PolicyDocument")?;
    Policy::parse(document).map_err(malformed)?;
    let known = api.fleet.store.role_policies(&role.role_id).await?;
    if known.len() >= MAX_POLICIES && !known.iter().any(|(n, _)| n == name) {
        return Err(conflict("LimitExceeded", format!("the role has {MAX_POLICIES} policies already")));
    }
    api.fleet.store.put_role_policy(&role.role_id, name, document).await?;
    Ok(String::new())
}

async fn get_role_policy(api: &Api, form: &Form) -> Result<String, QueryError> {
    let role = role(api, form).await?;
    let name = need(form, "PolicyName")?;
    let policies = api.fleet.store.role_policies(&role.role_id).await?;
    let (_, document) = policies
        .into_iter()
        .find(|(n, _)| n == name)
        .ok_or_else(|| no_such(&format!("The role policy with name {name}")))?;
    let document = encode(document.as_bytes(), b"");
    Ok(element("RoleName", &role.name) + &element("PolicyName", name) + &element("PolicyDocument", &document))
}

async fn list_role_policies(api: &Api, form: &Form) -> Result<String, QueryError> {
    let role = role(api, form).await?;
    let names = api.fleet.store.role_policies(&role.role_id).await?;
    let names = names.into_iter().map(|(name, _)| crate::xml::escape(&name));
    Ok(members("PolicyNames", names) + &element("IsTruncated", "false"))
}

async fn delete_role_policy(api: &Api, form: &Form) -> Result<String, QueryError> {
    let role = role(api, form).await?;
    let name = need(form, "PolicyName")?;
    match api.fleet.store.delete_role_policy(&role.role_id, name).await? {
        true => Ok(String::new()),
        false => Err(no_such(&format!("The role policy with name {name}"))),
    }
}

fn show_policy(policy: &ManagedPolicy) -> String {
    let mut text = element("PolicyName", &policy.name)
        + &element("PolicyId", &policy.policy_id)
        + &element("Arn", &policy.arn)
        + &element("Path", &policy.path)
        + &element("DefaultVersionId", "v1")
        + &element("IsAttachable", "true")
        + &element("CreateDate", &iso8601(policy.created_ms))
        + &element("UpdateDate", &iso8601(policy.updated_ms));
    if let Some(description) = &policy.description {
        text += &element("Description", description);
    }
    text
}

async fn create_policy(api: &Api, form: &Form) -> Result<String, QueryError> {
    let name = need(form, "PolicyName")?;
    check_name("PolicyName", name, 128)?;
    let path = form.get("Path").unwrap_or("/");
    check_path(path)?;
    let document = need(form, "PolicyDocument")?;
    Policy::parse(document).map_err(malformed)?;
    if api.fleet.store.list_managed_policies().await?.len() >= MAX_ROLES {
        return Err(conflict("LimitExceeded", format!("there are {MAX_ROLES} policies already")));
    }
    let arn = api.home().policy(path, name).ok_or_else(|| QueryError::validation("the path and name make no ARN"))?;
    let policy = api
        .fleet
        .store
        .create_managed_policy(arn.as_str(), name, path, form.get("Description"), document)
        .await
        .map_err(exists)?;
    Ok(format!("<Policy>{}</Policy>", show_policy(&policy)))
}

async fn policy(api: &Api, form: &Form) -> Result<ManagedPolicy, QueryError> {
    let arn = need(form, "PolicyArn")?;
    api.fleet.store.managed_policy(arn).await?.ok_or_else(|| no_such(&format!("Policy {arn}")))
}

async fn get_policy(api: &Api, form: &Form) -> Result<String, QueryError> {
    Ok(format!("<Policy>{}</Policy>", show_policy(&policy(api, form).await?)))
}

async fn list_policies(api: &Api, _form: &Form) -> Result<String, QueryError> {
    let policies = api.fleet.store.list_managed_policies().await?;
    Ok(members("Policies", policies.iter().map(show_policy)) + &element("IsTruncated", "false"))
}

async fn delete_policy(api: &Api, form: &Form) -> Result<String, QueryError> {
    let arn = need(form, "PolicyArn")?;
    match api.fleet.store.delete_managed_policy(arn).await? {
        Some(true) => Ok(String::new()),
        Some(false) => Err(no_such(&format!("Policy {arn}"))),
        None => Err(conflict("DeleteConflict", "Cannot delete a policy attached to entities.")),
    }
}

async fn attach(api: &Api, form: &Form) -> Result<String, QueryError> {
    let (role, policy) = (role(api, form).await?, policy(api, form).await?);
    let attached = api.fleet.store.attached_policies(&role.role_id).await?;
    if attached.len() >= MAX_POLICIES && !attached.contains(&policy) {
        return Err(conflict("LimitExceeded", format!("{MAX_POLICIES} policies are attached to the role already")));
    }
    api.fleet.store.attach_policy(&role.role_id, &policy.policy_id).await?;
    Ok(String::new())
}

async fn detach(api: &Api, form: &Form) -> Result<String, QueryError> {
    let (role, policy) = (role(api, form).await?, policy(api, form).await?);
    match api.fleet.store.detach_policy(&role.role_id, &policy.policy_id).await? {
        true => Ok(String::new()),
        false => Err(no_such(&format!("Policy {} was not attached. It", policy.arn))),
    }
}

async fn list_attached(api: &Api, form: &Form) -> Result<String, QueryError> {
    let role = role(api, form).await?;
    let attached = api.fleet.store.attached_policies(&role.role_id).await?;
    let shown = attached.iter().map(|p| element("PolicyName", &p.name) + &element("PolicyArn", &p.arn));
    Ok(members("AttachedPolicies", shown) + &element("IsTruncated", "false"))
}
