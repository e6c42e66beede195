//! The probe from a pod's network, sent by the helper process.
//!
//! Owns: the start of the helper, its two pipes, and the report to readiness and metrics. Must not know:
//! namespaces and links, which belong to `namespace`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::namespace::{MAX_LINE, ProbeReply, ProbeRequest, TargetResult};
use super::outcome::{ProbeOutcome, evaluate};
use super::probe_key::{Nonce, ProbeKey};
use super::request::{ProbeResponse, RequestError};
use crate::lifecycle::readiness::Condition;
use crate::telemetry::metrics::{ProbedFrom, SelfProbeMetrics};

/// Each probe creates a network namespace, so probes are at least this far apart.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// Without a change of links or rules.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// After the start, and after a change: changes mostly come in groups.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// Two probes of up to 2 s each, the checks of the metadata service, and time for a busy kernel.
const DEADLINE: Duration = Duration::from_secs(20);

/// The helper process, started before the runtime and before the agent drops its privileges.
pub struct Prober {
    child: Child,
}

/// What is probed, and where the outcome is reported.
pub struct PodProbeSpec {
    /// The addresses and ports that pods use.
    pub targets: Vec<SocketAddr>,
    /// The addresses that pods must not reach.
    pub blocked: Vec<SocketAddr>,
    /// Whether this agent answers. Advisory.
    pub condition: Condition,
    /// Whether pods cannot reach `blocked`. Advisory; `None` if nothing is blocked.
    pub imds_blocked: Option<Condition>,
    /// The same as `alone`, for Prometheus.
    pub metrics: Arc<SelfProbeMetrics>,
}

/// Probes the agent from a network namespace.
pub struct PodProbe {
    spec: PodProbeSpec,
    probe_key: ProbeKey,
    changes: watch::Receiver<u64>,
}

/// Why the helper returned no results.
#[derive(Debug, thiserror::Error)]
enum ProberError {
    #[error("the helper process cannot be started or does not answer: {0}")]
    Pipe(#[from] io::Error),
    #[error("the helper process has ended")]
    Ended,
    #[error("the helper process did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
    #[error("the reply of the helper process cannot be parsed: {0}")]
    InvalidReply(#[from] serde_json::Error),
    #[error("the system has no random numbers")]
    NoRandom,
    #[error("cannot set up a network namespace for the probe: {0}")]
    NoNetwork(String),
}

/// The helper process and its two pipes.
struct HelperConnection {
    to: Sender,
    from: BufReader<Receiver>,
    _child: Child,
}

impl Prober {
    /// Starts the helper with the privileges that this process still has, and with an empty environment.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("probe-from-namespace").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { child: command.spawn()? })
    }

    fn connect(mut self) -> io::Result<HelperConnection> {
        let (Some(to), Some(from)) = (self.child.stdin.take(), self.child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(HelperConnection {
            to: Sender::from_owned_fd(OwnedFd::from(to))?,
            from: BufReader::new(Receiver::from_owned_fd(OwnedFd::from(from))?),
            _child: self.child,
        })
    }
}

impl HelperConnection {
    async fn exchange(&mut self, request: &ProbeRequest) -> Result<ProbeReply, ProberError> {
        let round_trip = async {
            self.to.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes()).await?;
            let mut line = String::new();
            if (&mut self.from).take(MAX_LINE).read_line(&mut line).await? == 0 {
                return Err(ProberError::Ended);
            }
            Ok(serde_json::from_str::<ProbeReply>(&line)?)
        };
        let reply = timeout(DEADLINE, round_trip).await.map_err(|_elapsed| ProberError::Timeout)??;
        match reply.error {
            Some(error) => Err(ProberError::NoNetwork(error)),
            None => Ok(reply),
        }
    }
}

impl PodProbe {
    /// `changes` is incremented each time links or rules may have changed.
    pub const fn new(spec: PodProbeSpec, probe_key: ProbeKey, changes: watch::Receiver<u64>) -> Self {
        Self { spec, probe_key, changes }
    }

    /// Runs until the helper ends, or until it is dropped.
    pub async fn keep(mut self, prober: io::Result<Prober>) {
        let mut connection = match prober.and_then(Prober::connect) {
            Ok(connection) => connection,
            Err(error) => return self.unknown(&ProberError::Pipe(error)),
        };
        loop {
            sleep(SETTLE_TIME).await;
            self.changes.mark_unchanged();
            match self.probe(&mut connection).await {
                Ok(()) => {}
                Err(error @ ProberError::NoNetwork(_)) => self.unknown(&error),
                // A late reply would be read as the reply to the next request, so no more requests are sent.
                Err(error) => return self.unknown(&error),
            }
            sleep(MIN_INTERVAL).await;
            tokio::select! {
                () = sleep(POLL_INTERVAL) => {}
                () = super::host::wait_for_change(&mut self.changes) => {}
            }
        }
    }

    async fn probe(&self, connection: &mut HelperConnection) -> Result<(), ProberError> {
        let nonce = Nonce::random().map_err(|_no_random| ProberError::NoRandom)?;
        let request = ProbeRequest {
            nonce: nonce.as_str().to_owned(),
            targets: self.spec.targets.clone(),
            blocked: self.spec.blocked.clone(),
        };
        let reply = connection.exchange(&request).await?;
        let outcomes: Vec<_> =
            reply.results.into_iter().map(|result| (result.target, self.outcome(&nonce, result))).collect();
        let problems: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| !matches!(outcome, ProbeOutcome::ThisAgent | ProbeOutcome::AddressMissing))
            .map(|(target, outcome)| format!("from a pod: {}", outcome.message(*target)))
            .collect();
        for (target, outcome) in &outcomes {
            if *outcome == ProbeOutcome::AddressMissing {
                self.spec.metrics.address_missing(ProbedFrom::Namespace, target.ip());
            } else {
                let is_this_agent = *outcome == ProbeOutcome::ThisAgent;
                self.spec.metrics.probed(ProbedFrom::Namespace, target.ip(), is_this_agent);
            }
        }
        report(&self.spec.condition, &problems);
        if let Some(imds_blocked) = &self.spec.imds_blocked {
            let reachable: Vec<_> = reply
                .reachable
                .iter()
                .map(|to| format!("pods can reach {to} despite --block-imds"))
                .collect();
            report(imds_blocked, &reachable);
        }
        Ok(())
    }

    fn outcome(&self, nonce: &Nonce, result: TargetResult) -> ProbeOutcome {
        let missing = RequestError::AddressMissing.to_string();
        match result.response {
            Ok((local, text)) => {
                evaluate(&self.probe_key, nonce, &Ok(ProbeResponse { local, bytes: text.into_bytes() }))
            }
            Err(reason) if reason == missing => ProbeOutcome::AddressMissing,
            Err(reason) => ProbeOutcome::NoAnswer { reason },
        }
    }

    /// Without an outcome the conditions are unmet, but the metric keeps its last value: an unknown outcome
    /// must not raise the alert about a failed probe.
    fn unknown(&self, error: &ProberError) {
        self.spec.condition.unmet(format!("unknown: {error}"));
        if let Some(imds_blocked) = &self.spec.imds_blocked {
            imds_blocked.unmet(format!("unknown: {error}"));
        }
    }
}

fn report(condition: &Condition, problems: &[String]) {
    if problems.is_empty() {
        condition.met();
    } else {
        condition.unmet(problems.join("; "));
    }
}
