//! Other programs: run to their end, or kept with a log.
//!
//! Owns: that a failure comes with what was said. Must not know: what the programs are for.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::failure::{Failure, at};

/// Lines of a log that are shown with a failure.
const SHOWN: usize = 15;

/// Runs a program to its end, and returns what it wrote.
pub(crate) fn run(command: &mut Command) -> Result<String, Failure> {
    let name = name(command);
    let output = command.stdin(Stdio::null()).output().map_err(at(format!("{name} cannot be started")))?;
    if !output.status.success() {
        return Err(Failure::Program(
            name,
            output.status,
            format!(": {}", String::from_utf8_lossy(&output.stderr)),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end on that input.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<(), Failure> {
    let name = name(command);
    let failed = || at(format!("{name} cannot be started"));
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed())?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who has failed by now reads no more; its status says so below.
        let _gone = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Program(name, output.status, format!(": {}", String::from_utf8_lossy(&output.stderr))))
}

/// Starts a program that stays, with all it says in a file.
pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Child, Failure> {
    let failed = || at(format!("{} cannot be started", name(command)));
    let file = File::options().append(true).create(true).open(log).map_err(failed())?;
    let copy = file.try_clone().map_err(failed())?;
    let name = name(command);
    command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .spawn()
        .map_err(at(format!("{name} cannot be started")))
}

/// The end of every log in a folder, to be put behind a failure.
pub(crate) fn tails(folder: &Path) -> String {
    let Ok(entries) = fs::read_dir(folder) else { return String::new() };
    entries.flatten().fold(String::new(), |tails, entry| {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(SHOWN).collect();
        let tail = lines.iter().rev().fold(String::new(), |tail, line| format!("{tail}\n  {line}"));
        format!("{tails}\n{}:{tail}", entry.file_name().display())
    })
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}
