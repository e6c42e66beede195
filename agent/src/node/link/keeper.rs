//! Keeping link, addresses and routes in place while the agent runs.
//!
//! Owns: when the node is observed, and what is reported to readiness. Must not know: which steps are taken.
//!
//! Without `--manage-link` it only observes: an init container has added the addresses, and whether they are
//! there is still a condition.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::converge::{AddressStatus, LinkStatus, converge, link_status};
use super::desired::{Desired, LINK_NAME, LOOPBACK};
use super::events::{Events, Watched};
use super::netlink::KernelError;
use crate::lifecycle::readiness::Condition;
use crate::node::{ipv6, kernel_events};

/// Without an event: one may have been missed.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// While something is missing. Once it can be added, it must be there within a second.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// While the agent cannot repair it: IPv6 is disabled (enabling it causes an event), or a capability is
/// missing.
const RETRY_INTERVAL_WHEN_BLOCKED: Duration = Duration::from_secs(5);
/// If another program keeps removing the addresses, the agent adds them at most twenty times a second. The
/// first repair is not delayed.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// What is wrong where a link has the address and the local table does not.
const NOT_LOCAL: &str =
    "the node's local routing table does not have it, so nothing can reach the agent there";

/// What is reported to readiness.
pub struct LinkConditions {
    /// Each address, with its condition.
    pub addresses: Vec<(IpAddr, Condition)>,
    /// Link, addresses and routes together. Never required: a defect here need not stop a single request.
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
    /// `manages`: whether it may change the node. `changed` is incremented each time the agent's addresses
    /// may have been added or removed.
    pub const fn new(
        desired: Desired,
        manages: bool,
        conditions: LinkConditions,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self { desired, manages, conditions, changed, dummy_supported: true }
    }

    /// Runs until it is dropped.
    pub async fn keep(mut self) {
        let mut events = Events::open().ok();
        let mut watched = Watched { addresses: self.desired.addresses.clone(), links: Vec::new() };
        loop {
            // Subscribe first, then observe: a change in between leads to another round.
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
            // Whether the addresses are there is unknown now. Their conditions keep what was known before.
            Err(error) => return self.conditions.link.unmet(error.to_string()),
        };
        let mut problems = Vec::new();
        for (ip, status) in &outcome.addresses {
            let verdict = self.verdict(*ip, status);
            if let Some((_, condition)) = self.conditions.addresses.iter().find(|(of, _)| of == ip) {
                match &verdict {
                    Verdict::Served | Verdict::ServedElsewhere(_) => condition.met(),
                    Verdict::Lost(problem) => condition.unmet(problem.clone()),
                    Verdict::Impossible => condition.not_applicable(ipv6::SWITCHED_OFF),
                }
            }
            match verdict {
                Verdict::Served | Verdict::Impossible => {}
                Verdict::ServedElsewhere(problem) | Verdict::Lost(problem) => problems.push(problem),
            }
        }
        problems.extend(outcome.refused.iter().map(|(action, why)| format!("cannot {action}: {why}")));
        if problems.is_empty() {
            self.conditions.link.met();
        } else {
            self.conditions.link.unmet(problems.join("; "));
        }
    }

    fn verdict(&self, ip: IpAddr, status: &AddressStatus) -> Verdict {
        match status {
            AddressStatus::Present => Verdict::Served,
            AddressStatus::Foreign { link, is_local } => {
                let problem = format!("{ip} is on the link {link}, which the agent does not manage");
                if *is_local {
                    Verdict::ServedElsewhere(problem)
                } else {
                    Verdict::Lost(format!("{problem}, and {NOT_LOCAL}"))
                }
            }
            AddressStatus::NotLocal(why) => Verdict::Lost(self.not_local(ip, why.as_ref())),
            AddressStatus::Missing(why) => Verdict::Lost(self.missing(ip, why.as_ref())),
            AddressStatus::Impossible => Verdict::Impossible,
        }
    }

    fn not_local(&self, ip: IpAddr, why: Option<&KernelError>) -> String {
        let lost = format!("{ip}: {NOT_LOCAL}");
        match why {
            Some(error) => format!("{lost}; it cannot be added again: {error}"),
            None if self.manages => format!("{lost}; another program keeps it so"),
            None => format!("{lost}: run `pod-identity-agent initialize`, or set --manage-link"),
        }
    }

    fn missing(&self, ip: IpAddr, why: Option<&KernelError>) -> String {
        match why {
            Some(error) => format!("cannot add {ip}: {error}"),
            None if self.manages => {
                format!("{ip} is on no link: another program keeps removing it")
            }
            None => format!("{ip} is on no link: run `pod-identity-agent initialize`, or set --manage-link"),
        }
    }
}

/// What is reported of an address.
enum Verdict {
    Served,
    /// It works there, as long as it stays.
    ServedElsewhere(String),
    Lost(String),
    Impossible,
}

/// How long to wait for an event.
fn poll_interval(outcome: &Result<LinkStatus, KernelError>) -> Duration {
    let Ok(outcome) = outcome else { return RETRY_INTERVAL };
    if outcome.is_complete {
        return POLL_INTERVAL;
    }
    let is_blocked = outcome.addresses.iter().all(|(_, status)| match status {
        AddressStatus::Present | AddressStatus::Foreign { .. } | AddressStatus::Impossible => true,
        AddressStatus::Missing(why) | AddressStatus::NotLocal(why) => {
            matches!(why, Some(KernelError::Ipv6Off | KernelError::NotPermitted))
        }
    });
    if is_blocked { RETRY_INTERVAL_WHEN_BLOCKED } else { RETRY_INTERVAL }
}

fn our_links(outcome: &LinkStatus) -> Vec<u32> {
    let ours = outcome.observed.links.iter().filter(|link| link.name == LINK_NAME || link.name == LOOPBACK);
    ours.map(|link| link.index).collect()
}
