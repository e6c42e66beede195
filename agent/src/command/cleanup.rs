//! `cleanup`: takes off the node what the agent has put there.

use std::process::ExitCode;

use super::complain;

pub(super) fn run() -> ExitCode {
    complain(format_args!("pod-identity-agent: cleanup is not there yet"));
    ExitCode::FAILURE
}
