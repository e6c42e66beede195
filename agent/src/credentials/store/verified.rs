//! The records of verified identities.
//!
//! Owns: that none of them ever makes room for another: a pod that was admitted keeps what it has. Must not
//! know: how anybody was verified. A plain map, because there is no policy: at the bound a newcomer is not
//! kept.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::clock::Now;
use crate::credentials::record::{Held, IdentityRecord};
use crate::workload::CredentialKey;

pub(super) struct Verified {
    records: RwLock<HashSet<ByKey>>,
    most: usize,
}

/// A record is found by its own key: a map would keep a second one of each.
struct ByKey(Arc<IdentityRecord>);

impl Borrow<CredentialKey> for ByKey {
    fn borrow(&self) -> &CredentialKey {
        self.0.key()
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for ByKey {}

impl Verified {
    pub(super) fn new(most: usize) -> Self {
        Self { records: RwLock::default(), most }
    }

    pub(super) fn get(&self, key: &CredentialKey) -> Option<Arc<IdentityRecord>> {
        self.records.read().get(key).map(|kept| Arc::clone(&kept.0))
    }

    pub(super) fn holds(&self, record: &Arc<IdentityRecord>) -> bool {
        self.records.read().get(record.key()).is_some_and(|kept| Arc::ptr_eq(&kept.0, record))
    }

    pub(super) fn find(&self, condition: &dyn Fn(&IdentityRecord) -> bool) -> Option<Arc<IdentityRecord>> {
        let records = self.records.read();
        records.iter().map(|kept| &kept.0).find(|record| condition(record)).cloned()
    }

    pub(super) fn all(&self, condition: &dyn Fn(&IdentityRecord) -> bool) -> Vec<Arc<IdentityRecord>> {
        let records = self.records.read();
        records.iter().map(|kept| &kept.0).filter(|record| condition(record)).cloned().collect()
    }

    /// `None`: no room for a newcomer.
    pub(super) fn keep(&self, newer: &Arc<IdentityRecord>, now: Now) -> Option<Held> {
        let mut records = self.records.write();
        if let Some(ByKey(record)) = records.get(newer.key()) {
            let credentials = record.renew(newer, now);
            return Some(Held { record: Arc::clone(record), credentials });
        }
        if records.len() >= self.most {
            // What has expired takes no room. This looks at each record, but only for a newcomer at the
            // bound, and each of those has just cost a call to AWS.
            forget_expired(&mut records, now);
        }
        if records.len() >= self.most {
            return None;
        }
        records.insert(ByKey(Arc::clone(newer)));
        Some(Held { record: Arc::clone(newer), credentials: newer.credentials() })
    }

    pub(super) fn remove_if(&self, key: &CredentialKey, condition: &dyn Fn(&Arc<IdentityRecord>) -> bool) {
        let mut records = self.records.write();
        if records.get(key).is_some_and(|kept| condition(&kept.0)) {
            records.remove(key);
        }
    }

    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.records.read().len()).unwrap_or(u64::MAX)
    }

    pub(super) fn tidy(&self, now: Now) {
        let mut records = self.records.write();
        forget_expired(&mut records, now);
        if records.capacity() > 64 + 4 * records.len() {
            records.shrink_to_fit();
        }
    }
}

#[expect(clippy::mutable_key_type, reason = "what changes in a record is not its key")]
fn forget_expired(records: &mut HashSet<ByKey>, now: Now) {
    records.retain(|ByKey(record)| !record.expiry().is_surely_over(now));
}
