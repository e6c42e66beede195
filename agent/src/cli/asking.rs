//! Commands that ask the running agent of this container.
//!
//! Owns: their arguments and their help. Must not know: what is answered.

use clap::{Args, ValueEnum};

/// Where the chart has the server keep its socket, and where every command looks for it.
pub const STATE_DIR: &str = "/run/pod-identity-agent";

/// Which agent is asked.
#[derive(Debug, Args)]
pub struct AskedAgent {
    /// The --state-dir of the server
    #[arg(long, value_name = "PATH", default_value = STATE_DIR)]
    pub state_dir: String,
}

/// Arguments of `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// What to ask
    #[arg(value_enum)]
    pub what: Probed,

    /// Which agent is asked.
    #[command(flatten)]
    pub agent: AskedAgent,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Probed {
    /// Whether the agent's event loop runs
    Live,
    /// Whether the agent serves pods; if not, why, one condition a line
    Ready,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0, or 2 if the agent cannot be asked. No secret is shown, not even a part of one.

Example: what the agent of one node holds, and for whom
  kubectl -n kube-system exec daemonset/pod-identity-agent -- pod-identity-agent status

Example: pods of which the last call to AWS failed
  kubectl -n kube-system exec POD -- pod-identity-agent status --output json |
    jq '.identities[] | select(.last_error) | {namespace, pod, last_error}'")]
pub struct StatusArgs {
    /// text, for people, or json, of which docs/status.md explains each field
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub output: Output,

    /// Show this many identities at most, by namespace, service account and pod; at most 20,000 and 4 MiB
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER")]
    pub limit: usize,

    /// Which agent is asked.
    #[command(flatten)]
    pub agent: AskedAgent,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 if all that is required is ok, 1 if not, 2 if the agent cannot be asked.

Example: what is wrong on one node, and what to do
  kubectl -n kube-system exec POD -- pod-identity-agent doctor")]
pub struct DoctorArgs {
    /// text, for people, or json
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub output: Output,

    /// Which agent is asked.
    #[command(flatten)]
    pub agent: AskedAgent,
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 once the agent serves pods, 1 after the time-out, with the conditions that are not met.

Example: before a step of a script that needs credentials on this node
  kubectl -n kube-system exec POD -- pod-identity-agent wait --timeout 2m")]
pub struct WaitArgs {
    /// How long to wait at most; 0 asks once
    #[arg(long, default_value = "60s", value_name = "DURATION", allow_hyphen_values = true)]
    pub timeout: String,

    /// Which agent is asked.
    #[command(flatten)]
    pub agent: AskedAgent,
}

/// How a command shows what it learned.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}
