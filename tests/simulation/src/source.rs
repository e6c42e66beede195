//! Where a pod has its credentials from.
//!
//! Owns: the two services, and what each has of its own. Must not know: how either answers.

use crate::rng::Rng;
use crate::shape::Shape;

/// That of a pod; its tokens are issued for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// EKS Auth, for an association.
    EksAuth,
    /// STS, for the role that an annotation of the service account names.
    Sts,
}

/// One for each.
#[derive(Clone, Debug, Default)]
pub struct OfEach<T> {
    eks_auth: T,
    sts: T,
}

impl Source {
    /// That of a slot: a share of them has roles, by the seed.
    pub fn of_slot(seed: u64, slot: u32, shape: &Shape) -> Self {
        let has_role = Rng::stream(seed, u64::from(slot) + (1 << 33), 0).percent(shape.percent_of_roles);
        if has_role { Self::Sts } else { Self::EksAuth }
    }

    /// The audience of tokens for it.
    pub const fn audience(self) -> &'static str {
        match self {
            Self::EksAuth => "pods.eks.amazonaws.com",
            Self::Sts => "sts.amazonaws.com",
        }
    }
}

impl<T> OfEach<T> {
    /// That of this source.
    pub const fn of(&self, source: Source) -> &T {
        match source {
            Source::EksAuth => &self.eks_auth,
            Source::Sts => &self.sts,
        }
    }

    /// The same, to be changed.
    pub const fn of_mut(&mut self, source: Source) -> &mut T {
        match source {
            Source::EksAuth => &mut self.eks_auth,
            Source::Sts => &mut self.sts,
        }
    }
}
