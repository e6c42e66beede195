//! The records of identities, by key: two stores behind one interface (docs/design/decisions.md#stores).
//!
//! Owns: which store an identity belongs to. Must not know: whether a set is fresh enough to serve;
//! `policy::serving` judges that by the injected clock.
//!
//! Records of *verified* identities leave at the expiry of their set, and never to make room. Those of
//! *unverified* ones, which cost a stranger only a token that AWS accepts, live in an LRU of their own, with
//! a quota per peer. Both hold `--max-cache-size` at most: without keys every identity is unverified, and the
//! flag must mean what it meant.
//!
//! An identity has two names, the verified one and the digest of a token that earned a set; a look under one
//! that finds nothing looks under the other, so that keys which come late or go take nothing away
//! (docs/design/decisions.md#two-names).

mod links;
mod names;
pub mod recent_refusals;
pub mod schedule;
mod unverified;
mod verified;

use std::sync::Arc;

use self::links::Links;
use self::unverified::Unverified;
use self::verified::Verified;
use crate::clock::{Clock, Now};
use crate::config::Retention;
use crate::credentials::record::{Held, IdentityRecord};
use crate::lifecycle::limits::{Limit, Limits};
use crate::pods::Pods;
use crate::pods::check::uid_of;
use crate::workload::{CredentialKey, PeerKey, Principal, RoleArn, Route, ServiceAccount, TokenDigest};

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    /// `None`: no retention was asked for.
    records: Option<Arc<Records>>,
    clock: Clock,
    limits: Limits,
    pods: Pods,
}

struct Records {
    verified: Verified,
    unverified: Unverified,
    links: Links,
}

/// What happened to a newly issued set.
#[derive(Debug)]
pub struct Kept {
    /// The record of the identity, and the set that it is served from now on.
    pub held: Held,
    /// Whether it is kept: there may be no room, or no retention.
    pub is_kept: bool,
}

impl Store {
    /// An empty store.
    pub fn new(retention: &Retention, clock: Clock, limits: Limits, pods: Pods) -> Self {
        let records = match retention {
            Retention::Off => None,
            Retention::Keep { max_identities, .. } => Some(Arc::new(Records {
                verified: Verified::new(max_identities.get()),
                unverified: Unverified::new(max_identities.get(), clock.clone(), limits.clone()),
                links: Links::new(max_identities.get()),
            })),
        };
        Self { records, clock, limits, pods }
    }

    /// Whether anything is ever kept.
    pub fn keeps(&self) -> bool {
        self.records.is_some()
    }

    /// The record of an identity.
    pub fn get(&self, key: &CredentialKey) -> Option<Arc<IdentityRecord>> {
        let records = self.records.as_ref()?;
        match key {
            CredentialKey::Verified(_) => records.verified.get(key),
            CredentialKey::Unverified(_) => records.unverified.get(key),
        }
    }

    /// Whether this very record is here. One that made room lives on for a while: in moka, or with those who
    /// are being served. Does not count as use.
    pub fn holds(&self, record: &Arc<IdentityRecord>) -> bool {
        self.records.as_ref().is_some_and(|records| match record.key() {
            CredentialKey::Verified(_) => records.verified.holds(record),
            CredentialKey::Unverified(_) => !record.has_left_the_store(),
        })
    }

    /// The record of somebody who presents this token: under the name that it comes with or, if there is no
    /// living set, under its other one.
    pub fn lookup(&self, who: &Principal, token: TokenDigest, now: Now) -> Option<Arc<IdentityRecord>> {
        let lives = |record: &Arc<IdentityRecord>| !record.expiry().is_over(now);
        // A digest says nothing of the route: the role of an untimely token may have changed meanwhile.
        let own = self.get(&who.key).filter(|record| record.principal().route == who.route);
        if own.as_ref().is_some_and(lives) {
            return own;
        }
        let other = self.other_name(&who.key, token, now).and_then(|key| self.get(&key));
        other.filter(lives).filter(|record| record.principal().route == who.route).or(own)
    }

    /// Of the records of which `condition` holds, the one that was asked for last. Looks at all of them.
    pub fn last_asked(&self, condition: &dyn Fn(&IdentityRecord) -> bool) -> Option<Arc<IdentityRecord>> {
        let records = self.records.as_ref()?;
        let now = self.clock.now();
        let rank =
            |record: &Arc<IdentityRecord>| (record.last_asked(), record.due_at(now), record.expiry().boot);
        let all = records.verified.all(condition).into_iter().chain(records.unverified.all(condition));
        all.max_by_key(rank)
    }

    /// All records.
    pub fn all(&self) -> Vec<Arc<IdentityRecord>> {
        let Some(records) = &self.records else { return Vec::new() };
        let all = |_: &IdentityRecord| true;
        records.verified.all(&all).into_iter().chain(records.unverified.all(&all)).collect()
    }

    /// Keeps a newly issued set: in the record that its identity has, or in this new one. `peer` is charged
    /// for an unverified newcomer.
    pub fn keep(&self, newer: IdentityRecord, peer: Option<PeerKey>) -> Kept {
        let (now, newer) = (self.clock.now(), Arc::new(newer));
        let held = match (&self.records, newer.key()) {
            (None, _) => None,
            (Some(records), CredentialKey::Verified(_)) => {
                let held = records.verified.keep(&newer, now);
                if held.is_none() {
                    self.limits.reached(Limit::VerifiedIdentities);
                }
                held
            }
            (Some(records), CredentialKey::Unverified(_)) => Some(records.unverified.keep(&newer, peer, now)),
        };
        let is_kept = held.is_some() && !self.came_too_late(&newer);
        let held = held.unwrap_or_else(|| Held { credentials: newer.credentials(), record: newer });
        Kept { held, is_kept }
    }

    /// Whether its pod has gone while AWS was asked: then it is taken away again. After it was kept, so that
    /// either this sees that the pod is gone, or those who take away what it has see this.
    fn came_too_late(&self, record: &IdentityRecord) -> bool {
        let uid = uid_of(&record.principal().caller);
        uid.is_some_and(|uid| self.pods.is_gone(uid) && self.remove_pod(uid))
    }

    /// Takes away all that a pod has which is gone, by each of its names, and what tokens have earned that
    /// only claim to be its own. Whether there was anything. Looks at all records.
    pub fn remove_pod(&self, uid: &str) -> bool {
        let Some(records) = &self.records else { return false };
        let of_pod = |record: &IdentityRecord| uid_of(&record.principal().caller) == Some(uid);
        let had: Vec<_> =
            records.verified.all(&of_pod).into_iter().chain(records.unverified.all(&of_pod)).collect();
        for record in &had {
            record.revoke();
            self.remove(record);
        }
        records.links.remove_pod(uid);
        !had.is_empty()
    }

    /// Takes away what pods of a service account have of a role that is theirs no more. Looks at all records.
    pub fn remove_role(&self, account: &ServiceAccount, role: &RoleArn) {
        let Some(records) = &self.records else { return };
        let is_of_role = |record: &IdentityRecord| {
            let Principal { caller, route, .. } = record.principal();
            let of_account = caller.verified().is_some_and(|pod| pod.service_account == *account);
            of_account && matches!(route, Route::WebIdentity(wanted) if wanted.role == *role)
        };
        for record in records.verified.all(&is_of_role).into_iter().chain(records.unverified.all(&is_of_role))
        {
            record.revoke();
            self.remove(&record);
        }
    }

    /// Whether the cluster has reported, a moment ago, that this pod lives.
    pub(in crate::credentials) fn is_of_living_pod(&self, record: &IdentityRecord) -> bool {
        let pod = record.principal().caller.verified();
        pod.is_some_and(|pod| self.pods.lives(&pod.uid))
    }

    /// Forgets an identity if its set has expired, unless a newer one took its place.
    pub fn remove_expired(&self, key: &CredentialKey) {
        let now = self.clock.now();
        self.remove_if(key, &|record| record.expiry().is_surely_over(now));
    }

    /// Forgets all that have expired. Looks at all of them: for when AWS's answers have moved the time.
    pub fn forget_expired(&self) {
        if let Some(records) = &self.records {
            let now = self.clock.now();
            records.verified.tidy(now);
            records.unverified.forget_expired(now);
        }
    }

    /// Forgets this very record, because its pod is entitled to the set no more, by none of its names. With a
    /// verified pod go what tokens that claim to be its own have earned, and what its tokens find by
    /// themselves; with a token goes all that its pod has, by its link or by the claim, which its source has
    /// accepted: a claim is good enough to take away, never to give.
    pub fn remove(&self, record: &Arc<IdentityRecord>) {
        let of_pod = self.of_pod_behind(record.key()).or_else(|| self.of_claimed_pod(record.principal()));
        self.remove_if(record.key(), &|kept| Arc::ptr_eq(kept, record));
        match (&self.records, record.key()) {
            (Some(records), CredentialKey::Verified(pod)) => {
                records.links.remove(pod);
                records.unverified.remove_claimed(&pod.pod().uid);
            }
            (Some(records), CredentialKey::Unverified(token)) => records.links.remove_token(*token),
            (None, _) => {}
        }
        if let Some(of_pod) = of_pod {
            of_pod.revoke();
            self.remove(&of_pod);
        }
    }

    fn remove_if(&self, key: &CredentialKey, condition: &dyn Fn(&Arc<IdentityRecord>) -> bool) {
        let Some(records) = &self.records else { return };
        match key {
            CredentialKey::Verified(_) => records.verified.remove_if(key, condition),
            CredentialKey::Unverified(_) => records.unverified.remove_if(key, condition),
        }
    }

    /// How many identities are kept.
    pub fn len(&self) -> u64 {
        self.verified_len() + self.unverified_len()
    }

    /// How many of them are verified.
    pub fn verified_len(&self) -> u64 {
        self.records.as_ref().map_or(0, |records| records.verified.len())
    }

    /// How many are not.
    pub fn unverified_len(&self) -> u64 {
        self.records.as_ref().map_or(0, |records| records.unverified.len())
    }

    /// How many tokens find their pod's record by their digest.
    pub fn links(&self) -> usize {
        self.records.as_ref().map_or(0, |records| records.links.len())
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the expired, secrets and all. moka does nothing of the kind until somebody asks
    /// (docs/design/facts.md#moka).
    pub fn tidy(&self) {
        if let Some(records) = &self.records {
            records.verified.tidy(self.clock.now());
            records.unverified.tidy();
            records.links.tidy(self.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::{Arc, Weak};
    use std::time::{Duration, SystemTime};

    use super::Store;
    use crate::clock::{Clock, Teacher};
    use crate::config::Retention;
    use crate::credentials::issued::Grant;
    use crate::credentials::issued::tests::grant;
    use crate::credentials::record::IdentityRecord;
    use crate::credentials::record::tests::record;
    use crate::lifecycle::limits::{Limit, Limits};
    use crate::pods::Pods;
    use crate::workload::{
        BearerToken, CredentialKey, PeerKey, Pod, PresentedToken, Route, ServiceAccount, VerifiedKey,
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn store(max: usize) -> Store {
        let max_identities = NonZeroUsize::new(max).unwrap();
        let retention = Retention::Keep { renew_after: 3 * HOUR, max_identities };
        Store::new(&retention, Clock::system(), Limits::default(), Pods::unreported())
    }

    fn token(n: usize) -> BearerToken {
        BearerToken::from_header(format!("a.{n}.c").as_bytes()).unwrap()
    }

    fn key(n: usize) -> CredentialKey {
        CredentialKey::Unverified(token(n).digest())
    }

    fn expiring_in(life: Duration) -> SystemTime {
        #[expect(
            clippy::disallowed_methods,
            reason = "moka's own clock, which this test is about, is the real one"
        )]
        let now = SystemTime::now();
        now + life
    }

    fn held(n: usize, life: Duration) -> IdentityRecord {
        record(key(n), expiring_in(life), None, Clock::system().now())
    }

    #[test]
    fn moka_trap_1_a_renewed_set_outlives_the_deadline_of_the_old_one() {
        let store = store(10);
        store.keep(held(1, Duration::from_millis(200)), None);
        store.keep(held(1, HOUR), None);
        std::thread::sleep(Duration::from_millis(400));
        store.tidy();
        assert!(store.get(&key(1)).is_some());
    }

    #[test]
    fn moka_trap_3_expired_sets_leave_memory_when_the_store_is_tidied() {
        let store = store(10);
        let kept = store.keep(held(1, Duration::from_millis(100)), None);
        let watch: Weak<IdentityRecord> = Arc::downgrade(&kept.held.record);
        drop(kept);
        store.tidy();
        // moka looks at expiry in steps of about a second.
        std::thread::sleep(Duration::from_millis(2500));
        assert!(watch.upgrade().is_some(), "the trap: nobody asked, so moka did nothing");
        // moka frees in epochs that all threads of the process share, this one's neighbours in the test
        // included: what one round of housekeeping unlinks, a later one drops.
        let was_dropped = (0..250).any(|_| {
            store.tidy();
            std::thread::sleep(Duration::from_millis(20));
            watch.upgrade().is_none()
        });
        assert!(was_dropped, "still in memory after five seconds of housekeeping");
    }

    #[test]
    fn a_full_store_admits_the_newcomer_and_lets_the_least_recently_used_go() {
        let store = store(3);
        for n in 0..3 {
            store.keep(held(n, HOUR), None);
        }
        store.tidy();
        assert!(store.get(&key(0)).is_some(), "used again, so 1 is the oldest");
        store.keep(held(3, HOUR), None);
        store.tidy();
        assert_eq!(store.len(), 3);
        assert!(store.get(&key(3)).is_some());
        assert!(store.get(&key(1)).is_none());
    }

    #[test]
    fn of_two_sets_the_one_that_lives_longer_is_kept() {
        let store = store(3);
        store.keep(held(1, 2 * HOUR), None);
        store.keep(held(1, HOUR), None);
        assert!(store.get(&key(1)).unwrap().credentials().lifetime() > HOUR + HOUR / 2);
    }

    #[test]
    fn what_is_taken_away_counts_no_more_though_nobody_tidies() {
        let store = store(3);
        let first = store.keep(held(1, HOUR), None).held.record;
        store.keep(held(2, HOUR), None);
        assert_eq!(store.unverified_len(), 2);
        store.remove(&first);
        assert_eq!(store.unverified_len(), 1);
        // What a token earned is that of a pod which a key has proven.
        let second = store.get(&key(2)).unwrap();
        let pod = with(verified(2), HOUR, &a_grant());
        store.adopt(pod.principal(), &second).unwrap();
        assert_eq!((store.verified_len(), store.unverified_len()), (1, 0));
    }

    #[test]
    fn only_the_expired_are_removed() {
        let store = store(3);
        store.keep(held(1, Duration::from_secs(10)), None);
        store.keep(held(2, HOUR), None);
        store.remove_expired(&key(1));
        store.remove_expired(&key(2));
        assert!(store.get(&key(1)).is_none());
        assert!(store.get(&key(2)).is_some());
    }

    #[test]
    fn no_retention_keeps_nothing() {
        let store = Store::new(&Retention::Off, Clock::system(), Limits::default(), Pods::unreported());
        store.keep(held(1, HOUR), None);
        assert!(store.get(&key(1)).is_none());
    }

    fn verified(n: usize) -> CredentialKey {
        let service_account = ServiceAccount { namespace: "ns".into(), name: "sa".into(), uid: "sa".into() };
        let pod = Pod { service_account, name: "p".into(), uid: format!("pod-{n}").into(), node: None };
        CredentialKey::Verified(VerifiedKey::new("cluster".into(), Arc::new(pod), Route::EksAuth))
    }

    fn with(key: CredentialKey, life: Duration, grant: &Grant) -> IdentityRecord {
        record(key, expiring_in(life), Some(grant.clone()), Clock::system().now())
    }

    fn a_grant() -> Grant {
        grant("a-1", "arn:aws:sts::111122223333:assumed-role/app/eks-x")
    }

    #[test]
    fn a_verified_pod_never_makes_room_and_a_newcomer_at_the_bound_is_not_kept_but_counted() {
        let store = store(3);
        let put = |n| store.keep(with(verified(n), HOUR, &a_grant()), None).is_kept;
        assert!((0..3).all(put));
        assert!(!put(3), "no room");
        assert!((0..3).all(|n| store.get(&verified(n)).is_some()));
        assert!(store.get(&verified(3)).is_none());
        assert_eq!(store.limits.count(Limit::VerifiedIdentities), 1);
        assert!(put(2), "an identity that is kept may renew");
        store.keep(held(1, HOUR), None);
        assert!(store.get(&key(1)).is_some(), "the unverified have a store of their own");
    }

    #[test]
    fn what_has_expired_holds_no_place() {
        let store = store(1);
        assert!(store.keep(with(verified(1), Duration::from_secs(5), &a_grant()), None).is_kept);
        assert!(store.keep(with(verified(2), HOUR, &a_grant()), None).is_kept);
        assert!(store.get(&verified(1)).is_none());
        assert_eq!(store.verified_len(), 1);
    }

    #[test]
    fn unverified_newcomers_never_push_a_verified_pod_out() {
        let store = store(3);
        store.keep(with(verified(1), HOUR, &a_grant()), None);
        for n in 0..100 {
            store.keep(held(n, HOUR), None);
        }
        store.tidy();
        assert!(store.get(&verified(1)).is_some());
        assert_eq!(store.unverified_len(), 3);
        assert!(store.limits.count(Limit::UnverifiedIdentities) >= 97);
    }

    #[test]
    fn a_peer_keeps_sixteen_and_its_own_least_recently_used_makes_room() {
        let store = store(1000);
        let (noisy, quiet) = (peer(1), peer(2));
        store.keep(held(100, HOUR), Some(quiet));
        for n in 0..16 {
            store.keep(held(n, HOUR), Some(noisy));
        }
        let again = store.get(&key(0)).unwrap();
        again.asked(&again.token(), Clock::system().now());
        for n in 16..18 {
            store.keep(held(n, HOUR), Some(noisy));
        }
        let kept: Vec<usize> = (0..18).filter(|n| store.get(&key(*n)).is_some()).collect();
        assert_eq!(kept, [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
        assert!(store.get(&key(100)).is_some(), "another peer's is left alone");
        assert_eq!(store.limits.count(Limit::IdentitiesPerPeer), 2);
    }

    #[test]
    fn a_renewed_identity_counts_once_and_one_that_has_gone_not_at_all() {
        let store = store(1000);
        for _ in 0..40 {
            store.keep(held(1, HOUR), Some(peer(1)));
        }
        for n in 2..40 {
            let kept = store.keep(held(n, HOUR), Some(peer(1)));
            store.remove(&kept.held.record);
        }
        assert!(store.get(&key(1)).is_some());
        assert_eq!(store.limits.count(Limit::IdentitiesPerPeer), 0);
    }

    #[test]
    fn another_association_or_role_takes_the_place_at_once_even_if_it_expires_earlier() {
        let store = store(3);
        let other_association = grant("a-2", "arn:aws:sts::111122223333:assumed-role/app/eks-x");
        let other_role = Grant { role: "arn:aws:sts::111122223333:assumed-role/other".into(), ..a_grant() };
        for key in [key(1), verified(1)] {
            for grant in [&other_association, &other_role] {
                store.keep(with(key.clone(), 2 * HOUR, &a_grant()), None);
                store.keep(with(key.clone(), HOUR, grant), None);
                let kept = store.get(&key).unwrap();
                assert_eq!(kept.credentials().grant(), grant, "{key:?}");
            }
        }
    }

    #[test]
    fn only_the_very_record_is_removed() {
        let store = store(3);
        let old = store.keep(with(verified(1), HOUR, &a_grant()), None).held.record;
        store.remove(&old);
        assert!(store.get(&verified(1)).is_none());
        let new = store.keep(with(verified(1), HOUR, &a_grant()), None).held.record;
        store.remove(&old);
        assert!(store.get(&verified(1)).is_some());
        store.remove(&new);
        assert!(store.get(&verified(1)).is_none());
    }

    #[test]
    fn a_renewal_keeps_the_record_and_changes_its_set() {
        let store = store(3);
        for key in [key(1), verified(1)] {
            let first = store.keep(with(key.clone(), HOUR, &a_grant()), None).held;
            let second = store.keep(with(key, 2 * HOUR, &a_grant()), None).held;
            assert!(Arc::ptr_eq(&first.record, &second.record));
            assert!(!Arc::ptr_eq(&first.credentials, &second.credentials));
        }
    }

    #[test]
    fn links_are_bounded_and_leave_memory_with_their_tokens() {
        let store = store(3);
        // A doubtful time forgets nothing.
        let clock = &store.clock;
        clock.learn(Teacher::Service, clock.now().wall, clock.asking(), None);
        let links = || store.records.as_ref().unwrap().links.len();
        let granted = |n, life| {
            let token = PresentedToken { token: token(n), expires: expiring_in(life), issued: None };
            let set = held(n, HOUR).credentials().expiry();
            store.granted(&token, &verified(n), set);
        };
        (0..20).for_each(|n| granted(n, Duration::ZERO));
        assert!(links() <= 12);
        (0..20).for_each(|n| granted(n, HOUR));
        assert_eq!(links(), 12, "what is over makes room, what is not does not");
        let now = Clock::system().now();
        assert_eq!(store.other_name(&key(0), token(0).digest(), now), Some(verified(0)));
        assert_eq!(store.other_name(&key(19), token(19).digest(), now), None);
        store.granted(
            &PresentedToken { token: token(0), expires: now.wall, issued: None },
            &verified(0),
            held(0, HOUR).credentials().expiry(),
        );
        store.tidy();
        assert_eq!(links(), 11);
    }

    fn peer(n: u8) -> PeerKey {
        PeerKey::new(std::net::Ipv4Addr::new(10, 0, 0, n).into(), 1)
    }
}
