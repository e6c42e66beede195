//! Where credentials come from: the only folder that names the AWS SDK crates.
//!
//! Owns: calling AWS once, and saying in our own words what came of it. Must not know: caches, queues, clients, or how
//! often it is called. Retries, budgets and memory are the flight's.

pub mod eks_auth;

use std::fmt;
use std::sync::Arc;

/// Why AWS gave no credentials, sorted by what it means for the caller.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// AWS looked at the request and said no. The pod's matter.
    #[error("AWS refused: {0}")]
    Refused(Refused),
    /// Too many calls, says AWS.
    #[error("AWS throttles")]
    Throttled,
    /// No answer, or one that says AWS is unwell.
    #[error("AWS could not be reached or is unwell: {0}")]
    Unavailable(Unavailable),
    /// The agent's own AWS identity is missing or was not taken. Never the pod's fault (design, invariant 7).
    #[error("the agent's own AWS credentials do not serve: {0}")]
    OwnIdentity(OwnIdentityFault),
}

/// A refusal that is about the pod or its association.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Which one.
    pub code: RefusedCode,
    /// AWS's sentence, shortened and without control characters.
    pub message: Arc<str>,
    /// AWS's request id, for a support case.
    pub request_id: Option<Arc<str>>,
}

/// The refusals of EKS Auth (botocore model, eks-auth 2023-11-26), all of them 400 but the one 404.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedCode {
    /// EKS may not assume the role, or the association is refused.
    AccessDenied,
    /// There is no association for this service account (or no such cluster).
    ResourceNotFound,
    /// The pod's token has expired.
    ExpiredToken,
    /// The pod's token is not one of this cluster.
    InvalidToken,
    /// A parameter is wrong.
    InvalidParameter,
    /// The request is wrong.
    InvalidRequest,
}

/// Ways in which AWS can be out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// No complete answer in time.
    Timeout,
    /// No connection: refused, reset, DNS, TLS.
    Connection,
    /// A 5xx.
    ServerError,
    /// An answer that is not EKS Auth's: a proxy's page, a wrong endpoint, JSON without credentials.
    Unreadable,
    /// The flight ended without an outcome: a fault of ours.
    Lost,
}

/// What is wrong with the agent's own identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnIdentityFault {
    /// There are no credentials to sign with.
    Missing,
    /// AWS did not take them: unknown, expired, badly signed, or not allowed to call EKS Auth.
    Rejected,
}

/// The longest message of AWS that is passed on, in characters.
const LONGEST_MESSAGE: usize = 400;

impl Refused {
    /// A refusal with AWS's own sentence, made fit for one line.
    pub fn new(code: RefusedCode, message: &str, request_id: Option<&str>) -> Self {
        let one_line = message.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self {
            code,
            message: one_line.take(LONGEST_MESSAGE).collect::<String>().into(),
            request_id: request_id.filter(|id| id.len() <= 128).map(Arc::from),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl RefusedCode {
    /// AWS's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::ExpiredToken => "ExpiredTokenException",
            Self::InvalidToken => "InvalidTokenException",
            Self::InvalidParameter => "InvalidParameterException",
            Self::InvalidRequest => "InvalidRequestException",
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no answer in time",
            Self::Connection => "no connection",
            Self::ServerError => "server error",
            Self::Unreadable => "an answer that is not EKS Auth's",
            Self::Lost => "the call was lost",
        })
    }
}

impl fmt::Display for OwnIdentityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there are none",
            Self::Rejected => "AWS did not accept them",
        })
    }
}

impl SourceError {
    /// The code, if it is a refusal.
    pub const fn refused_code(&self) -> Option<RefusedCode> {
        match self {
            Self::Refused(refused) => Some(refused.code),
            Self::Throttled | Self::Unavailable(_) | Self::OwnIdentity(_) => None,
        }
    }

    /// A label for metrics and logs; a closed set.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.code.as_str(),
            Self::Throttled => "throttled",
            Self::Unavailable(Unavailable::Timeout) => "timeout",
            Self::Unavailable(Unavailable::Connection) => "connection",
            Self::Unavailable(Unavailable::ServerError) => "server_error",
            Self::Unavailable(Unavailable::Unreadable) => "unreadable",
            Self::Unavailable(Unavailable::Lost) => "lost",
            Self::OwnIdentity(OwnIdentityFault::Missing) => "own_credentials_missing",
            Self::OwnIdentity(OwnIdentityFault::Rejected) => "own_credentials_rejected",
        }
    }
}
