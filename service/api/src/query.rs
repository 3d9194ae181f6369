//! AWS's query protocol: a form in, XML out. STS, IAM, CloudFormation.

use crate::sigv4::canonical::query_pairs;
use crate::xml::element;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::identifiers;

/// Most fields of a form.
const MAX_FIELDS: usize = 5000;

/// The fields of a request, in order. No name is there twice: what is decided about is what is done, whoever reads it.
#[derive(Debug, Clone, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// From the body, or from the query where there is no body. `None` if it is too large, not UTF-8 without zeros, or
    /// says something twice.
    pub fn of(parts: &Parts, body: &[u8]) -> Option<Form> {
        let text = match body {
            [] => parts.uri.query().unwrap_or(""),
            body => std::str::from_utf8(body).ok()?,
        };
        if text.bytes().filter(|b| *b == b'&').count() > MAX_FIELDS {
            return None;
        }
        let pairs = query_pairs(text);
        // PostgreSQL's texts hold no zero.
        let text = |bytes| String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        let fields: Vec<(String, String)> = pairs.into_iter().map(|(n, v)| Some((text(n)?, text(v)?))).collect::<Option<_>>()?;
        let mut names = std::collections::HashSet::new();
        fields.iter().all(|(name, _)| names.insert(name.as_str())).then_some(())?;
        drop(names);
        Some(Form(fields))
    }

    /// The operation.
    pub fn action(&self) -> &str {
        self.get("Action").unwrap_or("")
    }

    /// A field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether any field has this name or lies below it.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name || n.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
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

fn xml(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
}

/// `<ActionResponse><ActionResult>…`; `result` is markup, its text already escaped.
pub fn answer(namespace: &str, action: &str, result: &str) -> Response {
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
        let form = form("Action=A&L.member.1=x&L.member.2=y%20z&L.member.4=q&T.member.1.Key=k&T.member.1.Value=v&T.member.2.Key=w");
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
        assert!(Form::of(&parts, &b"a&".repeat(MAX_FIELDS + 1)).is_none());
    }
}
