//! Who may do what: the one place that decides about every call, before any handler sees it.
//!
//! | module | one idea |
//! |---|---|
//! | [`calls`] | a request becomes questions: which action on which resource |
//! | [`policy`] | policy documents: what of AWS's language is understood (pure) |
//! | [`evaluate`] | may this be done? (pure) |
//! | [`wildcard`] | `*` and `?` (pure) |
//! | [`sessions`] | a session token becomes a caller with its policies |
//!
//! Administrators may do everything. An appliance may write its own logs and metrics and read what its own deployments
//! name. A session of a role may do what the role's policies say, and nothing that this service does not know.

pub mod calls;
pub mod evaluate;
pub mod policy;
pub mod sessions;
pub mod wildcard;

use crate::Api;
use crate::caller::{Caller, device_log_group};
use belvedere_device_protocol::objects::deployment_key;
use belvedere_fleet::FleetError;
use belvedere_fleet::metrics::NAMESPACE;
use evaluate::{Decision, Question, decide};

/// Why a call is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// For people.
    pub message: String,
}

/// Whether `caller` may do all of `questions`; a call that is no question at all is an administrator's alone.
pub async fn authorise(api: &Api, caller: &Caller, questions: &[Question]) -> Result<Result<(), Forbidden>, FleetError> {
    if caller.is_administrator() {
        return Ok(Ok(()));
    }
    let who = caller.arn(&api.fleet.settings.account);
    if questions.is_empty() {
        return Ok(Err(Forbidden { message: format!("User: {who} is not authorized to make this call") }));
    }
    for question in questions {
        let decision = match caller {
            Caller::Administrator { .. } => Decision::Allowed,
            Caller::Device { device_id, .. } => device(api, device_id, question).await?,
            // Who one is may be asked by everyone.
            Caller::Role { .. } if question.action == "sts:GetCallerIdentity" => Decision::Allowed,
            Caller::Role { .. } if question.action == calls::EACH_KEY => Decision::Allowed,
            Caller::Role { policies, .. } => decide(policies.iter(), question),
        };
        let because = match decision {
            Decision::Allowed => continue,
            Decision::ExplicitlyDenied => "with an explicit deny in an identity-based policy".to_owned(),
            Decision::NotAllowed => format!("because no identity-based policy allows the {} action", question.action),
        };
        let Question { action, resource, .. } = question;
        let message = format!("User: {who} is not authorized to perform: {action} on resource: {resource} {because}");
        return Ok(Err(Forbidden { message }));
    }
    Ok(Ok(()))
}

/// What an appliance may do.
async fn device(api: &Api, device_id: &str, question: &Question) -> Result<Decision, FleetError> {
    let allowed = match question.action.as_str() {
        "sts:GetCallerIdentity" => true,
        "logs:CreateLogGroup" | "logs:CreateLogStream" | "logs:PutLogEvents" => {
            calls::log_group(question.resource.as_str()).is_some_and(|group| device_log_group(device_id, group))
        }
        "cloudwatch:PutMetricData" => {
            question.context.iter().any(|(key, value)| *key == "cloudwatch:namespace" && value == NAMESPACE)
        }
        "s3:GetObject" => match question.resource.as_str().strip_prefix("arn:aws:s3:::").and_then(|r| r.split_once('/')) {
            Some((bucket, key)) => {
                own_deployment(api, device_id, key).is_some()
                    || api.fleet.store.deployment_names(device_id, bucket, key).await?
            }
            None => false,
        },
        _ => false,
    };
    Ok(if allowed { Decision::Allowed } else { Decision::NotAllowed })
}

/// The application instance whose deployment document a key is, if it is one of this device's.
pub fn own_deployment<'a>(api: &Api, device_id: &str, key: &'a str) -> Option<&'a str> {
    let id = key.rsplit('/').next().and_then(|n| n.strip_suffix(".json"))?;
    (key == deployment_key(&api.fleet.settings.account, device_id, id)).then_some(id)
}
