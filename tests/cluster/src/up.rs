//! `cluster up`: starts the cluster in namespaces of its own, waits until it is ready, installs the chart.
//!
//! Owns: what is shown, the pipe that keeps the cluster alive, and the folder. Must not know: what a cluster
//! is made of.

use std::fs::{self, DirBuilder};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Uid, getpid};

use crate::cgroups;
use crate::cli::UpArgs;
use crate::failure::{Failure, at};
use crate::layout::{AWS_CA, Layout, NODES, Node};
use crate::programs::{run, tails};
use crate::wait::{Stopwatch, until};

/// Longest wait for the control plane, and for all nodes to be ready.
const READY: u64 = 120;
/// Longest wait for the agent on all nodes.
const INSTALLED: &str = "120s";

/// Runs until Ctrl-C, SIGTERM, or with `--json` the end of standard input.
pub(crate) fn up(arguments: &UpArgs) -> Result<(), Failure> {
    if !Uid::effective().is_root() {
        return Err(Failure::NotRoot);
    }
    // Blocked before anything is started, so that no signal ends us without an answer.
    let ends = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    ends.thread_block().map_err(|error| Failure::System("signals cannot be blocked", error))?;
    let ended = end_of(ends, arguments.json);
    sweep();
    let started = Stopwatch::start();
    let cluster = Cluster::start(arguments)?;
    cluster.until_ready(&ended)?;
    cluster.trust_aws()?;
    let layout = &cluster.layout;
    if !arguments.bare {
        cluster.install()?;
    }
    let shown = if arguments.json {
        fs::read_to_string(layout.state()).map_err(at("the state cannot be read"))?
    } else {
        to_try(layout, arguments.bare, started.elapsed())
    };
    writeln!(io::stdout(), "{shown}").map_err(at("nobody reads"))?;
    let _nobody_left_to_tell = ended.recv();
    Ok(())
}

/// What is left of clusters whose outer processes were both killed at once.
fn sweep() {
    cgroups::sweep();
    for folder in cgroups::left_in(&std::env::temp_dir()) {
        let _another_was_quicker = fs::remove_dir_all(folder);
    }
}

/// Tells once when somebody wants the end: by a signal, or, of a program, by the end of standard input.
fn end_of(signals: SigSet, of_a_program: bool) -> Receiver<()> {
    let (tell, told) = channel();
    if of_a_program {
        let tell = tell.clone();
        thread::spawn(move || {
            let _ended = io::stdin().read_to_end(&mut Vec::new());
            tell.send(())
        });
    }
    thread::spawn(move || {
        let _signal = signals.wait();
        tell.send(())
    });
    told
}

/// A cluster that is up; dropping it ends it.
struct Cluster {
    layout: Layout,
    cgroup: String,
    child: Child,
}

impl Cluster {
    fn start(arguments: &UpArgs) -> Result<Self, Failure> {
        let this = std::env::current_exe().map_err(at("this program has no path"))?;
        let beside = || this.parent().and_then(|folder| folder.parent()).map(|target| target.join("cluster"));
        let assets = arguments.assets.clone().or_else(beside).unwrap_or_default();
        let assets = fs::canonicalize(&assets).map_err(|_| Failure::Missing(assets))?;
        let folder = std::env::temp_dir().join(cgroups::name(getpid().as_raw().unsigned_abs()));
        let layout = Layout { folder, assets };
        let needed = [layout.server("kubelet"), layout.tool("kubectl"), layout.images().join("client.tar")];
        if let Some(missing) = needed.into_iter().find(|path| !path.exists()) {
            return Err(Failure::Missing(missing));
        }
        // It must be new: in a folder that all may write, somebody else's would be a trap for root.
        let made =
            DirBuilder::new().mode(0o700).create(&layout.folder).and_then(|()| fs::create_dir(layout.logs()));
        made.map_err(at(format!("{} cannot be made", layout.folder.display())))?;
        let cgroup = cgroups::name(getpid().as_raw().unsigned_abs());
        cgroups::make(&cgroup, &NODES.map(Node::name))?;
        // In a session of its own, so that Ctrl-C is ours alone.
        let mut inside = Command::new("setsid");
        inside
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
            .arg(&this)
            .arg("inside")
            .arg("--folder")
            .arg(&layout.folder)
            .arg("--assets")
            .arg(&layout.assets)
            .args(["--cgroup", &cgroup]);
        if let Some(moto) = &arguments.moto {
            // Not canonical: the link to an interpreter is what makes a virtual environment.
            inside.arg("--moto").arg(std::path::absolute(moto).map_err(at("no current folder"))?);
        }
        let child = inside
            .stdin(Stdio::piped())
            .spawn()
            .map_err(at("the cluster cannot be started (Debian: util-linux)"))?;
        Ok(Self { layout, cgroup, child })
    }

    fn until_ready(&self, ended: &Receiver<()>) -> Result<(), Failure> {
        let is_ready = || {
            let nodes = self.kubectl(&["get", "nodes", "--no-headers"]).unwrap_or_default();
            nodes.lines().filter(|line| line.contains(" Ready ")).count() == NODES.len()
        };
        let mut is_ended = false;
        let ready = until(READY, || {
            is_ended = ended.try_recv().is_ok();
            is_ended || (self.layout.kubeconfig().exists() && is_ready())
        });
        if is_ended {
            return Err(Failure::Interrupted);
        }
        if ready {
            return Ok(());
        }
        Err(Failure::Late("the cluster is not ready", READY, tails(&self.layout.logs())))
    }

    /// The certificate that every agent here needs.
    fn trust_aws(&self) -> Result<(), Failure> {
        let from = format!("--from-file={}", self.layout.aws_ca().display());
        self.kubectl(&["--namespace", "kube-system", "create", "configmap", AWS_CA, &from]).map(drop)
    }

    /// The chart as an admin installs it, and pods to try it with.
    fn install(&self) -> Result<(), Failure> {
        let layout = &self.layout;
        run(Command::new(layout.tool("helm"))
            .args(["upgrade", "--install", "pod-identity-agent", "--namespace", "kube-system"])
            .args(["--wait", "--timeout", INSTALLED, "--kubeconfig"])
            .arg(layout.kubeconfig())
            .arg("--values")
            .arg(layout.values())
            .arg(Layout::chart()))?;
        self.kubectl(&["apply", "--filename", &layout.app().to_string_lossy()])?;
        self.kubectl(&["rollout", "status", "daemonset/app", "--timeout", INSTALLED]).map(drop)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String, Failure> {
        run(Command::new(self.layout.tool("kubectl"))
            .arg("--kubeconfig")
            .arg(self.layout.kubeconfig())
            .args(arguments))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of this pipe is the end of the cluster.
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
        cgroups::remove(&self.cgroup);
        let _gone_already = fs::remove_dir_all(&self.layout.folder);
    }
}

fn to_try(layout: &Layout, bare: bool, took: Duration) -> String {
    let kubectl = layout.tool("kubectl");
    let this = std::env::current_exe().unwrap_or_default();
    let (kubectl, this) = (kubectl.display(), this.display());
    let state = fs::read_to_string(layout.state()).unwrap_or_default();
    let control = serde_json::from_str::<serde_json::Value>(&state)
        .ok()
        .and_then(|state| state.get("controlUrl")?.as_str().map(str::to_owned))
        .unwrap_or_default();
    let agent = if bare {
        String::new()
    } else {
        format!(
            "\nThe agent on both nodes, and what a pod is to AWS:\n\n  \
             {kubectl} -n kube-system get pods -o wide\n  \
             {kubectl} exec daemonset/app -- python3 /who_am_i.py\n\n\
             Take EKS Auth away, see that pods do not mind, and bring it back:\n\n  \
             curl -X PUT {control}/faults -d '{{\"service\":\"eks-auth\",\"effect\":{{\"status\":{{\"status\":503,\
             \"code\":\"ServiceUnavailableException\"}}}}}}'\n  \
             {kubectl} exec daemonset/app -- python3 /who_am_i.py\n  \
             curl -X DELETE {control}/faults\n"
        )
    };
    format!(
        "\nThe cluster is up after {} s: {} nodes, {}.\n\n  export KUBECONFIG={}\n{agent}\n\
         On a node, as on its host, and its power switch:\n\n  \
         {this} enter node-1 -- ip addr show\n  {this} reboot node-2\n\nCtrl-C ends it.",
        took.as_secs(),
        NODES.len(),
        // "Kubernetes v1.36.3"
        run(Command::new(layout.server("kubelet")).arg("--version")).unwrap_or_default().trim(),
        layout.kubeconfig().display(),
    )
}
