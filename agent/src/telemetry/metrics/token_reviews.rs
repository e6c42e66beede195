//! What reviews of tokens at the API server count.
//!
//! Owns: this one series. Must not know: when a token is reviewed, or what follows.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::ByOutcome;

/// How a review ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewOutcome {
    /// The token is genuine.
    Authenticated,
    /// It is not.
    Denied,
    /// There was no answer.
    Failed,
    /// The token was not shown.
    Skipped,
}

/// What reviews count. Each counter is made beforehand.
pub struct TokenReviewMetrics {
    authenticated: Counter,
    denied: Counter,
    failed: Counter,
    skipped: Counter,
}

impl TokenReviewMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let outcomes = Family::<ByOutcome, Counter>::default();
        registry.register(
            "pod_identity_agent_token_reviews",
            "Tokens that no key proves, by what the API server says of them. authenticated: it accepts the \
             token for our audience; denied: it does not; failed: it gave no answer, or the agent may not \
             ask; skipped: the token was not shown to it, because of the rates, or because it gave no answer \
             a moment ago",
            outcomes.clone(),
        );
        let outcome = |outcome| outcomes.get_or_create_owned(&ByOutcome { outcome });
        Self {
            authenticated: outcome("authenticated"),
            denied: outcome("denied"),
            failed: outcome("failed"),
            skipped: outcome("skipped"),
        }
    }

    /// A review ended.
    pub fn reviewed(&self, outcome: ReviewOutcome) {
        match outcome {
            ReviewOutcome::Authenticated => self.authenticated.inc(),
            ReviewOutcome::Denied => self.denied.inc(),
            ReviewOutcome::Failed => self.failed.inc(),
            ReviewOutcome::Skipped => self.skipped.inc(),
        };
    }
}
