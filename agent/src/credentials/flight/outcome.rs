//! What comes of a flight for those who come later.
//!
//! Owns: where its outcome goes: the store, the memory of refusals, the next renewal, or the end of a set. Must not know:
//! how the flight went.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::BootTime;
use crate::credentials::flight::attempts::{FIRST_RENEWAL_RETRY, FlightRunner, SLOWEST_RENEWAL_RETRY};
use crate::credentials::held::Held;
use crate::credentials::policy::entitlement::Consequence;
use crate::credentials::source::SourceError;
use crate::identity::PresentedToken;
use crate::planted::{self, Bug};
use crate::workload::{CredentialKey, PeerKey};

impl FlightRunner {
    /// Puts the outcome where it belongs; `peer` is on whose account a newcomer goes.
    pub(super) fn settle(
        &self,
        key: &CredentialKey,
        presented: &PresentedToken,
        outcome: &Result<Arc<Held>, SourceError>,
        peer: Option<PeerKey>,
    ) {
        let now = self.clock.now().boot;
        match outcome {
            Ok(held) => {
                self.failures.forget(key);
                self.entitlement.found(&held.grant().association_id, now);
                if self.store.put(Arc::clone(held), peer) {
                    self.schedule.put(held, held.renew_at());
                }
            }
            Err(error) => {
                if let SourceError::Refused(refused) = error {
                    self.failures.remember(key, presented.expires, refused.clone(), now);
                }
                if let Some(held) = self.store.get(key) {
                    self.after_failed_renewal(&held, now, error);
                }
            }
        }
    }

    /// A set in hand survives its failed renewal (design, invariant 3), but for what the table of 4.5 says.
    fn after_failed_renewal(&self, held: &Arc<Held>, now: BootTime, error: &SourceError) {
        let mut witness = None;
        let consequence = self.entitlement.after(held, error, now, || {
            witness = self.witness(now);
            witness.is_some()
        });
        match consequence {
            Consequence::Keep => self.renew_later(held, now, error),
            Consequence::KeepForNewerToken => {
                held.wait_for_token_newer_than(&held.presented());
                self.renew_later(held, now, error);
            }
            Consequence::CheckAnotherAssociation => {
                if let Some(witness) = witness {
                    // The worker renews it, at the pace of renewals.
                    self.schedule.put(&witness, now);
                }
                self.renew_later(held, now, error);
            }
            Consequence::Drop => {
                held.drop_for_good();
                self.store.remove(held);
                tracing::warn!(
                    key = ?held.key(),
                    err = %error,
                    association = &*held.grant().association_id,
                    "the association is gone; its credentials are not served any more"
                );
            }
        }
    }

    /// A set that can be renewed, of an association that AWS was not asked about lately.
    fn witness(&self, now: BootTime) -> Option<Arc<Held>> {
        let wall = self.clock.now().wall;
        self.store.find(&|held| {
            held.was_asked_for()
                && held.presented().expires > wall
                && !self.entitlement.was_asked_about(&held.grant().association_id, now)
        })
    }

    fn renew_later(&self, held: &Arc<Held>, now: BootTime, error: &SourceError) {
        let in_a_row = held.count_failed_renewal();
        let doublings = u32::try_from(in_a_row - 1).unwrap_or(u32::MAX);
        // A token that AWS did not take will hardly do better soon; a newer one ends the waiting at once.
        let first = if held.waits_for_token() { SLOWEST_RENEWAL_RETRY } else { FIRST_RENEWAL_RETRY };
        let mut again = now.plus(self.pause(first, SLOWEST_RENEWAL_RETRY, doublings));
        if let (Some(since), Some(max)) = (held.not_found_since(), self.entitlement.max_stale()) {
            // Asked in time for the answer that ends it.
            let limit = since.plus(max);
            if now < limit {
                again = again.min(limit);
            }
        }
        if planted::is_on(Bug::GivesUp) {
            again = now.plus(Duration::from_secs(24 * 3600));
        }
        held.be_quiet_until(again);
        // Not after its end: it leaves memory by then, whether AWS is back or not (design, invariant 8).
        self.schedule.put(held, again.min(held.expiry().boot));
        tracing::info!(key = ?held.key(), err = %error, failures = in_a_row, "a renewal failed; what is held is kept");
    }
}
