//! A projected volume as the kubelet's AtomicWriter keeps it (docs/design/facts.md#token-files).
//!
//! ```text
//! <volume>/..2026_11_22_17_54_33.123456789/<file>   what was written last
//! <volume>/..data -> ..2026_11_22_17_54_33.123456789
//! <volume>/<file> -> ..data/<file>
//! ```
//!
//! Owns: this layout and the one rename that changes the content. Must not know: that the file is a token.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::clock::{self, Clock};
use crate::random;

/// defaultMode 420 of the volume that EKS injects (docs/design/facts.md#pod-environment).
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// Writes `content` as `file` of the volume at `volume`, and returns the path a pod reads. Who reads that
/// path while it is written again sees either the old content or the new, whole.
pub(crate) fn write(volume: &Path, file: &str, content: &str) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(volume)?;
    let data = volume.join("..data");
    let before = fs::read_link(&data).ok();

    let now = clock::rfc3339(Clock::default().now()).replace(['-', ':', 'T'], "_");
    let directory = format!("..{}.{}", now.trim_end_matches('Z'), fastrand::u32(..));
    DirBuilder::new().mode(DIRECTORY_MODE).create(volume.join(&directory))?;
    let mut written = File::create_new(volume.join(&directory).join(file))?;
    written.write_all(content.as_bytes())?;
    written.set_permissions(Permissions::from_mode(FILE_MODE))?;

    // rename replaces a symlink in one step; symlink itself would fail on an existing name.
    let new_data = volume.join(format!("..data_tmp_{}", random::hex(&random::bytes(4))));
    symlink(&directory, &new_data)?;
    fs::rename(&new_data, &data)?;

    let visible = volume.join(file);
    if fs::symlink_metadata(&visible).is_err() {
        symlink(Path::new("..data").join(file), &visible)?;
    }
    if let Some(before) = before {
        fs::remove_dir_all(volume.join(before))?;
    }
    Ok(visible)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn the_file_is_reached_through_the_data_link_and_old_content_is_removed() {
        let volume = tempfile::tempdir().unwrap();
        write(volume.path(), "token", "one").unwrap();
        let path = write(volume.path(), "token", "two").unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("..data/token"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
        let names = fs::read_dir(volume.path()).unwrap().count();
        assert_eq!(names, 3, "one directory, ..data and the file");
    }

    #[test]
    fn a_reader_never_sees_a_missing_or_partial_file_while_it_is_replaced() {
        let volume = tempfile::tempdir().unwrap();
        let long = |c: char| c.to_string().repeat(100_000);
        let path = write(volume.path(), "token", &long('a')).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Opening walks three names; the directory behind the old link may go in between, as with
                    // the kubelet. A reader that is told "not found" then finds the new one.
                    let mut tries = (0..100).map(|_| fs::read_to_string(&path));
                    let read = tries.find_map(Result::ok).unwrap();
                    let first = read.chars().next();
                    assert_eq!(read.len(), 100_000);
                    assert!(read.chars().all(|c| Some(c) == first));
                }
            });
            for content in ['b', 'c'].iter().cycle().take(200) {
                write(volume.path(), "token", &long(*content)).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
