//! Which role, and by which way.
//!
//! Owns: the choice of credential source by the audience a token was issued for. Must not know: how a source is asked
//! or what it answers. Today there is one way; IRSA annotations and a mounted map come to stand beside it here.

use crate::workload::{CredentialSource, POD_IDENTITY_AUDIENCE};

/// Why no source serves a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAssociation {
    /// None of its audiences is one that this agent serves.
    #[error("the token was not issued for audience pods.eks.amazonaws.com")]
    ForeignAudience,
}

/// Chooses the source by the token's audiences.
///
/// # Errors
/// [`NoAssociation`], when no source serves such a token.
pub fn source_for(audiences: &[Box<str>]) -> Result<CredentialSource, NoAssociation> {
    let is_pod_identity = audiences.iter().any(|audience| &**audience == POD_IDENTITY_AUDIENCE);
    if is_pod_identity { Ok(CredentialSource::EksAuth) } else { Err(NoAssociation::ForeignAudience) }
}

#[cfg(test)]
mod tests {
    use super::{NoAssociation, source_for};
    use crate::workload::CredentialSource;

    #[test]
    fn the_audience_chooses_the_source() {
        let of =
            |audiences: &[&str]| source_for(&audiences.iter().map(|a| Box::from(*a)).collect::<Vec<_>>());
        assert_eq!(of(&["pods.eks.amazonaws.com"]), Ok(CredentialSource::EksAuth));
        assert_eq!(of(&["other", "pods.eks.amazonaws.com"]), Ok(CredentialSource::EksAuth));
        assert_eq!(of(&["sts.amazonaws.com"]), Err(NoAssociation::ForeignAudience));
        assert_eq!(of(&[]), Err(NoAssociation::ForeignAudience));
    }
}
