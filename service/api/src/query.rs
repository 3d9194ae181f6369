//! AWS's query protocol: a form in, XML out. One reader for all who speak it, since what is decided about must be what is
//! done: STS, IAM and CloudFormation ask a form for its fields, SNS and CloudWatch for the input that a shape describes
//! ([`crate::wire::query`]).

use crate::caller::Caller;
use crate::entry::Request;
use crate::sigv4::canonical::query_pairs;
use crate::xml::element;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::identifiers;
use std::collections::BTreeMap;

/// Most fields of a form.
const MAX_FIELDS: usize = 100_000;

/// The fields of a request. No name is there twice: nobody finds the one, and somebody else the other.
#[derive(Debug, Clone, Default)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// From the body, or from the query where there is no body. `None` if it is too large, not UTF-8 without zeros, or
    /// says something twice.
    pub fn of(parts: &Parts, body: &[u8]) -> Option<Form> {
        let form = match body {
            [] => parts.uri.query().unwrap_or(""),
            body => std::str::from_utf8(body).ok()?,
        };
        if form.bytes().filter(|b| *b == b'&').count() > MAX_FIELDS {
            return None;
        }
        // PostgreSQL's texts hold no zero.
        let text = |bytes| String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        let mut fields = BTreeMap::new();
        for (name, value) in query_pairs(form) {
            if fields.insert(text(name)?, text(value)?).is_some() {
                return None;
            }
        }
        Some(Form(fields))
    }

    /// The operation.
    pub fn action(&self) -> &str {
        self.get("Action").unwrap_or("")
    }

    /// A field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All fields.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether any field has this name or lies below it.
    pub fn has(&self, name: &str) -> bool {
        self.0.keys().any(|n| n == name || n.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    }

    /// `<name>.member.1`, `<name>.member.2`, ….
    pub fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|n| self.get(&format!("{name}.member.{n}"))).collect()
    }

    /// `<name>.member.<n>.<field>` for each of `fields`, as long as the first one is there.
    pub fn structures<const N: usize>(&self, name: &str, fields: [&str; N]) -> Vec<[Option<&str>; N]> {
        (1..)
            .map(|n| fields.map(|f| self.get(&format!("{name}.member.{n}.{f}"))))
            .take_while(|found| found.first().is_some_and(Option::is_some))
            .collect()
    }
}

/// Something that an operation answers instead of its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// HTTP status.
    pub status: StatusCode,
    /// `ValidationError`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl QueryError {
    /// A client's mistake.
    pub fn new(code: &'static str, message: impl Into<String>) -> QueryError {
        QueryError { status: StatusCode::BAD_REQUEST, code, message: message.into() }
    }

    /// A member that is not what it must be.
    pub fn validation(message: impl Into<String>) -> QueryError {
        QueryError::new("ValidationError", message)
    }

    /// Our own fault: logged here, with an identifier to find it by.
    pub fn internal(cause: impl std::fmt::Display) -> QueryError {
        let id = identifiers::token::<8>();
        tracing::error!(error_id = id, "{cause}");
        let message = format!("internal error {id}; the service's log says more");
        QueryError { status: StatusCode::INTERNAL_SERVER_ERROR, code: "ServiceFailure", message }
    }
}

impl From<belvedere_fleet::FleetError> for QueryError {
    fn from(e: belvedere_fleet::FleetError) -> Self {
        QueryError::internal(e)
    }
}
impl From<belvedere_store::StoreError> for QueryError {
    fn from(e: belvedere_store::StoreError) -> Self {
        QueryError::internal(e)
    }
}

/// A request of which the form is all that there is to read.
pub struct Asked {
    /// What is asked for.
    pub form: Form,
    /// Who asks.
    pub caller: Caller,
    /// Region of the request's signature, which ARNs carry.
    pub region: String,
}

/// Reads a request.
pub async fn read(request: Request) -> Result<Asked, QueryError> {
    let body = request.body.collect().await.map_err(|e| QueryError::new("InvalidRequest", e.to_string()))?;
    let form = Form::of(&request.parts, &body);
    let form = form.ok_or_else(|| QueryError::new("MalformedQueryString", "the form is not well formed"))?;
    Ok(Asked { form, caller: request.caller, region: request.region })
}

/// An operation that is not there.
pub fn unknown(form: &Form) -> QueryError {
    QueryError::new("InvalidAction", format!("Could not find operation {}", form.action()))
}

/// The operation's name with its result, or an error, as an answer.
pub fn respond(namespace: &str, outcome: Result<(String, String), QueryError>) -> Response {
    match outcome {
        Ok((action, result)) => answer(namespace, &action, &result),
        Err(refused) => error(namespace, &refused),
    }
}

fn xml(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}

/// `<ActionResponse><ActionResult>…`; `result` is markup, its text already escaped.
fn answer(namespace: &str, action: &str, result: &str) -> Response {
    let id = element("RequestId", &identifiers::token::<16>());
    xml(
        StatusCode::OK,
        format!(
            "<{action}Response xmlns=\"{namespace}\"><{action}Result>{result}</{action}Result>\
             <ResponseMetadata>{id}</ResponseMetadata></{action}Response>"
        ),
    )
}

/// An error.
pub fn error(namespace: &str, error: &QueryError) -> Response {
    let kind = if error.status.is_server_error() { "Receiver" } else { "Sender" };
    let parts = format!("<Type>{kind}</Type>{}{}", element("Code", error.code), element("Message", &error.message));
    let id = element("RequestId", &identifiers::token::<16>());
    xml(error.status, format!("<ErrorResponse xmlns=\"{namespace}\"><Error>{parts}</Error>{id}</ErrorResponse>"))
}

/// `<name><member>…</member>…</name>` of markup.
pub fn members(name: &str, list: impl IntoIterator<Item = String>) -> String {
    let members: String = list.into_iter().map(|m| format!("<member>{m}</member>")).collect();
    format!("<{name}>{members}</{name}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        let parts = axum::http::Request::builder().uri("/").body(()).unwrap().into_parts().0;
        Form::of(&parts, text.as_bytes()).unwrap()
    }

    #[test]
    fn forms_have_lists_and_structures() {
        let form =
            form("Action=A&L.member.1=x&L.member.2=y%20z&L.member.4=q&T.member.1.Key=k&T.member.1.Value=v&T.member.2.Key=w");
        assert_eq!(form.action(), "A");
        assert_eq!(form.list("L"), ["x", "y z"]);
        assert_eq!(form.structures("T", ["Key", "Value"]), [[Some("k"), Some("v")], [Some("w"), None]]);
        assert!(form.has("T") && form.has("L") && !form.has("TT") && form.has("Action"));
    }

    #[test]
    fn a_form_that_is_not_text_or_too_long_is_none() {
        let parts = axum::http::Request::builder().uri("/").body(()).unwrap().into_parts().0;
        assert!(Form::of(&parts, b"a=\xff").is_none());
        assert!(Form::of(&parts, b"a=%ff").is_none());
        assert!(Form::of(&parts, b"a=%00").is_none());
        assert!(Form::of(&parts, b"TopicArn=mine&TopicArn=yours").is_none(), "said twice");
        let many: String = (0..MAX_FIELDS + 2).map(|n| format!("{n}&")).collect();
        assert!(Form::of(&parts, many.as_bytes()).is_none());
    }
}
