//! `probe-from-namespace`: the helper process of `--probe-namespace`. Nobody calls it by hand.

use std::process::ExitCode;

use super::complain;
use crate::node::self_probe;

pub(super) fn run() -> ExitCode {
    match self_probe::serve_from_namespace() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("pod-identity-agent: the probe from a namespace ends: {error}"));
            ExitCode::FAILURE
        }
    }
}
