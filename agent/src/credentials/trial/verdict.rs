//! What the answer to a trial call says of the pods of this node. Pure.
//!
//! Owns: the table of outcomes. Must not know: when it is asked, and how often.
//!
//! The token is the agent's own, for which nobody needs an association: that there is none is the good
//! answer. So what counts is only what would meet every other pod as well.

use std::sync::Arc;
use std::time::SystemTime;

use crate::aws::own_identity::rejection::Rejection;
use crate::credentials::source::{OwnIdentityFault, Refusal, RefusalClass, SourceError};

/// What a trial call shows.
#[derive(Debug)]
pub(super) enum Verdict {
    /// AWS knows cluster, token and node.
    Works,
    /// No pod of this node would be given credentials.
    CannotWork(Fault),
    /// Nothing.
    Unknown {
        /// Whether it may be asked again soon: not where AWS wants less.
        may_retry: bool,
        /// Why.
        why: String,
    },
    /// Nothing: there was nothing to sign with.
    NotAsked,
}

/// What an admin has to mend.
#[derive(Debug)]
pub(super) enum Fault {
    /// AWS does not know the cluster.
    UnknownCluster(Refusal),
    /// AWS takes the agent's own token for none of the cluster's.
    ForeignToken(Refusal),
    /// AWS rejects who signs.
    OwnIdentity(Arc<Rejection>),
}

impl Fault {
    /// What to do.
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownCluster(_) => {
                "correct the cluster's name (--cluster-name, clusterName of the chart) or the region"
            }
            Self::ForeignToken(_) => {
                "the cluster's name (--cluster-name, clusterName of the chart) is perhaps another cluster's: \
                 correct it"
            }
            Self::OwnIdentity(_) => {
                "allow eks-auth:AssumeRoleForPodIdentity to the node's role, and in the policy of a VPC \
                 endpoint, or correct the agent's own credentials"
            }
        }
    }
}

/// What an outcome shows; `None`: credentials came. `issued`: when the token was, by the API server's clock.
pub(super) fn verdict(error: Option<&SourceError>, issued: Option<SystemTime>) -> Verdict {
    match error {
        None => Verdict::Works,
        Some(SourceError::Refused(refusal)) => of_refusal(refusal, issued),
        Some(SourceError::OwnIdentity(OwnIdentityFault::Rejected(rejection))) => {
            Verdict::CannotWork(Fault::OwnIdentity(Arc::clone(rejection)))
        }
        Some(SourceError::OwnIdentity(OwnIdentityFault::RegionUnknown | OwnIdentityFault::Missing)) => {
            Verdict::NotAsked
        }
        Some(error @ SourceError::Throttled) => Verdict::Unknown { may_retry: false, why: error.to_string() },
        Some(error @ SourceError::Unavailable(_)) => unknown(error.to_string()),
    }
}

fn of_refusal(refusal: &Refusal, issued: Option<SystemTime>) -> Verdict {
    match refusal.class {
        RefusalClass::NoAssociation | RefusalClass::BadRequest if refusal.blames_cluster() => {
            Verdict::CannotWork(Fault::UnknownCluster(refusal.clone()))
        }
        // There is an association, so there is the cluster. Its words name a role, and that may be called
        // cluster.
        RefusalClass::NoAssociation | RefusalClass::RoleNotAssumable => Verdict::Works,
        // EKS Auth looks for the cluster by its name and for the token's keys in it: a token that is fresh
        // and not its own is another cluster's, and so are those of all pods. Unless the API server's clock
        // is ahead of AWS's: then the token is not valid yet, and will be.
        RefusalClass::TokenInvalid if !is_early(refusal, issued) => {
            Verdict::CannotWork(Fault::ForeignToken(refusal.clone()))
        }
        // Of a clock, or of a kubelet that is late; of a request that AWS takes no more. Pods may fare
        // better.
        RefusalClass::TokenInvalid | RefusalClass::TokenExpired | RefusalClass::BadRequest => {
            unknown(refusal.to_string())
        }
    }
}

/// Whether AWS answered before the token was issued, by its own clock.
fn is_early(refusal: &Refusal, issued: Option<SystemTime>) -> bool {
    refusal.answered_at.zip(issued).is_some_and(|(answered, issued)| answered < issued)
}

const fn unknown(why: String) -> Verdict {
    Verdict::Unknown { may_retry: true, why }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::{Fault, Verdict, verdict};
    use crate::aws::own_identity::rejection::Rejection;
    use crate::credentials::source::RefusalClass::{
        BadRequest, NoAssociation, RoleNotAssumable, TokenExpired, TokenInvalid,
    };
    use crate::credentials::source::tests::refusal;
    use crate::credentials::source::{OwnIdentityFault, Refusal, RefusalClass, SourceError, Unavailable};

    const CLUSTER: &str = "No cluster found for name: sandbx.";
    const ASSOCIATION: &str = "No association found for service account a of namespace n in cluster c.";
    const NOBODY: &str = "Not found";
    const ROLE: &str = "EKS may not assume arn:aws:iam::111122223333:role/cluster-autoscaler";

    fn said(class: RefusalClass, message: &str) -> SourceError {
        SourceError::Refused(Refusal { message: message.into(), ..refusal(class) })
    }

    fn rejected(status: u16, code: &str) -> SourceError {
        let rejection = Rejection::new(status, Some(code), "no", None);
        SourceError::OwnIdentity(OwnIdentityFault::Rejected(Arc::new(rejection)))
    }

    const fn label(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Works => "works",
            Verdict::CannotWork(Fault::UnknownCluster(_)) => "unknown cluster",
            Verdict::CannotWork(Fault::ForeignToken(_)) => "foreign token",
            Verdict::CannotWork(Fault::OwnIdentity(_)) => "own identity",
            Verdict::Unknown { may_retry: true, .. } => "unknown",
            Verdict::Unknown { may_retry: false, .. } => "unknown, not soon",
            Verdict::NotAsked => "not asked",
        }
    }

    #[test]
    fn every_outcome_has_its_verdict() {
        let unavailable = SourceError::Unavailable;
        for (error, expected) in [
            (said(NoAssociation, ASSOCIATION), "works"),
            (said(NoAssociation, NOBODY), "works"),
            (said(NoAssociation, CLUSTER), "unknown cluster"),
            (said(RoleNotAssumable, NOBODY), "works"),
            (said(RoleNotAssumable, ASSOCIATION), "works"),
            (said(RoleNotAssumable, ROLE), "works"),
            (said(TokenInvalid, NOBODY), "foreign token"),
            (said(TokenExpired, NOBODY), "unknown"),
            (said(BadRequest, NOBODY), "unknown"),
            (said(BadRequest, CLUSTER), "unknown cluster"),
            (rejected(403, "AccessDeniedException"), "own identity"),
            (rejected(403, "ExpiredTokenException"), "own identity"),
            (rejected(400, "UnrecognizedClientException"), "own identity"),
            (SourceError::OwnIdentity(OwnIdentityFault::Missing), "not asked"),
            (SourceError::OwnIdentity(OwnIdentityFault::RegionUnknown), "not asked"),
            (SourceError::Throttled, "unknown, not soon"),
            (unavailable(Unavailable::Timeout), "unknown"),
            (unavailable(Unavailable::Connection), "unknown"),
            (unavailable(Unavailable::ServerError), "unknown"),
            (unavailable(Unavailable::IssuerUnreadable), "unknown"),
            (unavailable(Unavailable::Unreadable), "unknown"),
            (unavailable(Unavailable::Lost), "unknown"),
        ] {
            assert_eq!(label(&verdict(Some(&error), None)), expected, "{error}");
        }
        assert_eq!(label(&verdict(None, None)), "works");
    }

    #[test]
    fn a_token_that_is_refused_before_it_was_issued_by_aws_s_clock_says_nothing_of_the_cluster() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let judged = |answered: Option<SystemTime>, issued: Option<SystemTime>| {
            let refusal = Refusal { answered_at: answered, ..refusal(TokenInvalid) };
            label(&verdict(Some(&SourceError::Refused(refusal)), issued))
        };
        assert_eq!(judged(Some(at(100)), Some(at(101))), "unknown");
        assert_eq!(judged(Some(at(101)), Some(at(101))), "foreign token");
        assert_eq!(judged(None, Some(at(101))), "foreign token");
        assert_eq!(judged(Some(at(100)), None), "foreign token");
    }
}
