//! A file that another program rewrites: a key document, a credentials file.
//!
//! Owns: noticing a change, reading no more than a limit, and reading again what was not accepted. Must not
//! know: what is in the file. A bad edit costs nothing: the caller keeps the last good content, and the file
//! is read again at each check until its content is good.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::fs::OpenOptions;
use tokio::io::AsyncReadExt;

/// A FIFO without a writer would otherwise be opened for ever, and its owner would wait and say nothing.
const WITHOUT_WAITING: i32 = nix::libc::O_NONBLOCK;
/// Of a directory, a FIFO, a socket, a device.
const NOT_A_FILE: &str = "it is not a regular file";

/// A watched file; the caller decides how often it is checked.
#[derive(Debug)]
pub struct WatchedFile {
    path: PathBuf,
    max_bytes: usize,
    must_settle: bool,
    /// The accepted content turned out to be wrong.
    is_doubted: bool,
    /// The file as it was when its content was last accepted.
    accepted: Option<FileStamp>,
    /// The file as it was at the last check.
    checked: Option<FileStamp>,
}

/// What tells one state of a file from another. The inode is part of it because a rename, or the link of a
/// ConfigMap volume, may keep time and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
}

/// New content, not yet accepted.
pub struct Changed {
    /// All bytes of the file. They may be secret.
    pub content: Vec<u8>,
    /// The state of the file that they belong to, for [`WatchedFile::accept`].
    pub stamp: FileStamp,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is missing, or the kernel refuses it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is longer than the limit.
    #[error("the file is too long")]
    TooLong,
}

impl WatchedFile {
    /// A file of at most `max_bytes` that is read as soon as it has changed. Nothing is read yet.
    pub fn new(path: PathBuf, max_bytes: usize) -> Self {
        Self { path, max_bytes, must_settle: false, is_doubted: false, accepted: None, checked: None }
    }

    /// Reads a change only once the file is the same at two checks in a row. For content that may be wrong
    /// although it parses, such as half a secret. The first read does not wait: there is nothing yet that it
    /// could replace.
    #[must_use]
    pub fn once_settled(self) -> Self {
        Self { must_settle: true, ..self }
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file if it differs from what was accepted. `None`: no change, or one that has not settled.
    ///
    /// # Errors
    /// [`ReadError`], when the file cannot be read or is too long; the next check tries again.
    pub async fn read_if_changed(&mut self) -> Result<Option<Changed>, ReadError> {
        let file = OpenOptions::new().read(true).custom_flags(WITHOUT_WAITING).open(&self.path).await?;
        let metadata = file.metadata().await?;
        if !metadata.is_file() {
            return Err(ReadError::Io(io::Error::other(NOT_A_FILE)));
        }
        let max = u64::try_from(self.max_bytes).unwrap_or(u64::MAX);
        if metadata.len() > max {
            return Err(ReadError::TooLong);
        }
        let stamp = FileStamp::of(&metadata);
        let is_settled = !self.must_settle || self.checked == Some(stamp) || self.accepted.is_none();
        self.checked = Some(stamp);
        let is_known = self.accepted == Some(stamp) && !self.is_doubted;
        if is_known || !is_settled {
            return Ok(None);
        }
        let mut content = Vec::new();
        // One byte more than allowed, because the file may grow while it is read.
        file.take(max.saturating_add(1)).read_to_end(&mut content).await?;
        if content.len() > self.max_bytes {
            return Err(ReadError::TooLong);
        }
        Ok(Some(Changed { content, stamp }))
    }

    /// Reads the file at the next check even if it looks unchanged: its content turned out to be wrong, and a
    /// writer may have kept size and time. A change still has to settle, if it must.
    pub fn read_again(&mut self) {
        self.is_doubted = true;
    }

    /// Reads the file at the next check whatever its state: there is nothing left that it could replace.
    pub fn forget(&mut self) {
        self.accepted = None;
    }

    /// The content of this stamp is good: it is not read again before the file changes.
    pub fn accept(&mut self, stamp: FileStamp) {
        self.accepted = Some(stamp);
        self.is_doubted = false;
    }
}

impl FileStamp {
    fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), size: metadata.len(), modified: metadata.modified().ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::{ReadError, WatchedFile};

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("pod-identity-agent-watched-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    async fn read(file: &mut WatchedFile) -> Option<String> {
        let changed = file.read_if_changed().await.unwrap()?;
        Some(String::from_utf8(changed.content).unwrap())
    }

    async fn read_and_accept(file: &mut WatchedFile) -> Option<String> {
        let changed = file.read_if_changed().await.unwrap()?;
        file.accept(changed.stamp);
        Some(String::from_utf8(changed.content).unwrap())
    }

    #[tokio::test]
    async fn a_missing_file_may_come_later_and_is_read_again_only_when_it_changes() {
        let path = scratch("changes");
        let mut file = WatchedFile::new(path.clone(), 100);
        assert!(matches!(file.read_if_changed().await, Err(ReadError::Io(_))));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(read_and_accept(&mut file).await.as_deref(), Some("one"));
        assert_eq!(read(&mut file).await, None);
        std::fs::write(&path, "three").unwrap();
        assert_eq!(read_and_accept(&mut file).await.as_deref(), Some("three"));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn content_that_was_not_accepted_is_read_again_at_each_check() {
        let path = scratch("rejected");
        std::fs::write(&path, "bad").unwrap();
        let mut file = WatchedFile::new(path.clone(), 100);
        for _ in 0..3 {
            assert_eq!(read(&mut file).await.as_deref(), Some("bad"));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_rename_that_keeps_time_and_size_is_a_change() {
        let (path, next) = (scratch("renamed"), scratch("renamed-next"));
        std::fs::write(&path, "one").unwrap();
        let mut file = WatchedFile::new(path.clone(), 100);
        assert_eq!(read_and_accept(&mut file).await.as_deref(), Some("one"));
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&next, "two").unwrap();
        std::fs::File::options().write(true).open(&next).unwrap().set_modified(modified).unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert_eq!(read(&mut file).await.as_deref(), Some("two"));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn where_changes_must_settle_the_first_read_does_not_wait_and_later_ones_do() {
        let path = scratch("settles");
        std::fs::write(&path, "one").unwrap();
        let mut file = WatchedFile::new(path.clone(), 100).once_settled();
        assert_eq!(read_and_accept(&mut file).await.as_deref(), Some("one"));
        std::fs::write(&path, "half").unwrap();
        assert_eq!(read(&mut file).await, None, "may still be written to");
        std::fs::write(&path, "whole").unwrap();
        assert_eq!(read(&mut file).await, None, "has changed since the last check");
        assert_eq!(read(&mut file).await.as_deref(), Some("whole"));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn content_that_turned_out_wrong_is_read_again_although_the_file_looks_unchanged() {
        let path = scratch("doubted");
        std::fs::write(&path, "one").unwrap();
        let mut file = WatchedFile::new(path.clone(), 100).once_settled();
        assert_eq!(read_and_accept(&mut file).await.as_deref(), Some("one"));
        file.read_again();
        assert_eq!(read_and_accept(&mut file).await.as_deref(), Some("one"));
        assert_eq!(read(&mut file).await, None, "once");
        std::fs::write(&path, "half").unwrap();
        file.read_again();
        assert_eq!(read(&mut file).await, None, "a change has to settle");
        file.forget();
        assert_eq!(read(&mut file).await.as_deref(), Some("half"), "unless there is nothing to lose");
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_file_longer_than_its_limit_is_not_read() {
        let path = scratch("long");
        let mut file = WatchedFile::new(path.clone(), 5);
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&mut file).await.as_deref(), Some("12345"));
        std::fs::write(&path, "123456").unwrap();
        assert!(matches!(file.read_if_changed().await, Err(ReadError::TooLong)));
        std::fs::remove_file(path).unwrap();
        // A file with a size that is known only after reading.
        let mut unsized_file = WatchedFile::new("/proc/self/status".into(), 5);
        assert!(matches!(unsized_file.read_if_changed().await, Err(ReadError::TooLong)));
    }

    #[tokio::test]
    async fn what_is_no_file_is_said_at_once() {
        let fifo = scratch("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [fifo.clone(), std::env::temp_dir(), "/dev/zero".into()] {
            let mut file = WatchedFile::new(path.clone(), 100);
            let read = tokio::time::timeout(Duration::from_secs(5), file.read_if_changed());
            match read.await.expect("nobody will ever write to it") {
                Err(ReadError::Io(error)) => assert_eq!(error.to_string(), "it is not a regular file"),
                _ => panic!("{path:?} was read"),
            }
        }
        std::fs::remove_file(fifo).unwrap();
    }
}
