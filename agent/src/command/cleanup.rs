//! `cleanup`: takes off the node what the agent has put there.
//!
//! Owns: what is said of it. Must not know: netlink. For a node from which the agent is uninstalled; a stop leaves
//! everything in place, because the next start wants it.

use std::process::ExitCode;

use super::{complain, say, wait_for};
use crate::node::link;
use crate::telemetry::chain::Chain;

pub(super) fn run() -> ExitCode {
    match wait_for(link::remove()) {
        Ok(Ok(removed)) if removed.is_empty() => say(format_args!("nothing to remove")),
        Ok(Ok(removed)) => say(format_args!("removed {}", removed.join(", "))),
        Ok(Err(error)) => {
            complain(format_args!("pod-identity-agent: {}", Chain(&error)));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(format_args!("pod-identity-agent: the runtime cannot be started: {error}"));
            ExitCode::FAILURE
        }
    }
}
