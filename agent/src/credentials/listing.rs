//! Who has credentials, wants them, or was refused lately: for `status`.
//!
//! Owns: which identities are listed, in which order, and how many. Must not know: how they are shown. Only
//! what is listed is copied, and of a set only what it was issued for and when it ends: never a key, a token
//! or a piece of one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{BootTime, Now, rfc3339};
use crate::credentials::assemble::Credentials;
use crate::credentials::issued::GrantOrigin;
use crate::credentials::policy::renewing::Demand;
use crate::credentials::record::IdentityRecord;
use crate::credentials::source::SourceError;
use crate::credentials::store::recent_refusals::RefusedIdentity;
use crate::status::snapshot::{Holding, Identity, LastError, Listing, Utc};
use crate::workload::{Caller, CredentialKey, Principal, Route};

/// What all listed identities may take as JSON, in bytes: 1,000 with the longest names and sentences.
const MAX_BYTES: usize = 4 << 20;

/// An identity, as little of it as it can be sorted by.
enum Entry {
    Held(Arc<IdentityRecord>),
    Refused(Box<RefusedIdentity>),
    Waiting(Box<(Principal, Option<SourceError>)>),
}

impl Credentials {
    /// The first `most` identities by namespace, service account and pod. Looks at all of them, so it is not
    /// for the event loop.
    pub fn identities(&self, most: usize) -> Listing {
        let now = self.clock.now();
        let mut entries = self.entries(now);
        entries.sort_by(|one, other| one.place().cmp(&other.place()));
        let mut listing = Listing { left_out: entries.len(), ..Listing::default() };
        let mut bytes = 0;
        for entry in entries.iter().take(most) {
            let identity = entry.listed(now);
            bytes += serde_json::to_vec(&identity).map_or(MAX_BYTES, |json| json.len() + 1);
            if bytes > MAX_BYTES {
                break;
            }
            listing.identities.push(identity);
            listing.left_out -= 1;
        }
        listing
    }

    /// Each identity once: what it has counts before what it was refused, and that before its waiting.
    fn entries(&self, now: Now) -> Vec<Entry> {
        let held: Vec<_> =
            self.store.all().into_iter().filter(|record| !record.expiry().is_over(now)).collect();
        let mut seen: HashSet<CredentialKey> = held.iter().map(|record| record.key().clone()).collect();
        let mut entries: Vec<_> = held.into_iter().map(Entry::Held).collect();
        for refused in self.refusals.all() {
            if seen.insert(refused.principal.key.clone()) {
                entries.push(Entry::Refused(Box::new(refused)));
            }
        }
        for waiting in self.flights.waiting() {
            if seen.insert(waiting.0.key.clone()) {
                entries.push(Entry::Waiting(Box::new(waiting)));
            }
        }
        entries
    }
}

impl Entry {
    fn principal(&self) -> &Principal {
        match self {
            Self::Held(record) => record.principal(),
            Self::Refused(refused) => &refused.principal,
            Self::Waiting(waiting) => &waiting.0,
        }
    }

    /// What it is sorted by: namespace, service account, pod, and its source.
    fn place(&self) -> (&str, &str, &str, &'static str) {
        let Principal { caller, route, .. } = self.principal();
        let source = route.source().as_str();
        match caller {
            Caller::Verified(pod) => {
                (&pod.service_account.namespace, &pod.service_account.name, &pod.name, source)
            }
            Caller::Claimed(pod) => {
                (&pod.namespace, &pod.service_account, pod.name.as_deref().unwrap_or_default(), source)
            }
            Caller::Unknown => ("", "", "", source),
        }
    }

    fn listed(&self, now: Now) -> Identity {
        let (namespace, service_account, pod, source) = self.place();
        let Principal { caller, route, .. } = self.principal();
        let identity = Identity {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            pod: Some(pod).filter(|pod| !pod.is_empty()).map(str::to_owned),
            verified: caller.verified().is_some(),
            source: source.to_owned(),
            configured_role: configured_role(route),
            ..Identity::default()
        };
        match self {
            Self::Held(record) => with_credentials(identity, record, now),
            Self::Refused(refused) => {
                let error = SourceError::Refused(refused.refusal.clone());
                let last_error = Some(last_error(&error, was_at(refused.at, now)));
                Identity { holding: Holding::Refused, last_error, ..identity }
            }
            Self::Waiting(waiting) => {
                let last_error = waiting.1.as_ref().map(|error| last_error(error, None));
                Identity { holding: Holding::Waiting, last_error, ..identity }
            }
        }
    }
}

fn configured_role(route: &Route) -> Option<String> {
    match route {
        Route::EksAuth => None,
        Route::WebIdentity(wanted) => Some(wanted.role.to_string()),
    }
}

fn with_credentials(identity: Identity, record: &IdentityRecord, now: Now) -> Identity {
    let credentials = record.credentials();
    let grant = credentials.grant();
    let (association, configured_role) = match &grant.origin {
        GrantOrigin::Association(id) => (Some(id.to_string()), identity.configured_role),
        // What the credentials are of: the cluster may give another role by now.
        GrantOrigin::Role(role) => (None, Some(role.to_string())),
    };
    let failure = record.last_failure();
    Identity {
        holding: Holding::Credentials,
        association,
        configured_role,
        role: Some(grant.role.to_string()),
        valid_until: rfc3339(credentials.expiry().wall),
        next_renewal: next_renewal(record, now),
        failed_renewals: record.failed_renewals(),
        last_error: failure.map(|failure| last_error(&failure.error, was_at(failure.at, now))),
        ..identity
    }
}

/// `None`: nobody has asked since the set came, or no token is left to renew it with.
fn next_renewal(record: &IdentityRecord, now: Now) -> Option<Utc> {
    let has_token = !now.is_surely_past(record.token().expires);
    let is_wanted = match record.demand() {
        Demand::Somebody | Demand::FailedOnce => true,
        Demand::Nobody | Demand::RenewedOnce => false,
    };
    let at = record.planned_check().unwrap_or_else(|| record.due_at(now));
    (has_token && is_wanted).then(|| rfc3339(now.wall + at.since(now.boot))).flatten()
}

fn last_error(error: &SourceError, at: Option<SystemTime>) -> LastError {
    let message = match error {
        SourceError::Refused(refusal) => refusal.message.to_string(),
        SourceError::Throttled | SourceError::Unavailable(_) | SourceError::OwnIdentity(_) => {
            error.to_string()
        }
    };
    LastError { code: error.label().to_owned(), message, at: at.and_then(rfc3339) }
}

/// A moment that the boot clock has seen.
fn was_at(at: BootTime, now: Now) -> Option<SystemTime> {
    let ago: Duration = now.boot.since(at);
    now.wall.checked_sub(ago)
}
