//! Keeping it so, for as long as the agent runs.
//!
//! Owns: when is looked again, and what readiness hears. Must not know: which steps are taken.
//!
//! Without `--manage-link` it only looks: somebody else's init container gave the node its addresses, and that they are
//! there is a condition all the same.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::converge::{AddressStatus, LinkStatus, converge, link_status};
use super::desired::{Desired, LINK_NAME, LOOPBACK};
use super::events::{Events, Watched};
use super::netlink::KernelError;
use crate::lifecycle::readiness::Condition;
use crate::node::kernel_events;

/// News may be missed; then it is this long.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// While something is not as it should be, it is tried again after this: the node shall be whole within a second of the
/// moment from which it can be.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// While only somebody else can mend it: IPv6 is off (news come when it is switched on), or a capability is missing.
const RETRY_INTERVAL_WHEN_BLOCKED: Duration = Duration::from_secs(5);
/// Somebody who keeps undoing what we do gets no more than twenty answers a second. The first comes at once.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// What readiness hears.
pub struct LinkConditions {
    /// Each address, with its condition.
    pub addresses: Vec<(IpAddr, Condition)>,
    /// All of it together; never required, because what is wrong with it need not stop a single request.
    pub link: Condition,
}

/// Keeps link, addresses and routes.
pub struct LinkKeeper {
    desired: Desired,
    manages: bool,
    conditions: LinkConditions,
    changed: watch::Sender<u64>,
    dummy_supported: bool,
}

impl LinkKeeper {
    /// `manages`: whether it may change anything. `changed` is moved on each time that our addresses may have come or gone.
    pub const fn new(
        desired: Desired,
        manages: bool,
        conditions: LinkConditions,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self { desired, manages, conditions, changed, dummy_supported: true }
    }

    /// Works for ever; cancel by dropping.
    pub async fn keep(mut self) {
        let mut events = Events::open().ok();
        let mut watched = Watched { addresses: self.desired.addresses.clone(), links: Vec::new() };
        loop {
            // Subscribed first, looked then: what changes in between is looked at again.
            let outcome = self.converge().await;
            let poll_interval = if self.manages { poll_interval(&outcome) } else { POLL_INTERVAL };
            self.report(&outcome);
            if let Ok(outcome) = &outcome {
                watched.links = our_links(outcome);
            }
            sleep(MIN_INTERVAL).await;
            kernel_events::wait(
                &mut events,
                Events::open,
                async |events| events.next(&watched).await,
                poll_interval,
            )
            .await;
        }
    }

    async fn converge(&mut self) -> Result<LinkStatus, KernelError> {
        if self.manages {
            converge(&self.desired, &mut self.dummy_supported).await
        } else {
            link_status(&self.desired).await
        }
    }

    fn report(&self, outcome: &Result<LinkStatus, KernelError>) {
        self.changed.send_modify(|times| *times = times.wrapping_add(1));
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // Whether the addresses are there is not known then, and was known before: leave it at that.
            Err(error) => return self.conditions.link.unmet(error.to_string()),
        };
        let mut problems = Vec::new();
        for (ip, status) in &outcome.addresses {
            let condition = self.conditions.addresses.iter().find(|(of, _)| of == ip);
            let problem = match status {
                AddressStatus::Present => None,
                AddressStatus::Foreign(link) => {
                    Some(format!("{ip} is on the link {link}, which is not ours"))
                }
                AddressStatus::Missing(why) => Some(self.missing(*ip, why.as_ref())),
            };
            if let Some((_, condition)) = condition {
                match (status, &problem) {
                    (AddressStatus::Missing(_), Some(problem)) => condition.unmet(problem.clone()),
                    // Somebody else's link serves as well, as long as it does.
                    (_, _) => condition.met(),
                }
            }
            problems.extend(problem);
        }
        if problems.is_empty() {
            self.conditions.link.met();
        } else {
            self.conditions.link.unmet(problems.join("; "));
        }
    }

    fn missing(&self, ip: IpAddr, why: Option<&KernelError>) -> String {
        match why {
            Some(error) => format!("{ip} cannot be added: {error}"),
            None if self.manages => format!("{ip} is on no link: somebody else removes it"),
            None => format!("{ip} is on no link: run `initialize`, or start the server with --manage-link"),
        }
    }
}

/// How long to wait for news.
fn poll_interval(outcome: &Result<LinkStatus, KernelError>) -> Duration {
    let Ok(outcome) = outcome else { return RETRY_INTERVAL };
    if outcome.is_complete {
        return POLL_INTERVAL;
    }
    let is_blocked = outcome.addresses.iter().all(|(_, status)| match status {
        AddressStatus::Present | AddressStatus::Foreign(_) => true,
        AddressStatus::Missing(why) => {
            matches!(why, Some(KernelError::Ipv6Off | KernelError::NotPermitted))
        }
    });
    if is_blocked { RETRY_INTERVAL_WHEN_BLOCKED } else { RETRY_INTERVAL }
}

fn our_links(outcome: &LinkStatus) -> Vec<u32> {
    let ours = outcome.observed.links.iter().filter(|link| link.name == LINK_NAME || link.name == LOOPBACK);
    ours.map(|link| link.index).collect()
}
