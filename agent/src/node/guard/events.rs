//! Events from nftables: the agent's table has changed.
//!
//! Owns: the subscription, which events are about the agent's table, and whether it was removed. Must not
//! know: what else changed; the keeper lists the table to find out.
//!
//! kube-proxy changes thousands of rules of the node at a time. Each look starts a process, so events about
//! other tables lead to none.

use std::io;

use futures_util::FutureExt;
use rtnetlink::packet_core::NetlinkBuffer;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_NETFILTER};

use super::table::TABLE;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 7;
/// `NFT_MSG_NEWTABLE` and `NFT_MSG_DELTABLE` of linux/netfilter/nf_tables.h, of the subsystem
/// `NFNL_SUBSYS_NFTABLES`, which is 10.
const NEW_TABLE: u16 = 10 << 8;
const DELETE_TABLE: u16 = 10 << 8 | 2;
/// A transaction of some fifty events comes in one piece of this length; of a longer one the rest is lost,
/// and it counts as one about the agent's table.
const MAX_MESSAGE: usize = 16 * 1024;

/// What events say of the agent's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was removed, and not made again since.
    Removed,
    /// It may be another.
    Unknown,
}

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
    pub(super) async fn next(&mut self) -> io::Result<Change> {
        let mut change = loop {
            if let Some(change) = self.receive().await? {
                break change;
            }
        };
        // A transaction is many events; they count as one. Bounded, in case they never end.
        for _ in 0..10_000 {
            match self.receive().now_or_never() {
                Some(later) => change = later?.unwrap_or(change),
                None => break,
            }
        }
        Ok(change)
    }

    /// What the next events say, if they may be about the agent's table.
    async fn receive(&mut self) -> io::Result<Option<Change>> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer).await {
            Ok(_) if self.buffer.len() >= MAX_MESSAGE => Ok(Some(Change::Unknown)),
            Ok(_) => Ok(change_in(&self.buffer)),
            // ENOBUFS: there were more events than the socket's buffer holds.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(Some(Change::Unknown)),
            Err(error) => Err(error),
        }
    }
}

/// What the events of one message of the socket say of the agent's table.
fn change_in(mut events: &[u8]) -> Option<Change> {
    let mut change = None;
    while let Ok(event) = NetlinkBuffer::new_checked(events) {
        if names_the_table(event.payload()) {
            change = match event.message_type() {
                DELETE_TABLE => Some(Change::Removed),
                NEW_TABLE => Some(Change::Unknown),
                // Rules and sets are removed before the table, and made after it.
                _ => change.or(Some(Change::Unknown)),
            };
        }
        // The next one begins at a multiple of four.
        let length = (event.length() as usize).next_multiple_of(4);
        events = events.get(length..).unwrap_or_default();
    }
    change
}

/// Every event about a table, or about what is in it, has the name of the table as a string that ends in
/// zero.
fn names_the_table(event: &[u8]) -> bool {
    let is_name = |bytes: &[u8]| bytes.split_last() == Some((&0, TABLE.as_bytes()));
    event.windows(TABLE.len() + 1).any(is_name)
}

#[cfg(test)]
mod tests {
    use super::{Change, DELETE_TABLE, NEW_TABLE, TABLE, change_in, names_the_table};

    /// `NFT_MSG_DELRULE`.
    const DELETE_RULE: u16 = 10 << 8 | 8;

    fn event(of: u16, name: &str) -> Vec<u8> {
        let mut payload = b"\x01\0\0\0\x17\0\x01\0".to_vec();
        payload.extend_from_slice(name.as_bytes());
        payload.push(0);
        let length = 16 + payload.len();
        let mut event = u32::try_from(length).unwrap().to_ne_bytes().to_vec();
        event.extend_from_slice(&of.to_ne_bytes());
        event.resize(16, 0);
        event.extend_from_slice(&payload);
        event.resize(length.next_multiple_of(4), 0);
        event
    }

    #[test]
    fn only_events_that_name_the_table_count() {
        assert!(names_the_table(b"\x17\0\x01\0pod_identity_agent\0\0"));
        for other in [&b"\x08\0\x01\0kube-proxy\0"[..], b"pod_identity_agents\0", b"pod_identity_agent", b""]
        {
            assert!(!names_the_table(other));
        }
        assert_eq!(change_in(&event(DELETE_TABLE, "kube-proxy")), None);
    }

    #[test]
    fn a_table_is_removed_if_it_was_and_is_not_made_again() {
        let [removed, rule, made] = [DELETE_TABLE, DELETE_RULE, NEW_TABLE].map(|of| event(of, TABLE));
        let other = event(NEW_TABLE, "kube-proxy");
        let seen = |events: &[&Vec<u8>]| {
            change_in(&events.iter().flat_map(|event| event.iter().copied()).collect::<Vec<_>>())
        };
        assert_eq!(seen(&[&rule, &removed]), Some(Change::Removed));
        assert_eq!(seen(&[&rule, &removed, &other]), Some(Change::Removed));
        assert_eq!(seen(&[&removed, &made]), Some(Change::Unknown));
        assert_eq!(seen(&[&rule]), Some(Change::Unknown));
        assert_eq!(seen(&[&other]), None);
        assert_eq!(change_in(b"short"), None);
    }
}
