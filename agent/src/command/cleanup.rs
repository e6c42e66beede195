//! `cleanup`: removes from the node what the agent has added to it.
//!
//! Owns: its output and exit code. Must not know: netlink. It is for uninstalling: a stop leaves everything
//! in place for the next start. Only a DaemonSet reaches every node, so `cleanup --stay` keeps running as one
//! of its pods until the DaemonSet is deleted.
//!
//! An agent may be about to end meanwhile. What it still answers is waited for: with the table and the
//! addresses, the connections would go.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{complain, say, wait_for};
use crate::cli::CleanupArgs;
use crate::node::link::KernelError;
use crate::node::nft::NftError;
use crate::node::{guard, link, metadata_clients, open_connections};
use crate::telemetry::error_chain::ErrorChain;

pub(super) fn run(args: &CleanupArgs) -> ExitCode {
    let done = remove();
    if args.stay && done == ExitCode::SUCCESS { stay() } else { done }
}

/// Waits for SIGTERM. It is handled because the kernel ignores it for PID 1 of a container that has no
/// handler.
fn stay() -> ExitCode {
    let stayed = wait_for(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    });
    match stayed.flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("pod-identity-agent: cannot handle signals: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn remove() -> ExitCode {
    let removed = match wait_for(remove_each()) {
        Ok(removed) => removed,
        Err(error) => {
            complain(format_args!("pod-identity-agent: cannot start the async runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let (links, table, counts) = removed;
    // Each result is reported, whether or not the other failed.
    let mut done = Vec::new();
    let mut failed = false;
    match links {
        Ok(links) => done.extend(links),
        Err(error) => failed |= complain_of(&error),
    }
    for (table, name) in [(table, "the nftables table"), (counts, "the nftables table that counts")] {
        match table {
            Ok(true) => done.push(name.to_owned()),
            Ok(false) => {}
            Err(error) => failed |= complain_of(&error),
        }
    }
    match (done.is_empty(), failed) {
        (true, true) => ExitCode::FAILURE,
        (true, false) => say(format_args!("nothing to remove")),
        (false, _) => {
            let said = say(format_args!("removed {}", done.join(", ")));
            if failed { ExitCode::FAILURE } else { said }
        }
    }
}

async fn remove_each() -> (Result<Vec<String>, KernelError>, Result<bool, NftError>, Result<bool, NftError>) {
    let open = open_connections::until_over().await;
    if open > 0 {
        let patience = open_connections::PATIENCE.as_secs();
        complain(format_args!(
            "pod-identity-agent: connections to the agent that are still open after {patience} s: {open}; \
             removing what they need"
        ));
    }
    (link::remove().await, guard::remove().await, metadata_clients::remove().await)
}

fn complain_of(error: &(dyn std::error::Error + 'static)) -> bool {
    complain(format_args!("pod-identity-agent: {}", ErrorChain(error)));
    true
}
