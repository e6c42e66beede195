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

use super::ask::{AskError, ProbeResponse};
use super::judge::{Verdict, judge};
use super::namespace::{Answer, MOST_LINE, Question, Reply};
use super::probe_key::{Nonce, ProbeKey};
use crate::lifecycle::readiness::Condition;
use crate::telemetry::metrics::{ProbedFrom, SelfProbeMetrics};

/// A namespace is made for each probe, so no oftener than this, whatever changes.
const LEAST_REST: Duration = Duration::from_secs(5);
/// Without a change.
const UNASKED: Duration = Duration::from_secs(30);
/// After a change, and after the start.
const SETTLE: Duration = Duration::from_millis(200);
/// Two families of two seconds each, the metadata, and a kernel that is busy.
const DEADLINE: Duration = Duration::from_secs(20);

/// The helper, before there is a runtime.
pub struct Prober {
    child: Child,
}

/// What is asked, and who hears of it.
pub struct PodProbed {
    /// The addresses as pods know them.
    pub targets: Vec<SocketAddr>,
    /// Where pods must not get through to.
    pub blocked: Vec<SocketAddr>,
    /// Whether only we answer. Advisory.
    pub alone: Condition,
    /// Whether `blocked` is. Advisory; `None` where nothing is.
    pub kept_away: Option<Condition>,
    /// The same as `alone`, for Prometheus.
    pub metrics: Arc<SelfProbeMetrics>,
}

/// Asks ourselves from a network namespace.
pub struct PodProbe {
    probed: PodProbed,
    seal: ProbeKey,
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
    Late,
    #[error("the helper process does not speak our language: {0}")]
    Garbled(#[from] serde_json::Error),
    #[error("there are no random numbers")]
    NoNonce,
    #[error("a pod's network cannot be made: {0}")]
    NoNetwork(String),
}

/// Both ends of the talk.
struct Talk {
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

    fn talk(mut self) -> io::Result<Talk> {
        let (Some(to), Some(from)) = (self.child.stdin.take(), self.child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Talk {
            to: Sender::from_owned_fd(OwnedFd::from(to))?,
            from: BufReader::new(Receiver::from_owned_fd(OwnedFd::from(from))?),
            _child: self.child,
        })
    }
}

impl Talk {
    async fn ask(&mut self, question: &Question) -> Result<Reply, ProberError> {
        let exchange = async {
            self.to.write_all(format!("{}\n", serde_json::to_string(question)?).as_bytes()).await?;
            let mut line = String::new();
            if (&mut self.from).take(MOST_LINE).read_line(&mut line).await? == 0 {
                return Err(ProberError::Ended);
            }
            Ok(serde_json::from_str::<Reply>(&line)?)
        };
        let reply = timeout(DEADLINE, exchange).await.map_err(|_elapsed| ProberError::Late)??;
        match reply.trouble {
            Some(why) => Err(ProberError::NoNetwork(why)),
            None => Ok(reply),
        }
    }
}

impl PodProbe {
    /// `changes` moves on each time that links or rules may have changed.
    pub const fn new(probed: PodProbed, seal: ProbeKey, changes: watch::Receiver<u64>) -> Self {
        Self { probed, seal, changes }
    }

    /// Works until the helper ends; cancel by dropping.
    pub async fn keep(mut self, prober: io::Result<Prober>) {
        let mut talk = match prober.and_then(Prober::talk) {
            Ok(talk) => talk,
            Err(error) => return self.unknown(&ProberError::Pipe(error)),
        };
        loop {
            sleep(SETTLE).await;
            self.changes.mark_unchanged();
            match self.probe(&mut talk).await {
                Ok(()) => {}
                Err(error @ ProberError::NoNetwork(_)) => self.unknown(&error),
                // An answer that comes late would be taken for the next one's: no more questions.
                Err(error) => return self.unknown(&error),
            }
            sleep(LEAST_REST).await;
            tokio::select! {
                () = sleep(UNASKED) => {}
                () = super::keeper::change(&mut self.changes) => {}
            }
        }
    }

    async fn probe(&self, talk: &mut Talk) -> Result<(), ProberError> {
        let nonce = Nonce::random().map_err(|_seal| ProberError::NoNonce)?;
        let question = Question {
            nonce: nonce.as_str().to_owned(),
            targets: self.probed.targets.clone(),
            blocked: self.probed.blocked.clone(),
        };
        let reply = talk.ask(&question).await?;
        let verdicts: Vec<_> =
            reply.answers.into_iter().map(|answer| (answer.target, self.verdict(&nonce, answer))).collect();
        let troubles: Vec<_> = verdicts
            .iter()
            .filter(|(_, verdict)| !matches!(verdict, Verdict::Ours | Verdict::Absent))
            .map(|(target, verdict)| format!("for a pod, {}", verdict.about(*target)))
            .collect();
        for (target, verdict) in &verdicts {
            if *verdict == Verdict::Absent {
                self.probed.metrics.address_missing(ProbedFrom::Namespace, target.ip());
            } else {
                self.probed.metrics.probed(ProbedFrom::Namespace, target.ip(), *verdict == Verdict::Ours);
            }
        }
        tell(&self.probed.alone, &troubles);
        if let Some(kept_away) = &self.probed.kept_away {
            let reached: Vec<_> = reply.reached.iter().map(|to| format!("pods still reach {to}")).collect();
            tell(kept_away, &reached);
        }
        Ok(())
    }

    fn verdict(&self, nonce: &Nonce, answer: Answer) -> Verdict {
        let absent = AskError::Absent.to_string();
        match answer.heard {
            Ok((local, said)) => {
                judge(&self.seal, nonce, &Ok(ProbeResponse { local, said: said.into_bytes() }))
            }
            Err(why) if why == absent => Verdict::Absent,
            Err(why) => Verdict::Nobody { why },
        }
    }

    /// Not known is not well, and it is not ill either: the metric keeps what was known last.
    fn unknown(&self, error: &ProberError) {
        self.probed.alone.unmet(format!("cannot be told: {error}"));
        if let Some(kept_away) = &self.probed.kept_away {
            kept_away.unmet(format!("cannot be told: {error}"));
        }
    }
}

fn tell(condition: &Condition, troubles: &[String]) {
    if troubles.is_empty() {
        condition.met();
    } else {
        condition.unmet(troubles.join("; "));
    }
}
