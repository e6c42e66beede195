//! Events from nftables: the agent's table has changed.
//!
//! Owns: the subscription, and which events are about the agent's table. Must not know: what changed; the
//! keeper lists the table to find out.
//!
//! kube-proxy changes thousands of rules of the node at a time. Each look starts a process, so events about
//! other tables lead to none.

use std::io;

use futures_util::FutureExt;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_NETFILTER};

use super::table::TABLE;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 7;
/// A transaction of some fifty events comes in one piece of this length; of a longer one the rest is lost,
/// and it counts as one about the agent's table.
const MAX_MESSAGE: usize = 16 * 1024;

/// A subscription to nftables events.
pub(super) struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Events {
    /// Subscribes.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().add_membership(NFTABLES_GROUP)?;
        Ok(Self { socket, buffer: Vec::with_capacity(MAX_MESSAGE) })
    }

    /// Waits for an event about the agent's table, then takes all that are queued. Cancel-safe: the caller
    /// lists the table after every call, so an event that is lost changes nothing.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        while !self.receive().await? {}
        // A transaction is many events; they count as one. Bounded, in case they never end.
        for _ in 0..10_000 {
            match self.receive().now_or_never() {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        Ok(())
    }

    /// Whether the next event may be about the agent's table.
    async fn receive(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer).await {
            Ok(_) => {
                let is_cut = self.buffer.len() >= MAX_MESSAGE;
                Ok(is_cut || names_the_table(&self.buffer))
            }
            // ENOBUFS: there were more events than the socket's buffer holds.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Every event about a table, or about what is in it, has the name of the table as a string that ends in
/// zero.
fn names_the_table(event: &[u8]) -> bool {
    let is_name = |bytes: &[u8]| bytes.split_last() == Some((&0, TABLE.as_bytes()));
    event.windows(TABLE.len() + 1).any(is_name)
}

#[cfg(test)]
mod tests {
    use super::names_the_table;

    #[test]
    fn only_events_that_name_the_table_count() {
        assert!(names_the_table(b"\x17\0\x01\0pod_identity_agent\0\0"));
        for other in [&b"\x08\0\x01\0kube-proxy\0"[..], b"pod_identity_agents\0", b"pod_identity_agent", b""]
        {
            assert!(!names_the_table(other));
        }
    }
}
