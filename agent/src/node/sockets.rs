//! The TCP sockets of this node, as the kernel tells them.
//!
//! Owns: reading `/proc/net/tcp` and `/proc/net/tcp6`. Must not know: which of the sockets are the agent's,
//! and what follows from one.

use std::net::{IpAddr, SocketAddr};

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// This node's end.
    pub(super) local: SocketAddr,
    /// The other end; unspecified, where the socket listens.
    pub(super) remote: SocketAddr,
    /// As linux/include/net/tcp_states.h counts them.
    pub(super) state: u8,
}

/// All of this node at this moment; none, where the kernel does not tell.
pub(super) fn of_this_node() -> Vec<Socket> {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().flat_map(|file| in_file(&read(file))).collect()
}

/// Those of one of the files. Its heading is no socket.
pub(super) fn in_file(text: &str) -> Vec<Socket> {
    text.lines().filter_map(socket_of).collect()
}

/// `  0: 17AAFEA9:0050 00000000:0000 0A ...`: slot, local address, remote address, state.
fn socket_of(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let state = u8::from_str_radix(state, 16).ok()?;
    Some(Socket { local: end_in(local)?, remote: end_in(remote)?, state })
}

fn end_in(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    Some(SocketAddr::new(address_in(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// Words of 32 bits in the byte order of the machine.
fn address_in(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(digits.get(8 * at..8 * at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match digits.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Socket, in_file};

    #[test]
    fn both_ends_and_the_state_are_read_and_the_heading_is_no_socket() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            \x20  0: 17AAFEA9:0A93 0100010A:1234 01 00000000:00000000 00:00000000 00000000 0 0 1 1\n\
            \x20  1: 17AAFEA9 broken\n";
        let read = Socket {
            local: "169.254.170.23:2707".parse().unwrap(),
            remote: "10.1.0.1:4660".parse().unwrap(),
            state: 1,
        };
        assert_eq!(in_file(text), [read]);
    }

    #[test]
    fn an_ipv6_address_is_read_in_the_machines_order() {
        let text = "   0: C20E00FD000000000000000023000000:0050 00000000000000000000000000000000:0000 0A 0\n";
        assert_eq!(in_file(text)[0].local, "[fd00:ec2::23]:80".parse().unwrap());
    }
}
