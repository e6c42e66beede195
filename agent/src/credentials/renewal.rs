//! Keeping credentials fresh in the background.
//!
//! Owns: the rhythm of checks, and carrying out what each leads to: a renewal, a later check, or the end of a
//! set that has expired. Must not know: what that is (`policy::renewing`), how a renewal is done (`flight`),
//! or what a request does meanwhile (`policy::serving`).
//!
//! A set is renewed only if somebody asked for it since it came, and a renewal that fails is repeated once
//! for a pod that may be gone (`policy::renewing`); its set leaves memory at its expiry (invariant 8).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Now};
use crate::credentials::assemble::RouteStatusOf;
use crate::credentials::flight::outcome::FIRST_RENEWAL_RETRY;
use crate::credentials::flight::shared_call::Purpose;
use crate::credentials::flight::table::{Flights, JoinRequest, Joined};
use crate::credentials::limits::peer_quota::PeerQuotas;
use crate::credentials::policy::freshness::{MIN_REMAINING_LIFE, Urgency};
use crate::credentials::policy::renewing::{Checked, Demand, NextStep, look_in, next_step};
use crate::credentials::record::IdentityRecord;
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::credentials::store::schedule::Schedule;
use crate::workload::RouteStatus;

/// The worker wakes at least this often: timers stand still while a machine sleeps, boot time does not; and
/// moka wants its housekeeping.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// So long the worker gathers those who want to know the time.
const GATHERING: Duration = Duration::from_millis(20);
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
    pub(in crate::credentials) route_status: RouteStatusOf,
}

impl Renewals {
    /// Works for ever; cancel by dropping.
    pub async fn run(self) {
        let mut moves = self.clock.moves();
        loop {
            let now = self.clock.now();
            if moves != self.clock.moves() {
                moves = self.clock.moves();
                // What was planned by the time before may have expired meanwhile, or be due.
                self.store.forget_expired();
                self.plan_anew(now);
            }
            let rest_at_most = if self.clock.wants_answer() { self.ask_the_time(now) } else { LONGEST_REST };
            while let Some(record) = self.schedule.pop_due(now.boot) {
                self.check(&record, now);
            }
            self.store.tidy();
            self.refusals.tidy();
            self.quotas.tidy();
            self.schedule.compact(self.store.len());
            let rest =
                self.schedule.next_at().map_or(rest_at_most, |at| at.since(now.boot).min(rest_at_most));
            tokio::select! {
                // In a fixed order, so that a simulated story is the same each time.
                biased;
                // A little rest even when much is due, so that a full queue is not a busy loop.
                () = tokio::time::sleep(rest.max(Duration::from_millis(5))) => {}
                () = self.schedule.sooner() => {}
                // Each request may want it, and each look takes all records in.
                () = self.clock.answer_wanted() => tokio::time::sleep(GATHERING).await,
            }
        }
    }

    /// Has all that is kept looked at in time, as the time is now.
    fn plan_anew(&self, now: Now) {
        let mut all = self.store.all();
        // Among those that are due at once it is not the order of a hash that decides. After a pause many
        // were asked for in one moment and are overdue: then the one that ends first comes first.
        all.sort_by_cached_key(|record| (record.last_asked(), record.due_at(now), record.expiry().boot));
        for record in all {
            let at = now.boot.plus(look_in(&record.checked(now))).plus(JUST_AFTER);
            self.schedule.put_no_later(&record, at);
        }
    }

    /// Any answer of AWS tells the time, and a renewal is a call that is good for something. Without a set to
    /// renew there is nothing to judge either. Returns after how long to look again.
    fn ask_the_time(&self, now: Now) -> Duration {
        // Each turn takes the demand from one of them.
        let record = loop {
            match self.to_ask_with(now) {
                Some(record) if self.is_for_nobody(&record) => {}
                found => break found,
            }
        };
        // A request that is served later ends the rest.
        let Some(record) = record else { return LONGEST_REST };
        if self.clock.may_ask() {
            self.renew(&record, Urgency::Pressing);
        }
        self.clock.may_ask_in()
    }

    /// A set that somebody wants, so that no pod that is gone pays for it, and one that is not quiet. But
    /// after an outage all may be quiet for two minutes, or wanted no more: so long a doubt that one call can
    /// end must not last.
    fn to_ask_with(&self, now: Now) -> Option<Arc<IdentityRecord>> {
        let has_contradiction = self.clock.has_contradiction();
        let may_tell = |record: &IdentityRecord| {
            let asked_ago = now.boot.since(record.last_asked());
            record.demand().may_tell_the_time(asked_ago, has_contradiction)
                && !record.is_revoked()
                && !now.is_surely_past(record.token().expires)
        };
        let is_wanted = |record: &IdentityRecord| record.demand() == Demand::Somebody && may_tell(record);
        let is_quiet = |record: &IdentityRecord| record.freshness(now).is_quiet;
        self.store
            .last_asked(&|record| is_wanted(record) && !is_quiet(record))
            .or_else(|| self.store.last_asked(&is_wanted))
            .or_else(|| self.store.last_asked(&may_tell))
    }

    /// The cluster gives the role for tokens of another audience by now. Only a new pod has such a token.
    fn keep_to_expiry(&self, record: &Arc<IdentityRecord>, now: Now) {
        let expiry = record.expiry();
        if expiry.is_surely_over(now) {
            return self.store.remove_expired(record.key());
        }
        tracing::warn!(
            key = ?record.key(),
            "the audience of the role has changed: credentials are served to their end and not renewed; \
             restart the pod"
        );
        let rest = expiry.left_at_most(now).saturating_sub(MIN_REMAINING_LIFE);
        self.schedule.put(record, now.boot.plus(rest).plus(JUST_AFTER));
    }

    fn check(&self, record: &Arc<IdentityRecord>, now: Now) {
        if record.is_revoked() || !self.store.holds(record) {
            return;
        }
        match (self.route_status)(record.principal()) {
            RouteStatus::Given => {}
            RouteStatus::ToExpiry => return self.keep_to_expiry(record, now),
            RouteStatus::Ended => {
                let key = record.key();
                tracing::info!(?key, "the pod has this role no more; its credentials are dropped");
                record.revoke();
                self.store.remove(record);
                return;
            }
        }
        if self.flights.end_if_over(record) {
            return;
        }
        let mut step = next_step(&self.checked(record, now));
        if matches!(step, NextStep::Renew(..)) && self.is_for_nobody(record) {
            // By its other name it is somebody.
            step = next_step(&record.checked(now));
        }
        let (urgency, again) = match step {
            NextStep::Forget => {
                self.store.remove_expired(record.key());
                return;
            }
            NextStep::CheckAfter(time) => {
                self.schedule.put(record, now.boot.plus(time).plus(JUST_AFTER));
                return;
            }
            NextStep::Renew(urgency, again) => (urgency, again),
        };
        // First the plan, then the flight: its failure plans anew.
        self.schedule.put(record, now.boot.plus(again).plus(JUST_AFTER));
        match self.renew(record, urgency) {
            Joined::Done(_) | Joined::InFlight(_) => {}
            // Once that call is over.
            Joined::Behind(_) => self.schedule.put(record, now.boot.plus(FIRST_RENEWAL_RETRY)),
        }
    }

    /// What is known of a record. A pod that lives by the cluster's word is somebody, however long ago it
    /// asked.
    fn checked(&self, record: &IdentityRecord, now: Now) -> Checked {
        let checked = record.checked(now);
        let is_wanted = self.store.is_of_living_pod(record);
        Checked { demand: if is_wanted { Demand::Somebody } else { checked.demand }, ..checked }
    }

    /// Whether its pod was last asking by its other name: then this one is renewed for nobody, or a pod that
    /// is gone would cost the calls of two.
    fn is_for_nobody(&self, record: &IdentityRecord) -> bool {
        let is_superseded = self.store.is_superseded(record);
        if is_superseded {
            record.not_wanted();
        }
        is_superseded
    }

    fn renew(&self, record: &Arc<IdentityRecord>, urgency: Urgency) -> Joined {
        let request = JoinRequest {
            principal: record.principal(),
            token: &record.token(),
            priority: urgency.priority(),
            purpose: Purpose::Background,
            seen: Some(&record.credentials()),
            is_judgement: false,
            asked_from: None,
        };
        self.flights.start_or_join(&request, None)
    }
}
