//! Setting up once, for `initialize`, and removing, for `cleanup`.
//!
//! Owns: what counts as success there. Must not know: exit codes and output.

use std::net::IpAddr;

use super::converge::{AddressStatus, converge, link_status};
use super::desired::{Desired, LINK_NAME, LOOPBACK};
use super::netlink::{self, KernelError, observe};
use crate::config::LinkPlace;
use crate::workload::WELL_KNOWN;

/// Why the node is not set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetUpError {
    /// The node's state is unknown.
    #[error("cannot list the node's links")]
    Observe(#[source] KernelError),
    /// Another link has the address.
    #[error("{ip} is on the link {link}: remove it from there, or do not run `initialize`")]
    Foreign {
        /// The address.
        ip: IpAddr,
        /// The link.
        link: String,
    },
    /// The kernel refused.
    #[error("cannot add {ip}")]
    Refused {
        /// The address.
        ip: IpAddr,
        /// Why.
        source: KernelError,
    },
    /// It is removed as fast as it is added.
    #[error("{0} was added and is gone again: another program keeps removing it")]
    Contested(IpAddr),
}

/// Gives the node both well-known addresses. IPv6 is optional: returns why it was left out, if it was.
///
/// # Errors
/// [`SetUpError`], if the IPv4 address cannot be added, or if one of the two is on a link that the agent does
/// not manage.
pub async fn set_up(place: LinkPlace) -> Result<Option<SetUpError>, SetUpError> {
    let mut dummy_supported = true;
    let desired = Desired::well_known(place);
    // If an address is on another link, nothing on the node is changed.
    let before = link_status(&desired).await.map_err(SetUpError::Observe)?;
    for (ip, status) in before.addresses {
        if let AddressStatus::Foreign { link, .. } = status {
            return Err(SetUpError::Foreign { ip, link });
        }
    }
    let status = converge(&desired, &mut dummy_supported).await.map_err(SetUpError::Observe)?;
    let mut left_out = None;
    for (ip, status) in status.addresses {
        let problem = match status {
            AddressStatus::Present => continue,
            AddressStatus::Foreign { link, .. } => return Err(SetUpError::Foreign { ip, link }),
            AddressStatus::Missing(Some(source)) | AddressStatus::NotLocal(Some(source)) => {
                SetUpError::Refused { ip, source }
            }
            AddressStatus::Missing(None) | AddressStatus::NotLocal(None) => SetUpError::Contested(ip),
            AddressStatus::Impossible => SetUpError::Refused { ip, source: KernelError::Ipv6Off },
        };
        if ip.is_ipv4() {
            return Err(problem);
        }
        left_out = Some(problem);
    }
    Ok(left_out)
}

/// Removes the agent's link and addresses from the node; returns what was removed. An address on a link that
/// the agent does not manage stays.
///
/// # Errors
/// [`KernelError`], if the kernel refuses.
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
            removed.push(format!("address {ip} on {LOOPBACK}"));
        }
    }
    Ok(removed)
}
