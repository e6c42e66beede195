//! Who asks, by which route, and under which key the credentials are kept.
//!
//! Owns: that these three go together from the endpoint to the call and to what is remembered of it. Must not
//! know: what any of them is used for.

use super::caller::Caller;
use super::key::CredentialKey;
use super::route::Route;

/// Somebody who may be given credentials.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Under which its credentials are kept.
    pub key: CredentialKey,
    /// Who it is, or claims to be.
    pub caller: Caller,
    /// The way to its credentials.
    pub route: Route,
}

impl Principal {
    /// Whether a key of the cluster has proven who it is.
    pub const fn is_verified(&self) -> bool {
        matches!(self.key, CredentialKey::Verified(_))
    }
}
