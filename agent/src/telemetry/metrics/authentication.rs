//! What verdicts on tokens count.
//!
//! Owns: this one series. Must not know: how a verdict is reached.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::ByOutcome;
use super::amazon::AmazonMetrics;

/// A verdict on a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticated {
    /// A key proved it, or the API server.
    Verified,
    /// Neither could decide; EKS Auth judges.
    Unverified,
    /// It is not accepted.
    Refused,
    /// Neither could decide, and one must.
    Undecided,
}

/// What verdicts on tokens count. Each counter is made beforehand.
pub struct AuthenticationMetrics {
    verified: Counter,
    unverified: Counter,
    refused: Counter,
    undecided: Counter,
    amazon: AmazonMetrics,
}

impl AuthenticationMetrics {
    pub(super) fn new(registry: &mut Registry, amazon: AmazonMetrics) -> Self {
        let verdicts = Family::<ByOutcome, Counter>::default();
        registry.register(
            "pod_identity_agent_authentications",
            "Tokens judged. verified: by a key of the cluster, or by its API server; unverified: neither \
             could decide, so EKS Auth judges; refused: not accepted; undecided: neither could decide, and \
             one must",
            verdicts.clone(),
        );
        let verdict = |outcome| verdicts.get_or_create_owned(&ByOutcome { outcome });
        Self {
            verified: verdict("verified"),
            unverified: verdict("unverified"),
            refused: verdict("refused"),
            undecided: verdict("undecided"),
            amazon,
        }
    }

    /// A token was judged.
    pub fn judged(&self, authenticated: Authenticated) {
        match authenticated {
            Authenticated::Verified => self.verified.inc(),
            Authenticated::Unverified => self.unverified.inc(),
            Authenticated::Refused => self.refused.inc(),
            Authenticated::Undecided => self.undecided.inc(),
        };
        self.amazon.judged(authenticated);
    }
}
