//! Connections to the agent's addresses that are not over: who deletes the addresses or the table waits for
//! them.
//!
//! Owns: which sockets are such connections, and how long they are waited for. Must not know: what is deleted
//! afterwards.
//!
//! Without a NAT table the kernel forgets the translations, so that a connection to a guard port is reset in
//! the middle of its answer (docs/design/facts.md#nftables); one to port 80 comes to nothing without the
//! address.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::sockets::{self, Socket};
use crate::workload::WELL_KNOWN;

/// An agent that is asked to end when the wait begins has ended by then: 8 s (`--shutdown-delay`) and 20 s
/// (`--shutdown-grace`), and the kubelet kills it after 30 s (`terminationGracePeriodSeconds`).
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A look reads the node's table of sockets, of which a large node has ten thousands.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The port that SDKs ask. A process of the host that asks has the agent's address at its own end too, and
/// this port at the other.
const SDK_PORT: u16 = 80;

/// Waits until no connection to the agent's addresses is open, for [`PATIENCE`] at most. Returns how many are
/// open then.
pub async fn until_over() -> usize {
    let end = Instant::now() + PATIENCE;
    loop {
        let open = sockets::of_this_node().iter().filter(|socket| is_open(socket)).count();
        if open == 0 || Instant::now() >= end {
            return open;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Whether the agent's end of a connection has something to receive or to send.
fn is_open(socket: &Socket) -> bool {
    let is_to_the_agent = WELL_KNOWN.contains(&socket.local.ip()) && socket.remote.port() != SDK_PORT;
    is_to_the_agent && has_data_to_come(socket.state)
}

/// By linux/include/net/tcp_states.h. In `FIN_WAIT2` and `TIME_WAIT` the client has all that was sent.
const fn has_data_to_come(state: u8) -> bool {
    const ESTABLISHED: u8 = 1;
    const SYN_RECV: u8 = 3;
    const FIN_WAIT1: u8 = 4;
    const CLOSE_WAIT: u8 = 8;
    const LAST_ACK: u8 = 9;
    const CLOSING: u8 = 11;
    matches!(state, ESTABLISHED | SYN_RECV | FIN_WAIT1 | CLOSE_WAIT | LAST_ACK | CLOSING)
}

#[cfg(test)]
mod tests {
    use super::{Socket, is_open};

    fn socket(local: &str, remote: &str, state: u8) -> Socket {
        Socket { local: local.parse().unwrap(), remote: remote.parse().unwrap(), state }
    }

    #[test]
    fn a_connection_to_any_port_of_the_agents_addresses_is_waited_for_until_all_is_sent() {
        for (local, remote) in [
            ("169.254.170.23:2707", "10.1.0.1:40000"),
            ("169.254.170.23:80", "10.1.0.1:40000"),
            ("[fd00:ec2::23]:2708", "[fd00:10:1::1]:40000"),
            // From the host itself.
            ("169.254.170.23:2707", "169.254.170.23:40000"),
        ] {
            let open: Vec<u8> = (0..=12).filter(|state| is_open(&socket(local, remote, *state))).collect();
            assert_eq!(open, [1, 3, 4, 8, 9, 11], "{local}");
        }
    }

    #[test]
    fn what_asks_the_agent_and_what_is_at_other_addresses_is_not_waited_for() {
        assert!(!is_open(&socket("169.254.170.23:40000", "169.254.170.23:80", 1)));
        assert!(!is_open(&socket("10.0.0.1:2707", "10.1.0.1:40000", 1)));
    }
}
