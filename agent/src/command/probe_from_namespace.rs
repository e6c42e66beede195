//! `probe-from-namespace`: the helper process of `--probe-namespace`. The agent starts it; it is not for
//! manual use.

use std::process::ExitCode;

use super::complain;
use crate::node::self_probe;

pub(super) fn run() -> ExitCode {
    match self_probe::serve_from_namespace() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("pod-identity-agent: the helper process for self-probes failed: {error}"));
            ExitCode::FAILURE
        }
    }
}
