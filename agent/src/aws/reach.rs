//! Whether AWS answers at all, and what is in the way where it does not.
//!
//! Owns: the warning of a call that had no answer of AWS or one of its own trouble, and since when no call
//! has had one. Must not know: what follows for the pod, or which answers are trouble. A dead proxy, a
//! firewall or a wrong endpoint is one mistake for the whole node; in the answer of one pod nobody finds its
//! cause.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::aws::answer_log::{AnswerLog, No};
use crate::clock::{BootTime, Clock};

/// So many calls in a row say something; one or two are a connection that broke.
const CALLS: u32 = 3;
/// And for so long: the restart of a proxy or a firewall is over by then.
const LONG: Duration = Duration::from_secs(60);
/// How often time alone is looked at while calls fail.
const CHECK: Duration = Duration::from_secs(10);

/// The last calls. Clones share them.
#[derive(Clone, Debug)]
pub struct Reach {
    log: AnswerLog,
    clock: Clock,
    failing: watch::Sender<Option<Failing>>,
}

/// Calls with no answer of AWS between them.
#[derive(Clone, Debug)]
struct Failing {
    first: BootTime,
    calls: u32,
    last_cause: Arc<str>,
}

/// Calls that have had no answer of AWS, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// When the first of them failed.
    pub since: BootTime,
    /// How many there were.
    pub calls: u32,
    /// What was in the way of the last one.
    pub last_cause: Arc<str>,
}

/// Whether AWS is reached, for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It is, or nothing long enough says otherwise.
    Yes,
    /// It is not. A sentence with what was in the way last.
    No(String),
}

impl Reach {
    /// Nobody was called yet.
    pub fn new(log: AnswerLog, clock: Clock) -> Self {
        Self { log, clock, failing: watch::Sender::default() }
    }

    /// AWS has answered, whatever it said.
    pub fn answered(&self) {
        self.failing.send_if_modified(|failing| failing.take().is_some());
    }

    /// AWS has answered that it fails or throttles. Only it can say why, and only by its request id.
    pub fn answered_with(&self, trouble: &No<'_>) {
        self.log.report(trouble, self.clock.now().boot);
        self.answered();
    }

    /// A call of `whom` has had no answer of AWS, because of this.
    pub fn failed(&self, whom: &str, cause: &str) {
        let now = self.clock.now().boot;
        self.log.report_unanswered(whom, cause, now);
        self.failing.send_modify(|failing| {
            let (first, calls) = failing.as_ref().map_or((now, 0), |before| (before.first, before.calls));
            let last_cause = format!("{whom}: {cause}").into();
            *failing = Some(Failing { first, calls: calls.saturating_add(1), last_cause });
        });
    }

    /// The calls since the last answer; `None`: the last call was answered, or there was none.
    pub fn unanswered(&self) -> Option<Unanswered> {
        let failing = self.failing.borrow();
        let Failing { first, calls, last_cause } = failing.as_ref()?;
        Some(Unanswered { since: *first, calls: *calls, last_cause: Arc::clone(last_cause) })
    }

    /// Reports whether AWS is reached, now and at each change, without end; cancel by dropping.
    pub async fn report(self, mut report: impl FnMut(Reached) + Send) {
        let mut failing = self.failing.subscribe();
        loop {
            let current = failing.borrow_and_update().clone();
            report(Failing::reached(current.as_ref(), self.clock.now().boot));
            tokio::select! {
                changed = failing.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(CHECK), if current.is_some() => {}
            }
        }
    }
}

impl Failing {
    /// Not, where all of the last [`CALLS`] calls failed, and nothing was answered for [`LONG`].
    fn reached(failing: Option<&Self>, now: BootTime) -> Reached {
        match failing {
            Some(Self { first, calls, last_cause }) if *calls >= CALLS && now.since(*first) >= LONG => {
                Reached::No(format!("the last {calls} calls had no answer of AWS; {last_cause}"))
            }
            Some(_) | None => Reached::Yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use parking_lot::Mutex;

    use super::{CHECK, Failing, LONG, Reach, Reached};
    use crate::aws::answer_log::AnswerLog;
    use crate::clock::{Clock, Simulated};

    const WHOM: &str = "EKS Auth in us-west-2 (cluster prod)";

    fn reach() -> Reach {
        let time = Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        Reach::new(AnswerLog::default(), Clock::simulated(time))
    }

    /// What happens, one letter each: `+` an answer, `x` none, `.` twenty seconds pass.
    async fn play(story: &str) -> bool {
        let reach = reach();
        for event in story.chars() {
            match event {
                '+' => reach.answered(),
                'x' => reach.failed(WHOM, "TLS failed"),
                _ => tokio::time::sleep(Duration::from_secs(20)).await,
            }
        }
        Failing::reached(reach.failing.borrow().as_ref(), reach.clock.now().boot) == Reached::Yes
    }

    #[tokio::test(start_paused = true)]
    async fn aws_is_out_of_reach_after_a_minute_and_three_calls_and_in_reach_after_any_answer() {
        for (what, story, expected) in [
            ("nobody has asked", "...", true),
            ("many at once", "xxxxxxxxxx", true),
            ("a moment", "xx.x.x", true),
            ("two calls", "x......x....", true),
            ("a minute", "x.x.x.", false),
            ("three calls and then none", "xxx...", false),
            ("an answer after it", "xxx...+", true),
            ("an answer among them", "xx..+x.x.x", true),
            ("a minute after the answer", "xx..+x.x.x.", false),
        ] {
            assert_eq!(play(story).await, expected, "{what}: {story}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_reported_with_its_cause_though_nobody_calls_any_more_and_taken_back() {
        let reach = reach();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reports);
        let reporting = reach.clone().report(move |reached| seen.lock().push(reached));
        let calling = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for _ in 0..3 {
                reach.failed(WHOM, "TLS failed");
            }
            tokio::time::sleep(LONG + CHECK).await;
            reach.answered();
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            () = reporting => {}
            () = calling => {}
        }
        let mut reports = std::mem::take(&mut *reports.lock());
        reports.dedup();
        let told = "the last 3 calls had no answer of AWS; EKS Auth in us-west-2 (cluster prod): TLS failed";
        assert_eq!(reports, [Reached::Yes, Reached::No(told.to_owned()), Reached::Yes]);
    }
}
