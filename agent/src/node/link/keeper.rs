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

use super::converge::{AddressStatus, LinkStatus, converge, observe};
use super::desired::{Desired, LINK_NAME, LOOPBACK};
use super::events::{Events, Watched};
use super::netlink::KernelError;
use crate::lifecycle::readiness::Condition;
use crate::node::kernel_events;

/// News may be missed; then it is this long.
const UNASKED: Duration = Duration::from_secs(30);
/// While something is not as it should be, it is tried again after this: the node shall be whole within a second of the
/// moment from which it can be.
const UNTIL_WHOLE: Duration = Duration::from_millis(500);
/// While only somebody else can mend it: IPv6 is off (news come when it is switched on), or a capability is missing.
const UNTIL_HELPED: Duration = Duration::from_secs(5);
/// Somebody who keeps undoing what we do gets no more than twenty answers a second. The first comes at once.
const LEAST_REST: Duration = Duration::from_millis(50);

/// What readiness hears.
pub struct LinkConditions {
    /// Each address, with its condition.
    pub addresses: Vec<(IpAddr, Condition)>,
    /// All of it together; never required, because what is wrong with it need not stop a single request.
    pub whole: Condition,
}

/// Keeps link, addresses and routes.
pub struct LinkKeeper {
    desired: Desired,
    manages: bool,
    conditions: LinkConditions,
    changed: watch::Sender<u64>,
    has_dummies: bool,
}

impl LinkKeeper {
    /// `manages`: whether it may change anything. `changed` is moved on each time that our addresses may have come or gone.
    pub const fn new(
        desired: Desired,
        manages: bool,
        conditions: LinkConditions,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self { desired, manages, conditions, changed, has_dummies: true }
    }

    /// Works for ever; cancel by dropping.
    pub async fn keep(mut self) {
        let mut events = Events::open().ok();
        let mut watched = Watched { addresses: self.desired.addresses.clone(), links: Vec::new() };
        loop {
            // Subscribed first, looked then: what changes in between is looked at again.
            let standing = self.look().await;
            let rest = if self.manages { rest(&standing) } else { UNASKED };
            self.report(&standing);
            if let Ok(standing) = &standing {
                watched.links = our_links(standing);
            }
            sleep(LEAST_REST).await;
            kernel_events::wait(&mut events, Events::open, async |events| events.next(&watched).await, rest)
                .await;
        }
    }

    async fn look(&mut self) -> Result<LinkStatus, KernelError> {
        if self.manages {
            converge(&self.desired, &mut self.has_dummies).await
        } else {
            observe(&self.desired).await
        }
    }

    fn report(&self, standing: &Result<LinkStatus, KernelError>) {
        self.changed.send_modify(|times| *times = times.wrapping_add(1));
        let standing = match standing {
            Ok(standing) => standing,
            // Whether the addresses are there is not known then, and was known before: leave it at that.
            Err(error) => return self.conditions.whole.unmet(error.to_string()),
        };
        let mut troubles = Vec::new();
        for (ip, state) in &standing.addresses {
            let condition = self.conditions.addresses.iter().find(|(of, _)| of == ip);
            let trouble = match state {
                AddressStatus::Present => None,
                AddressStatus::Foreign(link) => {
                    Some(format!("{ip} is on the link {link}, which is not ours"))
                }
                AddressStatus::Missing(why) => Some(self.missing(*ip, why.as_ref())),
            };
            if let Some((_, condition)) = condition {
                match (state, &trouble) {
                    (AddressStatus::Missing(_), Some(trouble)) => condition.unmet(trouble.clone()),
                    // Somebody else's link serves as well, as long as it does.
                    (_, _) => condition.met(),
                }
            }
            troubles.extend(trouble);
        }
        if troubles.is_empty() {
            self.conditions.whole.met();
        } else {
            self.conditions.whole.unmet(troubles.join("; "));
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
fn rest(standing: &Result<LinkStatus, KernelError>) -> Duration {
    let Ok(standing) = standing else { return UNTIL_WHOLE };
    if standing.is_complete {
        return UNASKED;
    }
    let waits_for_others = standing.addresses.iter().all(|(_, state)| match state {
        AddressStatus::Present | AddressStatus::Foreign(_) => true,
        AddressStatus::Missing(why) => {
            matches!(why, Some(KernelError::Ipv6Off | KernelError::NotPermitted))
        }
    });
    if waits_for_others { UNTIL_HELPED } else { UNTIL_WHOLE }
}

fn our_links(standing: &LinkStatus) -> Vec<u32> {
    let ours = standing.observed.links.iter().filter(|link| link.name == LINK_NAME || link.name == LOOPBACK);
    ours.map(|link| link.index).collect()
}
