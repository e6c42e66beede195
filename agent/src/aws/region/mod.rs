//! The AWS region: given by the configuration, or read from the instance.
//!
//! Owns: the name of the region from when it is known, and the worker that reads it. Must not know: what is
//! asked in that region. It never changes again: an instance does not move.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::aws::own_identity::imds::InstanceRole;
use crate::aws::own_identity::load_error::NoValue;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::{RegionSource, is_region};
use crate::rng::Rng;
use crate::telemetry::error_chain::ErrorChain;

/// Where the metadata service has it.
const PATH: &str = "/latest/meta-data/placement/region";
/// One reading: two attempts of 3 s for the session token or the value, and the SDK's pause between them.
const DEADLINE: Duration = Duration::from_secs(8);
/// The shortest pause, however many pods ask.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The pauses after failures. Readiness waits for it, so they are shorter than those for credentials; it is
/// two small requests of the 1,024 packets per second (docs/design/facts.md#link-local-budget).
const RETRY: Backoff = Backoff::new(FIRST_RETRY, Duration::from_secs(10));
/// A failure that lasts is logged once in this time.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The region of this process; clones share it.
#[derive(Clone, Debug)]
pub struct AwsRegion {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: watch::Sender<Option<Arc<str>>>,
    wake: Notify,
}

/// What the worker reports to readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegionState {
    /// It is known.
    Known,
    /// It is not, for this reason.
    Unknown(String),
}

/// Why the instance gave no region. Shows one level; the log shows the chain of causes.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    NoValue(#[from] NoValue),
    #[error("the instance metadata service did not return the region within {} s", DEADLINE.as_secs())]
    Late,
    /// The answer is not quoted: whatever stands before the metadata service may have said anything.
    #[error("the answer of the instance metadata service has {0} bytes and is not a region")]
    Malformed(usize),
}

impl AwsRegion {
    /// Known where the configuration gives it.
    pub fn from_config(source: &RegionSource) -> Self {
        match source {
            RegionSource::Given(name) => Self::given(name),
            RegionSource::Instance(_) | RegionSource::Nowhere => Self::unknown(),
        }
    }

    /// A region that is known from the start.
    pub fn given(name: &str) -> Self {
        Self::with(Some(name.into()))
    }

    /// One that has to be [learned](Self::learn).
    pub fn unknown() -> Self {
        Self::with(None)
    }

    fn with(name: Option<Arc<str>>) -> Self {
        Self { shared: Arc::new(Shared { name: watch::Sender::new(name), wake: Notify::new() }) }
    }

    /// The name of the region, once it is known.
    pub fn get(&self) -> Option<Arc<str>> {
        self.shared.name.borrow().clone()
    }

    /// The same for somebody who cannot go on without it: the worker reads again at once.
    pub fn needed(&self) -> Option<Arc<str>> {
        let name = self.get();
        if name.is_none() {
            self.shared.wake.notify_one();
        }
        name
    }

    /// Waits until it is known.
    pub async fn known(&self) {
        let mut name = self.shared.name.subscribe();
        // The sender lives as long as `self`.
        let _closed = name.wait_for(Option::is_some).await.is_err();
    }

    /// Reads it from the instance until it is there; cancel by dropping. `report` is called after each try.
    pub async fn learn(
        self,
        mut instance: InstanceRole,
        clock: Clock,
        rng: Rng,
        mut report: impl FnMut(RegionState) + Send,
    ) {
        let (mut failures, mut logged_at) = (0, None);
        let name = loop {
            let error = match read(&mut instance).await {
                Ok(name) => break name,
                Err(error) => error,
            };
            failures += 1;
            let now = clock.now().boot;
            if logged_at.is_none_or(|logged| now.since(logged) >= FAILURE_LOG_INTERVAL) {
                logged_at = Some(now);
                let err = ErrorChain(&error);
                tracing::warn!(%err, failures, "the AWS region cannot be read from the instance");
            }
            report(RegionState::Unknown(ErrorChain(&error).to_string()));
            self.pause(RETRY.jittered(failures, &rng)).await;
        };
        tracing::info!(
            region = name,
            source = "the instance metadata service",
            "the AWS region is read from the instance"
        );
        self.shared.name.send_replace(Some(name.into()));
        report(RegionState::Known);
    }

    /// Sleeps, or wakes early because somebody needs it, but never in a tight loop.
    async fn pause(&self, pause: Duration) {
        let at_least = FIRST_RETRY.min(pause);
        sleep(at_least).await;
        tokio::select! {
            // In this order: what woke it is not left for the next time as well.
            biased;
            () = self.shared.wake.notified() => {}
            () = sleep(pause.saturating_sub(at_least)) => {}
        }
    }
}

/// One reading. What has not the form of a region is none: it becomes part of a host name.
async fn read(instance: &mut InstanceRole) -> Result<String, Unread> {
    let text = timeout(DEADLINE, instance.value(PATH)).await.map_err(|_| Unread::Late)??;
    if is_region(&text) { Ok(text) } else { Err(Unread::Malformed(text.len())) }
}
