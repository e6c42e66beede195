//! Removes variables that make libraries print secrets, by restarting the program without them.
//!
//! Owns: the restart. Must not know: what the variables do; `config` lists them. Removing a variable from a
//! running process is unsafe, because another thread may be reading the environment, and this code base
//! forbids unsafe code. `exec` keeps pid, descriptors and signal masks, so neither the kubelet nor a shell
//! sees a difference.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::config::variables_printing_secrets;

/// The running executable, even if the file was renamed or replaced.
const THIS_EXECUTABLE: &str = "/proc/self/exe";

/// The variables are set and could not be removed. Running with them would put secrets at risk.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} must not be set: it makes a library print secrets, and restarting without it failed: {cause}",
    .names.join(" and ")
)]
pub(super) struct CleanEnvironmentError {
    names: Vec<&'static str>,
    cause: io::Error,
}

/// Returns if the environment is clean; otherwise restarts this process with a clean one.
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
    // `exec` returns only if it failed.
    Err(CleanEnvironmentError { names, cause: again.exec() })
}
