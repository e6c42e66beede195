//! When credentials end before their expiry. Pure, but for the memory of what AWS said lately.
//!
//! Owns: the table of docs/design/decisions.md#entitlement. Must not know: how a set is dropped or a renewal
//! is planned. Invariant 3 gives every failure the benefit of the doubt; the one answer that ends an
//! entitlement is "there is no association", and only when AWS says so for long enough, and not of everybody
//! at once.
//!
//! Renewals are spread over hours, so at the time of the verdict nobody else may have been asked about for a
//! while. Then another association's set is renewed first: whether AWS still knows that one
//! tells a deleted association from a bad day.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::BootTime;
use crate::credentials::issued::GrantOrigin;
use crate::credentials::policy::not_found_streak::{NotFoundStreak, PERIOD};
use crate::credentials::record::IdentityRecord;
use crate::credentials::source::{RefusalClass, SourceError};

/// How many associations' last answers are remembered; above, new ones are not. One takes about 100 bytes.
const MOST_ANSWERS: usize = 4_096;

/// What a failed renewal means for the set that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// It is kept to its expiry, and its renewal is tried again.
    Keep,
    /// The same, but this token will hardly renew it: a newer one is waited for.
    KeepForNewerToken,
    /// It is kept for now, and another association's set is renewed to learn what AWS says of that one.
    CheckAnotherAssociation,
    /// The pod is entitled to it no more.
    Drop,
}

/// What AWS said of all associations in the last five minutes. That it knew one before it first said that
/// another is not there shows nothing: it may have forgotten both at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentAnswers {
    /// Associations that it knows.
    pub found: usize,
    /// Associations of kept sets that it says are not there.
    pub not_found: usize,
    /// There is a set of an association that it was not asked about.
    pub has_another: bool,
}

/// The table of docs/design/decisions.md#entitlement. `streak` is there when `error` says "no association".
///
/// `max_stale` is `--max-stale-after-refusal`: the first such answer later than that ends it, and five
/// minutes at most.
pub fn consequence(
    error: &SourceError,
    streak: Option<NotFoundStreak>,
    answers: RecentAnswers,
    now: BootTime,
    max_stale: Option<Duration>,
) -> Consequence {
    let Some(class) = error.refusal_class() else { return Consequence::Keep };
    match class {
        RefusalClass::NoAssociation => {
            let is_over = streak.is_some_and(|streak| streak.is_over(now, max_stale));
            if is_over { answers.verdict() } else { Consequence::Keep }
        }
        RefusalClass::TokenExpired | RefusalClass::TokenInvalid => Consequence::KeepForNewerToken,
        // It may be a transient change of IAM.
        RefusalClass::RoleNotAssumable | RefusalClass::BadRequest => Consequence::Keep,
    }
}

impl RecentAnswers {
    fn verdict(self) -> Consequence {
        if self.not_found <= self.found {
            return Consequence::Drop;
        }
        if self.has_another {
            return Consequence::CheckAnotherAssociation;
        }
        // Several associations gone at once, and most of all: AWS's trouble or a wrong cluster name, and no
        // admin's wish. But a node with one association that is gone is just that.
        if self.not_found >= 2 { Consequence::Keep } else { Consequence::Drop }
    }
}

/// Judges failed renewals. Clones share the memory.
#[derive(Clone, Default)]
pub struct Entitlement {
    answers: Arc<Mutex<LastAnswers>>,
    max_stale: Option<Duration>,
}

#[derive(Default)]
struct LastAnswers {
    last: HashMap<GrantOrigin, LastAnswer>,
    pruned_at: Option<BootTime>,
}

#[derive(Clone, Copy)]
struct LastAnswer {
    at: BootTime,
    is_found: bool,
}

impl Entitlement {
    /// With `--max-stale-after-refusal`, or the table alone.
    pub fn new(max_stale: Option<Duration>) -> Self {
        Self { answers: Arc::default(), max_stale }
    }

    /// `--max-stale-after-refusal`.
    pub fn max_stale(&self) -> Option<Duration> {
        self.max_stale
    }

    /// AWS issued credentials, or said something else that shows that it knows what they are of. Associations
    /// alone are counted: that STS gives a role does not show that EKS Auth has not forgotten them all.
    pub fn found(&self, origin: &GrantOrigin, now: BootTime) {
        match origin {
            GrantOrigin::Association(_) => self.answers.lock().note(origin, true, now),
            GrantOrigin::Role(_) => {}
        }
    }

    /// Whether AWS was asked about an association in the last five minutes, and not before `since`.
    pub fn was_asked_about(&self, origin: &GrantOrigin, since: BootTime, now: BootTime) -> bool {
        let last = self.answers.lock().last.get(origin).copied();
        last.is_some_and(|answer| answer.is_recent(now) && answer.at >= since)
    }

    /// What the failed renewal of a set means for it. `has_another`: there is a set of an association that
    /// AWS was not [asked about](Self::was_asked_about) since then.
    pub fn after(
        &self,
        record: &IdentityRecord,
        error: &SourceError,
        now: BootTime,
        has_another: impl FnOnce(BootTime) -> bool,
    ) -> Consequence {
        let Some(class) = error.refusal_class() else {
            return consequence(error, None, RecentAnswers::default(), now, self.max_stale);
        };
        let credentials = record.credentials();
        let origin = &credentials.grant().origin;
        let streak = match class {
            RefusalClass::NoAssociation => {
                self.answers.lock().note(origin, false, now);
                Some(record.not_found_again(now))
            }
            RefusalClass::RoleNotAssumable => {
                self.found(origin, now);
                record.found();
                None
            }
            RefusalClass::TokenExpired | RefusalClass::TokenInvalid | RefusalClass::BadRequest => None,
        };
        let answers = streak
            .filter(|streak| streak.is_over(now, self.max_stale))
            .map(|streak| self.answers_since(streak.since, now, has_another));
        consequence(error, streak, answers.unwrap_or_default(), now, self.max_stale)
    }

    /// Whether what AWS has said by now ends the entitlement to a set, of which it said lately that there is
    /// no association. `has_another`: as of [`after`](Self::after).
    pub fn is_over(
        &self,
        record: &IdentityRecord,
        now: BootTime,
        has_another: impl FnOnce(BootTime) -> bool,
    ) -> bool {
        let credentials = record.credentials();
        let origin = &credentials.grant().origin;
        let streak = record.not_found().filter(|streak| streak.is_over(now, self.max_stale));
        streak.is_some_and(|streak| {
            self.was_asked_about(origin, streak.since, now)
                && self.answers_since(streak.since, now, has_another).verdict() == Consequence::Drop
        })
    }

    fn answers_since(
        &self,
        since: BootTime,
        now: BootTime,
        has_another: impl FnOnce(BootTime) -> bool,
    ) -> RecentAnswers {
        let (found, not_found) = self.answers.lock().count(since, now);
        // Looks at all records, so it is asked last.
        RecentAnswers { found, not_found, has_another: not_found > found && has_another(since) }
    }
}

impl LastAnswers {
    fn note(&mut self, origin: &GrantOrigin, is_found: bool, now: BootTime) {
        if self.pruned_at.is_none_or(|at| now.since(at) > PERIOD) {
            self.prune(now);
        }
        let answer = LastAnswer { at: now, is_found };
        if let Some(last) = self.last.get_mut(origin) {
            *last = answer;
        } else if self.last.len() < MOST_ANSWERS {
            self.last.insert(origin.clone(), answer);
        }
    }

    /// How many associations there are, by answers since then, and how many are not there.
    fn count(&mut self, since: BootTime, now: BootTime) -> (usize, usize) {
        self.prune(now);
        let found = self.last.values().filter(|answer| answer.is_found && answer.at >= since).count();
        (found, self.last.values().filter(|answer| !answer.is_found).count())
    }

    fn prune(&mut self, now: BootTime) {
        self.pruned_at = Some(now);
        self.last.retain(|_, answer| answer.is_recent(now));
    }
}

impl LastAnswer {
    fn is_recent(self, now: BootTime) -> bool {
        now.since(self.at) <= PERIOD
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::Consequence::{CheckAnotherAssociation, Drop, Keep, KeepForNewerToken};
    use super::{LastAnswers, NotFoundStreak, RecentAnswers, consequence};
    use crate::aws::own_identity::rejection::Rejection;
    use crate::clock::BootTime;
    use crate::credentials::issued::GrantOrigin;
    use crate::credentials::source::tests::refusal;
    use crate::credentials::source::{OwnIdentityFault, RefusalClass, SourceError, Unavailable};

    const ALONE: RecentAnswers = RecentAnswers { found: 0, not_found: 1, has_another: false };

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    fn refused(class: RefusalClass) -> SourceError {
        SourceError::Refused(refusal(class))
    }

    fn association(id: &str) -> GrantOrigin {
        GrantOrigin::Association(id.into())
    }

    #[test]
    fn the_table_of_what_ends_an_entitlement() {
        let rejection = Arc::new(Rejection::new(403, Some("AccessDeniedException"), "no", None));
        let cases = [
            (SourceError::Throttled, Keep),
            (SourceError::Unavailable(Unavailable::Timeout), Keep),
            (SourceError::OwnIdentity(OwnIdentityFault::RegionUnknown), Keep),
            (SourceError::OwnIdentity(OwnIdentityFault::Missing), Keep),
            (SourceError::OwnIdentity(OwnIdentityFault::Rejected(rejection)), Keep),
            (refused(RefusalClass::RoleNotAssumable), Keep),
            (refused(RefusalClass::BadRequest), Keep),
            (refused(RefusalClass::TokenExpired), KeepForNewerToken),
            (refused(RefusalClass::TokenInvalid), KeepForNewerToken),
            (refused(RefusalClass::NoAssociation), Drop),
        ];
        for (error, expected) in cases {
            let streak = Some(NotFoundStreak { times: 3, since: at(0) });
            assert_eq!(consequence(&error, streak, ALONE, at(300), None), expected, "{error:?}");
        }
    }

    #[test]
    fn the_table_of_not_found() {
        let recent = |found, not_found, has_another| RecentAnswers { found, not_found, has_another };
        let short = Some(Duration::from_secs(30));
        let cases = [
            ("three times over five minutes", 3, 300, ALONE, None, Drop),
            ("only twice", 2, 300, ALONE, None, Keep),
            ("not for five minutes", 9, 299, ALONE, None, Keep),
            ("nobody else was asked about", 3, 300, recent(0, 1, true), None, CheckAnotherAssociation),
            ("another is there", 3, 300, recent(1, 1, true), None, Drop),
            (
                "two are gone, one is there, a third can tell",
                3,
                300,
                recent(1, 2, true),
                None,
                CheckAnotherAssociation,
            ),
            ("as many are gone as are there", 3, 300, recent(2, 2, true), None, Drop),
            ("most are gone", 3, 300, recent(2, 3, false), None, Keep),
            ("all are gone", 3, 300, recent(0, 2, false), None, Keep),
            ("stale for as long as may be", 2, 30, ALONE, short, Drop),
            ("not yet", 2, 29, ALONE, short, Keep),
            ("no staleness at all", 1, 0, ALONE, Some(Duration::ZERO), Drop),
            ("all are gone, whatever may be stale", 2, 30, recent(0, 3, false), short, Keep),
            ("a long staleness does not loosen the table", 3, 300, ALONE, Some(Duration::MAX), Drop),
        ];
        for (what, times, now, answers, max_stale, expected) in cases {
            let streak = Some(NotFoundStreak { times, since: at(0) });
            let error = refused(RefusalClass::NoAssociation);
            assert_eq!(consequence(&error, streak, answers, at(now), max_stale), expected, "{what}");
        }
    }

    #[test]
    fn answers_of_the_last_five_minutes_count_and_of_each_association_the_last() {
        let mut answers = LastAnswers::default();
        answers.note(&association("a-1"), false, at(0));
        answers.note(&association("a-2"), true, at(100));
        answers.note(&association("a-2"), false, at(200));
        answers.note(&association("a-3"), true, at(200));
        assert_eq!(answers.count(at(0), at(300)), (1, 2));
        assert_eq!(
            answers.count(at(201), at(300)),
            (0, 2),
            "what AWS knew before the first of them is nothing"
        );
        assert_eq!(answers.count(at(0), at(301)), (1, 1));
        answers.note(&association("a-4"), true, at(10_000));
        assert_eq!(answers.last.len(), 1, "old answers leave memory");
    }
}
