//! The API server's switch, from the machine.
//!
//! Owns: its orders, and finding its process. Must not know: how it is started.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::api_server::{NAME, Orders};
use crate::cli::{ApiServerArgs, Order};
use crate::failure::{Failure, at};
use crate::layout::Layout;
use crate::programs::tails;
use crate::wait::until;

/// The time that SIGTERM gives it. It listens no more then, but keeps the watches that it has for a minute:
/// SIGKILL ends them, as supervisors do.
const GRACE: u64 = 5;
/// Longest wait for its end by SIGKILL.
const ENDED: u64 = 10;

/// Does as told. It has stopped when this returns, but needs some seconds until it is ready.
pub(crate) fn run(arguments: &ApiServerArgs) -> Result<(), Failure> {
    let layout = Layout { folder: arguments.cluster.clone(), assets: "".into() };
    if !layout.kubeconfig().exists() {
        return Err(Failure::NoCluster(layout.folder));
    }
    match &arguments.order {
        Order::Stop { kill } => {
            let signal = if *kill { Signal::SIGKILL } else { Signal::SIGTERM };
            order(&layout, &Orders { is_stopped: true, flags: Vec::new() })?;
            stop(&layout, signal)
        }
        Order::Freeze => send(&layout, Signal::SIGSTOP).map(drop),
        Order::Start { flags } => {
            order(&layout, &Orders { is_stopped: false, flags: flags.clone() })?;
            send(&layout, Signal::SIGCONT).map(drop)
        }
    }
}

/// Written whole or not at all.
fn order(layout: &Layout, orders: &Orders) -> Result<(), Failure> {
    let file = Orders::file(layout);
    let next = file.with_extension("next");
    let content = json!({"isStopped": orders.is_stopped, "flags": orders.flags}).to_string();
    let written = fs::write(&next, content).and_then(|()| fs::rename(&next, &file));
    written.map_err(at(format!("{} cannot be written", file.display())))
}

fn stop(layout: &Layout, signal: Signal) -> Result<(), Failure> {
    let Some(pid) = send(layout, signal)? else { return Ok(()) };
    let is_gone = || is_api_server(pid, &layout.folder).is_none();
    if signal == Signal::SIGTERM && until(GRACE, is_gone) {
        return Ok(());
    }
    send(layout, Signal::SIGKILL)?;
    if until(ENDED, is_gone) {
        return Ok(());
    }
    Err(Failure::Late("the API server does not end", ENDED, tails(&layout.logs())))
}

/// Returns who has got the signal, if it runs.
fn send(layout: &Layout, signal: Signal) -> Result<Option<i32>, Failure> {
    let processes = fs::read_dir("/proc").map_err(at("/proc cannot be read"))?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let Some(pid) = pids.find(|pid| is_api_server(*pid, &layout.folder).is_some()) else { return Ok(None) };
    kill(Pid::from_raw(pid), signal)
        .map_err(|error| Failure::System("the API server cannot be sent a signal", error))?;
    Ok(Some(pid))
}

/// `Some` if it is the one of that cluster: its own files are in that folder.
fn is_api_server(pid: i32, folder: &Path) -> Option<()> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = line.split('\0');
    let is_program = Path::new(arguments.next()?).ends_with(NAME);
    let its_own = format!("={}/", folder.display());
    (is_program && arguments.any(|argument| argument.contains(&its_own))).then_some(())
}
