//! Something that each source has of its own.
//!
//! Owns: that what is learnt of one source never counts for another: an outage or throttling of STS is none
//! of EKS Auth. Must not know: what it is.

use crate::workload::Source;

/// One for each source.
#[derive(Clone, Debug, Default)]
pub struct OfEach<T> {
    /// That of EKS Auth.
    pub eks_auth: T,
    /// That of STS.
    pub web_identity: T,
}

impl<T> OfEach<T> {
    /// Two that are made alike.
    pub fn made(mut make: impl FnMut() -> T) -> Self {
        Self { eks_auth: make(), web_identity: make() }
    }

    /// That of a source.
    pub const fn of(&self, source: Source) -> &T {
        match source {
            Source::EksAuth => &self.eks_auth,
            Source::WebIdentity => &self.web_identity,
        }
    }

    /// The same, to be changed.
    pub const fn of_mut(&mut self, source: Source) -> &mut T {
        match source {
            Source::EksAuth => &mut self.eks_auth,
            Source::WebIdentity => &mut self.web_identity,
        }
    }

    /// All of them.
    pub fn all(&self) -> [&T; 2] {
        [&self.eks_auth, &self.web_identity]
    }
}
