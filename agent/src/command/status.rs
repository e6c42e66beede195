//! `status`: what the agent of this container holds, for whom, from where and until when.
//!
//! Owns: the exit code, and the choice of the format. Must not know: how a status is gathered or shown.

use std::process::ExitCode;

use super::asking::ask_status;
use super::{NOBODY_ASKED, complain, print};
use crate::cli::{Output, StatusArgs};
use crate::status::status_page;

pub(super) fn run(args: &StatusArgs) -> ExitCode {
    let snapshot = match ask_status(&args.agent, args.limit) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            complain(format_args!("{error}"));
            return ExitCode::from(NOBODY_ASKED);
        }
    };
    match args.output {
        Output::Text => print(&status_page::page(&snapshot)),
        Output::Json => print(&super::as_json(&snapshot)),
    }
    ExitCode::SUCCESS
}
