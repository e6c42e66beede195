//! When it is asked, and what readiness and metrics hear.
//!
//! Owns: the rhythm, and that one lost packet is no news. Must not know: why an address is diverted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::ask::ask;
use super::judge::{Verdict, judge};
use super::probe_key::{Nonce, ProbeKey};
use crate::lifecycle::readiness::Condition;
use crate::telemetry::metrics::{ProbedFrom, SelfProbeMetrics};

/// Somebody may divert the address without a change that we see; then it takes this long to notice.
const UNASKED: Duration = Duration::from_secs(30);
/// While something is wrong, its end is noticed sooner.
const UNTIL_WHOLE: Duration = Duration::from_secs(5);
/// After a change of links or rules, and after the start: whoever makes a change mostly makes several.
const SETTLE: Duration = Duration::from_millis(200);
/// Whoever changes links all the time gets no more than one probe a second.
const LEAST_REST: Duration = Duration::from_secs(1);

/// What is asked, and who hears of it.
pub struct Probed {
    /// The addresses as pods know them.
    pub targets: Vec<SocketAddr>,
    /// Whether only we answer there. Advisory: nothing is switched off.
    pub alone: Condition,
    /// The same, for Prometheus.
    pub metrics: Arc<SelfProbeMetrics>,
}

/// Asks ourselves from the host.
pub struct SelfProbe {
    probed: Probed,
    seal: ProbeKey,
    changes: watch::Receiver<u64>,
}

impl SelfProbe {
    /// `changes` moves on each time that links or rules may have changed.
    pub const fn new(probed: Probed, seal: ProbeKey, changes: watch::Receiver<u64>) -> Self {
        Self { probed, seal, changes }
    }

    /// Works for ever; cancel by dropping.
    pub async fn keep(mut self) {
        loop {
            sleep(SETTLE).await;
            self.changes.mark_unchanged();
            let is_whole = self.probe().await;
            sleep(LEAST_REST).await;
            let rest = if is_whole { UNASKED } else { UNTIL_WHOLE };
            tokio::select! {
                () = sleep(rest) => {}
                () = change(&mut self.changes) => {}
            }
        }
    }

    /// Whether all is well.
    pub(super) async fn probe(&self) -> bool {
        let mut verdicts = Vec::new();
        for target in &self.probed.targets {
            let mut verdict = self.ask_once(*target).await;
            if verdict != Verdict::Ours {
                // One handshake may be lost on a busy node.
                sleep(SETTLE).await;
                verdict = self.ask_once(*target).await;
            }
            verdicts.push((*target, verdict));
        }
        self.report(&verdicts)
    }

    async fn ask_once(&self, target: SocketAddr) -> Verdict {
        let nonce = match Nonce::random() {
            Ok(nonce) => nonce,
            Err(error) => return Verdict::Nobody { why: error.to_string() },
        };
        // The node's own processes reach a local address from that address itself.
        judge(&self.seal, &nonce, &ask(target.ip(), target, &nonce).await)
    }

    fn report(&self, verdicts: &[(SocketAddr, Verdict)]) -> bool {
        let is_first = |target: &SocketAddr| self.probed.targets.first() == Some(target);
        let troubles: Vec<String> = verdicts
            .iter()
            .filter(|(target, verdict)| match verdict {
                Verdict::Ours => false,
                Verdict::Forwarded { .. } | Verdict::SomeoneElse { .. } | Verdict::Nobody { .. } => true,
                // Nodes without IPv6 are whole without it.
                Verdict::Absent => is_first(target),
            })
            .map(|(target, verdict)| verdict.about(*target))
            .collect();
        self.measure(verdicts, SocketAddr::is_ipv4);
        self.measure(verdicts, SocketAddr::is_ipv6);
        if troubles.is_empty() {
            self.probed.alone.met();
        } else {
            self.probed.alone.unmet(troubles.join("; "));
        }
        troubles.is_empty()
    }

    fn measure(&self, verdicts: &[(SocketAddr, Verdict)], is_of_family: impl Fn(&SocketAddr) -> bool) {
        let mut of_family = verdicts.iter().filter(|(target, _)| is_of_family(target)).peekable();
        let Some((target, _)) = of_family.peek() else { return };
        let family: IpAddr = target.ip();
        let mut asked = of_family.filter(|(_, verdict)| *verdict != Verdict::Absent).peekable();
        if asked.peek().is_none() {
            return self.probed.metrics.address_missing(ProbedFrom::Host, family);
        }
        let all_ours = asked.all(|(_, verdict)| *verdict == Verdict::Ours);
        self.probed.metrics.probed(ProbedFrom::Host, family, all_ours);
    }
}

/// Until something changes; for ever if nobody watches for changes any more.
pub(super) async fn change(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
