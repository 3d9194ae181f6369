//! Errors as the model has them.

use super::scalars::*;
use super::structures::*;
use crate::model::Member;

/// An error that operations may answer.
#[derive(Debug)]
pub struct ModelError {
    /// Its letter in [`super::Signature::errors`].
    pub letter: char,
    /// The model's name.
    pub name: &'static str,
    /// HTTP status.
    pub status: u16,
    /// When it is answered, in a sentence.
    pub about: &'static str,
    /// What it says.
    pub members: &'static [Member],
}

/// All of them.
pub static ERRORS: [ModelError; 6] = [
    ModelError {
        letter: 'V',
        name: "ValidationException",
        status: 400,
        about: "The request is not what the operation takes.",
        members: &[
            Member::required("Message", STRING),
            Member::optional("Reason", VALIDATION_EXCEPTION_REASON),
            Member::optional("ErrorId", STRING),
            Member::optional("ErrorArguments", VALIDATION_EXCEPTION_ERROR_ARGUMENT_LIST),
            Member::optional("Fields", VALIDATION_EXCEPTION_FIELD_LIST),
        ],
    },
    ModelError {
        letter: 'A',
        name: "AccessDeniedException",
        status: 403,
        about: "The caller may not do this.",
        members: &[Member::required("Message", STRING)],
    },
    ModelError {
        letter: 'C',
        name: "ConflictException",
        status: 409,
        about: "The resource exists, or is in use.",
        members: &[
            Member::required("Message", STRING),
            Member::required("ResourceId", STRING),
            Member::required("ResourceType", STRING),
            Member::optional("ErrorId", STRING),
            Member::optional("ErrorArguments", CONFLICT_EXCEPTION_ERROR_ARGUMENT_LIST),
        ],
    },
    ModelError {
        letter: 'N',
        name: "ResourceNotFoundException",
        status: 404,
        about: "There is no such resource.",
        members: &[
            Member::required("Message", STRING),
            Member::required("ResourceId", STRING),
            Member::required("ResourceType", STRING),
        ],
    },
    ModelError {
        letter: 'Q',
        name: "ServiceQuotaExceededException",
        status: 402,
        about: "A quota of the service would be exceeded.",
        members: &[
            Member::required("Message", STRING),
            Member::required("QuotaCode", STRING),
            Member::required("ServiceCode", STRING),
            Member::optional("ResourceId", STRING),
            Member::optional("ResourceType", STRING),
        ],
    },
    ModelError {
        letter: 'I',
        name: "InternalServerException",
        status: 500,
        about: "The service failed; its log says why.",
        members: &[
            Member::required("Message", STRING),
            Member {
                name: "RetryAfterSeconds",
                at: crate::model::At::Header("Retry-After"),
                required: false,
                shape: RETRY_AFTER_SECONDS,
            },
        ],
    },
];

/// The error of a letter.
pub fn of(letter: char) -> Option<&'static ModelError> {
    ERRORS.iter().find(|e| e.letter == letter)
}
