//! The trial call: whether this node's pods can be given credentials at all, asked once before the agent is
//! ready for the first time.
//!
//! Owns: when AWS is asked, how often, and when that ends. Must not know: what an answer means (`verdict`),
//! and what waits for it. A wrong cluster name, or a node role without its permission, would otherwise roll
//! out green: nothing else asks AWS before the first pod does.
//!
//! ```text
//! region and own credentials ── call ─┬─ an answer as pods get it ───────────────► over
//!                                     ├─ no answer: again; after 10 s nobody waits, and every 1 to 5 minutes
//!                                     └─ no pod would get any: unready, again after 10 s to 60 s
//! ```

#[cfg(test)]
mod tests;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use self::verdict::{Fault, Verdict, verdict};
use crate::aws::answer_log::{About, AnswerLog, No};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::credentials::flight::attempts::outcome;
use crate::credentials::flight::final_answers::FinalAnswers;
use crate::credentials::limits::budgets::Budgets;
use crate::credentials::limits::upstream_budget::{Position, Priority, UpstreamBudget};
use crate::credentials::source::eks_auth::EksAuth;
use crate::credentials::source::{SourceError, Sources, TimeLimits};
use crate::rng::Rng;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::workload::{PresentedToken, Source};

/// How long readiness waits for an answer of AWS: an outage must not hold up an agent that would serve. As
/// long as for the nftables table.
const PATIENCE: Duration = Duration::from_secs(10);
/// One call, as for a pod that waits (`flight::patience`): two fit into [`PATIENCE`].
const LIMITS: TimeLimits =
    TimeLimits { in_all: Duration::from_millis(4_200), on_used_connection: Duration::from_millis(4_200) };
/// After a call without an answer: some three calls in [`PATIENCE`].
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
/// After an answer that somebody has to mend: 10 s to 20 s at first, 30 s to 60 s later. Where it is a
/// mistake of the whole cluster, each of 10,000 nodes asks.
const MENDED: Backoff = Backoff::new(Duration::from_secs(20), Duration::from_secs(60));
/// After [`PATIENCE`]: nothing waits for it any more, and in an outage each of 10,000 nodes asks. The three
/// calls that tell of AWS's absence (`aws::reach`) are over in some minutes.
const LATER: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(300));
/// Until the agent has a region and credentials of its own: nothing tells when it has both.
const CALL_POLL: Duration = Duration::from_millis(100);

/// The trial call of this process.
pub struct Trial {
    eks_auth: EksAuth,
    budget: UpstreamBudget,
    answers: FinalAnswers,
    metrics: Arc<UpstreamMetrics>,
    log: AnswerLog,
    clock: Clock,
    rng: Rng,
}

/// What the trial call has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialState {
    /// Nothing is asked yet: the agent has no region or no credentials of its own.
    Waiting,
    /// AWS answers this node as pods need it. Nothing is asked any more.
    Passed,
    /// Nothing, for this reason. Nobody need wait for it; it may be asked again.
    Open(String),
    /// No pod of this node would be given credentials. A sentence with the cause and what to do. It is asked
    /// again.
    Failing(String),
}

impl Trial {
    /// Nothing is asked yet. `None`: EKS Auth is not asked at all.
    pub(in crate::credentials) fn new(
        sources: &Sources,
        budgets: &Budgets,
        answers: &FinalAnswers,
        metrics: &Arc<UpstreamMetrics>,
        clock: &Clock,
        rng: &Rng,
    ) -> Option<Self> {
        Some(Self {
            eks_auth: sources.eks_auth.clone()?,
            budget: budgets.of(Source::EksAuth).clone(),
            answers: answers.clone(),
            metrics: Arc::clone(metrics),
            log: sources.answer_log.clone(),
            clock: clock.clone(),
            rng: rng.clone(),
        })
    }

    /// Calls until it is known, or nobody can know; cancel by dropping. `read_token` brings the agent's own
    /// token, which the kubelet rotates, or says why there is none.
    pub async fn run<F: Future<Output = Result<PresentedToken, String>> + Send>(
        &self,
        read_token: impl Fn() -> F + Send + Sync,
        mut report: impl FnMut(TrialState) + Send,
    ) {
        let state = tokio::select! {
            biased;
            // A pod has shown it meanwhile.
            () = self.answers.granted_by(Source::EksAuth) => Known::Works,
            known = self.ask(&read_token, &mut report) => known,
        };
        match state {
            Known::Works => {
                tracing::info!("trial call: EKS Auth answers this node");
                report(TrialState::Passed);
            }
            Known::Nothing(why) => {
                tracing::warn!(reason = why.as_str(), "trial call without a result");
                report(TrialState::Open(why));
            }
        }
    }

    async fn ask<F: Future<Output = Result<PresentedToken, String>> + Send>(
        &self,
        read_token: &(impl Fn() -> F + Send + Sync),
        report: &mut (impl FnMut(TrialState) + Send),
    ) -> Known {
        let why = match self.ask_until_known(read_token, report).await {
            Asked::Enough(known) => return known,
            Asked::InVain(why) => why,
        };
        tracing::warn!(reason = why.as_str(), "trial call without a result");
        report(TrialState::Open(why));
        // Packets that are dropped are found by calls, and a quiet node may make no other for hours.
        let mut failures = 0;
        loop {
            failures += 1;
            sleep(LATER.jittered(failures, &self.rng)).await;
            let token = match read_token().await {
                Ok(token) => token,
                Err(why) => return left_out(&why),
            };
            match verdict(self.call(&token).await.as_ref().err(), token.issued) {
                Verdict::Works => return Known::Works,
                // It was ready meanwhile, and nothing that AWS says takes that away.
                Verdict::CannotWork(fault) => report(TrialState::Open(self.told(&fault))),
                Verdict::Unknown { .. } | Verdict::NotAsked => {}
            }
        }
    }

    async fn ask_until_known<F: Future<Output = Result<PresentedToken, String>> + Send>(
        &self,
        read_token: &(impl Fn() -> F + Send + Sync),
        report: &mut (impl FnMut(TrialState) + Send),
    ) -> Asked {
        let (mut faults, mut failures, mut until) = (0, 0, None);
        loop {
            if !self.eks_auth.can_call() {
                report(TrialState::Waiting);
                self.until_it_can_call().await;
            }
            let token = match read_token().await {
                Ok(token) => token,
                // The agent's own token is nothing that pods need.
                Err(why) => return Asked::Enough(left_out(&why)),
            };
            let give_up = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
            let called = if faults > 0 {
                self.call(&token).await
            } else {
                match timeout_at(give_up, self.call(&token)).await {
                    Ok(called) => called,
                    Err(_) => return Asked::InVain(unanswered("no answer in time")),
                }
            };
            let why = match verdict(called.as_ref().err(), token.issued) {
                Verdict::Works => return Asked::Enough(Known::Works),
                Verdict::CannotWork(fault) => {
                    faults += 1;
                    report(TrialState::Failing(self.told(&fault)));
                    sleep(MENDED.jittered(faults, &self.rng)).await;
                    continue;
                }
                Verdict::NotAsked => {
                    until = until.filter(|_| faults > 0);
                    sleep(CALL_POLL).await;
                    continue;
                }
                // An outage after a fault shows nothing of its end.
                Verdict::Unknown { .. } if faults > 0 => {
                    sleep(MENDED.jittered(faults, &self.rng)).await;
                    continue;
                }
                Verdict::Unknown { may_retry, why } => {
                    failures += 1;
                    let again = Instant::now() + RETRY.jittered(failures, &self.rng);
                    sleep_until(if may_retry { again.min(give_up) } else { give_up }).await;
                    why
                }
            };
            if Instant::now() >= give_up {
                return Asked::InVain(unanswered(&why));
            }
        }
    }

    /// Whether there is a region, and anything to sign with, are conditions of their own.
    async fn until_it_can_call(&self) {
        while !self.eks_auth.can_call() {
            sleep(CALL_POLL).await;
        }
    }

    /// One call, within the budget of all calls. Pods that wait go first, but for one call in four: a flood
    /// that AWS refuses must not keep the agent unready. What it brings is dropped, and wiped by that.
    async fn call(&self, token: &PresentedToken) -> Result<(), SourceError> {
        let mut ticket = self.budget.queue(Priority::UrgentRenewal, Position::End);
        let permit = ticket.admitted().await;
        let started = Instant::now();
        let fetching = self.eks_auth.fetch(token, LIMITS);
        let called = match &permit {
            Some(permit) => permit.during(fetching).await,
            None => fetching.await,
        };
        let called = called.map(drop);
        if !matches!(verdict(called.as_ref().err(), None), Verdict::NotAsked) {
            self.metrics.called(Source::EksAuth, outcome(&called), started.elapsed());
        }
        match (&called, permit) {
            (Ok(()) | Err(SourceError::Refused(_)), Some(permit)) => permit.succeeded(),
            (Err(SourceError::Throttled), Some(permit)) => permit.throttled(),
            (Err(SourceError::Unavailable(_) | SourceError::OwnIdentity(_)), _) | (_, None) => {}
        }
        called
    }

    /// The cause in AWS's words with all that finds it, and what to do. Logged once a minute; a rejection of
    /// the agent itself is logged where it is noticed.
    fn told(&self, fault: &Fault) -> String {
        let remedy = fault.remedy();
        match fault {
            Fault::UnknownCluster(refusal) | Fault::ForeignToken(refusal) => {
                if let Some(no) = refusal.as_no() {
                    self.log.report(&No { about: About::Trial, ..no }, self.clock.now().boot);
                }
                format!("AWS refuses the trial call: {}; {remedy}", refusal.in_full())
            }
            Fault::OwnIdentity(rejection) => {
                format!("{}; {remedy}", self.eks_auth.rejected_with(Arc::clone(rejection)))
            }
        }
    }
}

/// How a trial ends.
enum Known {
    /// AWS answers this node as pods need it.
    Works,
    /// Nothing, for this reason.
    Nothing(String),
}

/// How the tries end that readiness waits for.
enum Asked {
    Enough(Known),
    /// There was no answer to go by, for this reason.
    InVain(String),
}

fn left_out(why: &str) -> Known {
    Known::Nothing(format!("the trial call is left out: {why}"))
}

fn unanswered(why: &str) -> String {
    format!("the trial call had no answer to go by in {} s: {why}", PATIENCE.as_secs())
}
