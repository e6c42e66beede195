//! The nouns that all folders share: who a pod is, and under which key its credentials are held.
//!
//! Owns: names and identifiers. Must not know: HTTP, AWS SDKs, Kubernetes clients, or where any of this came from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Where SDKs look for the agent: 169.254.170.23 and fd00:ec2::23. No other address of a node is allowed for plain HTTP
/// by all of them (facts 1.4).
pub const WELL_KNOWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// Where an instance's metadata are, the node's credentials among them (EC2 user guide, "Instance metadata service").
pub const INSTANCE_METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The audience of tokens meant for EKS Pod Identity (EKS user guide, "How EKS Pod Identity works").
const POD_IDENTITY_AUDIENCE: &str = "pods.eks.amazonaws.com";

/// The audience of tokens meant for IAM roles for service accounts; those of the same pod are for another door.
const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";

/// For whom a token was issued, as far as this agent cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// EKS Pod Identity.
    PodIdentity,
    /// Nobody that this agent serves.
    Foreign,
}

/// A service account, as a token or the API server names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its UID; a service account deleted and made again has another.
    pub uid: Box<str>,
}

/// A pod, as a token or the API server names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// The service account it runs under; namespace included.
    pub service_account: ServiceAccount,
    /// Its name.
    pub name: Box<str>,
    /// Its UID; a pod made again under the same name has another.
    pub uid: Box<str>,
    /// The node it was bound to, where the token says so.
    pub node: Option<Box<str>>,
}

impl Audience {
    /// What the `aud` of a token amounts to.
    pub fn of(audiences: &[Box<str>]) -> Self {
        let is_pod_identity = audiences.iter().any(|audience| &**audience == POD_IDENTITY_AUDIENCE);
        if is_pod_identity { Self::PodIdentity } else { Self::Foreign }
    }

    /// Whether a token would open more than one door: whoever it is shown to at one could use it at the other.
    pub fn are_several_of_ours(audiences: &[Box<str>]) -> bool {
        let names = |wanted: &str| audiences.iter().any(|audience| &**audience == wanted);
        names(POD_IDENTITY_AUDIENCE) && names(WEB_IDENTITY_AUDIENCE)
    }
}

/// SHA-256 of a whole token. It names a token that nobody has verified, without being a secret itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub(crate) [u8; 32]);

impl fmt::Display for TokenDigest {
    /// The first 8 bytes in hex: enough to follow one token through the logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({self})")
    }
}

/// What distinguishes one verified holder of credentials from every other.
///
/// The token is not part of it: a rotated token of the same pod finds the same credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerifiedKey {
    /// The cluster that AWS was asked about.
    pub cluster: Box<str>,
    /// Which way credentials were got; the same pod may hold a set from each.
    pub source: CredentialSource,
    /// Namespace of pod and service account.
    pub namespace: Box<str>,
    /// UID of the service account.
    pub service_account_uid: Box<str>,
    /// UID of the pod.
    pub pod_uid: Box<str>,
}

/// The ways to credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialSource {
    /// `AssumeRoleForPodIdentity` of EKS Auth.
    EksAuth,
}

/// The key under which credentials are held: a verified identity, or the very token that earned them.
///
/// There is no way to make one from a claim that nobody verified (design, invariant 1).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum CredentialKey {
    /// Somebody proved to be this pod.
    Verified(Arc<VerifiedKey>),
    /// Somebody sent this token, and AWS took it.
    Unverified(TokenDigest),
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified(key) => write!(f, "pod {}", key.pod_uid),
            Self::Unverified(digest) => write!(f, "token {digest}"),
        }
    }
}

/// Who takes a share of what all have in common: everybody who calls from one address counts together (design 4.4).
///
/// Opaque on purpose: it says whose account something goes on, never who anybody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey {
    address: IpAddr,
    shares: usize,
}

impl PeerKey {
    /// Whoever calls from `address`, with so many times what one pod may have.
    pub fn new(address: IpAddr, shares: usize) -> Self {
        Self { address: address.to_canonical(), shares }
    }

    /// `limit` is what one pod may have; this is what the peer may.
    pub fn allowance(self, limit: usize) -> usize {
        limit.saturating_mul(self.shares)
    }
}
