//! Tokens that were judged before.
//!
//! Owns: remembering a verdict by the digest of the whole token, so that a pod's second request costs one SHA-256 instead
//! of base64, JSON and, where keys are known, a signature. Must not know: how a verdict is reached. A verdict counts only
//! with the keys it was reached with: when one comes or goes, every token is looked at anew.
//!
//! Bounded by construction: a fixed table in which a newcomer takes the place of whoever stood there. Losing a place costs
//! one more look at the token and nothing else, so no policy is needed, and a flood of tokens cannot grow it.

use parking_lot::Mutex;

use crate::identity::verdict::{UnverifiedIdentity, VerifiedIdentity};
use crate::planted::{self, Bug};
use crate::workload::TokenDigest;

/// Places: many times the 110 pods that a node has by default, in 320 KiB, and half a KiB for each verified token among them.
const PLACES: usize = 4_096;

/// A token that was not refused.
#[derive(Clone, Debug)]
pub(super) enum CachedVerdict {
    /// A key proved it.
    Verified(VerifiedIdentity),
    /// No key could decide.
    Unverified(UnverifiedIdentity),
}

/// The verdicts remembered.
#[derive(Debug)]
pub(super) struct VerdictCache {
    places: Mutex<Box<[Option<Slot>]>>,
}

#[derive(Clone, Debug)]
struct Slot {
    known: CachedVerdict,
    /// The keys it was judged with.
    generation: u64,
}

impl CachedVerdict {
    fn digest(&self) -> TokenDigest {
        match self {
            Self::Verified(identity) => identity.digest(),
            Self::Unverified(identity) => identity.digest(),
        }
    }
}

impl Default for VerdictCache {
    fn default() -> Self {
        Self { places: Mutex::new(vec![None; PLACES].into_boxed_slice()) }
    }
}

impl VerdictCache {
    /// What was found of this very token with these keys.
    pub(super) fn recall(&self, digest: TokenDigest, generation: u64) -> Option<CachedVerdict> {
        let places = self.places.lock();
        let place = places.get(place(digest))?.as_ref()?;
        // The whole digest is compared: sharing a place is not being the same.
        let is_this_one = place.known.digest() == digest || planted::is_on(Bug::SharedPlace);
        (place.generation == generation && is_this_one).then(|| place.known.clone())
    }

    /// Remembers a token that was not refused, and the keys it was judged with.
    pub(super) fn remember(&self, known: CachedVerdict, generation: u64) {
        if let Some(place) = self.places.lock().get_mut(place(known.digest())) {
            *place = Some(Slot { known, generation });
        }
    }
}

/// Digests are evenly spread, so two bytes of one are as good as any hash.
fn place(digest: TokenDigest) -> usize {
    let [first, second, ..] = digest.0;
    let places = if planted::is_on(Bug::SharedPlace) { 16 } else { PLACES };
    usize::from(u16::from_be_bytes([first, second])) % places
}

#[cfg(test)]
mod tests {
    use super::{CachedVerdict, VerdictCache};
    use crate::identity::verdict::tests::unverified;

    #[test]
    fn only_the_very_token_is_known_not_one_that_shares_its_place() {
        let memory = VerdictCache::default();
        let (mut one, mut other) = ([7; 32], [7; 32]);
        (one[31], other[31]) = (1, 2);
        let (one, other) = (unverified(one), unverified(other));
        memory.remember(CachedVerdict::Unverified(one), 0);
        assert!(memory.recall(one.digest(), 0).is_some());
        assert!(memory.recall(other.digest(), 0).is_none());
        memory.remember(CachedVerdict::Unverified(other), 0);
        assert!(memory.recall(one.digest(), 0).is_none(), "its place was taken");
    }

    #[test]
    fn a_verdict_is_void_when_the_keys_have_changed() {
        let memory = VerdictCache::default();
        let one = unverified([7; 32]);
        memory.remember(CachedVerdict::Unverified(one), 1);
        assert!(memory.recall(one.digest(), 1).is_some());
        assert!(memory.recall(one.digest(), 2).is_none());
    }
}
