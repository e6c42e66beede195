//! The command line of the agent. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pod_identity_agent::command::run(std::env::args_os().collect())
}
