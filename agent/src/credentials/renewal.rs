//! Keeping sets fresh in the background.
//!
//! Owns: when which set is looked at again, the pace of routine renewals, and the end of sets that nobody wants. Must
//! not know: how a renewal is done (`flight`), or what a request does meanwhile (`decide`).
//!
//! A set is renewed only if somebody asked for it since it came (design, invariant 8): a pod that is gone costs one
//! renewal at most, and its set leaves memory at its expiry.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::{BootTime, Clock, Now};
use crate::credentials::budget::Lane;
use crate::credentials::decide::{Urgency, urgency};
use crate::credentials::failures::Failures;
use crate::credentials::flight::{Flights, Purpose};
use crate::credentials::held::{Held, LEAST_LIFE};
use crate::credentials::quota::Quotas;
use crate::credentials::store::Store;
use crate::planted::{self, Bug};

/// The worker wakes at least this often: timers stand still while a machine sleeps, boot time does not; and moka wants
/// its housekeeping.
const LONGEST_REST: Duration = Duration::from_secs(30);

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

    fn pop_due(&self, now: BootTime) -> Option<Arc<Held>> {
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

    fn next_at(&self) -> Option<BootTime> {
        self.shared.heap.lock().peek().map(|Reverse(first)| first.at)
    }

    /// Lets go of looks at sets that are gone, when they are the greater part.
    fn compact(&self, held: u64) {
        let mut heap = self.shared.heap.lock();
        let planned = u64::try_from(heap.len()).unwrap_or(u64::MAX);
        if planned > 1024 + 4 * held {
            heap.retain(|Reverse(item)| item.held.strong_count() > 0);
            heap.shrink_to_fit();
        }
    }
}

/// The pace of routine renewals: `--max-service-qps`, evenly spread.
pub struct Pace {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many per second.
    pub fn per_second(rate: u32) -> Self {
        Self { interval: Duration::from_secs(1) / rate.max(1), next: Mutex::new(None) }
    }

    /// Waits for the next turn.
    pub async fn turn(&self) {
        let now = Instant::now();
        let turn = {
            let mut next = self.next.lock();
            let turn = next.map_or(now, |next| next.max(now));
            *next = Some(turn + self.interval);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

/// The worker.
pub struct Renewals {
    /// What to look at when.
    pub schedule: Schedule,
    /// Who renews.
    pub flights: Flights,
    /// Where sets are.
    pub store: Store,
    /// Tidied along.
    pub failures: Failures,
    /// Tidied along.
    pub quotas: Quotas,
    /// The clock.
    pub clock: Clock,
}

impl Renewals {
    /// Works for ever; cancel by dropping.
    pub async fn run(self) {
        loop {
            let now = self.clock.now();
            while let Some(held) = self.schedule.pop_due(now.boot) {
                self.look(&held, now);
            }
            self.store.tidy();
            self.failures.tidy();
            self.quotas.tidy();
            self.schedule.compact(self.store.len());
            let rest =
                self.schedule.next_at().map_or(LONGEST_REST, |at| at.since(now.boot).min(LONGEST_REST));
            tokio::select! {
                // In a fixed order, so that a simulated story is the same each time.
                biased;
                // A little rest even when much is due, so that a full queue is not a busy loop.
                () = tokio::time::sleep(rest.max(Duration::from_millis(5))) => {}
                () = self.schedule.shared.sooner.notified() => {}
            }
        }
    }

    fn look(&self, held: &Arc<Held>, now: Now) {
        if held.is_dropped() {
            return;
        }
        let freshness = held.freshness(now);
        if freshness.left < LEAST_LIFE {
            self.store.remove_expired(held.key());
            return;
        }
        let is_wanted = held.was_asked_for() || planted::is_on(Bug::RenewsForNobody);
        if !is_wanted || held.presented().expires <= now.wall {
            // Nobody wants it, or nothing renews it: one more look, at its end.
            self.schedule
                .put(held, now.boot.plus(freshness.left.saturating_sub(LEAST_LIFE)).plus(JUST_AFTER));
            return;
        }
        let (lane, again) = match urgency(&freshness) {
            Urgency::Routine => (Lane::Renewal, freshness.left.saturating_sub(held.lifetime() / 6)),
            Urgency::Pressing => (Lane::Urgent, freshness.left.saturating_sub(LEAST_LIFE)),
        };
        // First the plan, then the flight: its failure plans anew.
        self.schedule.put(held, now.boot.plus(again).plus(JUST_AFTER));
        self.flights.join(held.key(), &held.presented(), lane, Purpose::Background, Some(held), None);
    }
}

/// A look at a moment that means "from here on" comes just after it.
const JUST_AFTER: Duration = Duration::from_millis(10);
