//! A real Kubernetes cluster of two nodes on this machine, with the sandbox as its AWS.
//!
//! ```text
//! cluster up                     the starter: in the machine's own namespaces; holds a pipe
//! └ cluster inside               PID 1 of a PID, a mount and a network namespace; ends when the pipe does
//!   ├ the sandbox                EKS Auth, STS, IMDS at its real address
//!   ├ etcd, API server, controller manager, scheduler
//!   └ node.sh node-1, node-2     PID 1 of namespaces of their own: containerd, kubelet, pods
//! ```
//!
//! Nothing has a name that outlives its process: disks are a tmpfs of the mount namespace, networks belong to
//! the namespaces. What does not go by itself, the cgroups and one folder, is removed by whichever of the two
//! outer processes is left.

mod api_server;
mod api_server_switch;
mod certificates;
mod cgroups;
mod cli;
mod control_plane;
mod door;
mod enter;
mod failure;
mod inside;
mod layout;
mod network;
mod node;
mod programs;
mod up;
mod wait;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up(arguments) => up::up(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Enter(arguments) => enter::enter(&arguments),
        Command::Reboot(arguments) => enter::reboot(&arguments).map(|()| ExitCode::SUCCESS),
        Command::ApiServer(arguments) => api_server_switch::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Inside(arguments) => inside::run(&arguments).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|failure| {
        let _nobody_reads = writeln!(io::stderr(), "cluster: {}", failure::chain(&failure));
        ExitCode::FAILURE
    })
}
