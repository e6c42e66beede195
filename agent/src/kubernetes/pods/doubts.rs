//! Asking about one pod after the other.
//!
//! Owns: at which rate, and what an answer means. Must not know: where a doubt comes from: a list that lacked
//! the pod, or a request of one that no list has named yet.
//!
//! A GET without a resource version is answered by what the cluster has stored, and never from the past: it
//! alone may say that a pod is gone, beside the event of its deletion (docs/design/decisions.md#pods).

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::object::Object;
use crate::clock::Clock;
use crate::kubernetes::api::Api;
use crate::kubernetes::error::ApiError;
use crate::pods::{PodName, PodStatus, Pods, Questions};
use crate::workload::is_name;

/// Between two questions: five a second.
const PACE: Duration = Duration::from_millis(200);
/// A pod is some kilobytes; etcd takes 1.5 MB.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// So often one pod is asked about while there is no answer. The next list says again that it lacks it.
const TRIES: u32 = 3;

/// Pods to ask about.
pub(super) struct Doubts {
    api: Api,
    node: Box<str>,
    pods: Pods,
    clock: Clock,
    questions: Questions,
    waiting: VecDeque<Doubt>,
    asking: Option<Asking>,
    next_at: Instant,
    /// Why the last question was not allowed, if so.
    refused: Option<String>,
}

struct Doubt {
    pod: PodName,
    tries: u32,
}

type Asking = Pin<Box<dyn Future<Output = (Doubt, Result<Found, ApiError>)> + Send>>;

/// What is there under a pod's name.
enum Found {
    Pod(Box<Object>),
    Nothing,
}

impl Doubts {
    pub(super) fn new(api: Api, node: &str, pods: Pods, questions: Questions, clock: Clock) -> Self {
        let (node, next_at) = (node.into(), Instant::now());
        let (waiting, asking, refused) = (VecDeque::new(), None, None);
        Self { api, node, pods, clock, questions, waiting, asking, next_at, refused }
    }

    /// Why nobody may be asked about: the right to get pods is missing.
    pub(super) fn are_refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Doubts whether these live: a list lacked them.
    pub(super) fn add(&mut self, missing: Vec<PodName>) {
        self.waiting = missing.into_iter().map(|pod| Doubt { pod, tries: 0 }).collect();
    }

    /// Settles one doubt, waiting for one if there is none. Cancel-safe.
    pub(super) async fn settle_one(&mut self) {
        if self.asking.is_none() {
            let doubt = match self.waiting.pop_front() {
                Some(doubt) => doubt,
                None => Doubt { pod: next_question(&mut self.questions, &self.pods).await, tries: 0 },
            };
            let (api, at) = (self.api.clone(), self.next_at);
            self.asking = Some(Box::pin(async move {
                tokio::time::sleep_until(at).await;
                let found = find(&api, &doubt.pod).await;
                (doubt, found)
            }));
        }
        let Some(asking) = &mut self.asking else { return };
        let (doubt, found) = asking.await;
        self.asking = None;
        self.next_at = Instant::now() + PACE;
        self.conclude(doubt, found);
    }

    fn conclude(&mut self, mut doubt: Doubt, found: Result<Found, ApiError>) {
        let uid = &doubt.pod.uid;
        match &found {
            Ok(_) => self.refused = None,
            Err(error) if error.status() == Some(StatusCode::FORBIDDEN) => {
                self.refused = Some(error.to_string());
            }
            Err(_) => {}
        }
        match found {
            Ok(Found::Pod(object)) if object.metadata.uid != *uid => {
                self.pods.gone(uid, self.clock.now().boot)
            }
            Ok(Found::Nothing) => self.pods.gone(uid, self.clock.now().boot),
            Ok(Found::Pod(object)) if object.is_on(&self.node) => self.pods.here(object.into_pod()),
            Ok(Found::Pod(_)) => self.pods.elsewhere(uid),
            Err(error) => {
                tracing::debug!(err = %error, pod = %doubt.pod.name, "a pod could not be asked about");
                doubt.tries += 1;
                if doubt.tries < TRIES {
                    self.waiting.push_back(doubt);
                }
            }
        }
    }
}

/// The next pod that is asked about and has not been seen meanwhile.
async fn next_question(questions: &mut Questions, pods: &Pods) -> PodName {
    loop {
        match questions.recv().await {
            Some(pod) if pods.status_of(&pod.uid) == PodStatus::NotSeen => return pod,
            Some(_) => {}
            None => pending().await,
        }
    }
}

async fn find(api: &Api, pod: &PodName) -> Result<Found, ApiError> {
    let PodName { namespace, name, .. } = pod;
    if !(is_name(namespace) && is_name(name)) {
        return Err(ApiError::Url);
    }
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    match api.get(&path, MOST_BYTES).await {
        Ok(object) => Ok(Found::Pod(object)),
        Err(ApiError::Refused { missing: Some(missing), .. })
            if missing.kind == "pods" && missing.name == **name =>
        {
            Ok(Found::Nothing)
        }
        Err(error) => Err(error),
    }
}
