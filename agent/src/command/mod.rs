//! The subcommands: from the arguments of the process to its exit code.
//!
//! Owns: dispatch, exit codes, and what is written before logging is up. Must not know: what the server does.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, ServerArgs, Subcommands};

mod clean_environment;
mod cleanup;
mod initialize;
mod probe_from_namespace;
mod server;
mod version;

/// A command line or configuration that cannot be used (`EX_USAGE` of BSD's sysexits.h).
const USAGE: u8 = 64;

/// Runs what the arguments ask for; `arguments` begins with the name of the program.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    // Before threads, and before anything that a library could read from the environment.
    if let Err(error) = clean_environment::ensure(&arguments) {
        complain(format_args!("pod-identity-agent: {error}"));
        return ExitCode::FAILURE;
    }
    match Cli::try_parse_from(arguments) {
        Ok(cli) => dispatch(cli),
        Err(error) => answer(&error),
    }
}

fn dispatch(cli: Cli) -> ExitCode {
    match cli.command {
        Subcommands::Server(args) => server::run(&ServerArgs { verbosity: cli.verbosity, ..*args }),
        Subcommands::Initialize(args) => initialize::run(&args),
        Subcommands::Cleanup(args) => cleanup::run(&args),
        Subcommands::ProbeFromNamespace => probe_from_namespace::run(),
        Subcommands::Version => version::run(),
    }
}

/// Help and version go to standard output and are no error; everything else is wrong usage.
fn answer(error: &clap::Error) -> ExitCode {
    // A closed standard output is nothing to report, and nobody to report it to.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Waits for a command's one piece of work.
fn wait_for<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work))
}

/// Says what a command has done.
fn say(sentence: std::fmt::Arguments<'_>) -> ExitCode {
    // A closed standard output is nobody who wants to know.
    let _ = writeln!(std::io::stdout().lock(), "{sentence}");
    ExitCode::SUCCESS
}

/// Says why the process ends, for when there is no log yet.
fn complain(sentence: std::fmt::Arguments<'_>) {
    // Standard error may be closed; the exit code still tells.
    let _ = writeln!(std::io::stderr().lock(), "{sentence}");
}
