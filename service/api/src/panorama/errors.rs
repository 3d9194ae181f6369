//! Errors as the model has them.

use crate::model::Fault;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_fleet::FleetError;
use belvedere_store::{StoreError, identifiers};
use serde_json::{Value, json};

/// What an operation may answer instead of its output.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiError {
    /// `ValidationException`.
    Validation {
        /// For people.
        message: String,
        /// `UNKNOWN_OPERATION`, `CANNOT_PARSE`, `FIELD_VALIDATION_FAILED`, `OTHER`.
        reason: &'static str,
        /// Which members.
        fields: Vec<Fault>,
    },
    /// `AccessDeniedException`.
    AccessDenied {
        /// For people.
        message: String,
    },
    /// `ConflictException`.
    Conflict {
        /// For people.
        message: String,
        /// Of what.
        resource_id: String,
        /// `DEVICE`, `PACKAGE`, ….
        resource_type: &'static str,
    },
    /// `ResourceNotFoundException`.
    NotFound {
        /// Of what.
        resource_id: String,
        /// `DEVICE`, `PACKAGE`, ….
        resource_type: &'static str,
    },
    /// `ServiceQuotaExceededException`.
    Quota {
        /// For people.
        message: String,
        /// The limit's name in `service.json`.
        code: &'static str,
        /// Of what.
        resource_id: String,
        /// `DEVICE`, `PACKAGE`, ….
        resource_type: &'static str,
    },
    /// `ThrottlingException`: every tool waits and repeats.
    Throttled,
    /// `InternalServerException`. The cause is in the log under the error's identifier, not in the answer.
    Internal {
        /// What to look for in the log.
        error_id: String,
    },
}

impl ApiError {
    /// No operation has this method and path.
    pub fn unknown_operation(method: &str, path: &str) -> ApiError {
        let message = format!("no operation {method} {}", path.chars().take(256).collect::<String>());
        ApiError::Validation { message, reason: "UNKNOWN_OPERATION", fields: Vec::new() }
    }

    /// Not JSON, or not what its types say.
    pub fn cannot_parse(message: impl Into<String>) -> ApiError {
        ApiError::Validation { message: message.into(), reason: "CANNOT_PARSE", fields: Vec::new() }
    }

    /// Members that are not what their shapes say.
    pub fn invalid(fields: Vec<Fault>) -> ApiError {
        let count = fields.len();
        let all: Vec<String> =
            fields.iter().map(|f| format!("Value at '{}' failed to satisfy constraint: {}", f.name, f.message)).collect();
        let plural = if count == 1 { "" } else { "s" };
        let message = format!("{count} validation error{plural} detected: {}", all.join("; "));
        ApiError::Validation { message, reason: "FIELD_VALIDATION_FAILED", fields }
    }

    /// One member that is wrong for a reason beyond its shape.
    pub fn field(name: &str, message: impl Into<String>) -> ApiError {
        let message = message.into();
        let fields = vec![Fault { name: name.into(), message: message.clone() }];
        ApiError::Validation { message, reason: "FIELD_VALIDATION_FAILED", fields }
    }

    /// Nothing has this identifier.
    pub fn not_found(resource_type: &'static str, resource_id: &str) -> ApiError {
        ApiError::NotFound { resource_id: resource_id.into(), resource_type }
    }

    /// It exists, or is in use.
    pub fn conflict(resource_type: &'static str, resource_id: &str, message: impl Into<String>) -> ApiError {
        ApiError::Conflict { message: message.into(), resource_id: resource_id.into(), resource_type }
    }

    /// As an operation whose model has these errors may answer it: a quota is a conflict where the model has no error for
    /// quotas. Tools show the text of either.
    pub fn as_modelled(self, errors: &str) -> ApiError {
        match self {
            ApiError::Quota { message, resource_id, resource_type, .. } if !errors.contains('Q') => {
                ApiError::Conflict { message, resource_id, resource_type }
            }
            other => other,
        }
    }

    /// Our own fault: logged here, with an identifier to find it by.
    pub fn internal(cause: impl std::fmt::Display) -> ApiError {
        let error_id = identifiers::token::<8>();
        tracing::error!(error_id, "{cause}");
        ApiError::Internal { error_id }
    }

    fn parts(&self) -> (StatusCode, &'static str, Value) {
        match self {
            ApiError::Validation { message, reason, fields } => {
                let mut body = json!({ "Message": message, "Reason": reason });
                if !fields.is_empty() {
                    let fields: Vec<Value> =
                        fields.iter().map(|f| json!({ "Name": f.name, "Message": f.message })).collect();
                    body["Fields"] = fields.into();
                }
                (StatusCode::BAD_REQUEST, "ValidationException", body)
            }
            ApiError::AccessDenied { message } => {
                (StatusCode::FORBIDDEN, "AccessDeniedException", json!({ "Message": message }))
            }
            ApiError::Conflict { message, resource_id, resource_type } => (
                StatusCode::CONFLICT,
                "ConflictException",
                json!({ "Message": message, "ResourceId": resource_id, "ResourceType": resource_type }),
            ),
            ApiError::NotFound { resource_id, resource_type } => (
                StatusCode::NOT_FOUND,
                "ResourceNotFoundException",
                json!({
                    "Message": format!("{resource_type} {resource_id} does not exist"),
                    "ResourceId": resource_id,
                    "ResourceType": resource_type,
                }),
            ),
            ApiError::Quota { message, code, resource_id, resource_type } => (
                StatusCode::PAYMENT_REQUIRED,
                "ServiceQuotaExceededException",
                json!({
                    "Message": message,
                    "QuotaCode": code,
                    "ServiceCode": "panorama",
                    "ResourceId": resource_id,
                    "ResourceType": resource_type,
                }),
            ),
            ApiError::Throttled => {
                (StatusCode::TOO_MANY_REQUESTS, "ThrottlingException", json!({ "Message": "Rate exceeded" }))
            }
            ApiError::Internal { error_id } => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalServerException",
                json!({ "Message": format!("internal error {error_id}; the service's log says more") }),
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, body) = self.parts();
        let mut response = with_code(status, code, body);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn with_code(status: StatusCode, code: &str, body: Value) -> Response {
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    if let Ok(value) = HeaderValue::from_str(code) {
        response.headers_mut().insert("x-amzn-errortype", value);
    }
    response
}

/// An error that no operation models: what is wrong is the request itself.
pub fn plain(status: StatusCode, code: &str, message: &str) -> Response {
    with_code(status, code, json!({ "Message": message }))
}

impl From<FleetError> for ApiError {
    fn from(e: FleetError) -> Self {
        ApiError::internal(e)
    }
}
impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        ApiError::internal(e)
    }
}
