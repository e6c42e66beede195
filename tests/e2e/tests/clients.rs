//! Real SDKs as pods, each by its default chain, calling STS GetCallerIdentity with what it got.

use std::path::PathBuf;
use std::process::Output;

use sandbox::{Fault, Options, Pod, PodSpec, Role, Sandbox, Service};
use tokio::process::Command;

use crate::harness::{Agent, eks_auth_calls, failing, heal, pod, sandbox, slow};

/// The folder of the binaries that `make test` has built.
pub(crate) fn built(name: &str) -> PathBuf {
    let binary = crate::harness::binary().with_file_name(name);
    assert!(binary.exists(), "{} is missing: run `cargo build --workspace` first", binary.display());
    binary
}

/// A program of the Python environment that `make test` has made.
pub(crate) fn python(name: &str) -> PathBuf {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = repository.join(".cache/venv/bin").join(name);
    assert!(program.exists(), "{} is missing: `make test` makes it", program.display());
    program
}

/// The program with the AWS SDK for Go that `make test` has built.
pub(crate) fn go() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.cache/go/who-am-i");
    assert!(program.exists(), "{} is missing: tests/clients/go/prepare.sh builds it", program.display());
    program
}

pub(crate) fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../clients/python/who_am_i.py")
}

/// Runs a client with exactly the environment that EKS injects, and what points it at the sandbox's STS.
pub(crate) async fn run(mut client: Command, sandbox: &Sandbox, agent: &Agent, pod: &Pod) -> Output {
    client
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", sandbox.dir())
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://127.0.0.1:{}/v1/credentials", agent.port))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &pod.token_file)
        .env("AWS_REGION", "us-west-2")
        .env("AWS_DEFAULT_REGION", "us-west-2")
        .env("AWS_STS_REGIONAL_ENDPOINTS", "regional")
        .env("AWS_ENDPOINT_URL_STS", sandbox.sts_url())
        .kill_on_drop(true)
        .output()
        .await
        .expect("the client runs")
}

pub(crate) fn lines(output: &Output) -> Vec<&str> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    str::from_utf8(&output.stdout).expect("UTF-8").lines().collect()
}

fn assert_is_the_pods_role(arn: &str) {
    assert!(arn.starts_with("arn:aws:sts::111122223333:assumed-role/app/eks-sandbox-app-0-"), "{arn}");
}

#[tokio::test]
async fn boto3_gets_the_role_of_its_pod() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let app = pod(&sandbox, "app-0");
    let mut client = Command::new(python("python"));
    client.arg(script());
    let output = run(client, &sandbox, &agent, &app).await;
    let lines = lines(&output);
    assert_is_the_pods_role(lines[0]);
    assert_eq!(lines[1], agent.ask(&app.token).await.access_key_id(), "it signed with what the agent holds");
    assert_eq!(lines[2], "container-role");
    assert_eq!(eks_auth_calls(&sandbox).len(), 1);
}

#[tokio::test]
async fn the_aws_cli_gets_the_role_of_its_pod() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let mut client = Command::new(python("aws"));
    client.args(["sts", "get-caller-identity", "--query", "Arn", "--output", "text"]);
    let output = run(client, &sandbox, &agent, &pod(&sandbox, "app-0")).await;
    assert_is_the_pods_role(lines(&output)[0]);
}

#[tokio::test]
async fn the_aws_cli_takes_the_sandbox_for_sts() {
    let sandbox = sandbox();
    let (role, audience) = ("arn:aws:iam::111122223333:role/irsa/app", "sts.amazonaws.com");
    sandbox.set_role(Role::trusting(role, "default/app", sandbox.issuer_url(), audience)).expect("a role");
    let app = sandbox.pod_for(PodSpec::default(), audience).expect("a pod");
    let stranger = sandbox.pod_for(PodSpec::new("default", "other", "other-0"), audience).expect("a pod");
    let ask = |pod: &Pod| {
        let mut client = Command::new(python("aws"));
        client
            .args(["sts", "assume-role-with-web-identity", "--role-arn", role, "--role-session-name", "app"])
            .args(["--web-identity-token", &pod.token, "--endpoint-url", sandbox.sts_url()])
            .args(["--query", "AssumedRoleUser.Arn", "--output", "text"])
            .env_clear()
            .envs([
                ("PATH", "/usr/bin:/bin"),
                ("AWS_REGION", "us-west-2"),
                ("AWS_EC2_METADATA_DISABLED", "true"),
            ])
            .env("HOME", sandbox.dir())
            .kill_on_drop(true);
        client.output()
    };
    let granted = ask(&app).await.expect("the client runs");
    assert_eq!(lines(&granted)[0], "arn:aws:sts::111122223333:assumed-role/app/app");
    let refused = ask(&stranger).await.expect("the client runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("(AccessDenied)"), "{said}");
}

#[tokio::test]
async fn the_rust_sdk_gets_the_role_of_its_pod() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let app = pod(&sandbox, "app-0");
    let output = run(Command::new(built("who-am-i")), &sandbox, &agent, &app).await;
    let lines = lines(&output);
    assert_is_the_pods_role(lines[0]);
    assert_eq!(lines[1], agent.ask(&app.token).await.access_key_id());
}

#[tokio::test]
async fn the_go_sdk_gets_the_role_of_its_pod() {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    let app = pod(&sandbox, "app-0");
    let output = run(Command::new(go()), &sandbox, &agent, &app).await;
    let lines = lines(&output);
    assert_is_the_pods_role(lines[0]);
    assert_eq!(lines[1], agent.ask(&app.token).await.access_key_id());
}

/// Runs a client of a pod that asks for the first time 2.5 s before AWS answers again.
async fn through_a_hiccup(client: Command, while_it_lasts: Fault) {
    let sandbox = sandbox();
    let agent = Agent::start(&sandbox).await;
    sandbox.faults().set([while_it_lasts]);
    let app = pod(&sandbox, "app-0");
    let healing = async {
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
        heal(&sandbox);
    };
    let (output, ()) = tokio::join!(run(client, &sandbox, &agent, &app), healing);
    assert_is_the_pods_role(lines(&output)[0]);
}

#[tokio::test]
async fn boto3_gets_through_a_hiccup_of_aws_that_lasts_2500_ms() {
    let mut client = Command::new(python("python"));
    client.arg(script());
    through_a_hiccup(client, slow(5_000)).await;
}

/// It gives up within 0.1 s of an error, so that it is served only because the agent passes none on.
#[tokio::test]
async fn the_go_sdk_gets_through_a_hiccup_of_aws_that_lasts_2500_ms() {
    let refusing = failing(503, "ServiceUnavailableException");
    through_a_hiccup(Command::new(go()), Fault::new(Service::EksAuth, refusing)).await;
}

#[tokio::test]
async fn sandbox_run_runs_a_command_as_a_pod_and_passes_its_exit_code_on() {
    let sandbox = Sandbox::start(Options::default()).expect("the sandbox starts");
    let state = sandbox.dir().join("state");
    std::fs::create_dir(&state).expect("a folder");
    let mut client = Command::new(built("sandbox"));
    client.args(["run", "--pod", "app-0", "--"]).arg(python("aws"));
    client.args(["sts", "get-caller-identity", "--query", "Arn", "--output", "text"]);
    let output = client.env("XDG_RUNTIME_DIR", &state).kill_on_drop(true).output().await.expect("it runs");
    assert_is_the_pods_role(lines(&output)[0]);
    let mut failing = Command::new(built("sandbox"));
    failing.args(["run", "--", "sh", "-c", "exit 42"]).env("XDG_RUNTIME_DIR", &state).kill_on_drop(true);
    assert_eq!(failing.output().await.expect("it runs").status.code(), Some(42));
}
