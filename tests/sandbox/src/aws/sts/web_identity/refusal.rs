//! The errors of `AssumeRoleWithWebIdentity`: code, status and text.
//!
//! Owns: the table (botocore's model of STS, and the common errors of AWS). Must not know: who is refused for
//! what.

use http::StatusCode;

use crate::aws::iam::registry::IamError;
use crate::aws::sts::query;
use crate::http::message::Reply;

/// An error that the sandbox's STS gives of its own accord; faults can give any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    AccessDenied,
    ExpiredToken,
    InternalFailure,
    InvalidIdentityToken,
    MalformedPolicyDocument,
    PackedPolicyTooLarge,
    RegionDisabled,
    ValidationError,
}

impl Code {
    fn status_and_name(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::AccessDenied => (S::FORBIDDEN, "AccessDenied"),
            Self::ExpiredToken => (S::BAD_REQUEST, "ExpiredTokenException"),
            Self::InternalFailure => (S::INTERNAL_SERVER_ERROR, "InternalFailure"),
            Self::InvalidIdentityToken => (S::BAD_REQUEST, "InvalidIdentityToken"),
            Self::MalformedPolicyDocument => (S::BAD_REQUEST, "MalformedPolicyDocument"),
            Self::PackedPolicyTooLarge => (S::BAD_REQUEST, "PackedPolicyTooLarge"),
            Self::RegionDisabled => (S::FORBIDDEN, "RegionDisabledException"),
            Self::ValidationError => (S::BAD_REQUEST, "ValidationError"),
        }
    }
}

/// A refusal with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn reply(&self) -> Reply {
        let (status, name) = self.code.status_and_name();
        query::error(status, name, &self.message)
    }
}

/// IAM itself could not be asked.
impl From<IamError> for Refused {
    fn from(error: IamError) -> Self {
        Self::new(Code::InternalFailure, error.to_string())
    }
}
