//! The agent as a child process: started as on a node, watched until it is ready, ended by its pid.
//!
//! Owns: its command line and environment, and that it never outlives the sandbox. Must not know: how it
//! works; any program that takes these arguments will do.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::Sandbox;
use thiserror::Error;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::{client, ports};

/// The agent's name, beside this program.
const NAME: &str = "pod-identity-agent";
/// Longest wait for `/readyz`.
const READY: Duration = Duration::from_secs(20);
/// Pause between two looks at it.
const LOOK: Duration = Duration::from_millis(50);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// Starts tried: a free port can be taken by another process before the agent has it.
const TRIES: usize = 3;
/// Variables that would send the agent elsewhere; those of AWS are known by their prefix.
pub(crate) const PROXIES: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// There is no agent, or none that becomes ready.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    /// Not where it is looked for.
    #[error(
        "there is no agent at {0}; build it with `cargo build -p pod-identity-agent`, or name one with --agent"
    )]
    Missing(PathBuf),
    /// It does not start.
    #[error("the agent could not be started")]
    Start(#[from] io::Error),
    /// It ended before it was ready.
    #[error("the agent ended before it was ready ({0}){1}")]
    Ended(ExitStatus, String),
    /// It is not ready in time.
    #[error("the agent was not ready in time{0}")]
    NotReady(String),
}

/// Where the agent's log goes.
#[derive(Clone, Debug)]
pub(crate) enum Log {
    /// To our standard error.
    Here,
    /// To a file, shown only if the agent fails.
    File(PathBuf),
}

impl Log {
    fn open(&self) -> io::Result<(Stdio, Stdio)> {
        match self {
            Self::Here => {
                let copy = || io::stderr().as_fd().try_clone_to_owned().map(Stdio::from);
                Ok((copy()?, copy()?))
            }
            Self::File(path) => {
                let file = File::create(path)?;
                Ok((file.try_clone()?.into(), file.into()))
            }
        }
    }

    /// The end of the log, to be put behind an error.
    fn tail(&self) -> String {
        let text = match self {
            Self::Here => return String::new(),
            Self::File(path) => std::fs::read_to_string(path).unwrap_or_default(),
        };
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.iter().rev().fold(String::new(), |tail, line| format!("{tail}\n  {line}"))
    }
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    port: u16,
}

/// The binary to start: the given one, or the one beside this program.
pub(crate) fn binary(given: Option<&Path>) -> Result<PathBuf, AgentError> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name(NAME),
    };
    if path.is_file() { Ok(path) } else { Err(AgentError::Missing(path)) }
}

/// The agent's arguments, for credentials, probes and metrics on those ports.
pub(crate) fn arguments(sandbox: &Sandbox, [port, probe, metrics]: [u16; 3]) -> Vec<String> {
    let (port, probe, metrics) = (port.to_string(), probe.to_string(), metrics.to_string());
    [
        ["--cluster-name", sandbox.options().cluster_name.as_str()],
        ["--port", &port],
        ["--bind-hosts", "127.0.0.1"],
        ["--probe-port", &probe],
        ["--metrics-address", "127.0.0.1"],
        ["--metrics-port", &metrics],
        ["--endpoint", sandbox.eks_auth_url()],
        ["--log-format", "text"],
        ["-v", "info"],
    ]
    .as_flattened()
    .iter()
    .fold(vec!["server".to_owned()], |mut all, &argument| {
        all.push(argument.to_owned());
        all
    })
}

/// The agent's environment, beyond what is inherited.
pub(crate) fn environment(sandbox: &Sandbox) -> [(&'static str, String); 2] {
    [
        ("AWS_REGION", sandbox.options().region.clone()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", sandbox.imds_url().to_owned()),
    ]
}

impl Agent {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(
        sandbox: &Sandbox,
        binary: &Path,
        port: Option<u16>,
        log: &Log,
    ) -> Result<Self, AgentError> {
        let mut tries = TRIES;
        loop {
            let [credentials, probe, metrics] = ports::free()?;
            let ports = [port.unwrap_or(credentials), probe, metrics];
            let child = spawn(binary, &arguments(sandbox, ports), &environment(sandbox), log)?;
            let mut agent = Self { child, port: port.unwrap_or(credentials) };
            tries -= 1;
            match agent.until_ready(probe, log).await {
                Err(AgentError::Ended(status, _)) if tries > 0 => {
                    tracing::warn!(%status, "the agent ended before it was ready; trying other ports");
                }
                Err(error) => {
                    agent.stop().await;
                    return Err(error);
                }
                Ok(()) => return Ok(agent),
            }
        }
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it: SIGTERM, and SIGKILL for what is left after the grace.
    pub(crate) async fn stop(mut self) {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        // The child is not yet waited for, so its pid cannot be anybody else's.
        let asked = kill(Pid::from_raw(pid), Signal::SIGTERM);
        if asked.is_err() || timeout(GRACE, self.child.wait()).await.is_err() {
            tracing::warn!(pid, "the agent does not end; killing it");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(%error, "the agent could not be killed");
            }
        }
    }

    async fn until_ready(&mut self, probe: u16, log: &Log) -> Result<(), AgentError> {
        let url = format!("http://127.0.0.1:{probe}/readyz");
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Err(AgentError::Ended(status, log.tail()));
            }
            let answer = client::send(Method::GET, &url, None, String::new()).await;
            if answer.is_ok_and(|answer| answer.status.is_success()) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(AgentError::NotReady(log.tail()))
    }
}

/// Starts the binary in a process group of its own, so that Ctrl-C reaches us alone and we end it in order.
/// If we are killed outright the kernel ends it: that needs prctl, which `setpriv` of util-linux calls for
/// us; without that program the agent would outlive a killed sandbox.
fn spawn(
    binary: &Path,
    arguments: &[String],
    environment: &[(&str, String)],
    log: &Log,
) -> io::Result<Child> {
    let start = |mut command: Command| {
        let (out, err) = log.open()?;
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("AWS_") || PROXIES.contains(&&*name) {
                command.env_remove(&*name);
            }
        }
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).kill_on_drop(true).spawn()
    };
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "TERM", "--"]).arg(binary);
    match start(tied) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => start(Command::new(binary)),
        other => other,
    }
}
