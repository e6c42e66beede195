//! `version`: prints name and version.

use std::io::Write;
use std::process::ExitCode;

/// The version of this build, from Cargo.toml.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn run() -> ExitCode {
    match writeln!(std::io::stdout().lock(), "pod-identity-agent version {VERSION}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
