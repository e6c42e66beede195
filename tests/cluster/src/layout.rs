//! Where everything is.
//!
//! Owns: names, addresses and folders. Must not know: who uses them.
//!
//! ```text
//! 10.210.0.1      the VPC's router: sandbox and control plane; 10.96.0.1 too, the API server as pods know it
//! 10.210.0.1N     node N; its pods have 10.211.N.0/24
//! 169.254.169.254 IMDS
//! ```

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

/// The sandbox and the control plane, for nodes and pods.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 1);
/// The service "kubernetes": on the router itself, because there is no kube-proxy.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// All services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// Where EC2 has its metadata service.
pub(crate) const IMDS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80));
/// Name of the EKS cluster.
pub(crate) const CLUSTER: &str = "sandbox";
/// The ConfigMap with the authority that vouches for AWS here.
pub(crate) const AWS_CA: &str = "aws-ca";

/// The nodes there are.
pub(crate) const NODES: [Node; 2] = [Node(1), Node(2)];

/// One of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node(u8);

impl Node {
    /// As Kubernetes knows it; its end of the wire is called the same.
    pub(crate) fn name(self) -> String {
        format!("node-{}", self.0)
    }

    pub(crate) fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 210, 0, 10 + self.0)
    }

    pub(crate) fn pods(self) -> String {
        format!("10.211.{}.0/24", self.0)
    }
}

/// The folders of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// What the machine sees: kubeconfig, state, logs.
    pub(crate) folder: PathBuf,
    /// Servers, tools, images.
    pub(crate) assets: PathBuf,
}

impl Layout {
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    pub(crate) fn values(&self) -> PathBuf {
        self.folder.join("values.json")
    }

    pub(crate) fn aws_ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub(crate) fn app(&self) -> PathBuf {
        self.folder.join("app.yaml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// A tmpfs that only the cluster sees: keys, etcd's data, the nodes' disks.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    pub(crate) fn node(&self, node: Node) -> PathBuf {
        self.disk().join(node.name())
    }

    pub(crate) fn server(&self, name: &str) -> PathBuf {
        self.assets.join("servers").join(name)
    }

    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.assets.join("tools").join(name)
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.assets.join("images")
    }

    /// The chart of this source tree.
    pub(crate) fn chart() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart"))
    }
}
