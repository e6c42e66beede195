//! `doctor`: each thing that must be true on this node, with a verdict and a remedy.
//!
//! Owns: the exit code, and the choice of the format. Must not know: what is checked, or how it is shown.

use std::process::ExitCode;

use super::asking::ask_status;
use super::{NOBODY_ASKED, complain, print};
use crate::cli::{DoctorArgs, Output};
use crate::status::checks::{all_required_are_ok, checks};
use crate::status::doctor_page;

pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    // The checks are about the node and not about its pods.
    let snapshot = match ask_status(&args.agent, 0) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            complain(format_args!("{error}"));
            return ExitCode::from(NOBODY_ASKED);
        }
    };
    let checks = checks(&snapshot);
    match args.output {
        Output::Text => print(&doctor_page::page(&checks)),
        Output::Json => print(&super::as_json(&checks)),
    }
    if all_required_are_ok(&checks) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
