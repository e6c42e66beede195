//! The errors of EKS's API.
//!
//! Owns: codes, statuses and members as botocore's model of `eks` has them, and the 403 family that stands
//! before every AWS service. Must not know: who is refused for what.

use http::StatusCode;
use serde_json::{Map, Value};

use crate::aws::sigv4::SignatureError;
use crate::http::message::Reply;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    // Modelled.
    InvalidParameter,
    InvalidRequest,
    ResourceInUse,
    ResourceLimitExceeded,
    ResourceNotFound,
    Server,
    // About the message itself.
    Serialization,
    UnknownOperation,
    // About the caller.
    NotAuthorized,
    Expired,
    IncompleteSignature,
    InvalidSignature,
    MissingAuthenticationToken,
    UnrecognizedClient,
}

impl Code {
    fn status_and_name(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidParameter => (S::BAD_REQUEST, "InvalidParameterException"),
            Self::InvalidRequest => (S::BAD_REQUEST, "InvalidRequestException"),
            Self::ResourceInUse => (S::CONFLICT, "ResourceInUseException"),
            Self::ResourceLimitExceeded => (S::BAD_REQUEST, "ResourceLimitExceededException"),
            Self::ResourceNotFound => (S::NOT_FOUND, "ResourceNotFoundException"),
            Self::Server => (S::INTERNAL_SERVER_ERROR, "ServerException"),
            Self::Serialization => (S::BAD_REQUEST, "SerializationException"),
            Self::UnknownOperation => (S::NOT_FOUND, "UnknownOperationException"),
            Self::NotAuthorized => (S::FORBIDDEN, "AccessDeniedException"),
            Self::Expired => (S::FORBIDDEN, "ExpiredTokenException"),
            Self::IncompleteSignature => (S::FORBIDDEN, "IncompleteSignatureException"),
            Self::InvalidSignature => (S::FORBIDDEN, "InvalidSignatureException"),
            Self::MissingAuthenticationToken => (S::FORBIDDEN, "MissingAuthenticationTokenException"),
            Self::UnrecognizedClient => (S::FORBIDDEN, "UnrecognizedClientException"),
        }
    }
}

/// A refusal with its text, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    code: Code,
    message: String,
    addon: Option<String>,
}

impl Refused {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), addon: None }
    }

    /// An argument that EKS does not take.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameter, message)
    }

    /// The same, about an add-on.
    pub(super) fn of_addon(self, name: &str) -> Self {
        Self { addon: Some(name.to_owned()), ..self }
    }

    /// As rest-json writes it, with the members of the model that are known.
    pub(super) fn reply(&self, cluster: Option<&str>) -> Reply {
        let (status, code) = self.code.status_and_name();
        let mut body = Map::from_iter([("message".to_owned(), Value::from(self.message.clone()))]);
        let about = [("clusterName", cluster), ("addonName", self.addon.as_deref())];
        body.extend(about.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
        reply(status, code, &Value::Object(body))
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
            SignatureError::Expired => Code::Expired,
        };
        Self::new(code, error.to_string())
    }
}

/// An error with any body.
pub(super) fn reply(status: StatusCode, code: &str, body: &Value) -> Reply {
    Reply::json(body).status(status).code(code).header("x-amzn-errortype", code)
}
