//! Pods that ask and ask, and what became of every request.
//!
//! Owns: pace, which token is a pod's now, what counts as lost. Must not know: what goes wrong
//! meanwhile.
//!
//! A pod asks as boto3 does (`boto3`).
//!
//! **Lost** is a request none of whose attempts got credentials. **Hurt** is one attempt that got none, and
//! the tests allow that only while it could not be otherwise: see [`Report::assert_unhurt_but_in`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use tokio::task::JoinSet;

use super::boto3;
use super::http::Request;
use super::wired::Wired;

/// How often a load has new tokens, if it has: a kubelet takes hours for it.
const ROTATION: Duration = Duration::from_secs(2);
/// So many tokens, one after the other, are enough for every load; the last one stays.
const ROTATIONS: usize = 10;

/// Pods that are asking.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    pods: JoinSet<Vec<Asked>>,
    begun: Instant,
    per_second: u32,
}

/// One pod of a load.
pub(crate) struct Asker {
    /// Its name.
    pub(crate) name: String,
    /// Its tokens, one after the other; the last one stays.
    pub(crate) tokens: Vec<String>,
    /// The address it calls from, if not its namespace's own.
    pub(crate) from: Option<IpAddr>,
    pub(crate) to: SocketAddr,
}

/// What became of all requests of a load.
pub(crate) struct Report {
    asked: Vec<Asked>,
    begun: Instant,
}

/// One request, with all its attempts.
struct Asked {
    pod: String,
    attempts: Vec<Attempt>,
}

struct Attempt {
    begun: Instant,
    ended: Instant,
    /// The access key id, or what came instead.
    result: Result<String, String>,
}

/// A time in which attempts may be hurt, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

impl Asker {
    /// The only pod of its namespace, with one token.
    fn of(pod: &Wired, at: IpAddr) -> Self {
        let (name, tokens) = (pod.identity.spec.pod.clone(), vec![pod.identity.token.clone()]);
        Self { name, tokens, from: None, to: SocketAddr::new(at, 80) }
    }

    /// The same, with tokens that rotate.
    fn rotating(pod: &Wired, at: IpAddr) -> Self {
        let others = (1..ROTATIONS).map(|_| pod.identity.another_token().expect("a token"));
        let tokens = std::iter::once(pod.identity.token.clone()).chain(others).collect();
        Self { tokens, ..Self::of(pod, at) }
    }

    /// What it would send now.
    fn request(&self, begun: Instant) -> Request {
        let rotations = begun.elapsed().as_millis() / ROTATION.as_millis();
        let now = usize::try_from(rotations).expect("a short test").min(self.tokens.len() - 1);
        let request = Request::credentials(&self.tokens[now]);
        self.from.map_or(request.clone(), |from| request.from(from))
    }

    /// Asks in its turn, until it is told to stop.
    async fn keep_asking(self, first: Duration, every: Duration, stop: Arc<AtomicBool>) -> Vec<Asked> {
        let mut requests = JoinSet::new();
        let begun = Instant::now();
        let mut ticks = tokio::time::interval_at(begun + first, every);
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            requests.spawn(ask(self.name.clone(), self.request(begun), self.to));
        }
        requests.join_all().await
    }
}

impl Load {
    /// Every pod asks so many times a second, each time on a new connection.
    pub(crate) fn start(pods: &[Wired], at: IpAddr, per_pod: u32) -> Self {
        Self::of(pods, per_pod, |pod| Asker::of(pod, at))
    }

    /// The same, with tokens that rotate every two seconds. Only where they are verified does a pod keep its
    /// credentials then.
    pub(crate) fn rotating(pods: &[Wired], at: IpAddr, per_pod: u32) -> Self {
        Self::of(pods, per_pod, |pod| Asker::rotating(pod, at))
    }

    fn of(pods: &[Wired], per_pod: u32, asker: impl Fn(&Wired) -> Asker) -> Self {
        let mut load = Self::none(per_pod, pods.len());
        for pod in pods {
            let (asker, stop) = (asker(pod), Arc::clone(&load.stop));
            let every = Duration::from_secs(1) / per_pod;
            load.pods.spawn(
                pod.namespace.within(async move || asker.keep_asking(Duration::ZERO, every, stop).await),
            );
        }
        load
    }

    /// Many pods that one namespace stands for; each asks once a second, one after the other.
    pub(crate) fn of_many(crowd: &Wired, askers: Vec<Asker>) -> Self {
        let mut load = Self::none(1, askers.len());
        let stop = Arc::clone(&load.stop);
        let every = Duration::from_secs(1);
        load.pods.spawn(crowd.namespace.within(async move || {
            let step = every / u32::try_from(askers.len()).expect("not that many");
            let mut asking = JoinSet::new();
            for (n, asker) in (0..).zip(askers) {
                asking.spawn(asker.keep_asking(step * n, every, Arc::clone(&stop)));
            }
            asking.join_all().await.into_iter().flatten().collect()
        }));
        load
    }

    fn none(per_pod: u32, pods: usize) -> Self {
        let per_second = per_pod * u32::try_from(pods).expect("not that many");
        let stop = Arc::new(AtomicBool::new(false));
        Self { stop, pods: JoinSet::new(), begun: Instant::now(), per_second }
    }

    /// Stops asking, and waits for what is under way.
    pub(crate) async fn end(self) -> Report {
        let lasted = self.begun.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        let asked: Vec<_> = self.pods.join_all().await.into_iter().flatten().collect();
        let planned = f64::from(self.per_second) * lasted.as_secs_f64();
        let did = u32::try_from(asked.len()).expect("not that many");
        assert!(f64::from(did) > 0.9 * planned, "only {did} requests in {lasted:?}: the load was none");
        Report { asked, begun: self.begun }
    }
}

async fn ask(pod: String, request: Request, to: SocketAddr) -> Asked {
    let attempts = boto3::attempts(&request, to).await.into_iter().map(Attempt::of).collect();
    Asked { pod, attempts }
}

impl Attempt {
    fn of(made: boto3::Attempt) -> Self {
        let boto3::Attempt { begun, ended, .. } = made;
        let result = boto3::served(vec![made]).map(|answer| answer.access_key_id());
        Self { begun, ended, result: result.map_err(|failures| failures.concat()) }
    }
}

impl Window {
    /// From a moment on, for so long.
    pub(crate) fn of(from: Instant, lasting: Duration) -> Self {
        Self { from, to: from + lasting }
    }

    fn touches(&self, attempt: &Attempt) -> bool {
        attempt.begun <= self.to && attempt.ended >= self.from
    }
}

impl Report {
    /// How many requests there were.
    pub(crate) fn len(&self) -> usize {
        self.asked.len()
    }

    /// How many attempts failed, and when the last of them ended.
    pub(crate) fn hurt(&self) -> (usize, Option<Instant>) {
        let failed = self.attempts().filter(|attempt| attempt.result.is_err());
        let ended: Vec<_> = failed.map(|attempt| attempt.ended).collect();
        (ended.len(), ended.iter().max().copied())
    }

    /// How many attempts found nobody that listens.
    pub(crate) fn refused(&self) -> usize {
        let refused = |error: &String| error.contains("refused");
        self.attempts().filter(|attempt| attempt.result.as_ref().is_err_and(refused)).count()
    }

    /// How many attempts that began and ended in a time failed, though somebody listened.
    pub(crate) fn failed_attempts(&self, time: Window) -> usize {
        let within = |attempt: &&Attempt| time.from <= attempt.begun && attempt.ended <= time.to;
        let refused = |error: &String| error.contains("refused");
        let failed = |attempt: &&Attempt| attempt.result.as_ref().is_err_and(|error| !refused(error));
        self.attempts().filter(within).filter(failed).count()
    }

    fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.asked.iter().flat_map(|asked| &asked.attempts)
    }

    /// The longest time that one attempt took.
    pub(crate) fn slowest(&self) -> Duration {
        self.attempts().map(|attempt| attempt.ended - attempt.begun).max().unwrap_or_default()
    }

    /// No request failed for good, in a window or not: what an application with boto3 notices.
    pub(crate) fn assert_none_lost(&self) {
        let lost: Vec<_> =
            self.asked.iter().filter(|a| a.attempts.iter().all(|a| a.result.is_err())).collect();
        let told: Vec<_> = lost.iter().take(20).flat_map(|asked| self.tell(asked)).collect();
        assert!(lost.is_empty(), "{} of {} requests lost:\n{}", lost.len(), self.len(), told.join("\n"));
    }

    /// Of the requests begun in a time: how many there were, and how many of them failed for good.
    pub(crate) fn lost_of(&self, time: Window) -> (usize, usize) {
        let begun = |asked: &&Asked| {
            asked.attempts.first().is_some_and(|first| time.from <= first.begun && first.begun <= time.to)
        };
        let lost = |asked: &&Asked| asked.attempts.iter().all(|attempt| attempt.result.is_err());
        let of_time: Vec<_> = self.asked.iter().filter(begun).collect();
        (of_time.len(), of_time.into_iter().filter(lost).count())
    }

    /// No single attempt failed but those that touch one of these windows.
    pub(crate) fn assert_unhurt_but_in(&self, windows: &[Window]) {
        let mut hurt = Vec::new();
        for asked in &self.asked {
            let excused = |attempt: &Attempt| windows.iter().any(|window| window.touches(attempt));
            if asked.attempts.iter().any(|attempt| attempt.result.is_err() && !excused(attempt)) {
                hurt.extend(self.tell(asked));
            }
        }
        let windows: Vec<_> = windows.iter().map(|w| (w.from - self.begun, w.to - self.begun)).collect();
        let told = hurt.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert!(hurt.is_empty(), "hurt outside of {windows:?}, of {} requests:\n{told}", self.len());
    }

    /// Every pod got one key and no other, and not that of another pod.
    pub(crate) fn assert_one_key_per_pod(&self) {
        let mut keys = std::collections::BTreeMap::<&str, &str>::new();
        for asked in &self.asked {
            for key in asked.attempts.iter().filter_map(|attempt| attempt.result.as_ref().ok()) {
                assert_eq!(keys.entry(&asked.pod).or_insert(key), key, "{} got two keys", asked.pod);
            }
        }
        let distinct: std::collections::BTreeSet<_> = keys.values().collect();
        assert_eq!(distinct.len(), keys.len(), "two pods share a key");
    }

    fn tell(&self, asked: &Asked) -> Vec<String> {
        let attempts = asked.attempts.iter().filter(|attempt| attempt.result.is_err());
        attempts
            .map(|attempt| {
                let (from, to) = (attempt.begun - self.begun, attempt.ended - self.begun);
                format!("{} {from:?}..{to:?}: {:?}", asked.pod, attempt.result)
            })
            .collect()
    }
}
