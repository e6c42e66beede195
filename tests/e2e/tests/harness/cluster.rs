//! A real Kubernetes cluster (tests/cluster), one for all tests, which have it one after the other.
//!
//! Owns: starting it, kubectl, helm, nodes and pods. Must not know: what a test is about.
//!
//! The cluster ends when this process does: it lives as long as the pipe to its starter.

mod alerts;
mod api_server;
mod aws;
mod objects;
mod pages;
mod releases;
mod shell;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::binary;
pub(crate) use api_server::Stop;
pub(crate) use shell::Shell;

pub(crate) const NODES: [&str; 2] = ["node-1", "node-2"];
/// What the chart is installed as, unless a test says otherwise.
pub(crate) const RELEASE: &str = "pod-identity-agent";
/// Longest wait for anything that the cluster does.
const PATIENCE: Duration = Duration::from_secs(90);
/// What a test has made is found by this label, and removed.
const LABEL: &str = "made-by=test";

/// A cluster that is up.
pub(crate) struct Cluster {
    state: Value,
    assets: PathBuf,
    /// Its standard input is what keeps the cluster alive.
    starter: Child,
    /// The spec of a pod as EKS injects it.
    injected: OnceLock<Value>,
}

/// The cluster, for one test. What it made in the cluster goes with it.
pub(crate) struct Turn {
    cluster: &'static Cluster,
    name: &'static str,
    started: Instant,
    /// What was measured, for the line that is printed at the end.
    measured: RefCell<String>,
    _alone: MutexGuard<'static, ()>,
}

/// What a pod's load came to.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) pod: String,
    pub(crate) good: u64,
    pub(crate) failed: u64,
    /// From the first failure to the last, in seconds.
    pub(crate) window: f64,
    pub(crate) keys: Vec<String>,
    pub(crate) log: String,
}

/// A program in a pod that waits to be told to go on.
pub(crate) struct Started {
    kubectl: Child,
    lines: BufReader<ChildStdout>,
}

impl Started {
    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a readable pipe");
        line.trim_end().to_owned()
    }

    /// Gives it a line.
    pub(crate) fn go_on(&mut self) {
        let stdin = self.kubectl.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"\n").expect("it reads");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // By pid, and only the one we started.
        let _gone = self.kubectl.kill();
        let _reaped = self.kubectl.wait();
    }
}

/// The cluster, once nobody else has it.
pub(crate) fn cluster(name: &'static str) -> Turn {
    static ALONE: Mutex<()> = Mutex::new(());
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let alone = ALONE.lock();
    let cluster = CLUSTER.get_or_init(Cluster::start);
    if let Some(file) = cluster.peak_file() {
        // Any write makes the kernel forget the peak (cgroup v1; memory.peak of v2 too, since Linux 6.12).
        let _older_kernel = fs::write(file, "0");
    }
    Turn { cluster, name, started: Instant::now(), measured: RefCell::default(), _alone: alone }
}

impl Turn {
    /// Has a figure printed with the test's name.
    pub(crate) fn measured(&self, what: &str) {
        self.measured.borrow_mut().push_str(&format!(", {what}"));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let gone = ["delete", "pods,services", "--selector", LABEL, "--now", "--wait", "--timeout=60s"];
        let _reported_by_the_next = self.try_kubectl(&gone);
        let peak = self.peak_file().and_then(|file| fs::read_to_string(file).ok());
        let peak = peak.and_then(|bytes| bytes.trim().parse::<u64>().ok()).map_or(0, |bytes| bytes >> 20);
        let (name, seconds, measured) =
            (self.name, self.started.elapsed().as_secs_f64(), self.measured.borrow());
        let line = format!("  {name}: {seconds:.1} s, whole cluster at most {peak} MiB{measured}");
        let _nobody_reads = writeln!(io::stderr(), "{line}");
    }
}

impl std::ops::Deref for Turn {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}

impl Cluster {
    /// A cluster that is ready, with the service accounts of the tests, and with EKS's API, IAM and S3.
    fn start() -> Self {
        let moto = repository(".cache/moto/bin/python");
        assert!(moto.exists(), "{} is missing: tests/sandbox/moto/prepare.sh makes it", moto.display());
        let cluster = Self::start_with(&["--moto".as_ref(), moto.as_ref()]);
        cluster.make_accounts();
        cluster
    }

    /// The service accounts of the tests.
    pub(crate) fn make_accounts(&self) {
        for account in ["app", "shop", "stranger"] {
            self.kubectl(&["create", "serviceaccount", account]);
        }
    }

    /// A cluster of a test's own, to be ended by it.
    pub(crate) fn start_bare() -> Self {
        Self::start_with(&[])
    }

    fn start_with(more: &[&OsStr]) -> Self {
        let program = binary().with_file_name("cluster");
        let assets = binary().with_file_name("../cluster");
        let assets = assets.canonicalize().expect("tests/cluster/prepare.sh has made target/cluster");
        let mut starter = Command::new(program)
            .args(["up", "--bare", "--json", "--assets"])
            .arg(&assets)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`cargo build --workspace` has made the cluster's starter");
        let mut line = String::new();
        let told = BufReader::new(starter.stdout.take().expect("a pipe")).read_line(&mut line);
        told.expect("a readable pipe");
        let state = serde_json::from_str(&line).expect("the cluster is up; above is why not");
        Self { state, assets, starter, injected: OnceLock::new() }
    }

    /// Sends its starter a signal, and waits for that process to end.
    pub(crate) fn end_by(mut self, signal: Signal) -> PathBuf {
        let pid = i32::try_from(self.starter.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it is ours");
        self.starter.wait().expect("it ends");
        self.folder().to_owned()
    }

    fn text(&self, key: &str) -> &str {
        self.state[key].as_str().expect("the state says where")
    }

    fn peak_file(&self) -> Option<&str> {
        self.state["peakMemoryFile"].as_str()
    }

    /// Runs kubectl, which must succeed, and returns what it wrote.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded("kubectl", arguments, &self.try_kubectl(arguments))
    }

    /// Runs kubectl.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.tool("kubectl").args(arguments).output().expect("kubectl runs")
    }

    /// Runs a program in all namespaces of a node; it must succeed.
    pub(crate) fn on_node(&self, node: &str, command: &[&str]) -> String {
        succeeded(node, command, &self.try_on_node(node, command))
    }

    fn try_on_node(&self, node: &str, command: &[&str]) -> Output {
        self.starter("enter", node).arg("--").args(command).output().expect("the starter runs")
    }

    /// Cuts a node's power; it boots again.
    pub(crate) fn reboot(&self, node: &str) {
        let output = self.starter("reboot", node).output().expect("the starter runs");
        succeeded("reboot", &[node], &output);
    }

    /// The node's pid of the agent that serves there: the one, or with a surge the newest.
    pub(crate) fn agent(&self, node: &str) -> Option<String> {
        // Not one of its probes, which are processes of the same name. The bracket keeps the shell out.
        let found = self.on_node(node, &["sh", "-c", "pgrep -n -f '^/?[p]od-identity-agent server' || true"]);
        Some(found.trim().to_owned()).filter(|pid| !pid.is_empty())
    }

    /// Starts a pod on a node, with what EKS injects. It lives until its command ends.
    pub(crate) fn start_pod(&self, name: &str, account: &str, node: &str, command: &[&str]) {
        self.start_pod_with(name, account, node, command, |_| ());
    }

    /// The same, changed by a test: it is given the pod's spec.
    pub(crate) fn start_pod_with(
        &self,
        name: &str,
        account: &str,
        node: &str,
        command: &[&str],
        change: impl FnOnce(&mut Value),
    ) {
        let mut spec = self.injected.get_or_init(|| self.read_injected()).clone();
        spec["serviceAccountName"] = account.into();
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        spec["restartPolicy"] = "Never".into();
        spec["containers"][0]["command"] = command.into();
        change(&mut spec);
        let (key, value) = LABEL.split_once('=').expect("a label");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {key: value}}, "spec": spec,
        });
        let output = fed(self.tool("kubectl").args(["create", "--filename", "-"]), &pod.to_string());
        succeeded("kubectl", &["create", name], &output);
    }

    /// Starts a pod that does nothing, and waits until things can be run in it.
    pub(crate) fn pod(&self, name: &str, account: &str, node: &str) {
        self.start_pod(name, account, node, &["/bin/sleep", "1000"]);
        self.until_running(name);
    }

    pub(crate) fn until_running(&self, pod: &str) {
        self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=90s"]);
    }

    /// What boto3 says in a pod: the ARN it is and the access key.
    pub(crate) fn who_am_i(&self, pod: &str) -> Result<(String, String), String> {
        identity(&self.try_kubectl(&["exec", pod, "--", "python3", "/who_am_i.py"]))
    }

    /// The container of a pod, as its node's containerd knows it.
    pub(crate) fn container(&self, pod: &str) -> String {
        let id =
            self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}"]);
        id.strip_prefix("containerd://").expect("an id of containerd").to_owned()
    }

    /// The same as [`Self::who_am_i`], asked on the node: the API server has no part in it.
    pub(crate) fn who_am_i_on(&self, node: &str, container: &str) -> Result<(String, String), String> {
        let exec = ["ctr", "--namespace", "k8s.io", "tasks", "exec", "--exec-id", "who-am-i", container];
        identity(&self.try_on_node(node, &[&exec[..], &["python3", "/who_am_i.py"]].concat()))
    }

    /// Starts a program in a pod, to be talked to.
    pub(crate) fn start_in(&self, pod: &str, program: &[&str]) -> Started {
        let mut kubectl = self.tool("kubectl");
        kubectl.args(["exec", "--stdin", pod, "--"]).args(program);
        let mut kubectl = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("kubectl runs");
        let lines = BufReader::new(kubectl.stdout.take().expect("a pipe"));
        Started { kubectl, lines }
    }

    /// What a page is answered with in a pod: the status, or why there is none.
    pub(crate) fn status(&self, pod: &str, url: &str) -> String {
        self.kubectl(&["exec", pod, "--", "python3", "/status.py", url]).trim().to_owned()
    }

    /// Starts a pod that asks for credentials so many times a second, until [`Self::end_load`].
    pub(crate) fn start_load(&self, pod: &str, account: &str, node: &str, rate: u32) {
        self.start_pod(pod, account, node, &["python3", "/load.py", &rate.to_string()]);
        self.until_running(pod);
    }

    /// Ends the load and says what it came to.
    pub(crate) fn end_load(&self, pod: &str) -> Loaded {
        let [loaded] = self.end_loads([pod]);
        loaded
    }

    /// The same of several, all at once.
    pub(crate) fn end_loads<const N: usize>(&self, pods: [&str; N]) -> [Loaded; N] {
        for pod in pods {
            self.kubectl(&["exec", pod, "--", "sh", "-c", "kill -TERM 1"]);
        }
        let names = pods.map(|pod| format!("pod/{pod}"));
        let mut wait = vec!["wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"];
        wait.extend(names.iter().map(String::as_str));
        self.kubectl(&wait);
        pods.map(|pod| self.loaded(pod))
    }

    fn loaded(&self, pod: &str) -> Loaded {
        let log = self.kubectl(&["logs", pod]);
        let last = log.lines().last().expect("it says what it came to");
        let all: Value = serde_json::from_str(last).expect("JSON");
        let keys = all["keys"].as_array().expect("keys").iter();
        Loaded {
            pod: pod.to_owned(),
            good: all["good"].as_u64().expect("a count"),
            failed: all["failed"].as_u64().expect("a count"),
            window: all["window"].as_f64().expect("seconds"),
            keys: keys.map(|key| key.as_str().expect("a key").to_owned()).collect(),
            log,
        }
    }

    /// The spec of a pod with exactly what EKS injects, of the file that `make cluster` uses.
    fn read_injected(&self) -> Value {
        let text = self.kubectl(&["create", "--dry-run=client", "-o", "json", "-f", self.text("app")]);
        // One document after the other: the service account, then the DaemonSet.
        let documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let all: Vec<Value> = documents.map(|document| document.expect("JSON")).collect();
        all[1]["spec"]["template"]["spec"].clone()
    }

    fn starter(&self, command: &str, node: &str) -> Command {
        let mut starter = self.program();
        starter.args([command, node, "--cluster"]).arg(self.folder());
        starter
    }

    fn program(&self) -> Command {
        Command::new(binary().with_file_name("cluster"))
    }

    /// Where it is, as the machine sees it.
    pub(crate) fn folder(&self) -> &Path {
        Path::new(self.text("kubeconfig")).parent().expect("a folder")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.assets.join("tools").join(name));
        // Its own home: a user's plugins and repositories are not part of a test.
        command
            .env("KUBECONFIG", self.text("kubeconfig"))
            .env("HOME", self.text("logs"))
            .stdin(Stdio::null());
        command
    }
}

impl Loaded {
    /// How many seconds each gap lasted in which tries failed: two seconds without a failure end one.
    pub(crate) fn gaps(&self) -> Vec<f64> {
        let failed = |line: &str| serde_json::from_str::<Value>(line).ok()?["at"].as_f64();
        let mut gaps: Vec<(f64, f64)> = Vec::new();
        for at in self.log.lines().filter_map(failed) {
            match gaps.last_mut() {
                Some((_, end)) if at - *end < 2.0 => *end = at,
                Some(_) | None => gaps.push((at, at)),
            }
        }
        gaps.into_iter().map(|(begin, end)| end - begin).collect()
    }

    /// Nothing went wrong, and something was done.
    pub(crate) fn assert_unhurt(&self) {
        assert_eq!(self.failed, 0, "{}: {}", self.pod, self.log);
        assert!(self.good > 10, "{}: {}", self.pod, self.log);
    }
}

/// A file of this source tree.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Waits until something of the cluster is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        sleep(Duration::from_millis(200));
    }
}

/// Of the output of who_am_i.py.
fn identity(output: &Output) -> Result<(String, String), String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = said.lines().map(str::to_owned);
    match (output.status.success(), lines.next(), lines.next()) {
        (true, Some(arn), Some(key)) => Ok((arn, key)),
        _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn fed(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn succeeded(program: &str, arguments: &[&str], output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
