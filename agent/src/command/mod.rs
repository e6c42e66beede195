//! The subcommands: from the arguments of the process to its exit code.
//!
//! Owns: dispatch, exit codes, and what is printed before logging is set up. Must not know: what the server
//! does.

use std::ffi::OsString;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, CommandLine, ServerArgs, Subcommands};
use crate::telemetry::panic_text;

mod asking;
mod clean_environment;
mod cleanup;
mod doctor;
mod initialize;
mod probe;
mod probe_from_namespace;
mod server;
mod status;
mod version;
mod wait;

/// The exit code for an invalid command line or configuration (`EX_USAGE` of BSD's sysexits.h).
const USAGE: u8 = 64;

/// The exit code of `status` and `doctor` where there is nobody to ask: 1 is a bad answer.
const NOBODY_ASKED: u8 = 2;

/// Runs the subcommand in the arguments; `arguments` begins with the name of the program.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    // Until there is a log, and for the commands that have none.
    std::panic::set_hook(Box::new(tell_panic));
    // Before any thread starts, and before any library reads the environment.
    if let Err(error) = clean_environment::ensure(&arguments) {
        complain(format_args!("pod-identity-agent: {error}"));
        return ExitCode::FAILURE;
    }
    let line = CommandLine::of(arguments, Cli::command());
    match Cli::try_parse_from(line.arguments) {
        Ok(cli) => dispatch(cli, line.notices),
        Err(error) => answer(&error),
    }
}

fn dispatch(cli: Cli, unknown_flags: Vec<String>) -> ExitCode {
    match cli.command {
        Subcommands::Server(args) => {
            server::run(&ServerArgs { verbosity: cli.verbosity, unknown_flags, ..*args })
        }
        Subcommands::Initialize(args) => {
            for notice in unknown_flags {
                complain(format_args!("pod-identity-agent: {notice}"));
            }
            initialize::run(&args)
        }
        Subcommands::Cleanup(args) => cleanup::run(&args),
        Subcommands::Status(args) => status::run(&args),
        Subcommands::Doctor(args) => doctor::run(&args),
        Subcommands::Wait(args) => wait::run(&args),
        Subcommands::Probe(args) => probe::run(&args),
        Subcommands::ProbeFromNamespace => probe_from_namespace::run(),
        Subcommands::Version => version::run(),
    }
}

/// Prints help or version to standard output, or a usage error to standard error.
fn answer(error: &clap::Error) -> ExitCode {
    // If the output is closed, the error cannot be reported either.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Runs the work of a command to its end.
fn wait_for<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work))
}

/// Prints the result of a command to standard output.
fn say(sentence: std::fmt::Arguments<'_>) -> ExitCode {
    // A closed standard output is not an error: the work is done.
    let _ = writeln!(std::io::stdout().lock(), "{sentence}");
    ExitCode::SUCCESS
}

/// Prints a page to standard output.
fn print(page: &str) {
    // A closed standard output is not an error: `| head` has what it wants.
    let _ = std::io::stdout().lock().write_all(page.as_bytes());
}

/// A document for programs, as people can read it too.
fn as_json(document: &impl serde::Serialize) -> String {
    // What is printed holds text, numbers and lists alone: nothing that JSON cannot have.
    let json = serde_json::to_string_pretty(document).unwrap_or_default();
    format!("{json}\n")
}

/// Where it happened and, if the source code has it, the text.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map_or_else(String::new, |location| format!(" at {location}"));
    complain(format_args!("pod-identity-agent: panic{location}: {}", panic_text::message(panic)));
}

/// Prints an error to standard error, before there is a log.
fn complain(sentence: std::fmt::Arguments<'_>) {
    // If standard error is closed, the exit code still shows the failure.
    let _ = writeln!(std::io::stderr().lock(), "{sentence}");
}
