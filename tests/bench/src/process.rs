//! The processes that are measured, and what the kernel says of them.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sandbox::Sandbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Outcome;
use crate::api_server::ApiServer;
use crate::load;

/// What one pod asks above its rate is answered later: with it the pace would be measured.
const WITHOUT_PACE: [&str; 2] = ["--pod-request-rate", "0"];

/// Something that serves: where, and which process it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
}

/// An agent with default logging and metrics; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    port: u16,
    probe_port: u16,
    metrics_port: u16,
}

/// The floor; killed when dropped.
pub(crate) struct Floor {
    child: Child,
    port: u16,
}

impl Agent {
    /// Started and ready.
    pub(crate) async fn start(sandbox: &Sandbox) -> Outcome<Self> {
        let agent = Self::spawn(sandbox)?;
        agent.until_ready().await?;
        Ok(agent)
    }

    /// The same with the pace that pods have by default.
    pub(crate) async fn start_with_pace(sandbox: &Sandbox) -> Outcome<Self> {
        let agent = Self::spawn_with(sandbox, |_| ())?;
        agent.until_ready().await?;
        Ok(agent)
    }

    /// The same with everything on, in a cluster of which it is a node.
    pub(crate) async fn start_in_cluster(sandbox: &Sandbox, api_server: &ApiServer) -> Outcome<Self> {
        let (host, port) = (api_server.address.ip().to_string(), api_server.address.port().to_string());
        let agent = Self::spawn_with(sandbox, |command| {
            command
                .args(WITHOUT_PACE)
                .args(["--node-name", sandbox.node_name(), "--audit-log", "--kubernetes-events"])
                .args(["--service-account-roles", "--sts-endpoint", sandbox.sts_url()])
                .arg("--kubernetes-credentials")
                .arg(&api_server.credentials)
                .env("KUBERNETES_SERVICE_HOST", host)
                .env("KUBERNETES_SERVICE_PORT", port);
        })?;
        agent.until_ready().await?;
        Ok(agent)
    }

    fn spawn(sandbox: &Sandbox) -> Outcome<Self> {
        Self::spawn_with(sandbox, |command| {
            command.args(WITHOUT_PACE);
        })
    }

    fn spawn_with(sandbox: &Sandbox, change: impl FnOnce(&mut Command)) -> Outcome<Self> {
        let (port, probe_port, metrics_port) = (free_port()?, free_port()?, free_port()?);
        let binary = built("pod-identity-agent")?;
        let mut command = Command::new(binary);
        command
            .args(["server", "--cluster-name", "sandbox", "--bind-hosts", "127.0.0.1"])
            .args(["--metrics-address", "127.0.0.1", "--max-cache-size", "12000"])
            .args(["--port", &port.to_string(), "--probe-port", &probe_port.to_string()])
            .args(["--metrics-port", &metrics_port.to_string(), "--endpoint", sandbox.eks_auth_url()])
            // Verified: of those that are not, one peer may have a few only.
            .args(["--jwks", &sandbox.jwks_url(), "--issuer", sandbox.issuer_url()])
            .env_clear()
            .env("AWS_REGION", "us-west-2")
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", sandbox.imds_url())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        change(&mut command);
        let child = command.spawn()?;
        Ok(Self { child, port, probe_port, metrics_port })
    }

    async fn until_ready(&self) -> Outcome<()> {
        self.until("was not ready", |page| page.starts_with("HTTP/1.1 200")).await
    }

    /// Waits until it has read the list of its node's pods.
    pub(crate) async fn until_pods_are_known(&self) -> Outcome<()> {
        self.until("did not know its pods", |page| page.contains(r#""name":"pods","met":true"#)).await
    }

    /// Waits until its readiness page is so.
    async fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let probes = SocketAddr::from((Ipv4Addr::LOCALHOST, self.probe_port));
        while Instant::now() < deadline {
            if readiness(probes).await.is_ok_and(|page| is_so(&page)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Err(format!("the agent {what} after ten seconds").into())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn server(&self) -> Server {
        Server { address: self.address(), pid: self.child.id() }
    }

    /// How many identities it says it has credentials of, verified or not.
    pub(crate) async fn identities(&self) -> Outcome<usize> {
        let page = load::get(&format!("http://127.0.0.1:{}/metrics", self.metrics_port)).await?;
        let of_each = ["true", "false"].map(|verified| -> Outcome<usize> {
            let series = format!("pod_identity_agent_cached_identities{{verified=\"{verified}\"}} ");
            let number = page.lines().find_map(|line| line.strip_prefix(&series));
            Ok(number.ok_or("no such series")?.parse()?)
        });
        of_each.into_iter().sum()
    }

    /// Resident memory.
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    pub(crate) fn rss_mib(&self) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib as f64 / 1024.0)
    }
}

impl Floor {
    /// Sends `response` to whoever asks.
    pub(crate) fn start(response: &str) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("floor")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().ok_or("no stdin")?.write_all(response.as_bytes())?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        Ok(Self { child, port: line.trim().parse()? })
    }

    pub(crate) fn server(&self) -> Server {
        Server { address: (Ipv4Addr::LOCALHOST, self.port).into(), pid: self.child.id() }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself; then there is nothing to do.
    let _gone = child.kill();
    let _reaped = child.wait();
}

/// The median time from exec to ready, own AWS credentials included.
pub(crate) async fn median_ready(sandbox: &Sandbox, starts: usize) -> Outcome<Duration> {
    let mut times = Vec::with_capacity(starts);
    for _ in 0..starts {
        let started = Instant::now();
        let agent = Agent::spawn(sandbox)?;
        agent.until_ready().await?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times.get(starts / 2).copied().unwrap_or_default())
}

async fn readiness(probes: SocketAddr) -> Outcome<String> {
    let mut stream = TcpStream::connect(probes).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// CPU time that the threads of a process have used, by the scheduler's own account: `/proc/PID/stat` counts
/// in hundredths of a second, which is a tenth of what some thousand hits take.
pub(crate) fn cpu_time(pid: u32) -> Outcome<Duration> {
    let mut all = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // Time on a processor, time in wait for one, and how often it had one; the first two in nanoseconds.
        let account = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_processor = account.split_whitespace().next().ok_or("an empty schedstat")?;
        all += Duration::from_nanos(on_processor.parse()?);
    }
    Ok(all)
}

/// The release binary beside this one.
fn built(name: &str) -> Outcome<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} is missing: use `make bench`", path.display()).into())
    }
}

fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
