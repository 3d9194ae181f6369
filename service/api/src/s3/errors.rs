//! Errors in S3's form.

use crate::sigv4::body::BodyError;
use crate::xml::element;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_fleet::FleetError;
use belvedere_store::StoreError;

/// An answer that is no success.
#[derive(Debug)]
pub struct S3Error {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl S3Error {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> S3Error {
        S3Error { status, code, message: message.into() }
    }
    pub(super) fn invalid(message: impl Into<String>) -> S3Error {
        S3Error::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }
    pub(super) fn no_such_key() -> S3Error {
        S3Error::new(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.")
    }
    pub(super) fn malformed() -> S3Error {
        S3Error::new(
            StatusCode::BAD_REQUEST,
            "MalformedXML",
            "The XML you provided was not well-formed or did not validate.",
        )
    }
    pub(super) fn precondition_failed() -> S3Error {
        let message = "At least one of the pre-conditions you specified did not hold";
        S3Error::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", message)
    }
    pub(super) fn not_implemented() -> S3Error {
        S3Error::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "This operation of S3 is not part of this service.")
    }
    pub(super) fn header_not_implemented(name: &str) -> S3Error {
        let message = format!("A header you provided implies functionality that is not part of this service: {name}");
        S3Error::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }
    pub(super) fn no_such_upload() -> S3Error {
        S3Error::new(
            StatusCode::NOT_FOUND,
            "NoSuchUpload",
            "The upload does not exist: it was completed, aborted, or never begun.",
        )
    }
    pub(super) fn bad_digest(what: &str) -> S3Error {
        S3Error::new(
            StatusCode::BAD_REQUEST,
            "BadDigest",
            format!("The {what} you specified did not match what we received."),
        )
    }
}

/// An error in S3's form.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>{}{}</Error>",
        element("Code", code),
        element("Message", message)
    );
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

impl IntoResponse for S3Error {
    fn into_response(self) -> Response {
        error(self.status, self.code, &self.message)
    }
}

impl From<StoreError> for S3Error {
    fn from(e: StoreError) -> Self {
        if matches!(e, StoreError::Changed) {
            let message = "The conditional request cannot succeed due to a conflicting operation against this resource.";
            return S3Error::new(StatusCode::CONFLICT, "ConditionalRequestConflict", message);
        }
        tracing::error!("{e}");
        S3Error::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "internal error; the service's log says more")
    }
}
impl From<FleetError> for S3Error {
    fn from(e: FleetError) -> Self {
        tracing::error!("{e}");
        S3Error::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "internal error; the service's log says more")
    }
}
impl From<BodyError> for S3Error {
    fn from(e: BodyError) -> Self {
        let code = match e {
            BodyError::Mismatch => "XAmzContentSHA256Mismatch",
            BodyError::TooLarge => "EntityTooLarge",
            BodyError::Incomplete => "IncompleteBody",
            BodyError::Slow => "RequestTimeout",
            BodyError::Busy => return S3Error::new(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", e.to_string()),
            BodyError::Malformed | BodyError::Unsupported => "InvalidRequest",
        };
        S3Error::new(StatusCode::BAD_REQUEST, code, e.to_string())
    }
}
