//! Events from nftables: some rule of the node has changed.
//!
//! Owns: the subscription. Must not know: which rule changed; the keeper lists the agent's own table to find
//! out.

use std::io;

use futures_util::FutureExt;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_NETFILTER};

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 7;
/// One message describes one rule. A longer one is truncated, which does not matter: its content is not read.
const MAX_MESSAGE: usize = 4 * 1024;

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

    /// Waits for an event, then takes all that are queued. Cancel-safe: the caller lists the table after
    /// every call, so an event that is lost changes nothing.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        self.receive().await?;
        // kube-proxy changes thousands of rules at a time; they count as one event. Bounded, in case they
        // never end.
        for _ in 0..10_000 {
            match self.receive().now_or_never() {
                Some(Ok(())) => {}
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer).await {
            Ok(_) => Ok(()),
            // ENOBUFS: there were more events than the socket's buffer holds.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
