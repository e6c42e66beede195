//! What a service account is given: a role, and how STS is asked for it.
//!
//! Owns: these three together. Must not know: whether an annotation or a map gave them.

use std::sync::Arc;
use std::time::Duration;

use crate::workload::{RoleArn, StsEndpoint};

/// The longest audience, in bytes. Kubernetes has no limit; the longest known ones are URLs.
const LONGEST_AUDIENCE: usize = 512;

/// A role, and how STS is asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoleSettings {
    /// The role.
    pub(super) role: RoleArn,
    /// The audience of the tokens that it is given for. `None`: the agent's default.
    pub(super) audience: Option<Arc<str>>,
    /// Which endpoint of STS is asked.
    pub(super) endpoint: StsEndpoint,
    /// How long tokens are to live. Nothing follows from it, because the kubelet has made the token before
    /// the agent sees it; only the log says so.
    pub(super) token_life: Option<Duration>,
}

impl RoleSettings {
    /// Whether the role is given for tokens of this audience. One that names none is for all that are served.
    pub(super) fn is_for(&self, audience: &str) -> bool {
        self.audience.as_deref().is_none_or(|named| named == audience)
    }
}

/// The shortest life of a token that Kubernetes issues, in seconds (KEP 1205, TokenRequest).
pub(super) const SHORTEST_TOKEN_LIFE: u64 = 600;

/// What is wrong with an audience, if anything.
pub(super) fn fault_of_audience(audience: &str) -> Option<&'static str> {
    let is_usable =
        audience.len() <= LONGEST_AUDIENCE && audience.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_usable).then_some("an audience has at most 512 printable ASCII characters and no space")
}
