//! `probe`: asks the agent of this container whether it is alive or ready. For the kubelet's exec probes.
//!
//! Owns: the exit code and what is printed. Must not know: what makes an agent ready. It is started every few
//! seconds on every node, so it starts no runtime and reads no configuration.

use std::process::ExitCode;

use super::asking::ask;
use super::{complain, say};
use crate::cli::{ProbeArgs, Probed};
use crate::server::local_socket::{GOOD, Question};

pub(super) fn run(args: &ProbeArgs) -> ExitCode {
    let question = match args.what {
        Probed::Live => Question::Live,
        Probed::Ready => Question::Ready,
    };
    match ask(&args.agent, question) {
        Ok(answer) if answer.trim() == GOOD => say(format_args!("{GOOD}")),
        Ok(answer) => {
            complain(format_args!("{}", answer.trim()));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}
