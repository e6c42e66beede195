//! Keeping sets fresh in the background.
//!
//! Owns: what a look at a set leads to: a renewal, a later look, or the end of a set that nobody wants. Must
//! not know: how a renewal is done (`flight`), or what a request does meanwhile (`decide`).
//!
//! A set is renewed only if somebody asked for it since it came (design, invariant 8): a pod that is gone costs one
//! renewal at most, and its set leaves memory at its expiry.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Now};
use crate::credentials::flight::shared_call::Purpose;
use crate::credentials::flight::table::Flights;
use crate::credentials::held::{Held, MIN_REMAINING_LIFE};
use crate::credentials::limits::peer_quota::PeerQuotas;
use crate::credentials::limits::upstream_budget::Priority;
use crate::credentials::policy::serving::{Urgency, urgency};
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::credentials::store::schedule::Schedule;
use crate::planted::{self, Bug};

/// The worker wakes at least this often: timers stand still while a machine sleeps, boot time does not; and moka wants
/// its housekeeping.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// The worker.
pub struct Renewals {
    /// What to look at when.
    pub schedule: Schedule,
    /// Who renews.
    pub flights: Flights,
    /// Where sets are.
    pub store: Store,
    /// Tidied along.
    pub failures: RecentRefusals,
    /// Tidied along.
    pub quotas: PeerQuotas,
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
                () = self.schedule.sooner() => {}
            }
        }
    }

    fn look(&self, held: &Arc<Held>, now: Now) {
        if held.is_dropped() {
            return;
        }
        let freshness = held.freshness(now);
        if freshness.left < MIN_REMAINING_LIFE {
            self.store.remove_expired(held.key());
            return;
        }
        let is_wanted = held.was_asked_for() || planted::is_on(Bug::RenewsForNobody);
        if !is_wanted || held.presented().expires <= now.wall {
            // Nobody wants it, or nothing renews it: one more look, at its end.
            self.schedule
                .put(held, now.boot.plus(freshness.left.saturating_sub(MIN_REMAINING_LIFE)).plus(JUST_AFTER));
            return;
        }
        let (lane, again) = match urgency(&freshness) {
            Urgency::Routine => (Priority::Renewal, freshness.left.saturating_sub(held.lifetime() / 6)),
            Urgency::Pressing => (Priority::Urgent, freshness.left.saturating_sub(MIN_REMAINING_LIFE)),
        };
        // First the plan, then the flight: its failure plans anew.
        self.schedule.put(held, now.boot.plus(again).plus(JUST_AFTER));
        self.flights.join(held.key(), &held.presented(), lane, Purpose::Background, Some(held), None);
    }
}

/// A look at a moment that means "from here on" comes just after it.
const JUST_AFTER: Duration = Duration::from_millis(10);
