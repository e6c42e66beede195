//! When which set is looked at again.
//!
//! Owns: the order of looks, and that a set which is gone is held by none of them. Must not know: what a look is for
//! (`renewal`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::BootTime;
use crate::credentials::held::Held;

/// When which set is looked at again; clones share it.
#[derive(Clone, Default)]
pub struct Schedule {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    heap: Mutex<BinaryHeap<Reverse<Item>>>,
    sooner: Notify,
}

/// A set that went from the store is gone from here too: only its shell is kept until its time comes.
struct Item {
    at: BootTime,
    held: Weak<Held>,
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
    /// Has `held` looked at again at `at`, and not before: earlier plans for it are void.
    pub fn put(&self, held: &Arc<Held>, at: BootTime) {
        let item = Item { at, held: Arc::downgrade(held) };
        held.plan(at);
        let mut heap = self.shared.heap.lock();
        let is_first = heap.peek().is_none_or(|Reverse(first)| at < first.at);
        heap.push(Reverse(item));
        drop(heap);
        if is_first {
            self.shared.sooner.notify_one();
        }
    }

    /// How many looks are planned.
    pub fn len(&self) -> usize {
        self.shared.heap.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next set whose look is due, if one is.
    pub(in crate::credentials) fn pop_due(&self, now: BootTime) -> Option<Arc<Held>> {
        let mut heap = self.shared.heap.lock();
        while heap.peek().is_some_and(|Reverse(first)| first.at <= now) {
            let Some(Reverse(item)) = heap.pop() else { break };
            match item.held.upgrade() {
                Some(held) if held.is_planned(item.at) => return Some(held),
                Some(_) | None => {}
            }
        }
        None
    }

    /// When the next look is planned, be it void or not.
    pub(in crate::credentials) fn next_at(&self) -> Option<BootTime> {
        self.shared.heap.lock().peek().map(|Reverse(first)| first.at)
    }

    /// Waits until a look is planned that comes before all others.
    pub(in crate::credentials) async fn sooner(&self) {
        self.shared.sooner.notified().await;
    }

    /// Lets go of looks at sets that are gone, when they are the greater part.
    pub(in crate::credentials) fn compact(&self, held: u64) {
        let mut heap = self.shared.heap.lock();
        let planned = u64::try_from(heap.len()).unwrap_or(u64::MAX);
        if planned > 1024 + 4 * held {
            heap.retain(|Reverse(item)| item.held.strong_count() > 0);
            heap.shrink_to_fit();
        }
    }
}
