//! The key under which credentials are kept.
//!
//! Owns: what distinguishes one holder of credentials from every other. Must not know: how a holder is
//! verified.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::pod::Pod;
use super::route::Route;
use super::token::TokenDigest;

/// The key under which credentials are kept: a verified identity, or the very token that earned them.
///
/// There is no way to make one from a claim that nobody verified (invariant 1).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum CredentialKey {
    /// A proven pod.
    Verified(VerifiedKey),
    /// The token that AWS accepted.
    Unverified(TokenDigest),
}

/// A verified identity: cluster, route, namespace, service account uid and pod uid.
///
/// The token is not part of it: a rotated token of the same pod finds the same credentials. The names of pod
/// and service account are there for logs, and do not count: a key that counted the node claim, say, would
/// change when a newer Kubernetes begins to send it.
#[derive(Clone, Debug)]
pub struct VerifiedKey {
    cluster: Arc<str>,
    pod: Arc<Pod>,
    route: Route,
}

impl VerifiedKey {
    /// The key of a pod that has been proven.
    pub fn new(cluster: Arc<str>, pod: Arc<Pod>, route: Route) -> Self {
        Self { cluster, pod, route }
    }

    /// The pod.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The way by which it gets its credentials.
    pub fn route(&self) -> &Route {
        &self.route
    }

    fn parts(&self) -> (&str, &Route, &str, &str, &str) {
        let account = &self.pod.service_account;
        (&self.cluster, &self.route, &account.namespace, &account.uid, &self.pod.uid)
    }
}

impl PartialEq for VerifiedKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for VerifiedKey {}

impl Hash for VerifiedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified(key) => write!(f, "pod {}", key.pod.uid),
            Self::Unverified(digest) => write!(f, "token {digest}"),
        }
    }
}
