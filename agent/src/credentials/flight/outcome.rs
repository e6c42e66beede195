//! What the outcome of a flight changes for those who come later.
//!
//! Owns: where it goes: the store, the memory of refusals, the next renewal, or the end of an entitlement.
//! Must not know: how the attempts went.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::backoff::Backoff;
use crate::clock::{BootTime, Clock};
use crate::credentials::assemble::RouteStatusOf;
use crate::credentials::audit_log::{AuditLog, Entry, Fate};
use crate::credentials::flight::attempts::Fetched;
use crate::credentials::flight::shared_call::Flight;
use crate::credentials::policy::entitlement::{Consequence, Entitlement};
use crate::credentials::policy::freshness::Due;
use crate::credentials::policy::recovery::{Recovery, Unanswered};
use crate::credentials::policy::renewing::Demand;
use crate::credentials::record::{Held, IdentityRecord, RenewalFailure};
use crate::credentials::source::{OfEach, Refusal, RefusalClass, SourceError, Unavailable};
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::credentials::store::schedule::Schedule;
use crate::credentials::store::{Kept, Store};
use crate::events::{AwsWords, Events, Problem};
use crate::pods::Pods;
use crate::rng::Rng;
use crate::workload::{Principal, Route, RouteStatus, WebIdentity};

/// Renewals that fail are tried again after this, doubling up to [`SLOWEST_RENEWAL_RETRY`], with jitter.
pub(in crate::credentials) const FIRST_RENEWAL_RETRY: Duration = Duration::from_secs(5);
/// The longest pause between renewals of one set.
const SLOWEST_RENEWAL_RETRY: Duration = Duration::from_secs(120);
/// Between renewals that fail.
const FAILED_RENEWAL: Backoff = Backoff::new(FIRST_RENEWAL_RETRY, SLOWEST_RENEWAL_RETRY);
/// A token that AWS did not accept will hardly do better soon; a newer one ends the waiting at once.
const REFUSED_TOKEN: Backoff = Backoff::new(SLOWEST_RENEWAL_RETRY, SLOWEST_RENEWAL_RETRY);

/// Carries out what follows from outcomes.
pub(in crate::credentials) struct Outcomes {
    pub(in crate::credentials) clock: Clock,
    pub(in crate::credentials) rng: Rng,
    pub(in crate::credentials) store: Store,
    pub(in crate::credentials) refusals: RecentRefusals,
    pub(in crate::credentials) entitlement: Entitlement,
    pub(in crate::credentials) recovery: Arc<Mutex<OfEach<Recovery>>>,
    pub(in crate::credentials) schedule: Schedule,
    /// The longest time to keep a set before its renewal.
    pub(in crate::credentials) renew_after: Duration,
    /// `None`: none was asked for.
    pub(in crate::credentials) audit_log: Option<AuditLog>,
    /// Learns which service accounts have associations.
    pub(in crate::credentials) pods: Pods,
    pub(in crate::credentials) events: Events,
    /// What the cluster says today of the route of a principal.
    pub(in crate::credentials) route_status: RouteStatusOf,
}

impl Outcomes {
    /// Records the outcome of a flight; returns what those who wait for it get.
    pub(super) fn record(
        &self,
        flight: &Flight,
        fetched: Result<Fetched, SourceError>,
    ) -> Result<Held, SourceError> {
        match fetched {
            Ok(fetched) => Ok(self.keep(flight, fetched)),
            Err(error) => {
                self.failed(flight, &error);
                Err(error)
            }
        }
    }

    fn keep(&self, flight: &Flight, fetched: Fetched) -> Held {
        let now = self.clock.now();
        let Fetched { credentials: issued, receipt, token } = fetched;
        let principal = flight.principal();
        let life = issued.lifetime();
        let due = Due::of_new(issued.expiry(), life, self.renew_after, self.rng.fraction());
        let origin = issued.grant().origin.clone();
        let record =
            IdentityRecord::new(principal.clone(), Arc::clone(&issued), token.clone(), due, now.boot);
        let before = self.store.get(&principal.key);
        let had_a_set = before.as_ref().is_some_and(|before| !before.credentials().expiry().is_over(now));
        let audit = |fate| {
            if let Some(audit_log) = &self.audit_log {
                audit_log.record(&Entry {
                    principal,
                    asked_from: flight.asked_from(),
                    call: flight.id(),
                    is_renewal: had_a_set || flight.began_with_a_set(),
                    fate,
                    credentials: &issued,
                    receipt: &receipt,
                });
            }
        };
        self.refusals.forget(&principal.key);
        self.recovery.lock().of_mut(principal.route.source()).answered(now.boot);
        self.entitlement.found(&origin, now.boot);
        match principal.route {
            Route::EksAuth => self.pods.granted(&principal.caller, issued.expiry().boot),
            // A role by annotation or map says nothing of associations.
            Route::WebIdentity(_) => {}
        }
        if let Some(of_pod) = self.store.of_pod_behind(&principal.key) {
            of_pod.has_another_name();
        } else if let Some(of_pod) = self.store.of_claimed_pod(principal) {
            of_pod.found();
        }
        let is_unwanted = || {
            !flight.was_awaited()
                && flight.began_with_what_lives(now)
                && self.store.lookup(principal, token.token.digest(), now).is_none()
        };
        if (self.route_status)(principal) == RouteStatus::Ended || is_unwanted() {
            // A renewal of what made room, or was taken away, while it was under way; or the cluster has
            // taken the role away. It would take the room of another, or bring back what its pod is entitled
            // to no more. What expired meanwhile is kept: its pod may be there.
            audit(Fate::Discarded);
            return Held { credentials: record.credentials(), record: Arc::new(record) };
        }
        if before.is_none_or(|before| before.credentials().grant() != record.credentials().grant()) {
            self.store.remove_other_grants(&record);
        }
        let Kept { held, is_kept } = self.store.keep(record, flight.peer());
        audit(Fate::of(&issued, &held, is_kept));
        if is_kept {
            self.schedule.put(&held.record, held.record.due_at(now));
            // The set that is served may live longer than the newest.
            self.store.granted(&token, &principal.key, held.credentials.expiry());
        }
        held
    }

    /// Keeps what a token earned under the name of the pod that a key has proven it to be of. No call for it
    /// may be under way: its outcome would go to the name that it began with.
    pub(super) fn adopt(&self, pod: &Principal, earned: Arc<IdentityRecord>) -> Arc<IdentityRecord> {
        let Some(record) = self.store.adopt(pod, &earned) else { return earned };
        self.schedule
            .put(&record, earned.take_planned_check().unwrap_or_else(|| record.due_at(self.clock.now())));
        tracing::info!(
            key.was = ?earned.key(),
            key.is = ?record.key(),
            "the pod is verified now; the credentials that its token earned are kept under its own name"
        );
        record
    }

    fn failed(&self, flight: &Flight, error: &SourceError) {
        let now = self.clock.now().boot;
        let Principal { key, route, .. } = flight.principal();
        if let SourceError::Refused(refusal) = error {
            // That of a token past its `exp` is known without a call, and says nothing of AWS.
            if refusal.asked.is_some() {
                self.recovery.lock().of_mut(route.source()).answered(now);
            }
            self.refusals.remember(flight.principal(), refusal.clone(), now);
            if refusal.class == RefusalClass::NoAssociation {
                self.pods.has_no_association(&flight.principal().caller);
            }
            self.tell_owner(flight.principal(), refusal);
            if refusal.class.is_about_token() {
                self.store.token_refused(refusal.judged.digest, route);
            }
        }
        self.tell_of_unreadable_issuer(flight.principal(), error);
        let unanswered = Unanswered::of(error, flight.began(), now);
        if unanswered.is_some() {
            self.recovery.lock().of_mut(route.source()).not_answered(now);
        }
        if let Some(record) = self.store.get(key).or_else(|| self.judged_with(flight.principal(), error)) {
            self.after_failed_renewal(&record, now, error);
            record.set_unanswered(unanswered);
        }
    }

    /// What the pod's owner or an admin can mend is an Event about the pod, whether a request waited or a
    /// renewal was due. AWS has accepted the token before it says either. A token that AWS does not accept is
    /// not worth one: the kubelet will bring a newer one, and a forger's is nobody's. Nor is a cluster that
    /// AWS does not know: that is the agent's own setting, told to admins by the condition `upstream-grants`,
    /// and AWS may not have looked at the token by then.
    fn tell_owner(&self, principal: &Principal, refusal: &Refusal) {
        let said = || AwsWords { code: refusal.code, message: Arc::clone(&refusal.message) };
        if let Route::WebIdentity(wanted) = &principal.route {
            return self.tell_of_web_identity(principal, wanted, refusal.class, said());
        }
        let problem: fn(Box<str>, AwsWords) -> Problem = match refusal.class {
            RefusalClass::NoAssociation if refusal.blames_cluster() => return,
            RefusalClass::NoAssociation => {
                |service_account, said| Problem::NoAssociation { service_account, said }
            }
            RefusalClass::RoleNotAssumable => {
                |service_account, said| Problem::RoleNotAssumable { service_account, said }
            }
            RefusalClass::TokenExpired | RefusalClass::TokenInvalid | RefusalClass::BadRequest => return,
        };
        self.events
            .tell_of_caller(&principal.caller, |service_account| problem(service_account.into(), said()));
    }

    /// The same of what STS refuses. The agent has verified the token: one that STS does not accept is no
    /// forgery, but has an issuer or an audience that the account does not know.
    fn tell_of_web_identity(
        &self,
        principal: &Principal,
        wanted: &Arc<WebIdentity>,
        class: RefusalClass,
        said: AwsWords,
    ) {
        match class {
            RefusalClass::RoleNotAssumable
            | RefusalClass::TokenInvalid
            | RefusalClass::NoAssociation
            | RefusalClass::BadRequest => {}
            RefusalClass::TokenExpired => return,
        }
        self.events.tell_of_caller(&principal.caller, |service_account| Problem::RefusedBySts {
            service_account: service_account.into(),
            wanted: Arc::clone(wanted),
            said,
        });
    }

    /// No refusal: STS may read the keys a moment later. But if nobody published them it never will, and only
    /// the cluster's admin can mend that.
    fn tell_of_unreadable_issuer(&self, principal: &Principal, error: &SourceError) {
        let SourceError::Unavailable(Unavailable::IssuerUnreadable) = error else { return };
        let Route::WebIdentity(wanted) = &principal.route else { return };
        self.events.tell_of_caller(&principal.caller, |service_account| Problem::IssuerUnreadable {
            service_account: service_account.into(),
            wanted: Arc::clone(wanted),
        });
    }

    /// What else an outcome is about, if the token that was judged has nothing of its own. That there is no
    /// association is about the pod, by whichever of its names AWS was asked. What AWS says of the token, and
    /// trouble on the way, leave the pod's own renewals as they are.
    ///
    /// A rotated token that no key proves has no link: AWS has never granted it anything. Without its claim
    /// nothing would tell that AWS spoke of the pod, and what the pod has would be served again as soon as
    /// the key is back. AWS has accepted the token before it says so, unless it does not know the cluster.
    fn judged_with(&self, who: &Principal, error: &SourceError) -> Option<Arc<IdentityRecord>> {
        let SourceError::Refused(refusal) = error else { return None };
        if refusal.class != RefusalClass::NoAssociation {
            return None;
        }
        let by_claim = || self.store.of_claimed_pod(who).filter(|_| !refusal.blames_cluster());
        self.store.of_pod_behind(&who.key).or_else(by_claim)
    }

    /// A set survives its failed renewal (invariant 3), but for what the table of
    /// docs/design/decisions.md#entitlement says.
    fn after_failed_renewal(&self, record: &Arc<IdentityRecord>, now: BootTime, error: &SourceError) {
        let mut other = None;
        let consequence = self.entitlement.after(record, error, now, |since| {
            other = self.another_association(since, now);
            other.is_some()
        });
        record.awaits_another_answer(consequence == Consequence::CheckAnotherAssociation);
        match consequence {
            Consequence::Keep => self.renew_later(record, now, error),
            Consequence::KeepForNewerToken => {
                if let SourceError::Refused(refusal) = error {
                    record.token_refused(*refusal.judged);
                }
                self.renew_later(record, now, error);
            }
            Consequence::CheckAnotherAssociation => {
                if let Some(other) = other {
                    // The worker renews it, at the rate of renewals.
                    self.schedule.put(&other, now);
                }
                // Soon: only the answer about the other one is awaited.
                self.renew_at(record, None, now.plus(FIRST_RENEWAL_RETRY), error);
            }
            Consequence::Drop => self.end(record),
        }
    }

    /// Ends the entitlement of a set that only waited for AWS's answer about another association, now that it
    /// has come: without another call, because its pod may be gone as well. Whether it has ended.
    pub(super) fn end_if_over(&self, record: &Arc<IdentityRecord>) -> bool {
        let now = self.clock.now().boot;
        let has_another = |since| self.another_association(since, now).is_some();
        let is_over = record.takes_another_answer() && self.entitlement.is_over(record, now, has_another);
        if is_over {
            self.end(record);
        }
        is_over
    }

    fn end(&self, record: &Arc<IdentityRecord>) {
        record.revoke();
        self.store.remove(record);
        tracing::warn!(
            key = ?record.key(),
            origin = %record.credentials().grant().origin,
            "the association is gone; its credentials are not served any more"
        );
    }

    /// An identity that can be renewed, of an association that AWS was not asked about since then.
    fn another_association(&self, since: BootTime, now: BootTime) -> Option<Arc<IdentityRecord>> {
        let wall_now = self.clock.now();
        self.store.last_asked(&|record| {
            record.demand() == Demand::Somebody
                && record.principal().route == Route::EksAuth
                && !wall_now.is_surely_past(record.token().expires)
                && !self.entitlement.was_asked_about(&record.credentials().grant().origin, since, now)
        })
    }

    fn renew_later(&self, record: &Arc<IdentityRecord>, now: BootTime, error: &SourceError) {
        // Asked in time for the answer that ends it.
        let limit = match (record.not_found(), self.entitlement.max_stale()) {
            (Some(streak), Some(max)) => Some(streak.since.plus(max)).filter(|limit| now < *limit),
            (None, _) | (_, None) => None,
        };
        let backoff = if record.awaits_token() { REFUSED_TOKEN } else { FAILED_RENEWAL };
        let again = now.plus(backoff.jittered(record.failed_renewals() + 1, &self.rng));
        self.renew_at(record, limit, limit.map_or(again, |limit| again.min(limit)), error);
    }

    fn renew_at(
        &self,
        record: &Arc<IdentityRecord>,
        repeat_by: Option<BootTime>,
        again: BootTime,
        error: &SourceError,
    ) {
        let failure = RenewalFailure { error: error.clone(), at: self.clock.now().boot };
        let in_a_row = record.renewal_failed(failure, repeat_by);
        record.quiet_until(again);
        // Not after its end: it leaves memory by then, whether AWS is back or not (invariant 8).
        self.schedule.put(record, again.min(record.expiry().boot));
        tracing::info!(
            key = ?record.key(),
            err = %error,
            failures = in_a_row,
            "a renewal failed; the credentials are served on"
        );
    }
}
