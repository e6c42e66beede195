//! What a connection may take.
//!
//! Owns: the numbers. Must not know: how they are kept (`connection`, `activity`).

use std::time::Duration;

/// A request that finds no place waits this long for one, as long as it would be held for its credentials.
pub const LONGEST_WAIT: Duration = Duration::from_millis(4_500);

/// How large a request head may be in bytes, else 431; also the size of hyper's read buffer. 32 KiB: twice
/// what docs/design/client-contract.md#request-rules asks for.
pub const HEAD_BYTES: usize = 32 * 1024;

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
