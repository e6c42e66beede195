//! Verdicts on tokens that were judged before.
//!
//! Owns: remembering a verdict by the digest of the whole token, so that a pod's second request costs one
//! SHA-256 instead of base64, JSON and, where keys are known, a signature. Must not know: how a verdict is
//! reached. A verdict counts only with the keys it was reached with: when a key comes or goes, every token is
//! judged anew. One that somebody else has reached counts for a time.
//!
//! Bounded by construction: a fixed table in which a newcomer replaces what its slot held. Losing a slot
//! costs one more judgement and nothing else, so no policy is needed, and a flood of tokens cannot grow it.

use parking_lot::Mutex;

use crate::clock::BootTime;
use crate::identity::verdict::Identity;
use crate::workload::TokenDigest;

/// Many times the 110 pods that a node has by default: 160 KiB, and about half a KiB for each token
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
    /// Until when it counts with these keys; `None`: without end.
    until: Option<BootTime>,
}

/// What is remembered of a token.
#[derive(Clone, Debug)]
pub(super) enum Recalled {
    /// A key has proven it.
    Proven(Identity),
    /// This was found of it otherwise, and counts.
    Identity(Identity),
    /// This was found of it with these keys, and its time is over.
    Lapsed,
    /// Nothing.
    Nothing,
}

impl Default for VerdictCache {
    fn default() -> Self {
        Self { slots: Mutex::new(vec![None; SLOTS].into_boxed_slice()) }
    }
}

impl VerdictCache {
    /// What was found of this very token with these keys.
    pub(super) fn recall(&self, digest: TokenDigest, generation: u64, now: BootTime) -> Recalled {
        let slots = self.slots.lock();
        let Some(found) = slots.get(slot(digest)).and_then(Option::as_ref) else { return Recalled::Nothing };
        // The whole digest is compared: sharing a slot is not being the same.
        let is_this_one = found.identity.token().digest == digest;
        if !(found.generation == generation && is_this_one) {
            return Recalled::Nothing;
        }
        match (found.until, &found.identity) {
            (Some(until), _) if until <= now => Recalled::Lapsed,
            (None, Identity::Verified(_)) => Recalled::Proven(found.identity.clone()),
            (Some(_), _) | (None, Identity::Unverified(_) | Identity::Untimely(_)) => {
                Recalled::Identity(found.identity.clone())
            }
        }
    }

    /// Remembers a token that was not refused, the keys it was judged with, and until when that counts.
    pub(super) fn remember(&self, identity: Identity, generation: u64, until: Option<BootTime>) {
        if let Some(slot) = self.slots.lock().get_mut(slot(identity.token().digest)) {
            *slot = Some(Slot { identity, generation, until });
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

    use super::{Identity, Recalled, VerdictCache};
    use crate::clock::BootTime;
    use crate::identity::claims::Validity;
    use crate::identity::verdict::{TokenFacts, UnverifiedIdentity};
    use crate::workload::{Audience, Caller, TokenDigest};

    fn unverified(digest: TokenDigest) -> Identity {
        let expires = UNIX_EPOCH + Duration::from_secs(2000);
        let validity = Validity { expires, not_before: None, issued: None };
        let facts = TokenFacts { digest, validity, audience: Audience::PodIdentity };
        Identity::Unverified(UnverifiedIdentity::claimed(facts, Caller::Unknown))
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    fn is_known(cache: &VerdictCache, digest: TokenDigest, generation: u64) -> bool {
        matches!(cache.recall(digest, generation, at(1)), Recalled::Identity(_))
    }

    #[test]
    fn only_the_very_token_is_known_not_one_that_shares_its_slot() {
        let cache = VerdictCache::default();
        let (mut one, mut other) = ([7; 32], [7; 32]);
        (one[31], other[31]) = (1, 2);
        let (one, other) = (TokenDigest::of_bytes(one), TokenDigest::of_bytes(other));
        cache.remember(unverified(one), 0, None);
        assert!(is_known(&cache, one, 0));
        assert!(!is_known(&cache, other, 0));
        assert!(!is_known(&cache, one, 1), "judged with other keys");
        cache.remember(unverified(other), 0, None);
        assert!(!is_known(&cache, one, 0), "it had to make room");
        assert!(is_known(&cache, other, 0));
    }

    #[test]
    fn a_verdict_for_a_time_lapses_and_is_no_more_than_nothing_with_other_keys() {
        let (cache, digest) = (VerdictCache::default(), TokenDigest::of_bytes([7; 32]));
        cache.remember(unverified(digest), 3, Some(at(100)));
        assert!(matches!(cache.recall(digest, 3, at(99)), Recalled::Identity(_)));
        assert!(matches!(cache.recall(digest, 3, at(100)), Recalled::Lapsed));
        assert!(matches!(cache.recall(digest, 4, at(99)), Recalled::Nothing));
    }
}
