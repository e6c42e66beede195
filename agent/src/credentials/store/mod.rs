//! The credentials in hand, by identity: two stores behind one door (design 4.4).
//!
//! Owns: which store an identity belongs to, and which of two sets is kept. Must not know: whether a set is fresh enough
//! to serve; `decide` judges that by the injected clock.
//!
//! *Verified* sets leave at their expiry and for nobody else's sake. *Unverified* ones, which cost a stranger only a
//! token that AWS takes, live in an LRU of their own, with a quota per peer. Both hold `--max-cache-size` at most: without
//! keys every identity is unverified, and the flag must mean what it meant.

pub mod recent_refusals;
pub mod schedule;
mod unverified;
mod verified;

use std::sync::Arc;

use self::unverified::Unverified;
use self::verified::Verified;
use crate::clock::{Clock, Now};
use crate::config::Retention;
use crate::credentials::held::{Held, MIN_REMAINING_LIFE};
use crate::lifecycle::limits::{Limit, Limits};
use crate::planted::{self, Bug};
use crate::workload::{CredentialKey, PeerKey};

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    /// `None`: no retention was asked for.
    sets: Option<Arc<Sets>>,
    clock: Clock,
    bounds: Limits,
}

struct Sets {
    verified: Verified,
    unverified: Unverified,
}

impl Store {
    /// An empty store.
    pub fn new(retention: &Retention, clock: Clock, bounds: Limits) -> Self {
        let sets = match retention {
            Retention::Off => None,
            Retention::Keep { max_identities, .. } => Some(Arc::new(Sets {
                verified: Verified::new(max_identities.get()),
                unverified: Unverified::new(max_identities.get(), clock.clone(), bounds.clone()),
            })),
        };
        Self { sets, clock, bounds }
    }

    /// Whether anything is ever kept.
    pub fn keeps(&self) -> bool {
        self.sets.is_some()
    }

    /// What is held for an identity.
    pub fn get(&self, key: &CredentialKey) -> Option<Arc<Held>> {
        let sets = self.sets.as_ref()?;
        match key {
            CredentialKey::Verified(_) => sets.verified.get(key),
            CredentialKey::Unverified(_) => sets.unverified.get(key),
        }
    }

    /// Any set of which `condition` holds. Looks at all of them, so not for every request.
    pub fn find(&self, condition: &dyn Fn(&Held) -> bool) -> Option<Arc<Held>> {
        let sets = self.sets.as_ref()?;
        sets.verified.find(condition).or_else(|| sets.unverified.find(condition))
    }

    /// Takes a set in hand; `peer` is on whose account an unverified newcomer goes. Of two sets the one that expires later
    /// is kept, because answers may overtake one another, but a set of another association or role takes the place at
    /// once. `false`: there is no room, and it was not kept.
    pub fn put(&self, held: Arc<Held>, peer: Option<PeerKey>) -> bool {
        let Some(sets) = &self.sets else { return false };
        let now = self.clock.now();
        match held.key() {
            CredentialKey::Verified(_) => {
                let is_kept = sets.verified.put(held, now);
                if !is_kept {
                    self.bounds.reached(Limit::VerifiedIdentities);
                }
                is_kept
            }
            CredentialKey::Unverified(_) => {
                sets.unverified.put(held, peer, now);
                true
            }
        }
    }

    /// Lets go of a set that has expired, unless a newer one took its place.
    pub fn remove_expired(&self, key: &CredentialKey) {
        let now = self.clock.now();
        self.remove_if(key, &|held| held.expiry().left(now) < MIN_REMAINING_LIFE);
    }

    /// Lets go of this very set, because its pod is entitled to it no more.
    pub fn remove(&self, set: &Arc<Held>) {
        self.remove_if(set.key(), &|held| Arc::ptr_eq(held, set));
    }

    fn remove_if(&self, key: &CredentialKey, condition: &dyn Fn(&Arc<Held>) -> bool) {
        let Some(sets) = &self.sets else { return };
        match key {
            CredentialKey::Verified(_) => sets.verified.remove_if(key, condition),
            CredentialKey::Unverified(_) => sets.unverified.remove_if(key, condition),
        }
    }

    /// How many sets are held.
    pub fn len(&self) -> u64 {
        self.verified_len() + self.unverified_len()
    }

    /// How many of them are of verified identities.
    pub fn verified_len(&self) -> u64 {
        self.sets.as_ref().map_or(0, |sets| sets.verified.len())
    }

    /// How many are of unverified ones.
    pub fn unverified_len(&self) -> u64 {
        self.sets.as_ref().map_or(0, |sets| sets.unverified.len())
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets the expired go, secrets and all. moka does nothing of the kind until somebody asks (facts 5).
    pub fn tidy(&self) {
        if let Some(sets) = &self.sets {
            sets.verified.tidy(self.clock.now());
            sets.unverified.tidy();
        }
    }
}

/// Which of two sets of one identity is kept.
fn better(earlier: Arc<Held>, newer: Arc<Held>, now: Now) -> Arc<Held> {
    if earlier.grant() != newer.grant() {
        let (was, is) = (earlier.grant(), newer.grant());
        tracing::info!(
            key = ?newer.key(),
            association.was = &*was.association_id,
            association.is = &*is.association_id,
            role.was = &*was.role,
            role.is = &*is.role,
            "the role has changed; the new credentials are served from now on"
        );
    } else if planted::is_on(Bug::KeepsTheOlder) || earlier.expiry().left(now) > newer.expiry().left(now) {
        return earlier;
    }
    newer.inherit(&earlier);
    newer
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::{Arc, Weak};
    use std::time::{Duration, SystemTime};

    use super::Store;
    use crate::clock::Clock;
    use crate::config::Retention;
    use crate::credentials::held::Held;
    use crate::credentials::model::Grant;
    use crate::credentials::model::tests::issued;
    use crate::identity::{BearerToken, PresentedToken};
    use crate::lifecycle::limits::{Limit, Limits};
    use crate::workload::{CredentialKey, CredentialSource, PeerKey, VerifiedKey};

    const HOUR: Duration = Duration::from_secs(3600);

    fn store(max: usize) -> Store {
        let max_identities = NonZeroUsize::new(max).unwrap();
        let retention = Retention::Keep { renew_after: 3 * HOUR, max_identities };
        Store::new(&retention, Clock::system(), Limits::default())
    }

    fn token(n: usize) -> BearerToken {
        BearerToken::from_header(format!("a.{n}.c").as_bytes()).unwrap()
    }

    fn key(n: usize) -> CredentialKey {
        CredentialKey::Unverified(token(n).digest())
    }

    fn held(n: usize, life: Duration) -> Arc<Held> {
        let now = Clock::system().now();
        #[expect(
            clippy::disallowed_methods,
            reason = "moka's own clock, which this test is about, is the real one"
        )]
        let expiration = SystemTime::now() + life;
        let presented = PresentedToken { token: token(n), expires: expiration, issued: None };
        Arc::new(Held::new(key(n), &issued(expiration), presented, now, 3 * HOUR, 0.0).unwrap())
    }

    #[test]
    fn moka_trap_1_a_renewed_set_outlives_the_deadline_of_the_old_one() {
        let store = store(10);
        store.put(held(1, Duration::from_millis(200)), None);
        store.put(held(1, HOUR), None);
        std::thread::sleep(Duration::from_millis(400));
        store.tidy();
        assert!(store.get(&key(1)).is_some());
    }

    #[test]
    fn moka_trap_3_expired_sets_leave_memory_when_the_store_is_tidied() {
        let store = store(10);
        let held = held(1, Duration::from_millis(100));
        let watch: Weak<Held> = Arc::downgrade(&held);
        store.put(held, None);
        store.tidy();
        // moka looks at expiry in steps of about a second.
        std::thread::sleep(Duration::from_millis(2500));
        assert!(watch.upgrade().is_some(), "the trap: nobody asked, so moka did nothing");
        // moka frees in epochs that all threads of the process share, this one's neighbours in the test included: what one
        // round of housekeeping unlinks, a later one drops.
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
            store.put(held(n, HOUR), None);
        }
        store.tidy();
        assert!(store.get(&key(0)).is_some(), "used again, so 1 is the oldest");
        store.put(held(3, HOUR), None);
        store.tidy();
        assert_eq!(store.len(), 3);
        assert!(store.get(&key(3)).is_some());
        assert!(store.get(&key(1)).is_none());
    }

    #[test]
    fn of_two_sets_the_one_that_lives_longer_is_kept() {
        let store = store(3);
        store.put(held(1, 2 * HOUR), None);
        store.put(held(1, HOUR), None);
        assert!(store.get(&key(1)).unwrap().lifetime() > HOUR + HOUR / 2);
    }

    #[test]
    fn only_the_expired_are_removed() {
        let store = store(3);
        store.put(held(1, Duration::from_secs(10)), None);
        store.put(held(2, HOUR), None);
        store.remove_expired(&key(1));
        store.remove_expired(&key(2));
        assert!(store.get(&key(1)).is_none());
        assert!(store.get(&key(2)).is_some());
    }

    #[test]
    fn no_retention_keeps_nothing() {
        let store = Store::new(&Retention::Off, Clock::system(), Limits::default());
        store.put(held(1, HOUR), None);
        assert!(store.get(&key(1)).is_none());
    }

    fn verified(n: usize) -> CredentialKey {
        CredentialKey::Verified(Arc::new(VerifiedKey {
            cluster: "cluster".into(),
            source: CredentialSource::EksAuth,
            namespace: "ns".into(),
            service_account_uid: "sa".into(),
            pod_uid: format!("pod-{n}").into(),
        }))
    }

    fn with(key: CredentialKey, life: Duration, grant: &Grant) -> Arc<Held> {
        let like = held(0, life);
        let mut issued = issued(like.expiry().wall);
        issued.grant = grant.clone();
        let now = Clock::system().now();
        Arc::new(Held::new(key, &issued, like.presented(), now, 3 * HOUR, 0.0).unwrap())
    }

    fn a_grant() -> Grant {
        Grant::new("a-1", "arn:aws:sts::111122223333:assumed-role/app/eks-x")
    }

    #[test]
    fn a_verified_pod_never_makes_room_and_a_newcomer_at_the_bound_is_not_kept_but_counted() {
        let store = store(3);
        let put = |n| store.put(with(verified(n), HOUR, &a_grant()), None);
        assert!((0..3).all(put));
        assert!(!put(3), "no room");
        assert!((0..3).all(|n| store.get(&verified(n)).is_some()));
        assert!(store.get(&verified(3)).is_none());
        assert_eq!(store.bounds.count(Limit::VerifiedIdentities), 1);
        assert!(put(2), "who is in may renew");
        store.put(held(1, HOUR), None);
        assert!(store.get(&key(1)).is_some(), "the unverified have a store of their own");
    }

    #[test]
    fn what_has_expired_holds_no_place() {
        let store = store(1);
        assert!(store.put(with(verified(1), Duration::from_secs(5), &a_grant()), None));
        assert!(store.put(with(verified(2), HOUR, &a_grant()), None));
        assert!(store.get(&verified(1)).is_none());
        assert_eq!(store.verified_len(), 1);
    }

    #[test]
    fn unverified_newcomers_never_push_a_verified_pod_out() {
        let store = store(3);
        store.put(with(verified(1), HOUR, &a_grant()), None);
        for n in 0..100 {
            store.put(held(n, HOUR), None);
        }
        store.tidy();
        assert!(store.get(&verified(1)).is_some());
        assert_eq!(store.unverified_len(), 3);
        assert!(store.bounds.count(Limit::UnverifiedIdentities) >= 97);
    }

    #[test]
    fn a_peer_keeps_sixteen_and_its_own_least_recently_used_makes_room() {
        let store = store(1000);
        let (noisy, quiet) = (peer(1), peer(2));
        store.put(held(100, HOUR), Some(quiet));
        for n in 0..16 {
            store.put(held(n, HOUR), Some(noisy));
        }
        store.get(&key(0)).unwrap().asked(Clock::system().now().boot);
        for n in 16..18 {
            store.put(held(n, HOUR), Some(noisy));
        }
        let kept: Vec<usize> = (0..18).filter(|n| store.get(&key(*n)).is_some()).collect();
        assert_eq!(kept, [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
        assert!(store.get(&key(100)).is_some(), "another peer's is left alone");
        assert_eq!(store.bounds.count(Limit::IdentitiesPerPeer), 2);
    }

    #[test]
    fn a_renewed_identity_counts_once_and_one_that_has_gone_not_at_all() {
        let store = store(1000);
        for _ in 0..40 {
            store.put(held(1, HOUR), Some(peer(1)));
        }
        for n in 2..40 {
            let held = held(n, HOUR);
            store.put(Arc::clone(&held), Some(peer(1)));
            store.remove(&held);
        }
        assert!(store.get(&key(1)).is_some());
        assert_eq!(store.bounds.count(Limit::IdentitiesPerPeer), 0);
    }

    #[test]
    fn another_association_or_role_takes_the_place_at_once_even_if_it_expires_earlier() {
        let store = store(3);
        let other_association = Grant { association_id: "a-2".into(), ..a_grant() };
        let other_role = Grant { role: "arn:aws:sts::111122223333:assumed-role/other".into(), ..a_grant() };
        for key in [key(1), verified(1)] {
            for grant in [&other_association, &other_role] {
                store.put(with(key.clone(), 2 * HOUR, &a_grant()), None);
                store.put(with(key.clone(), HOUR, grant), None);
                let kept = store.get(&key).unwrap();
                assert_eq!(kept.grant(), grant, "{key:?}");
            }
        }
    }

    #[test]
    fn only_the_very_set_is_removed() {
        let store = store(3);
        let (old, new) = (with(verified(1), HOUR, &a_grant()), with(verified(1), 2 * HOUR, &a_grant()));
        store.put(Arc::clone(&old), None);
        store.put(Arc::clone(&new), None);
        store.remove(&old);
        assert!(store.get(&verified(1)).is_some());
        store.remove(&new);
        assert!(store.get(&verified(1)).is_none());
    }

    fn peer(n: u8) -> PeerKey {
        PeerKey::new(std::net::Ipv4Addr::new(10, 0, 0, n).into(), 1)
    }
}
