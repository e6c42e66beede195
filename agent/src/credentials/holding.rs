//! What is served as it is, to those for whom nothing may be fetched.
//!
//! Owns: what such a caller has. Must not know: why nothing may be fetched for it, or whether the cluster
//! still gives it its route; the endpoint asks that first.
//!
//! No call is made for any of this, now or by the renewals: it makes nobody want a set.

use crate::clock::Now;
use crate::credentials::provider::{Provider, Served};
use crate::credentials::record::Held;
use crate::workload::{BearerToken, Principal};

/// A living set and its owner.
#[derive(Debug)]
pub struct Holding {
    held: Held,
}

impl Provider {
    /// What a caller has by its own name.
    pub fn held_by(&self, principal: &Principal, now: Now) -> Option<Holding> {
        let record =
            self.store.get(&principal.key).filter(|record| record.principal().route == principal.route)?;
        let credentials = record.credentials();
        let holding = Holding { held: Held { record, credentials } };
        holding.lives(now).then_some(holding)
    }

    /// What this very token has earned its pod, while nobody can verify the token any more.
    pub fn earned_by(&self, token: &BearerToken, now: Now) -> Option<Holding> {
        self.store.earned_by(token.digest(), now).map(|held| Holding { held })
    }
}

impl Holding {
    /// Its owner: a pod that a key has proven, or whom its source knew by its token.
    pub fn principal(&self) -> &Principal {
        self.held.record.principal()
    }

    /// The set to send, if it still lives: the request may have waited since it was found.
    pub fn serve(self, now: Now) -> Option<Served> {
        self.lives(now).then(|| Served::as_it_is(self.held))
    }

    fn lives(&self, now: Now) -> bool {
        !self.held.credentials.expiry().is_over(now) && !self.held.record.is_revoked()
    }
}
