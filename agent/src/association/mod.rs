//! Which role, and by which way.
//!
//! Owns: the choice of credential source by the audience a token was issued for. Must not know: how a source is asked
//! or what it answers. Today there is one way; IRSA annotations and a mounted map come to stand beside it here.

use crate::workload::{Audience, CredentialSource};

/// Why no source serves a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAssociation {
    /// None of its audiences is one that this agent serves.
    #[error("the token was not issued for audience pods.eks.amazonaws.com")]
    ForeignAudience,
}

/// Chooses the source by the token's audience.
///
/// # Errors
/// [`NoAssociation`], when no source serves such a token.
pub const fn source_for(audience: Audience) -> Result<CredentialSource, NoAssociation> {
    match audience {
        Audience::PodIdentity => Ok(CredentialSource::EksAuth),
        Audience::Foreign => Err(NoAssociation::ForeignAudience),
    }
}

#[cfg(test)]
mod tests {
    use super::{NoAssociation, source_for};
    use crate::workload::{Audience, CredentialSource};

    #[test]
    fn the_audience_chooses_the_source() {
        let of = |audiences: &[&str]| {
            source_for(Audience::of(&audiences.iter().map(|a| Box::from(*a)).collect::<Vec<_>>()))
        };
        assert_eq!(of(&["pods.eks.amazonaws.com"]), Ok(CredentialSource::EksAuth));
        assert_eq!(of(&["other", "pods.eks.amazonaws.com"]), Ok(CredentialSource::EksAuth));
        assert_eq!(of(&["sts.amazonaws.com"]), Err(NoAssociation::ForeignAudience));
        assert_eq!(of(&[]), Err(NoAssociation::ForeignAudience));
    }
}
