//! Keeping the table in place while the agent runs.
//!
//! Owns: when the table is checked, and what is reported to readiness. Must not know: what is in the table.
//!
//! nft lists a table in its own wording, which differs between versions. So the listing taken right after a
//! write is the reference: if a later listing differs from it, the table is written again, in one
//! transaction.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::events::Events;
use super::nft::{self, NftError};
use super::table::{Rules, replacement};
use crate::lifecycle::readiness::Condition;
use crate::node::kernel_events;

/// Without an event: one may have been missed. It is also the longest time until the keeper sees that the
/// agent now has port 80 itself.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The same where events cannot be subscribed to.
const POLL_INTERVAL_WITHOUT_EVENTS: Duration = Duration::from_secs(5);
/// After a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The agent is not ready until the guard stands or cannot stand, but this long at most: pods are better
/// served without the guard than not at all. A check takes up to three calls of `nft`, 2 s each, so that the
/// slowest check that succeeds ends in this time.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// After a failure within that time.
const RETRY_INTERVAL_AT_START: Duration = Duration::from_millis(500);
/// Each check starts `nft`, a process, so checks are at least this far apart, however often the node's rules
/// change. The first check after a quiet time is not delayed.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// The conditions of the table, each present if its flag is set.
pub struct RuleConditions {
    /// The agent's addresses are guarded. Required until it is known whether the table stands; advisory from
    /// then on, because pods are served without the table too.
    pub guard: Option<Condition>,
    /// The instance metadata service is blocked.
    pub imds: Option<Condition>,
}

/// Keeps the table.
pub struct RuleKeeper {
    desired: Box<dyn Fn() -> Rules + Send + Sync>,
    conditions: RuleConditions,
    changed: watch::Sender<u64>,
    written: Option<(Rules, Value)>,
    /// Whether it is still to be found out if the table can stand.
    is_starting: bool,
}

impl RuleKeeper {
    /// `desired` is called at each check. `changed` is incremented each time the table is written.
    pub fn new(
        desired: impl Fn() -> Rules + Send + Sync + 'static,
        conditions: RuleConditions,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self { desired: Box::new(desired), conditions, changed, written: None, is_starting: true }
    }

    /// Runs until it is dropped.
    pub async fn keep(self) {
        let guard = self.conditions.guard.clone();
        let until = Instant::now() + START_PATIENCE;
        let patience = async {
            sleep_until(until).await;
            if let Some(guard) = guard {
                guard.no_longer_required();
            }
        };
        tokio::join!(self.keep_table(until), patience);
    }

    async fn keep_table(mut self, start_ends: Instant) {
        let mut events = Events::open().ok();
        loop {
            // Subscribe first, then check: a change in between leads to another check.
            let outcome = self.converge().await;
            self.report(&outcome);
            self.is_starting &= !self.release_readiness(&outcome) && Instant::now() < start_ends;
            sleep(MIN_INTERVAL).await;
            let poll_interval = match (&outcome, &events) {
                (Err(_), _) if self.is_starting => RETRY_INTERVAL_AT_START,
                (Err(_), _) => RETRY_INTERVAL,
                (Ok(()), Some(_)) => POLL_INTERVAL,
                (Ok(()), None) => POLL_INTERVAL_WITHOUT_EVENTS,
            };
            kernel_events::wait(&mut events, Events::open, Events::next, poll_interval).await;
        }
    }

    /// Readiness waits no longer once the outcome tells whether the table can stand. Returns whether it does.
    fn release_readiness(&self, outcome: &Result<(), NftError>) -> bool {
        let is_settled = outcome.as_ref().map_or_else(NftError::is_lasting, |()| true);
        if is_settled && let Some(guard) = &self.conditions.guard {
            guard.no_longer_required();
        }
        is_settled
    }

    async fn converge(&mut self) -> Result<(), NftError> {
        let listed = nft::list().await?;
        let desired = (self.desired)();
        match (&self.written, listed) {
            (Some((rules, as_listed)), Some(listed)) if *rules == desired && *as_listed == listed => {
                return Ok(());
            }
            (Some((rules, _)), _) if *rules == desired => {
                tracing::warn!("nftables table changed or removed by another process; writing it again");
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
