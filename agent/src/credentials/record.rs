//! What is known of one identity: the set it is served, and all that outlives sets.
//!
//! Owns: demand (for whom it would be renewed, when it was asked for last), when its renewal is due, how long
//! nothing is tried (quiet), how often renewals failed, the best token, and the end of its entitlement. Must
//! not know: what follows from any of it; policies decide, and `flight::outcome` carries out.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::{BootTime, Now};
use crate::credentials::cached::CachedCredentials;
use crate::credentials::policy::freshness::{Due, Expiry, Freshness};
use crate::credentials::policy::not_found_streak::NotFoundStreak;
use crate::credentials::policy::recovery::Unanswered;
use crate::credentials::policy::renewing::{Checked, Demand};
use crate::credentials::source::{JudgedToken, SourceError};
use crate::workload::{CredentialKey, PresentedToken, Principal};

/// The record of one identity.
pub struct IdentityRecord {
    principal: Principal,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    credentials: Arc<CachedCredentials>,
    /// The token of longest life that was presented; it earns the next set.
    token: PresentedToken,
    /// When the renewal is due.
    due: Due,
    /// No request starts or awaits a renewal before it is due, however little is left.
    is_quiet_until_due: bool,
    /// What nobody wants is not renewed (invariant 8).
    demand: Demand,
    last_asked: BootTime,
    had_first_hit: bool,
    /// What has gone wrong since the last renewal that succeeded. Most records have none, and it is large.
    trouble: Option<Box<Trouble>>,
    /// AWS has said for long enough that there is no association, and only its answer about another one is
    /// awaited.
    awaits_another_answer: bool,
    /// The one check that is planned; plans made before are void.
    planned_check: Option<BootTime>,
    /// It is in the store no more, and in memory only because somebody still has it.
    has_left_the_store: bool,
    /// The pod is entitled to the set no more: not even those who wait get it.
    is_revoked: bool,
}

/// What has gone wrong with renewals; one that succeeds ends it.
#[derive(Clone, Default)]
struct Trouble {
    /// Until when no request starts or awaits a renewal.
    quiet_until: Option<BootTime>,
    failed_renewals: u32,
    /// The last of them, for people.
    last_failure: Option<RenewalFailure>,
    /// Why it is quiet, if AWS gave no answer to its last renewal.
    unanswered: Option<Unanswered>,
    /// When the last call for a pod that may be gone is made, if that is before the last sixth of the life.
    repeat_by: Option<BootTime>,
    /// How long AWS has been saying that there is no association.
    not_found: Option<NotFoundStreak>,
    /// AWS did not accept a token with this `exp`; a newer one is awaited.
    refused_token: Option<SystemTime>,
}

/// After so long AWS has said what time it is: it is asked at once, and twice within this.
const CLOCKS_DISAGREE: Duration = Duration::from_secs(10);

/// A renewal that failed.
#[derive(Clone, Debug)]
pub struct RenewalFailure {
    /// Why.
    pub error: SourceError,
    /// When that was known.
    pub at: BootTime,
}

/// A record and the set it had when somebody looked.
#[derive(Clone, Debug)]
pub struct Held {
    /// The record.
    pub record: Arc<IdentityRecord>,
    /// The set.
    pub credentials: Arc<CachedCredentials>,
}

impl IdentityRecord {
    /// The record of a new identity: its first set has just arrived.
    pub fn new(
        principal: Principal,
        credentials: Arc<CachedCredentials>,
        token: PresentedToken,
        due: Due,
        now: BootTime,
    ) -> Self {
        let state = State {
            credentials,
            token,
            due,
            is_quiet_until_due: false,
            demand: Demand::Nobody,
            last_asked: now,
            had_first_hit: false,
            trouble: None,
            awaits_another_answer: false,
            planned_check: None,
            is_revoked: false,
            has_left_the_store: false,
        };
        Self { principal, state: Mutex::new(state) }
    }

    /// The same, under another name of the same identity.
    pub fn renamed(&self, principal: Principal) -> Self {
        let state = State { has_left_the_store: false, ..self.state.lock().clone() };
        Self { principal, state: Mutex::new(state) }
    }

    /// Who it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Under which key it is kept.
    pub fn key(&self) -> &CredentialKey {
        &self.principal.key
    }

    /// The set that is served.
    pub fn credentials(&self) -> Arc<CachedCredentials> {
        Arc::clone(&self.state.lock().credentials)
    }

    /// When that set ends.
    pub fn expiry(&self) -> Expiry {
        self.state.lock().credentials.expiry()
    }

    /// It made room for another, or was removed: it is renewed no more.
    pub fn left_the_store(&self) {
        self.state.lock().has_left_the_store = true;
    }

    /// Whether it was kept and is not any more.
    pub fn has_left_the_store(&self) -> bool {
        self.state.lock().has_left_the_store
    }

    /// What the decision on a request needs to know.
    pub fn freshness(&self, now: Now) -> Freshness {
        self.state.lock().freshness(now)
    }

    /// Somebody asks with this token. Returns the set, and what the decision needs to know of it.
    pub fn asked(&self, presented: &PresentedToken, now: Now) -> (Arc<CachedCredentials>, Freshness) {
        let mut state = self.state.lock();
        state.last_asked = now.boot;
        state.consider(presented);
        (Arc::clone(&state.credentials), state.freshness(now))
    }

    /// When somebody asked last.
    pub fn last_asked(&self) -> BootTime {
        self.state.lock().last_asked
    }

    /// Somebody is served: from now on the identity is wanted.
    pub fn served(&self) {
        self.state.lock().demand = Demand::Somebody;
    }

    /// Somebody is served from memory. True the first time, for the access log.
    pub fn served_from_memory(&self) -> bool {
        let mut state = self.state.lock();
        state.demand = Demand::Somebody;
        !std::mem::replace(&mut state.had_first_hit, true)
    }

    /// For whom it would be renewed.
    pub fn demand(&self) -> Demand {
        self.state.lock().demand
    }

    /// What a check in the background needs to know.
    pub fn checked(&self, now: Now) -> Checked {
        let state = self.state.lock();
        Checked {
            freshness: state.freshness(now),
            left_at_most: state.credentials.expiry().left_at_most(now),
            due_in: state.due.due_in(now),
            demand: state.demand,
            has_token: !now.is_surely_past(state.token.expires),
            repeat_in: state.trouble().and_then(|trouble| trouble.repeat_by).map(|by| by.since(now.boot)),
        }
    }

    /// The token that renews it.
    pub fn token(&self) -> PresentedToken {
        self.state.lock().token.clone()
    }

    /// Takes a newer set of the same identity, unless the one that it has lives longer. A renewal that
    /// succeeded begins a new term either way: it is due again when `newer` is. Until then no request renews
    /// a set that was kept, however little is left of it: AWS would bring another such set each time. But a
    /// set that ends later by AWS's word, and sooner by the node's clocks, means that these are wrong (the
    /// node was paused, and does not know it): then it is due again in a moment, when AWS has told the time.
    /// Returns the set that is served from now on.
    pub fn renew(&self, newer: &Self, now: Now) -> Arc<CachedCredentials> {
        let (credentials, token, due) = {
            let newer = newer.state.lock();
            (Arc::clone(&newer.credentials), newer.token.clone(), newer.due)
        };
        let newer_ends_at = credentials.expiry().wall;
        let mut state = self.state.lock();
        let is_replaced = credentials.replaces(&state.credentials, now);
        if is_replaced {
            self.log_change(&state.credentials, &credentials);
            state.credentials = credentials;
        }
        let expiry = state.credentials.expiry();
        let clocks_disagree = !is_replaced && newer_ends_at > expiry.wall;
        state.due = if clocks_disagree { Due::after(CLOCKS_DISAGREE, expiry, now) } else { due };
        state.demand = state.demand.after_success();
        if token.expires > state.token.expires {
            state.token = token;
        }
        state.is_quiet_until_due = !is_replaced;
        state.trouble = None;
        Arc::clone(&state.credentials)
    }

    fn log_change(&self, was: &CachedCredentials, is: &CachedCredentials) {
        let (was, is) = (was.grant(), is.grant());
        if was != is {
            tracing::info!(
                key = ?self.key(),
                origin.was = %was.origin,
                origin.is = %is.origin,
                role.was = &*was.role,
                role.is = &*is.role,
                "the role has changed; the new credentials are served from now on"
            );
        }
    }

    /// When its renewal is due, as far as is known now.
    pub fn due_at(&self, now: Now) -> BootTime {
        self.state.lock().due.at(now)
    }

    /// No request starts or awaits a renewal before `until`.
    pub fn quiet_until(&self, until: BootTime) {
        let mut state = self.state.lock();
        let trouble = state.in_trouble();
        trouble.quiet_until = trouble.quiet_until.max(Some(until));
    }

    /// How many renewals have failed in a row.
    pub fn failed_renewals(&self) -> u32 {
        self.state.lock().trouble().map_or(0, |trouble| trouble.failed_renewals)
    }

    /// The last of them.
    pub fn last_failure(&self) -> Option<RenewalFailure> {
        self.state.lock().trouble().and_then(|trouble| trouble.last_failure.clone())
    }

    /// Counts a failed renewal; returns how many there were in a row. If nobody asks any more, it is repeated
    /// once, by `repeat_by` or when a sixth of the life is left.
    pub fn renewal_failed(&self, failure: RenewalFailure, repeat_by: Option<BootTime>) -> u32 {
        let mut state = self.state.lock();
        state.demand = state.demand.after_failure();
        let trouble = state.in_trouble();
        trouble.last_failure = Some(failure);
        trouble.failed_renewals = trouble.failed_renewals.saturating_add(1);
        trouble.repeat_by = repeat_by;
        trouble.failed_renewals
    }

    /// Notes whether it is quiet because AWS gave no answer to its last renewal.
    pub fn set_unanswered(&self, unanswered: Option<Unanswered>) {
        self.state.lock().in_trouble().unanswered = unanswered;
    }

    /// The renewal without an answer that it is quiet for.
    pub fn unanswered(&self) -> Option<Unanswered> {
        self.state.lock().trouble().and_then(|trouble| trouble.unanswered)
    }

    /// The next request may start or await a renewal.
    pub fn end_quiet(&self) {
        let mut state = self.state.lock();
        state.end_quiet();
        state.change_trouble(|trouble| trouble.unanswered = None);
    }

    /// AWS said once more that there is no association.
    pub fn not_found_again(&self, now: BootTime) -> NotFoundStreak {
        let mut state = self.state.lock();
        let trouble = state.in_trouble();
        let so_far = NotFoundStreak::and_again(trouble.not_found, now);
        trouble.not_found = Some(so_far);
        so_far
    }

    /// There is an association after all.
    pub fn found(&self) {
        self.state.lock().change_trouble(|trouble| trouble.not_found = None);
    }

    /// A token of its pod has earned a set that is kept under the token's own name: the pod has its
    /// association, and a client that goes on asking by that name is no reason to renew this one too.
    pub fn has_another_name(&self) {
        let mut state = self.state.lock();
        state.demand = Demand::Nobody;
        state.change_trouble(|trouble| trouble.not_found = None);
    }

    /// Nobody asks for it any more.
    pub fn not_wanted(&self) {
        self.state.lock().demand = Demand::Nobody;
    }

    /// How long AWS has been saying that there is no association.
    pub fn not_found(&self) -> Option<NotFoundStreak> {
        self.state.lock().trouble().and_then(|trouble| trouble.not_found)
    }

    /// Notes whether the end of its entitlement only waits for AWS's answer about another association.
    pub fn awaits_another_answer(&self, awaits: bool) {
        self.state.lock().awaits_another_answer = awaits;
    }

    /// Whether it does. It is looked at once: what comes later is another renewal's to judge.
    pub fn takes_another_answer(&self) -> bool {
        std::mem::take(&mut self.state.lock().awaits_another_answer)
    }

    /// AWS did not accept this token: until a newer one comes there is no hurry to renew. It may have come
    /// already.
    pub fn token_refused(&self, judged: JudgedToken) {
        let mut state = self.state.lock();
        if state.token.expires <= judged.expires {
            let trouble = state.in_trouble();
            trouble.refused_token = trouble.refused_token.max(Some(judged.expires));
        }
    }

    /// Whether a newer token is awaited.
    pub fn awaits_token(&self) -> bool {
        self.state.lock().refused_token().is_some()
    }

    /// Its pod is entitled to the set no more.
    pub fn revoke(&self) {
        self.state.lock().is_revoked = true;
    }

    /// Whether its pod is entitled to the set no more.
    pub fn is_revoked(&self) -> bool {
        self.state.lock().is_revoked
    }

    /// Plans the next check of it; only the last plan counts.
    pub fn plan_check(&self, at: BootTime) {
        self.state.lock().planned_check = Some(at);
    }

    /// When it is checked next.
    pub fn planned_check(&self) -> Option<BootTime> {
        self.state.lock().planned_check
    }

    /// Gives up the check that is planned, and says when it would have been.
    pub fn take_planned_check(&self) -> Option<BootTime> {
        self.state.lock().planned_check.take()
    }

    /// Whether a check at `at` is the one that is planned.
    pub fn is_planned(&self, at: BootTime) -> bool {
        self.state.lock().planned_check == Some(at)
    }
}

impl State {
    fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_deref()
    }

    /// Its trouble, which begins now if there was none.
    fn in_trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    /// Part of its trouble may be over; there may be none.
    fn change_trouble(&mut self, change: impl FnOnce(&mut Trouble)) {
        if let Some(trouble) = &mut self.trouble {
            change(trouble);
        }
    }

    fn refused_token(&self) -> Option<SystemTime> {
        self.trouble().and_then(|trouble| trouble.refused_token)
    }

    fn freshness(&self, now: Now) -> Freshness {
        let is_due = self.due.is_past(now);
        let quiet_until = self.trouble().and_then(|trouble| trouble.quiet_until);
        let is_quiet = quiet_until.is_some_and(|until| now.boot < until);
        Freshness {
            left: self.credentials.expiry().left(now),
            lifetime: self.credentials.lifetime(),
            is_due,
            is_quiet: is_quiet || (self.is_quiet_until_due && !is_due),
        }
    }

    fn end_quiet(&mut self) {
        self.is_quiet_until_due = false;
        self.change_trouble(|trouble| trouble.quiet_until = None);
    }

    /// First whether the token is newer than the one that AWS did not accept; then it takes the place of an
    /// older one, so that renewal does not go on with a token that the kubelet has long replaced.
    fn consider(&mut self, presented: &PresentedToken) {
        if self.refused_token().is_some_and(|refused| presented.expires > refused) {
            self.change_trouble(|trouble| trouble.refused_token = None);
            self.end_quiet();
        }
        if presented.expires > self.token.expires {
            self.token = presented.clone();
        }
    }
}

impl Held {
    /// The body to send, and whether it is the identity's first hit.
    pub fn serve_from_memory(&self) -> (Bytes, bool) {
        (self.credentials.body(), self.record.served_from_memory())
    }

    /// The body to send to those who waited for it.
    pub fn serve_fetched(&self) -> Bytes {
        self.record.served();
        self.credentials.body()
    }
}

impl fmt::Debug for IdentityRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityRecord").field("key", self.key()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::IdentityRecord;
    use crate::clock::{BootTime, Now};
    use crate::credentials::cached::CachedCredentials;
    use crate::credentials::issued::Grant;
    use crate::credentials::issued::tests::issued;
    use crate::credentials::policy::freshness::Due;
    use crate::credentials::policy::renewing::Demand;
    use crate::workload::{BearerToken, Caller, CredentialKey, PresentedToken, Principal, Route};

    const HOUR: Duration = Duration::from_secs(3600);

    /// The record of an identity that was issued a set a moment ago.
    pub(crate) fn record(
        key: CredentialKey,
        expires: SystemTime,
        grant: Option<Grant>,
        now: Now,
    ) -> IdentityRecord {
        let mut issued = issued(expires);
        if let Some(grant) = grant {
            issued.grant = grant;
        }
        let credentials = Arc::new(CachedCredentials::new(&issued, now).unwrap());
        let token = BearerToken::from_header(b"a.b.c").unwrap();
        let presented = PresentedToken { token, expires, issued: None };
        let due = Due::of_new(credentials.expiry(), credentials.lifetime(), 3 * HOUR, 0.0);
        let principal = Principal { key, caller: Caller::Unknown, route: Route::EksAuth };
        IdentityRecord::new(principal, credentials, presented, due, now.boot)
    }

    fn at(seconds: u64) -> Now {
        let since = Duration::from_secs(seconds);
        Now::confirmed(UNIX_EPOCH + since, BootTime::from_boot(since))
    }

    fn presented(text: &str, expires: Duration) -> PresentedToken {
        let token = BearerToken::from_header(text.as_bytes()).unwrap();
        PresentedToken { token, expires: UNIX_EPOCH + expires, issued: None }
    }

    /// Issued at `now` for an hour; its token expires with it.
    fn new(now: u64) -> IdentityRecord {
        let key = CredentialKey::Unverified(presented("a.b.c", HOUR).token.digest());
        record(key, at(now).wall + HOUR, None, at(now))
    }

    #[test]
    fn the_token_of_longest_life_renews_it_over_all_its_sets() {
        let record = new(0);
        record.asked(&presented("a.older.c", HOUR / 2), at(1));
        assert_eq!(record.token().token.reveal(), "a.b.c");
        record.asked(&presented("a.newer.c", 3 * HOUR), at(2));
        assert_eq!(record.token().token.reveal(), "a.newer.c");
        record.renew(&new(3), at(3));
        assert_eq!(record.token().token.reveal(), "a.newer.c");
    }

    #[test]
    fn a_set_is_wanted_once_it_was_served_and_an_identity_has_one_first_hit() {
        let record = new(0);
        assert_eq!(record.demand(), Demand::Nobody);
        assert!(record.served_from_memory());
        assert_eq!(record.demand(), Demand::Somebody);
        assert!(!record.served_from_memory());
        record.renew(&new(10), at(10));
        assert_eq!(record.demand(), Demand::RenewedOnce, "nobody asked for the new set yet");
        assert!(!record.served_from_memory(), "and it is no first hit");
    }

    #[test]
    fn a_renewal_that_brings_a_shorter_life_is_not_due_again_at_once() {
        let record = new(1_000);
        let key = CredentialKey::Unverified(presented("a.b.c", HOUR).token.digest());
        // It lives for twenty minutes, to 4,500.
        let shorter = super::tests::record(key, at(4_500).wall, None, at(3_300));
        let kept = record.renew(&shorter, at(3_300));
        assert_eq!(kept.expiry().wall, at(1_000).wall + HOUR, "the longer life is served on");
        assert_eq!(record.due_at(at(3_300)), at(3_900).boot, "the term is that of the newer set");
        assert!(record.freshness(at(3_899)).is_quiet, "however little is left");
        let at_the_end_of_the_term = record.freshness(at(3_900));
        assert!(at_the_end_of_the_term.is_due && !at_the_end_of_the_term.is_quiet);
        // The node was paused for ten minutes.
        let after_a_pause = record.freshness(Now { wall: at(3_900).wall, ..at(3_300) });
        assert!(after_a_pause.is_due && !after_a_pause.is_quiet, "it is later than by the boot clock");
    }

    #[test]
    fn what_ends_later_by_awss_word_alone_is_asked_for_again_when_the_time_is_known() {
        let record = new(1_000);
        // The node was paused for 2,000 s: it is later than its clocks show.
        let key = CredentialKey::Unverified(presented("a.b.c", HOUR).token.digest());
        let later =
            super::tests::record(key, at(6_000).wall, None, Now { boot: at(2_000).boot, ..at(4_000) });
        let kept = record.renew(&later, at(2_000));
        assert_eq!(kept.expiry().wall, at(1_000).wall + HOUR, "by the node's clocks it lives longer");
        assert_eq!(record.due_at(at(2_000)), at(2_010).boot);
        record.renew(&later, Now { boot: at(2_011).boot, ..at(4_011) });
        assert_eq!(record.expiry().wall, at(6_000).wall);
    }

    #[test]
    fn a_newer_token_ends_the_waiting_for_one_and_an_older_one_does_not() {
        let record = new(0);
        record.token_refused((&presented("a.older.c", HOUR / 2)).into());
        assert!(!record.awaits_token(), "it has a newer one already");
        record.token_refused((&presented("a.b.c", HOUR)).into());
        record.quiet_until(BootTime::from_boot(HOUR));
        record.asked(&presented("a.old.c", HOUR), at(1));
        assert!(record.awaits_token() && record.freshness(at(1)).is_quiet);
        record.asked(&presented("a.new.c", 2 * HOUR), at(2));
        assert!(!record.awaits_token() && !record.freshness(at(2)).is_quiet);
    }
}
