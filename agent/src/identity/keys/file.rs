//! A key document in a file that somebody else rewrites.
//!
//! Owns: noticing a change, and never taking more than a document's length. Must not know: what the document says. A file
//! that is being written does not parse; it is tried again at the next look, and the last good keys stay meanwhile.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use tokio::io::AsyncReadExt;

use super::document::LONGEST_DOCUMENT;

/// A watched file.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    /// What it looked like when its document was taken.
    taken: Option<Look>,
}

/// What one `stat` tells. The inode is in it because a rename, as of a ConfigMap's link, may keep time and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
}

impl KeyFile {
    /// Nothing is read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, taken: None }
    }

    /// The content if it differs from what was taken, and what to call [`Self::take`] with.
    pub(super) async fn read_if_changed(&self) -> std::io::Result<Option<(Vec<u8>, Look)>> {
        let file = tokio::fs::File::open(&self.path).await?;
        let metadata = file.metadata().await?;
        let look = Look { inode: metadata.ino(), size: metadata.len(), modified: metadata.modified().ok() };
        if self.taken == Some(look) {
            return Ok(None);
        }
        // One byte more than a document may have: so that too much is seen to be too much.
        let most = u64::try_from(LONGEST_DOCUMENT).unwrap_or(u64::MAX).saturating_add(1);
        let mut content = Vec::new();
        file.take(most).read_to_end(&mut content).await?;
        Ok(Some((content, look)))
    }

    /// The document was good: not read again before it changes.
    pub(super) fn take(&mut self, look: Look) {
        self.taken = Some(look);
    }
}
