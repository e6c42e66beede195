//! From what is there to what is wanted, step by step.
//!
//! Owns: how often is looked and stepped, and what the outcome means for each address. Must not know: when.

use std::net::IpAddr;

use super::desired::Desired;
use super::difference::{Action, Plan, difference};
use super::netlink::{KernelError, apply, observe};
use super::observed::Observed;

/// Making the link, switching it on, giving it addresses and routes is three looks; more mean that somebody undoes it.
const MAX_ROUNDS: usize = 5;

/// How the node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkStatus {
    /// What was seen last.
    pub(super) observed: Observed,
    /// Each of our addresses.
    pub(super) addresses: Vec<(IpAddr, AddressStatus)>,
    /// Whether all is as it should be.
    pub(super) is_complete: bool,
}

/// How one address stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AddressStatus {
    /// Where it should be.
    Present,
    /// On a link that is not ours.
    Foreign(String),
    /// On no link.
    Missing(Option<KernelError>),
}

/// Only looks.
pub(super) async fn link_status(desired: &Desired) -> Result<LinkStatus, KernelError> {
    let observed = observe().await?;
    let plan = difference(desired, &observed, true);
    Ok(summarize(desired, observed, &plan, &[]))
}

/// Looks and steps until all is as it should be, or a step cannot be taken.
pub(super) async fn converge(
    desired: &Desired,
    dummy_supported: &mut bool,
) -> Result<LinkStatus, KernelError> {
    let mut failed: Vec<(Action, KernelError)> = Vec::new();
    let mut rounds = 0;
    loop {
        rounds += 1;
        let observed = observe().await?;
        let plan = difference(desired, &observed, *dummy_supported);
        let next: Vec<Action> = plan
            .actions
            .iter()
            .copied()
            .filter(|action| !failed.iter().any(|(tried, _)| tried == action))
            .collect();
        if next.is_empty() || rounds > MAX_ROUNDS {
            return Ok(summarize(desired, observed, &plan, &failed));
        }
        for action in next {
            match apply(action).await {
                Ok(()) => tracing::info!(?action, "node network changed"),
                Err(KernelError::NoDummyLinks) => {
                    *dummy_supported = false;
                    failed.push((action, KernelError::NoDummyLinks));
                }
                // It was deleted in between; the next look sees it.
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
                (Some(foreign), _) => AddressStatus::Foreign(foreign.link.clone()),
                (None, Some(_)) => AddressStatus::Present,
                (None, None) => AddressStatus::Missing(why_missing(*ip, failed)),
            };
            (*ip, status)
        })
        .collect();
    LinkStatus { observed, addresses, is_complete: plan.actions.is_empty() }
}

/// The refusal that keeps this address away: its own, else that of the link it would live on.
fn why_missing(ip: IpAddr, failed: &[(Action, KernelError)]) -> Option<KernelError> {
    let own = failed.iter().find(|(action, _)| match action {
        Action::AddAddress { ip: added, .. } => *added == ip,
        Action::CreateLink | Action::BringUp { .. } | Action::AddRoute { .. } => false,
    });
    let link = || {
        failed.iter().find(|(action, _)| match action {
            Action::CreateLink | Action::BringUp { .. } => true,
            Action::AddAddress { .. } | Action::AddRoute { .. } => false,
        })
    };
    own.or_else(link).map(|(_, error)| error.clone())
}
