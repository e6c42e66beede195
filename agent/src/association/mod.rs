//! Which route a caller takes to its credentials.
//!
//! Owns: the choice of the credential source by the audience that a token was issued for. Must not know: how
//! a source is asked or what it answers. Today there is one source; IRSA annotations and a mounted map come
//! to stand beside it here.

mod no_route;

pub use self::no_route::NoRoute;
use crate::workload::{Audience, Route};

/// Chooses the route by the token's audience.
///
/// # Errors
/// [`NoRoute`], when no source serves such a token.
pub const fn route_for(audience: &Audience) -> Result<Route, NoRoute> {
    match audience {
        Audience::PodIdentity => Ok(Route::EksAuth),
        Audience::WebIdentity(_) | Audience::Foreign => Err(NoRoute::ForeignAudience),
    }
}

#[cfg(test)]
mod tests {
    use super::{NoRoute, route_for};
    use crate::workload::{Route, ServedAudiences};

    #[test]
    fn the_audience_chooses_the_route() {
        let of = |audiences: &[&str]| {
            let audiences: Vec<_> = audiences.iter().map(|a| Box::from(*a)).collect();
            route_for(&ServedAudiences::default().meant_by(&audiences))
        };
        assert_eq!(of(&["pods.eks.amazonaws.com"]), Ok(Route::EksAuth));
        assert_eq!(of(&["other", "pods.eks.amazonaws.com"]), Ok(Route::EksAuth));
        assert_eq!(of(&["sts.amazonaws.com"]), Err(NoRoute::ForeignAudience));
        assert_eq!(of(&[]), Err(NoRoute::ForeignAudience));
    }
}
