//! What a file says that may not be there, or was not read yet. Pure.
//!
//! Owns: that "no file" and "not read" are two things. Must not know: which file it is, or who reads it.

use std::sync::Arc;

/// What a file says.
#[derive(Debug)]
pub(super) enum Content<T> {
    /// There is no such file.
    NotConfigured,
    /// It was not read yet. A pod that needs it waits: it may be mounted or mended a moment later.
    NotRead,
    /// This, by the last good read.
    Known(Arc<T>),
}

impl<T> Content<T> {
    /// Before it is read.
    pub(super) const fn at_start(is_configured: bool) -> Self {
        if is_configured { Self::NotRead } else { Self::NotConfigured }
    }

    /// What it says, if that is known; `None` of it: there is no such file.
    pub(super) fn known(&self) -> Option<Option<Arc<T>>> {
        match self {
            Self::NotConfigured => Some(None),
            Self::Known(content) => Some(Some(Arc::clone(content))),
            Self::NotRead => None,
        }
    }
}
