//! The kernel's side: observing the node, and taking one step.
//!
//! Owns: the netlink messages of each step, and what the kernel's errors mean. Must not know: why a step is
//! taken.
//!
//! Each call has its own socket and deadline: nothing is kept that could grow or become outdated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{AddressMessageBuilder, Handle, LinkDummy, LinkUnspec, RouteMessageBuilder};

use super::desired::LINK_NAME;
use super::difference::{Action, Scope};
use super::observed::{Address, Link, Observed, Route};
use crate::node::ipv6;
use crate::workload::WELL_KNOWN;

/// The kernel answers in microseconds. If it is busy with thousands of other links for longer, the call fails
/// and is tried again later.
const DEADLINE: Duration = Duration::from_secs(2);
/// The table that the kernel looks at first, to tell its own addresses (`RT_TABLE_LOCAL`).
const LOCAL_TABLE: u8 = 255;

/// Why a netlink call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket can be opened.
    #[error("cannot open a netlink socket: {0}")]
    NoSocket(String),
    /// No answer in time.
    #[error("the kernel did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
    /// A capability is missing.
    #[error("not permitted: CAP_NET_ADMIN is missing")]
    NotPermitted,
    /// Dummy links are neither built in nor available as a module.
    #[error("the kernel does not support dummy links")]
    NoDummyLinks,
    /// IPv6 is disabled, on this link or on the whole node.
    #[error("IPv6 is disabled")]
    Ipv6Off,
    /// The link was deleted in between.
    #[error("the link no longer exists")]
    LinkGone,
    /// Another error of the kernel.
    #[error("the kernel refused: {0}")]
    Refused(Errno),
    /// The answer is not a valid netlink message.
    #[error("cannot parse the kernel's answer")]
    Unreadable,
}

/// Lists the node's links, addresses and routes.
///
/// # Errors
/// [`KernelError`], if they cannot be listed.
pub(super) async fn observe() -> Result<Observed, KernelError> {
    request(async |kernel| {
        let links: Vec<Link> = links(&kernel).await?;
        let addresses = addresses(&kernel).await?;
        let routes = match links.iter().find(|link| link.name == LINK_NAME) {
            Some(own) => {
                [routes(&kernel, own.index, true).await?, routes(&kernel, own.index, false).await?].concat()
            }
            None => Vec::new(),
        };
        let is_ipv6_off = ipv6::is_switched_off();
        let mut local = local_addresses(&kernel, true).await?;
        if !is_ipv6_off {
            local.append(&mut local_addresses(&kernel, false).await?);
        }
        Ok(Observed { links, addresses, routes, local, is_ipv6_off })
    })
    .await
}

/// Takes a step. That it is done already is not an error.
///
/// # Errors
/// [`KernelError`], if the kernel refuses it.
pub(super) async fn apply(action: Action) -> Result<(), KernelError> {
    let done = request(async |kernel| match action {
        Action::CreateLink => kernel.link().add(create_link()).execute().await,
        Action::BringUp { link } => {
            kernel.link().change(LinkUnspec::new_with_index(link).up().build()).execute().await
        }
        Action::AddAddress { link, ip, scope } => add_address(&kernel, link, ip, scope).await,
        Action::RenewAddress { link, ip, scope } => {
            // If it is gone by now, adding it is what is left to do; if it cannot be deleted, adding fails.
            let _gone = kernel.address().del(address(link, ip, scope)).execute().await;
            add_address(&kernel, link, ip, scope).await
        }
        Action::AddRoute { link, ip } => kernel.route().add(route(link, ip)).execute().await,
    })
    .await;
    match (done, action) {
        (Err(KernelError::Refused(Errno::EEXIST)), _) => Ok(()),
        (Err(KernelError::Refused(Errno::EOPNOTSUPP)), Action::CreateLink) => Err(KernelError::NoDummyLinks),
        // EACCES: disable_ipv6 of the link; EOPNOTSUPP: no IPv6 in the kernel, or `ipv6.disable=1`.
        (
            Err(KernelError::Refused(Errno::EACCES | Errno::EOPNOTSUPP)),
            Action::AddAddress { ip: IpAddr::V6(_), .. }
            | Action::RenewAddress { ip: IpAddr::V6(_), .. }
            | Action::AddRoute { ip: IpAddr::V6(_), .. },
        ) => Err(KernelError::Ipv6Off),
        (done, _) => done,
    }
}

async fn add_address(kernel: &Handle, link: u32, ip: IpAddr, scope: Scope) -> Result<(), rtnetlink::Error> {
    let mut request = kernel.address().add(link, ip, prefix(ip));
    *request.message_mut() = address(link, ip, scope);
    request.execute().await
}

/// Removes a link and everything on it. That it does not exist is not an error.
pub(super) async fn remove_link(index: u32) -> Result<(), KernelError> {
    is_gone(request(async |kernel| kernel.link().del(index).execute().await).await)
}

/// Removes an address. That it does not exist is not an error.
pub(super) async fn remove_address(link: u32, ip: IpAddr) -> Result<(), KernelError> {
    let message = address(link, ip, Scope::Host);
    is_gone(request(async |kernel| kernel.address().del(message.clone()).execute().await).await)
}

pub(super) fn is_gone(done: Result<(), KernelError>) -> Result<(), KernelError> {
    match done {
        Err(KernelError::LinkGone | KernelError::Refused(Errno::EADDRNOTAVAIL)) => Ok(()),
        done => done,
    }
}

/// Runs one operation over its own socket. The connection is driven here and ends here.
pub(super) async fn request<T>(
    operation: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>,
) -> Result<T, KernelError> {
    // Strict: the kernel filters dumps by the request, instead of sending all of a large routing table.
    let (connection, kernel, _events) = rtnetlink::new_connection_with_strict_check()
        .map_err(|error| KernelError::NoSocket(error.to_string()))?;
    let answer = async {
        tokio::select! {
            answer = operation(kernel) => answer.map_err(|error| classify(&error)),
            () = connection => Err(KernelError::Unreadable),
        }
    };
    tokio::time::timeout(DEADLINE, answer).await.unwrap_or(Err(KernelError::Timeout))
}

fn classify(error: &rtnetlink::Error) -> KernelError {
    let rtnetlink::Error::NetlinkError(refusal) = error else { return KernelError::Unreadable };
    // Netlink error numbers are negative.
    let errno = Errno::from_raw(refusal.raw_code().saturating_neg());
    if errno == Errno::EPERM {
        KernelError::NotPermitted
    } else if errno == Errno::ENODEV {
        KernelError::LinkGone
    } else {
        KernelError::Refused(errno)
    }
}

pub(super) async fn links(kernel: &Handle) -> Result<Vec<Link>, rtnetlink::Error> {
    let mut found = pin!(kernel.link().get().execute());
    let mut links = Vec::new();
    while let Some(message) = found.try_next().await? {
        links.extend(name(&message).map(|name| Link {
            index: message.header.index,
            name: name.to_owned(),
            is_up: message.header.flags.contains(LinkFlags::Up),
        }));
    }
    Ok(links)
}

async fn addresses(kernel: &Handle) -> Result<Vec<Address>, rtnetlink::Error> {
    let mut found = pin!(kernel.address().get().execute());
    let mut addresses = Vec::new();
    while let Some(message) = found.try_next().await? {
        addresses.extend(ip(&message).map(|ip| Address { link: message.header.index, ip }));
    }
    Ok(addresses)
}

async fn routes(kernel: &Handle, link: u32, ipv4: bool) -> Result<Vec<Route>, rtnetlink::Error> {
    let filter = if ipv4 {
        filter(RouteMessageBuilder::<Ipv4Addr>::new().output_interface(link).build())
    } else {
        filter(RouteMessageBuilder::<Ipv6Addr>::new().output_interface(link).build())
    };
    let mut found = pin!(kernel.route().get(filter).execute());
    let mut routes = Vec::new();
    while let Some(message) = found.try_next().await? {
        let is_one_address = message.header.destination_prefix_length == if ipv4 { 32 } else { 128 };
        if is_one_address {
            routes.extend(destination(&message).map(|to| Route { link, to }));
        }
    }
    Ok(routes)
}

/// The single addresses of the local table, over all links: kernels before 4.18 note those of IPv6 with `lo`,
/// whatever link has the address.
async fn local_addresses(kernel: &Handle, ipv4: bool) -> Result<Vec<IpAddr>, rtnetlink::Error> {
    let filter = if ipv4 {
        filter(RouteMessageBuilder::<Ipv4Addr>::new().table_id(LOCAL_TABLE.into()).build())
    } else {
        filter(RouteMessageBuilder::<Ipv6Addr>::new().table_id(LOCAL_TABLE.into()).build())
    };
    let mut found = pin!(kernel.route().get(filter).execute());
    let mut local = Vec::new();
    while let Some(message) = found.try_next().await? {
        // The agent's two addresses are well known; a node with many services has thousands of others.
        let ours = destination(&message).filter(|to| WELL_KNOWN.contains(to));
        if message.header.kind == RouteType::Local && message.header.table == LOCAL_TABLE {
            local.extend(ours);
        }
    }
    Ok(local)
}

/// The filter of a dump: the kernel would take the builders' defaults for a new route as further conditions.
fn filter(mut message: RouteMessage) -> RouteMessage {
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unspec;
    message
}

/// The name in a message about a link.
pub(super) fn name(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| {
        if let LinkAttribute::IfName(name) = attribute { Some(name.as_str()) } else { None }
    })
}

/// The address in a message about an address. If there are two, as on a point-to-point link, `IFA_LOCAL` is
/// the node's own.
pub(super) fn ip(message: &AddressMessage) -> Option<IpAddr> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| {
            if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None }
        })
    })
}

/// The destination in a message about a route.
pub(super) fn destination(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(RouteAddress::Inet(ip)) = attribute {
            Some(IpAddr::V4(*ip))
        } else if let RouteAttribute::Destination(RouteAddress::Inet6(ip)) = attribute {
            Some(IpAddr::V6(*ip))
        } else {
            None
        }
    })
}

/// A dummy link with the agent's name, set up.
pub(super) fn create_link() -> LinkMessage {
    LinkDummy::new(LINK_NAME).up().build()
}

/// One address, as a single host. IPv6 without duplicate address detection: it would make the address
/// unusable for a second or two, and on a link with a single host there can be no duplicate
/// (docs/design/facts.md#ipv6-addresses).
pub(super) fn address(link: u32, ip: IpAddr, scope: Scope) -> AddressMessage {
    let mut message = match ip {
        IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new().index(link).address(ip, 32).build(),
        IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new().index(link).address(ip, 128).build(),
    };
    match (ip, scope) {
        (IpAddr::V4(_), Scope::Host) => message.header.scope = AddressScope::Host,
        (IpAddr::V4(_), Scope::Global) => message.header.scope = AddressScope::Universe,
        (IpAddr::V6(_), Scope::Host | Scope::Global) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    message
}

/// A route to one address directly over a link, without a gateway.
pub(super) fn route(link: u32, ip: IpAddr) -> RouteMessage {
    match ip {
        IpAddr::V4(ip) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, 32);
            route.output_interface(link).scope(RouteScope::Link).build()
        }
        IpAddr::V6(ip) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128);
            route.output_interface(link).build()
        }
    }
}

const fn prefix(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
