//! A node: its files, its start, and its next start when its power was cut.
//!
//! Owns: configuration of containerd, kubelet and CNI (docs/design/facts.md#cluster). Must not know: what
//! happens on it; that is `node.sh`.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::failure::{Failure, at};
use crate::layout::{Layout, Node, ROUTER};
use crate::{cgroups, network};

/// What runs as the node's PID 1; `enter` finds nodes by this name.
pub(crate) const INIT: &str = "node.sh";
/// Pods whose image has nothing to say are kept by this one.
const PAUSE: &str = "localhost/client:test";

/// Writes what a node has on its disk before its first start.
pub(crate) fn prepare(
    layout: &Layout,
    node: Node,
    cgroup: &str,
    authority: &Authority,
) -> Result<(), Failure> {
    let (folder, name) = (layout.node(node), node.name());
    let cni = folder.join("cni");
    fs::create_dir_all(&cni).map_err(at(format!("no folder for {name}")))?;
    let write = |path: &Path, content: &str| {
        fs::write(path, content).map_err(at(format!("{} cannot be written", path.display())))
    };
    write(&folder.join(INIT), include_str!("../node.sh"))?;
    write(&folder.join("containerd.toml"), &containerd(&cni))?;
    write(&cni.join("10-pods.conflist"), &pods(node).to_string())?;
    let ca = authority.write(&folder)?;
    write(&folder.join("kubelet.json"), &kubelet(&format!("/{cgroup}/{name}"), &ca).to_string())?;
    let client = authority.client(&format!("system:node:{name}"), "system:nodes")?;
    authority.kubeconfig(&format!("https://{ROUTER}"), &client, &folder.join("kubeconfig"))
}

/// Switches a node on. It runs until its process is killed.
pub(crate) fn start(layout: &Layout, node: Node, cgroup: &str) -> Result<Child, Failure> {
    let (folder, name) = (layout.node(node), node.name());
    cgroups::renew(cgroup, &name)?;
    let failed = || at(format!("{name} cannot be started"));
    let log = File::options().append(true).create(true).open(layout.logs().join(&name)).map_err(failed())?;
    let mut child = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "bash"])
        .arg(folder.join(INIT))
        .arg(&name)
        .arg(&folder)
        .arg(layout.logs().join(&name))
        .arg(layout.server(""))
        .arg(layout.images())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed())?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed())?;
    }
    network::wire(node, child.id())?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "wired").map_err(failed())?;
    }
    Ok(child)
}

fn containerd(cni: &Path) -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Without CAP_SYS_RESOURCE runc dies of a score below its own.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        cni.display()
    )
}

/// ptp, so that a pod's way out is the node itself, as with the VPC CNI.
fn pods(node: Node) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": node.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(cgroup: &str, ca: &Path) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": false}, "x509": {"clientCAFile": ca},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "failSwapOn": false,
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "",
    })
}
