//! What a connection may take, and what a peer.
//!
//! Owns: the numbers. Must not know: how they are kept (`connection`, `activity`, `peers`).

use std::time::Duration;

use super::capacity::Capacity;
use super::places::Room;

/// A request that finds no place waits this long for one, as long as it would be held for its credentials.
pub const LONGEST_WAIT: Duration = Duration::from_millis(4_500);

/// How large a request head may be in bytes, else 431; also the size of hyper's read buffer. 32 KiB: twice
/// what docs/design/client-contract.md#request-rules asks for.
pub const HEAD_BYTES: usize = 32 * 1024;

/// How much may be kept of a connection's requests between two of them, in bytes.
pub const MEMORY_OF_REQUESTS: usize = 4 * 1024;

/// The limits of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// An idle connection is kept this long. 60 s: docs/design/client-contract.md#request-rules asks for 30
    /// to 75.
    pub idle: Duration,
    /// A request waits this long for a place.
    pub place: Duration,
    /// A request head is complete this long after its first byte. 10 s.
    pub request_head: Duration,
    /// A response makes progress at least this often. 10 s; it fits into the socket's buffer, so only a
    /// client that sends requests and reads no answers gets there.
    pub response_write: Duration,
    /// How long a connection that the agent closes waits for the client to close too. 1 s.
    pub linger: Duration,
    /// How large a request head may be in bytes, else 431.
    pub head_bytes: usize,
    /// Whether a connection has one request, which takes a place only when its whole head has arrived.
    pub one_whole_request: bool,
}

impl ConnectionLimits {
    /// Of an admin listener. Its pages are ready at once, so nothing but a slow client can keep a place: a
    /// head that is not complete has none, and the connection ends with the answer. So a process of the node
    /// that opens all it can does not keep the kubelet, which calls from the same address, from its probes.
    pub fn for_admin() -> Self {
        Self {
            request_head: Duration::from_secs(2),
            response_write: Duration::from_secs(2),
            // Nothing that matters is unread.
            linger: Duration::ZERO,
            one_whole_request: true,
            ..Self::default()
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            place: LONGEST_WAIT,
            request_head: Duration::from_secs(10),
            response_write: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            head_bytes: HEAD_BYTES,
            one_whole_request: false,
        }
    }
}

/// How much one peer, and all together, may have open.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Connections with a request, and those that are kept after one. A pod has at least 64
    /// (docs/design/decisions.md#fairness): the busiest client pools seen hold ten.
    pub connections: Room,
    /// Accepted connections that have sent nothing yet, or wait for a place.
    pub waiting: Room,
    /// Requests that wait for an answer. A pod has at least 32 (docs/design/decisions.md#fairness).
    pub held: Room,
    /// How many times as much the node's own addresses get. 8 (docs/design/decisions.md#fairness): all
    /// host-network pods share them.
    pub host_factor: usize,
    /// How long a new connection does not count as idle although silent. 1 s: the longest that a client takes
    /// to send its request.
    pub fresh: Duration,
    /// Requests per second of one pod that are answered at once; `None`: all are.
    pub pace: Option<u32>,
}

impl PeerLimits {
    /// The limits of the credential listeners.
    pub fn for_credentials(capacity: Capacity, pace: Option<u32>) -> Self {
        Self {
            connections: Room::by_quarters(capacity.places, 64),
            waiting: Room {
                all: capacity.waiting,
                // All the processes of a pod may start at once, while nobody else does.
                most: capacity.waiting - capacity.waiting / 8,
                // Four peers more than those that fill the room find place in its last eighth.
                least: (capacity.waiting / 32).clamp(1, 64),
            },
            held: Room::by_quarters(capacity.places, 32),
            host_factor: 8,
            fresh: Duration::from_secs(1),
            pace,
        }
    }

    /// The limits of the metrics listener: few, so that scrapers cannot starve the credential endpoint, and
    /// none of them the others. A page takes locks and reads /proc, so that one peer may have 20 in a second.
    pub fn for_metrics() -> Self {
        Self { pace: Some(20), ..Self::for_admin(Room::by_quarters(64, 4)) }
    }

    /// The limits of a probe listener. All who call are the node, so that one peer may have most of it, and
    /// its pace would be the kubelet's too.
    pub fn for_probes() -> Self {
        Self::for_admin(Room { all: 64, most: 48, least: 4 })
    }

    fn for_admin(few: Room) -> Self {
        Self {
            connections: few,
            waiting: few,
            held: few,
            host_factor: 1,
            // A kubelet sends its request with the handshake, almost.
            fresh: Duration::from_millis(2),
            pace: None,
        }
    }
}
