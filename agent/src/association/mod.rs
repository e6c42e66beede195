//! Which route a caller takes to its credentials.
//!
//! Owns: the choice of the credential source by the audience that a token was issued for. Must not know: how
//! a source is asked or what it answers. Today there is one source; IRSA annotations and a mounted map come
//! to stand beside it here.

use crate::workload::{Audience, Route};

/// Why no source serves a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// None of its audiences is one that this agent serves.
    #[error("the token was not issued for audience pods.eks.amazonaws.com")]
    ForeignAudience,
}

/// Chooses the route by the token's audience.
///
/// # Errors
/// [`NoRoute`], when no source serves such a token.
pub const fn route_for(audience: Audience) -> Result<Route, NoRoute> {
    match audience {
        Audience::PodIdentity => Ok(Route::EksAuth),
        Audience::Foreign => Err(NoRoute::ForeignAudience),
    }
}

#[cfg(test)]
mod tests {
    use super::{NoRoute, route_for};
    use crate::workload::{Audience, Route};

    #[test]
    fn the_audience_chooses_the_route() {
        let of = |audiences: &[&str]| {
            route_for(Audience::of(&audiences.iter().map(|a| Box::from(*a)).collect::<Vec<_>>()))
        };
        assert_eq!(of(&["pods.eks.amazonaws.com"]), Ok(Route::EksAuth));
        assert_eq!(of(&["other", "pods.eks.amazonaws.com"]), Ok(Route::EksAuth));
        assert_eq!(of(&["sts.amazonaws.com"]), Err(NoRoute::ForeignAudience));
        assert_eq!(of(&[]), Err(NoRoute::ForeignAudience));
    }
}
