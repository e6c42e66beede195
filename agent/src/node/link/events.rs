//! News from the kernel: something about our link or addresses has changed.
//!
//! Owns: which news concern us. A node with many pods has news of links and routes every second, and hardly ever ours.
//! Must not know: what is done about them.

use std::io;
use std::net::IpAddr;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use super::desired::{CILIUM, LINK_NAME, LOOPBACK};
use super::netlink::{destination, ip, name};

/// What is listened to. All are among the first 31 groups, which are a mask in the socket's address.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];
/// Room for one message; the kernel's notifications are below a page of 4 KiB, links with many properties a few.
const MESSAGE: usize = 32 * 1024;

/// A subscription to the kernel's news.
pub(super) struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

/// What our watch is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// Our addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// The numbers of the links they may live on.
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

    /// Waits for news that concern us. Cancel-safe: one missed is one that the caller is looking at already.
    pub(super) async fn next(&mut self, watched: &Watched) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(_) => {}
                // ENOBUFS: there were more than the socket could take. Which, nobody knows: look.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.buffer) {
                Ok(message) if !concerns(&message, watched) => {}
                // What cannot be read may concern us.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}

fn concerns(message: &NetlinkMessage<RouteNetlinkMessage>, watched: &Watched) -> bool {
    let NetlinkPayload::InnerMessage(news) = &message.payload else { return true };
    // Not a match: the kernel has fifty kinds of news, and three concern us.
    if let RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) = news {
        return watched.links.contains(&link.header.index)
            || name(link).is_none_or(|name| [LINK_NAME, LOOPBACK, CILIUM].contains(&name));
    }
    if let RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) = news {
        return watched.links.contains(&address.header.index)
            || ip(address).is_some_and(|ip| watched.addresses.contains(&ip));
    }
    // Each address is also a route that comes and goes with it; only one that goes alone is news.
    if let RouteNetlinkMessage::DelRoute(route) = news {
        return destination(route).is_some_and(|to| watched.addresses.contains(&to));
    }
    false
}
