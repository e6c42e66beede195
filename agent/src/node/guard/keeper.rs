//! Keeping the table, for as long as the agent runs.
//!
//! Owns: when is looked again, and what readiness hears. Must not know: what is in the table.
//!
//! nft says a table back in words of its own, which differ from version to version. So what was listed right after
//! writing is what it shall be; anything else is written anew, in one transaction.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;

use super::events::Events;
use super::nft::{self, NftError};
use super::table::{Rules, replacement};
use crate::lifecycle::readiness::Condition;
use crate::node::kernel_events;

/// News may be missed; then it is this long. Also how soon it is seen that port 80 has become ours.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The same where there are no news to be had.
const POLL_INTERVAL_WITHOUT_EVENTS: Duration = Duration::from_secs(5);
/// After a failure it is tried again after this.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// nft is a process: it is started no more often than this, whatever goes on in the node's rules. The first look after
/// a quiet time comes at once.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// What readiness hears: each where it is asked for. Never required; the endpoint serves all the same.
pub struct RuleConditions {
    /// Our addresses are guarded.
    pub guard: Option<Condition>,
    /// The instance's metadata are blocked.
    pub imds: Option<Condition>,
}

/// Keeps the table.
pub struct RuleKeeper {
    desired: Box<dyn Fn() -> Rules + Send + Sync>,
    conditions: RuleConditions,
    changed: watch::Sender<u64>,
    written: Option<(Rules, Value)>,
}

impl RuleKeeper {
    /// `desired` is asked at each look. `changed` is moved on each time that the table was written.
    pub fn new(
        desired: impl Fn() -> Rules + Send + Sync + 'static,
        conditions: RuleConditions,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self { desired: Box::new(desired), conditions, changed, written: None }
    }

    /// Works for ever; cancel by dropping.
    pub async fn keep(mut self) {
        let mut events = Events::open().ok();
        loop {
            // Subscribed first, looked then: what changes in between is looked at again.
            let outcome = self.converge().await;
            self.report(&outcome);
            sleep(MIN_INTERVAL).await;
            let poll_interval = match (&outcome, &events) {
                (Err(_), _) => RETRY_INTERVAL,
                (Ok(()), Some(_)) => POLL_INTERVAL,
                (Ok(()), None) => POLL_INTERVAL_WITHOUT_EVENTS,
            };
            kernel_events::wait(&mut events, Events::open, Events::next, poll_interval).await;
        }
    }

    async fn converge(&mut self) -> Result<(), NftError> {
        let listed = nft::list().await?;
        let desired = (self.desired)();
        match (&self.written, listed) {
            (Some((rules, as_listed)), Some(listed)) if *rules == desired && *as_listed == listed => {
                return Ok(());
            }
            (Some((rules, _)), _) if *rules == desired => {
                tracing::warn!("somebody has changed or removed our nftables table; it is written again");
            }
            (Some(_) | None, _) => {}
        }
        nft::write(&replacement(&desired)).await?;
        tracing::info!(rules = ?desired, "nftables table written");
        self.changed.send_modify(|times| *times = times.wrapping_add(1));
        let listed = nft::list().await?.ok_or(NftError::RemovedAgain)?;
        self.written = Some((desired, listed));
        Ok(())
    }

    fn report(&self, outcome: &Result<(), NftError>) {
        let Self { conditions: RuleConditions { guard, imds }, .. } = self;
        for condition in [guard, imds].into_iter().flatten() {
            match outcome {
                Ok(()) => condition.met(),
                Err(error) => condition.unmet(error.to_string()),
            }
        }
    }
}
