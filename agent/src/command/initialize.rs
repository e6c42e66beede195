//! `initialize`: gives the node link, addresses and routes, and exits.
//!
//! Owns: what is said of it. Must not know: netlink. A node that has it all is left as it is. IPv6 is optional: an agent
//! that fails here for want of it would take IPv4 down with it.

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
            complain(format_args!("pod-identity-agent: left out: {}", ErrorChain(&left_out)));
            say(format_args!("the node has 169.254.170.23"))
        }
        Ok(Err(error)) => {
            complain(format_args!("pod-identity-agent: {}", ErrorChain(&error)));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(format_args!("pod-identity-agent: the runtime cannot be started: {error}"));
            ExitCode::FAILURE
        }
    }
}
