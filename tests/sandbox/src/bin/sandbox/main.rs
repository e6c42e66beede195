//! The sandbox on the command line: `sandbox up` keeps a cluster and an agent running, `sandbox run` plays a
//! pod.
//!
//! Owns: arguments, the exit code, and that a failure is told in one line. Must not know: what a sandbox is
//! made of (the library), nor anything of the agent but its command line.

mod agent;
mod cli;
mod client;
mod local_eks;
mod ports;
mod run;
mod state;
mod up;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use sandbox::SandboxError;
use thiserror::Error;
use tracing_subscriber::filter::LevelFilter;

use crate::agent::AgentError;
use crate::cli::{Cli, Command};
use crate::client::ClientError;
use crate::state::StateError;

/// What can go wrong in either command.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the running sandbox does not answer as it should")]
    Control(#[from] ClientError),
    #[error(
        "a sandbox is up already ({0}); stop it, or give a second one a file of its own with --json-state"
    )]
    AlreadyUp(String),
    #[error("the sandbox that is up has no agent; start it without --no-agent")]
    NoAgent,
    #[error("the agent ended by itself ({0})")]
    AgentEnded(String),
    #[error("input or output failed")]
    Io(#[from] io::Error),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_writer(io::stderr)
        .with_target(false)
        .init();
    // One thread: the kernel ends the agent when the thread that started it ends, which must be this one
    // (agent.rs).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Failure::Io).and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Command::Up(arguments) => up::up(arguments).await,
                Command::Run(arguments) => run::run(arguments).await,
            }
        })
    });
    done.unwrap_or_else(|failure| {
        let mut stderr = io::stderr().lock();
        // Nobody is left to be told if this fails.
        let _ = writeln!(stderr, "sandbox: {}", chain(&failure));
        ExitCode::FAILURE
    })
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
