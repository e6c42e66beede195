//! The state file: by it `run` finds the sandbox that `up` keeps.
//!
//! Owns: where it is, that only its user can read it, and that it goes when `up` ends. Must not know: how the
//! sandbox is asked for anything.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use http::Method;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::client;

/// What `run` needs to know of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    /// The process that is up.
    pub(crate) pid: u32,
    /// Base URL of the control port.
    pub(crate) control_url: String,
    /// Base URL of the agent, if there is one.
    pub(crate) agent_url: Option<String>,
    /// Base URL of STS.
    pub(crate) sts_url: String,
    /// One URL for all services of AWS, if there is one.
    #[serde(default)]
    pub(crate) gateway_url: Option<String>,
    /// AWS region.
    pub(crate) region: String,
    /// The sandbox's directory.
    pub(crate) dir: PathBuf,
}

/// The state file cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StateError {
    /// Its directory is there already, and somebody else's.
    #[error("{0} belongs to another user; choose a file with --json-state")]
    Foreign(PathBuf),
    /// It cannot be written.
    #[error("{0} cannot be written")]
    Write(PathBuf, #[source] io::Error),
}

/// The file `--json-state` names, or the user's own.
pub(crate) fn path(given: Option<&Path>) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the binary reads its environment here and nowhere else")]
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    given.map_or_else(
        || {
            let base = runtime.map_or_else(std::env::temp_dir, PathBuf::from);
            base.join(format!("pod-identity-sandbox-{}", nix::unistd::getuid())).join("up.json")
        },
        Path::to_owned,
    )
}

/// The sandbox that is up, if there is one: a file whose control port does not answer is a leftover.
pub(crate) async fn find(path: &Path) -> Option<State> {
    let state: State = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    let answer =
        client::send(Method::GET, &format!("{}/", state.control_url), None, String::new()).await.ok()?;
    answer.good().is_ok().then_some(state)
}

/// The file while it is there.
#[derive(Debug)]
pub(crate) struct Written(PathBuf);

impl Written {
    /// Writes it, over a leftover if need be.
    pub(crate) fn new(path: &Path, state: &State) -> Result<Self, StateError> {
        let failed = |error| StateError::Write(path.to_owned(), error);
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
            // In a directory that all may write, another user can have made ours first; a root-owned one is
            // fine.
            let owner = fs::symlink_metadata(parent).map_err(failed)?.uid();
            if owner != nix::unistd::getuid().as_raw() && owner != 0 {
                return Err(StateError::Foreign(parent.to_owned()));
            }
        }
        let text = serde_json::to_string_pretty(state).map_err(io::Error::from).map_err(failed)?;
        // A new file, so that its mode is ours, put in place in one step.
        let next = path.with_extension(format!("{}.next", state.pid));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| fs::rename(&next, path)).map_err(failed)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, "the state file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_state_file_is_private_is_removed_and_is_ignored_when_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/up.json");
        let state = State {
            pid: 1,
            control_url: "http://127.0.0.1:1".to_owned(),
            agent_url: None,
            sts_url: String::new(),
            gateway_url: None,
            region: String::new(),
            dir: PathBuf::new(),
        };
        let written = Written::new(&path, &state).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(find(&path).await.is_none(), "nobody answers on port 1");
        let again = Written::new(&path, &state).unwrap();
        drop(again);
        assert!(!path.exists());
        drop(written);

        let sandbox = sandbox::Sandbox::start(sandbox::Options::default()).unwrap();
        let live = State { control_url: sandbox.control_url().to_owned(), ..state };
        let _written = Written::new(&path, &live).unwrap();
        assert!(find(&path).await.is_some());
    }
}
