//! Removes variables that make libraries print secrets, by starting the program once more without them.
//!
//! Owns: that restart. Must not know: what the variables do; `config` lists them. Taking a variable out of a running
//! process is unsafe, because another thread may be reading the environment, and this code base forbids unsafe code;
//! `exec` keeps pid, descriptors and signal masks, so neither the kubelet nor a shell sees a difference.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::config::variables_printing_secrets;

/// The running executable, whatever its name on disk has become since.
const THIS_EXECUTABLE: &str = "/proc/self/exe";

/// The variables are set and could not be removed. Starting all the same would put secrets at risk.
#[derive(Debug, thiserror::Error)]
#[error("{} must not be set: it makes a library print secrets, and the start without it failed: {cause}", .names.join(" and "))]
pub(super) struct CleanEnvironmentError {
    names: Vec<&'static str>,
    cause: io::Error,
}

/// Returns if the environment is clean; otherwise this process goes on as a new one with a clean environment.
pub(super) fn ensure(arguments: &[OsString]) -> Result<(), CleanEnvironmentError> {
    let names = variables_printing_secrets();
    if names.is_empty() {
        return Ok(());
    }
    let mut again = Command::new(THIS_EXECUTABLE);
    if let Some((name, rest)) = arguments.split_first() {
        again.arg0(name).args(rest);
    }
    for name in &names {
        again.env_remove(name);
    }
    // Returns only when it failed.
    Err(CleanEnvironmentError { names, cause: again.exec() })
}
