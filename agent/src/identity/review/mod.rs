//! Reviews: what the API server says of tokens that no key proves. It is the judge meant here.
//!
//! Owns: that a token is shown to the judge once at a time and at bounded rates, and that its answers are
//! kept. Must not know: how it is asked (`app` gives a closure), or what follows from an answer
//! (`identity::authenticator`). No token is kept, but in the line of those that are to be shown.

mod answers;
mod desk;
mod line;
mod rates;
mod rest;
#[cfg(test)]
mod tests;
mod user;

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::answers::Answers;
use self::line::Line;
use self::rates::Rates;
use self::rest::Rest;
use crate::clock::BootTime;
use crate::identity::last_told::LastTold;
use crate::rng::Rng;
use crate::telemetry::metrics::{ReviewOutcome, TokenReviewMetrics};
use crate::workload::{BearerToken, PeerKey, TokenDigest};

pub(super) use self::answers::Known;
pub use self::user::ReviewedUser;
pub(super) use self::user::judge_reviewed;

/// What the judge says of a token.
#[derive(Debug)]
pub enum Answer {
    /// It is genuine and in force, and this is who it was issued to.
    Authenticated(ReviewedUser),
    /// It is not, in the judge's words.
    Denied(String),
}

/// Why the judge says nothing.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The agent may not ask, in the judge's words.
    #[error("the agent may not ask: {0}")]
    Forbidden(String),
    /// It cannot be reached, or fails.
    #[error("the judge gives no answer")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// The reviews of the process; clones share them.
#[derive(Clone)]
pub struct Reviews {
    shared: Arc<Shared>,
}

impl fmt::Debug for Reviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviews").finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    /// Notified when a question joins the line.
    asked: Notify,
    /// Notified when a question has its answer, or will have none.
    answered: Notify,
    metrics: Arc<TokenReviewMetrics>,
    rng: Rng,
}

#[derive(Default)]
struct State {
    answers: Answers,
    line: Line,
    /// Tokens that the judge has been shown and has not answered.
    under_way: HashSet<TokenDigest>,
    rates: Rates,
    rest: Rest,
    /// When a denial was logged last at info.
    told_denied: LastTold,
}

/// What is to be shown to the judge.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The token.
    pub(super) token: BearerToken,
    /// For whom it claims to be issued; the judge must confirm that.
    pub(super) audience: Arc<str>,
    /// The peer that it is charged to.
    pub(super) peer: PeerKey,
}

/// For how long one who asks can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// There is a judge after this one: where this one gave no answer a moment ago, that one is asked.
    Little,
    /// There is no other judge.
    Great,
}

/// What asking led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// [`Reviews::known`] has the answer.
    Answered,
    /// The token is not shown to the judge now, because of the rates; or until that time, because it gave no
    /// answer a moment ago.
    NotNow(Option<BootTime>),
}

/// How far a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Answered,
    Waiting,
    NotNow(Option<BootTime>),
}

impl Reviews {
    /// Nothing is known, and nobody is asked until [`Reviews::keep`] runs.
    pub fn new(metrics: Arc<TokenReviewMetrics>, rng: Rng) -> Self {
        let (asked, answered) = (Notify::new(), Notify::new());
        let shared = Shared { state: Mutex::default(), asked, answered, metrics, rng };
        Self { shared: Arc::new(shared) }
    }

    /// What the judge has said of a token.
    pub(super) fn known(&self, digest: TokenDigest, now: BootTime) -> Known {
        let state = self.shared.state.lock();
        state.answers.find(digest).not_before(state.rest.until(now).unwrap_or(now))
    }

    /// Has a token shown to the judge, where the rates allow, and waits for the answer, however long that
    /// takes. Cancel-safe: the review goes on, and its answer is kept.
    pub(super) async fn ask(&self, question: &Question, patience: Patience, now: BootTime) -> Asked {
        let began = Instant::now();
        // First the notice, then the look: an answer in between is not missed.
        let mut answered = self.shared.answered.notified();
        let mut progress = self.begin(question, patience, now);
        loop {
            match progress {
                Progress::Answered => return Asked::Answered,
                Progress::NotNow(until) => return Asked::NotNow(until),
                Progress::Waiting => answered.await,
            }
            answered = self.shared.answered.notified();
            progress = self.want(question, patience, now.plus(began.elapsed()));
        }
    }

    /// The same, and waits for nothing.
    pub(super) fn ask_in_background(&self, question: &Question, now: BootTime) {
        self.begin(question, Patience::Little, now);
    }

    fn begin(&self, question: &Question, patience: Patience, now: BootTime) -> Progress {
        let progress = self.want(question, patience, now);
        match progress {
            Progress::NotNow(_) => self.shared.metrics.reviewed(ReviewOutcome::Skipped),
            Progress::Answered | Progress::Waiting => {}
        }
        progress
    }

    fn want(&self, question: &Question, patience: Patience, now: BootTime) -> Progress {
        let progress = self.shared.state.lock().want(question, patience, now);
        if progress == Progress::Waiting {
            self.shared.asked.notify_one();
        }
        progress
    }
}

impl State {
    /// Puts a question into the line, unless it is there, under way or answered, or there is no use in it.
    fn want(&mut self, question: &Question, patience: Patience, now: BootTime) -> Progress {
        let digest = question.token.digest();
        if self.answers.find(digest).counts_at(now) {
            return Progress::Answered;
        }
        if self.under_way.contains(&digest) {
            return Progress::Waiting;
        }
        if let Some(until) = self.rest.until(now)
            && (patience == Patience::Little || self.rest.is_forbidden())
        {
            return Progress::NotNow(Some(until));
        }
        match self.line.join(question, now) {
            true => Progress::Waiting,
            false => Progress::NotNow(None),
        }
    }
}
