//! One line for each set of credentials that AWS issues, on the target `audit`: who got it, from where, by
//! which association and role.
//!
//! Owns: what such a line says. Must not know: secrets; it is given none. Nor how a line is written, or that
//! no level leaves it out: `telemetry` decides. What is served from memory has no line: it is the set of an
//! earlier one.

use std::sync::Arc;

use crate::clock::rfc3339;
use crate::credentials::cached::CachedCredentials;
use crate::credentials::flight::shared_call::FlightId;
use crate::credentials::issued::Grant;
use crate::credentials::receipt::Receipt;
use crate::credentials::record::Held;
use crate::telemetry::logging::AUDIT;
use crate::workload::{PeerKey, Principal};

/// Writes the lines.
#[derive(Clone, Debug)]
pub struct AuditLog {
    cluster: Arc<str>,
    node: Option<Arc<str>>,
}

/// A set that AWS has issued.
pub(in crate::credentials) struct Entry<'a> {
    /// Who got it.
    pub(in crate::credentials) principal: &'a Principal,
    /// The first peer that asked for it; `None`: only the schedule did.
    pub(in crate::credentials) asked_from: Option<PeerKey>,
    /// The call that brought it.
    pub(in crate::credentials) call: FlightId,
    /// Whether its identity had a set that was still alive.
    pub(in crate::credentials) is_renewal: bool,
    /// Who is served the set.
    pub(in crate::credentials) fate: Fate,
    /// The set.
    pub(in crate::credentials) credentials: &'a CachedCredentials,
    /// Its names.
    pub(in crate::credentials) receipt: &'a Receipt,
}

/// Who is served a set that AWS has issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::credentials) enum Fate {
    /// Its identity, until the next one.
    Cached,
    /// The requests that waited for it, and no others: there is no room, or no retention.
    NotCached,
    /// Nobody: an earlier one lives longer, or its identity has none any more.
    Discarded,
}

impl Fate {
    /// Of a set that the store was given: it is the one that is served now, or another one is.
    pub(in crate::credentials) fn of(issued: &Arc<CachedCredentials>, served: &Held, is_kept: bool) -> Self {
        match (Arc::ptr_eq(issued, &served.credentials), is_kept) {
            (true, true) => Self::Cached,
            (true, false) => Self::NotCached,
            (false, _) => Self::Discarded,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::NotCached => "not_cached",
            Self::Discarded => "discarded",
        }
    }
}

impl AuditLog {
    /// Of the agent of this cluster on this node, if its name is known.
    pub fn new(cluster: &str, node: Option<&str>) -> Self {
        Self { cluster: cluster.into(), node: node.map(Arc::from) }
    }

    /// AWS has issued a set. A verified pod is `pod.*`; what an unverified token says is `claimed.*`, so that
    /// nobody takes one for the other; what AWS verified is `granted.*`.
    pub(in crate::credentials) fn record(&self, entry: &Entry<'_>) {
        let Entry { principal, credentials, receipt, .. } = entry;
        let (pod, claimed) = (principal.caller.verified(), principal.caller.claimed());
        let grant: &Grant = credentials.grant();
        tracing::info!(
            target: AUDIT,
            event = if entry.is_renewal { "renewal" } else { "issue" },
            kept = entry.fate.as_str(),
            verified = pod.is_some(),
            source = principal.route.source().as_str(),
            cluster = &*self.cluster,
            node = self.node.as_deref(),
            peer.addr = entry.asked_from.map(tracing::field::display),
            pod.namespace = pod.map(|pod| &*pod.service_account.namespace),
            pod.service_account = pod.map(|pod| &*pod.service_account.name),
            pod.name = pod.map(|pod| &*pod.name),
            pod.uid = pod.map(|pod| &*pod.uid),
            pod.node = pod.and_then(|pod| pod.node.as_deref()),
            claimed.namespace = claimed.map(|pod| &*pod.namespace),
            claimed.service_account = claimed.map(|pod| &*pod.service_account),
            claimed.name = claimed.and_then(|pod| pod.name.as_deref()),
            claimed.uid = claimed.and_then(|pod| pod.uid.as_deref()),
            granted.namespace = receipt.namespace.as_deref(),
            granted.service_account = receipt.service_account.as_deref(),
            association = grant.association(),
            association_arn = receipt.association_arn.as_deref(),
            role = &*grant.role,
            session_arn = receipt.session_arn.as_deref(),
            account = grant.account_id(),
            access_key_id = receipt.access_key_id.as_deref(),
            expiration = rfc3339(credentials.expiry().wall),
            aws.request_id = receipt.request_id.as_deref(),
            call.id = %entry.call,
            "credentials issued"
        );
    }
}
