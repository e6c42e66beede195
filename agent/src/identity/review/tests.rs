//! Reviews by a judge that each test plays, in simulated time.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;

use super::{Answer, Asked, Known, NoAnswer, Patience, Question, ReviewedUser, Reviews};
use crate::clock::{BootTime, Clock, Simulated};
use crate::lifecycle::tasks::spawn_detached;
use crate::rng::Rng;
use crate::telemetry::logging::tests::Logged;
use crate::telemetry::metrics::Metrics;
use crate::workload::{BearerToken, PeerKey};

const AUDIENCE: &str = "pods.eks.amazonaws.com";

pub(in crate::identity::review) fn user() -> ReviewedUser {
    ReviewedUser {
        name: "system:serviceaccount:ns:sa".into(),
        uid: "sa-uid".into(),
        audiences: vec![AUDIENCE.into()],
        pod: Some("p".into()),
        pod_uid: Some("p-uid".into()),
        node: Some("node-1".into()),
    }
}

/// About the token with that number, of the peer with that number.
pub(in crate::identity::review) fn question(token: u32, peer: u8, shares: usize) -> Question {
    let token = BearerToken::from_header(format!("a.{token}.c").as_bytes()).unwrap();
    let peer = PeerKey::new(Ipv4Addr::new(10, 0, 0, peer).into(), shares);
    Question { token, audience: AUDIENCE.into(), peer }
}

type Answers = Arc<Mutex<Box<dyn FnMut() -> Result<Answer, NoAnswer> + Send>>>;

/// A judge that takes 100 ms, and when it was asked, in milliseconds.
struct Judge {
    reviews: Reviews,
    metrics: Metrics,
    clock: Clock,
    answers: Answers,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Judge {
    fn new(answers: impl FnMut() -> Result<Answer, NoAnswer> + Send + 'static) -> Self {
        let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH));
        let answers: Answers = Arc::new(Mutex::new(Box::new(answers)));
        let asked: Arc<Mutex<Vec<u64>>> = Arc::default();
        let metrics = Metrics::new();
        let reviews = Reviews::new(Arc::clone(&metrics.token_reviews), Rng::seeded(7));
        let (noted, of_clock, given) = (Arc::clone(&asked), clock.clone(), Arc::clone(&answers));
        let ask = move |_token, audience: Arc<str>| {
            assert_eq!(&*audience, AUDIENCE);
            noted.lock().push(ms(of_clock.now().boot));
            let given = Arc::clone(&given);
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                (given.lock())()
            }
        };
        spawn_detached("test-judge", reviews.clone().keep(clock.clone(), ask));
        Self { reviews, metrics, clock, answers, asked }
    }

    fn now(&self) -> BootTime {
        self.clock.now().boot
    }

    fn says(&self, answers: impl FnMut() -> Result<Answer, NoAnswer> + Send + 'static) {
        *self.answers.lock() = Box::new(answers);
    }

    async fn ask(&self, question: &Question, patience: Patience) -> Asked {
        let asked = self.reviews.ask(question, patience, self.now());
        tokio::time::timeout(Duration::from_secs(60), asked).await.expect("nobody waits without end")
    }

    fn is_genuine(&self, question: &Question) -> bool {
        match self.reviews.known(question.token.digest(), self.now()) {
            Known::Authenticated { .. } => true,
            Known::Denied { .. } | Known::Nothing { .. } => false,
        }
    }

    fn counts(&self, outcome: &str) -> u64 {
        let page = self.metrics.counts();
        let name = format!("pod_identity_agent_token_reviews_total{{outcome=\"{outcome}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }
}

fn ms(at: BootTime) -> u64 {
    at.as_nanos() / 1_000_000
}

/// For how many milliseconds from then on the judge is left alone.
fn pause_of(asked: Asked, now: u64) -> u64 {
    let Asked::NotNow(Some(until)) = asked else { panic!("{asked:?}") };
    ms(until) - now
}

fn genuine() -> Result<Answer, NoAnswer> {
    Ok(Answer::Authenticated(user()))
}

fn away() -> Result<Answer, NoAnswer> {
    Err(NoAnswer::Failed("connection refused".into()))
}

#[tokio::test(start_paused = true)]
async fn fifty_who_ask_about_one_token_are_one_review() {
    let judge = Judge::new(genuine);
    let question = question(1, 1, 1);
    let asked = (0..50).map(|_| judge.ask(&question, Patience::Little));
    let asked = futures_util::future::join_all(asked).await;
    assert!(asked.iter().all(|asked| *asked == Asked::Answered));
    assert_eq!((judge.asked.lock().len(), judge.is_genuine(&question)), (1, true));
    assert_eq!((judge.counts("authenticated"), judge.counts("skipped")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_junk_makes_five_reviews_a_second_and_every_other_peer_has_its_turn() {
    let judge = Judge::new(|| Ok(Answer::Denied("junk".to_owned())));
    let began = tokio::time::Instant::now();
    // 1,000 tokens a second, of 50 peers.
    let flood = async {
        for token in 0..10_000 {
            let peer = 10 + u8::try_from(token % 50).unwrap();
            judge.reviews.ask_in_background(&question(token, peer, 1), judge.now());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let one = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        judge.ask(&question(20_000, 1, 1), Patience::Little).await
    };
    let (_, asked) = tokio::join!(flood, one);
    assert_eq!(asked, Asked::Answered);
    let asked = judge.asked.lock().clone();
    for six in asked.windows(6) {
        assert!(six[5] - six[0] >= 1_000, "{six:?}");
    }
    let most = 5.0 * began.elapsed().as_secs_f64() + 5.0;
    let share = f64::from(u32::try_from(asked.len()).unwrap()) / most;
    assert!((0.9..=1.0).contains(&share), "{} of {most}", asked.len());
    assert!(judge.counts("skipped") > 9_000, "{}", judge.counts("skipped"));
}

#[tokio::test(start_paused = true)]
async fn one_peer_that_floods_leaves_the_others_their_reviews() {
    let judge = Judge::new(|| Ok(Answer::Denied("junk".to_owned())));
    for host in [1, 8] {
        let flood = async {
            for token in 0..4_000 {
                judge
                    .reviews
                    .ask_in_background(&question(host * 10_000 + token, 9, host as usize), judge.now());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let others = async {
            for other in 0..3_u8 {
                tokio::time::sleep(Duration::from_millis(1_100)).await;
                let began = tokio::time::Instant::now();
                let question = question(host * 20_000 + u32::from(other), 10 + other, 1);
                assert_eq!(judge.ask(&question, Patience::Great).await, Asked::Answered);
                assert!(began.elapsed() <= Duration::from_millis(1_100), "{host}: {:?}", began.elapsed());
            }
        };
        tokio::join!(flood, others);
    }
}

#[tokio::test(start_paused = true)]
async fn a_judge_that_gives_no_answer_is_left_alone_and_then_tried_one_at_a_time() {
    let judge = Judge::new(away);
    let first = question(0, 1, 1);
    let resting = judge.ask(&first, Patience::Little).await;
    let pause = pause_of(resting, 100);
    assert!((500..=1_000).contains(&pause), "{pause}");
    assert_eq!(judge.ask(&question(1, 2, 1), Patience::Little).await, resting, "it is not asked");
    assert_eq!((judge.asked.lock().len(), judge.counts("failed"), judge.counts("skipped")), (1, 1, 1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for token in 2..10 {
        judge.reviews.ask_in_background(&question(token, 10 + token as u8, 1), judge.now());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(judge.asked.lock().len(), 2, "one finds out that it is still away");
    // One without another judge waits for it.
    let last = question(20, 20, 1);
    let back = async {
        // The second pause takes a second at least.
        tokio::time::sleep(Duration::from_millis(400)).await;
        judge.says(genuine);
    };
    let (asked, ()) = tokio::join!(judge.ask(&last, Patience::Great), back);
    assert_eq!((asked, judge.is_genuine(&last)), (Asked::Answered, true));
}

#[tokio::test(start_paused = true)]
async fn without_the_right_nobody_waits_and_it_is_asked_again_within_five_seconds_and_then_less_often() {
    let judge = Judge::new(|| Err(NoAnswer::Forbidden("cannot create resource tokenreviews".to_owned())));
    for patience in [Patience::Little, Patience::Great] {
        let pause = pause_of(judge.ask(&question(1, 1, 1), patience).await, 100);
        assert!((2_500..=5_000).contains(&pause), "{pause}");
    }
    tokio::time::sleep(Duration::from_millis(2_400)).await;
    assert!(matches!(judge.ask(&question(1, 1, 1), Patience::Great).await, Asked::NotNow(_)));
    assert_eq!(judge.asked.lock().len(), 1);
    for _ in 0..3_600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        judge.reviews.ask_in_background(&question(1, 1, 1), judge.now());
    }
    let asked = judge.asked.lock().clone();
    assert!((15..=30).contains(&asked.len()), "{asked:?}");
    let longest = asked.windows(2).map(|two| two[1] - two[0]).max();
    assert!(longest.is_some_and(|longest| (150_000..=302_000).contains(&longest)), "{asked:?}");
    judge.says(genuine);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(judge.ask(&question(1, 1, 1), Patience::Little).await, Asked::Answered);
}

#[tokio::test(start_paused = true)]
async fn denials_are_logged_once_a_minute() {
    let logged = Logged::from_now_on();
    let judge = Judge::new(|| Ok(Answer::Denied("junk".to_owned())));
    for token in 0..120 {
        let peer = 1 + u8::try_from(token).unwrap();
        assert_eq!(judge.ask(&question(token, peer, 1), Patience::Little).await, Asked::Answered);
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(judge.counts("denied"), 120);
    assert_eq!(logged.lines_of("the API server does not authenticate a token"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_accepted_for_another_audience_or_for_none_is_denied() {
    for audiences in [vec![], vec!["https://kubernetes.default.svc".into()]] {
        let judge = Judge::new(move || {
            Ok(Answer::Authenticated(ReviewedUser { audiences: audiences.clone(), ..user() }))
        });
        let question = question(1, 1, 1);
        assert_eq!(judge.ask(&question, Patience::Little).await, Asked::Answered);
        let known = judge.reviews.known(question.token.digest(), judge.now());
        assert!(matches!(known, Known::Denied { .. }), "{known:?}");
    }
}
