//! When it is asked, and what readiness and metrics hear.
//!
//! Owns: the rhythm, and that one lost packet is no news. Must not know: why an address is diverted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::outcome::{ProbeOutcome, evaluate};
use super::probe_key::{Nonce, ProbeKey};
use super::request;
use crate::lifecycle::readiness::Condition;
use crate::telemetry::metrics::{ProbedFrom, SelfProbeMetrics};

/// Somebody may divert the address without a change that we see; then it takes this long to notice.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// While something is wrong, its end is noticed sooner.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// After a change of links or rules, and after the start: whoever makes a change mostly makes several.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// Whoever changes links all the time gets no more than one probe a second.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// What is asked, and who hears of it.
pub struct HostProbeSpec {
    /// The addresses as pods know them.
    pub targets: Vec<SocketAddr>,
    /// Whether only we answer there. Advisory: nothing is switched off.
    pub condition: Condition,
    /// The same, for Prometheus.
    pub metrics: Arc<SelfProbeMetrics>,
}

/// Asks ourselves from the host.
pub struct HostProbe {
    spec: HostProbeSpec,
    probe_key: ProbeKey,
    changes: watch::Receiver<u64>,
}

impl HostProbe {
    /// `changes` moves on each time that links or rules may have changed.
    pub const fn new(spec: HostProbeSpec, probe_key: ProbeKey, changes: watch::Receiver<u64>) -> Self {
        Self { spec, probe_key, changes }
    }

    /// Works for ever; cancel by dropping.
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

    /// Whether all is well.
    pub(super) async fn probe(&self) -> bool {
        let mut outcomes = Vec::new();
        for target in &self.spec.targets {
            let mut outcome = self.probe_once(*target).await;
            if outcome != ProbeOutcome::ThisAgent {
                // One handshake may be lost on a busy node.
                sleep(SETTLE_TIME).await;
                outcome = self.probe_once(*target).await;
            }
            outcomes.push((*target, outcome));
        }
        self.report(&outcomes)
    }

    async fn probe_once(&self, target: SocketAddr) -> ProbeOutcome {
        let nonce = match Nonce::random() {
            Ok(nonce) => nonce,
            Err(error) => return ProbeOutcome::NoAnswer { reason: error.to_string() },
        };
        // The node's own processes reach a local address from that address itself.
        evaluate(&self.probe_key, &nonce, &request::send(target.ip(), target, &nonce).await)
    }

    fn report(&self, outcomes: &[(SocketAddr, ProbeOutcome)]) -> bool {
        let is_first = |target: &SocketAddr| self.spec.targets.first() == Some(target);
        let problems: Vec<String> = outcomes
            .iter()
            .filter(|(target, outcome)| match outcome {
                ProbeOutcome::ThisAgent => false,
                ProbeOutcome::Forwarded { .. }
                | ProbeOutcome::OtherProcess { .. }
                | ProbeOutcome::NoAnswer { .. } => true,
                // Nodes without IPv6 are whole without it.
                ProbeOutcome::AddressMissing => is_first(target),
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
        let mut probed = outcomes
            .iter()
            .filter(|(target, outcome)| is_of_family(target) && *outcome != ProbeOutcome::AddressMissing)
            .peekable();
        let Some((target, _)) = probed.peek() else { return };
        let family: IpAddr = target.ip();
        let all_by_this_agent = probed.all(|(_, outcome)| *outcome == ProbeOutcome::ThisAgent);
        self.spec.metrics.probed(ProbedFrom::Host, family, all_by_this_agent);
    }
}

/// Until something changes; for ever if nobody watches for changes any more.
pub(super) async fn wait_for_change(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
