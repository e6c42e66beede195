//! The trial call on paused time, with AWS's answers as the SDK reads them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials as Signs;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{PATIENCE, Trial, TrialState};
use crate::aws::canned::{self, Canned};
use crate::aws::node_details::SentDetails;
use crate::aws::own_identity::OwnIdentity;
use crate::aws::region::AwsRegion;
use crate::clock::{Clock, Simulated};
use crate::config::Upstream;
use crate::credentials::flight::final_answers::FinalAnswers;
use crate::credentials::limits::upstream_budget::UpstreamBudget;
use crate::credentials::source::eks_auth::{EksAuth, Parts};
use crate::rng::Rng;
use crate::telemetry::metrics::Metrics;
use crate::workload::{BearerToken, PresentedToken};

const TOKEN: &str = "planted.own.token";

/// What AWS says: status, code, message.
type Said = (u16, &'static str, &'static str);

const GOOD: Said =
    (404, "ResourceNotFoundException", "No association found for service account a of n in cluster c.");
const NO_CLUSTER: Said = (404, "ResourceNotFoundException", "No cluster found for name: c.");
const DENIED: Said =
    (403, "AccessDeniedException", "not authorized to perform: eks-auth:AssumeRoleForPodIdentity");
const FAILS: Said = (500, "InternalServerException", "sorry");
const THROTTLES: Said = (429, "ThrottlingException", "slow down");

/// What is known of a trial: its reports with the time of each, and when AWS was asked.
#[derive(Clone, Default)]
struct Seen {
    reports: Arc<Mutex<Vec<(Duration, TrialState)>>>,
    calls: Arc<Mutex<Vec<Duration>>>,
}

/// AWS answers each call by the time since the start. The trial runs for so long at most.
async fn trial(says: fn(Duration) -> Said, has_own: bool, for_at_most: Duration) -> (Seen, FinalAnswers) {
    trial_in(AwsRegion::given("us-west-2"), says, has_own, for_at_most).await
}

async fn trial_in(
    region: AwsRegion,
    says: fn(Duration) -> Said,
    has_own: bool,
    for_at_most: Duration,
) -> (Seen, FinalAnswers) {
    let time = Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let clock = Clock::simulated(time);
    let signs = Signs::new("AKIANODE", "node-secret", None, None, "test");
    let own = match has_own {
        true => OwnIdentity::fixed(signs, clock.clone()),
        false => OwnIdentity::new(clock.clone()),
    };
    let (seen, began) = (Seen::default(), Instant::now());
    let calls = Arc::clone(&seen.calls);
    let http_client = canned::client(move |_| {
        calls.lock().push(began.elapsed());
        let (status, code, message) = says(began.elapsed());
        let headers = vec![("x-amzn-errortype", code.to_owned()), ("x-amzn-requestid", "r-1".to_owned())];
        Canned { status, headers, body: format!(r#"{{"message":"{message}"}}"#).into_bytes() }
    });
    let log = own.answer_log().clone();
    let answers = FinalAnswers::new(log.clone(), clock.clone());
    let trial = Trial {
        eks_auth: EksAuth::new(Parts {
            cluster: "c",
            region,
            upstream: &Upstream { endpoint: None, use_fips: false, ca_bundle: None, proxy: None },
            own,
            details: SentDetails::default(),
            http_client,
            clock: &clock,
        }),
        budget: UpstreamBudget::new(clock.clone()),
        answers: answers.clone(),
        metrics: Arc::clone(&Metrics::new().upstream),
        log,
        clock,
        rng: Rng::seeded(7),
    };
    let reports = Arc::clone(&seen.reports);
    let report = move |state| reports.lock().push((began.elapsed(), state));
    let token = BearerToken::from_header(TOKEN.as_bytes()).unwrap();
    let token = PresentedToken { token, expires: SystemTime::UNIX_EPOCH, issued: None };
    // A trial that goes on is as good as one that is over.
    let _ = timeout(for_at_most, trial.run(|| async { Ok(token.clone()) }, report)).await;
    (seen, answers)
}

impl Seen {
    fn last(&self) -> (u64, TrialState) {
        let (at, state) = self.reports.lock().last().cloned().expect("a report");
        (at.as_secs(), state)
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn the_good_answer_ends_it_at_once_with_one_call() {
    let (seen, _) = trial(|_| GOOD, true, HOUR).await;
    assert_eq!(seen.last(), (0, TrialState::Passed));
    assert_eq!(seen.calls.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_aws_that_fails_holds_it_up_for_ten_seconds_with_few_calls() {
    let (seen, _) = trial(|_| FAILS, true, HOUR).await;
    let (at, state) = seen.last();
    assert!(matches!(&state, TrialState::Open(why) if why.contains("server error")), "{state:?}");
    assert_eq!(at, PATIENCE.as_secs());
    let calls = seen.calls.lock().clone();
    let first = calls.iter().filter(|at| **at <= PATIENCE).count();
    assert!((3..=8).contains(&first), "{calls:?}");
    // Nobody waits for these, and each of 10,000 nodes makes them.
    let later: Vec<_> = calls.windows(2).skip(first).map(|two| (two[1] - two[0]).as_secs()).collect();
    assert!(later.len() >= 10 && later.iter().all(|pause| (30..=300).contains(pause)), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn an_aws_that_wants_less_is_asked_once() {
    let (seen, _) = trial(|_| THROTTLES, true, HOUR).await;
    assert_eq!(seen.last().0, PATIENCE.as_secs());
    let calls = seen.calls.lock().clone();
    assert!(calls.iter().filter(|at| at.as_secs() < 40).count() == 1, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_holds_it_up_no_longer_than_it_lasts() {
    let says = |at| if at < Duration::from_secs(3) { FAILS } else { GOOD };
    let (seen, _) = trial(says, true, HOUR).await;
    let (at, state) = seen.last();
    assert_eq!(state, TrialState::Passed);
    assert!((3..8).contains(&at), "{at}");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_at_the_start_it_is_seen_what_aws_says_and_no_readiness_is_taken_away() {
    let says = |at: Duration| match at.as_secs() {
        0..600 => FAILS,
        600..1_800 => NO_CLUSTER,
        _ => GOOD,
    };
    let (seen, _) = trial(says, true, HOUR).await;
    let reports = seen.reports.lock().clone();
    let is_failing = |state: &TrialState| matches!(state, TrialState::Failing(_));
    assert!(!reports.iter().any(|(_, state)| is_failing(state)), "{reports:?}");
    let says_so = |state: &TrialState| matches!(state, TrialState::Open(why) if why.contains("No cluster"));
    assert!(reports.iter().any(|(_, state)| says_so(state)), "{reports:?}");
    let (at, state) = seen.last();
    assert_eq!(state, TrialState::Passed);
    assert!((1_800..=2_110).contains(&at), "{at}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_has_to_mend_is_asked_again_between_ten_seconds_and_a_minute_later() {
    for (said, words) in [(NO_CLUSTER, "correct the cluster's name"), (DENIED, "allow eks-auth:Assume")] {
        let says = if said == DENIED { |_| DENIED } else { |_| NO_CLUSTER };
        let (seen, _) = trial(says, true, HOUR).await;
        let (_, state) = seen.last();
        let TrialState::Failing(why) = state else { panic!("{state:?}") };
        for word in [said.1, said.2, "request id r-1", "cluster c", "a fixed set", "AKIANODE", words] {
            assert!(why.contains(word), "{word} is not in {why}");
        }
        let calls = seen.calls.lock().clone();
        assert!((60..=150).contains(&calls.len()), "{}", calls.len());
        let pauses: Vec<_> = calls.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(
            pauses[0] >= Duration::from_secs(10) && pauses[0] <= Duration::from_secs(20),
            "{:?}",
            pauses[0]
        );
        assert!(pauses.iter().all(|pause| (10..=60).contains(&pause.as_secs())), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_mended_is_seen_and_an_outage_mends_nothing() {
    let says = |at: Duration| match at.as_secs() {
        0..60 => NO_CLUSTER,
        60..600 => FAILS,
        _ => GOOD,
    };
    let (seen, _) = trial(says, true, HOUR).await;
    let (at, state) = seen.last();
    assert_eq!(state, TrialState::Passed);
    assert!((600..=660).contains(&at), "{at}");
}

#[tokio::test(start_paused = true)]
async fn without_credentials_of_its_own_nothing_is_asked_and_no_time_runs() {
    let (seen, _) = trial(|_| GOOD, false, HOUR).await;
    assert!(seen.calls.lock().is_empty());
    assert_eq!(*seen.reports.lock(), [(Duration::ZERO, TrialState::Waiting)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_region_nothing_is_asked_and_no_time_runs() {
    let (seen, _) = trial_in(AwsRegion::unknown(), |_| GOOD, true, HOUR).await;
    assert!(seen.calls.lock().is_empty());
    assert_eq!(*seen.reports.lock(), [(Duration::ZERO, TrialState::Waiting)]);
}

#[tokio::test(start_paused = true)]
async fn it_is_quiet_once_a_pod_was_granted_something() {
    let time = Simulated::starting_at(UNIX_EPOCH);
    let answers = FinalAnswers::new(crate::aws::answer_log::AnswerLog::default(), Clock::simulated(time));
    let granted = answers.clone();
    let granting = async {
        sleep(Duration::from_secs(5)).await;
        granted.ended(&crate::workload::Route::EksAuth, None);
        sleep(HOUR).await;
    };
    tokio::select! {
        () = answers.granted_by(crate::workload::Source::EksAuth) => {}
        () = granting => panic!("it is not noticed"),
    }
}
