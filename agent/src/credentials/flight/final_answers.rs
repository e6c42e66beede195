//! What AWS answers for good: reported to admins, and whether it has granted anything lately.
//!
//! Owns: the warning of a refusal, and since when there were only refusals. Must not know: what follows for
//! the pod (`outcome`).
//!
//! One refused pod is that pod's affair. Where nothing but refusals comes, the agent asks for the wrong
//! thing: a misspelt cluster name, another region, associations that were never made. What one source grants
//! says nothing of that at another.

use std::fmt;

use tokio::sync::watch;

use crate::aws::answer_log::AnswerLog;
use crate::clock::{BootTime, Clock};
use crate::credentials::source::{OfEach, Refusal, SourceError};
use crate::lifecycle::streak::{CHECK, OnlyFailures, Streak};
use crate::workload::{Route, Source};

/// The last answers. Clones share them.
#[derive(Clone)]
pub struct FinalAnswers {
    log: AnswerLog,
    clock: Clock,
    /// A grant is a success, a refusal a failure.
    answers: watch::Sender<OfEach<Streak<Refusal>>>,
}

/// What AWS has granted, for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Something, or nothing was refused.
    Something,
    /// Nothing, by one of the sources: all its answers were refusals. A sentence with the last one.
    Nothing(String),
}

impl FinalAnswers {
    pub(in crate::credentials) fn new(log: AnswerLog, clock: Clock) -> Self {
        Self { log, clock, answers: watch::Sender::default() }
    }

    /// A flight by this route has ended like this; `None`: with credentials.
    pub(in crate::credentials) fn ended(&self, route: &Route, error: Option<&SourceError>) {
        match error {
            None => self.granted(route),
            Some(SourceError::Refused(refusal)) => self.refused(route, refusal),
            // Rejections of the agent itself are logged where they are noticed (`aws::own_identity`); the
            // rest are no answers.
            Some(SourceError::OwnIdentity(_) | SourceError::Throttled | SourceError::Unavailable(_)) => {}
        }
    }

    fn granted(&self, route: &Route) {
        self.answers.send_if_modified(|answers| answers.of_mut(route.source()).succeeded());
    }

    fn refused(&self, route: &Route, refusal: &Refusal) {
        // Not AWS's: the agent has judged by itself.
        let Some(no) = refusal.as_no() else { return };
        let now = self.clock.now().boot;
        self.log.report(&no, now);
        self.answers.send_modify(|answers| answers.of_mut(route.source()).failed(refusal.clone(), now));
    }

    /// Returns once this source has granted something to a pod.
    pub(in crate::credentials) async fn granted_by(&self, source: Source) {
        let mut answers = self.answers.subscribe();
        // It fails only without a sender, and `self` holds one.
        let _answers = answers.wait_for(|answers| answers.of(source).has_succeeded()).await;
    }

    /// Reports whether AWS grants anything, now and at each change, without end; cancel by dropping.
    pub async fn report(self, mut report: impl FnMut(Granted) + Send) {
        let mut answers = self.answers.subscribe();
        loop {
            let current = answers.borrow_and_update().clone();
            report(granted(&current, self.clock.now().boot));
            let has_refusals = current.all().iter().any(|answers| answers.has_failures());
            tokio::select! {
                changed = answers.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(CHECK), if has_refusals => {}
            }
        }
    }
}

fn granted(answers: &OfEach<Streak<Refusal>>, now: BootTime) -> Granted {
    let of_each = answers.all().map(|answers| answers.says(now));
    of_each.into_iter().flatten().next().map_or(Granted::Something, |OnlyFailures { since, last_one }| {
        Granted::Nothing(format!("AWS has granted nothing {since}; it said last: {}", last_one.in_full()))
    })
}

impl fmt::Debug for FinalAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinalAnswers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use parking_lot::Mutex;

    use super::{FinalAnswers, Granted, granted};
    use crate::aws::answer_log::{AnswerLog, Asked, Signer};
    use crate::clock::{Clock, Simulated};
    use crate::credentials::source::tests::refusal;
    use crate::credentials::source::{Refusal, RefusalClass, SourceError, Unavailable};
    use crate::lifecycle::streak::{CHECK, LONG};
    use crate::workload::Route::{self, EksAuth};
    use crate::workload::{RoleArn, StsEndpoint, WebIdentity};

    fn answers() -> (FinalAnswers, Arc<Simulated>) {
        let time = Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        (FinalAnswers::new(AnswerLog::default(), Clock::simulated(Arc::clone(&time))), time)
    }

    fn refused() -> SourceError {
        let signer = Signer { source: "instance role node".into(), access_key_id: "ASIAONE".into() };
        let asked = Asked { whom: "EKS Auth in us-west-2 (cluster prod)".into(), signer: Some(signer) };
        let refusal = refusal(RefusalClass::NoAssociation);
        SourceError::Refused(Refusal { asked: Some(Arc::new(asked)), ..refusal })
    }

    fn web_identity() -> Route {
        Route::WebIdentity(Arc::new(WebIdentity {
            role: RoleArn::read("arn:aws:iam::111122223333:role/reader").unwrap(),
            audience: "sts.amazonaws.com".into(),
            session_name: "ns.p".into(),
            endpoint: StsEndpoint::Regional,
        }))
    }

    fn is_nothing(answers: &FinalAnswers) -> bool {
        match granted(&answers.answers.borrow(), answers.clock.now().boot) {
            Granted::Something => false,
            Granted::Nothing(_) => true,
        }
    }

    /// What happens, one letter each: `+` a grant, `s` one of STS, `-` a refusal, `x` no answer, `o` the
    /// agent's own judgement, `.` a minute passes.
    async fn play(story: &str) -> bool {
        let (answers, _time) = answers();
        for event in story.chars() {
            match event {
                '+' => answers.ended(&EksAuth, None),
                's' => answers.ended(&web_identity(), None),
                '-' => answers.ended(&EksAuth, Some(&refused())),
                'x' => answers.ended(&EksAuth, Some(&SourceError::Unavailable(Unavailable::Timeout))),
                'o' => {
                    answers.ended(&EksAuth, Some(&SourceError::Refused(refusal(RefusalClass::TokenExpired))))
                }
                _ => tokio::time::sleep(Duration::from_secs(60)).await,
            }
        }
        is_nothing(&answers)
    }

    #[tokio::test(start_paused = true)]
    async fn one_refusal_counts_where_nothing_was_granted_and_ten_minutes_of_them_where_something_was() {
        for (what, story, expected) in [
            ("nobody has asked", "", false),
            ("no answer", "xxx", false),
            ("the agent's own judgement", "o", false),
            ("one refusal", "-", true),
            ("long ago", "-....................", true),
            ("a grant after it", "-+", false),
            ("STS grants, and EKS Auth nothing", "s-s", true),
            ("one pod among others", "+-", false),
            ("its retries", "+-...-...-...", false),
            ("for ten minutes", "+-...-...-....", true),
            ("a grant among them", "+-...-.+..-....-", false),
            ("one now and one then", "+-..........-", false),
            ("an end of asking", "+-...-...-..............", false),
        ] {
            assert_eq!(play(story).await, expected, "{what}: {story}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_reported_with_the_words_of_aws_and_taken_back() {
        let (answers, _time) = answers();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reports);
        let reporting = answers.clone().report(move |granted| seen.lock().push(granted));
        let answering = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            answers.ended(&EksAuth, Some(&refused()));
            tokio::time::sleep(LONG + CHECK).await;
            answers.ended(&EksAuth, None);
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            () = reporting => {}
            () = answering => {}
        }
        let mut reports = std::mem::take(&mut *reports.lock());
        reports.dedup();
        let told = "AWS has granted nothing since the start; it said last: AccessDeniedException: no \
                    (request id r-1), asked was EKS Auth in us-west-2 (cluster prod) by instance role node, \
                    access key id ASIAONE";
        assert_eq!(reports, [Granted::Something, Granted::Nothing(told.to_owned()), Granted::Something]);
    }
}
