//! A `sandbox up --eks` of a test's own, and the AWS CLI in front of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::Sandbox;
use serde_json::Value;

use crate::clients::{built, python};

/// The last line that `up` prints once all is there.
const UP: &str = "Ctrl-C ends it.";

/// The trust policy of EKS Pod Identity.
pub(crate) const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
    "Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"]}]}"#;

/// The Python with moto that `make test` has made.
pub(crate) fn moto() -> PathBuf {
    let moto = python("python").with_file_name("../../moto/bin/python");
    assert!(moto.exists(), "{} is missing: tests/sandbox/moto/prepare.sh makes it", moto.display());
    moto
}

/// The AWS CLI as the administrator of a sandbox with moto: what it said, on stdout or, when it failed, on
/// stderr.
pub(crate) fn administer(sandbox: &Sandbox, arguments: &[&str]) -> Result<String, String> {
    let admin = sandbox.admin_credentials();
    let mut aws = Command::new(python("aws"));
    aws.args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", sandbox.dir())
        .env("AWS_ENDPOINT_URL", sandbox.gateway_url().expect("it has moto"))
        .env("AWS_ACCESS_KEY_ID", &admin.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &admin.secret_access_key)
        .env("AWS_DEFAULT_REGION", &sandbox.options().region);
    let said = say(&mut aws);
    if said.success { Ok(said.out) } else { Err(said.err) }
}

/// What a command said.
pub(super) struct Said {
    pub(super) success: bool,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    pub(super) fn json(&self) -> Value {
        assert!(self.success, "{}{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// The code in the AWS CLI's words: `An error occurred (Code) when calling …`.
    pub(super) fn code(&self) -> &str {
        assert!(!self.success, "it succeeded: {}", self.out);
        let code = self.err.split_once("An error occurred (").and_then(|(_, rest)| rest.split_once(')'));
        code.map_or(self.err.as_str(), |(code, _)| code)
    }
}

/// A running one.
pub(super) struct Up {
    child: Child,
    /// `$XDG_RUNTIME_DIR` and `$TMPDIR` of the sandbox.
    dir: PathBuf,
    /// What the file that `up` names sets.
    environment: Vec<(String, String)>,
}

impl Up {
    /// Starts it with its agent; its cluster is called `mycluster`, as in AWS's guide.
    pub(super) fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("local-eks-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let log = fs::File::create(dir.join("log")).expect("a log");
        let mut command = Command::new(built("sandbox"));
        command.args(["up", "--eks", "--cluster-name", "mycluster", "--json-state"]).arg(dir.join("up.json"));
        command.arg("--moto").arg(moto()).env("TMPDIR", &dir).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the sandbox starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let mut shown = String::new();
        for line in lines {
            shown += &format!("{line}\n");
            if line == UP {
                break;
            }
        }
        let mut up = Self { child, dir, environment: Vec::new() };
        let file = shown.lines().find_map(|line| line.trim().strip_prefix(". ")).map(str::to_owned);
        let file = file.unwrap_or_else(|| panic!("it is not up: {shown}{}", up.log()));
        up.environment = read_environment(Path::new(&file));
        up
    }

    /// The AWS CLI as the administrator.
    pub(super) fn aws(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(python("aws"));
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &self.dir);
        say(command.envs(self.environment.iter().map(|(name, value)| (name, value))))
    }

    /// The AWS CLI in a pod of that service account.
    pub(super) fn in_pod(&self, [namespace, service_account, pod]: [&str; 3], arguments: &[&str]) -> Said {
        let mut command = Command::new(built("sandbox"));
        command.arg("run").arg("--json-state").arg(self.dir.join("up.json"));
        command.args(["--namespace", namespace, "--service-account", service_account, "--pod", pod, "--"]);
        command.arg(python("aws")).args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
        say(command.env("HOME", &self.dir).env("TMPDIR", &self.dir))
    }

    /// A role with that trust policy.
    pub(super) fn create_role(&self, name: &str, trust: &str) -> String {
        let arguments = ["iam", "create-role", "--role-name", name, "--assume-role-policy-document", trust];
        let role = self.aws(&arguments).json();
        role["Role"]["Arn"].as_str().expect("an ARN").to_owned()
    }

    /// The pids of what it started: the agent and moto.
    pub(super) fn children(&self) -> Vec<Pid> {
        let id = self.child.id();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("its threads").flatten();
        let children = tasks.flat_map(|task| {
            let pids = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        });
        children.map(Pid::from_raw).collect()
    }

    /// Sends it a signal and waits for its end; says whether it ended well.
    pub(super) fn end(&mut self, signal: Signal) -> bool {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it is there");
        self.child.wait().expect("it ends").success()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end(Signal::SIGTERM);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `export A=b C=d` of each line, as a shell reads it.
fn read_environment(file: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(file).expect("the file that it names");
    let exports = text.lines().filter_map(|line| line.strip_prefix("export "));
    let pairs = exports.flat_map(str::split_whitespace).filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
}

fn say(command: &mut Command) -> Said {
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { success: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}
