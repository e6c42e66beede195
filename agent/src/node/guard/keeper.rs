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
const UNASKED: Duration = Duration::from_secs(10);
/// The same where there are no news to be had.
const WITHOUT_NEWS: Duration = Duration::from_secs(5);
/// After a failure it is tried again after this.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// nft is a process: it is started no more often than this, whatever goes on in the node's rules. The first look after
/// a quiet time comes at once.
const LEAST_REST: Duration = Duration::from_millis(500);

/// What readiness hears: each where it is asked for. Never required; the endpoint serves all the same.
pub struct RuleConditions {
    /// Our addresses are guarded.
    pub guard: Option<Condition>,
    /// The instance's metadata are blocked.
    pub imds: Option<Condition>,
}

/// Keeps the table.
pub struct RuleKeeper {
    wanted: Box<dyn Fn() -> Rules + Send + Sync>,
    conditions: RuleConditions,
    changed: watch::Sender<u64>,
    written: Option<(Rules, Value)>,
}

impl RuleKeeper {
    /// `wanted` is asked at each look. `changed` is moved on each time that the table was written.
    pub fn new(
        wanted: impl Fn() -> Rules + Send + Sync + 'static,
        conditions: RuleConditions,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self { wanted: Box::new(wanted), conditions, changed, written: None }
    }

    /// Works for ever; cancel by dropping.
    pub async fn keep(mut self) {
        let mut events = Events::open().ok();
        loop {
            // Subscribed first, looked then: what changes in between is looked at again.
            let looked = self.look().await;
            self.report(&looked);
            sleep(LEAST_REST).await;
            let rest = match (&looked, &events) {
                (Err(_), _) => AFTER_FAILURE,
                (Ok(()), Some(_)) => UNASKED,
                (Ok(()), None) => WITHOUT_NEWS,
            };
            kernel_events::wait(&mut events, Events::open, Events::next, rest).await;
        }
    }

    async fn look(&mut self) -> Result<(), NftError> {
        let listed = nft::list().await?;
        let wanted = (self.wanted)();
        match (&self.written, listed) {
            (Some((rules, as_listed)), Some(listed)) if *rules == wanted && *as_listed == listed => {
                return Ok(());
            }
            (Some((rules, _)), _) if *rules == wanted => {
                tracing::warn!("somebody has changed or removed our nftables table; it is written again");
            }
            (Some(_) | None, _) => {}
        }
        nft::write(&replacement(&wanted)).await?;
        tracing::info!(rules = ?wanted, "nftables table written");
        self.changed.send_modify(|times| *times = times.wrapping_add(1));
        let listed = nft::list().await?.ok_or(NftError::GoneAgain)?;
        self.written = Some((wanted, listed));
        Ok(())
    }

    fn report(&self, looked: &Result<(), NftError>) {
        let Self { conditions: RuleConditions { guard, imds }, .. } = self;
        for condition in [guard, imds].into_iter().flatten() {
            match looked {
                Ok(()) => condition.met(),
                Err(error) => condition.unmet(error.to_string()),
            }
        }
    }
}
