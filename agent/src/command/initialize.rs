//! `initialize`: adds link, addresses and routes to the node, and exits.
//!
//! Owns: its output and exit code. Must not know: netlink. A node that has all of them is not changed. IPv6
//! is optional: if its absence made this command fail, pods would not get credentials over IPv4 either.

use std::process::ExitCode;

use super::{USAGE, complain, say, wait_for};
use crate::cli::InitializeArgs;
use crate::config::LinkPlace;
use crate::node::link;
use crate::telemetry::error_chain::ErrorChain;

pub(super) fn run(args: &InitializeArgs) -> ExitCode {
    let place = match LinkPlace::read(&args.link) {
        Ok(place) => place,
        Err(problem) => {
            complain(format_args!("pod-identity-agent: {problem}"));
            return ExitCode::from(USAGE);
        }
    };
    match wait_for(link::set_up(place)) {
        Ok(Ok(None)) => say(format_args!("the node has 169.254.170.23 and fd00:ec2::23")),
        Ok(Ok(Some(left_out))) => {
            complain(format_args!("pod-identity-agent: IPv6 is not set up: {}", ErrorChain(&left_out)));
            say(format_args!("the node has 169.254.170.23"))
        }
        Ok(Err(error)) => {
            complain(format_args!("pod-identity-agent: {}", ErrorChain(&error)));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(format_args!("pod-identity-agent: cannot start the async runtime: {error}"));
            ExitCode::FAILURE
        }
    }
}
