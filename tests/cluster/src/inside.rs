//! The cluster itself, as PID 1 of its namespaces.
//!
//! Owns: the order of the start, and that all ends when the starter's pipe does. Must not know: charts.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use sandbox::{Association, KeyKind, Options, Sandbox};
use serde_json::json;

use crate::api_server::{self, API_SERVER, ApiServer};
use crate::certificates::Authority;
use crate::cli::InsideArgs;
use crate::control_plane::{ControlPlane, Part, Tokens};
use crate::door::Door;
use crate::failure::{Failure, at, chain};
use crate::layout::{AWS_CA, CLUSTER, IMDS, Layout, NODES, Node, ROUTER};
use crate::programs::run as run_program;
use crate::{cgroups, control_plane, network, node};

/// The image that `make image` makes with PROFILE=trial.
const IMAGE: &str = "localhost/pod-identity-agent:trial";

/// From then on nobody is told that something has ended.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Starts everything, and ends everything when standard input does.
pub(crate) fn run(arguments: &InsideArgs) -> Result<(), Failure> {
    let layout = Layout { folder: arguments.folder.clone(), assets: arguments.assets.clone() };
    cgroups::join(&arguments.cgroup)?;
    let done = start(&layout, arguments).map(|sandbox| {
        // However the starter ends, the kernel closes its end of the pipe.
        let _ended = io::stdin().read_to_end(&mut Vec::new());
        drop(sandbox);
    });
    ENDING.store(true, Ordering::Relaxed);
    // To a PID 1, -1 is everybody but itself.
    let _nobody_left = kill(Pid::from_raw(-1), Signal::SIGKILL);
    // Until nobody is left: EINTR aside, the only error is that there is no child.
    while waitpid(None, None) != Err(Errno::ECHILD) {}
    cgroups::leave();
    cgroups::remove(&arguments.cgroup);
    let _unseen = run_program(Command::new("umount").arg(layout.disk()));
    if done.is_ok() {
        let _starter_was_quicker = fs::remove_dir_all(&layout.folder);
    }
    done
}

fn start(layout: &Layout, arguments: &InsideArgs) -> Result<Sandbox, Failure> {
    let cgroup = arguments.cgroup.as_str();
    // In the machine's network, so before the cluster's is entered.
    let (api_server, control, gateway) = (Door::new()?, Door::new()?, Door::new()?);
    let server = format!("https://127.0.0.1:{}", api_server.port()?);
    let [control_url, gateway_url] =
        [control.port()?, gateway.port()?].map(|port| format!("http://127.0.0.1:{port}"));
    fs::create_dir_all(layout.disk()).map_err(at("no folder for the disks"))?;
    run_program(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=700", "tmpfs"]).arg(layout.disk()))?;
    network::enter_a_new_one()?;

    let sandbox = aws(&layout.disk().join("aws"), arguments.moto.clone())?;
    api_server.lead_to(SocketAddr::from(API_SERVER));
    control.lead_to(address(sandbox.control_url())?);
    if let Some(url) = sandbox.gateway_url() {
        gateway.lead_to(address(url)?);
    }
    let authority = Authority::new()?;
    let key = sandbox.signing_key_file();
    // EKS Auth accepts tokens of this one too, for an API server that is started with it.
    sandbox.publish_next_key(KeyKind::Rsa)?;
    let tokens = Tokens { issuer: sandbox.issuer_url(), key: &key };
    let ControlPlane { api_server, others } = control_plane::start_all(layout, &authority, &tokens)?;
    for (part, child) in others {
        keep_part(part, child);
    }
    keep_api_server(api_server);
    for node in NODES {
        node::prepare(layout, node, cgroup, &authority)?;
        keep_on(layout, node, cgroup)?;
    }
    write(&layout.app(), &include_str!("../app.yaml").replace("$STS_URL", sandbox.sts_url()))?;
    fs::copy(sandbox.ca_file(), layout.aws_ca()).map_err(at("the certificate of AWS cannot be written"))?;
    write(&layout.values(), &values(&sandbox).to_string())?;
    let state = json!({
        "kubeconfig": layout.kubeconfig(),
        "values": layout.values(),
        "app": layout.app(),
        "logs": layout.logs(),
        "controlUrl": control_url,
        "stsUrl": sandbox.sts_url(),
        "issuer": sandbox.issuer_url(),
        "signingKey": sandbox.signing_key_file(),
        "nextSigningKey": sandbox.next_signing_key_file(),
        "admin": admin(&sandbox, &gateway_url),
        "peakMemoryFile": cgroups::peak_memory_file(cgroup),
        "nodes": NODES.map(Node::name),
    });
    write(&layout.state(), &state.to_string())?;
    // Last: it is what the starter waits for.
    authority.kubeconfig(&server, &authority.client("admin", "system:masters")?, &layout.kubeconfig())?;
    Ok(sandbox)
}

/// The cluster's AWS, where EKS has it: behind the router, IMDS at its own address.
fn aws(folder: &Path, moto: Option<PathBuf>) -> Result<Sandbox, Failure> {
    let role =
        |name: &str| Association::new("default", name, &format!("arn:aws:iam::111122223333:role/{name}"));
    Ok(Sandbox::start(Options {
        cluster_name: CLUSTER.to_owned(),
        address: IpAddr::V4(ROUTER),
        imds: Some(IMDS),
        cluster_signs: true,
        tls: true,
        dir: Some(folder.to_owned()),
        associations: vec![role("app"), role("shop")],
        moto,
        ..Options::default()
    })?)
}

/// The environment of the account's administrator on this machine, and the same services as pods reach them;
/// none without moto.
fn admin(sandbox: &Sandbox, gateway_url: &str) -> Option<serde_json::Value> {
    let (of_pods, admin) = (sandbox.gateway_url()?, sandbox.admin_credentials());
    Some(json!({
        "urlOfPods": of_pods,
        "environment": {
            "AWS_ENDPOINT_URL": gateway_url,
            "AWS_ACCESS_KEY_ID": admin.access_key_id,
            "AWS_SECRET_ACCESS_KEY": admin.secret_access_key,
            "AWS_DEFAULT_REGION": sandbox.options().region,
        },
    }))
}

/// What an admin of this cluster gives the chart. AWS has no public certificate here: its authority is a
/// ConfigMap. The region is that of the instances.
fn values(sandbox: &Sandbox) -> serde_json::Value {
    let folder = "/etc/aws-ca";
    json!({
        "clusterName": CLUSTER,
        "env": {"AWS_CA_BUNDLE": format!("{folder}/ca.pem")},
        "image": {"override": IMAGE, "pullPolicy": "Never"},
        "agent": {"additionalArgs": {
            "--endpoint": sandbox.eks_auth_tls_url(),
            "--sts-endpoint": sandbox.sts_tls_url(),
        }},
        // No keys and no issuer: the API server has them. Required, so that nobody is served who was not
        // verified.
        "tokenVerification": "required",
        "volumes": [{"name": AWS_CA, "configMap": {"name": AWS_CA}}],
        "volumeMounts": [{"name": AWS_CA, "mountPath": folder, "readOnly": true}],
    })
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    fs::write(path, content).map_err(at(format!("{} cannot be written", path.display())))
}

fn address(url: &str) -> Result<SocketAddr, Failure> {
    let parsed = url.trim_start_matches("http://").parse();
    parsed.map_err(|error| Failure::Io(format!("{url} has no address"), io::Error::other(error)))
}

/// Keeps a node switched on: whoever kills its PID 1 cuts its power, and it boots again.
fn keep_on(layout: &Layout, node: Node, cgroup: &str) -> Result<(), Failure> {
    let mut child = node::start(layout, node, cgroup)?;
    let (layout, cgroup) = (layout.clone(), cgroup.to_owned());
    thread::spawn(move || {
        loop {
            let status = ended(&mut child);
            if ENDING.load(Ordering::Relaxed) {
                return;
            }
            say(&format!("{} went down ({status})", node.name()));
            // A machine needs a moment too; and one that fails at once is not to keep the others from their
            // work.
            thread::sleep(Duration::from_secs(1));
            match node::start(&layout, node, &cgroup) {
                Ok(next) => child = next,
                Err(failure) => return say(&format!("{} stays down: {}", node.name(), chain(&failure))),
            }
        }
    });
    Ok(())
}

/// Keeps the API server running: whenever it has ended it is started again, unless it was stopped.
fn keep_api_server((api_server, mut child): (ApiServer, Child)) {
    thread::spawn(move || {
        loop {
            let status = ended(&mut child);
            if ENDING.load(Ordering::Relaxed) {
                return;
            }
            say(&format!("{} ended ({status})", api_server::NAME));
            api_server.await_start();
            match api_server.start() {
                Ok(next) => child = next,
                Err(failure) => return say(&format!("it stays down: {}", chain(&failure))),
            }
        }
    });
}

/// Keeps another part of the control plane running, as a supervisor does: the controller manager gives up
/// when the API server takes longer than 20 s to make the first roles, as it does on a busy machine.
fn keep_part(part: Part, mut child: Child) {
    thread::spawn(move || {
        loop {
            let status = ended(&mut child);
            if ENDING.load(Ordering::Relaxed) {
                return;
            }
            say(&format!("{} ended ({status}) and is started again", part.name));
            thread::sleep(Duration::from_secs(1));
            match part.start() {
                Ok(next) => child = next,
                Err(failure) => return say(&format!("{} stays down: {}", part.name, chain(&failure))),
            }
        }
    });
}

fn ended(child: &mut Child) -> String {
    child.wait().map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string())
}

fn say(line: &str) {
    if ENDING.load(Ordering::Relaxed) {
        return;
    }
    let _nobody_reads = writeln!(io::stderr(), "cluster: {line}");
}
