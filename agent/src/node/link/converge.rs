//! From the observed state to the desired one, step by step.
//!
//! Owns: how many rounds are tried, and what the outcome means for each address. Must not know: when this
//! happens.

use std::net::IpAddr;
use std::time::Duration;

use super::desired::Desired;
use super::difference::{Action, Plan, difference};
use super::netlink::{KernelError, apply, observe};
use super::observed::Observed;

/// Creating the link, adding addresses, and adding routes take three rounds. More mean that another program
/// undoes them.
const MAX_ROUNDS: usize = 5;
/// An IPv6 address that was added is answered on a moment later: a work queue of the kernel puts it into the
/// local table (net/ipv6/addrconf.c, `addrconf_dad_work`). Measured on a busy node: up to 30 ms.
const SETTLE: Duration = Duration::from_millis(20);
/// So often that is waited for; then something else keeps it away.
const MAX_SETTLING: usize = 10;

/// What the node has of the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkStatus {
    /// What was observed last.
    pub(super) observed: Observed,
    /// Each of the agent's addresses.
    pub(super) addresses: Vec<(IpAddr, AddressStatus)>,
    /// What the kernel refused of the rest: links that are down, routes of the main table.
    pub(super) refused: Vec<(Action, KernelError)>,
    /// Whether nothing is left to do.
    pub(super) is_complete: bool,
}

/// Where one of the agent's addresses is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AddressStatus {
    /// On `pod-id-link0` or `lo`, and the kernel answers on it.
    Present,
    /// On another link.
    Foreign {
        /// Its name.
        link: String,
        /// Whether the kernel answers on it.
        is_local: bool,
    },
    /// On `pod-id-link0` or `lo`, but not in the local table: packets for it go elsewhere. With the kernel's
    /// refusal, if there was one.
    NotLocal(Option<KernelError>),
    /// On no link; with the kernel's refusal, if there was one.
    Missing(Option<KernelError>),
    /// The node cannot have it: IPv6 is switched off.
    Impossible,
}

/// Observes, and changes nothing.
pub(super) async fn link_status(desired: &Desired) -> Result<LinkStatus, KernelError> {
    let observed = observe().await?;
    let plan = difference(desired, &observed, true);
    Ok(summarize(desired, observed, &plan, &[]))
}

/// Observes and takes steps until nothing is left to do, or every remaining step has failed.
pub(super) async fn converge(
    desired: &Desired,
    dummy_supported: &mut bool,
) -> Result<LinkStatus, KernelError> {
    let mut failed: Vec<(Action, KernelError)> = Vec::new();
    // Once is enough: an address that is not local after that is kept so by something else, and taking it
    // away again and again would only do harm.
    let mut renewed: Vec<Action> = Vec::new();
    let mut added: Vec<IpAddr> = Vec::new();
    let (mut rounds, mut settling) = (0, 0);
    loop {
        let observed = observe().await?;
        let plan = difference(desired, &observed, *dummy_supported);
        let is_settling = |action: &Action| action.renewed().is_some_and(|ip| added.contains(&ip));
        if plan.actions.iter().any(is_settling) && settling < MAX_SETTLING {
            settling += 1;
            tokio::time::sleep(SETTLE).await;
            continue;
        }
        rounds += 1;
        let next: Vec<Action> = plan
            .actions
            .iter()
            .copied()
            .filter(|action| !failed.iter().any(|(tried, _)| tried == action) && !renewed.contains(action))
            .collect();
        if next.is_empty() || rounds > MAX_ROUNDS {
            return Ok(summarize(desired, observed, &plan, &failed));
        }
        for action in next {
            match apply(action).await {
                Ok(()) => {
                    tracing::info!(?action, "node network changed");
                    added.extend(action.added());
                    if action.renewed().is_some() {
                        renewed.push(action);
                        settling = 0;
                    }
                }
                Err(KernelError::NoDummyLinks) => {
                    *dummy_supported = false;
                    failed.push((action, KernelError::NoDummyLinks));
                }
                // It was deleted in between; the next round observes that.
                Err(KernelError::LinkGone) => {}
                Err(error) => failed.push((action, error)),
            }
        }
    }
}

fn summarize(
    desired: &Desired,
    observed: Observed,
    plan: &Plan,
    failed: &[(Action, KernelError)],
) -> LinkStatus {
    let addresses: Vec<_> = desired
        .addresses
        .iter()
        .map(|ip| {
            let foreign = plan.foreign.iter().find(|foreign| foreign.ip == *ip);
            let status = match (foreign, observed.holder(*ip)) {
                (None, None) if !observed.can_have(*ip) => AddressStatus::Impossible,
                (None, None) => match why_missing(*ip, failed) {
                    // By a setting of the link that the address would be on, or of links to come.
                    Some(KernelError::Ipv6Off) => AddressStatus::Impossible,
                    why => AddressStatus::Missing(why),
                },
                (Some(foreign), _) => {
                    let link = foreign.link.clone();
                    AddressStatus::Foreign { link, is_local: observed.is_local(*ip) }
                }
                (None, Some(_)) if observed.is_local(*ip) => AddressStatus::Present,
                (None, Some(_)) => AddressStatus::NotLocal(why_missing(*ip, failed)),
            };
            (*ip, status)
        })
        .collect();
    let refused = failed.iter().filter(|(action, _)| action.is_beside_addresses()).cloned().collect();
    LinkStatus { observed, addresses, refused, is_complete: plan.actions.is_empty() }
}

/// The error that keeps this address from being added: its own, else that of the link it would be on.
fn why_missing(ip: IpAddr, failed: &[(Action, KernelError)]) -> Option<KernelError> {
    let own = failed.iter().find(|(action, _)| match action {
        Action::AddAddress { ip: added, .. } | Action::RenewAddress { ip: added, .. } => *added == ip,
        Action::CreateLink | Action::BringUp { .. } | Action::AddRoute { .. } => false,
    });
    let link = || {
        failed.iter().find(|(action, _)| match action {
            Action::CreateLink | Action::BringUp { .. } => true,
            Action::AddAddress { .. } | Action::RenewAddress { .. } | Action::AddRoute { .. } => false,
        })
    };
    own.or_else(link).map(|(_, error)| error.clone())
}
