//! The pods of this node, as the API server reports them: a list, then each change.
//!
//! Owns: when the list is made anew, and for how long silence is no loss. Must not know: what is concluded
//! from a report (`crate::pods`).
//!
//! kube's own watcher is not used: it does not say when it has lost the server or gone on, which is what
//! decides whether a pod that nobody has reported may be there.

mod containers;
mod doubts;
mod object;
#[cfg(test)]
mod tests;

use std::time::Duration;

use futures_util::StreamExt;
use http::StatusCode;
use kube::api::{WatchEvent, WatchParams};
use tokio::time::{Instant, timeout_at};

use self::doubts::Doubts;
use self::object::{List, Object};
use super::api::{Api, Events};
use super::error::ApiError;
use super::said::Said;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::lifecycle::readiness::Condition;
use crate::pods::{DoubtfulList, Pods, Questions};
use crate::rng::Rng;
use crate::telemetry::error_chain::ErrorChain;

const PATH: &str = "/api/v1/pods";
/// The annotation of the event that ends a streaming list (KEP 3157).
const END_OF_LIST: &str = "k8s.io/initial-events-end";
/// The API server sends a bookmark about once a minute: after so long without one the connection is dead.
const LONGEST_SILENCE: Duration = Duration::from_secs(100);
/// The API server ends each watch in time: so long after that the connection is dead, bookmarks or not.
const LATE: Duration = Duration::from_secs(10);
/// Up to half of it is taken off by chance. So long after the API server's return a deletion may go
/// unnoticed; the kubelet of each node tries every 7 s (its lease).
const BETWEEN_FAILURES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
/// A watch that ends sooner is none, though it ended in good order: something on the way closes each at once,
/// and begun again without a pause it would be asked for as fast as the network carries it (client-go's
/// reflector counts it as a failure too).
const SHORTEST: Duration = Duration::from_secs(1);
/// A watch that lasted so long has worked: the next failure is the first.
const WORKED: Duration = Duration::from_secs(10);
/// A list in pages: more pods than a node may have.
const PAGE: u32 = 1_000;
const MOST_BYTES_OF_A_LIST: usize = 64 * 1024 * 1024;

/// The watch.
pub struct PodWatch {
    api: Api,
    node: Box<str>,
    /// The API server ends a watch after it, less up to a fifth, so that nodes do not begin theirs together.
    timeout: Duration,
    pods: Pods,
    doubts: Doubts,
    clock: Clock,
    rng: Rng,
    /// How far it has come; `None`: a list is needed.
    version: Option<String>,
    is_listing: bool,
    /// Servers before Kubernetes 1.34 may have no streaming lists.
    has_streaming_lists: bool,
}

/// Why the watch goes on no more.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the API server has said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the API server has forgotten how far the watch had come")]
    Expired,
    #[error("the API server has ended the watch: {0}")]
    Ended(Said),
    #[error("the API server, or something before it, ends each watch at once")]
    AtOnce,
    #[error("the API server has ended the watch within a list")]
    HalfAList,
    #[error(
        "the API server's list of this node's pods lacks {} of {} known ones, so it is not believed",
        .0.missing, .0.known
    )]
    Doubtful(DoubtfulList),
}

impl PodWatch {
    /// Of the pods of this node, begun anew each `timeout`. Nothing is asked yet.
    pub fn new(
        api: Api,
        node: &str,
        timeout: Duration,
        pods: Pods,
        questions: Questions,
        clock: Clock,
        rng: Rng,
    ) -> Self {
        let doubts = Doubts::new(api.clone(), node, pods.clone(), questions, clock.clone());
        let node = node.into();
        Self {
            api,
            node,
            timeout,
            pods,
            doubts,
            clock,
            rng,
            version: None,
            is_listing: false,
            has_streaming_lists: true,
        }
    }

    /// Reports without end; cancel by dropping. `known` is met while what is known is fresh.
    pub async fn keep(mut self, known: Condition) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let Err(broken) = self.follow(&known).await else { continue };
            self.pods.lost();
            if self.is_listing || matches!(broken, Broken::Expired | Broken::Doubtful(_)) {
                self.version = None;
            }
            known.unmet(ErrorChain(&broken).to_string());
            failures = if began.elapsed() >= WORKED { 1 } else { failures + 1 };
            tokio::time::sleep(BETWEEN_FAILURES.jittered(failures, &self.rng)).await;
        }
    }

    /// One watch, until the server ends it in good order.
    async fn follow(&mut self, known: &Condition) -> Result<(), Broken> {
        let mut events = self.begin(known).await?;
        let began = Instant::now();
        let mut last_event = began;
        let longest = LONGEST_SILENCE.min(self.timeout + LATE);
        loop {
            tokio::select! {
                event = timeout_at(last_event + longest, events.next()) => {
                    let Some(event) = event.map_err(|_| Broken::Silent(longest))? else { break };
                    last_event = Instant::now();
                    self.take(event?, known)?;
                }
                () = self.doubts.settle_one() => if !self.is_listing { self.tell(known) },
            }
        }
        if self.is_listing {
            Err(Broken::HalfAList)
        } else if began.elapsed() < SHORTEST {
            Err(Broken::AtOnce)
        } else {
            Ok(())
        }
    }

    async fn begin(&mut self, known: &Condition) -> Result<Events<Object>, Broken> {
        self.is_listing = false;
        if self.version.is_none() && self.has_streaming_lists {
            match self.watch("", true).await {
                Ok(events) => {
                    self.pods.begin_list();
                    self.is_listing = true;
                    return Ok(events);
                }
                Err(error) => match error.status() {
                    Some(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY) => {
                        self.has_streaming_lists = false;
                    }
                    Some(_) | None => return Err(error.into()),
                },
            }
        }
        let version = match &self.version {
            Some(version) => version.clone(),
            None => self.list().await?,
        };
        let events = self.watch(&version, false).await.map_err(|error| match error.status() {
            Some(StatusCode::GONE) => Broken::Expired,
            Some(_) | None => error.into(),
        })?;
        self.version = Some(version);
        self.pods.resumed();
        self.tell(known);
        Ok(events)
    }

    /// The watch is alive: what it tells is known, but for what it may not ask.
    fn tell(&self, known: &Condition) {
        match self.doubts.are_refused() {
            Some(said) => known.unmet(format!(
                "the right to get pods is missing, so a pod that is deleted while nobody watches is not \
                 found out: {said}"
            )),
            None => known.met(),
        }
    }

    /// A resource version that is not given asks for what is stored now, not for what this server may have of
    /// the past.
    fn watch(
        &self,
        version: &str,
        is_list: bool,
    ) -> impl Future<Output = Result<Events<Object>, ApiError>> + Send + use<> {
        let seconds = self.timeout.mul_f64(1.0 - self.rng.fraction() / 5.0).as_secs();
        let parameters = WatchParams {
            label_selector: None,
            field_selector: Some(self.selector()),
            // An hour at most.
            timeout: u32::try_from(seconds).ok(),
            bookmarks: true,
            send_initial_events: is_list,
        };
        let (api, version) = (self.api.clone(), version.to_owned());
        async move { api.watch(PATH, &parameters, &version).await }
    }

    fn selector(&self) -> String {
        format!("spec.nodeName={}", self.node)
    }

    /// The list in pages, for servers that do not stream it.
    async fn list(&mut self) -> Result<String, Broken> {
        self.pods.begin_list();
        let mut more = String::new();
        loop {
            let path = format!("{PATH}?fieldSelector={}&limit={PAGE}&continue={more}", self.selector());
            let List { metadata, items } = self.api.get(&path, MOST_BYTES_OF_A_LIST).await?;
            items.into_iter().for_each(|object| self.pods.here(object.into_pod()));
            match metadata.more.filter(|more| !more.is_empty()) {
                Some(next) => more = next,
                None => {
                    self.end_list()?;
                    return Ok(metadata.resource_version);
                }
            }
        }
    }

    fn end_list(&mut self) -> Result<(), Broken> {
        let missing = self.pods.end_list().map_err(Broken::Doubtful)?;
        self.doubts.add(missing);
        Ok(())
    }

    fn take(&mut self, event: WatchEvent<Object>, known: &Condition) -> Result<(), Broken> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.has_come_to(&object.metadata.resource_version);
                self.pods.here(object.into_pod());
            }
            WatchEvent::Deleted(object) => {
                self.has_come_to(&object.metadata.resource_version);
                // In a list there is none (KEP 3157), and what a list says may be of the past.
                if !self.is_listing {
                    self.pods.gone(&object.metadata.uid, self.clock.now().boot);
                }
            }
            WatchEvent::Bookmark(mark) => {
                if self.is_listing && mark.metadata.annotations.contains_key(END_OF_LIST) {
                    self.end_list()?;
                    self.is_listing = false;
                    self.tell(known);
                }
                self.has_come_to(&mark.metadata.resource_version);
            }
            WatchEvent::Error(status) if status.code == StatusCode::GONE.as_u16() => {
                return Err(Broken::Expired);
            }
            WatchEvent::Error(status) => return Err(Broken::Ended(self.api.said(&status.message))),
        }
        Ok(())
    }

    /// A list must be whole before anything goes on from it.
    fn has_come_to(&mut self, version: &str) {
        if !self.is_listing {
            self.version = Some(version.to_owned());
        }
    }
}
