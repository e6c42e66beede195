//! etcd, API server, controller manager and scheduler: one of each.
//!
//! Owns: their order and their flags (docs/design/facts.md#cluster). Must not know: the nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::api_server::ApiServer;
use crate::certificates::Authority;
use crate::failure::{Failure, at};
use crate::layout::{Layout, ROUTER};
use crate::programs::start;

pub(crate) const ETCD: &str = "http://127.0.0.1:2379";

/// How service account tokens are issued.
pub(crate) struct Tokens<'a> {
    /// `iss`.
    pub(crate) issuer: &'a str,
    /// The key that signs them, in PEM.
    pub(crate) key: &'a Path,
}

/// All four.
pub(crate) struct ControlPlane {
    pub(crate) api_server: (ApiServer, Child),
    pub(crate) others: [(Part, Child); 3],
}

/// One that is started anew by the same flags whenever it has ended.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    program: PathBuf,
    flags: Vec<String>,
    log: PathBuf,
}

impl Part {
    pub(crate) fn start(&self) -> Result<Child, Failure> {
        start(Command::new(&self.program).args(&self.flags), &self.log)
    }
}

/// Starts all four; the API server listens when this returns.
pub(crate) fn start_all(
    layout: &Layout,
    authority: &Authority,
    tokens: &Tokens<'_>,
) -> Result<ControlPlane, Failure> {
    let folder = layout.disk().join("control-plane");
    fs::create_dir_all(&folder).map_err(at("no folder for the control plane"))?;
    let ca = authority.write(&folder)?;
    let keep = |name: &'static str, flags: Vec<String>| {
        let part = Part { name, program: layout.server(name), flags, log: layout.logs().join(name) };
        part.start().map(|child| (part, child))
    };
    let etcd = keep("etcd", etcd(&folder))?;
    let api_server = ApiServer::new(layout, &folder, &ca, authority, tokens)?;
    let running = api_server.start()?;
    api_server.until_listening(&layout.logs())?;
    let kubeconfig = |component: &str| -> Result<PathBuf, Failure> {
        let path = folder.join(format!("{component}.kubeconfig"));
        let client = authority.client(&format!("system:{component}"), component)?;
        authority.kubeconfig(&format!("https://{ROUTER}"), &client, &path)?;
        Ok(path)
    };
    let (manager, scheduler) = (kubeconfig("kube-controller-manager")?, kubeconfig("kube-scheduler")?);
    let others = [
        etcd,
        keep("kube-controller-manager", controller_manager(&manager, &ca, tokens.key))?,
        keep("kube-scheduler", vec![flag("kubeconfig", scheduler.display()), flag("leader-elect", false)])?,
    ];
    Ok(ControlPlane { api_server: (api_server, running), others })
}

pub(crate) fn flag(name: &str, value: impl std::fmt::Display) -> String {
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
