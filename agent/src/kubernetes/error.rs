//! Why the API server gives no answer that can be used.
//!
//! Owns: the kinds, and their sentences. Must not know: what was asked, or what follows.

use http::StatusCode;

use super::DEADLINE;
use super::said::Said;

/// Why the API server gives no answer that can be used. What others say in it quotes no token.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// URL, token or certificates cannot be used.
    #[error("the connection to the API server cannot be set up: {0}")]
    SetUp(Said),
    /// The URL is invalid.
    #[error("the URL of the API server is invalid")]
    Url,
    /// No connection, or it broke.
    #[error("the API server cannot be reached: {0}")]
    Send(Said),
    /// The answer is longer than it may be.
    #[error("the API server's answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer broke off.
    #[error("the API server's answer broke off: {0}")]
    Body(Said),
    /// The answer is not what is at that path.
    #[error("the API server's answer for {path} cannot be read: {why}")]
    Unreadable {
        /// What was asked for.
        path: Box<str>,
        /// What its parser says.
        why: Said,
    },
    /// Another status than 200, and no word of Kubernetes: something on the way may have answered.
    #[error("the API server answered {path} with status {status}")]
    Status {
        /// What was asked for.
        path: Box<str>,
        /// The status.
        status: StatusCode,
    },
    /// It says in its own words why not.
    #[error("the API server refuses to answer {path}: {said} ({status})")]
    Refused {
        /// What was asked for.
        path: Box<str>,
        /// The status.
        status: StatusCode,
        /// Its sentence.
        said: Said,
        /// What it has not found, if that is why.
        missing: Option<Missing>,
    },
    /// The deadline has passed.
    #[error("the API server did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

/// What Kubernetes says that it does not have. A status of 404 alone is none: paths that are not served,
/// and proxies, answer with that too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The kind, in the plural as in its path.
    pub kind: String,
    /// The name.
    pub name: String,
}

impl ApiError {
    /// Whether Kubernetes itself says that the agent may not. A status of 403 alone says nothing of rights:
    /// proxies answer with that too.
    pub(super) fn is_forbidden(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status == StatusCode::FORBIDDEN,
            Self::Status { .. }
            | Self::SetUp(_)
            | Self::Url
            | Self::Send(_)
            | Self::TooLong(_)
            | Self::Body(_)
            | Self::Unreadable { .. }
            | Self::Timeout => false,
        }
    }

    /// What the API server has answered, if it has.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } | Self::Refused { status, .. } => Some(*status),
            Self::SetUp(_)
            | Self::Url
            | Self::Send(_)
            | Self::TooLong(_)
            | Self::Body(_)
            | Self::Unreadable { .. }
            | Self::Timeout => None,
        }
    }
}
