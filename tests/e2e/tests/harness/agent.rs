//! The agent as a process: the binary that users run, with flags and environment.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use sandbox::Sandbox;

use super::cgroup::Cgroup;
use super::http::{Answer, Request};

/// Ports below the ephemeral range, so that no outgoing connection of another test takes one.
static PORTS: Mutex<Ports> = Mutex::new(Ports::none());

/// Every agent has a log of its own; on nodes of their own, many have the same port.
static NEXT_LOG: AtomicU32 = AtomicU32::new(0);

/// An agent that can be asked. Killed when dropped.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
    pub(crate) port: u16,
    pub(crate) probe_port: u16,
    pub(crate) metrics_port: u16,
}

/// An agent in the making. It gets nothing from the environment of the tests.
pub(crate) struct Builder {
    program: PathBuf,
    flags: BTreeMap<String, Vec<String>>,
    environment: BTreeMap<String, String>,
    port: u16,
    probe_port: u16,
    metrics_port: u16,
    descriptors: Option<u32>,
    cgroup: Option<PathBuf>,
    programs: BTreeMap<&'static str, String>,
    resolv_conf: Option<PathBuf>,
    has_nft: bool,
    is_nobody: bool,
}

/// Gives a program the user `nobody` and what an agent that keeps a table needs.
const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups \
     --inh-caps=+net_admin,+net_bind_service --ambient-caps=+net_admin,+net_bind_service";

impl Builder {
    /// Pointed at a sandbox, with every default that a real node has.
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        Self::at_ports(sandbox, [free_port(), free_port(), free_port()])
    }

    fn at_ports(sandbox: &Sandbox, [port, probe_port, metrics_port]: [u16; 3]) -> Self {
        let (flags, environment) = (BTreeMap::new(), BTreeMap::new());
        let builder = Self {
            program: binary(),
            flags,
            environment,
            port,
            probe_port,
            metrics_port,
            descriptors: None,
            cgroup: None,
            programs: BTreeMap::new(),
            resolv_conf: None,
            has_nft: true,
            is_nobody: false,
        };
        builder
            .flag("--cluster-name", "sandbox")
            .flag("--bind-hosts", "127.0.0.1")
            .flag("--metrics-address", "127.0.0.1")
            .flag("--endpoint", sandbox.eks_auth_url())
            .flag("--verbosity", "trace")
            // No test but those of it waits for another agent that will not come.
            .flag("--shutdown-delay", "0s")
            .env("AWS_REGION", "us-west-2")
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", sandbox.imds_url())
    }

    /// The same, verifying tokens with the sandbox's keys, on the sandbox's node.
    pub(crate) fn verifying(sandbox: &Sandbox) -> Self {
        Self::new(sandbox).with_keys(sandbox)
    }

    /// With the keys that the sandbox's tokens are verified with.
    pub(crate) fn with_keys(self, sandbox: &Sandbox) -> Self {
        self.flag("--jwks", &sandbox.jwks_url())
            .flag("--issuer", sandbox.issuer_url())
            .flag("--node-name", sandbox.node_name())
    }

    /// On a node: the real addresses and all default ports. For tests that run in a node's namespace.
    pub(crate) fn on_a_node(sandbox: &Sandbox) -> Self {
        let builder = Self::at_ports(sandbox, [80, 2703, 2705]);
        builder.without("--bind-hosts").without("--metrics-address")
    }

    /// Sets a flag, in place of the one it had.
    pub(crate) fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.insert(name.to_owned(), vec![value.to_owned()]);
        self
    }

    /// Gives a flag once more.
    pub(crate) fn also(mut self, name: &str, value: &str) -> Self {
        self.flags.entry(name.to_owned()).or_default().push(value.to_owned());
        self
    }

    /// Turns a switch on, bare, as one would write it.
    pub(crate) fn switch(mut self, name: &str) -> Self {
        self.flags.insert(name.to_owned(), Vec::new());
        self
    }

    /// Takes a flag away.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.flags.remove(name);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Takes a variable away.
    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    pub(crate) fn probe_port(mut self, port: u16) -> Self {
        self.probe_port = port;
        self
    }

    pub(crate) fn metrics_port(mut self, port: u16) -> Self {
        self.metrics_port = port;
        self
    }

    /// The program of the image, which is optimized: under crowds, the processor time of the dev build is
    /// what its clients wait for.
    pub(crate) fn of_the_image(mut self) -> Self {
        self.program = binary_of_the_image();
        self
    }

    /// Puts a shell script in the place of a program that the agent runs. The script finds the program behind
    /// itself.
    pub(crate) fn in_place_of(mut self, program: &'static str, script: &str) -> Self {
        self.programs.insert(program, format!("#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n{script}\n"));
        self
    }

    /// Lets it find no `nft`, as in an image that has none.
    pub(crate) fn without_nft(mut self) -> Self {
        self.has_nft = false;
        self
    }

    /// Lets it be `nobody`, and do to the node's network all that an agent does.
    pub(crate) fn of_nobody(mut self) -> Self {
        self.is_nobody = true;
        self
    }

    /// Lets it have so many descriptors and no more.
    pub(crate) fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Lets it live in this cgroup.
    pub(crate) fn cgroup(mut self, cgroup: &Cgroup) -> Self {
        self.cgroup = Some(cgroup.processes());
        self
    }

    /// Lets it find name servers by this file, which nobody else sees.
    pub(crate) fn resolv_conf(mut self, file: &Path) -> Self {
        self.resolv_conf = Some(file.to_owned());
        self
    }

    /// The command, for tests that expect it to end by itself.
    pub(crate) fn command(&self) -> Command {
        let descriptors = self.descriptors.map(|limit| format!("ulimit -n {limit} && "));
        let cgroup = self.cgroup.as_ref().map(|file| format!("echo $$ >{} && ", file.display()));
        let resolver = self.resolv_conf.as_ref();
        let resolver = resolver.map(|file| format!("mount --bind {} /etc/resolv.conf && ", file.display()));
        // The first folder in which the agent looks for programs, covered for it alone.
        let cover = (!self.programs.is_empty()).then(|| "mount -t tmpfs none /usr/local/sbin && ".to_owned());
        let programs = self.programs.iter().map(|(program, script)| {
            let file = format!("/usr/local/sbin/{program}");
            format!("printf %s '{script}' >{file} && chmod 755 {file} && ")
        });
        // The folder of it, covered for the agent alone. It needs nothing else there.
        let no_nft = (!self.has_nft).then(|| "mount -t tmpfs none /usr/sbin && ".to_owned());
        let has_mounts = resolver.is_some() || cover.is_some() || no_nft.is_some();
        let before = descriptors.into_iter().chain(cgroup).chain(resolver).chain(no_nft).chain(cover);
        let before = before.chain(programs);
        let before = before.collect::<String>();
        let user = if self.is_nobody { AS_NOBODY } else { "" };
        let mut command = if before.is_empty() && user.is_empty() {
            Command::new(&self.program)
        } else {
            let mut shell = if has_mounts {
                let mut unshare = Command::new("unshare");
                unshare.args(["--mount", "/bin/sh"]);
                unshare
            } else {
                Command::new("/bin/sh")
            };
            shell.args(["-c", &format!("{before}exec {user} \"$0\" \"$@\"")]).arg(&self.program);
            shell
        };
        command.arg("server").env_clear().envs(&self.environment).stdin(Stdio::null());
        let ports =
            [("--port", self.port), ("--probe-port", self.probe_port), ("--metrics-port", self.metrics_port)];
        for (name, port) in ports {
            command.args([name, &port.to_string()]);
        }
        for (name, values) in &self.flags {
            if values.is_empty() {
                command.arg(name);
            }
            for value in values {
                command.args([name, value]);
            }
        }
        command
    }

    /// Starts it, without waiting for anything.
    pub(crate) fn spawn(&self) -> Agent {
        self.spawn_as(|_| {})
    }

    /// The same, after the command is changed by `how`: another user, for instance.
    pub(crate) fn spawn_as(&self, how: impl FnOnce(&mut Command)) -> Agent {
        self.spawn_with(how, None)
    }

    /// Starts it with a standard error that is not the log.
    pub(crate) fn spawn_with_stderr(&self, stderr: impl Into<Stdio>) -> Agent {
        self.spawn_with(|_| {}, Some(stderr.into()))
    }

    fn spawn_with(&self, how: impl FnOnce(&mut Command), stderr: Option<Stdio>) -> Agent {
        let number = NEXT_LOG.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("pod-identity-e2e-{}-{number}.log", std::process::id()));
        let file = File::create(&log).expect("a log file");
        let out = file.try_clone().expect("a second handle");
        let mut command = self.command();
        how(&mut command);
        let stderr = stderr.unwrap_or_else(|| file.into());
        let child = command.stdout(out).stderr(stderr).spawn().expect("the agent starts");
        Agent { child, log, port: self.port, probe_port: self.probe_port, metrics_port: self.metrics_port }
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(&self) -> Agent {
        let agent = self.spawn();
        agent.until_ready().await;
        agent
    }
}

impl Agent {
    /// Pointed at a sandbox, and ready.
    pub(crate) async fn start(sandbox: &Sandbox) -> Self {
        Builder::new(sandbox).start().await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Asks for credentials.
    pub(crate) async fn ask(&self, token: &str) -> Answer {
        Request::credentials(token).send(self.address()).await.expect("an answer")
    }

    /// Asks the probe listener.
    pub(crate) async fn probe(&self, path: &str) -> std::io::Result<Answer> {
        Request::get(path).send((Ipv4Addr::LOCALHOST, self.probe_port).into()).await
    }

    /// The number behind a series of the metrics page; 0 where it is missing.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let page = self.metrics().await;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |number| number.parse().expect("a whole number"))
    }

    /// The page of metrics.
    pub(crate) async fn metrics(&self) -> String {
        self.try_metrics().await.expect("metrics")
    }

    /// The page of metrics, if there is one.
    pub(crate) async fn try_metrics(&self) -> std::io::Result<String> {
        let at = (Ipv4Addr::LOCALHOST, self.metrics_port).into();
        Ok(Request::get("/metrics").send(at).await?.body)
    }

    pub(crate) async fn until_ready(&self) {
        for _ in 0..1000 {
            if self.probe("/readyz").await.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not ready after ten seconds:\n{}", self.log());
    }

    /// All it wrote so far, to stdout and stderr.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the agent is there");
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let deadline = tokio::time::Instant::now() + within;
        while tokio::time::Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("still there after {within:?}:\n{}", self.log());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // By pid, and only the one we started; it may have ended already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = std::fs::remove_file(&self.log);
    }
}

/// The binary beside this test's: `cargo build` comes before the tests.
pub(crate) fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let built = test.ancestors().nth(2).expect("target/<profile>").join("pod-identity-agent");
    assert!(
        built.exists(),
        "{} is missing: run `cargo build --workspace` first, as `make test` does",
        built.display()
    );
    built
}

/// The binary in the image that the pods of the cluster run.
fn binary_of_the_image() -> PathBuf {
    let built = binary().with_file_name("../image/pod-identity-agent");
    assert!(
        built.exists(),
        "{} is missing: run `tests/cluster/prepare.sh` first, as `make test` does",
        built.display()
    );
    built
}

/// Ports that are this process's own, as long as it runs: hundred by hundred.
struct Ports {
    /// On the first of each hundred. Every process of these tests that looks for ports meets it.
    claims: Vec<TcpListener>,
    next: u16,
    end: u16,
}

impl Ports {
    const COUNT: u16 = 100;

    const fn none() -> Self {
        Self { claims: Vec::new(), next: 21_000, end: 21_000 }
    }

    fn next(&mut self) -> u16 {
        if self.next == self.end {
            self.claim_more();
        }
        self.next += 1;
        self.next - 1
    }

    /// The next hundred that no other process has.
    fn claim_more(&mut self) {
        let mut firsts = (self.end..32_000).step_by(Self::COUNT.into());
        let claimed =
            firsts.find_map(|first| Some((first, TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()?)));
        let (first, claim) = claimed.expect("out of ports");
        self.claims.push(claim);
        (self.next, self.end) = (first + 1, first + Self::COUNT);
    }
}

/// A port that nobody has, and that no other test gets: it is this process's own before it is asked for.
pub(crate) fn free_port() -> u16 {
    let mut ports = PORTS.lock();
    loop {
        let port = ports.next();
        // Some other program of the machine may have it.
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
