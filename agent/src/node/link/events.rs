//! Events from the kernel: the agent's link or addresses have changed.
//!
//! Owns: which events matter. A node with many pods has link and route events every second, and almost none
//! of them is about the agent's addresses. Must not know: what is done about them.

use std::io;
use std::net::IpAddr;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use super::desired::{CILIUM, LINK_NAME, LOOPBACK};
use super::netlink::{destination, ip, name};

/// The groups that are subscribed to. All are among the first 31, which form a bit mask in the socket's
/// address.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];
/// Room for one message; the kernel's notifications are below a page of 4 KiB, links with many properties a
/// few.
const MESSAGE: usize = 32 * 1024;

/// A subscription to events about links, addresses and routes.
pub(super) struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

/// What the events are filtered by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// The agent's addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// The indexes of the links that they may be on.
    pub(super) links: Vec<u32>,
}

impl Events {
    /// Subscribes.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = GROUPS.iter().fold(0, |groups, group| groups | (1 << (*group as u32 - 1)));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self { socket, buffer: Vec::with_capacity(MESSAGE) })
    }

    /// Waits for an event that matters. Cancel-safe: the caller observes the node after every call, so an
    /// event that is lost changes nothing.
    pub(super) async fn next(&mut self, watched: &Watched) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(_) => {}
                // ENOBUFS: there were more events than the socket's buffer holds. One of the lost ones may
                // matter.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.buffer) {
                Ok(message) if !matters(&message, watched) => {}
                // An event that cannot be parsed may matter.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}

fn matters(message: &NetlinkMessage<RouteNetlinkMessage>, watched: &Watched) -> bool {
    let NetlinkPayload::InnerMessage(event) = &message.payload else { return true };
    // Not a match: the kernel has fifty kinds of events, and three matter.
    if let RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) = event {
        return watched.links.contains(&link.header.index)
            || name(link).is_none_or(|name| [LINK_NAME, LOOPBACK, CILIUM].contains(&name));
    }
    if let RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) = event {
        return watched.links.contains(&address.header.index)
            || ip(address).is_some_and(|ip| watched.addresses.contains(&ip));
    }
    // Each address also has a route that comes and goes with it. Only a route that is deleted alone matters.
    if let RouteNetlinkMessage::DelRoute(route) = event {
        return destination(route).is_some_and(|to| watched.addresses.contains(&to));
    }
    false
}
