//! The credentials in hand, by identity.
//!
//! Owns: the bound on how many are kept and who is let go first. Must not know: whether a set is fresh enough to serve;
//! `decide` judges that by the injected clock. moka's own expiry is an outer bound only: its clock cannot be injected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::clock::Clock;
use crate::config::Retention;
use crate::credentials::held::{Held, LEAST_LIFE};
use crate::workload::CredentialKey;

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    /// `None`: no retention was asked for.
    sets: Option<Cache<CredentialKey, Arc<Held>>>,
    clock: Clock,
}

/// Lets moka drop a set at its own expiry.
struct AtExpiry {
    clock: Clock,
}

impl AtExpiry {
    fn left(&self, held: &Held) -> Duration {
        held.expiry().left(self.clock.now())
    }
}

impl Expiry<CredentialKey, Arc<Held>> for AtExpiry {
    fn expire_after_create(&self, _key: &CredentialKey, held: &Arc<Held>, _at: Instant) -> Option<Duration> {
        Some(self.left(held))
    }

    /// moka's default keeps the time the *old* value had left: a renewed set would vanish at the old deadline (facts 5).
    fn expire_after_update(
        &self,
        _key: &CredentialKey,
        held: &Arc<Held>,
        _at: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.left(held))
    }
}

impl Store {
    /// An empty store.
    pub fn new(retention: &Retention, clock: Clock) -> Self {
        let sets = match retention {
            Retention::Off => None,
            Retention::Keep { max_identities, .. } => {
                let capacity = u64::try_from(max_identities.get()).unwrap_or(u64::MAX);
                let cache = Cache::builder()
                    .max_capacity(capacity)
                    // moka's default (TinyLFU) would not admit new pods to a full store (measured; facts 5).
                    .eviction_policy(EvictionPolicy::lru())
                    .expire_after(AtExpiry { clock: clock.clone() })
                    .build();
                Some(cache)
            }
        };
        Self { sets, clock }
    }

    /// Whether anything is ever kept.
    pub fn keeps(&self) -> bool {
        self.sets.is_some()
    }

    /// What is held for an identity.
    pub fn get(&self, key: &CredentialKey) -> Option<Arc<Held>> {
        self.sets.as_ref()?.get(key)
    }

    /// Takes a set in hand. Of two, the one that expires later is kept: answers may overtake one another.
    pub fn put(&self, held: Arc<Held>) {
        let Some(sets) = &self.sets else { return };
        let now = self.clock.now();
        // One step for moka: between a look and an insert of our own another flight could land.
        let key = held.key().clone();
        sets.entry(key).and_upsert_with(|earlier| match earlier.map(moka::Entry::into_value) {
            Some(earlier) if earlier.expiry().left(now) > held.expiry().left(now) => earlier,
            Some(earlier) => {
                held.inherit(&earlier);
                held
            }
            None => held,
        });
    }

    /// Lets go of a set that has expired, unless a newer one took its place.
    pub fn remove_expired(&self, key: &CredentialKey) {
        let Some(sets) = &self.sets else { return };
        let now = self.clock.now();
        sets.entry_by_ref(key).and_compute_with(|entry| match entry {
            Some(entry) if entry.value().expiry().left(now) < LEAST_LIFE => moka::ops::compute::Op::Remove,
            Some(_) | None => moka::ops::compute::Op::Nop,
        });
    }

    /// How many sets are held.
    pub fn len(&self) -> u64 {
        self.sets.as_ref().map_or(0, Cache::entry_count)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs moka's housekeeping. Without it expired sets, secrets and all, stay in memory until the next insert (facts 5).
    pub fn tidy(&self) {
        if let Some(sets) = &self.sets {
            sets.run_pending_tasks();
        }
    }
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
    use crate::credentials::model::tests::issued;
    use crate::identity::{BearerToken, Presented};
    use crate::workload::CredentialKey;

    const HOUR: Duration = Duration::from_secs(3600);

    fn store(max: usize) -> Store {
        let max_identities = NonZeroUsize::new(max).unwrap();
        Store::new(&Retention::Keep { renew_after: 3 * HOUR, max_identities }, Clock::system())
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
        let presented = Presented { token: token(n), expires: expiration };
        Arc::new(Held::new(key(n), &issued(expiration), presented, now, 3 * HOUR, 0.0).unwrap())
    }

    #[test]
    fn moka_trap_1_a_renewed_set_outlives_the_deadline_of_the_old_one() {
        let store = store(10);
        store.put(held(1, Duration::from_millis(200)));
        store.put(held(1, HOUR));
        std::thread::sleep(Duration::from_millis(400));
        store.tidy();
        assert!(store.get(&key(1)).is_some());
    }

    #[test]
    fn moka_trap_3_expired_sets_leave_memory_when_the_store_is_tidied() {
        let store = store(10);
        let held = held(1, Duration::from_millis(100));
        let watch: Weak<Held> = Arc::downgrade(&held);
        store.put(held);
        store.tidy();
        // moka looks at expiry in steps of about a second.
        std::thread::sleep(Duration::from_millis(2500));
        assert!(watch.upgrade().is_some(), "the trap: nobody asked, so moka did nothing");
        // moka frees in epochs: what one round of housekeeping unlinks, a later one drops.
        let rounds = (1..=10).find(|_| {
            store.tidy();
            watch.upgrade().is_none()
        });
        assert!(rounds.is_some(), "still in memory after ten rounds");
    }

    #[test]
    fn a_full_store_admits_the_newcomer_and_lets_the_least_recently_used_go() {
        let store = store(3);
        for n in 0..3 {
            store.put(held(n, HOUR));
        }
        store.tidy();
        assert!(store.get(&key(0)).is_some(), "used again, so 1 is the oldest");
        store.put(held(3, HOUR));
        store.tidy();
        assert_eq!(store.len(), 3);
        assert!(store.get(&key(3)).is_some());
        assert!(store.get(&key(1)).is_none());
    }

    #[test]
    fn of_two_sets_the_one_that_lives_longer_is_kept() {
        let store = store(3);
        store.put(held(1, 2 * HOUR));
        store.put(held(1, HOUR));
        assert!(store.get(&key(1)).unwrap().lifetime() > HOUR + HOUR / 2);
    }

    #[test]
    fn only_the_expired_are_removed() {
        let store = store(3);
        store.put(held(1, Duration::from_secs(10)));
        store.put(held(2, HOUR));
        store.remove_expired(&key(1));
        store.remove_expired(&key(2));
        assert!(store.get(&key(1)).is_none());
        assert!(store.get(&key(2)).is_some());
    }

    #[test]
    fn no_retention_keeps_nothing() {
        let store = Store::new(&Retention::Off, Clock::system());
        store.put(held(1, HOUR));
        assert!(store.get(&key(1)).is_none());
    }
}
