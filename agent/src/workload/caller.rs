//! Who asks, and whether that is proven.
//!
//! Owns: the difference between a verified pod and a claim. Must not know: how either came about. It travels
//! with its request to the end, so that logs, refusals and calls under way name the pod and say whether it
//! was verified.

use std::sync::Arc;

use super::pod::{ClaimedPod, Pod, ServiceAccountName};

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

    /// Its service account, or the one that it claims.
    pub fn service_account(&self) -> Option<ServiceAccountName> {
        let (namespace, name) = match self {
            Self::Verified(pod) => (&pod.service_account.namespace, &pod.service_account.name),
            Self::Claimed(claimed) => (&claimed.namespace, &claimed.service_account),
            Self::Unknown => return None,
        };
        Some(ServiceAccountName { namespace: namespace.clone(), name: name.clone() })
    }

    /// What the token claims, if that is not proven.
    pub fn claimed(&self) -> Option<&ClaimedPod> {
        match self {
            Self::Claimed(pod) => Some(pod),
            Self::Verified(_) | Self::Unknown => None,
        }
    }
}
