//! The sets of unverified identities: an LRU, with a quota per peer.
//!
//! Owns: who is let go first. Must not know: what a peer is beyond its account. moka's own expiry is an outer bound only:
//! its clock cannot be injected.
//!
//! At its quota a peer's own least recently used set makes room, not the newcomer: a pod whose token is rotated has a
//! new identity each time, and the newest is the one it goes on using.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::clock::{Clock, Now};
use crate::credentials::held::Held;
use crate::credentials::store::better;
use crate::lifecycle::limits::{Limit, Limits};
use crate::workload::{CredentialKey, PeerKey};

/// Unverified identities held of one peer (design 4.4).
const HELD: usize = 16;

pub(super) struct Unverified {
    sets: Cache<CredentialKey, Arc<Held>>,
    accounts: Mutex<Accounts>,
    bounds: Limits,
}

/// Whose sets are in the cache. An entry is left until the next tidying when its set has gone.
#[derive(Default)]
struct Accounts {
    peers: HashMap<PeerKey, Vec<CredentialKey>>,
    entries: usize,
    /// Tidied when there are more entries than this.
    tidy_above: usize,
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

impl Unverified {
    pub(super) fn new(most: usize, clock: Clock, bounds: Limits) -> Self {
        let evictions = bounds.clone();
        let sets = Cache::builder()
            .max_capacity(u64::try_from(most).unwrap_or(u64::MAX))
            // moka's default (TinyLFU) would not admit new pods to a full store (measured; facts 5).
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(AtExpiry { clock })
            .eviction_listener(move |_key, _held, cause| match cause {
                RemovalCause::Size => evictions.reached(Limit::UnverifiedIdentities),
                RemovalCause::Expired | RemovalCause::Explicit | RemovalCause::Replaced => {}
            })
            .build();
        let tidy_above = most.saturating_mul(2);
        Self { sets, accounts: Mutex::new(Accounts { tidy_above, ..Accounts::default() }), bounds }
    }

    pub(super) fn get(&self, key: &CredentialKey) -> Option<Arc<Held>> {
        self.sets.get(key)
    }

    pub(super) fn find(&self, condition: &dyn Fn(&Held) -> bool) -> Option<Arc<Held>> {
        self.sets.iter().map(|(_, held)| held).find(|held| condition(held))
    }

    pub(super) fn put(&self, held: Arc<Held>, peer: Option<PeerKey>, now: Now) {
        // One step for moka: between a look and an insert of our own another flight could land.
        let key = held.key().clone();
        self.sets.entry(key.clone()).and_upsert_with(|earlier| match earlier.map(moka::Entry::into_value) {
            Some(earlier) => better(earlier, held, now),
            None => held,
        });
        if let Some(peer) = peer {
            self.book(peer, key);
        }
    }

    pub(super) fn remove_if(&self, key: &CredentialKey, condition: &dyn Fn(&Arc<Held>) -> bool) {
        self.sets.entry_by_ref(key).and_compute_with(|entry| match entry {
            Some(entry) if condition(entry.value()) => moka::ops::compute::Op::Remove,
            Some(_) | None => moka::ops::compute::Op::Nop,
        });
    }

    pub(super) fn len(&self) -> u64 {
        self.sets.entry_count()
    }

    pub(super) fn tidy(&self) {
        self.sets.run_pending_tasks();
        self.accounts.lock().forget(&|key| self.sets.contains_key(key));
    }

    /// Puts a set on its peer's account, and makes room there if need be.
    fn book(&self, peer: PeerKey, key: CredentialKey) {
        let mut accounts = self.accounts.lock();
        if accounts.entries > accounts.tidy_above {
            accounts.forget(&|key| self.sets.contains_key(key));
        }
        let account = accounts.peers.entry(peer).or_default();
        if account.contains(&key) {
            return;
        }
        let before = account.len();
        account.retain(|key| self.sets.contains_key(key));
        let mut replaced = None;
        if account.len() >= peer.allowance(HELD) {
            // moka does not tell its order, so each set remembers when it was asked for. `get` makes a set look used to
            // moka, but only this peer's own.
            let asked = |key: &CredentialKey| self.sets.get(key).map(|held| held.last_asked());
            replaced = account.iter().min_by_key(|key| asked(key)).cloned();
            account.retain(|key| Some(key) != replaced.as_ref());
        }
        account.push(key);
        let after = account.len();
        accounts.entries = (accounts.entries + after).saturating_sub(before);
        drop(accounts);
        if let Some(replaced) = replaced {
            self.sets.invalidate(&replaced);
            self.bounds.reached(Limit::IdentitiesPerPeer);
        }
    }
}

impl Accounts {
    fn forget(&mut self, is_held: &dyn Fn(&CredentialKey) -> bool) {
        self.peers.retain(|_, account| {
            account.retain(is_held);
            !account.is_empty()
        });
        self.entries = self.peers.values().map(Vec::len).sum();
    }
}
