//! Verdicts on tokens that were judged before.
//!
//! Owns: remembering a verdict by the digest of the whole token, so that a pod's second request costs one
//! SHA-256 instead of base64, JSON and, where keys are known, a signature. Must not know: how a verdict is
//! reached. A verdict counts only with the keys it was reached with: when a key comes or goes, every token is
//! judged anew.
//!
//! Bounded by construction: a fixed table in which a newcomer replaces what its slot held. Losing a slot
//! costs one more judgement and nothing else, so no policy is needed, and a flood of tokens cannot grow it.

use parking_lot::Mutex;

use crate::identity::verdict::Identity;
use crate::workload::TokenDigest;

/// Many times the 110 pods that a node has by default: 100 KiB, and about half a KiB for each token
/// remembered.
const SLOTS: usize = 4_096;

/// The verdicts remembered.
#[derive(Debug)]
pub(super) struct VerdictCache {
    slots: Mutex<Box<[Option<Slot>]>>,
}

#[derive(Clone, Debug)]
struct Slot {
    identity: Identity,
    /// The keys it was judged with.
    generation: u64,
}

impl Default for VerdictCache {
    fn default() -> Self {
        Self { slots: Mutex::new(vec![None; SLOTS].into_boxed_slice()) }
    }
}

impl VerdictCache {
    /// What was found of this very token with these keys.
    pub(super) fn recall(&self, digest: TokenDigest, generation: u64) -> Option<Identity> {
        let slots = self.slots.lock();
        let found = slots.get(slot(digest))?.as_ref()?;
        // The whole digest is compared: sharing a slot is not being the same.
        let is_this_one = found.identity.token().digest == digest;
        (found.generation == generation && is_this_one).then(|| found.identity.clone())
    }

    /// Remembers a token that was not refused, and the keys it was judged with.
    pub(super) fn remember(&self, identity: Identity, generation: u64) {
        if let Some(slot) = self.slots.lock().get_mut(slot(identity.token().digest)) {
            *slot = Some(Slot { identity, generation });
        }
    }
}

/// Digests are evenly spread, so two bytes of one are as good as any hash.
fn slot(digest: TokenDigest) -> usize {
    usize::from(u16::from_be_bytes(digest.first_two_bytes())) % SLOTS
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Identity, VerdictCache};
    use crate::identity::claims::Validity;
    use crate::identity::verdict::{TokenFacts, UnverifiedIdentity};
    use crate::workload::{Audience, Caller, TokenDigest};

    fn unverified(digest: TokenDigest) -> Identity {
        let expires = UNIX_EPOCH + Duration::from_secs(2000);
        let validity = Validity { expires, not_before: None, issued: None };
        let facts = TokenFacts { digest, validity, audience: Audience::PodIdentity };
        Identity::Unverified(UnverifiedIdentity::claimed(facts, Caller::Unknown))
    }

    #[test]
    fn only_the_very_token_is_known_not_one_that_shares_its_slot() {
        let cache = VerdictCache::default();
        let (mut one, mut other) = ([7; 32], [7; 32]);
        (one[31], other[31]) = (1, 2);
        let (one, other) = (TokenDigest::of_bytes(one), TokenDigest::of_bytes(other));
        cache.remember(unverified(one), 0);
        assert!(cache.recall(one, 0).is_some());
        assert!(cache.recall(other, 0).is_none());
        assert!(cache.recall(one, 1).is_none(), "judged with other keys");
        cache.remember(unverified(other), 0);
        assert!(cache.recall(one, 0).is_none(), "it had to make room");
        assert!(cache.recall(other, 0).is_some());
    }
}
