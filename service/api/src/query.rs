//! AWS's query protocol: a form in, XML out. One reader for all who speak it, since what is decided about must be what is
//! done: STS, IAM and CloudFormation ask a form for its fields, SNS and CloudWatch for the input that a shape describes
//! ([`crate::wire::query`]).

pub use crate::form::{Form, fields};
use crate::operation::{AskedForm, FormOperation};
use crate::xml::element;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::identifiers;

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

/// Reads a request, once: the operation that it names, with the fields that this one takes.
pub fn read(operations: &'static [FormOperation], parts: &Parts, body: &[u8]) -> Result<AskedForm, QueryError> {
    let form = Form::of(parts, body);
    let form = form.ok_or_else(|| QueryError::new("MalformedQueryString", "the form is not well formed"))?;
    let operation = FormOperation::of(operations, form.action()).ok_or_else(|| unknown(form.action()))?;
    Ok(operation.asked(form))
}

/// An operation that is not there.
pub fn unknown(name: &str) -> QueryError {
    QueryError::new("InvalidAction", format!("Could not find operation {name}"))
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
