//! May this be done? Pure: policies and a question in, an answer out. What is not allowed is denied, and a deny
//! anywhere outweighs every allow.

use super::policy::{Effect, Policy, Principal, Statement, TrustPolicy};
use super::wildcard::{matches, matches_arn};
use crate::arn::Arn;

/// What is to be done to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// `s3:GetObject`.
    pub action: String,
    /// What it is done to; `*` where the action has no resource.
    pub resource: Arn,
    /// Condition keys that this call has.
    pub context: Vec<(&'static str, String)>,
}

impl Question {
    /// A question without condition keys.
    pub fn new(action: impl Into<String>, resource: Arn) -> Question {
        Question { action: action.into(), resource, context: Vec::new() }
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allowed,
    /// A statement denies it.
    ExplicitlyDenied,
    /// No statement allows it.
    NotAllowed,
}

/// What a set of policies says.
pub fn decide<'a>(policies: impl IntoIterator<Item = &'a Policy>, question: &Question) -> Decision {
    let resource = |s: &Statement| s.resources.iter().any(|p| matches_arn(p, question.resource.as_str()));
    let statements = policies.into_iter().flat_map(|p| &p.statements);
    weigh(statements.filter(|s| applies(s, &question.action, &question.context) && resource(s)))
}

/// Whether a trust policy lets one of `principals` (all of them names of the same caller) assume its role.
pub fn trusted(trust: &TrustPolicy, principals: &[Principal], context: &[(&'static str, String)]) -> bool {
    let named = |s: &Statement| s.principals.iter().any(|p| *p == Principal::Everyone || principals.contains(p));
    weigh(trust.statements.iter().filter(|s| applies(s, "sts:AssumeRole", context) && named(s))) == Decision::Allowed
}

fn applies(statement: &Statement, action: &str, context: &[(&'static str, String)]) -> bool {
    let action = action.to_ascii_lowercase();
    statement.actions.iter().any(|p| matches(&p.to_ascii_lowercase(), &action))
        && statement.conditions.iter().all(|c| c.holds(context))
}

fn weigh<'a>(statements: impl Iterator<Item = &'a Statement>) -> Decision {
    let mut decision = Decision::NotAllowed;
    for statement in statements {
        match statement.effect {
            Effect::Deny => return Decision::ExplicitlyDenied,
            Effect::Allow => decision = Decision::Allowed,
        }
    }
    decision
}

#[cfg(test)]
mod tests;
