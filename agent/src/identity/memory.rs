//! Tokens that were judged before.
//!
//! Owns: remembering a verdict by the digest of the whole token, so that a pod's second request costs one SHA-256 instead
//! of base64, JSON and, where keys are known, a signature. Must not know: how a verdict is reached.
//!
//! Bounded by construction: a fixed table in which a newcomer takes the place of whoever stood there. Losing a place costs
//! one more look at the token and nothing else, so no policy is needed, and a flood of tokens cannot grow it.

use parking_lot::Mutex;

use crate::identity::authenticator::UnverifiedIdentity;
use crate::workload::TokenDigest;

/// Places: many times the 110 pods that a node has by default, in 300 KiB.
const PLACES: usize = 4_096;

/// The verdicts remembered.
#[derive(Debug)]
pub(super) struct Memory {
    places: Mutex<Box<[Option<UnverifiedIdentity>]>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { places: Mutex::new(vec![None; PLACES].into_boxed_slice()) }
    }
}

impl Memory {
    /// What was found of this very token.
    pub(super) fn recall(&self, digest: TokenDigest) -> Option<UnverifiedIdentity> {
        let known = (*self.places.lock().get(place(digest))?)?;
        // The whole digest is compared: sharing a place is not being the same.
        (known.digest() == digest).then_some(known)
    }

    /// Remembers a token that was judged good.
    pub(super) fn remember(&self, known: UnverifiedIdentity) {
        if let Some(place) = self.places.lock().get_mut(place(known.digest())) {
            *place = Some(known);
        }
    }
}

/// Digests are evenly spread, so two bytes of one are as good as any hash.
fn place(digest: TokenDigest) -> usize {
    let [first, second, ..] = digest.0;
    usize::from(u16::from_be_bytes([first, second])) % PLACES
}

#[cfg(test)]
mod tests {
    use super::Memory;
    use crate::identity::authenticator::tests::unverified;

    #[test]
    fn only_the_very_token_is_known_not_one_that_shares_its_place() {
        let memory = Memory::default();
        let (mut one, mut other) = ([7; 32], [7; 32]);
        (one[31], other[31]) = (1, 2);
        let (one, other) = (unverified(one), unverified(other));
        memory.remember(one);
        assert!(memory.recall(one.digest()).is_some());
        assert!(memory.recall(other.digest()).is_none());
        memory.remember(other);
        assert!(memory.recall(one.digest()).is_none(), "its place was taken");
    }
}
