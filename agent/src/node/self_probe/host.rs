//! The probe from the host.
//!
//! Owns: when it runs, its report to readiness and metrics, and that a single lost packet is not reported.
//! Must not know: why an address is redirected.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::outcome::{ProbeOutcome, evaluate, to_be_confirmed};
use super::probe_key::{Nonce, ProbeKey};
use super::request::{self, ProbeResponse, RequestError};
use crate::lifecycle::readiness::Condition;
use crate::node::other_agents;
use crate::telemetry::metrics::{ProbedFrom, SelfProbeMetrics};

/// Without a change: the address may be redirected by means that cause no event.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// While a probe fails, so that the end of the failure is noticed sooner.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// After the start, and after a change of links or rules: changes mostly come in groups.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// If links change all the time, one probe per second is enough.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// What is probed, and where the outcome is reported.
pub struct HostProbeSpec {
    /// The addresses and ports that pods use.
    pub targets: Vec<SocketAddr>,
    /// Whether this agent answers there. Advisory: nothing is switched off.
    pub condition: Condition,
    /// The same, for Prometheus.
    pub metrics: Arc<SelfProbeMetrics>,
}

/// Probes the agent from the host's network.
pub struct HostProbe {
    spec: HostProbeSpec,
    probe_key: ProbeKey,
    changes: watch::Receiver<u64>,
}

impl HostProbe {
    /// `changes` is incremented each time links or rules may have changed.
    pub const fn new(spec: HostProbeSpec, probe_key: ProbeKey, changes: watch::Receiver<u64>) -> Self {
        Self { spec, probe_key, changes }
    }

    /// Runs until it is dropped.
    pub async fn keep(mut self) {
        loop {
            sleep(SETTLE_TIME).await;
            self.changes.mark_unchanged();
            let is_ok = self.probe().await;
            sleep(MIN_INTERVAL).await;
            let wait = if is_ok { POLL_INTERVAL } else { RETRY_INTERVAL };
            tokio::select! {
                () = sleep(wait) => {}
                () = wait_for_change(&mut self.changes) => {}
            }
        }
    }

    /// Probes every target once; whether all probes succeeded.
    pub(super) async fn probe(&self) -> bool {
        let mut outcomes = Vec::new();
        for target in &self.spec.targets {
            let mut outcome = self.probe_once(*target).await;
            if !matches!(outcome, ProbeOutcome::ThisAgent | ProbeOutcome::AnotherAgent) {
                // A busy node may lose a packet of the handshake.
                sleep(SETTLE_TIME).await;
                outcome = self.probe_once(*target).await;
            }
            outcomes.push((*target, outcome));
        }
        self.report(&outcomes)
    }

    async fn probe_once(&self, target: SocketAddr) -> ProbeOutcome {
        from_host(&self.probe_key, target).await
    }

    fn report(&self, outcomes: &[(SocketAddr, ProbeOutcome)]) -> bool {
        let problems: Vec<String> = outcomes
            .iter()
            .filter(|(_, outcome)| match outcome {
                ProbeOutcome::ThisAgent | ProbeOutcome::AnotherAgent | ProbeOutcome::FamilyOff => false,
                ProbeOutcome::Forwarded { .. }
                | ProbeOutcome::OtherProcess { .. }
                | ProbeOutcome::NoAnswer { .. }
                | ProbeOutcome::AddressMissing => true,
            })
            .map(|(target, outcome)| outcome.message(*target))
            .collect();
        self.set_metric(outcomes, SocketAddr::is_ipv4);
        self.set_metric(outcomes, SocketAddr::is_ipv6);
        if problems.is_empty() {
            self.spec.condition.met();
        } else {
            self.spec.condition.unmet(problems.join("; "));
        }
        problems.is_empty()
    }

    fn set_metric(
        &self,
        outcomes: &[(SocketAddr, ProbeOutcome)],
        is_of_family: impl Fn(&SocketAddr) -> bool,
    ) {
        let mut of_family = outcomes.iter().filter(|(target, _)| is_of_family(target)).peekable();
        let Some((target, _)) = of_family.peek() else { return };
        let family: IpAddr = target.ip();
        let mut probed = of_family.filter(|(_, outcome)| *outcome != ProbeOutcome::FamilyOff).peekable();
        if probed.peek().is_none() {
            return self.spec.metrics.family_off(ProbedFrom::Host, family);
        }
        let by_agents = [ProbeOutcome::ThisAgent, ProbeOutcome::AnotherAgent];
        let all_by_agents = probed.all(|(_, outcome)| by_agents.contains(outcome));
        self.spec.metrics.probed(ProbedFrom::Host, family, all_by_agents);
    }
}

/// One probe from the host's network.
pub(in crate::node) async fn from_host(key: &ProbeKey, target: SocketAddr) -> ProbeOutcome {
    let nonce = match Nonce::random() {
        Ok(nonce) => nonce,
        Err(error) => return ProbeOutcome::NoAnswer { reason: error.to_string() },
    };
    // The node's own processes connect to a local address from that same address.
    let response = request::send(target.ip(), target, &nonce).await;
    outcome_of(key, &nonce, &response).await
}

/// What a response to a probe says, from wherever it was sent: what looks like another process's may be that
/// of another agent of this node, which is asked.
pub(super) async fn outcome_of(
    key: &ProbeKey,
    nonce: &Nonce,
    response: &Result<ProbeResponse, RequestError>,
) -> ProbeOutcome {
    let outcome = evaluate(key, nonce, response);
    let is_foreign = matches!(outcome, ProbeOutcome::OtherProcess { .. });
    let answer = response.as_ref().ok().filter(|_| is_foreign).and_then(to_be_confirmed);
    match answer {
        Some(answer) if other_agents::one_of_them_answered(nonce, &answer).await => {
            ProbeOutcome::AnotherAgent
        }
        Some(_) | None => outcome,
    }
}

/// Whether another agent of this node answers there.
pub async fn is_another_agents(key: &ProbeKey, target: SocketAddr) -> bool {
    from_host(key, target).await == ProbeOutcome::AnotherAgent
}

/// Waits for the next change; for ever if no part reports changes any more.
pub(super) async fn wait_for_change(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
