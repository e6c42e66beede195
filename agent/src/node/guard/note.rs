//! The note that this pod's agent has stood back, for its container's next start.
//!
//! Owns: the file. Must not know: what follows from it. It is in the pod's own emptyDir, so it ends with the
//! pod. Without the directory, a container that is started again takes over as a new agent does.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

const FILE: &str = "stood-back";
/// A disk that hangs must not keep the table from being written.
const DEADLINE: Duration = Duration::from_secs(1);

/// Whether this pod's agent has stood back before.
pub(super) fn is_there(dir: Option<&Path>) -> bool {
    dir.is_some_and(|dir| dir.join(FILE).exists())
}

/// It has.
pub(super) async fn leave(dir: Option<&Path>) {
    let Some(dir) = dir else { return };
    match timeout(DEADLINE, tokio::fs::write(dir.join(FILE), b"")).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(err = %error, dir = %dir.display(), "cannot write to --state-dir"),
        Err(_) => tracing::warn!(dir = %dir.display(), "--state-dir does not answer"),
    }
}

/// It has the table again.
pub(super) async fn remove(dir: Option<&Path>) {
    let Some(dir) = dir else { return };
    let _gone = timeout(DEADLINE, tokio::fs::remove_file(dir.join(FILE))).await;
}

#[cfg(test)]
mod tests {
    use super::{is_there, leave, remove};

    #[tokio::test]
    async fn a_note_is_there_until_it_is_removed() {
        let dir = std::env::temp_dir().join(format!("pod-identity-agent-note-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let here = dir.as_path();
        let dir = Some(here);
        assert!(!is_there(dir) && !is_there(None));
        leave(dir).await;
        assert!(is_there(dir));
        remove(dir).await;
        assert!(!is_there(dir));
        // A directory that is not there costs nothing but a line in the log.
        leave(Some(std::path::Path::new("/no/such/directory"))).await;
        leave(None).await;
        std::fs::remove_dir(here).unwrap();
    }
}
