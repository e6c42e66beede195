//! Who listens on a port of this node, as the kernel tells it.
//!
//! Owns: which of the node's sockets listen on a port. Must not know: which of them are the agent's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::sockets::{self, Socket};
use crate::lifecycle::tasks::beside_the_event_loop;

/// The state LISTEN (`TCP_LISTEN` of linux/include/net/tcp_states.h).
const LISTEN: u8 = 0x0a;

/// The sockets that listen on one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    addresses: Vec<IpAddr>,
}

impl Listening {
    /// Those of this node at this moment; none, where the kernel does not tell. Beside the event loop: of a
    /// node with 20,000 sockets the list takes 86 ms to read.
    pub async fn on(port: u16) -> Self {
        let read = move || Self::among(&sockets::of_this_node(), port);
        beside_the_event_loop(read).await.unwrap_or_default()
    }

    fn among(sockets: &[Socket], port: u16) -> Self {
        let is_it = |socket: &&Socket| socket.state == LISTEN && socket.local.port() == port;
        Self { addresses: sockets.iter().filter(is_it).map(|socket| socket.local.ip()).collect() }
    }

    /// Whether a socket listens on exactly this address.
    pub fn exactly(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Whether what comes to this address is a socket's that listens on every one, and so no agent's: one
    /// that listens on exactly this address, as agents do, comes first.
    pub fn only_on_every(&self, address: IpAddr) -> bool {
        self.on_every(address) && !self.exactly(address)
    }

    /// Whether a socket listens on every address, this one among them. That of IPv6 mostly has IPv4 too.
    fn on_every(&self, address: IpAddr) -> bool {
        let ipv4 = address.is_ipv4() && self.exactly(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        ipv4 || self.exactly(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::Listening;
    use crate::node::sockets::in_file;
    use crate::workload::WELL_KNOWN;

    fn in_files(ipv4: &str, ipv6: &str, port: u16) -> Listening {
        Listening::among(&[in_file(ipv4), in_file(ipv6)].concat(), port)
    }

    const IPV4: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n\
        \x20  0: 17AAFEA9:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1\n\
        \x20  1: 0100007F:0A8F 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1\n\
        \x20  2: 00000000:0050 0100007F:1234 01 00000000:00000000 00:00000000 00000000 0 0 1 1\n";
    const IPV6: &str = "  sl  local_address remote_address st\n\
        \x20  0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0 0\n";

    #[test]
    fn a_socket_that_listens_is_found_by_its_address_and_port() {
        let listening = in_files(IPV4, "", 80);
        assert!(listening.exactly(WELL_KNOWN[0]) && !listening.exactly(WELL_KNOWN[1]));
        // The third line is a connection.
        assert!(!listening.on_every(WELL_KNOWN[0]));
        assert_eq!(in_files(IPV4, IPV6, 81), Listening::default());
    }

    #[test]
    fn a_socket_on_every_ipv6_address_has_ipv4_too() {
        let listening = in_files("", IPV6, 80);
        assert!(listening.only_on_every(WELL_KNOWN[0]) && listening.only_on_every(WELL_KNOWN[1]));
        // Beside an agent it receives nothing.
        let with_an_agent = in_files(IPV4, IPV6, 80);
        assert!(!with_an_agent.only_on_every(WELL_KNOWN[0]) && with_an_agent.only_on_every(WELL_KNOWN[1]));
    }

    #[tokio::test]
    async fn what_the_kernel_tells_is_read() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(Listening::on(port).await.exactly(Ipv4Addr::LOCALHOST.into()));
        drop(socket);
        assert!(!Listening::on(port).await.exactly(Ipv4Addr::LOCALHOST.into()));
    }
}
