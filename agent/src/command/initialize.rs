//! `initialize`: will set up link, addresses and routes of the node; this build cannot yet, and says so.

use std::process::ExitCode;

use super::complain;

/// Fails on purpose: an init container that reports success without a link would hide the gap until the first pod.
pub(super) fn run() -> ExitCode {
    complain(format_args!(
        "pod-identity-agent: this version cannot set up the node's network. Either keep the init container of the \
         Amazon agent, or let the node have 169.254.170.23 and fd00:ec2::23 on a link, and leave this one out"
    ));
    ExitCode::FAILURE
}
