//! The sets of verified identities.
//!
//! Owns: that none of them ever makes room for another: a pod that was admitted keeps what it has. Must not know: how
//! anybody was verified. A plain map, because there is no policy: at the bound a newcomer is not kept.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::clock::Now;
use crate::credentials::held::{Held, MIN_REMAINING_LIFE};
use crate::credentials::store::better;
use crate::workload::CredentialKey;

pub(super) struct Verified {
    sets: RwLock<HashMap<CredentialKey, Arc<Held>>>,
    most: usize,
}

impl Verified {
    pub(super) fn new(most: usize) -> Self {
        Self { sets: RwLock::default(), most }
    }

    pub(super) fn get(&self, key: &CredentialKey) -> Option<Arc<Held>> {
        self.sets.read().get(key).cloned()
    }

    pub(super) fn find(&self, condition: &dyn Fn(&Held) -> bool) -> Option<Arc<Held>> {
        self.sets.read().values().find(|held| condition(held)).cloned()
    }

    /// `false`: no room for a newcomer.
    pub(super) fn put(&self, held: Arc<Held>, now: Now) -> bool {
        let mut sets = self.sets.write();
        if let Some(place) = sets.get_mut(held.key()) {
            *place = better(Arc::clone(place), held, now);
            return true;
        }
        if sets.len() >= self.most {
            // What has expired holds no place. This looks at each set, but only for a newcomer at the bound, and each
            // of those has just cost a call to AWS.
            forget_expired(&mut sets, now);
        }
        if sets.len() >= self.most {
            return false;
        }
        sets.insert(held.key().clone(), held);
        true
    }

    pub(super) fn remove_if(&self, key: &CredentialKey, condition: &dyn Fn(&Arc<Held>) -> bool) {
        let mut sets = self.sets.write();
        if sets.get(key).is_some_and(condition) {
            sets.remove(key);
        }
    }

    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.sets.read().len()).unwrap_or(u64::MAX)
    }

    pub(super) fn tidy(&self, now: Now) {
        let mut sets = self.sets.write();
        forget_expired(&mut sets, now);
        if sets.capacity() > 64 + 4 * sets.len() {
            sets.shrink_to_fit();
        }
    }
}

fn forget_expired(sets: &mut HashMap<CredentialKey, Arc<Held>>, now: Now) {
    sets.retain(|_, held| held.expiry().left(now) >= MIN_REMAINING_LIFE);
}
