//! Policy documents: what of AWS's language is understood. Everything else is refused when a document comes in, so
//! that nobody believes in a restriction that is not one.

use super::wildcard::{matches, matches_arn};
use belvedere_manifest::unambiguous_json;
use serde_json::{Map, Value};

/// Longest document, characters.
pub const MAX_DOCUMENT: usize = 10_240;
/// Most statements of a document, most entries of a list in one.
const MAX_LIST: usize = 100;

/// Condition keys that have a value in some call. Others could never match and are refused.
pub const CONDITION_KEYS: &[&str] = &["cloudwatch:namespace", "s3:prefix"];
/// Condition keys of trust policies.
pub const TRUST_CONDITION_KEYS: &[&str] = &["aws:SourceAccount", "aws:SourceArn", "sts:ExternalId", "sts:RoleSessionName"];
const ARN_KEYS: &[&str] = &["aws:SourceArn"];

/// Why a document is refused: the element, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct PolicyError {
    at: String,
    what: String,
}

fn wrong(at: &str, what: impl Into<String>) -> PolicyError {
    PolicyError { at: at.to_owned(), what: what.into() }
}

/// Allow or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// `Allow`.
    Allow,
    /// `Deny`.
    Deny,
}

/// What a role's policies say: a list of statements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub(super) statements: Vec<Statement>,
}

/// Who may assume a role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustPolicy {
    pub(super) statements: Vec<Statement>,
}

/// One statement; of a policy (resources) or of a trust policy (principals).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub effect: Effect,
    pub actions: Vec<String>,
    pub resources: Vec<String>,
    pub principals: Vec<Principal>,
    pub conditions: Vec<Condition>,
}

/// Who a statement of a trust policy is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// `*`.
    Everyone,
    /// `panorama.amazonaws.com`.
    Service(String),
    /// An ARN, or an account's number.
    Aws(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    StringEquals,
    StringNotEquals,
    StringLike,
    StringNotLike,
    ArnLike,
    ArnNotLike,
}

const OPERATORS: &[(&str, Operator)] = &[
    ("StringEquals", Operator::StringEquals),
    ("StringNotEquals", Operator::StringNotEquals),
    ("StringLike", Operator::StringLike),
    ("StringNotLike", Operator::StringNotLike),
    ("ArnLike", Operator::ArnLike),
    ("ArnEquals", Operator::ArnLike), // AWS: "ArnEquals and ArnLike behave identically"
    ("ArnNotLike", Operator::ArnNotLike),
    ("ArnNotEquals", Operator::ArnNotLike),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    operator: Operator,
    key: String,
    values: Vec<String>,
}

impl Condition {
    /// Whether it holds. A key that the call does not have fails what asks for likeness and passes what asks for
    /// difference, as AWS has it.
    pub fn holds(&self, context: &[(&str, String)]) -> bool {
        let value = context.iter().find(|(k, _)| k.eq_ignore_ascii_case(&self.key)).map(|(_, v)| v.as_str());
        let any = |test: fn(&str, &str) -> bool| value.is_some_and(|v| self.values.iter().any(|p| test(p, v)));
        match self.operator {
            Operator::StringEquals => any(|p, v| p == v),
            Operator::StringNotEquals => !any(|p, v| p == v),
            Operator::StringLike => any(matches),
            Operator::StringNotLike => !any(matches),
            Operator::ArnLike => any(matches_arn),
            Operator::ArnNotLike => !any(matches_arn),
        }
    }
}

impl Policy {
    /// The policy that denies everything.
    pub fn nothing() -> Policy {
        let all = || vec!["*".to_owned()];
        let (principals, conditions) = (Vec::new(), Vec::new());
        Policy {
            statements: vec![Statement { effect: Effect::Deny, actions: all(), resources: all(), principals, conditions }],
        }
    }

    /// Reads a policy.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        let parse = |at: &str, s: &Map<String, Value>| {
            known(at, s, &["Sid", "Effect", "Action", "Resource", "Condition"])?;
            let resources = strings(&format!("{at}.Resource"), s.get("Resource"))?;
            for resource in &resources {
                // Of another kind than every ARN here is, it would match nothing, and deny nothing.
                if resource != "*" && (resource.splitn(6, ':').count() != 6 || !resource.starts_with("arn:")) {
                    return Err(wrong(&format!("{at}.Resource"), format!("\"{resource}\" is neither \"*\" nor an ARN")));
                }
            }
            let conditions = conditions(at, s.get("Condition"), CONDITION_KEYS)?;
            Ok(Statement { effect: effect(at, s)?, actions: actions(at, s)?, resources, principals: Vec::new(), conditions })
        };
        Ok(Policy { statements: statements(text, parse)? })
    }
}

impl TrustPolicy {
    /// Reads a trust policy.
    pub fn parse(text: &str) -> Result<TrustPolicy, PolicyError> {
        let parse = |at: &str, s: &Map<String, Value>| {
            known(at, s, &["Sid", "Effect", "Principal", "Action", "Condition"])?;
            let actions = actions(at, s)?;
            if let Some(other) = actions.iter().find(|a| !a.to_ascii_lowercase().starts_with("sts:")) {
                return Err(wrong(&format!("{at}.Action"), format!("\"{other}\" is not an action of sts")));
            }
            let principals = principals(&format!("{at}.Principal"), s.get("Principal"))?;
            let conditions = conditions(at, s.get("Condition"), TRUST_CONDITION_KEYS)?;
            Ok(Statement { effect: effect(at, s)?, actions, resources: Vec::new(), principals, conditions })
        };
        Ok(TrustPolicy { statements: statements(text, parse)? })
    }
}

fn statements(
    text: &str,
    parse: impl Fn(&str, &Map<String, Value>) -> Result<Statement, PolicyError>,
) -> Result<Vec<Statement>, PolicyError> {
    if text.chars().count() > MAX_DOCUMENT {
        return Err(wrong("the document", format!("it is longer than {MAX_DOCUMENT} characters")));
    }
    // Of an element that is there twice only one would count: a condition might be written, and hold nobody up.
    let document = unambiguous_json(text).map_err(|e| wrong("the document", format!("it is not good JSON: {e}")))?;
    let Value::Object(document) = document else { return Err(wrong("the document", "it is not a JSON object")) };
    known("the document", &document, &["Version", "Id", "Statement"])?;
    match document.get("Version").map(Value::as_str) {
        None | Some(Some("2012-10-17" | "2008-10-17")) => {}
        _ => return Err(wrong("Version", "it must be \"2012-10-17\" or \"2008-10-17\"")),
    }
    let list = match document.get("Statement") {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one @ Value::Object(_)) => std::slice::from_ref(one),
        _ => return Err(wrong("Statement", "there must be a statement or a list of them")),
    };
    if list.is_empty() || list.len() > MAX_LIST {
        return Err(wrong("Statement", format!("there must be 1 to {MAX_LIST} statements")));
    }
    let mut statements = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let at = format!("Statement[{index}]");
        let Value::Object(statement) = value else { return Err(wrong(&at, "it must be an object")) };
        statements.push(parse(&at, statement)?);
    }
    Ok(statements)
}

fn known(at: &str, map: &Map<String, Value>, names: &[&str]) -> Result<(), PolicyError> {
    match map.keys().find(|k| !names.contains(&k.as_str())) {
        Some(other) => Err(wrong(at, format!("the element \"{other}\" is not supported (supported: {})", names.join(", ")))),
        None => Ok(()),
    }
}

fn effect(at: &str, statement: &Map<String, Value>) -> Result<Effect, PolicyError> {
    match statement.get("Effect").and_then(Value::as_str) {
        Some("Allow") => Ok(Effect::Allow),
        Some("Deny") => Ok(Effect::Deny),
        _ => Err(wrong(&format!("{at}.Effect"), "it must be \"Allow\" or \"Deny\"")),
    }
}

fn actions(at: &str, statement: &Map<String, Value>) -> Result<Vec<String>, PolicyError> {
    let at = format!("{at}.Action");
    let actions = strings(&at, statement.get("Action"))?;
    let letters = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let is_action =
        |a: &str| a.split_once(':').is_some_and(|(service, name)| letters(service, "-*?") && letters(name, "*?"));
    match actions.iter().find(|a| *a != "*" && !is_action(a)) {
        Some(other) => Err(wrong(&at, format!("\"{other}\" is neither \"*\" nor \"service:Action\""))),
        None => Ok(actions),
    }
}

/// A string or a list of strings; at least one. Policy variables are not understood, so they are refused.
fn strings(at: &str, value: Option<&Value>) -> Result<Vec<String>, PolicyError> {
    let list = match value {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => return Err(wrong(at, "it is missing")),
    };
    if list.is_empty() || list.len() > MAX_LIST {
        return Err(wrong(at, format!("it must have 1 to {MAX_LIST} entries")));
    }
    list.iter()
        .map(|value| match value {
            Value::String(s) if s.contains("${") => Err(wrong(at, format!("policy variables (\"{s}\") are not supported"))),
            Value::String(s) if !s.is_empty() => Ok(s.clone()),
            _ => Err(wrong(at, "it must be a string or a list of strings, none of them empty")),
        })
        .collect()
}

fn principals(at: &str, value: Option<&Value>) -> Result<Vec<Principal>, PolicyError> {
    let map = match value {
        Some(Value::String(s)) if s == "*" => return Ok(vec![Principal::Everyone]),
        Some(Value::Object(map)) if !map.is_empty() => map,
        _ => return Err(wrong(at, "it must be \"*\" or an object with \"Service\" or \"AWS\"")),
    };
    known(at, map, &["Service", "AWS"])?;
    let mut all = Vec::new();
    for (kind, value) in map {
        for name in strings(&format!("{at}.{kind}"), Some(value))? {
            all.push(match kind.as_str() {
                "Service" if name.contains('*') => return Err(wrong(at, "a service's name has no wildcards")),
                "Service" => Principal::Service(name),
                _ if name == "*" => Principal::Everyone,
                _ if name.contains('*') => return Err(wrong(at, "an ARN of a principal has no wildcards")),
                _ => Principal::Aws(name),
            });
        }
    }
    Ok(all)
}

fn conditions(at: &str, value: Option<&Value>, keys: &[&str]) -> Result<Vec<Condition>, PolicyError> {
    let at = format!("{at}.Condition");
    let Some(value) = value else { return Ok(Vec::new()) };
    let Value::Object(operators) = value else { return Err(wrong(&at, "it must be an object")) };
    let mut all = Vec::new();
    for (name, tests) in operators {
        let Some((_, operator)) = OPERATORS.iter().find(|(n, _)| n == name) else {
            let names: Vec<&str> = OPERATORS.iter().map(|(n, _)| *n).collect();
            return Err(wrong(&at, format!("the operator \"{name}\" is not supported (supported: {})", names.join(", "))));
        };
        let Value::Object(tests) = tests else { return Err(wrong(&at, format!("\"{name}\" must hold an object"))) };
        for (key, values) in tests {
            if !keys.iter().any(|k| k.eq_ignore_ascii_case(key)) {
                return Err(wrong(&at, format!("the key \"{key}\" is not supported (supported: {})", keys.join(", "))));
            }
            let arn = ARN_KEYS.iter().any(|k| k.eq_ignore_ascii_case(key));
            if matches!(operator, Operator::ArnLike | Operator::ArnNotLike) && !arn {
                return Err(wrong(&at, format!("\"{key}\" is not an ARN: \"{name}\" cannot test it")));
            }
            all.push(Condition { operator: *operator, key: key.clone(), values: strings(&at, Some(values))? });
        }
    }
    Ok(all)
}
