//! The task with an API server that each test plays, in simulated time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{FoundAccount, NotRead};
use crate::association::testing::roles;
use crate::association::{Associations, Choice, NoRoute};
use crate::clock::{Clock, Simulated};
use crate::lifecycle::tasks::spawn_detached;
use crate::rng::Rng;
use crate::workload::{
    Audience, Caller, ClaimedPod, Pod, Route, RouteStatus, ServiceAccount, ServiceAccountName,
};

const STS: &str = "sts.amazonaws.com";
const ROLE: &str = "eks.amazonaws.com/role-arn";

type Read = Result<Option<FoundAccount>, NotRead>;
type Answers = Arc<Mutex<Box<dyn FnMut(&str) -> Read + Send>>>;

fn found(role: &str) -> Read {
    let arn = format!("arn:aws:iam::111122223333:role/{role}");
    let annotations = HashMap::from([(ROLE.into(), arn.into())]);
    Ok(Some(FoundAccount { uid: "sa-uid".into(), annotations }))
}

fn without_role() -> Read {
    Ok(Some(FoundAccount { uid: "sa-uid".into(), annotations: HashMap::new() }))
}

fn away() -> Read {
    Err(NotRead::Failed("connection refused".into()))
}

fn account(name: &str) -> ServiceAccount {
    ServiceAccount { namespace: "ns".into(), name: name.into(), uid: "sa-uid".into() }
}

fn caller(account_name: &str, pod_uid: &str) -> Caller {
    let service_account = account(account_name);
    Caller::Verified(Arc::new(Pod { service_account, name: pod_uid.into(), uid: pod_uid.into(), node: None }))
}

fn with(annotations: bool) -> Associations {
    Associations::new(Some(roles(None, None, annotations)), Rng::seeded(7))
}

/// An API server that takes 100 ms, the accounts that it was asked for, and what the task said last.
struct Cluster {
    associations: Associations,
    clock: Clock,
    answers: Answers,
    reads: Arc<Mutex<Vec<String>>>,
    told: Arc<Mutex<Option<Result<(), String>>>>,
}

impl Cluster {
    fn new(answers: impl FnMut(&str) -> Read + Send + 'static) -> Self {
        let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH));
        let associations = with(true);
        let answers: Answers = Arc::new(Mutex::new(Box::new(answers)));
        let (reads, told) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<_>>::default());
        let (noted, given, last_told) = (Arc::clone(&reads), Arc::clone(&answers), Arc::clone(&told));
        let read = move |account: ServiceAccountName| {
            noted.lock().push(account.name.to_string());
            let given = Arc::clone(&given);
            async move {
                sleep(Duration::from_millis(100)).await;
                (given.lock())(&account.name)
            }
        };
        let tell = move |said| *last_told.lock() = Some(said);
        spawn_detached("test-annotations", associations.clone().keep_annotations(clock.clone(), read, tell));
        Self { associations, clock, answers, reads, told }
    }

    fn says(&self, answers: impl FnMut(&str) -> Read + Send + 'static) {
        *self.answers.lock() = Box::new(answers);
    }

    /// What a pod gets that waits 4.5 s, in a word.
    async fn ask(&self, account_name: &str, pod_uid: &str) -> String {
        let (caller, audience) = (caller(account_name, pod_uid), Audience::WebIdentity(STS.into()));
        let answer = match self.associations.choose(&caller, &audience, self.clock.now()) {
            Choice::Route(route) => Ok(route),
            Choice::Refused(why) | Choice::Former(_, why) => Err(why),
            Choice::Ask(question) => {
                let asked = self.associations.ask(question, self.clock.now());
                match timeout(Duration::from_millis(4_500), asked).await {
                    Ok(answer) => answer,
                    Err(_) => return "late".to_owned(),
                }
            }
        };
        match answer {
            Ok(Route::WebIdentity(route)) => route.role.as_str().rsplit('/').next().unwrap().to_owned(),
            Ok(Route::EksAuth) => "eks-auth".to_owned(),
            Err(why) => format!("{why:?}"),
        }
    }

    fn reads(&self) -> usize {
        self.reads.lock().len()
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_who_ask_at_once_are_one_read_and_later_ones_none() {
    let cluster = Cluster::new(|_| found("r"));
    let asked = futures_util::future::join_all((0..50).map(|_| cluster.ask("sa", "a"))).await;
    assert!(asked.iter().all(|role| role == "r"), "{asked:?}");
    assert_eq!(cluster.reads(), 1);
    sleep(Duration::from_secs(59)).await;
    assert_eq!((cluster.ask("sa", "a").await, cluster.reads()), ("r".to_owned(), 1));
    // Now it is old: the answer does not wait for the next one.
    sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    assert_eq!((cluster.ask("sa", "a").await, began.elapsed()), ("r".to_owned(), Duration::ZERO));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_restarted_after_its_account_was_annotated_gets_the_role_at_once() {
    let cluster = Cluster::new(|_| without_role());
    assert_eq!(cluster.ask("sa", "a").await, "NoRole");
    cluster.says(|_| found("r"));
    let began = Instant::now();
    assert_eq!(cluster.ask("sa", "b").await, "r");
    assert!(began.elapsed() <= Duration::from_millis(1_100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_is_gone_is_noticed_though_nobody_asks() {
    let cluster = Cluster::new(|_| found("r"));
    assert_eq!(cluster.ask("sa", "a").await, "r");
    cluster.says(|_| without_role());
    let began = Instant::now();
    let mut withdrawals = cluster.associations.withdrawals();
    let withdrawn = timeout(Duration::from_secs(3_600), withdrawals.next()).await.unwrap();
    assert_eq!(withdrawn.service_account, account("sa"));
    assert!(withdrawn.role.as_str().ends_with("/r"));
    let after = began.elapsed().as_secs();
    assert!((8 * 60 + 10..=12 * 60 + 11).contains(&after), "{after} s");
    assert_eq!(cluster.reads(), 3);
    let next = timeout(Duration::from_secs(3_600), withdrawals.next()).await;
    assert!(next.is_err(), "once: {next:?}");
    assert_eq!(cluster.ask("sa", "a").await, "NoRole");
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_is_gone_is_noticed_at_the_next_renewal_of_a_pod_that_never_asks_again() {
    let cluster = Cluster::new(|_| found("r"));
    let (caller, audience) = (caller("sa", "a"), Audience::WebIdentity(STS.into()));
    assert_eq!(cluster.ask("sa", "a").await, "r");
    let Choice::Route(route) = cluster.associations.choose(&caller, &audience, cluster.clock.now()) else {
        panic!()
    };
    for _ in 0..48 {
        sleep(Duration::from_secs(3_600)).await;
        assert_eq!(cluster.associations.status(&caller, &route), RouteStatus::Given);
    }
    sleep(Duration::from_secs(1)).await;
    cluster.says(|_| without_role());
    sleep(Duration::from_secs(61)).await;
    assert_eq!(cluster.associations.status(&caller, &route), RouteStatus::Given, "not known yet");
    sleep(Duration::from_secs(12)).await;
    assert_eq!(cluster.associations.status(&caller, &route), RouteStatus::Ended);
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_is_gone_once_is_not_withdrawn() {
    let mut reads = 0;
    let cluster = Cluster::new(move |_| {
        reads += 1;
        if reads == 2 { without_role() } else { found("r") }
    });
    assert_eq!(cluster.ask("sa", "a").await, "r");
    let withdrawn = timeout(Duration::from_secs(7_200), cluster.associations.withdrawals().next()).await;
    assert!(withdrawn.is_err(), "{withdrawn:?}");
    assert!(cluster.reads() >= 10 && cluster.ask("sa", "a").await == "r");
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_away_known_roles_count_and_unknown_ones_are_waited_for() {
    let cluster = Cluster::new(|_| found("r"));
    assert_eq!(cluster.ask("sa", "a").await, "r");
    cluster.says(|_| away());
    sleep(Duration::from_secs(120)).await;
    let began = Instant::now();
    assert_eq!(cluster.ask("sa", "a").await, "r");
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(cluster.ask("sa", "b").await, "r");
    let waited = began.elapsed().as_millis();
    assert!((1_000..=1_500).contains(&waited), "{waited} ms");
    assert_eq!(cluster.ask("other", "c").await, "late");
    let said = cluster.told.lock().clone();
    assert!(matches!(&said, Some(Err(said)) if said.contains("connection refused")), "{said:?}");
    cluster.says(|_| found("s"));
    sleep(Duration::from_secs(31)).await;
    assert_eq!(cluster.ask("other", "c").await, "s");
    assert_eq!(*cluster.told.lock(), Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_role_is_given_as_soon_as_the_api_server_answers_again() {
    let cluster = Cluster::new(|_| away());
    let (role, ()) = tokio::join!(cluster.ask("sa", "a"), async {
        sleep(Duration::from_millis(1_500)).await;
        cluster.says(|_| found("r"));
    });
    assert_eq!(role, "r");
}

#[tokio::test(start_paused = true)]
async fn without_the_right_it_is_said_and_tried_again_by_itself() {
    let cluster = Cluster::new(|_| Err(NotRead::Forbidden("cannot get resource".into())));
    assert_eq!(cluster.ask("sa", "a").await, "late", "it is held: transient trouble is no answer");
    let said = cluster.told.lock().clone();
    let Some(Err(said)) = said else { panic!("{said:?}") };
    assert!(
        said.contains("may not get serviceaccounts of namespace ns") && said.contains("cannot get"),
        "{said}"
    );
    // A pod that asks again and again has it tried every five to ten seconds, however long that lasts.
    for _ in 0..120 {
        sleep(Duration::from_millis(500)).await;
        assert_eq!(cluster.ask("sa", "a").await, "late");
    }
    let reads = cluster.reads();
    assert!((60..=120).contains(&reads), "{reads}");
    cluster.says(|_| found("r"));
    let began = Instant::now();
    while cluster.ask("sa", "a").await == "late" {}
    assert!(began.elapsed() <= Duration::from_millis(10_200), "{:?}", began.elapsed());
    assert_eq!(*cluster.told.lock(), Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn an_account_with_another_uid_is_as_good_as_not_there() {
    let cluster = Cluster::new(|_| {
        found("r").map(|found| found.map(|found| FoundAccount { uid: "newer-uid".into(), ..found }))
    });
    assert_eq!(cluster.ask("sa", "a").await, "NoRole");
    cluster.says(|_| Ok(None));
    assert_eq!(cluster.ask("sa", "b").await, "NoRole");
    // Made again under the same name: known pods of the former lose its role, by two reads.
    cluster.says(|_| found("r"));
    assert_eq!(cluster.ask("sa", "c").await, "r");
    cluster.says(|_| Ok(None));
    let withdrawn =
        timeout(Duration::from_secs(740), cluster.associations.withdrawals().next()).await.unwrap();
    assert_eq!(withdrawn.service_account, account("sa"));
}

#[tokio::test(start_paused = true)]
async fn the_audience_chooses_the_source_and_nothing_falls_back() {
    let cluster = Cluster::new(|_| found("r"));
    let choose = |associations: &Associations, caller: &Caller, audience: &Audience| match associations
        .choose(caller, audience, cluster.clock.now())
    {
        Choice::Route(Route::EksAuth) => "eks-auth".to_owned(),
        Choice::Route(Route::WebIdentity(_)) => "web-identity".to_owned(),
        Choice::Refused(why) | Choice::Former(_, why) => format!("{why:?}"),
        Choice::Ask(_) => "ask".to_owned(),
    };
    let [eks, sts] = [Audience::PodIdentity, Audience::WebIdentity(STS.into())];
    let claimed = Caller::Claimed(Arc::new(ClaimedPod::new("ns", "sa", Some("p"), Some("uid"))));
    let verified = caller("sa", "a");
    let both = &cluster.associations;
    let none = &Associations::new(None, Rng::seeded(1));
    for (associations, caller, audience, chosen) in [
        (both, &verified, &eks, "eks-auth"),
        (both, &claimed, &eks, "eks-auth"),
        (both, &Caller::Unknown, &eks, "eks-auth"),
        (both, &verified, &sts, "ask"),
        (both, &claimed, &sts, "Unverified"),
        (both, &Caller::Unknown, &sts, "Unverified"),
        (none, &verified, &eks, "eks-auth"),
        (none, &verified, &sts, "NoRole"),
    ] {
        assert_eq!(choose(associations, caller, audience), chosen, "{caller:?} {audience:?}");
    }
    assert_eq!(choose(&with(false), &verified, &sts), format!("{:?}", NoRoute::NoRole));
    assert_eq!(cluster.reads(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_who_hangs_up_leaves_the_read_to_the_others() {
    let cluster = Cluster::new(|_| found("r"));
    let (given_up, role) =
        tokio::join!(timeout(Duration::from_millis(50), cluster.ask("sa", "a")), cluster.ask("sa", "a"),);
    assert!(given_up.is_err() && role == "r");
    assert_eq!(cluster.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_and_fifty_accounts_are_read_at_two_a_second_and_a_hit_waits_for_none() {
    let cluster = Cluster::new(|_| found("r"));
    assert_eq!(cluster.ask("sa", "a").await, "r");
    let began = Instant::now();
    let names: Vec<String> = (0..250).map(|number| format!("sa-{number}")).collect();
    let all = futures_util::future::join_all(names.iter().map(|name| async {
        // A client that asks until it is answered, with the pauses of an SDK.
        loop {
            let role = cluster.ask(name, name).await;
            if role != "late" {
                return role;
            }
            sleep(Duration::from_secs(5)).await;
        }
    }));
    let hits = async {
        for _ in 0..100 {
            let asked = Instant::now();
            assert_eq!((cluster.ask("sa", "a").await, asked.elapsed()), ("r".to_owned(), Duration::ZERO));
            sleep(Duration::from_secs(1)).await;
        }
    };
    let (all, ()) = tokio::join!(all, hits);
    assert!(all.iter().all(|role| role == "r"));
    let took = began.elapsed().as_secs();
    assert!((124..=136).contains(&took), "{took} s");
    assert!((251..=253).contains(&cluster.reads()), "{}", cluster.reads());
}

#[tokio::test(start_paused = true)]
async fn twenty_accounts_without_a_role_do_not_starve_a_pod_that_has_one() {
    let cluster = Cluster::new(|name| if name == "new" { found("r") } else { without_role() });
    let names: Vec<String> = (0..20).map(|number| format!("sa-{number}")).collect();
    let greedy = futures_util::future::join_all(names.iter().map(|name| async {
        loop {
            cluster.ask(name, name).await;
            sleep(Duration::from_millis(100)).await;
        }
    }));
    let new = async {
        sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        assert_eq!(cluster.ask("new", "a").await, "r");
        assert!(began.elapsed() <= Duration::from_millis(1_100), "{:?}", began.elapsed());
        // And so for an account that was without one when its pod came.
        cluster.says(|_| found("r"));
        let began = Instant::now();
        assert_eq!(cluster.ask("sa-0", "restarted").await, "r");
        assert!(began.elapsed() <= Duration::from_millis(2_100), "{:?}", began.elapsed());
    };
    tokio::select! {
        _ = greedy => {}
        () = new => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_accounts_of_pods_that_are_gone_are_read_no_more() {
    let cluster = Cluster::new(|_| found("r"));
    for number in 0..100 {
        let (name, pod) = (format!("job-{number}"), format!("pod-{number}"));
        assert_eq!(cluster.ask(&name, &pod).await, "r");
        cluster.associations.forget_pod(&pod);
    }
    assert_eq!(cluster.ask("sa", "a").await, "r");
    assert_eq!(cluster.ask("sa", "b").await, "r");
    cluster.associations.forget_pod("a");
    let reads = cluster.reads();
    sleep(Duration::from_secs(3_600)).await;
    let read = cluster.reads.lock().split_off(reads);
    assert!((5..=8).contains(&read.len()) && read.iter().all(|name| name == "sa"), "b is there: {read:?}");
    // One that is being read.
    let gone = async {
        sleep(Duration::from_millis(50)).await;
        cluster.associations.forget_pod("late");
    };
    let (_, ()) = tokio::join!(timeout(Duration::from_millis(60), cluster.ask("late", "late")), gone);
    cluster.associations.forget_pod("b");
    sleep(Duration::from_secs(1)).await;
    let reads = cluster.reads();
    sleep(Duration::from_secs(3 * 3_600)).await;
    assert_eq!(cluster.reads(), reads);
}
