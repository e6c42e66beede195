//! The errors of EKS Auth: code, status and where they stand in the answer.
//!
//! Owns: the table of docs/design/facts.md#eks-auth-errors and the 403 family that stands before every AWS
//! service. The same code can mean two things: ExpiredTokenException is the pod's token with 400, the
//! caller's own credentials with 403. Must not know: who is refused for what.

use http::StatusCode;
use serde_json::{Value, json};

use crate::aws::iam::registry::IamError;
use crate::aws::sigv4::SignatureError;
use crate::http::message::Reply;
use crate::options::ErrorCodePlace;

/// An error that the sandbox's EKS Auth gives of its own accord; faults can give any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    // About the request: modelled errors.
    AccessDenied,
    ExpiredToken,
    InvalidParameter,
    InvalidToken,
    ResourceNotFound,
    InternalServer,
    // About the message itself.
    Serialization,
    UnknownOperation,
    // About the caller: the twins, all 403.
    NotAuthorized,
    CallerExpired,
    IncompleteSignature,
    InvalidSignature,
    MissingAuthenticationToken,
    UnrecognizedClient,
}

impl Code {
    fn status_and_name(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::AccessDenied => (S::BAD_REQUEST, "AccessDeniedException"),
            Self::ExpiredToken => (S::BAD_REQUEST, "ExpiredTokenException"),
            Self::InvalidParameter => (S::BAD_REQUEST, "InvalidParameterException"),
            Self::InvalidToken => (S::BAD_REQUEST, "InvalidTokenException"),
            Self::ResourceNotFound => (S::NOT_FOUND, "ResourceNotFoundException"),
            Self::InternalServer => (S::INTERNAL_SERVER_ERROR, "InternalServerException"),
            Self::Serialization => (S::BAD_REQUEST, "SerializationException"),
            Self::UnknownOperation => (S::NOT_FOUND, "UnknownOperationException"),
            Self::NotAuthorized => (S::FORBIDDEN, "AccessDeniedException"),
            Self::CallerExpired => (S::FORBIDDEN, "ExpiredTokenException"),
            Self::IncompleteSignature => (S::FORBIDDEN, "IncompleteSignatureException"),
            Self::InvalidSignature => (S::FORBIDDEN, "InvalidSignatureException"),
            Self::MissingAuthenticationToken => (S::FORBIDDEN, "MissingAuthenticationTokenException"),
            Self::UnrecognizedClient => (S::FORBIDDEN, "UnrecognizedClientException"),
        }
    }
}

/// A refusal with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: Code,
    message: String,
}

impl Refused {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn reply(&self, place: ErrorCodePlace) -> Reply {
        let (status, name) = self.code.status_and_name();
        reply(status, name, &self.message, place)
    }
}

impl From<SignatureError> for Refused {
    fn from(error: SignatureError) -> Self {
        let code = match error {
            SignatureError::Missing => Code::MissingAuthenticationToken,
            SignatureError::Incomplete(_) => Code::IncompleteSignature,
            SignatureError::Scope(_) | SignatureError::Skew(_) | SignatureError::Mismatch => {
                Code::InvalidSignature
            }
            SignatureError::UnknownKey => Code::UnrecognizedClient,
            SignatureError::Expired => Code::CallerExpired,
        };
        Self::new(code, error.to_string())
    }
}

/// IAM itself could not be asked.
impl From<IamError> for Refused {
    fn from(error: IamError) -> Self {
        Self::new(Code::InternalServer, error.to_string())
    }
}

/// An error as rest-json writes it.
pub(super) fn reply(status: StatusCode, code: &str, message: &str, place: ErrorCodePlace) -> Reply {
    let with = |body: Value| Reply::json(&body).status(status).code(code);
    match place {
        ErrorCodePlace::Header => with(json!({ "message": message })).header("x-amzn-errortype", code),
        ErrorCodePlace::BodyCode => with(json!({ "code": code, "message": message })),
        ErrorCodePlace::BodyType => with(json!({ "__type": code, "message": message })),
    }
}
