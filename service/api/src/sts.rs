//! STS: who am I, and may I be this role for a while.

use crate::Api;
use crate::access::evaluate::trusted;
use crate::access::policy::{Principal, TrustPolicy};
use crate::arn::Home;
use crate::caller::Caller;
use crate::iam;
use crate::operation::{Ask, AskedForm, FormOperation, anything, one};
use crate::query::{self, Form, QueryError};
use crate::xml::element;
use axum::http::StatusCode;
use axum::response::Response;
use belvedere_device_protocol::credentials::Credentials;
use belvedere_fleet::credentials::{Origin, Subject};
use belvedere_store::roles::Role;

/// Of its XML.
pub const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// Shortest and longest session, seconds; the role may say less.
const DURATION: (i64, i64) = (900, 43_200);
const DEFAULT_DURATION: i64 = 3600;
/// The longest session of a role that was assumed from a role.
const CHAINED_DURATION: i64 = 3600;

fn about_role(form: &Form, home: &Home<'_>) -> Option<Vec<Ask>> {
    one(home.named(form.get("RoleArn")?))
}

/// Of AssumeRole, what would say less than the role does: refused, since nobody may believe that it holds.
const UNSUPPORTED: [&str; 8] =
    ["Policy", "PolicyArns", "SerialNumber", "TokenCode", "Tags", "TransitiveTagKeys", "SourceIdentity", "ProvidedContexts"];

/// All operations.
#[rustfmt::skip]
pub static OPERATIONS: &[FormOperation] = &[
    FormOperation { name: "GetCallerIdentity", asks: anything, takes: &[] },
    FormOperation { name: "AssumeRole", asks: about_role, takes: &[
        "RoleArn", "RoleSessionName", "ExternalId", "DurationSeconds", "Policy", "PolicyArns", "SerialNumber", "TokenCode",
        "Tags", "TransitiveTagKeys", "SourceIdentity", "ProvidedContexts"] },
];

/// Answers a request.
pub async fn answer(api: &Api, caller: &Caller, asked: Result<AskedForm, QueryError>) -> Response {
    query::respond(NAMESPACE, run(api, caller, asked).await)
}

async fn run(api: &Api, caller: &Caller, asked: Result<AskedForm, QueryError>) -> Result<(String, String), QueryError> {
    let AskedForm { operation, input: form } = asked?;
    let result = match operation.name {
        "GetCallerIdentity" => identity(api, caller),
        "AssumeRole" => assume(api, caller, &form).await?,
        other => return Err(query::unknown(other)),
    };
    Ok((operation.name.to_owned(), result))
}

fn identity(api: &Api, caller: &Caller) -> String {
    let account = &api.fleet.settings.account;
    element("Arn", &caller.arn(account)) + &element("UserId", &caller.user_id()) + &element("Account", account)
}

/// `[\w+=,.@-]{2,64}`.
fn is_session_name(name: &str) -> bool {
    (2..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

async fn assume(api: &Api, caller: &Caller, form: &Form) -> Result<String, QueryError> {
    for unsupported in UNSUPPORTED {
        if form.has(unsupported) {
            return Err(QueryError::validation(format!("{unsupported} is not supported by this service")));
        }
    }
    let arn = form.get("RoleArn").ok_or_else(|| QueryError::validation("RoleArn must not be null"))?;
    let session_name = form.get("RoleSessionName").filter(|n| is_session_name(n)).ok_or_else(|| {
        QueryError::validation("Value at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]{2,64}")
    })?;
    let external_id = form.get("ExternalId");
    if external_id.is_some_and(|id| !(2..=1224).contains(&id.len())) {
        return Err(QueryError::validation("ExternalId must have 2 to 1224 characters"));
    }
    let duration = match form.get("DurationSeconds") {
        None => DEFAULT_DURATION,
        Some(text) => text.parse::<i64>().ok().filter(|d| (DURATION.0..=DURATION.1).contains(d)).ok_or_else(|| {
            QueryError::validation(format!("DurationSeconds must be a number from {} to {}", DURATION.0, DURATION.1))
        })?,
    };
    let account = &api.fleet.settings.account;
    let who = caller.arn(account);
    // Whether there is such a role is told only to those who may assume it.
    let refused = || QueryError {
        status: StatusCode::FORBIDDEN,
        code: "AccessDenied",
        message: format!("User: {who} is not authorized to perform: sts:AssumeRole on resource: {arn}"),
    };
    let role = role_of_arn(api, arn).await?.ok_or_else(refused)?;
    let mut context = vec![("sts:RoleSessionName", session_name.to_owned()), ("aws:SourceAccount", account.clone())];
    context.extend(external_id.map(|id| ("sts:ExternalId", id.to_owned())));
    if !trusts(&role, &principals(caller, account), &context) {
        return Err(refused());
    }
    let (longest, origin) = match caller {
        Caller::Administrator { access_key_id } => (role.max_session_s, Origin::AccessKey(access_key_id.clone())),
        Caller::Role { origin, .. } => (role.max_session_s.min(CHAINED_DURATION), origin.clone()),
        Caller::Device { .. } => return Err(refused()),
    };
    if duration > longest && (form.get("DurationSeconds").is_some() || longest < DURATION.0) {
        return Err(QueryError::validation(format!(
            "The requested DurationSeconds exceeds the {longest} seconds that this session may last"
        )));
    }
    let subject = Subject::Role {
        role: role.name.clone(),
        role_id: role.role_id.clone(),
        session_name: session_name.to_owned(),
        origin,
    };
    let keys = api.fleet.issue_session(subject, duration.min(longest));
    let user = format!(
        "<AssumedRoleUser>{}{}</AssumedRoleUser>",
        element("AssumedRoleId", &format!("{}:{session_name}", role.role_id)),
        element("Arn", &format!("arn:aws:sts::{account}:assumed-role/{}/{session_name}", role.name))
    );
    Ok(credentials(&keys) + &user + &element("PackedPolicySize", "0"))
}

fn credentials(keys: &Credentials) -> String {
    format!(
        "<Credentials>{}{}{}{}</Credentials>",
        element("AccessKeyId", &keys.access_key_id),
        element("SecretAccessKey", &keys.secret_access_key),
        element("SessionToken", &keys.session_token),
        element("Expiration", &keys.expiration)
    )
}

/// The role that an ARN names, if it names one exactly.
pub async fn role_of_arn(api: &Api, arn: &str) -> Result<Option<Role>, QueryError> {
    let name = arn.rsplit('/').next().unwrap_or("");
    let role = api.fleet.store.role(name).await?;
    Ok(role.filter(|r| iam::role_arn(&api.home(), r) == arn))
}

/// Whether a role's trust policy lets one of `principals` assume it.
pub fn trusts(role: &Role, principals: &[Principal], context: &[(&'static str, String)]) -> bool {
    match TrustPolicy::parse(&role.trust_policy) {
        Ok(trust) => trusted(&trust, principals, context),
        Err(e) => {
            tracing::error!(role = role.name, "a stored trust policy is not understood: {e}");
            false
        }
    }
}

/// The names under which a trust policy may mean a caller.
fn principals(caller: &Caller, account: &str) -> Vec<Principal> {
    let mut names = vec![caller.arn(account), account.to_owned(), format!("arn:aws:iam::{account}:root")];
    if let Caller::Role { role_arn, .. } = caller {
        names.push(role_arn.clone());
    }
    names.into_iter().map(Principal::Aws).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn session_names_are_what_arns_can_carry() {
        for good in ["ab", "applicationInstance-abc", "a+=,.@-_", &"a".repeat(64)] {
            assert!(super::is_session_name(good), "{good}");
        }
        for bad in ["", "a", "a/b", "a b", "a:b", "ä", &"a".repeat(65)] {
            assert!(!super::is_session_name(bad), "{bad}");
        }
    }
}
