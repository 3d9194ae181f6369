//! A request becomes questions: which action on which resource, in AWS's words. All of them must be answered with yes.
//!
//! What is asked comes from the very value that is carried out ([`Input`]), by the table of its service's operations;
//! whatever is not in a table is an administrator's alone.

use super::evaluate::Question;
use crate::Api;
use crate::arn::{Arn, Home};
use crate::input::Input;
use crate::iot_data;
use crate::operation::{Ask, Asked, Subject};
use crate::s3::operation::{Operation, Target};
use crate::sigv4::canonical::decode;
use axum::http::request::Parts;
use belvedere_store::StoreError;

/// What a request asks for, in the words of policies.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asking {
    /// `logs:PutLogEvents`; empty if it is nothing that this service knows.
    pub action: String,
    /// All that must be allowed. None: an administrator's alone.
    pub questions: Vec<Question>,
}

/// What an input asks for.
pub async fn asking(api: &Api, parts: &Parts, input: &Input) -> Result<Asking, StoreError> {
    let home = api.home();
    let (prefix, name, asks) = match input {
        Input::S3 => return Ok(s3(parts)),
        Input::Panorama(Ok(asked)) => ("panorama", asked.name(), asked.asks(api).await?),
        Input::Sts(Ok(asked)) => ("sts", asked.operation.name, asks(asked, &home)),
        Input::Iam(Ok(asked)) => ("iam", asked.operation.name, asks(asked, &home)),
        Input::CloudFormation(Ok(asked)) => ("cloudformation", asked.operation.name, asks(asked, &home)),
        Input::Logs(Ok(asked)) => ("logs", asked.operation.name, asks(asked, &home)),
        Input::Monitoring(_, Ok(asked)) => ("cloudwatch", asked.operation.name, asks(asked, &home)),
        Input::Sns(Ok(asked)) => ("sns", asked.operation.name, asks(asked, &home)),
        Input::SecretsManager(Ok(asked)) => ("secretsmanager", asked.operation.name, asks(asked, &home)),
        Input::IotData(Some(topic), _) => ("iot", "Publish", iot_data::asks(topic, &home)),
        _ => return Ok(Asking::default()),
    };
    let action = format!("{prefix}:{name}");
    let questions = questions(api, &action, asks).await?.unwrap_or_default();
    Ok(Asking { action, questions })
}

/// The questions of an operation, with the ARNs that are known only when they are looked up; `None` if something has none.
pub async fn questions(api: &Api, operation: &str, asks: Option<Vec<Ask>>) -> Result<Option<Vec<Question>>, StoreError> {
    let (home, mut questions) = (api.home(), Vec::new());
    let Some(asks) = asks else { return Ok(None) };
    for ask in asks {
        let Some(resource) = resource(api, &home, &ask.subject).await? else { return Ok(None) };
        let action = ask.action.unwrap_or(operation).to_owned();
        questions.push(Question { action, resource, context: ask.context });
    }
    Ok(Some(questions))
}

/// What the table of its service asks about an input.
pub fn asks<I, M>(asked: &Asked<I, M>, home: &Home<'_>) -> Option<Vec<Ask>> {
    (asked.operation.asks)(&asked.input, home)
}

async fn resource(api: &Api, home: &Home<'_>, subject: &Subject) -> Result<Option<Arn>, StoreError> {
    Ok(match subject {
        Subject::Of(arn) => Some(arn.clone()),
        // One that is not there has no path.
        Subject::Role(name) => {
            let known = api.fleet.store.role(name).await?.map(|r| r.path);
            home.role(known.as_deref().unwrap_or("/"), name)
        }
        Subject::Secret(id) => match api.fleet.store.managed_secret(id).await? {
            Some(secret) => Some(Arn::stored(&secret.arn)),
            None => home.named(id).or_else(|| home.secret(id, "??????")),
        },
        // By whichever name it is called, a policy that has its ARN is about it.
        Subject::Stack(name) => match api.fleet.store.stack(name).await? {
            Some(stack) => Some(Arn::stored(&stack.stack_id)),
            None => home.stack("stack", name, "*"),
        },
    })
}

/// Deleting many objects at once. Which ones is in the body: the handler asks about each.
pub const EACH_KEY: &str = "s3:DeleteObjects";

fn s3(parts: &Parts) -> Asking {
    let Ok(target) = Target::of(parts) else { return Asking::default() };
    let Some(operation) = Operation::of(parts, &target) else { return Asking::default() };
    let deletes_many = operation == Operation::DeleteObjects;
    let action = if deletes_many { EACH_KEY } else { operation.action() };
    let questions = s3_questions(parts, &target, operation, action).unwrap_or_default();
    Asking { action: action.to_owned(), questions }
}

fn s3_questions(parts: &Parts, target: &Target, operation: Operation, action: &str) -> Option<Vec<Question>> {
    let resource = match operation {
        Operation::ListBuckets => Arn::any(),
        _ if target.key.is_empty() => Arn::bucket(&target.bucket)?,
        _ => Arn::object(&target.bucket, &target.key)?,
    };
    let mut first = Question::new(action, resource);
    if operation == Operation::ListObjects {
        first.context.push(("s3:prefix", target.query("prefix").unwrap_or("").to_owned()));
    }
    let mut questions = vec![first];
    if matches!(operation, Operation::CopyObject | Operation::CopyPart) {
        let (bucket, key) = target.copy_source(&parts.headers)?;
        questions.push(Question::new("s3:GetObject", Arn::object(&bucket, &key)?));
    }
    Some(questions)
}

/// The name in the ARN of a log group or stream.
pub fn log_group(arn: &str) -> Option<&str> {
    let group = arn.splitn(6, ':').nth(5)?.strip_prefix("log-group:")?;
    Some(group.split_once(':').map_or(group, |(group, _)| group))
}

/// A copy's source as bucket and key: `/bucket/key` or `bucket/key`, percent-encoded.
pub fn copy_source(header: &str) -> Option<(String, String)> {
    let path = header.split_once('?').map_or(header, |(path, _)| path);
    let text = String::from_utf8(decode(path.trim_start_matches('/'), false)).ok()?;
    let (bucket, key) = text.split_once('/')?;
    (!bucket.is_empty() && !key.is_empty()).then(|| (bucket.to_owned(), key.to_owned()))
}

#[cfg(test)]
mod tests;
