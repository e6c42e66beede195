//! The command line, written for people.
//!
//! Owns: names, defaults and help. Must not know: what is done with them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A Kubernetes cluster and its AWS on this machine, to try the agent without either.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version)]
#[command(
    about = "A Kubernetes cluster and its AWS on this machine, to try the agent without either",
    after_help = "Nothing leaves this machine, and no AWS account is needed. A first look:\n\n  \
                  sandbox run -- aws sts get-caller-identity\n\n\
                  To play with outages, leave one running in a second terminal:\n\n  sandbox up"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the sandbox with an agent in front of it, and keep both until Ctrl-C
    #[command(long_about = "Start the sandbox with an agent in front of it, and keep both until Ctrl-C.\n\n\
        EKS Auth, STS, the node's metadata service and the cluster's issuer listen on free ports of 127.0.0.1; the agent \
        is started as it would be on a node, with those as its AWS. A pod's first request is shown, and the commands to \
        make more. Latency, errors and outages are set over the control port, which is printed.")]
    Up(UpArgs),
    /// Run a command as a pod of the sandbox
    #[command(long_about = "Run a command as a pod of the sandbox.\n\n\
        The command gets the environment that EKS gives a pod with an association, so that any AWS SDK in it takes its \
        credentials from the agent and finds the sandbox's STS. Uses the sandbox that is up; without one it starts one for \
        as long as the command runs. Ends with the command's exit code.")]
    Run(RunArgs),
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) setup: Setup,

    /// Play a whole local EKS for the AWS CLI: EKS's API, and IAM and S3 by moto
    #[arg(long)]
    pub(crate) eks: bool,

    /// The Python that has moto [default: the one that `make eks` makes, .cache/moto/bin/python]
    #[arg(long, value_name = "PATH", requires = "eks")]
    pub(crate) moto: Option<PathBuf>,

    /// Name of the cluster
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster_name: Option<String>,

    /// AWS region
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<String>,

    /// Start no agent; how to start one by hand is printed
    #[arg(long, conflicts_with_all = ["agent", "port"])]
    pub(crate) no_agent: bool,

    /// Port of 127.0.0.1 the agent serves credentials on [default: a free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) setup: Setup,

    /// Namespace of the pod
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,

    /// Service account of the pod
    #[arg(long, value_name = "NAME", default_value = "app")]
    pub(crate) service_account: String,

    /// Name of the pod
    #[arg(long, value_name = "NAME", default_value = "app-0")]
    pub(crate) pod: String,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// What both commands need to start a sandbox, or find one.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// YAML file of pod identity associations, read again when it changes
    /// [default: default/app has arn:aws:iam::111122223333:role/app]
    #[arg(long, value_name = "FILE")]
    pub(crate) associations: Option<PathBuf>,

    /// The agent's binary [default: pod-identity-agent beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) agent: Option<PathBuf>,

    /// File by which `run` finds the sandbox that is up
    /// [default: pod-identity-sandbox-<uid>/up.json in $XDG_RUNTIME_DIR or the temporary directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) json_state: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_is_the_command_untouched() {
        let cli = Cli::try_parse_from(["sandbox", "run", "--pod", "p", "--", "aws", "--version"]).unwrap();
        let Command::Run(arguments) = cli.command else { panic!("not run") };
        assert_eq!((arguments.pod.as_str(), arguments.command.len()), ("p", 2));
        assert!(Cli::try_parse_from(["sandbox", "run"]).is_err());
        assert!(Cli::try_parse_from(["sandbox", "up", "--no-agent", "--port", "1"]).is_err());
    }
}
