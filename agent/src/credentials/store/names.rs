//! The names of a pod: its own, which a key has proven, and the digests of tokens that earned a set by
//! themselves (docs/design/decisions.md#two-names).
//!
//! Owns: which records are of one pod, and what one of its names does to the others. Must not know: how long
//! a link lasts (`links`), or what is served. A claim is good enough to take away, never to give.

use std::sync::Arc;

use super::Store;
use crate::clock::Now;
use crate::credentials::policy::freshness::Expiry;
use crate::credentials::record::{Held, IdentityRecord};
use crate::lifecycle::limits::Limit;
use crate::pods::check::uid_of;
use crate::workload::{CredentialKey, PresentedToken, Principal, Route, TokenDigest};

impl Store {
    /// The other name of somebody who presents this token. A verified pod's is the token itself, under which
    /// it may have earned a set before a key could prove it. That of a token that nobody can verify (any
    /// more) is the pod that its source granted a set to for this very token; what the token claims does not
    /// count.
    pub fn other_name(&self, key: &CredentialKey, token: TokenDigest, now: Now) -> Option<CredentialKey> {
        match key {
            CredentialKey::Verified(pod) => Some(CredentialKey::Unverified(pod.route().name_of(token))),
            CredentialKey::Unverified(digest) => {
                self.records.as_ref()?.links.of(*digest, now).map(CredentialKey::Verified)
            }
        }
    }

    /// What the pod has that a source granted a set to for the token that this key stands for.
    pub(in crate::credentials) fn of_pod_behind(&self, key: &CredentialKey) -> Option<Arc<IdentityRecord>> {
        match key {
            CredentialKey::Verified(_) => None,
            CredentialKey::Unverified(digest) => {
                let pod = self.records.as_ref()?.links.of(*digest, self.clock.now())?;
                self.get(&CredentialKey::Verified(pod))
            }
        }
    }

    /// What a token has earned that nobody can verify, and that may not be shown to its source: the set of
    /// its pod, if that ends no later than the last one that its source granted to this very token. What a
    /// claim says does not count.
    pub(in crate::credentials) fn earned_by(&self, token: TokenDigest, now: Now) -> Option<Held> {
        let (pod, until) = self.records.as_ref()?.links.earned(token, now)?;
        let record = self.get(&CredentialKey::Verified(pod))?;
        let credentials = record.credentials();
        let is_its = credentials.expiry().left_at_most(now) <= until.left_at_most(now);
        let lives = !credentials.expiry().is_over(now) && !record.is_revoked();
        (is_its && lives).then_some(Held { record, credentials })
    }

    /// What the pod has that a token claims to be of, by the same route. Only to take away, and for a token
    /// that its source has accepted. Looks at all verified records.
    pub(in crate::credentials) fn of_claimed_pod(&self, who: &Principal) -> Option<Arc<IdentityRecord>> {
        match who.key {
            CredentialKey::Verified(_) => None,
            CredentialKey::Unverified(_) => {
                let (records, uid) = (self.records.as_ref()?, uid_of(&who.caller)?);
                let is_its =
                    |record: &IdentityRecord| is_of_pod(record, uid) && record.principal().route == who.route;
                records.verified.find(&is_its)
            }
        }
    }

    /// A source granted a set that ends at `set_expires` to this very token. Under a verified pod's name, the
    /// token is known to be of it from now on; under the token's own, for longer, if it was known already.
    pub(in crate::credentials) fn granted(
        &self,
        token: &PresentedToken,
        key: &CredentialKey,
        set_expires: Expiry,
    ) {
        match (&self.records, key) {
            (Some(records), CredentialKey::Verified(pod)) => {
                let name = pod.route().name_of(token.token.digest());
                records.links.add(name, token, pod, set_expires, self.clock.now());
            }
            (Some(records), CredentialKey::Unverified(name)) => {
                records.links.prolong(*name, set_expires, self.clock.now());
            }
            (None, _) => {}
        }
    }

    /// Whether the pod of this record was last asking by another name. The index of tokens may know nothing
    /// of it: it does not outlive what a token earned. So what a token claims decides, and only of a token
    /// that its source granted a set: a claim is good enough to take away, never to give. Looks at all
    /// records.
    pub(in crate::credentials) fn is_superseded(&self, record: &IdentityRecord) -> bool {
        let Some(records) = &self.records else { return false };
        let Principal { key, caller, route } = record.principal();
        let asked = record.last_asked();
        let is_later =
            |other: &IdentityRecord| other.principal().route == *route && other.last_asked() > asked;
        let later = match key {
            CredentialKey::Verified(pod) => {
                records.unverified.find(&|other| claims_to_be(other, &pod.pod().uid) && is_later(other))
            }
            CredentialKey::Unverified(_) => uid_of(caller)
                .and_then(|uid| records.verified.find(&|other| is_of_pod(other, uid) && is_later(other))),
        };
        later.is_some()
    }

    /// Whether this token, which found what its pod has by its digest alone, is to be judged by its source
    /// again. It is not for a while after that.
    pub(in crate::credentials) fn take_judgement(&self, token: TokenDigest, route: &Route, now: Now) -> bool {
        let name = route.name_of(token);
        self.records.as_ref().is_some_and(|records| records.links.take_judgement(name, now.boot))
    }

    /// A source refuses this token: it finds nothing by its digest alone any more that it has not earned
    /// itself.
    pub(in crate::credentials) fn token_refused(&self, token: TokenDigest, route: &Route) {
        let name = route.name_of(token);
        if let Some(records) = &self.records {
            records.links.refuse(name);
        }
        // No other token renews what this one earned by itself.
        if let Some(record) = self.get(&CredentialKey::Unverified(name)) {
            record.not_wanted();
        }
    }

    /// A key proves of which pod this token is, and the pod has a set: what the token earned by itself is
    /// renewed for nobody, or a pod that is gone would cost the calls of two.
    pub(in crate::credentials) fn asks_by_its_own_name(&self, token: TokenDigest, route: &Route) {
        // Most nodes always have their keys, and nothing is kept by tokens.
        let has_any = self.unverified_len() > 0;
        let record = has_any.then(|| self.get(&CredentialKey::Unverified(route.name_of(token)))).flatten();
        if let Some(record) = record {
            record.not_wanted();
        }
    }

    /// A key proves of which pod a token is: what the token earned is kept under the pod's own name from now
    /// on, for all its tokens. `None`: there is no room, or the pod has gone.
    pub(in crate::credentials) fn adopt(
        &self,
        pod: &Principal,
        earned: &Arc<IdentityRecord>,
    ) -> Option<Arc<IdentityRecord>> {
        let (records, now) = (self.records.as_ref()?, self.clock.now());
        let kept = self.get(&pod.key).filter(|kept| !kept.expiry().is_over(now));
        if kept.is_some() {
            // Another request of the pod was faster.
            return kept;
        }
        let newer = Arc::new(earned.renamed(pod.clone()));
        let Some(held) = records.verified.keep(&newer, now) else {
            self.limits.reached(Limit::VerifiedIdentities);
            return None;
        };
        self.granted(&earned.token(), &pod.key, earned.expiry());
        self.remove_if(earned.key(), &|kept| Arc::ptr_eq(kept, earned));
        // As with a set that is issued meanwhile: nobody would look for it by this name again.
        (!self.came_too_late(&held.record)).then_some(held.record)
    }

    /// AWS has just granted this set, the first of its name or the first of this association and role. What
    /// its pod has by another name, of another one, is of one that it has left. What its token claims decides
    /// here, and AWS has just accepted it: good enough to take away, never to give. Looks at all records of
    /// the other kind; most nodes have none.
    pub(in crate::credentials) fn remove_other_grants(&self, granted: &IdentityRecord) {
        let Some(records) = &self.records else { return };
        let Principal { key, caller, route } = granted.principal();
        let credentials = granted.credentials();
        let is_another = |record: &IdentityRecord| {
            record.principal().route == *route && record.credentials().grant() != credentials.grant()
        };
        let left = match key {
            CredentialKey::Verified(_) if self.unverified_len() == 0 => Vec::new(),
            CredentialKey::Verified(pod) => {
                let uid = &pod.pod().uid;
                records.unverified.all(&|record| claims_to_be(record, uid) && is_another(record))
            }
            CredentialKey::Unverified(_) => {
                let is_its =
                    |uid: &str| records.verified.all(&|record| is_of_pod(record, uid) && is_another(record));
                uid_of(caller).map_or_else(Vec::new, is_its)
            }
        };
        for record in left {
            self.remove_if(record.key(), &|kept| Arc::ptr_eq(kept, &record));
        }
    }
}

/// Whether the token of this record claims to be of that pod, or was proven to be and had times that only its
/// source could judge.
pub(super) fn claims_to_be(record: &IdentityRecord, pod_uid: &str) -> bool {
    uid_of(&record.principal().caller) == Some(pod_uid)
}

/// Whether a key has proven that this record is that pod's.
fn is_of_pod(record: &IdentityRecord, pod_uid: &str) -> bool {
    match record.key() {
        CredentialKey::Verified(key) => *key.pod().uid == *pod_uid,
        CredentialKey::Unverified(_) => false,
    }
}
