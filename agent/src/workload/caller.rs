//! Who asks, and whether that is proven.
//!
//! Owns: the difference between a verified pod and a claim. Must not know: how either came about. It travels
//! with its request to the end, so that logs, refusals and calls under way name the pod and say whether it
//! was verified.

use std::sync::Arc;

use super::pod::{ClaimedPod, Pod};

/// Who asks for credentials.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A key of the cluster proves that it is this pod.
    Verified(Arc<Pod>),
    /// The token says so, and nobody has verified it.
    Claimed(Arc<ClaimedPod>),
    /// There is no token, or it names no pod.
    Unknown,
}

impl Caller {
    /// The pod, if it is proven.
    pub fn verified(&self) -> Option<&Pod> {
        match self {
            Self::Verified(pod) => Some(pod),
            Self::Claimed(_) | Self::Unknown => None,
        }
    }

    /// What the token claims, if that is not proven.
    pub fn claimed(&self) -> Option<&ClaimedPod> {
        match self {
            Self::Claimed(pod) => Some(pod),
            Self::Verified(_) | Self::Unknown => None,
        }
    }
}
