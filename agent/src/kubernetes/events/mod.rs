//! Writes Events about pods, at the API server (events.k8s.io/v1).
//!
//! Owns: sending one after the other, and what an answer means. Must not know: what is worth an Event, and
//! when it is written (`crate::events`).
//!
//! An Event that cannot be written is lost in the end: nothing waits for one, and nothing follows from one.

mod object;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;

use self::object::{Event, LONGEST_INSTANCE, Repeated};
use super::api::{Api, Sent};
use super::error::ApiError;
use crate::clock::{BootTime, Clock};
use crate::events::{Names, Next, Occurrences, Report, Reports, Write, Written};
use crate::pods::Pods;
use crate::telemetry::error_chain::ErrorChain;
use crate::telemetry::metrics::{EventMetrics, EventOutcome};

/// How often one that was refused is logged, and how often what is over is forgotten.
const MINUTE: Duration = Duration::from_secs(60);

/// The Event as it was stored; nobody reads it.
const MOST_ECHOED: usize = 64 * 1024;

/// Writes what is reported.
pub struct EventWriter {
    api: Api,
    names: Names,
    pods: Pods,
    clock: Clock,
    metrics: Arc<EventMetrics>,
    reports: Reports,
    occurrences: Occurrences,
    forgot_at: BootTime,
    /// When it was logged last that one was refused.
    warned_at: Option<BootTime>,
}

impl EventWriter {
    /// Nothing is written yet. `None`: the name of the node is longer than Kubernetes takes here.
    pub fn new(
        api: Api,
        names: Names,
        pods: Pods,
        clock: Clock,
        metrics: Arc<EventMetrics>,
        reports: Reports,
    ) -> Option<Self> {
        let forgot_at = clock.now().boot;
        let occurrences = Occurrences::default();
        let writer =
            Self { api, names, pods, clock, metrics, reports, occurrences, forgot_at, warned_at: None };
        (writer.names.node.len() <= LONGEST_INSTANCE).then_some(writer)
    }

    /// Works without end; cancel by dropping.
    pub async fn keep(mut self) {
        loop {
            let now = self.clock.now().boot;
            if now.since(self.forgot_at) >= MINUTE {
                self.forgot_at = now;
                self.occurrences.forget(|uid| self.pods.is_gone(uid), now);
            }
            let rest = match self.occurrences.next(now) {
                Next::Write(write) => {
                    self.write(&write).await;
                    continue;
                }
                Next::Wait(wait) => wait.min(MINUTE),
                Next::Nothing => MINUTE,
            };
            tokio::select! {
                Some(report) = self.reports.recv() => self.add(report),
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn add(&mut self, Report { pod, problem }: Report) {
        let names = &self.names;
        self.occurrences.add(pod, problem.reason(), self.clock.now(), |pod| problem.note(pod, names));
    }

    /// Sends one, and takes reports meanwhile: an API server that is slow must not fill their queue.
    async fn write(&mut self, write: &Write) {
        let name = write.existing.as_deref().map_or_else(|| object::name(write), ToOwned::to_owned);
        let api = self.api.clone();
        let sent = {
            let node = self.names.node.clone();
            let sending = send(&api, write, &name, &node);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    sent = &mut sending => break sent,
                    Some(report) = self.reports.recv() => self.add(report),
                }
            }
        };
        let now = self.clock.now().boot;
        let (how, outcome) = meaning(&sent, write, &name);
        if let Some(outcome) = outcome {
            self.metrics.counted(outcome);
        }
        if let Err(error) = &sent
            && outcome == Some(EventOutcome::Failed)
        {
            self.log(error, how, now);
        }
        self.occurrences.written(write, how, now);
    }

    /// A refusal is for an admin, and in the API server's words says which right is missing. That it does not
    /// answer is said by the conditions of those who need it.
    fn log(&mut self, error: &ApiError, how: Written<'_>, now: BootTime) {
        let err = ErrorChain(error);
        let is_due = self.warned_at.is_none_or(|warned| now.since(warned) >= MINUTE);
        if how == Written::Refused && is_due {
            self.warned_at = Some(now);
            tracing::warn!(%err, "the API server refuses Events about pods: see docs/kubernetes.md");
        } else {
            tracing::debug!(%err, "an Event could not be written");
        }
    }
}

async fn send(api: &Api, write: &Write, name: &str, node: &str) -> Result<(), ApiError> {
    let events = object::path(&write.pod.namespace).ok_or(ApiError::Url)?;
    let (method, path, media_type, body) = match &write.existing {
        None => (Method::POST, events, "application/json", json(&Event::new(write, name, node))),
        Some(_) => {
            let (path, media_type) = (format!("{events}/{name}"), "application/merge-patch+json");
            (Method::PATCH, path, media_type, json(&Repeated::of(write)))
        }
    };
    api.send(Sent { method, path: &path, media_type, body, secret: None }, MOST_ECHOED).await.map(drop)
}

/// Strings and numbers: this does not fail. An empty body would be refused.
fn json(object: &impl Serialize) -> Bytes {
    serde_json::to_vec(object).unwrap_or_default().into()
}

/// What an answer means, and what is counted.
fn meaning<'a>(
    sent: &Result<(), ApiError>,
    write: &Write,
    name: &'a str,
) -> (Written<'a>, Option<EventOutcome>) {
    let is_new = write.existing.is_none();
    let stored = if is_new { EventOutcome::Posted } else { EventOutcome::Repeated };
    let Err(error) = sent else { return (Written::Stored(name), Some(stored)) };
    match error.status() {
        // Our own, from a time when the answer did not arrive.
        Some(StatusCode::CONFLICT) if is_new => (Written::Stored(name), Some(stored)),
        // It is posted anew, and counted then.
        Some(StatusCode::NOT_FOUND) if !is_new => (Written::Gone, None),
        Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED) | None => {
            (Written::NoAnswer, Some(EventOutcome::Failed))
        }
        Some(status) if status.is_server_error() => (Written::NoAnswer, Some(EventOutcome::Failed)),
        Some(_) => (Written::Refused, Some(EventOutcome::Failed)),
    }
}
