//! The records of unverified identities: an LRU, with a quota per peer.
//!
//! Owns: which record makes room. Must not know: what a peer is beyond its account. moka's own expiry is an
//! outer bound only: its clock cannot be injected.
//!
//! At its quota a peer's own least recently used set makes room, not the newcomer: a pod with a rotated
//! token has a new identity each time, and the newest is the one it goes on using.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::clock::{Clock, Now};
use crate::credentials::record::{Held, IdentityRecord};
use crate::credentials::store::names::claims_to_be;
use crate::lifecycle::limits::{Limit, Limits};
use crate::workload::{CredentialKey, PeerKey};

/// Unverified identities held of one peer (docs/design/decisions.md#fairness).
const HELD: usize = 16;

pub(super) struct Unverified {
    records: Cache<CredentialKey, Arc<IdentityRecord>>,
    accounts: Mutex<Accounts>,
    limits: Limits,
}

/// Which peer each record in the cache is charged to. An entry is left until the next tidying when its set
/// has gone.
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
    fn left(&self, record: &IdentityRecord) -> Duration {
        record.expiry().left_at_most(self.clock.now())
    }
}

impl Expiry<CredentialKey, Arc<IdentityRecord>> for AtExpiry {
    fn expire_after_create(
        &self,
        _key: &CredentialKey,
        record: &Arc<IdentityRecord>,
        _at: Instant,
    ) -> Option<Duration> {
        Some(self.left(record))
    }

    /// moka's default keeps the time the *old* value had left: a renewed set would vanish at the old deadline
    /// (docs/design/facts.md#moka).
    fn expire_after_update(
        &self,
        _key: &CredentialKey,
        record: &Arc<IdentityRecord>,
        _at: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.left(record))
    }
}

impl Unverified {
    pub(super) fn new(most: usize, clock: Clock, limits: Limits) -> Self {
        let evictions = limits.clone();
        let records = Cache::builder()
            .max_capacity(u64::try_from(most).unwrap_or(u64::MAX))
            // moka's default (TinyLFU) would not admit new pods to a full store (measured;
            // docs/design/facts.md#moka).
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(AtExpiry { clock })
            .eviction_listener(move |_key, record: Arc<IdentityRecord>, cause| match cause {
                RemovalCause::Size => {
                    record.left_the_store();
                    evictions.reached(Limit::UnverifiedIdentities);
                }
                RemovalCause::Expired | RemovalCause::Explicit => record.left_the_store(),
                // By itself: a set that is renewed stays in its record.
                RemovalCause::Replaced => {}
            })
            .build();
        let tidy_above = most.saturating_mul(2);
        Self { records, accounts: Mutex::new(Accounts { tidy_above, ..Accounts::default() }), limits }
    }

    pub(super) fn get(&self, key: &CredentialKey) -> Option<Arc<IdentityRecord>> {
        self.records.get(key)
    }

    pub(super) fn find(&self, condition: &dyn Fn(&IdentityRecord) -> bool) -> Option<Arc<IdentityRecord>> {
        self.records.iter().map(|(_, record)| record).find(|record| condition(record))
    }

    pub(super) fn all(&self, condition: &dyn Fn(&IdentityRecord) -> bool) -> Vec<Arc<IdentityRecord>> {
        self.records.iter().map(|(_, record)| record).filter(|record| condition(record)).collect()
    }

    pub(super) fn keep(&self, newer: &Arc<IdentityRecord>, peer: Option<PeerKey>, now: Now) -> Held {
        let key = newer.key().clone();
        // First the peer makes room among its own; only then does moka, among all.
        let mut accounts = self.accounts.lock();
        if let Some(peer) = peer {
            self.book(&mut accounts, peer, &key);
        }
        // One step for moka, so that it takes over the new expiry, and no other flight ends between a look
        // and an insert.
        let entry = self.records.entry(key).and_upsert_with(|kept| match kept {
            Some(kept) => {
                let record = kept.into_value();
                record.renew(newer, now);
                record
            }
            None => Arc::clone(newer),
        });
        // moka makes room when 300 ms of its own clock have passed, or 64 records have come. At once the
        // bound is a bound, and what a simulated story keeps does not depend on how busy the machine is.
        self.records.run_pending_tasks();
        drop(accounts);
        let record = entry.into_value();
        Held { credentials: record.credentials(), record }
    }

    pub(super) fn remove_if(&self, key: &CredentialKey, condition: &dyn Fn(&Arc<IdentityRecord>) -> bool) {
        let result = self.records.entry_by_ref(key).and_compute_with(|entry| match entry {
            Some(entry) if condition(entry.value()) => moka::ops::compute::Op::Remove,
            Some(_) | None => moka::ops::compute::Op::Nop,
        });
        if matches!(result, moka::ops::compute::CompResult::Removed(_)) {
            self.let_go();
        }
    }

    /// moka counts what was removed, and has it in memory, until somebody asks it to tidy: for as long as
    /// the worker of renewals rests, up to 30 s (story 2038).
    fn let_go(&self) {
        self.records.run_pending_tasks();
    }

    /// moka counts on from what a set had left when it came. This is for when that turns out to be wrong.
    pub(super) fn forget_expired(&self, now: Now) {
        let is_over = |record: &Arc<IdentityRecord>| record.expiry().is_surely_over(now);
        let over = self.records.iter().filter(|(_, record)| is_over(record));
        // moka's iterator must not meet its own removals.
        for (key, _) in over.collect::<Vec<_>>() {
            self.remove_if(&key, &is_over);
        }
    }

    /// Forgets what tokens that claim to be of this pod have earned.
    pub(super) fn remove_claimed(&self, pod_uid: &str) {
        let claimed = self.records.iter().filter(|(_, record)| claims_to_be(record, pod_uid));
        for (key, record) in claimed.collect::<Vec<_>>() {
            record.revoke();
            self.records.invalidate(&*key);
        }
        self.let_go();
    }

    pub(super) fn len(&self) -> u64 {
        self.records.entry_count()
    }

    pub(super) fn tidy(&self) {
        self.records.run_pending_tasks();
        self.accounts.lock().forget(&|key| self.records.contains_key(key));
    }

    /// Puts a set on its peer's account, and makes room there if need be.
    fn book(&self, accounts: &mut Accounts, peer: PeerKey, key: &CredentialKey) {
        if accounts.entries > accounts.tidy_above {
            accounts.forget(&|key| self.records.contains_key(key));
        }
        let account = accounts.peers.entry(peer).or_default();
        if account.contains(key) {
            return;
        }
        let before = account.len();
        account.retain(|key| self.records.contains_key(key));
        let mut replaced = None;
        if account.len() >= peer.allowance(HELD) {
            // moka does not tell its order, so each set remembers when it was asked for. `get` makes a set
            // look used to moka, but only this peer's own.
            let asked = |key: &CredentialKey| self.records.get(key).map(|record| record.last_asked());
            replaced = account.iter().min_by_key(|key| asked(key)).cloned();
            account.retain(|key| Some(key) != replaced.as_ref());
        }
        account.push(key.clone());
        let after = account.len();
        accounts.entries = (accounts.entries + after).saturating_sub(before);
        if let Some(replaced) = replaced {
            self.records.invalidate(&replaced);
            self.limits.reached(Limit::IdentitiesPerPeer);
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
