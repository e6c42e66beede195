//! Setting up once, for `initialize`, and taking away, for `cleanup`.
//!
//! Owns: what counts as success there. Must not know: exit codes and how things are said.

use std::net::IpAddr;

use super::converge::{AddressStatus, converge, link_status};
use super::desired::{Desired, LINK_NAME, LOOPBACK};
use super::netlink::{self, KernelError, observe};
use crate::config::LinkPlace;
use crate::workload::WELL_KNOWN;

/// Why the node is not set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetUpError {
    /// The kernel cannot be asked.
    #[error("the node's links cannot be listed")]
    Observe(#[source] KernelError),
    /// Another link has the address.
    #[error(
        "{ip} is on the link {link}, which is not ours; take it off there, or leave the agent's link out"
    )]
    Foreign {
        /// The address.
        ip: IpAddr,
        /// The link.
        link: String,
    },
    /// The kernel refused.
    #[error("{ip} cannot be added")]
    Refused {
        /// The address.
        ip: IpAddr,
        /// Why.
        source: KernelError,
    },
    /// It vanishes as fast as it is added.
    #[error("{0} was added and is gone again: somebody else removes it")]
    Contested(IpAddr),
}

/// Gives the node both well-known addresses. IPv6 is optional: returns why it was left out, if it was.
///
/// # Errors
/// [`SetUpError`], if the node does not have the IPv4 address on a link of ours, or somebody else has either of them.
pub async fn set_up(place: LinkPlace) -> Result<Option<SetUpError>, SetUpError> {
    let mut dummy_supported = true;
    let desired = Desired::well_known(place);
    // Nothing is touched on a node whose address is somebody else's.
    let before = link_status(&desired).await.map_err(SetUpError::Observe)?;
    for (ip, status) in before.addresses {
        if let AddressStatus::Foreign(link) = status {
            return Err(SetUpError::Foreign { ip, link });
        }
    }
    let status = converge(&desired, &mut dummy_supported).await.map_err(SetUpError::Observe)?;
    let mut left_out = None;
    for (ip, status) in status.addresses {
        let problem = match status {
            AddressStatus::Present => continue,
            AddressStatus::Foreign(link) => return Err(SetUpError::Foreign { ip, link }),
            AddressStatus::Missing(Some(source)) => SetUpError::Refused { ip, source },
            AddressStatus::Missing(None) => SetUpError::Contested(ip),
        };
        if ip.is_ipv4() {
            return Err(problem);
        }
        left_out = Some(problem);
    }
    Ok(left_out)
}

/// Takes our link and our addresses off the node; returns what there was. An address on somebody else's link is theirs.
///
/// # Errors
/// [`KernelError`], if the kernel does not do it.
pub async fn remove() -> Result<Vec<String>, KernelError> {
    let observed = observe().await?;
    let mut removed = Vec::new();
    if let Some(own) = observed.link(LINK_NAME) {
        netlink::remove_link(own.index).await?;
        removed.push(format!("link {LINK_NAME}"));
    }
    for ip in WELL_KNOWN {
        if let Some(holder) = observed.holder(ip).filter(|holder| holder.name == LOOPBACK) {
            netlink::remove_address(holder.index, ip).await?;
            removed.push(format!("address {ip} of {LOOPBACK}"));
        }
    }
    Ok(removed)
}
