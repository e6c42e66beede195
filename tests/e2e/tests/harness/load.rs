//! Pods that ask and ask, and what became of every request.
//!
//! Owns: pace, patience, what counts as lost. Must not know: what goes wrong meanwhile.
//!
//! A pod asks as boto3 does: up to three attempts, 1 s between them, and each attempt has 2 s (botocore's
//! `ContainerMetadataFetcher`: TIMEOUT_SECONDS, RETRY_ATTEMPTS, SLEEP_TIME). Ours is stricter in one thing:
//! the 2 s are for the whole attempt, not for connecting and again for each read.
//!
//! **Lost** is a request none of whose attempts got credentials. **Hurt** is one attempt that got none, and
//! the tests allow that only while it could not be otherwise: see [`Report::assert_unhurt_but_in`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use tokio::task::JoinSet;

use super::http::{Answer, Request};
use super::wired::Wired;

/// botocore's TIMEOUT_SECONDS.
const PATIENCE: Duration = Duration::from_secs(2);
/// botocore's RETRY_ATTEMPTS.
const ATTEMPTS: usize = 3;
/// botocore's SLEEP_TIME.
const PAUSE: Duration = Duration::from_secs(1);

/// One attempt, given up as soon as boto3 would.
pub(crate) async fn attempt(request: &Request, to: SocketAddr) -> std::io::Result<Answer> {
    match tokio::time::timeout(PATIENCE, request.send(to)).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 2 s")),
    }
}

/// Asks with a token until boto3 would give up; what came instead, if nothing good did.
pub(crate) async fn as_boto3(token: &str, to: SocketAddr) -> Result<Answer, Vec<String>> {
    let request = Request::credentials(token);
    let mut failures = Vec::new();
    loop {
        match attempt(&request, to).await {
            Ok(answer) if answer.status == 200 => return Ok(answer),
            Ok(answer) => failures.push(format!("{} {}", answer.status, answer.body)),
            Err(error) => failures.push(error.to_string()),
        }
        if failures.len() == ATTEMPTS {
            return Err(failures);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Pods that are asking.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    pods: JoinSet<Vec<Asked>>,
    begun: Instant,
    per_second: u32,
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

impl Load {
    /// Every pod asks so many times a second, each time on a new connection.
    pub(crate) fn start(pods: &[Wired], at: IpAddr, per_pod: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut asking = JoinSet::new();
        for pod in pods {
            let request = Request::credentials(&pod.identity.token);
            let (name, stop) = (pod.identity.spec.pod.clone(), Arc::clone(&stop));
            asking.spawn(pod.namespace.within(async move || {
                let mut requests = JoinSet::new();
                let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_pod);
                while !stop.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    requests.spawn(ask(name.clone(), request.clone(), SocketAddr::new(at, 80)));
                }
                requests.join_all().await
            }));
        }
        let per_second = per_pod * u32::try_from(pods.len()).expect("few pods");
        Self { stop, pods: asking, begun: Instant::now(), per_second }
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
    let mut attempts = Vec::new();
    loop {
        let begun = Instant::now();
        let result = match attempt(&request, to).await {
            Ok(answer) if answer.status == 200 => Ok(answer.access_key_id()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
            Err(error) => Err(error.to_string()),
        };
        let done = result.is_ok();
        attempts.push(Attempt { begun, ended: Instant::now(), result });
        if done || attempts.len() == ATTEMPTS {
            return Asked { pod, attempts };
        }
        tokio::time::sleep(PAUSE).await;
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

    /// No request failed for good, in a window or not: what an application with boto3 notices.
    pub(crate) fn assert_none_lost(&self) {
        let lost: Vec<_> =
            self.asked.iter().filter(|a| a.attempts.iter().all(|a| a.result.is_err())).collect();
        let told: Vec<_> = lost.iter().take(20).flat_map(|asked| self.tell(asked)).collect();
        assert!(lost.is_empty(), "{} of {} requests lost:\n{}", lost.len(), self.len(), told.join("\n"));
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
