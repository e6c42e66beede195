//! moto's process.
//!
//! Owns: that it is started with what it must know on its standard input, says its port, and ends with the
//! sandbox: when that is dropped, and also when it is killed, for then its standard input ends. Must not
//! know: what moto does.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// What Python runs.
const LAUNCHER: &str = include_str!("../../../moto/launcher.py");
/// Longest wait for it. Python reads some hundred files, which takes a second where the disk is not cold.
const START: Duration = Duration::from_secs(60);
/// From the end of its standard input to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
/// Lines of its log in an error.
const SHOWN: usize = 8;

/// moto does not run.
#[derive(Debug, Error)]
pub enum MotoError {
    /// No such Python, mostly.
    #[error("moto could not be started by {0}; `tests/sandbox/moto/prepare.sh` makes what it needs")]
    Start(PathBuf, #[source] io::Error),
    /// It ended, or said nothing.
    #[error("moto did not come up:{0}")]
    NotUp(String),
    /// It came up, and does not do as it is asked.
    #[error("moto refused what it was asked at its start: {0}")]
    Refused(String),
}

/// The child.
#[derive(Debug)]
pub(super) struct Process(Child);

#[derive(Deserialize)]
struct Up {
    port: u16,
}

impl Process {
    /// Starts it, and gives the port it listens on.
    pub(super) fn start(python: &Path, dir: &Path, setup: &Value) -> Result<(Self, u16), MotoError> {
        let failed = |error| MotoError::Start(python.to_owned(), error);
        let log = dir.join("moto.log");
        let mut command = Command::new(python);
        // In a group of its own, so that Ctrl-C reaches the sandbox alone, which ends it in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.args(["-c", LAUNCHER]).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.stderr(File::create(&log).map_err(failed)?).spawn().map_err(failed)?;
        let mut process = Self(child);
        if let Some(stdin) = &mut process.0.stdin {
            // If it has ended already, it has said why.
            let _ = writeln!(stdin, "{setup}");
        }
        let up = process.says().and_then(|line| serde_json::from_str::<Up>(&line).ok());
        match up {
            Some(Up { port }) => Ok((process, port)),
            None => Err(MotoError::NotUp(tail(&log))),
        }
    }

    /// Its first line, if it says one in time.
    fn says(&mut self) -> Option<String> {
        let stdout = self.0.stdout.take()?;
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            // Nobody waits any more: too late.
            let _ = tell.send(read.map(|_| line));
        });
        told.recv_timeout(START).ok()?.ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let looks = GRACE.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(LOOK);
        }
        // Not yet waited for, so its pid cannot be anybody else's.
        if self.0.kill().and_then(|()| self.0.wait()).is_err() {
            tracing::warn!(pid = self.0.id(), "moto could not be ended");
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(SHOWN).collect();
    lines.iter().rev().fold(String::new(), |tail, line| format!("{tail}\n  {line}"))
}
