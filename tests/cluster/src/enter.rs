//! Into a node of the cluster that is up, from the machine.
//!
//! Owns: finding a node's PID 1. Must not know: what is done there.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::{EnterArgs, NodeArgs};
use crate::failure::{Failure, at};
use crate::node::INIT;

/// Runs a command in all namespaces of a node, and ends with its exit code.
pub(crate) fn enter(arguments: &EnterArgs) -> Result<ExitCode, Failure> {
    let pid = find(&arguments.node)?;
    let status = Command::new("nsenter")
        .args(["--net", "--mount", "--pid", &format!("--target={pid}"), "--"])
        .args(&arguments.command)
        .status()
        .map_err(at("nsenter cannot be started (Debian: util-linux)"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Kills a node's PID 1, and everything on the node with it.
pub(crate) fn reboot(arguments: &NodeArgs) -> Result<(), Failure> {
    let pid = Pid::from_raw(find(arguments)?);
    kill(pid, Signal::SIGKILL).map_err(|error| Failure::System("the node cannot be killed", error))
}

/// The machine's pid of a node's PID 1: it runs our script for that node, and is the first in its namespace.
fn find(wanted: &NodeArgs) -> Result<i32, Failure> {
    let processes = fs::read_dir("/proc").map_err(at("/proc cannot be read"))?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found = pids.filter(|pid: &i32| is_init(*pid, wanted).unwrap_or_default());
    let pid = found.next().ok_or_else(|| Failure::NoNode(wanted.node.clone()))?;
    if found.next().is_some() { Err(Failure::SeveralClusters) } else { Ok(pid) }
}

/// `None` where the process is gone by now.
fn is_init(pid: i32, wanted: &NodeArgs) -> Option<bool> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    // "bash", the script, the node's name and its folder, as `node::start` gives them.
    let mut arguments = line.split('\0').skip(1);
    let script = Path::new(arguments.next()?);
    let ours = script.ends_with(Path::new(&wanted.node).join(INIT)) && arguments.next()? == wanted.node;
    let the_one = wanted.cluster.as_ref().is_none_or(|folder| script.starts_with(folder));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // "NSpid: 4711 12 1": its pid in each namespace, the innermost last.
    let first =
        status.lines().find(|line| line.starts_with("NSpid:"))?.split_whitespace().next_back()? == "1";
    Some(ours && the_one && first)
}
