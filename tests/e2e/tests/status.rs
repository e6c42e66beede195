//! `status`, `doctor` and `wait`: what an admin sees of a running agent, and who may see it.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sandbox::{Fault, PodSpec, Sandbox, Service};
use serde_json::Value;

use crate::harness::{Agent, Builder, binary, eventually, failing, heal, pod, sandbox};

/// Somebody who is not root: `nobody` on most systems.
const NOBODY: u32 = 65_534;

/// The `--state-dir` of one agent; goes with it.
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        let path = sandbox.dir().join("state");
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        // The level is the server's affair; here it changes nothing.
        command.args(arguments).args(["--state-dir", self.path(), "--verbosity", "trace"]).env_clear();
        command
    }

    /// Its exit code, and what it wrote.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        said_by(self.command(arguments))
    }

    fn json(&self) -> Value {
        let (code, said) = self.run(&["status", "--output", "json"]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).unwrap()
    }

    /// The identity of a pod, if it is listed.
    fn identity(&self, pod: &str) -> Value {
        let status = self.json();
        let mut identities = status["identities"].as_array().unwrap().iter();
        identities.find(|identity| identity["pod"] == pod).cloned().unwrap_or_default()
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.0.join("agent.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }
}

fn said_by(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn builder(sandbox: &Sandbox, dir: &StateDir) -> Builder {
    Builder::verifying(sandbox).flag("--state-dir", dir.path())
}

#[tokio::test]
async fn status_names_a_served_pod_with_its_role_and_a_refused_one_with_awss_words() {
    let sandbox = sandbox();
    let dir = StateDir::new(&sandbox);
    let agent = builder(&sandbox, &dir).start().await;
    let answer = agent.ask(&pod(&sandbox, "served").token).await;
    let stranger = sandbox.pod(PodSpec::new("shop", "nobody", "stranger")).unwrap();
    assert_eq!(agent.ask(&stranger.token).await.status, 403);

    let served = dir.identity("served");
    assert_eq!((&served["namespace"], &served["service_account"]), (&"default".into(), &"app".into()));
    assert_eq!((&served["verified"], &served["holding"]), (&true.into(), &"credentials".into()));
    assert!(served["association"].as_str().unwrap().starts_with("a-"), "{served}");
    assert_eq!(served["role"], "arn:aws:sts::111122223333:assumed-role/app");
    assert_eq!(served["valid_until"], answer.json()["Expiration"]);
    let refused = dir.identity("stranger");
    assert_eq!((&refused["holding"], &refused["valid_until"]), (&"refused".into(), &Value::Null));
    assert_eq!(refused["last_error"]["code"], "ResourceNotFoundException");

    let (code, page) = dir.run(&["status"]);
    assert_eq!(code, Some(0), "{page}");
    let row = |pod: &str| page.lines().find(|line| line.split_whitespace().any(|word| word == pod)).unwrap();
    let expires = answer.json()["Expiration"].as_str().unwrap().to_owned();
    assert!(row("served").contains("assumed-role/app") && row("served").contains(&expires), "{page}");
    assert!(row("stranger").contains("refused") && row("stranger").contains("No association"), "{page}");
    assert!(page.contains(&format!("on node {}", sandbox.node_name())), "{page}");
    assert!(page.contains("Own credentials: instance role"), "{page}");

    let (_, first) = dir.run(&["status", "--limit", "1"]);
    assert!(first.ends_with("\nand 1 more (--limit)\n"), "{first}");
    assert!(first.contains("served") && !first.contains("stranger"), "by namespace: {first}");
}

#[tokio::test]
async fn in_an_outage_status_says_what_goes_wrong_of_who_has_credentials_and_who_waits() {
    let sandbox = sandbox();
    let dir = StateDir::new(&sandbox);
    let renewing = builder(&sandbox, &dir).flag("--max-credential-retention-before-renewal", "1s");
    let agent = renewing.start().await;
    let served = pod(&sandbox, "served").token;
    assert_eq!(agent.ask(&served).await.status, 200);
    assert_eq!(dir.identity("served")["last_error"], Value::Null);
    sandbox.faults().set([Fault::new(Service::EksAuth, failing(500, "InternalServerException"))]);
    eventually("a renewal has failed", async || {
        agent.ask(&served).await;
        dir.identity("served")["last_error"]["code"] == "server_error"
    })
    .await;
    let identity = dir.identity("served");
    assert_eq!(identity["holding"], "credentials", "it is served on: {identity}");
    assert!(identity["failed_renewals"].as_u64().unwrap() > 0 && identity["last_error"]["at"].is_string());

    let late = pod(&sandbox, "late").token;
    let asking = async { agent.ask(&late).await };
    let (asked, shown) = tokio::join!(asking, async {
        eventually("it waits", async || dir.identity("late")["last_error"]["code"] == "server_error").await;
        dir.identity("late")
    });
    assert_eq!((asked.status, &shown["holding"]), (503, &"waiting".into()));

    heal(&sandbox);
    eventually("it is renewed", async || {
        agent.ask(&served).await;
        dir.identity("served")["last_error"] == Value::Null
    })
    .await;
}

#[tokio::test]
async fn doctor_names_what_is_missing_with_its_remedy_and_is_content_with_a_good_node() {
    let sandbox = sandbox();
    let dir = StateDir::new(&sandbox);
    let without = builder(&sandbox, &dir)
        .flag("--own-credentials", "file")
        .flag("--own-credentials-file", "/no/such/file")
        .spawn();
    eventually("it says why", async || {
        let (code, said) = dir.run(&["doctor"]);
        code == Some(1)
            && said.contains("NOT OK   own-credentials (required)")
            && said.contains("/no/such/file")
    })
    .await;
    let (_, said) = dir.run(&["doctor"]);
    assert!(said.contains("to do: Attach an instance profile"), "{said}");
    assert!(said.contains("docs/runbook.md#podidentitynotserving"), "{said}");
    drop(without);

    let agent = builder(&sandbox, &dir).start().await;
    let (code, said) = dir.run(&["doctor"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("unknown  way-to-eks-auth") && said.contains("ok       own-credentials"), "{said}");
    agent.ask(&pod(&sandbox, "app-0").token).await.access_key_id();
    let (_, said) = dir.run(&["doctor", "--output", "json"]);
    let checks: Vec<Value> = serde_json::from_str(&said).unwrap();
    let way = checks.iter().find(|check| check["name"] == "way-to-eks-auth").unwrap();
    let address = sandbox.eks_auth_url().trim_start_matches("http://").to_owned();
    assert_eq!(way["verdict"], "ok");
    assert!(way["found"].as_str().unwrap().contains(&address), "{way}");

    sandbox.faults().set([Fault::new(Service::EksAuth, sandbox::Effect::ResetMidBody)]);
    agent.ask(&pod(&sandbox, "app-1").token).await;
    let (code, said) = dir.run(&["doctor"]);
    assert!(code == Some(0) && said.contains("NOT OK   way-to-eks-auth"), "a pod may notice it: {said}");
}

#[tokio::test]
async fn without_an_agent_each_command_says_so_and_how_to_go_on() {
    let sandbox = sandbox();
    let dir = StateDir::new(&sandbox);
    for (command, code) in [("status", 2), ("doctor", 2), ("wait --timeout 0", 1), ("probe ready", 1)] {
        let (exit, said) = dir.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(exit, Some(code), "{command}: {said}");
        assert!(said.contains("agent.sock") && said.contains("kubectl logs"), "{command}: {said}");
    }
    let mut agent = builder(&sandbox, &dir).start().await;
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    agent.ended(Duration::from_secs(5)).await;
    let (exit, said) = dir.run(&["status"]);
    assert!(exit == Some(2) && said.contains("The agent has ended"), "{said}");
}

#[tokio::test]
async fn nobody_but_root_and_the_agents_own_user_is_answered() {
    let sandbox = sandbox();
    let dir = StateDir::new(&sandbox);
    let _agent = builder(&sandbox, &dir).start().await;
    let open = |path: &str, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    assert_eq!(dir.run(&["status"]).0, Some(0), "the agent's own user");
    assert!(nix::unistd::geteuid().is_root(), "only root can be somebody else, whom the rest is about");
    // The binary may lie where nobody gets to.
    let program = format!("{}/agent", dir.path());
    std::fs::copy(binary(), &program).unwrap();
    open(sandbox.dir().to_str().unwrap(), 0o755);
    open(dir.path(), 0o755);
    let as_nobody = |command: &str| {
        let mut asking = Command::new(&program);
        asking.args(command.split(' ')).args(["--state-dir", dir.path()]).env_clear();
        said_by({
            asking.uid(NOBODY).gid(NOBODY);
            asking
        })
    };
    let (code, said) = as_nobody("status");
    assert!(code == Some(2) && said.contains("Permission denied"), "by the mode of the file: {said}");
    open(&format!("{}/agent.sock", dir.path()), 0o666);
    for command in ["status", "doctor", "probe live"] {
        let (code, said) = as_nobody(command);
        assert!(code != Some(0) && said.contains("only root and the user"), "by its uid: {command}: {said}");
    }
}

#[tokio::test]
async fn those_who_ask_nothing_or_read_nothing_do_not_hold_up_a_probe() {
    let sandbox = sandbox();
    let dir = StateDir::new(&sandbox);
    let _agent = builder(&sandbox, &dir).start().await;
    let silent: Vec<_> = (0..6).map(|_| dir.connect()).collect();
    let unread: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = dir.connect();
            stream.write_all(b"status 1000").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        })
        .collect();
    assert_eq!(dir.run(&["probe", "live"]), (Some(0), "ok\n".to_owned()));
    assert_eq!(dir.run(&["probe", "ready"]), (Some(0), "ok\n".to_owned()));
    // Nobody was cut off for that: those who say nothing have their two seconds still.
    for mut stream in silent {
        stream.set_nonblocking(true).unwrap();
        let kind = stream.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(kind, Err(std::io::ErrorKind::WouldBlock));
    }
    for mut stream in unread {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with('{') && answer.ends_with('}'), "{answer}");
    }
}

#[tokio::test]
async fn wait_returns_when_the_agent_is_ready_and_at_its_time_out_says_what_is_missing() {
    let sandbox = sandbox();
    let dir = StateDir::new(&sandbox);
    let file = sandbox.dir().join("late-credentials");
    let waiting = dir.command(&["wait", "--timeout", "30s"]).spawn();
    let mut waiting = waiting.unwrap();
    let agent: Agent = builder(&sandbox, &dir)
        .flag("--own-credentials", "file")
        .flag("--own-credentials-file", file.to_str().unwrap())
        .spawn();
    eventually("it is there", async || dir.run(&["probe", "live"]).0 == Some(0)).await;
    let (code, said) = dir.run(&["wait", "--timeout", "300ms"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("not ready after 300ms:\n") && said.contains("own-credentials: "), "{said}");
    assert!(waiting.try_wait().unwrap().is_none(), "it waits still");

    let own = sandbox.node_credentials(Duration::from_secs(3600));
    let session = own.session_token.unwrap();
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {session}\n",
        own.access_key_id, own.secret_access_key
    );
    std::fs::write(&file, text).unwrap();
    agent.until_ready().await;
    let ended = tokio::task::spawn_blocking(move || waiting.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(dir.run(&["wait"]), (Some(0), "ok\n".to_owned()));
    let (code, said) = dir.run(&["wait", "--timeout", "soon"]);
    assert!(code == Some(64) && said.contains("--timeout"), "{said}");
}

/// Where the commands look by themselves.
#[test]
fn the_chart_has_the_server_where_the_commands_look() {
    let chart = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/chart/templates/daemonset.yaml"
    ));
    let chart = chart.unwrap();
    for command in ["status", "doctor", "wait", "probe"] {
        let (_, help) = said_by({
            let mut help = Command::new(binary());
            help.args([command, "--help"]).env_clear();
            help
        });
        let (_, default) = help.split_once("--state-dir <PATH>").unwrap().1.split_once("[default: ").unwrap();
        let default = default.split(']').next().unwrap();
        assert!(chart.contains(&format!("- --state-dir={default}\n")), "{command}: {default}");
        assert!(chart.contains(&format!("mountPath: {default}\n")), "{command}: {default}");
    }
}
