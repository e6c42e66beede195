//! Why the agent's own credentials could not be loaded.
//!
//! Owns: the reasons, worded for the log and for readiness. Must not know: how they are handled.

use std::fmt;

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;

/// Why no credentials could be loaded. Shows one level; the log shows the chain of causes.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// IMDS returned none.
    #[error("the instance metadata service returned no credentials{}", answered(*.refused))]
    Imds {
        /// The status of its last answer, if that was no success.
        refused: Option<u16>,
        /// What the SDK says.
        source: CredentialsError,
    },
    /// The file could not be read.
    #[error("the credentials file {path} cannot be read")]
    FileUnreadable {
        /// Which file.
        path: String,
        /// The error of the kernel.
        source: std::io::Error,
    },
    /// The file is not one of text, or has too much of it.
    #[error("the credentials file {path} {fault}")]
    FileUnfit {
        /// Which file.
        path: String,
        /// What is wrong with it.
        fault: Unfit,
    },
    /// The file exists but has no complete credentials: it is half written or lacks the profile.
    #[error(
        "the credentials file {path} has no complete credentials for profile {profile}{}",
        also(*.odd_line)
    )]
    FileIncomplete {
        /// Which file.
        path: String,
        /// Which profile.
        profile: String,
        /// A line that may be why.
        odd_line: Option<OddLine>,
    },
    /// The profile names another way to credentials, which the agent does not use.
    #[error("profile {profile} of {path} has no access key but {setting}, which the agent does not use")]
    OtherWay {
        /// Which file.
        path: String,
        /// Which profile.
        profile: String,
        /// The setting that names the way.
        setting: &'static str,
    },
    /// The loaded credentials are expired.
    #[error("the loaded credentials have already expired")]
    Expired,
}

/// Why the instance metadata service gave no value. Shows one level.
#[derive(Debug, thiserror::Error)]
#[error("the instance metadata service did not return {path}{}", answered(*.refused))]
pub struct NoValue {
    /// Which value.
    pub path: &'static str,
    /// The status of its last answer, if that was no success.
    pub refused: Option<u16>,
    /// What the SDK says; it is large.
    pub source: Box<ImdsError>,
}

/// What is wrong with a file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is longer than what is read.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// It was saved as UTF-8 with a mark, or as UTF-16.
    #[error("begins with a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    /// It is written at this moment, or no text.
    #[error("contains a NUL byte")]
    Nul,
    /// It is no text.
    #[error("is not UTF-8 text")]
    NotText,
}

/// The number of a line that is no line of a credentials file. The line itself may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OddLine(pub usize);

impl fmt::Display for OddLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is not `name = value` or `[profile]`", self.0)
    }
}

fn also(odd_line: Option<OddLine>) -> String {
    odd_line.map_or_else(String::new, |line| format!(": {line}"))
}

fn answered(refused: Option<u16>) -> String {
    refused.map_or_else(String::new, |status| format!(" (it answered {status})"))
}
