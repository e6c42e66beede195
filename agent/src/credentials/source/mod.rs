//! Where credentials come from. With `aws` this is the only folder that names the AWS SDK crates.
//!
//! Owns: calling a source once, and saying in our own words what the answer means. Must not know: caches,
//! queues, clients, or how often it is called. Retries, budgets and memory are the flight's.
//!
//! All sources have one shape: a route and a token go in; an [`Issued`] set or a [`SourceError`] comes out.
//! To add a source: a variant of [`Route`], a file here, a field and an arm in [`Sources`].

mod answer;
mod call;
pub mod eks_auth;
mod in_region;
mod obstacle;
mod of_each;
mod refusal;
pub mod web_identity;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::of_each::OfEach;
#[cfg(test)]
pub(crate) use self::refusal::tests;
pub use self::refusal::{JudgedToken, Refusal, RefusalClass};
use crate::aws::answer_log::AnswerLog;
use crate::aws::own_identity::rejection::Rejection;
use crate::aws::reach::Reach;
use crate::aws::region::AwsRegion;
use crate::credentials::issued::Issued;
use crate::workload::{PresentedToken, Route, Source};

/// All sources of this process.
#[derive(Clone, Debug)]
pub struct Sources {
    /// EKS Auth, for pod identity associations. `None`: no route leads there.
    pub eks_auth: Option<eks_auth::EksAuth>,
    /// STS, for roles that the cluster gives. `None`: no route leads there.
    pub web_identity: Option<web_identity::StsWebIdentity>,
    /// Where what AWS says no to is logged.
    pub answer_log: AnswerLog,
    /// The region that they call in.
    pub region: AwsRegion,
}

impl Sources {
    /// Those that there are.
    pub fn present(&self) -> Vec<Source> {
        let is_there =
            OfEach { eks_auth: self.eks_auth.is_some(), web_identity: self.web_identity.is_some() };
        Source::ALL.into_iter().filter(|source| *is_there.of(*source)).collect()
    }

    /// Whether AWS answers, of each source that there is.
    pub fn reaches(&self) -> OfEach<Option<Reach>> {
        let eks_auth = self.eks_auth.as_ref().map(|source| source.reach().clone());
        let web_identity = self.web_identity.as_ref().map(|source| source.reach().clone());
        OfEach { eks_auth, web_identity }
    }

    /// Waits until what a call failed for is there. For most failures nothing tells, and this never ends.
    pub async fn mended(&self, failure: &SourceError) {
        match failure {
            SourceError::OwnIdentity(OwnIdentityFault::RegionUnknown) => self.region.known().await,
            SourceError::OwnIdentity(OwnIdentityFault::Missing | OwnIdentityFault::Rejected(_))
            | SourceError::Refused(_)
            | SourceError::Throttled
            | SourceError::Unavailable(_) => std::future::pending().await,
        }
    }

    /// Exchanges a token for credentials by this route: one attempt, which is given up at its limits.
    ///
    /// # Errors
    /// [`SourceError`], classified by what it means for the caller.
    pub async fn fetch(
        &self,
        route: &Route,
        token: &PresentedToken,
        limits: TimeLimits,
    ) -> Result<Issued, SourceError> {
        // The choice of routes knows which sources there are, so neither is missing.
        let missing = || SourceError::Unavailable(Unavailable::Lost);
        match route {
            Route::EksAuth => self.eks_auth.as_ref().ok_or_else(missing)?.fetch(token, limits).await,
            Route::WebIdentity(wanted) => {
                self.web_identity.as_ref().ok_or_else(missing)?.fetch(wanted, token, limits).await
            }
        }
    }
}

/// How long one attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// From the making of a connection to the end of the answer.
    pub in_all: Duration,
    /// The same on a connection that has carried other requests: it may be dead.
    pub on_used_connection: Duration,
}

/// Why a source gave no credentials, sorted by what it means for the caller.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// AWS judged the request and refused it. This is about the pod.
    #[error("AWS refused: {0}")]
    Refused(Refusal),
    /// Too many calls, says AWS.
    #[error("AWS throttles")]
    Throttled,
    /// No answer, or one that says AWS is failing.
    #[error("AWS cannot be reached or is failing: {0}")]
    Unavailable(Unavailable),
    /// The agent's own AWS identity is missing or was rejected, or it does not know its region. Never the
    /// pod's fault (invariant 7).
    #[error("{0}")]
    OwnIdentity(OwnIdentityFault),
}

/// Ways in which AWS can be out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// No complete answer in time.
    Timeout,
    /// No connection: refused, reset, DNS, TLS.
    Connection,
    /// A 5xx.
    ServerError,
    /// STS answers that it could not read the keys of the token's issuer.
    IssuerUnreadable,
    /// An answer that is not the source's: a proxy's page, a wrong endpoint, JSON without credentials.
    Unreadable,
    /// The flight ended without an outcome: a fault of the agent.
    Lost,
}

/// What is wrong with the agent's own identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnIdentityFault {
    /// The agent does not know the region to call in.
    RegionUnknown,
    /// There are no credentials to sign with.
    Missing,
    /// AWS rejected them: unknown, expired, badly signed, or not allowed to call the source. In its words.
    Rejected(Arc<Rejection>),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no answer in time",
            Self::Connection => "no connection",
            Self::ServerError => "server error",
            Self::IssuerUnreadable => "STS cannot read the keys of the issuer",
            Self::Unreadable => {
                "the answer is not one of the service; something on the way may have given it"
            }
            Self::Lost => "the call was lost",
        })
    }
}

impl fmt::Display for OwnIdentityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RegionUnknown => f.write_str("the agent does not know its AWS region"),
            Self::Missing => f.write_str("the agent has no usable AWS credentials: there are none"),
            Self::Rejected(rejection) => {
                write!(f, "the agent has no usable AWS credentials: AWS rejected them: {rejection}")
            }
        }
    }
}

impl SourceError {
    /// The class, if it is a refusal: what policies look at.
    pub const fn refusal_class(&self) -> Option<RefusalClass> {
        match self {
            Self::Refused(refusal) => Some(refusal.class),
            Self::Throttled | Self::Unavailable(_) | Self::OwnIdentity(_) => None,
        }
    }

    /// Whether AWS refused the token, and nothing else.
    pub fn is_about_token(&self) -> bool {
        self.refusal_class().is_some_and(RefusalClass::is_about_token)
    }

    /// A label for metrics and logs; a closed set.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Throttled => "throttled",
            Self::Unavailable(Unavailable::Timeout) => "timeout",
            Self::Unavailable(Unavailable::Connection) => "connection",
            Self::Unavailable(Unavailable::ServerError) => "server_error",
            Self::Unavailable(Unavailable::IssuerUnreadable) => "issuer_unreadable",
            Self::Unavailable(Unavailable::Unreadable) => "unreadable",
            Self::Unavailable(Unavailable::Lost) => "lost",
            Self::OwnIdentity(OwnIdentityFault::RegionUnknown) => "region_unknown",
            Self::OwnIdentity(OwnIdentityFault::Missing) => "own_credentials_missing",
            Self::OwnIdentity(OwnIdentityFault::Rejected(_)) => "own_credentials_rejected",
        }
    }
}
