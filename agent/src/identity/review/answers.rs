//! The judge's answers, each for its time. Pure.
//!
//! Owns: for how long an answer counts, and how many are kept. Must not know: what follows from one. Tokens
//! are known by their digests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::user::ReviewedUser;
use crate::backoff::Backoff;
use crate::clock::BootTime;
use crate::workload::TokenDigest;

/// A genuine token is shown again after this time: its pod or service account may be gone. The cluster itself
/// takes it back within 10 s, and deleted pods of this node are reported within seconds
/// (docs/design/facts.md#tokenreview); this is for all that nobody reports.
const GENUINE_FOR: Duration = Duration::from_secs(10 * 60);
/// The API server denies a token also when it could not check it: any error of its look for the pod is
/// "service account token has been invalidated" (kubernetes `pkg/serviceaccount/claims.go`). So one denial
/// takes back no genuine token: it is shown again, and a second one after this time counts.
const DENIALS_APART: Duration = Duration::from_secs(10);
/// A denied token is shown again after 10 s, because a pod may be so new that one of several API servers does
/// not know it; then less and less often.
const BETWEEN_DENIALS: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(120));
/// Denials are counted until the token was not shown for this time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(240);
/// Genuine tokens: a node's 250 pods with an old and a new one each, twice over; some 300 bytes of each.
const MOST_GENUINE: usize = 1_024;
/// Denied ones, of which anybody can make up more; some 50 bytes of each.
const MOST_DENIED: usize = 1_024;

/// What is known of a token.
#[derive(Clone, Debug)]
pub(in crate::identity) enum Known {
    /// It is genuine, and this is who it was issued to.
    Authenticated {
        /// Who.
        user: Arc<ReviewedUser>,
        /// From when on the judge is asked again; until it answers, this counts.
        again_at: BootTime,
    },
    /// It is not.
    Denied {
        /// From when on the judge is asked again.
        again_at: BootTime,
    },
    /// Nothing.
    Nothing {
        /// From when on the judge is asked.
        again_at: BootTime,
    },
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    genuine: HashMap<TokenDigest, Genuine>,
    denied: HashMap<TokenDigest, Denied>,
}

#[derive(Debug)]
struct Genuine {
    user: Arc<ReviewedUser>,
    again_at: BootTime,
    /// When it was denied first since it was found genuine.
    first_denial: Option<BootTime>,
}

#[derive(Debug)]
struct Denied {
    times: u32,
    again_at: BootTime,
}

impl Known {
    /// Whether it is an answer, and the judge need not be asked again.
    pub(super) fn counts_at(&self, now: BootTime) -> bool {
        match self {
            Self::Authenticated { again_at, .. } | Self::Denied { again_at } => now < *again_at,
            Self::Nothing { .. } => false,
        }
    }

    /// The same, and the judge is not asked before that time. A denial does not count any longer for that: a
    /// judge that says nothing does not deny.
    pub(super) fn not_before(mut self, time: BootTime) -> Self {
        match &mut self {
            Self::Authenticated { again_at, .. } | Self::Nothing { again_at } => {
                *again_at = time.max(*again_at);
            }
            Self::Denied { .. } => {}
        }
        self
    }
}

impl Answers {
    /// What is known of this very token.
    pub(super) fn find(&self, digest: TokenDigest) -> Known {
        if let Some(Genuine { user, again_at, .. }) = self.genuine.get(&digest) {
            return Known::Authenticated { user: Arc::clone(user), again_at: *again_at };
        }
        match self.denied.get(&digest) {
            Some(denied) => Known::Denied { again_at: denied.again_at },
            None => Known::Nothing { again_at: BootTime::from_boot(Duration::ZERO) },
        }
    }

    /// The judge finds it genuine.
    pub(super) fn authenticated(&mut self, digest: TokenDigest, user: ReviewedUser, now: BootTime) {
        self.denied.remove(&digest);
        make_room(&mut self.genuine, MOST_GENUINE, digest, |genuine| genuine.again_at);
        let again_at = now.plus(GENUINE_FOR);
        let genuine = Genuine { user: Arc::new(user), again_at, first_denial: None };
        self.genuine.insert(digest, genuine);
    }

    /// The judge denies it. One that was genuine stays so until it is denied twice, [`DENIALS_APART`].
    pub(super) fn denied(&mut self, digest: TokenDigest, now: BootTime) {
        if let Some(genuine) = self.genuine.get_mut(&digest)
            && !genuine.is_taken_back(now)
        {
            return;
        }
        self.genuine.remove(&digest);
        self.denied.retain(|_, denied| now.since(denied.again_at) < FORGOTTEN_AFTER);
        make_room(&mut self.denied, MOST_DENIED, digest, |denied| denied.again_at);
        let denied = self.denied.entry(digest).or_insert(Denied { times: 0, again_at: now });
        denied.times = denied.times.saturating_add(1);
        denied.again_at = now.plus(BETWEEN_DENIALS.pause(denied.times));
    }
}

impl Genuine {
    /// Whether this denial takes it back; the first one makes it due again.
    fn is_taken_back(&mut self, now: BootTime) -> bool {
        let first = *self.first_denial.get_or_insert(now);
        self.again_at = first.plus(DENIALS_APART);
        now >= self.again_at
    }
}

/// Forgets the one that would be asked about first, where there is no room for another. Answers come five
/// times a second at most, so a look at all of them costs nothing.
fn make_room<T>(
    answers: &mut HashMap<TokenDigest, T>,
    most: usize,
    newcomer: TokenDigest,
    again_at: impl Fn(&T) -> BootTime,
) {
    if answers.len() >= most && !answers.contains_key(&newcomer) {
        let first = answers.iter().min_by_key(|(_, answer)| again_at(answer)).map(|(digest, _)| *digest);
        first.and_then(|first| answers.remove(&first));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Answers, Known, MOST_DENIED, MOST_GENUINE};
    use crate::clock::BootTime;
    use crate::identity::review::tests::user;
    use crate::workload::TokenDigest;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    fn digest(number: u32) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        TokenDigest::of_bytes(bytes)
    }

    /// Of token 1: what is known, and for how many seconds from `now` on it need not be asked about.
    fn known(answers: &Answers, now: u64) -> (&'static str, u64) {
        let (name, again_at) = match answers.find(digest(1)) {
            Known::Authenticated { again_at, .. } => ("genuine", again_at),
            Known::Denied { again_at } => ("denied", again_at),
            Known::Nothing { again_at } => ("nothing", again_at),
        };
        (name, again_at.since(at(now)).as_secs())
    }

    #[test]
    fn a_genuine_token_is_asked_about_after_ten_minutes_and_stays_genuine_without_an_answer() {
        let mut answers = Answers::default();
        assert_eq!(known(&answers, 100), ("nothing", 0));
        answers.authenticated(digest(1), user(), at(100));
        assert_eq!(known(&answers, 100), ("genuine", 600));
        assert!(answers.find(digest(1)).counts_at(at(699)) && !answers.find(digest(1)).counts_at(at(700)));
        assert_eq!(known(&answers, 100_000), ("genuine", 0), "nobody has said anything else");
        answers.authenticated(digest(1), user(), at(100_000));
        assert_eq!(known(&answers, 100_000), ("genuine", 600));
    }

    #[test]
    fn a_genuine_token_is_taken_back_by_the_second_denial_ten_seconds_after_the_first() {
        let mut answers = Answers::default();
        answers.authenticated(digest(1), user(), at(100));
        answers.denied(digest(1), at(700));
        assert_eq!(known(&answers, 700), ("genuine", 10), "it may not have been checked");
        answers.denied(digest(1), at(709));
        assert_eq!(known(&answers, 709), ("genuine", 1), "the same trouble");
        answers.authenticated(digest(1), user(), at(710));
        assert_eq!(known(&answers, 710), ("genuine", 600));
        answers.denied(digest(1), at(1_310));
        assert_eq!(known(&answers, 1_310), ("genuine", 10), "the first one again");
        answers.denied(digest(1), at(1_320));
        assert_eq!(known(&answers, 1_320), ("denied", 10));
        answers.authenticated(digest(1), user(), at(1_330));
        assert_eq!(known(&answers, 1_330), ("genuine", 600));
    }

    #[test]
    fn a_denied_token_is_asked_about_less_and_less_often_and_forgotten_in_the_end() {
        let mut answers = Answers::default();
        let mut now = 1_000;
        for pause in [10, 20, 40, 80, 120, 120] {
            answers.denied(digest(1), at(now));
            assert_eq!(known(&answers, now), ("denied", pause));
            now += pause;
        }
        answers.denied(digest(2), at(now + 240));
        assert_eq!(known(&answers, now + 240), ("nothing", 0));
        answers.denied(digest(1), at(now + 240));
        assert_eq!(known(&answers, now + 240), ("denied", 10));
    }

    #[test]
    fn both_kinds_are_bounded_and_junk_makes_no_genuine_token_leave() {
        let mut answers = Answers::default();
        answers.authenticated(digest(1), user(), at(1));
        // Faster than the rates allow, so that nothing is forgotten with time.
        for number in 2..5_000 {
            answers.denied(digest(number), at(2));
        }
        assert_eq!((answers.denied.len(), known(&answers, 2).0), (MOST_DENIED, "genuine"));
        for number in 2..5_000 {
            answers.authenticated(digest(number), user(), at(3));
        }
        assert_eq!((answers.genuine.len(), known(&answers, 3).0), (MOST_GENUINE, "nothing"));
    }
}
