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

use super::host::outcome_of;
use super::namespace::{MAX_LINE, ProbeReply, ProbeRequest, TargetResult};
use super::outcome::ProbeOutcome;
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
/// So many probes in a row without an outcome, and what was found before counts no more. A busy node may be
/// late with one, and with the next that waits for it; with the third a helper that hangs has been silent for
/// one to two minutes, and the alert's own two minutes follow.
const MAX_UNKNOWN: u32 = 3;
/// Two probes of up to 2 s each, the checks of the metadata service, and time for a busy kernel.
const DEADLINE: Duration = Duration::from_secs(20);

/// The helper cannot be started again: this process gives away what a helper needs.
const UNTIL_RESTART: &str = "unknown until the agent is restarted";

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

/// The helper process, and the way to it.
struct Helper {
    line: HelperLine,
    child: Child,
}

/// The two pipes. There is one request at a time: the helper answers in order, so while a reply is late
/// nothing else could be answered, and requests would only pile up.
struct HelperLine {
    to: Sender,
    from: BufReader<Receiver>,
    /// The part of a reply that was read: reading may be cancelled in the middle of one.
    read: Vec<u8>,
    /// The nonce of the request without a reply.
    unanswered: Option<String>,
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

    fn connect(mut self) -> io::Result<Helper> {
        let (Some(to), Some(from)) = (self.child.stdin.take(), self.child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let to = Sender::from_owned_fd(OwnedFd::from(to))?;
        let from = Receiver::from_owned_fd(OwnedFd::from(from))?;
        Ok(Helper { line: HelperLine::new(to, from), child: self.child })
    }
}

impl HelperLine {
    fn new(to: Sender, from: Receiver) -> Self {
        Self { to, from: BufReader::new(from), read: Vec::new(), unanswered: None }
    }

    async fn exchange(&mut self, request: &ProbeRequest) -> Result<ProbeReply, ProberError> {
        let reply =
            timeout(DEADLINE, self.round_trip(request)).await.map_err(|_elapsed| ProberError::Timeout)??;
        match reply.error {
            Some(error) => Err(ProberError::NoNetwork(error)),
            None => Ok(reply),
        }
    }

    async fn round_trip(&mut self, request: &ProbeRequest) -> Result<ProbeReply, ProberError> {
        // The helper was late with its last one. What that says is outdated.
        while self.unanswered.is_some() {
            self.receive().await?;
        }
        let message = format!("{}\n", serde_json::to_string(request)?);
        self.unanswered = Some(request.nonce.clone());
        self.to.write_all(message.as_bytes()).await?;
        loop {
            let reply = self.receive().await?;
            if self.unanswered.is_none() {
                return Ok(reply);
            }
        }
    }

    /// The next reply, whatever it is to. Cancel-safe.
    async fn receive(&mut self) -> Result<ProbeReply, ProberError> {
        let room = MAX_LINE.saturating_sub(self.read.len() as u64);
        if (&mut self.from).take(room).read_until(b'\n', &mut self.read).await? == 0 {
            return Err(ProberError::Ended);
        }
        let reply: ProbeReply = serde_json::from_slice(&std::mem::take(&mut self.read))?;
        if reply.nonce.is_none() || reply.nonce == self.unanswered {
            self.unanswered = None;
        }
        Ok(reply)
    }
}

impl PodProbe {
    /// `changes` is incremented each time links or rules may have changed.
    pub const fn new(spec: PodProbeSpec, probe_key: ProbeKey, changes: watch::Receiver<u64>) -> Self {
        Self { spec, probe_key, changes }
    }

    /// Runs until the helper ends, or until it is dropped.
    pub async fn keep(mut self, prober: io::Result<Prober>) {
        let mut helper = match prober.and_then(Prober::connect) {
            Ok(helper) => helper,
            Err(error) => {
                return self.unmet(&format!("{UNTIL_RESTART}: {}", ProberError::Pipe(error)));
            }
        };
        let error = self.probe_on(&mut helper.line).await;
        self.ended(&error, &mut helper.child).await;
    }

    /// Probes until the helper is gone, or is not what it was.
    async fn probe_on(&mut self, helper: &mut HelperLine) -> ProberError {
        let mut unknown = 0;
        loop {
            sleep(SETTLE_TIME).await;
            self.changes.mark_unchanged();
            match self.probe(helper).await {
                Ok(()) => unknown = 0,
                Err(error @ (ProberError::NoNetwork(_) | ProberError::Timeout | ProberError::NoRandom)) => {
                    unknown += 1;
                    self.unknown(&error, unknown);
                }
                Err(error @ (ProberError::Pipe(_) | ProberError::Ended | ProberError::InvalidReply(_))) => {
                    return error;
                }
            }
            sleep(MIN_INTERVAL).await;
            tokio::select! {
                () = sleep(POLL_INTERVAL) => {}
                () = super::host::wait_for_change(&mut self.changes) => {}
            }
        }
    }

    async fn probe(&self, helper: &mut HelperLine) -> Result<(), ProberError> {
        let nonce = Nonce::random().map_err(|_no_random| ProberError::NoRandom)?;
        let request = ProbeRequest {
            nonce: nonce.as_str().to_owned(),
            targets: self.spec.targets.clone(),
            blocked: self.spec.blocked.clone(),
        };
        let reply = helper.exchange(&request).await?;
        let mut outcomes = Vec::new();
        for result in reply.results {
            outcomes.push((result.target, self.outcome(&nonce, result).await));
        }
        // In an update pods may still be served by the agent before.
        let is_an_agents =
            |outcome: &ProbeOutcome| matches!(outcome, ProbeOutcome::ThisAgent | ProbeOutcome::AnotherAgent);
        let problems: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| !is_an_agents(outcome) && *outcome != ProbeOutcome::FamilyOff)
            .map(|(target, outcome)| format!("from a pod: {}", outcome.message(*target)))
            .collect();
        for (target, outcome) in &outcomes {
            if *outcome == ProbeOutcome::FamilyOff {
                self.spec.metrics.family_off(ProbedFrom::Namespace, target.ip());
            } else {
                self.spec.metrics.probed(ProbedFrom::Namespace, target.ip(), is_an_agents(outcome));
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

    async fn outcome(&self, nonce: &Nonce, result: TargetResult) -> ProbeOutcome {
        // The pod's end could not be given an address of this family, so a pod could not either.
        let missing = [RequestError::AddressMissing, RequestError::FamilyOff].map(|error| error.to_string());
        match result.response {
            Ok((local, text)) => {
                let response = Ok(ProbeResponse { local, bytes: text.into_bytes() });
                outcome_of(&self.probe_key, nonce, &response).await
            }
            Err(reason) if missing.contains(&reason) => ProbeOutcome::FamilyOff,
            Err(reason) => ProbeOutcome::NoAnswer { reason },
        }
    }

    /// Nothing is known from here on.
    async fn ended(&self, error: &ProberError, helper: &mut Child) {
        // Its pipes are closed a moment before it can be asked how it ended.
        sleep(SETTLE_TIME).await;
        let how = match helper.try_wait() {
            Ok(Some(status)) => format!(" ({status})"),
            Ok(None) | Err(_) => String::new(),
        };
        tracing::warn!(err = %error, how, "no more probes from a pod's network until the agent is restarted");
        self.outdated();
        self.unmet(&format!("{UNTIL_RESTART}: {error}{how}"));
    }

    /// Without an outcome the conditions are unmet, but at first the metric keeps its last value: one late
    /// reply must not raise the alert about a failed probe.
    fn unknown(&self, error: &ProberError, in_a_row: u32) {
        if in_a_row < MAX_UNKNOWN {
            return self.unmet(&format!("unknown: {error}"));
        }
        self.outdated();
        self.unmet(&format!("unknown for {in_a_row} probes in a row: {error}"));
    }

    /// The metric does not go on saying what was found last. Where nothing ever was, there is no series: the
    /// node may not have the family. The condition's alert tells that too.
    fn outdated(&self) {
        for target in &self.spec.targets {
            self.spec.metrics.ended(ProbedFrom::Namespace, target.ip());
        }
    }

    fn unmet(&self, reason: &str) {
        self.spec.condition.unmet(reason);
        if let Some(imds_blocked) = &self.spec.imds_blocked {
            imds_blocked.unmet(reason);
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
    use tokio::net::unix::pipe::{Receiver, Sender, pipe};
    use tokio::sync::watch;
    use tokio::time::sleep;

    use super::{
        DEADLINE, HelperLine, MAX_LINE, MIN_INTERVAL, Nonce, POLL_INTERVAL, PodProbe, PodProbeSpec, ProbeKey,
        ProbeReply, ProbeRequest, ProberError, SETTLE_TIME, TargetResult,
    };
    use crate::lifecycle::condition_name::ConditionName;
    use crate::lifecycle::readiness::Readiness;
    use crate::lifecycle::tasks::Tasks;
    use crate::node::other_agents::answer_them;
    use crate::telemetry::metrics::Metrics;

    /// The helper's ends of the two pipes.
    struct Ends {
        requests: Lines<BufReader<Receiver>>,
        replies: Sender,
    }

    fn helper() -> (HelperLine, Ends) {
        let ((to, requests), (replies, from)) = (pipe().unwrap(), pipe().unwrap());
        (HelperLine::new(to, from), Ends { requests: BufReader::new(requests).lines(), replies })
    }

    async fn exchange(line: &mut HelperLine, nonce: &str) -> Result<ProbeReply, ProberError> {
        let request = ProbeRequest { nonce: nonce.to_owned(), targets: Vec::new(), blocked: Vec::new() };
        line.exchange(&request).await
    }

    fn reply(nonce: &str) -> String {
        let reply = ProbeReply { nonce: Some(nonce.to_owned()), ..ProbeReply::default() };
        format!("{}\n", serde_json::to_string(&reply).unwrap())
    }

    const TARGET: &str = "169.254.170.23:80";

    /// What a probe reports, and the key to answer it with.
    struct Told {
        readiness: Readiness,
        metrics: Metrics,
        key: ProbeKey,
    }

    impl Told {
        fn by_a_probe() -> (Self, PodProbe) {
            let (readiness, metrics, key) = (Readiness::new(), Metrics::new(), ProbeKey::new().unwrap());
            let spec = PodProbeSpec {
                targets: vec![TARGET.parse().unwrap()],
                blocked: Vec::new(),
                condition: readiness.advisory(ConditionName::SelfProbeFromPod),
                imds_blocked: None,
                metrics: Arc::clone(&metrics.self_probe),
            };
            let probe = PodProbe::new(spec, key.clone(), watch::channel(0).1);
            (Self { readiness, metrics, key }, probe)
        }

        /// The value of the series, if there is one, and the reason of the condition.
        fn now(&self) -> (Option<i64>, String) {
            let series = "pod_identity_agent_self_probe{from=\"namespace\",family=\"ipv4\"} ";
            let counts = self.metrics.counts();
            let value = counts.lines().find_map(|line| line.strip_prefix(series)?.parse().ok());
            (value, self.readiness.report()[0].reason.clone())
        }

        /// The reply of a helper that has reached this agent.
        fn reached(&self, nonce: &str) -> String {
            let pod: SocketAddr = "169.254.170.24:4711".parse().unwrap();
            let nonce = Nonce::from_digits(nonce).unwrap();
            let text = format!("HTTP/1.1 200 OK\r\n\r\n{}", self.key.answer(&nonce, pod));
            let result = TargetResult { target: TARGET.parse().unwrap(), response: Ok((pod, text)) };
            let nonce = Some(nonce.as_str().to_owned());
            let reply = ProbeReply { nonce, results: vec![result], ..ProbeReply::default() };
            format!("{}\n", serde_json::to_string(&reply).unwrap())
        }
    }

    impl Ends {
        async fn next_nonce(&mut self) -> String {
            let line = self.requests.next_line().await.unwrap().unwrap();
            serde_json::from_str::<ProbeRequest>(&line).unwrap().nonce
        }

        async fn send(&mut self, text: &str) {
            self.replies.write_all(text.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_reply_is_not_taken_for_that_of_the_next_probe_and_ends_nothing() {
        let (mut line, mut helper) = helper();
        let late = reply("1");
        let (first, rest) = late.split_at(7);
        // Half a reply is there in time.
        let (exchanged, ()) = tokio::join!(exchange(&mut line, "1"), async {
            assert_eq!(helper.next_nonce().await, "1");
            helper.send(first).await;
        });
        assert!(matches!(exchanged, Err(ProberError::Timeout)), "{exchanged:?}");
        // While it is late nothing more is asked.
        assert!(matches!(exchange(&mut line, "2").await, Err(ProberError::Timeout)));
        helper.send(rest).await;
        let (exchanged, ()) = tokio::join!(exchange(&mut line, "3"), async {
            assert_eq!(helper.next_nonce().await, "3");
            helper.send(&reply("0")).await;
            helper.send(&reply("3")).await;
        });
        assert_eq!(exchanged.unwrap().nonce.as_deref(), Some("3"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_has_ended_or_sends_no_end_is_noticed() {
        let (mut line, helper) = helper();
        drop(helper.replies);
        let started = tokio::time::Instant::now();
        assert!(matches!(exchange(&mut line, "1").await, Err(ProberError::Ended)));
        assert!(started.elapsed() < DEADLINE);

        let (mut line, mut helper) = self::helper();
        let endless = "x".repeat(usize::try_from(MAX_LINE).unwrap() + 1);
        let (exchanged, ()) = tokio::join!(exchange(&mut line, "1"), helper.send(&endless));
        assert!(matches!(exchanged, Err(ProberError::InvalidReply(_))), "{exchanged:?}");
    }

    const LATE: &str = "unknown: the helper process did not answer within 20 s";

    /// The time in which a helper that hangs is asked once, or waited for once more.
    async fn a_probe_without_a_reply() {
        sleep(DEADLINE + MIN_INTERVAL + POLL_INTERVAL + 2 * SETTLE_TIME).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_hangs_leaves_no_good_news_behind_and_one_that_is_late_ends_nothing() {
        let ((mut line, mut helper), (told, mut probe)) = (helper(), Told::by_a_probe());
        let story = async {
            let nonce = helper.next_nonce().await;
            helper.send(&told.reached(&nonce)).await;
            sleep(SETTLE_TIME).await;
            assert_eq!(told.now(), (Some(1), String::new()));
            let late = helper.next_nonce().await;
            for _ in 0..2 {
                a_probe_without_a_reply().await;
                assert_eq!(told.now(), (Some(1), LATE.to_owned()), "it may still come");
            }
            a_probe_without_a_reply().await;
            let (value, reason) = told.now();
            assert_eq!(value, Some(0), "what was found last does not stand for ever");
            assert!(reason.starts_with("unknown for 3 probes in a row"), "{reason}");
            // It ends nothing: when the helper answers again, that counts.
            helper.send(&told.reached(&late)).await;
            let nonce = helper.next_nonce().await;
            helper.send(&told.reached(&nonce)).await;
            sleep(SETTLE_TIME).await;
            assert_eq!(told.now(), (Some(1), String::new()));
            // And the next late one is the first again.
            helper.next_nonce().await;
            a_probe_without_a_reply().await;
            assert_eq!(told.now(), (Some(1), LATE.to_owned()));
            drop(helper);
        };
        let (ended, ()) = tokio::join!(probe.probe_on(&mut line), story);
        assert!(matches!(ended, ProberError::Ended), "{ended}");
    }

    #[tokio::test]
    async fn in_an_update_the_answer_of_the_agent_before_is_no_other_process() {
        let ((mut line, mut helper), (mut told, probe)) = (helper(), Told::by_a_probe());
        told.key = ProbeKey::new().unwrap();
        let before = Tasks::new().spawn("answer", answer_them(told.key.clone()));
        for _ in 0..100 {
            let (probed, ()) = tokio::join!(probe.probe(&mut line), async {
                let nonce = helper.next_nonce().await;
                helper.send(&told.reached(&nonce)).await;
            });
            probed.unwrap();
            if told.now() == (Some(1), String::new()) {
                break;
            }
            // It does not answer others yet.
            sleep(Duration::from_millis(10)).await;
        }
        before.abort();
        assert_eq!(told.now(), (Some(1), String::new()));
        // Of one that nobody knows, the same answer is another process's.
        told.key = ProbeKey::new().unwrap();
        let (probed, ()) = tokio::join!(probe.probe(&mut line), async {
            let nonce = helper.next_nonce().await;
            helper.send(&told.reached(&nonce)).await;
        });
        probed.unwrap();
        assert_eq!(told.now().0, Some(0), "{}", told.now().1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_never_started_is_told_as_what_a_restart_of_the_agent_may_mend() {
        let (told, probe) = Told::by_a_probe();
        probe.keep(Err(ErrorKind::NotFound.into())).await;
        let (value, reason) = told.now();
        assert_eq!(value, None, "of a family that the node may not have there is no series");
        assert!(reason.starts_with("unknown until the agent is restarted: "), "{reason}");
    }
}
