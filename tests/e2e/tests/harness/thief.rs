//! A pod with hostPort 80: what diverts the agent's address on real nodes (docs/design/facts.md#cni-plugins),
//! tokens included.
//!
//! Owns: the pod's listener, and the rules by which portmap leads port 80 to it. Must not know: the agent.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::wired::Wired;

/// What an ingress says to a path it does not know.
const ANSWER: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nServer: ingress\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// The port it has in its pod.
const PORT: u16 = 8080;

/// How portmap writes its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Its nftables backend (portmap_nftables.go).
    Nftables,
    /// Its iptables backend (portmap_iptables.go), by `iptables-nft`.
    IptablesNft,
    /// The same, by `iptables-legacy`.
    IptablesLegacy,
}

/// A pod that wants port 80 of its node.
pub(crate) struct Thief {
    pod: Wired,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Thief {
    /// It listens, and nothing leads to it yet.
    pub(crate) async fn new(pod: Wired) -> Self {
        // Both families.
        let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let bound = pod.namespace.within(async move || std::net::TcpListener::bind(at));
        // A socket stays in the namespace it was made in, wherever it is served.
        let listener = bound.await.expect("a port of the pod");
        listener.set_nonblocking(true).expect("a socket");
        let listener = TcpListener::from_std(listener).expect("a runtime");
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let length = stream.read(&mut head).await.unwrap_or(0);
                if String::from_utf8_lossy(&head[..length]).to_ascii_lowercase().contains("\nauthorization:")
                {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                let _gone = stream.write_all(ANSWER).await;
            }
        });
        Self { pod, asked, _serving: serving }
    }

    /// How many tokens it has seen.
    pub(crate) fn tokens(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The script that leads port 80 of every local address to it, as portmap does for a pod with addresses
    /// of both families; it may run again after a flush.
    pub(crate) fn rules(&self, shape: Shape) -> String {
        let (ipv4, ipv6) = (format!("{}:{PORT}", self.pod.ipv4()), format!("[{}]:{PORT}", self.pod.ipv6()));
        match shape {
            Shape::Nftables => nftables("ip", &ipv4) + &nftables("ip6", &ipv6),
            Shape::IptablesNft => iptables("iptables-nft", &ipv4) + &iptables("ip6tables-nft", &ipv6),
            Shape::IptablesLegacy => {
                iptables("iptables-legacy", &ipv4) + &iptables("ip6tables-legacy", &ipv6)
            }
        }
    }
}

fn nftables(family: &str, to: &str) -> String {
    format!(
        "nft -f - <<'END'\n\
         add table {family} cni_hostport\n\
         add chain {family} cni_hostport hostports\n\
         add chain {family} cni_hostport prerouting {{ type nat hook prerouting priority -100; }}\n\
         add chain {family} cni_hostport output {{ type nat hook output priority -100; }}\n\
         flush table {family} cni_hostport\n\
         add rule {family} cni_hostport prerouting fib daddr type local jump hostports\n\
         add rule {family} cni_hostport output fib daddr type local jump hostports\n\
         add rule {family} cni_hostport hostports tcp dport 80 dnat to {to}\n\
         END\n"
    )
}

fn iptables(iptables: &str, to: &str) -> String {
    format!(
        "{iptables} -t nat -N CNI-HOSTPORT-DNAT\n\
         {iptables} -t nat -N CNI-DN-0123456789abcdef01234\n\
         {iptables} -t nat -A CNI-DN-0123456789abcdef01234 -p tcp --dport 80 -j DNAT --to-destination {to}\n\
         {iptables} -t nat -A CNI-HOSTPORT-DNAT -p tcp -m multiport --destination-ports 80 \
            -j CNI-DN-0123456789abcdef01234\n\
         {iptables} -t nat -I PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n\
         {iptables} -t nat -I OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n"
    )
}
