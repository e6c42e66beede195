//! The authorities of `AWS_CA_BUNDLE`, as the file has them when a connection is made.
//!
//! Owns: reading the file again when it has changed, and keeping what was good while it is not. Must not
//! know: how they are used.
//!
//! An agent lives as long as its node, and the authority of an inspecting proxy may be replaced meanwhile:
//! the file is mostly a ConfigMap, which follows. By authorities of its start an agent would lose AWS until
//! somebody restarts it.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::error::SetUpError;
use crate::watched_file::{Changed, FileStamp, ReadError, WatchedFile};

/// A system's whole list has 230 KiB.
const MAX_BYTES: usize = 4 << 20;

/// The file.
pub(super) struct CaBundle {
    path: PathBuf,
    /// The state of the file that was judged last, and the last complaint, which is made once.
    known: Mutex<(Option<FileStamp>, Option<String>)>,
}

impl CaBundle {
    /// The file of this name, and what it has now.
    pub(super) fn read(path: &Path) -> Result<(Self, RootCertStore), SetUpError> {
        let pem =
            std::fs::read(path).map_err(|source| SetUpError::CaBundle { path: path.to_owned(), source })?;
        let roots = roots_in(&pem).ok_or(SetUpError::Tls)?;
        Ok((Self { path: path.to_owned(), known: Mutex::default() }, roots))
    }

    /// What it has, if it was changed since the last look and can be used.
    pub(super) async fn changed(&self) -> Option<RootCertStore> {
        let mut file = WatchedFile::new(self.path.clone(), MAX_BYTES);
        if let Some(stamp) = self.known.lock().0 {
            file.accept(stamp);
        }
        match file.read_if_changed().await {
            Ok(None) => None,
            Ok(Some(changed)) => self.judge(&changed),
            Err(error @ (ReadError::Io(_) | ReadError::TooLong)) => {
                self.complain(&error.to_string());
                None
            }
        }
    }

    fn judge(&self, Changed { content, stamp }: &Changed) -> Option<RootCertStore> {
        let roots = roots_in(content);
        let is_first = self.known.lock().0.replace(*stamp).is_none();
        match &roots {
            None => self.complain("one of its certificates cannot be read, or there is none"),
            Some(roots) => {
                self.known.lock().1 = None;
                if !is_first {
                    let authorities = roots.len();
                    tracing::info!(path = %self.path.display(), authorities, "AWS_CA_BUNDLE read again");
                }
            }
        }
        roots
    }

    fn complain(&self, why: &str) {
        if self.known.lock().1.replace(why.to_owned()).is_none_or(|before| before != why) {
            tracing::warn!(
                path = %self.path.display(),
                why,
                "AWS_CA_BUNDLE cannot be used; the last good one stays in force"
            );
        }
    }
}

/// Those of a bundle of which each can be used: half a file would take authorities away.
fn roots_in(pem: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}

#[cfg(test)]
mod tests {
    use super::CaBundle;

    const CERTIFICATE: &str = include_str!("../config/testdata/ca.pem");

    #[tokio::test]
    async fn a_file_that_has_changed_is_read_again_and_what_cannot_be_used_changes_nothing() {
        let path = std::env::temp_dir().join(format!("ca-bundle-changes-{}.pem", std::process::id()));
        std::fs::write(&path, CERTIFICATE).unwrap();
        let (bundle, roots) = CaBundle::read(&path).unwrap();
        assert_eq!(roots.len(), 1);
        let changed = async || bundle.changed().await.map(|roots| roots.len());
        assert_eq!(changed().await, Some(1), "it may have changed meanwhile");
        assert_eq!(changed().await, None);
        for (text, then) in [
            (CERTIFICATE.repeat(2), Some(2)),
            (format!("{CERTIFICATE}{}", CERTIFICATE.split_at(100).0), None),
            ("nothing".to_owned(), None),
            (CERTIFICATE.repeat(3), Some(3)),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(changed().await, then);
            assert_eq!(changed().await, None);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(changed().await, None);
    }
}
