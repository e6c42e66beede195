//! When which identity is checked again.
//!
//! Owns: the order of checks, and that none of them keeps a record in memory. Must not know: what a check is
//! for (`renewal`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::BootTime;
use crate::credentials::record::IdentityRecord;

/// When which identity is checked again; clones share it.
#[derive(Clone, Default)]
pub struct Schedule {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    heap: Mutex<BinaryHeap<Reverse<Item>>>,
    sooner: Notify,
}

/// A record that left the store is gone from here too: only its shell is kept until its time comes.
struct Item {
    at: BootTime,
    record: Weak<IdentityRecord>,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Schedule {
    /// Has an identity checked at `at`, and not before: earlier plans for it are void.
    pub fn put(&self, record: &Arc<IdentityRecord>, at: BootTime) {
        let item = Item { at, record: Arc::downgrade(record) };
        record.plan_check(at);
        let mut heap = self.shared.heap.lock();
        let is_first = heap.peek().is_none_or(|Reverse(first)| at < first.at);
        heap.push(Reverse(item));
        drop(heap);
        if is_first {
            self.shared.sooner.notify_one();
        }
    }

    /// Has an identity checked at `at` if it is to be checked later; a plan for a moment before stands.
    pub fn put_no_later(&self, record: &Arc<IdentityRecord>, at: BootTime) {
        if record.planned_check().is_some_and(|planned| at < planned) {
            self.put(record, at);
        }
    }

    /// How many checks are planned.
    pub fn len(&self) -> usize {
        self.shared.heap.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next identity that is due for its check, if one is.
    pub(in crate::credentials) fn pop_due(&self, now: BootTime) -> Option<Arc<IdentityRecord>> {
        let mut heap = self.shared.heap.lock();
        while heap.peek().is_some_and(|Reverse(first)| first.at <= now) {
            let Some(Reverse(item)) = heap.pop() else { break };
            match item.record.upgrade() {
                Some(record) if record.is_planned(item.at) => return Some(record),
                Some(_) | None => {}
            }
        }
        None
    }

    /// When the next check is planned, be it void or not.
    pub(in crate::credentials) fn next_at(&self) -> Option<BootTime> {
        self.shared.heap.lock().peek().map(|Reverse(first)| first.at)
    }

    /// Waits until a check is planned that comes before all others.
    pub(in crate::credentials) async fn sooner(&self) {
        self.shared.sooner.notified().await;
    }

    /// Forgets void checks, and those of identities that are gone, when they are the greater part.
    pub(in crate::credentials) fn compact(&self, kept: u64) {
        let mut heap = self.shared.heap.lock();
        let planned = u64::try_from(heap.len()).unwrap_or(u64::MAX);
        if planned > 1024 + 4 * kept {
            heap.retain(|Reverse(item)| {
                item.record.upgrade().is_some_and(|record| record.is_planned(item.at))
            });
            heap.shrink_to_fit();
        }
    }
}
