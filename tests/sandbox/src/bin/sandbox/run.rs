//! `sandbox run`: a command with the environment of a pod.
//!
//! Owns: that environment, and handing on signals and the exit code. Must not know: how a sandbox is started.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::{PodSpec, Sandbox};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{self, Agent, Log, PROXIES};
use crate::cli::RunArgs;
use crate::state::{self, State};
use crate::{Failure, client, up};

/// What an SDK would take before it asks the agent, and what would lead it out of the sandbox.
const REMOVED: [&str; 20] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_ACCESS_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_ACCOUNT_ID",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_LOGIN_CACHE_DIRECTORY",
];

/// What shells return for a command they cannot find.
const NOT_STARTED: u8 = 127;

/// Runs the command and returns its exit code.
pub(crate) async fn run(arguments: RunArgs) -> Result<ExitCode, Failure> {
    let pod = PodSpec::new(&arguments.namespace, &arguments.service_account, &arguments.pod);
    if let Some(state) = state::find(&state::path(arguments.setup.json_state.as_deref())).await {
        if arguments.setup.agent.is_some() || arguments.setup.associations.is_some() {
            tracing::warn!("a sandbox is up already: --agent and --associations are not heeded");
        }
        return play(&arguments, &state, &pod).await;
    }
    let binary = agent::binary(arguments.setup.agent.as_deref())?;
    let sandbox = Sandbox::start(up::options(&arguments.setup))?;
    let log = Log::File(sandbox.dir().join("agent.log"));
    let agent = Agent::start(&sandbox, &binary, None, &log).await?;
    let played = play(&arguments, &up::state_of(&sandbox, Some(&agent)), &pod).await;
    agent.stop().await;
    played
}

async fn play(arguments: &RunArgs, state: &State, pod: &PodSpec) -> Result<ExitCode, Failure> {
    let agent_url = state.agent_url.as_deref().ok_or(Failure::NoAgent)?;
    let token_file = client::token_file(&state.control_url, pod).await?;
    let [program, rest @ ..] = arguments.command.as_slice() else { return Ok(ExitCode::SUCCESS) };
    let mut command = Command::new(program);
    command.args(rest);
    for name in REMOVED.iter().chain(&PROXIES) {
        command.env_remove(name);
    }
    command.envs(environment(state, agent_url, &token_file));
    match command.spawn() {
        Ok(child) => Ok(exit_code(watch(child).await?)),
        Err(error) => {
            tracing::error!(%error, command = %program.to_string_lossy(), "the command could not be started");
            Ok(ExitCode::from(NOT_STARTED))
        }
    }
}

/// What EKS gives a pod (docs/design/facts.md#pod-environment), and what keeps an SDK inside the sandbox.
fn environment(state: &State, agent_url: &str, token_file: &Path) -> Vec<(&'static str, String)> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut environment = vec![
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{agent_url}/v1/credentials")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path(token_file)),
        ("AWS_REGION", state.region.clone()),
        ("AWS_DEFAULT_REGION", state.region.clone()),
        ("AWS_STS_REGIONAL_ENDPOINTS", "regional".to_owned()),
        ("AWS_ENDPOINT_URL_STS", state.sts_url.clone()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        // Neither exists: a profile of the user's would come first.
        ("AWS_CONFIG_FILE", path(&state.dir.join("no-config"))),
        ("AWS_SHARED_CREDENTIALS_FILE", path(&state.dir.join("no-credentials"))),
    ];
    // With a local EKS there is S3 too.
    environment.extend(state.gateway_url.clone().map(|url| ("AWS_ENDPOINT_URL", url)));
    environment
}

/// Waits for the command. Ctrl-C reaches it from the terminal, and us as well: we stay. Other requests to end
/// are for us alone, so they are passed on.
async fn watch(mut child: Child) -> Result<ExitStatus, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let pass_on = |signal| {
        if let Some(Err(error)) = pid.map(|pid| kill(pid, signal)) {
            tracing::warn!(%error, "the signal could not be passed on");
        }
    };
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            _ = interrupt.recv() => (),
            _ = terminate.recv() => pass_on(Signal::SIGTERM),
            _ = hangup.recv() => pass_on(Signal::SIGHUP),
        }
    }
}

/// The command's own code, or 128 and the signal that killed it, as shells say it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
