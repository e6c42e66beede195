//! The task that shows tokens to the judge, and notes what it says.
//!
//! Owns: how many are under way at once. Must not know: who the judge is.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Answer, NoAnswer, Question, Reviews, State};
use crate::clock::{BootTime, Clock};
use crate::rng::Rng;
use crate::telemetry::error_chain::ErrorChain;
use crate::telemetry::metrics::ReviewOutcome;
use crate::workload::{BearerToken, PeerKey, TokenDigest};

/// As many as begin while the slowest has its answer: five a second, for 5 s.
const MOST_UNDER_WAY: usize = 25;
/// Those who wait are looked at again after this time, where all of their peers have had what they may.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The judge's words in the log, in characters.
const MOST_SAID: usize = 300;

/// What is to be done next.
enum Next {
    Ask(Question),
    Wait(Duration),
    /// Until somebody asks, or an answer comes.
    Idle,
}

impl Reviews {
    /// Has the judge asked by `ask` (token and audience), which has a deadline of its own, without end;
    /// cancel by dropping.
    pub async fn keep<F>(self, clock: Clock, ask: impl Fn(BearerToken, Arc<str>) -> F + Send)
    where
        F: Future<Output = Result<Answer, NoAnswer>> + Send,
    {
        let mut under_way = FuturesUnordered::new();
        loop {
            let next = self.shared.state.lock().next(clock.now().boot);
            let pause = match next {
                Next::Ask(question) => {
                    let answer = ask(question.token.clone(), Arc::clone(&question.audience));
                    under_way.push(async move { (question, answer.await) });
                    continue;
                }
                Next::Wait(pause) => Some(pause),
                Next::Idle => None,
            };
            let pause = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                Some((question, answer)) = under_way.next(), if !under_way.is_empty() => {
                    self.note(&question, answer, clock.now().boot);
                }
                () = self.shared.asked.notified() => {}
                () = pause => {}
            }
        }
    }

    fn note(&self, question: &Question, answer: Result<Answer, NoAnswer>, now: BootTime) {
        let outcome = self.shared.state.lock().note(question, answer, now, &self.shared.rng);
        self.shared.metrics.reviewed(outcome);
        self.shared.answered.notify_waiters();
    }
}

impl State {
    fn next(&mut self, now: BootTime) -> Next {
        let most = if self.rest.is_trial() { 1 } else { MOST_UNDER_WAY };
        if self.line.is_empty() || self.under_way.len() >= most {
            return Next::Idle;
        }
        if let Some(until) = self.rest.until(now).or_else(|| self.rates.next_at(now)) {
            return Next::Wait(until.since(now));
        }
        let rates = &self.rates;
        let Some(question) = self.line.next(now, |peer| rates.allow(peer, now)) else {
            return Next::Wait(LOOK_AGAIN);
        };
        self.rates.count(question.peer, now);
        self.under_way.insert(question.token.digest());
        Next::Ask(question)
    }

    fn note(
        &mut self,
        question: &Question,
        answer: Result<Answer, NoAnswer>,
        now: BootTime,
        rng: &Rng,
    ) -> ReviewOutcome {
        let digest = question.token.digest();
        self.under_way.remove(&digest);
        match answer {
            Ok(Answer::Authenticated(user))
                if user.audiences.iter().any(|audience| **audience == *question.audience) =>
            {
                self.rest.answered();
                self.answers.authenticated(digest, user, now);
                tracing::debug!(token = %digest, "the API server authenticates a token that no key proves");
                ReviewOutcome::Authenticated
            }
            Ok(Answer::Authenticated(_)) => {
                // It may be genuine, and for somebody else: a judge that knows no audiences accepts any.
                self.denied(question, "it does not confirm the audience", now)
            }
            Ok(Answer::Denied(said)) => self.denied(question, &said, now),
            Err(NoAnswer::Forbidden(said)) => self.forbidden(&said, now, rng),
            Err(NoAnswer::Failed(error)) => {
                // Only the first failure in a row.
                if !self.rest.is_trial() {
                    let err = ErrorChain(&*error);
                    tracing::warn!(%err, "the API server says nothing of a token that no key proves");
                }
                self.rest.failed(now, rng);
                ReviewOutcome::Failed
            }
        }
    }

    fn forbidden(&mut self, said: &str, now: BootTime, rng: &Rng) -> ReviewOutcome {
        // It may take minutes until somebody gives the right.
        self.line.clear();
        if !self.rest.forbidden(now, rng) {
            tracing::warn!(
                said = cut(said),
                "the agent may not create tokenreviews, so tokens that no key proves are not shown to the \
                 API server: grant it the ClusterRole system:auth-delegator (chart: kubernetes.tokenReview \
                 with rbac.create), or set --token-review=off"
            );
        }
        ReviewOutcome::Failed
    }

    fn denied(&mut self, question: &Question, said: &str, now: BootTime) -> ReviewOutcome {
        let digest = question.token.digest();
        self.rest.answered();
        self.answers.denied(digest, now);
        self.say_denied(digest, question.peer, &cut(said), now);
        ReviewOutcome::Denied
    }

    /// Anybody can send junk: at info that is five lines a second of each agent.
    fn say_denied(&self, digest: TokenDigest, peer: PeerKey, said: &str, now: BootTime) {
        if self.told_denied.is_due(now) {
            tracing::info!(token = %digest, %peer, said, "the API server does not authenticate a token");
        } else {
            tracing::debug!(token = %digest, %peer, said, "the API server does not authenticate a token");
        }
    }
}

fn cut(said: &str) -> String {
    said.chars().take(MOST_SAID).collect()
}
