//! The API server: its flags, and that it runs unless it was stopped.
//!
//! Owns: how it is started, again and with other flags too. Must not know: who wants that; orders come in a
//! file, which those outside of our namespaces can write (`api_server_switch`).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::certificates::Authority;
use crate::control_plane::{ETCD, Tokens, flag};
use crate::failure::Failure;
use crate::layout::{Layout, ROUTER, SERVICE, SERVICES};
use crate::programs::{start, tails};
use crate::wait::until;

/// Its place for everybody in the cluster's network.
pub(crate) const API_SERVER: (Ipv4Addr, u16) = (ROUTER, 443);
/// Its program.
pub(crate) const NAME: &str = "kube-apiserver";
/// Longest wait for its port.
const LISTENING: u64 = 30;
/// Between two looks for an order.
const LOOK: Duration = Duration::from_millis(50);

/// What it is started with.
#[derive(Clone)]
pub(crate) struct ApiServer {
    program: PathBuf,
    log: PathBuf,
    orders: PathBuf,
    flags: Vec<String>,
}

/// What it is to do.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) is_stopped: bool,
    /// These replace its own of the same name.
    pub(crate) flags: Vec<String>,
}

impl Orders {
    /// Where they are.
    pub(crate) fn file(layout: &Layout) -> PathBuf {
        layout.folder.join("api-server.json")
    }

    /// None yet: it runs as it is.
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let orders: Value = serde_json::from_str(&text).unwrap_or_default();
        let flag = |flag: &Value| flag.as_str().map(str::to_owned);
        let flags = orders.get("flags").and_then(Value::as_array);
        Self {
            is_stopped: orders.get("isStopped").and_then(Value::as_bool).unwrap_or_default(),
            flags: flags.into_iter().flatten().filter_map(flag).collect(),
        }
    }
}

impl ApiServer {
    pub(crate) fn new(
        layout: &Layout,
        folder: &Path,
        ca: &Path,
        authority: &Authority,
        tokens: &Tokens<'_>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            program: layout.server(NAME),
            log: layout.logs().join(NAME),
            orders: Orders::file(layout),
            flags: flags(folder, ca, authority, tokens)?,
        })
    }

    /// Starts it as ordered; it may not listen yet.
    pub(crate) fn start(&self) -> Result<Child, Failure> {
        let flags = with(&self.flags, &Orders::read(&self.orders).flags);
        start(Command::new(&self.program).args(flags), &self.log)
    }

    /// Returns once it is not to be stopped.
    pub(crate) fn await_start(&self) {
        while Orders::read(&self.orders).is_stopped {
            thread::sleep(LOOK);
        }
    }

    pub(crate) fn until_listening(&self, logs: &Path) -> Result<(), Failure> {
        if until(LISTENING, || TcpStream::connect(SocketAddr::from(API_SERVER)).is_ok()) {
            return Ok(());
        }
        Err(Failure::Late("the API server does not listen", LISTENING, tails(logs)))
    }
}

/// Flags, with those of the same names replaced.
fn with(flags: &[String], others: &[String]) -> Vec<String> {
    let name = |flag: &str| flag.split_once('=').map_or(flag.to_owned(), |(name, _)| name.to_owned());
    let is_replaced = |flag: &&String| others.iter().any(|other| name(other) == name(flag));
    flags.iter().filter(|flag| !is_replaced(flag)).cloned().chain(others.iter().cloned()).collect()
}

fn flags(
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

#[cfg(test)]
mod tests {
    use super::with;

    #[test]
    fn flags_that_are_ordered_replace_all_of_the_same_name() {
        let [own, others] = [&["--a=1", "--b=2", "--b=3", "--c"][..], &["--b=4", "--d=5", "--b=6"]]
            .map(|flags| flags.iter().map(|&flag| flag.to_owned()).collect::<Vec<_>>());
        assert_eq!(with(&own, &others), ["--a=1", "--c", "--b=4", "--d=5", "--b=6"]);
        assert_eq!(with(&own, &[]), own);
    }
}
