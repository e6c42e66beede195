//! etcd, API server, controller manager and scheduler: one of each.
//!
//! Owns: their flags (docs/design/facts.md#cluster). Must not know: the nodes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::certificates::Authority;
use crate::failure::{Failure, at};
use crate::layout::{Layout, ROUTER, SERVICE, SERVICES};
use crate::programs::{start, tails};
use crate::wait::until;

/// The API server's place for everybody in the cluster's network.
pub(crate) const API_SERVER: (Ipv4Addr, u16) = (ROUTER, 443);
const ETCD: &str = "http://127.0.0.1:2379";
/// Longest wait for a port.
const LISTENING: u64 = 30;

/// How service account tokens are issued.
pub(crate) struct Tokens<'a> {
    /// `iss`.
    pub(crate) issuer: &'a str,
    /// The key that signs them, in PEM.
    pub(crate) key: &'a Path,
}

/// Starts all four, each with its name; the API server listens when this returns.
pub(crate) fn start_all(
    layout: &Layout,
    authority: &Authority,
    tokens: &Tokens<'_>,
) -> Result<Vec<(&'static str, Child)>, Failure> {
    let folder = layout.disk().join("control-plane");
    fs::create_dir_all(&folder).map_err(at("no folder for the control plane"))?;
    let ca = authority.write(&folder)?;
    let keep = |name: &'static str, flags: Vec<String>| {
        let log = layout.logs().join(name);
        start(Command::new(layout.server(name)).args(flags), &log).map(|child| (name, child))
    };
    let etcd = keep("etcd", etcd(&folder))?;
    let api_server = keep("kube-apiserver", api_server(&folder, &ca, authority, tokens)?)?;
    until_listening(SocketAddr::from(API_SERVER), &layout.logs())?;
    let kubeconfig = |component: &str| -> Result<PathBuf, Failure> {
        let path = folder.join(format!("{component}.kubeconfig"));
        let client = authority.client(&format!("system:{component}"), component)?;
        authority.kubeconfig(&format!("https://{ROUTER}"), &client, &path)?;
        Ok(path)
    };
    let (manager, scheduler) = (kubeconfig("kube-controller-manager")?, kubeconfig("kube-scheduler")?);
    Ok(vec![
        etcd,
        api_server,
        keep("kube-controller-manager", controller_manager(&manager, &ca, tokens.key))?,
        keep("kube-scheduler", vec![flag("kubeconfig", scheduler.display()), flag("leader-elect", false)])?,
    ])
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn etcd(folder: &Path) -> Vec<String> {
    vec![
        flag("data-dir", folder.join("etcd").display()),
        flag("listen-client-urls", ETCD),
        flag("advertise-client-urls", ETCD),
        flag("listen-peer-urls", "http://127.0.0.1:0"),
        flag("unsafe-no-fsync", true),
    ]
}

fn api_server(
    folder: &Path,
    ca: &Path,
    authority: &Authority,
    tokens: &Tokens<'_>,
) -> Result<Vec<String>, Failure> {
    let names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default"].map(str::to_owned);
    let names = names.into_iter().chain([ROUTER.to_string(), SERVICE.to_string()]).collect();
    let (certificate, key) = authority.server(names)?.write(folder, "kube-apiserver")?;
    let (client, client_key) =
        authority.client("kube-apiserver", "system:masters")?.write(folder, "kubelet-client")?;
    Ok(vec![
        flag("etcd-servers", ETCD),
        flag("bind-address", Ipv4Addr::UNSPECIFIED),
        flag("secure-port", API_SERVER.1),
        flag("advertise-address", ROUTER),
        flag("cert-dir", folder.join("unused").display()),
        flag("tls-cert-file", certificate.display()),
        flag("tls-private-key-file", key.display()),
        flag("client-ca-file", ca.display()),
        flag("kubelet-client-certificate", client.display()),
        flag("kubelet-client-key", client_key.display()),
        flag("kubelet-preferred-address-types", "InternalIP"),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("service-cluster-ip-range", SERVICES),
        flag("allow-privileged", true),
        flag("service-account-issuer", tokens.issuer),
        flag("service-account-key-file", tokens.key.display()),
        flag("service-account-signing-key-file", tokens.key.display()),
    ])
}

fn controller_manager(kubeconfig: &Path, ca: &Path, key: &Path) -> Vec<String> {
    vec![
        flag("kubeconfig", kubeconfig.display()),
        flag("service-account-private-key-file", key.display()),
        flag("use-service-account-credentials", true),
        flag("root-ca-file", ca.display()),
        flag("leader-elect", false),
        // A node that was cut off comes back within seconds here; its pods are not to be replaced meanwhile.
        flag("node-monitor-grace-period", "60s"),
    ]
}

fn until_listening(address: SocketAddr, logs: &Path) -> Result<(), Failure> {
    if until(LISTENING, || TcpStream::connect(address).is_ok()) {
        return Ok(());
    }
    Err(Failure::Late("the API server does not listen", LISTENING, tails(logs)))
}
