//! Keeping credentials fresh in the background.
//!
//! Owns: what a check of an identity leads to: a renewal, a later check, or the end of a set that nobody
//! wants. Must not know: how a renewal is done (`flight`), or what a request does meanwhile
//! (`policy::serving`).
//!
//! A set is renewed only if somebody asked for it since it came (invariant 8): a pod that is gone costs one
//! renewal at most, and its set leaves memory at its expiry.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Now};
use crate::credentials::flight::shared_call::Purpose;
use crate::credentials::flight::table::{Flights, JoinRequest};
use crate::credentials::limits::peer_quota::PeerQuotas;
use crate::credentials::policy::freshness::{MIN_REMAINING_LIFE, Urgency};
use crate::credentials::record::IdentityRecord;
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::credentials::store::schedule::Schedule;

/// The worker wakes at least this often: timers stand still while a machine sleeps, boot time does not; and
/// moka wants its housekeeping.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// A check at a moment that means "from here on" comes just after it.
const JUST_AFTER: Duration = Duration::from_millis(10);

/// The worker.
pub struct Renewals {
    /// What to check when.
    pub(in crate::credentials) schedule: Schedule,
    /// Who renews.
    pub(in crate::credentials) flights: Flights,
    /// Where the records are.
    pub(in crate::credentials) store: Store,
    /// Tidied along.
    pub(in crate::credentials) refusals: RecentRefusals,
    /// Tidied along.
    pub(in crate::credentials) quotas: PeerQuotas,
    /// The clock.
    pub(in crate::credentials) clock: Clock,
}

impl Renewals {
    /// Works for ever; cancel by dropping.
    pub async fn run(self) {
        loop {
            let now = self.clock.now();
            while let Some(record) = self.schedule.pop_due(now.boot) {
                self.check(&record, now);
            }
            self.store.tidy();
            self.refusals.tidy();
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

    fn check(&self, record: &Arc<IdentityRecord>, now: Now) {
        if record.is_revoked() {
            return;
        }
        let freshness = record.freshness(now);
        if freshness.left < MIN_REMAINING_LIFE {
            self.store.remove_expired(record.key());
            return;
        }
        let until_expired = freshness.left.saturating_sub(MIN_REMAINING_LIFE);
        let token = record.token();
        if !record.is_wanted() || token.expires <= now.wall {
            // Nobody wants it, or nothing renews it: one more check, at its end.
            self.schedule.put(record, now.boot.plus(until_expired).plus(JUST_AFTER));
            return;
        }
        let urgency = freshness.urgency();
        let again = match urgency {
            Urgency::Routine => freshness.left.saturating_sub(freshness.lifetime / 6),
            Urgency::Pressing => until_expired,
        };
        // First the plan, then the flight: its failure plans anew.
        self.schedule.put(record, now.boot.plus(again).plus(JUST_AFTER));
        let request = JoinRequest {
            principal: record.principal(),
            token: &token,
            priority: urgency.priority(),
            purpose: Purpose::Background,
            seen: Some(&record.credentials()),
        };
        self.flights.start_or_join(&request, None);
    }
}
