//! The annotations of service accounts: the task that has them read, and notes what they say.
//!
//! Owns: how many reads are under way at once, and what is said of failures. Must not know: how a service
//! account is read (`app` gives a closure), or what follows from an annotation.

mod pause;
mod reading;
mod register;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::error::Error;
use std::future::pending;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Associations, Roles};
use crate::clock::{BootTime, Clock};
use crate::telemetry::error_chain::ErrorChain;
use crate::workload::{ServiceAccount, ServiceAccountName};

pub(super) use self::reading::Annotated;
pub(super) use self::register::{Known, MOST_ACCOUNTS, Next, Register};

/// A service account, as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAccount {
    /// Its UID.
    pub uid: Box<str>,
    /// Its annotations by their whole names; others than those of EKS are not needed.
    pub annotations: HashMap<Box<str>, Box<str>>,
}

/// Why a service account could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NotRead {
    /// The agent may not read it, in the API server's words.
    #[error("the agent may not read service accounts: {0}")]
    Forbidden(String),
    /// The API server cannot be reached, or fails.
    #[error("the API server gives no answer")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// What a read says of a service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This.
    Annotated(Annotated),
    /// The agent may not ask in its namespace.
    Forbidden,
    /// Nothing.
    Failed,
}

impl Associations {
    /// Has service accounts read by `read`, which has a deadline of its own, without end; cancel by dropping.
    /// `None` of it means that Kubernetes itself says that there is no such account. `tell` is given whether
    /// the annotations can be read, and why not, whenever something is read.
    pub async fn keep_annotations<F>(
        self,
        clock: Clock,
        read: impl Fn(ServiceAccountName) -> F + Send,
        tell: impl Fn(Result<(), String>) + Send,
    ) where
        F: Future<Output = Result<Option<FoundAccount>, NotRead>> + Send,
    {
        let Some(roles) = &self.shared.roles else { return pending().await };
        let mut under_way = FuturesUnordered::new();
        loop {
            let next = roles.state.lock().next_read(clock.now().boot);
            let pause = match next {
                Next::Read(account) => {
                    let (namespace, name) = (account.namespace.clone(), account.name.clone());
                    let answer = read(ServiceAccountName { namespace, name });
                    under_way.push(async move { (account, answer.await) });
                    continue;
                }
                Next::Wait(pause) => Some(pause),
                Next::Idle => None,
            };
            let pause = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // In a fixed order, so that a simulated story is the same each time.
                biased;
                Some((account, answer)) = under_way.next(), if !under_way.is_empty() => {
                    tell(roles.note(&account, answer, clock.now().boot));
                }
                () = roles.wanted.notified() => {}
                () = pause => {}
            }
        }
    }
}

impl Roles {
    /// Returns whether annotations can be read, and why not.
    fn note(
        &self,
        account: &ServiceAccount,
        answer: Result<Option<FoundAccount>, NotRead>,
        now: BootTime,
    ) -> Result<(), String> {
        let (answer, failure) = judge(account, answer);
        let mut state = self.state.lock();
        let is_change = state.note_read(account, &answer, now, &self.rng);
        let unreadable = state.unreadable_namespaces();
        let has_ended = state.has_withdrawn();
        drop(state);
        self.tell(has_ended);
        if let (Some(failure), true) = (&failure, is_change) {
            tracing::warn!(err = failure, "roles of service accounts cannot be read; known ones still count");
        }
        match (failure, unreadable) {
            (Some(failure), _) => Err(failure),
            (None, 0) => Ok(()),
            (None, unreadable) => {
                Err(format!("the agent may not read service accounts of {unreadable} namespaces"))
            }
        }
    }
}

/// What an answer says of an account, and the sentence of a failure.
fn judge(
    account: &ServiceAccount,
    answer: Result<Option<FoundAccount>, NotRead>,
) -> (Answer, Option<String>) {
    match answer {
        // Of that name there is another one now, and this one is gone.
        Ok(Some(found)) if found.uid != account.uid => (Answer::Annotated(Annotated::None), None),
        Ok(None) => (Answer::Annotated(Annotated::None), None),
        Ok(Some(found)) => {
            let reading = reading::read(&found.annotations);
            for warning in reading.warnings {
                let (namespace, name) = (&account.namespace, &account.name);
                tracing::debug!(%namespace, service_account = %name, warning, "odd annotation");
            }
            (Answer::Annotated(reading.annotated), None)
        }
        Err(NotRead::Forbidden(said)) => {
            let sentence = format!(
                "the agent may not get serviceaccounts of namespace {}, so their roles are not known: {said}",
                account.namespace
            );
            (Answer::Forbidden, Some(sentence))
        }
        Err(error @ NotRead::Failed(_)) => (Answer::Failed, Some(ErrorChain(&error).to_string())),
    }
}
