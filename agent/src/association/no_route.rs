//! Why a caller has no route to credentials.
//!
//! Owns: the list, and one sentence for each. Must not know: which status an answer has (`server`).

use std::fmt;
use std::sync::Arc;

/// Why no source serves a caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nobody has verified who asks, and a role is given to nobody for a claim alone: STS would be the only
    /// judge of a role that the agent chose.
    #[error("the token could not be verified, and a role is given to a verified pod only")]
    Unverified,
    /// Neither an annotation nor an entry of the role map.
    #[error("the service account has no role: neither an annotation nor an entry of the role map names one")]
    NoRole,
    /// The annotation is there, and no role can be read from it; the sentence says why.
    #[error("{0}")]
    InvalidRole(Arc<str>),
    /// The role is given for tokens of another audience.
    #[error("{0}")]
    OtherAudience(OtherAudience),
    /// The role limits do not let this namespace have this role.
    #[error("the role limits of this cluster do not allow this namespace to use this role")]
    NotAllowed,
    /// The API server, or a file, has not said yet. It may say so a moment later.
    #[error("the role of the service account is not known yet")]
    NotYetKnown,
}

/// The audience that a role is given for is not that of the pod's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherAudience {
    /// That of the annotation or of the entry of the role map.
    pub of_role: Arc<str>,
    /// That of the token.
    pub of_token: Arc<str>,
    /// Whether the agent serves tokens of the first.
    pub is_served: bool,
    /// Whether the pod was given the role with such a token before: then the first has changed.
    pub has_changed: bool,
}

impl fmt::Display for OtherAudience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of_role, of_token, is_served, has_changed } = self;
        let now = if *has_changed { "now " } else { "" };
        write!(
            f,
            "the audience of the service account's role is {now}{of_role}, and the pod's token is for \
             {of_token}"
        )?;
        f.write_str(match (is_served, has_changed) {
            (false, _) => ": this agent does not serve the former, which --web-identity-audience must name",
            (true, true) => ": restart the pod, so that it gets a token for the former",
            (true, false) => ": they must be the same",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::OtherAudience;

    #[test]
    fn another_audience_is_named_with_what_to_do() {
        for (is_served, has_changed, says) in [
            (true, true, "role is now mine, and the pod's token is for sts: restart the pod"),
            (true, false, "role is mine, and the pod's token is for sts: they must be the same"),
            (false, true, "does not serve the former, which --web-identity-audience must name"),
            (false, false, "does not serve the former, which --web-identity-audience must name"),
        ] {
            let (of_role, of_token) = ("mine".into(), "sts".into());
            let sentence = OtherAudience { of_role, of_token, is_served, has_changed }.to_string();
            assert!(sentence.contains(says), "{sentence}");
        }
    }
}
