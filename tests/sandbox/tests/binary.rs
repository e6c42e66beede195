//! `sandbox up` and `sandbox run`, with a stand-in for the agent: whatever takes its arguments will do.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::Request;

/// Not a test: what the script below runs as the agent. It answers everything on its ports with an empty
/// object.
#[test]
#[ignore = "a program for the other tests"]
fn stand_in_agent() {
    #[expect(clippy::disallowed_methods, reason = "the script hands the arguments over this way")]
    let arguments = std::env::var("STAND_IN").unwrap();
    let words: Vec<_> = arguments.split(' ').collect();
    let port = |flag: &str| {
        let place = words.iter().position(|word| *word == flag).unwrap();
        words[place + 1].parse::<u16>().unwrap()
    };
    let serve = |port: u16| {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One read is enough for requests without a body over the loopback.
            let _ = stream.read(&mut [0; 16_384]).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| serve(port("--probe-port")));
        serve(port("--port"));
    });
}

/// A directory with the stand-in, and the state file in it.
struct Desk {
    dir: TempDir,
}

impl Desk {
    /// A desk whose agent runs `before` first.
    fn new(before: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("agent");
        let this = std::env::current_exe().unwrap();
        let pid = dir.path().join("agent.pid");
        let text = format!(
            "#!/bin/sh\necho $$ > '{}'\n{before}\nSTAND_IN=\"$*\" exec '{}' --exact binary::stand_in_agent --ignored\n",
            pid.display(),
            this.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `sandbox <command> --json-state <ours>`.
    fn command(&self, command: &str) -> Command {
        let mut sandbox = Command::new(env!("CARGO_BIN_EXE_sandbox"));
        sandbox.arg(command).arg("--json-state").arg(self.path("up.json")).env("TMPDIR", self.dir.path());
        sandbox
    }

    fn up(&self, arguments: &[&str]) -> Up {
        let mut up =
            self.command("up").args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(up.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut shown = String::new();
        for line in lines {
            shown += &format!("{line}\n");
            if line == "Ctrl-C ends it." {
                break;
            }
        }
        Up { child: up, shown }
    }

    fn run(&self, arguments: &[&str], shell: &str) -> Output {
        let mut run = self.command("run");
        run.args(arguments)
            .env("AWS_PROFILE", "mine")
            .env("AWS_ACCESS_KEY_ID", "AKIA")
            .env("https_proxy", "http://p");
        run.args(["--", "sh", "-c", shell]).output().unwrap()
    }

    fn agent_pid(&self) -> Pid {
        Pid::from_raw(fs::read_to_string(self.path("agent.pid")).unwrap().trim().parse().unwrap())
    }

    /// Whether the agent goes within five seconds.
    fn agent_goes(&self) -> bool {
        let pid = self.agent_pid();
        // A process that nobody waits for is still there, as a zombie: that is gone enough.
        let zombie =
            || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
        (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            kill(pid, None).is_err() || zombie()
        })
    }

    fn agent(&self) -> String {
        self.path("agent").to_string_lossy().into_owned()
    }
}

/// A running `up`, killed if a test forgets it.
struct Up {
    child: Child,
    shown: String,
}

impl Up {
    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn run_gives_the_command_a_pods_environment_and_returns_its_code() {
    let desk = Desk::new("");
    let shell = "env; cat \"$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE\"; exit 7";
    let done = desk.run(&["--agent", &desk.agent()], shell);
    assert_eq!(done.status.code(), Some(7), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    for expected in [
        "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:",
        "AWS_ENDPOINT_URL_STS=http://127.0.0.1:",
        "AWS_REGION=us-west-2",
        "AWS_DEFAULT_REGION=us-west-2",
        "AWS_EC2_METADATA_DISABLED=true",
        "AWS_CONFIG_FILE=",
        "\neyJ",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    for unexpected in ["AWS_PROFILE", "AWS_ACCESS_KEY_ID", "https_proxy"] {
        assert!(!text.contains(unexpected), "{unexpected} in {text}");
    }
    assert!(desk.agent_goes());
    let killed = desk.run(&["--agent", &desk.agent()], "kill -9 $$");
    assert_eq!(killed.status.code(), Some(137));
}

#[test]
fn run_uses_the_sandbox_that_is_up_and_a_signal_ends_both_in_order() {
    let desk = Desk::new("");
    let mut up = desk.up(&["--agent", &desk.agent()]);
    assert!(up.shown.contains("200 OK") && up.shown.contains(" run --json-state "), "{}", up.shown);
    let mode = fs::metadata(desk.path("up.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let state: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(desk.path("up.json")).unwrap()).unwrap();
    let done = desk.run(&["--pod", "app-7"], "echo $AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let uri = String::from_utf8(done.stdout).unwrap();
    assert_eq!(uri.trim(), format!("{}/v1/credentials", state["agentUrl"].as_str().unwrap()));
    let second = desk.command("up").arg("--no-agent").output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("up already"));

    up.send(Signal::SIGINT);
    assert_eq!(up.child.wait().unwrap().code(), Some(0));
    assert!(desk.agent_goes());
    assert!(!desk.path("up.json").exists());
    let dir = state["dir"].as_str().unwrap();
    assert!(!PathBuf::from(dir).exists());
}

#[test]
fn the_agent_dies_with_a_sandbox_that_is_killed() {
    let desk = Desk::new("");
    let mut up = desk.up(&["--agent", &desk.agent()]);
    up.send(Signal::SIGKILL);
    up.child.wait().unwrap();
    assert!(desk.agent_goes(), "needs setpriv of util-linux");
    // What is left of it is a leftover: nobody answers there.
    let done = desk.run(&["--agent", &desk.agent()], "true");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
}

#[test]
fn up_says_so_and_fails_when_the_agent_dies() {
    let desk = Desk::new("");
    let mut up = desk.up(&["--agent", &desk.agent()]);
    kill(desk.agent_pid(), Signal::SIGKILL).unwrap();
    assert_eq!(up.child.wait().unwrap().code(), Some(1));
    let never = Desk::new("echo no such flag >&2; exit 3");
    let done = never.run(&["--agent", &never.agent()], "true");
    assert_eq!(done.status.code(), Some(1));
    let text = String::from_utf8(done.stderr).unwrap();
    assert!(text.contains("exit status: 3") && text.contains("no such flag"), "{text}");
    let missing = never.run(&["--agent", "/nowhere/agent"], "true");
    assert!(String::from_utf8(missing.stderr).unwrap().contains("no agent at /nowhere/agent"));
}

#[test]
fn without_an_agent_the_command_to_start_one_is_printed() {
    let desk = Desk::new("");
    let up = desk.up(&["--no-agent"]);
    assert!(up.shown.contains("AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:"), "{}", up.shown);
    assert!(up.shown.contains("pod-identity-agent server --cluster-name sandbox --port "), "{}", up.shown);
    let control = up.shown.split_whitespace().skip_while(|word| *word != "control").nth(1).unwrap();
    assert_eq!(Request::new("GET", format!("{control}/"), "").send().unwrap().status, 200);
    let done = desk.run(&[], "true");
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8(done.stderr).unwrap().contains("has no agent"));
}
