//! A pod on a node: a network namespace wired like one of the VPC CNI, an identity, and programs in it.
//!
//! Owns: the wiring, and the environment and files that EKS gives a container. Must not know: what programs
//! do there.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use sandbox::Pod;
use tokio::process::Command;

use super::http::{Answer, Request};
use super::namespace::Namespace;

/// Where EKS mounts the token (docs/design/facts.md#pod-environment).
const TOKEN_FOLDER: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount";

/// A pod that is on a node's network.
pub(crate) struct Wired {
    pub(crate) namespace: Namespace,
    pub(crate) identity: Pod,
    number: u8,
}

impl Wired {
    /// Dual stack: `10.1.0.N/32` and `fd00:10:1::N/128`.
    pub(super) fn new(host: &Namespace, identity: Pod, number: u8) -> Self {
        let namespace = Namespace::new();
        let (n, x) = (number, format!("{number:02x}"));
        host.ip(&format!(
            "link add pod{n} address 02:00:00:00:01:{x} type veth peer name eth0 address 02:00:00:00:02:{x} netns {}\n\
             link set pod{n} up\nroute add 10.1.0.{n}/32 dev pod{n} scope link\n",
            namespace.pid()
        ));
        // The gateway is nobody's address: a permanent neighbour leads to the host's end, as the VPC CNI does
        // it.
        namespace.ip(&format!(
            "link set eth0 up\naddr add 10.1.0.{n}/32 dev eth0\nroute add 169.254.1.1 dev eth0 scope link\n\
             route add default via 169.254.1.1 dev eth0\n\
             neigh add 169.254.1.1 dev eth0 lladdr 02:00:00:00:01:{x} nud permanent\n\
             addr add fd00:10:1::{x}/128 dev eth0 nodad\nroute add fe80::1 dev eth0\n\
             route add default via fe80::1 dev eth0\n\
             neigh add fe80::1 dev eth0 lladdr 02:00:00:00:01:{x} nud permanent\n"
        ));
        let pod = Self { namespace, identity, number };
        if std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|off| off == "0\n") {
            pod.wire_ipv6(host);
        }
        pod
    }

    /// The host's IPv6 way to the pod; gone when IPv6 was switched off there. The neighbour is permanent, so
    /// that no test waits for the duplicate detection of a link-local address.
    pub(crate) fn wire_ipv6(&self, host: &Namespace) {
        let (n, x) = (self.number, format!("{:02x}", self.number));
        host.ip(&format!(
            "route replace fd00:10:1::{x}/128 dev pod{n}\n\
             neigh replace fd00:10:1::{x} dev pod{n} lladdr 02:00:00:00:02:{x} nud permanent\n"
        ));
    }

    /// The pod's IPv4 address, which is what the agent sees.
    pub(crate) fn ipv4(&self) -> String {
        format!("10.1.0.{}", self.number)
    }

    /// The same of the other family.
    pub(crate) fn ipv6(&self) -> String {
        format!("fd00:10:1::{:02x}", self.number)
    }

    /// The host's end of its link.
    pub(super) fn link(&self) -> String {
        format!("pod{}", self.number)
    }

    /// Asks the agent for credentials.
    pub(crate) async fn ask(&self, at: IpAddr) -> std::io::Result<Answer> {
        self.send(Request::credentials(&self.identity.token), SocketAddr::new(at, 80)).await
    }

    /// Sends anything anywhere, and gives up as soon as boto3 would.
    pub(crate) async fn send(&self, request: Request, to: SocketAddr) -> std::io::Result<Answer> {
        self.namespace.within(async move || super::boto3::attempt(&request, to).await).await
    }

    /// Runs a program with exactly the environment and the file that EKS gives, and what points it at the
    /// sandbox's STS.
    pub(crate) async fn run(&self, program: &[&Path], agent: IpAddr, sts: &str) -> Output {
        let running = self.command(program, agent, sts).output();
        tokio::time::timeout(Duration::from_secs(60), running).await.expect("it ends").expect("it runs")
    }

    /// The same program, to be started; it ends with its handle.
    pub(crate) fn command(&self, program: &[&Path], agent: IpAddr, sts: &str) -> Command {
        let host = if agent.is_ipv4() { agent.to_string() } else { format!("[{agent}]") };
        let volume = self.identity.token_file.parent().expect("a folder");
        // A mount namespace of its own; /run is covered, so that the machine's stays as it is.
        let script = format!(
            "set -eu; volume=$1; shift; mount -t tmpfs none /mnt; mkdir /mnt/volume; \
             mount --bind \"$volume\" /mnt/volume; mount -t tmpfs none /run; mkdir -p {TOKEN_FOLDER}; \
             mount --bind /mnt/volume {TOKEN_FOLDER}; exec \"$@\""
        );
        let mut command = Command::from(self.namespace.program("unshare"));
        command.args(["--mount", "--", "sh", "-c", &script, "sh"]).arg(volume).args(program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/nonexistent")
            .env("AWS_STS_REGIONAL_ENDPOINTS", "regional")
            .env("AWS_DEFAULT_REGION", "us-west-2")
            .env("AWS_REGION", "us-west-2")
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{host}/v1/credentials"))
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", format!("{TOKEN_FOLDER}/eks-pod-identity-token"))
            .env("AWS_ENDPOINT_URL_STS", sts)
            .kill_on_drop(true);
        command
    }
}
