//! The SDKs of the matrix, each a program that asks whenever it is told to.
//!
//! Owns: where the programs are, how one is started in a pod, and how it is asked. Must not know: what
//! happens to the agent or to AWS meanwhile.
//!
//! A program makes its SDK's client once, by the default chain. It reads a line, calls AWS, and writes a line
//! of JSON: `{"ok":true,"arn":…,"key":…}`, or `{"ok":false,"error":…}` with what the SDK's user reads.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sandbox::{PodSpec, Sandbox};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::Instant;

use crate::clients::{built, python};
use crate::harness::Wired;

/// Longer than any SDK of the matrix goes on.
const PATIENCE: Duration = Duration::from_secs(75);

/// An SDK.
pub(super) struct Sdk {
    pub(super) name: &'static str,
    program: fn() -> Vec<PathBuf>,
    environment: &'static [(&'static str, &'static str)],
}

/// All that are tested, in the order of the page.
pub(super) const SDKS: [Sdk; 11] = [
    Sdk::new("boto3 1.44", || vec![python("python"), file("tests/clients/python/asks.py")]),
    Sdk::new("AWS CLI 1.46", || vec![python("python"), file("tests/clients/python/cli_asks.py")]),
    Sdk::new("Java v2 2.57", || {
        let mut java: Vec<PathBuf> = ["/usr/bin/env", "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
            .map(PathBuf::from)
            .to_vec();
        let folder = file(".cache/java").display().to_string();
        java.extend(["-cp".into(), format!("{folder}:{folder}/*").into(), "Asks".into()]);
        java
    }),
    Sdk::new("JavaScript v3", || {
        vec!["/usr/bin/env".into(), "node".into(), file(".cache/javascript/asks.mjs")]
    }),
    Sdk::new("Go v2 (credentials 1.21)", || vec![file(".cache/go/who-am-i"), "asks".into()]),
    Sdk::new("Go v2 (credentials 1.19)", || vec![file(".cache/go/who-am-i-2025"), "asks".into()]),
    // The Secrets Store CSI driver before its pull request 472.
    Sdk::new("Go v2, 100 ms for each try", || vec![file(".cache/go/who-am-i"), "asks".into()])
        .with(&[("CREDENTIALS_TIMEOUT", "100ms")]),
    Sdk::new("minio-go", || vec![file(".cache/go/minio")]),
    Sdk::new("CRT (awscrt 0.38)", || vec![file(".cache/crt/bin/python"), file("tests/clients/crt/asks.py")]),
    Sdk::new("Rust", || vec![built("who-am-i"), "asks".into()]),
    Sdk::new("Rust, retries of 2026", || vec![built("who-am-i"), "asks".into()])
        .with(&[("AWS_NEW_RETRIES_2026", "true")]),
];

impl Sdk {
    const fn new(name: &'static str, program: fn() -> Vec<PathBuf>) -> Self {
        Self { name, program, environment: &[] }
    }

    const fn with(self, environment: &'static [(&'static str, &'static str)]) -> Self {
        Self { environment, ..self }
    }

    /// Starts it in a pod, and waits until it could be asked.
    pub(super) async fn start(&self, pod: Wired, agent: IpAddr, sts: &str) -> Asking {
        let program = (self.program)();
        let parts: Vec<&Path> = program.iter().map(AsRef::as_ref).collect();
        let mut command = pod.command(&parts, agent, sts);
        #[expect(clippy::disallowed_methods, reason = "where Java and Node.js are on this machine")]
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", path).envs(self.environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("nsenter runs");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut asking = Asking { name: self.name, pod, _child: child, stdin, stdout };
        assert_eq!(asking.line().await["ready"], true, "{}", self.name);
        asking
    }
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A program that waits to be asked.
pub(super) struct Asking {
    pub(super) name: &'static str,
    pub(super) pod: Wired,
    _child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

/// Whom an SDK says that it is. Each says one of them at least.
#[derive(Debug)]
pub(super) struct Identity {
    /// The access key that it holds.
    key: Option<String>,
    /// The ARN by which AWS knows it: `…/eks-CLUSTER-POD-…`.
    arn: Option<String>,
}

impl Identity {
    /// Whether it is this pod's, and nobody else's.
    pub(super) fn is_of(&self, pod: &PodSpec, sandbox: &Sandbox) -> bool {
        let key = self.key.as_ref().map(|key| sandbox.holder_of(key).is_some_and(|holder| holder == *pod));
        let arn = self.arn.as_ref().map(|arn| arn.contains(&format!("/eks-sandbox-{}-", pod.pod)));
        [key, arn].into_iter().flatten().reduce(|one, other| one && other).unwrap_or(false)
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Asked {
    /// Whom it is, or what its user reads.
    pub(super) result: Result<Identity, String>,
    pub(super) took: Duration,
}

impl Asking {
    /// Has it call AWS once.
    pub(super) async fn ask(&mut self) -> Asked {
        let began = Instant::now();
        self.stdin.write_all(b"who\n").await.expect("it reads");
        let said = self.line().await;
        let text = |field: &str| said[field].as_str().map(str::to_owned);
        let result = match said["ok"] == true {
            true => Ok(Identity { key: text("key"), arn: text("arn") }),
            false => Err(text("error").unwrap_or_default()),
        };
        Asked { result, took: began.elapsed() }
    }

    async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.stdout.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{} says nothing", self.name)).expect("a readable pipe");
        let line = line.unwrap_or_else(|| panic!("{} has ended", self.name));
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}: {line}", self.name))
    }
}
