//! Why the agent's own credentials could not be loaded.
//!
//! Owns: the reasons, in words for the log and for readiness. Must not know: what is done about them.

use aws_credential_types::provider::error::CredentialsError;

/// Why no credentials could be loaded. One level; the chain is logged.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// IMDS did not give any.
    #[error("the instance metadata service gave no credentials")]
    Imds(#[source] CredentialsError),
    /// The file could not be read.
    #[error("the credentials file {path} cannot be read")]
    FileUnreadable {
        /// Which file.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is there, but has no complete credentials: half written, or another profile.
    #[error("the credentials file {path} has no complete credentials for profile {profile}")]
    FileIncomplete {
        /// Which file.
        path: String,
        /// Which profile.
        profile: String,
    },
    /// What came is expired already.
    #[error("the credentials that came have expired already")]
    Expired,
}
