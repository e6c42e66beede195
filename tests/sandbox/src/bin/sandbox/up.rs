//! `sandbox up`: sandbox and agent until somebody ends them.
//!
//! Owns: what is shown, and the order of the end. Must not know: how an agent is started.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use http::Method;
use sandbox::{Options, PodSpec, Sandbox};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::agent::{self, Agent, Log};
use crate::cli::{Setup, UpArgs};
use crate::state::{self, State, Written};
use crate::{Failure, client, local_eks, ports};

/// Characters of a secret that are shown.
const SHOWN: usize = 4;

/// Runs until Ctrl-C, SIGTERM, or the agent's end.
pub(crate) async fn up(arguments: UpArgs) -> Result<ExitCode, Failure> {
    // Before anything is started, so that no signal finds us without an answer.
    let mut ends = Ends::new()?;
    let state_path = state::path(arguments.setup.json_state.as_deref());
    if let Some(state) = state::find(&state_path).await {
        return Err(Failure::AlreadyUp(state.control_url));
    }
    let binary =
        if arguments.no_agent { None } else { Some(agent::binary(arguments.setup.agent.as_deref())?) };
    let sandbox = Sandbox::start(options_of_up(&arguments))?;
    let mut agent = match binary {
        None => None,
        Some(binary) => tokio::select! {
            agent = Agent::start(&sandbox, &binary, arguments.port, &Log::Here) => Some(agent?),
            () = ends.any() => return Ok(ExitCode::SUCCESS),
        },
    };
    let _state = Written::new(&state_path, &state_of(&sandbox, agent.as_ref()))?;
    greet(&sandbox, agent.as_ref(), &arguments.setup).await?;

    let ended = async {
        match &mut agent {
            Some(agent) => agent.ended().await,
            None => std::future::pending().await,
        }
    };
    let done = tokio::select! {
        status = ended => Err(Failure::AgentEnded(status?.to_string())),
        () = ends.any() => Ok(ExitCode::SUCCESS),
    };
    if let (Ok(_), Some(agent)) = (&done, agent) {
        agent.stop().await;
    }
    done
}

/// The options a command line asks for.
pub(crate) fn options(setup: &Setup) -> Options {
    Options { associations_file: setup.associations.clone(), ..Options::default() }
}

fn options_of_up(arguments: &UpArgs) -> Options {
    let mut options = options(&arguments.setup);
    if let Some(name) = &arguments.cluster_name {
        options.cluster_name.clone_from(name);
    }
    if let Some(region) = &arguments.region {
        options.region.clone_from(region);
    }
    options.moto = arguments.eks.then(|| arguments.moto.clone().unwrap_or_else(local_eks::python));
    options
}

/// What `run` needs to know of this sandbox.
pub(crate) fn state_of(sandbox: &Sandbox, agent: Option<&Agent>) -> State {
    State {
        pid: std::process::id(),
        control_url: sandbox.control_url().to_owned(),
        agent_url: agent.map(Agent::url),
        sts_url: sandbox.sts_url().to_owned(),
        gateway_url: sandbox.gateway_url().map(str::to_owned),
        region: sandbox.options().region.clone(),
        dir: sandbox.dir().to_owned(),
    }
}

/// A pod of the first service account that has an association.
fn first_pod(sandbox: &Sandbox) -> PodSpec {
    sandbox.associations().first().map_or_else(PodSpec::default, |association| {
        let (namespace, service_account) = (&association.namespace, &association.service_account);
        PodSpec::new(namespace, service_account, &format!("{service_account}-0"))
    })
}

/// The signals that end `up`.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
            _ = hangup.recv() => (),
        }
    }
}

async fn greet(sandbox: &Sandbox, agent: Option<&Agent>, setup: &Setup) -> Result<(), Failure> {
    let options = sandbox.options();
    let mut text = format!(
        "\nThe sandbox is up: cluster {}, region {}, account {}.\n\n",
        options.cluster_name, options.region, options.account
    );
    for (name, url) in [
        ("EKS Auth", sandbox.eks_auth_url()),
        ("EKS", sandbox.eks_url()),
        ("STS", sandbox.sts_url()),
        ("IMDS", sandbox.imds_url()),
        ("keys", &sandbox.jwks_url()),
        ("control", sandbox.control_url()),
    ] {
        text += &format!("  {name:<9} {url}\n");
    }
    if let Some(url) = sandbox.gateway_url() {
        text += &format!("  {:<9} {url}\n", "gateway");
    }
    if let Some(agent) = agent {
        text += &format!("  {:<9} {}/v1/credentials\n", "agent", agent.url());
    }
    if let Some(url) = sandbox.gateway_url() {
        text += &local_eks::greeting(sandbox, url)?;
    }
    match agent {
        None => text += &by_hand(sandbox)?,
        Some(agent) => {
            let url = format!("{}/v1/credentials", agent.url());
            let pod = first_pod(sandbox);
            // By the control port, so that it is the same pod as `run` plays.
            let token_file = client::token_file(sandbox.control_url(), &pod).await?;
            text += &first_fetch(&url, &pod, &fs::read_to_string(&token_file)?).await;
            text += &to_try(sandbox, &url, (&pod, &token_file), setup)?;
        }
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}\nCtrl-C ends it.")?;
    stdout.flush()?;
    Ok(())
}

/// What the agent answers a pod, with the secrets shortened.
async fn first_fetch(url: &str, pod: &PodSpec, token: &str) -> String {
    let PodSpec { namespace, service_account, pod: name } = pod;
    let asked = format!(
        "\nPod {name}, service account {service_account} of namespace {namespace}, asks the agent:\n\n"
    );
    match client::send(Method::GET, url, Some(token), String::new()).await {
        Err(error) => format!("{asked}  {}\n", crate::chain(&error)),
        Ok(answer) => {
            let shown = serde_json::from_str(&answer.body).ok().map(shortened).and_then(|body| {
                serde_json::to_string_pretty(&body).ok().map(|text| text.replace('\n', "\n  "))
            });
            format!("{asked}  {}\n  {}\n", answer.status, shown.unwrap_or_else(|| "not JSON".to_owned()))
        }
    }
}

fn shortened(mut body: Value) -> Value {
    for secret in ["SecretAccessKey", "Token"] {
        if let Some(Value::String(value)) = body.get_mut(secret) {
            *value = value.chars().take(SHOWN).chain(['…']).collect();
        }
    }
    body
}

fn to_try(
    sandbox: &Sandbox,
    url: &str,
    (pod, token_file): (&PodSpec, &Path),
    setup: &Setup,
) -> Result<String, Failure> {
    let this = quoted(&std::env::current_exe()?.to_string_lossy());
    let state = match &setup.json_state {
        Some(path) => format!(" --json-state {}", quoted(&fs::canonicalize(path)?.to_string_lossy())),
        None => String::new(),
    };
    let PodSpec { namespace, service_account, pod: name } = pod;
    let who = if *pod == PodSpec::default() {
        String::new()
    } else {
        format!(" --namespace {namespace} --service-account {service_account} --pod {name}")
    };
    let (token_file, control) = (quoted(&token_file.to_string_lossy()), sandbox.control_url());
    Ok(format!(
        "\nAsk it yourself:\n\n  \
         curl -H \"Authorization: $(cat {token_file})\" {url}\n\n\
         Ask as an AWS SDK does:\n\n  \
         {this} run{state}{who} -- aws sts get-caller-identity\n\n\
         Take EKS Auth away, see that the agent does not mind, and bring it back:\n\n  \
         curl -X PUT {control}/faults -d '{{\"service\":\"eks-auth\",\"effect\":{{\"status\":{{\"status\":503,\
         \"code\":\"ServiceUnavailableException\"}}}}}}'\n  \
         curl -X DELETE {control}/faults\n\n\
         See what reached AWS:\n\n  \
         curl {control}/calls\n"
    ))
}

/// How to start an agent against this sandbox.
fn by_hand(sandbox: &Sandbox) -> Result<String, Failure> {
    let environment: String =
        agent::environment(sandbox).iter().map(|(name, value)| format!("{name}={value} ")).collect();
    let arguments = agent::arguments(sandbox, ports::free()?).join(" ");
    Ok(format!(
        "\nNo agent was started. One can be, by hand:\n\n  {environment}pod-identity-agent {arguments}\n"
    ))
}

/// A word for the shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-~:".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_shortened_and_the_rest_is_shown() {
        let body = serde_json::json!({"AccessKeyId": "ASIA1234", "SecretAccessKey": "abcdefgh", "Token": "IQoJb3Jp"});
        let shown = shortened(body).to_string();
        assert_eq!(shown, r#"{"AccessKeyId":"ASIA1234","SecretAccessKey":"abcd…","Token":"IQoJ…"}"#);
    }

    #[test]
    fn words_for_the_shell_survive_it() {
        assert_eq!(quoted("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(quoted("/it's here"), r"'/it'\''s here'");
    }
}
