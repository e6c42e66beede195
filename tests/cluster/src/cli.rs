//! The command line, written for people.
//!
//! Owns: names, defaults and help. Must not know: what is done with them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A real Kubernetes cluster of two nodes on this machine, with the sandbox as its AWS.
#[derive(Debug, Parser)]
#[command(name = "cluster", version)]
#[command(about = "A real Kubernetes cluster of two nodes on this machine, with the sandbox as its AWS")]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the cluster with the agent installed by its chart, and keep it until Ctrl-C
    #[command(
        long_about = "Start the cluster with the agent installed by its chart, and keep it until Ctrl-C.\n\n\
        Needs root. All of it lives in namespaces of its own: nothing of the machine's network, disk or containers is \
        touched, and nothing stays behind, even if this process is killed. The API server is reached on a free port of \
        127.0.0.1; a kubeconfig is printed."
    )]
    Up(UpArgs),
    /// Run a command on a node, as on its host
    Enter(EnterArgs),
    /// Cut a node's power; it starts again at once, with its disk as it was
    Reboot(NodeArgs),
    /// Stop, freeze or start the API server; etcd and all else go on
    ApiServer(ApiServerArgs),
    /// The cluster itself: `up` starts this in namespaces
    #[command(hide = true)]
    Inside(InsideArgs),
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Servers, tools and images, as tests/cluster/prepare.sh makes them [default: cluster beside the folder
    /// of this program]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) assets: Option<PathBuf>,

    /// Install neither chart nor pods
    #[arg(long)]
    pub(crate) bare: bool,

    /// Play EKS's API, IAM and S3 for the AWS CLI too, with this Python that has moto, such as
    /// .cache/moto/bin/python
    #[arg(long, value_name = "PATH")]
    pub(crate) moto: Option<PathBuf>,

    /// Print the state as one line of JSON, for programs; they end the cluster by closing its standard input
    #[arg(long)]
    pub(crate) json: bool,
}

/// A node of a cluster that is up.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// node-1 or node-2
    pub(crate) node: String,

    /// Where several clusters are up: the folder of the one's kubeconfig
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cluster: Option<PathBuf>,
}

/// Arguments of `enter`.
#[derive(Debug, Args)]
pub(crate) struct EnterArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Arguments of `api-server`.
#[derive(Debug, Args)]
pub(crate) struct ApiServerArgs {
    /// What it is to do
    #[command(subcommand)]
    pub(crate) order: Order,
    /// Folder of the cluster's kubeconfig
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cluster: PathBuf,
}

/// What the API server is to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Order {
    /// End by SIGTERM and five seconds later by SIGKILL, and stay away
    Stop {
        /// By SIGKILL at once
        #[arg(long)]
        kill: bool,
    },
    /// Keep all connections and answer nothing
    Freeze,
    /// Go on, if it is frozen. Run again, if it was stopped, with these flags instead of its own of the same
    /// names
    Start {
        /// Flags of kube-apiserver, each with its value after an equals sign
        #[arg(last = true, value_name = "FLAG")]
        flags: Vec<String>,
    },
}

/// Arguments of `inside`.
#[derive(Debug, Args)]
pub(crate) struct InsideArgs {
    /// Where to put what others need to know
    #[arg(long)]
    pub(crate) folder: PathBuf,
    /// As for `up`
    #[arg(long)]
    pub(crate) assets: PathBuf,
    /// As for `up`
    #[arg(long)]
    pub(crate) moto: Option<PathBuf>,
    /// Name of the cgroup
    #[arg(long)]
    pub(crate) cgroup: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
