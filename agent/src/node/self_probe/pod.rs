//! Asking from where a pod stands, by way of the helper process.
//!
//! Owns: the helper's start and its two pipes, and what readiness and metrics hear. Must not know: namespaces and links;
//! `namespace` does.

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

/// A namespace is made for each probe, so no oftener than this, whatever changes.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// Without a change.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// After a change, and after the start.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// Two families of two seconds each, the metadata, and a kernel that is busy.
const DEADLINE: Duration = Duration::from_secs(20);

/// The helper, before there is a runtime.
pub struct Prober {
    child: Child,
}

/// What is asked, and who hears of it.
pub struct PodProbeSpec {
    /// The addresses as pods know them.
    pub targets: Vec<SocketAddr>,
    /// Where pods must not get through to.
    pub blocked: Vec<SocketAddr>,
    /// Whether only we answer. Advisory.
    pub condition: Condition,
    /// Whether `blocked` is. Advisory; `None` where nothing is.
    pub imds_blocked: Option<Condition>,
    /// The same as `alone`, for Prometheus.
    pub metrics: Arc<SelfProbeMetrics>,
}

/// Asks ourselves from a network namespace.
pub struct PodProbe {
    spec: PodProbeSpec,
    probe_key: ProbeKey,
    changes: watch::Receiver<u64>,
}

/// Why the helper gave no answer.
#[derive(Debug, thiserror::Error)]
enum ProberError {
    #[error("the helper process does not answer: {0}")]
    Pipe(#[from] io::Error),
    #[error("the helper process has ended")]
    Ended,
    #[error("the helper process did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
    #[error("the helper process does not speak our language: {0}")]
    InvalidReply(#[from] serde_json::Error),
    #[error("there are no random numbers")]
    NoRandom,
    #[error("a pod's network cannot be made: {0}")]
    NoNetwork(String),
}

/// Both ends of the talk.
struct HelperConnection {
    to: Sender,
    from: BufReader<Receiver>,
    _child: Child,
}

impl Prober {
    /// Starts the helper, with the privileges that this process still has and with no environment.
    ///
    /// # Errors
    /// When no process can be started.
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
            Some(why) => Err(ProberError::NoNetwork(why)),
            None => Ok(reply),
        }
    }
}

impl PodProbe {
    /// `changes` moves on each time that links or rules may have changed.
    pub const fn new(spec: PodProbeSpec, probe_key: ProbeKey, changes: watch::Receiver<u64>) -> Self {
        Self { spec, probe_key, changes }
    }

    /// Works until the helper ends; cancel by dropping.
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
                // An answer that comes late would be taken for the next one's: no more questions.
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
        let nonce = Nonce::random().map_err(|_seal| ProberError::NoRandom)?;
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
            .map(|(target, outcome)| format!("for a pod, {}", outcome.message(*target)))
            .collect();
        for (target, outcome) in
            outcomes.iter().filter(|(_, outcome)| *outcome != ProbeOutcome::AddressMissing)
        {
            self.spec.metrics.probed(ProbedFrom::Namespace, target.ip(), *outcome == ProbeOutcome::ThisAgent);
        }
        report(&self.spec.condition, &problems);
        if let Some(imds_blocked) = &self.spec.imds_blocked {
            let reachable: Vec<_> =
                reply.reachable.iter().map(|to| format!("pods still reach {to}")).collect();
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

    /// Not known is not well, and it is not ill either: the metric keeps what was known last.
    fn unknown(&self, error: &ProberError) {
        self.spec.condition.unmet(format!("cannot be told: {error}"));
        if let Some(imds_blocked) = &self.spec.imds_blocked {
            imds_blocked.unmet(format!("cannot be told: {error}"));
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
