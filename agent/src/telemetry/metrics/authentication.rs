//! What verdicts on tokens count.
//!
//! Owns: this one series. Must not know: how a verdict is reached.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::ByOutcome;

/// A verdict on a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticated {
    /// A key proved it.
    Verified,
    /// No key could decide; EKS Auth judges.
    Unverified,
    /// It is worth nothing.
    Refused,
    /// No key could decide, and one must.
    Undecided,
}

/// What verdicts on tokens count, one of each made beforehand.
pub struct AuthenticationMetrics {
    verified: Counter,
    unverified: Counter,
    refused: Counter,
    undecided: Counter,
}

impl AuthenticationMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let verdicts = Family::<ByOutcome, Counter>::default();
        registry.register("pod_identity_agent_authentications", "Verdicts on tokens", verdicts.clone());
        let verdict = |outcome| verdicts.get_or_create_owned(&ByOutcome { outcome });
        Self {
            verified: verdict("verified"),
            unverified: verdict("unverified"),
            refused: verdict("refused"),
            undecided: verdict("undecided"),
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
    }
}
