//! A node: the network namespace of its host, and a world behind it.
//!
//! Owns: the host's addresses and routes. Must not know: pods' wiring, the agent's flags.
//!
//! The whole test runs in the host's namespace, so that the sandbox is on the host's loopback and the agent
//! is started there; the pods have namespaces of their own (`wired.rs`).

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sandbox::Sandbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::namespace::{Namespace, runtime};
use super::wired::Wired;

/// Where pods find the agent (docs/design/facts.md#pod-environment and docs/design/facts.md#cni-plugins).
pub(crate) const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23));
/// The same over IPv6.
pub(crate) const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23));
/// Where EC2 offers the node's own credentials.
pub(crate) const IMDS_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
/// The same over IPv6.
pub(crate) const IMDS_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));

/// Addresses of the host itself, as pods see them.
const HOST_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const HOST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 1);

/// What `initialize` of the Amazon agent leaves: a link with both addresses. A bridge without ports stands
/// for the dummy, which not every kernel has; to both the addresses are local.
const LINK: &str = "link add pod-id-link0 type bridge\nlink set pod-id-link0 up\n";
const ADDRESS_IPV4: &str = "addr add 169.254.170.23/32 dev pod-id-link0\n";
const ADDRESS_IPV6: &str = "addr add fd00:ec2::23/128 dev pod-id-link0 nodad\n";

/// What is behind the metadata address in these tests. Whether it comes is all that is asked.
const IMDS_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nimds";

/// The host of a test's pods. Its namespace is that of the thread the test runs on.
pub(crate) struct Node {
    host: Namespace,
    world: Namespace,
    pods: Cell<u8>,
    /// What serves pods from the host or the world; ends with the node.
    serving: RefCell<JoinSet<()>>,
}

/// Runs a test on a node of its own.
pub(crate) fn on_a_node(test: impl AsyncFnOnce(&Node) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let node = Node::new();
        node.host.enter();
        runtime().block_on(test(&node));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Node {
    fn new() -> Self {
        let (host, world) = (Namespace::new(), Namespace::new());
        host.sh("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
        host.ip(&format!(
            "link add eth0 address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02 netns {}\n\
             link set eth0 up\naddr add 10.0.0.1/24 dev eth0\naddr add fd00:10::1/64 dev eth0 nodad\n",
            world.pid()
        ));
        world.ip(
            "link set eth0 up\naddr add 10.0.0.254/24 dev eth0\naddr add fd00:10::254/64 dev eth0 nodad\n\
             route add 10.1.0.0/16 via 10.0.0.1\nroute add fd00:10:1::/64 via fd00:10::1\n\
             addr add 169.254.169.254/32 dev lo\naddr add fd00:ec2::254/128 dev lo nodad\n\
             neigh add fd00:10::1 dev eth0 lladdr 02:00:00:00:00:01 nud permanent\n\
             route add blackhole default\nroute add blackhole fd00:ec2::23/128\n",
        );
        let node = Self { host, world, pods: Cell::new(0), serving: RefCell::default() };
        node.route_ipv4();
        node.route_ipv6();
        node
    }

    fn route_ipv4(&self) {
        self.host.ip("route replace default via 10.0.0.254\n");
    }

    /// What the kernel forgets when IPv6 is switched off.
    fn route_ipv6(&self) {
        self.host.ip(
            "addr replace fd00:10::1/64 dev eth0 nodad\nroute replace default via fd00:10::254 dev eth0\n\
             neigh replace fd00:10::254 dev eth0 lladdr 02:00:00:00:00:02 nud permanent\n",
        );
    }

    /// Runs lines of `ip` on the host; all must succeed.
    pub(crate) fn ip(&self, lines: &str) {
        self.host.ip(lines);
    }

    /// Runs a shell script on the host; every line must succeed.
    pub(crate) fn sh(&self, script: &str) {
        self.host.sh(script);
    }

    /// The nftables tables of the host, by name.
    pub(crate) fn tables(&self) -> String {
        let output = self.host.program("nft").args(["list", "tables"]).output().expect("nft runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// One table of the host, in nft's words; empty if it is not there.
    pub(crate) fn rules_of(&self, family: &str, table: &str) -> String {
        let mut nft = self.host.program("nft");
        let output = nft.args(["list", "table", family, table]).output().expect("nft runs");
        let is_missing = String::from_utf8_lossy(&output.stderr).contains("No such file or directory");
        assert!(output.status.success() || is_missing, "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Makes the link with both addresses, as the Amazon agent's init container does.
    pub(crate) fn add_link(&self) {
        self.ip(&format!("{LINK}{ADDRESS_IPV4}{ADDRESS_IPV6}"));
    }

    /// The same on a node without IPv6.
    pub(crate) fn add_link_ipv4(&self) {
        self.ip(&format!("{LINK}{ADDRESS_IPV4}"));
    }

    /// Adds the IPv6 address to the link.
    pub(crate) fn add_ipv6_address(&self) {
        self.ip(ADDRESS_IPV6);
    }

    /// Switches IPv6 off or on again for the whole host, and rewires the host's own.
    pub(crate) fn set_ipv6(&self, on: bool) {
        let value = if on { "0" } else { "1" };
        // /proc/sys/net is that of the thread that looks, and this one is on the host.
        for scope in ["all", "default"] {
            let file = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
            fs::write(file, value).expect("the namespace is ours");
        }
        if on {
            self.route_ipv6();
        }
    }

    /// A new pod, wired as the VPC CNI wires one, with an identity of the sandbox.
    pub(crate) fn pod(&self, sandbox: &Sandbox) -> Wired {
        self.pods.set(self.pods.get() + 1);
        Wired::new(&self.host, super::pod(sandbox, &format!("app-{}", self.pods.get())), self.pods.get())
    }

    /// Lets one pod's namespace stand for 2,000 pods: it may call from every address of 10.2.0.0/16. By one
    /// gateway, because a neighbour for each would be more than the kernel keeps.
    pub(crate) fn stand_for_many(&self, pod: &Wired) {
        pod.namespace.ip("route add local 10.2.0.0/16 dev lo\n");
        let (gateway, link) = (pod.ipv4(), pod.link());
        self.host.ip(&format!("route add 10.2.0.0/16 via {gateway} dev {link} onlink\n"));
    }

    /// Gives the host its IPv6 way to a pod back.
    pub(crate) fn wire_ipv6(&self, pod: &Wired) {
        pod.wire_ipv6(&self.host);
    }

    /// Lets pods reach something on the host's loopback, by an address of the host in that family.
    pub(crate) async fn expose(&self, url: &str, of: IpAddr) -> String {
        let to: SocketAddr = url.trim_start_matches("http://").parse().expect("http://ADDRESS:PORT");
        let host: IpAddr = if of.is_ipv4() { HOST_IPV4.into() } else { HOST_IPV6.into() };
        let listener = TcpListener::bind((host, 0)).await.expect("a port of the host");
        let at = listener.local_addr().expect("an address");
        self.serving.borrow_mut().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut pod, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut there = TcpStream::connect(to).await?;
                    copy_bidirectional(&mut pod, &mut there).await
                });
            }
        });
        format!("http://{at}")
    }

    /// EC2's metadata service, as far as reaching it goes: one route hop behind the host.
    pub(crate) async fn start_imds(&self) {
        for address in [IMDS_IPV4, IMDS_IPV6] {
            // A socket stays in the namespace it was made in, wherever it is served.
            let bound = self.world.within(async move || std::net::TcpListener::bind((address, 80)));
            let listener = bound.await.expect("an address of the world");
            listener.set_nonblocking(true).expect("a socket");
            let listener = TcpListener::from_std(listener).expect("a runtime");
            self.serving.borrow_mut().spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _asked = stream.read(&mut [0; 1024]).await;
                    let _answered = stream.write_all(IMDS_ANSWER).await;
                }
            });
        }
    }
}
