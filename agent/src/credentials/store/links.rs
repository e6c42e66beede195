//! The other name of a verified pod: the digest of a token that earned it a set.
//!
//! Owns: which token finds by its digest alone what its pod has, and until when. Must not know: who is
//! verified. Keys go away: withdrawn, or with their source. Then the pod's own token must still find what it
//! earned (invariant 3), and a token that a leaked key made must find nothing (invariant 1). So a link is
//! made only by a call of that very token which its source granted, never by a verdict of `identity`; it ends
//! with the token, with the last set that the token earned under either name, and with the entitlement. A
//! token that finds something by a link is judged by its source again, as every token that no key can verify,
//! and finds nothing any more when its source refuses it; the link is what is left while the source cannot be
//! asked.
//!
//! A token that only a verified pod may use (for STS, or where verification is required) is shown to no
//! source. It finds no set but those that its source has granted to it, or that its pod had by then: nothing
//! that it was not given before, also if it was forged with a key that leaked.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;

use crate::clock::{BootTime, Now};
use crate::credentials::policy::freshness::Expiry;
use crate::workload::{PresentedToken, TokenDigest, VerifiedKey};

/// Links per identity that may be kept: a token that renews has one, and so has its predecessor, until the
/// set that it earned has expired. One link takes about 200 bytes.
const PER_IDENTITY: usize = 4;

/// How long a token that found something by its link is not judged again, while its source cannot be asked.
const JUDGED_AGAIN_AFTER: Duration = Duration::from_secs(30);

pub(super) struct Links {
    /// By the name of a token ([`Route::name_of`](crate::workload::Route::name_of)).
    /// In boxes, because a table has up to twice the room that it needs.
    links: RwLock<HashMap<TokenDigest, Box<Link>>>,
    most: usize,
}

struct Link {
    /// The token itself.
    token: TokenDigest,
    /// The pod, and the route.
    key: VerifiedKey,
    token_expires: SystemTime,
    set_expires: Expiry,
    judge_at: BootTime,
    /// Its source has refused the token since then.
    is_refused: bool,
}

impl Link {
    /// Whether nothing may be found by it: by the stricter reading of the time.
    fn is_over(&self, now: Now) -> bool {
        self.token_expires <= now.wall || self.set_expires.is_over(now)
    }

    /// Whether nothing may ever be found by it again, whatever AWS's next answer says. It is kept as long as
    /// the record that it leads to.
    fn is_surely_over(&self, now: Now) -> bool {
        now.is_surely_past(self.token_expires) || self.set_expires.is_surely_over(now)
    }
}

impl Links {
    pub(super) fn new(most_identities: usize) -> Self {
        Self { links: RwLock::default(), most: most_identities.saturating_mul(PER_IDENTITY) }
    }

    /// A source granted a set to the token of this name, which is kept under `key`.
    pub(super) fn add(
        &self,
        name: TokenDigest,
        token: &PresentedToken,
        key: &VerifiedKey,
        set_expires: Expiry,
        now: Now,
    ) {
        let mut links = self.links.write();
        if links.len() >= self.most {
            links.retain(|_, link| !link.is_surely_over(now));
        }
        if links.len() < self.most || links.contains_key(&name) {
            let (key, token_expires, token) = (key.clone(), token.expires, token.token.digest());
            let link = Link { token, key, token_expires, set_expires, judge_at: now.boot, is_refused: false };
            links.insert(name, Box::new(link));
        }
    }

    /// A source granted a set to this very token, which is kept under its own name: the pod that it is known
    /// to be of is known for as long as that set lives, however long no key proves the token.
    pub(super) fn prolong(&self, token: TokenDigest, set_expires: Expiry, now: Now) {
        let mut links = self.links.write();
        let living = links.get_mut(&token).filter(|link| !link.is_surely_over(now));
        if let Some(link) = living {
            let is_later = set_expires.left_at_most(now) > link.set_expires.left_at_most(now);
            link.set_expires = if is_later { set_expires } else { link.set_expires };
        }
    }

    /// The name of the pod that this token earned a set.
    pub(super) fn of(&self, token: TokenDigest, now: Now) -> Option<VerifiedKey> {
        let links = self.links.read();
        links.get(&token).filter(|link| !link.is_over(now) && !link.is_refused).map(|link| link.key.clone())
    }

    /// The same, also of a token that its source has refused since then, and when the last set ends that its
    /// source granted to it.
    pub(super) fn earned(&self, token: TokenDigest, now: Now) -> Option<(VerifiedKey, Expiry)> {
        let links = self.links.read();
        // Of a token that nobody verifies nobody knows the route, and so its name at STS. It may have earned
        // what more than one role gave: the newest counts. Seldom: most nodes have their keys.
        let of_token = links.iter().filter(|(_, link)| link.token == token && !link.is_over(now));
        let newest = of_token.max_by_key(|(name, link)| (link.set_expires.left_at_most(now), **name));
        newest.map(|(_, link)| (link.key.clone(), link.set_expires))
    }

    /// Whether it is time to have this token judged again. It is not for a while after that.
    pub(super) fn take_judgement(&self, token: TokenDigest, now: BootTime) -> bool {
        let mut links = self.links.write();
        let Some(link) = links.get_mut(&token).filter(|link| link.judge_at <= now) else { return false };
        link.judge_at = now.plus(JUDGED_AGAIN_AFTER);
        true
    }

    /// Its source refuses a token, which finds no more by its digest than what it has earned itself.
    pub(super) fn refuse(&self, token: TokenDigest) {
        if let Some(link) = self.links.write().get_mut(&token) {
            link.is_refused = true;
        }
    }

    /// Forgets a token.
    pub(super) fn remove_token(&self, token: TokenDigest) {
        self.links.write().remove(&token);
    }

    /// Forgets all tokens of a pod, whatever they lead to.
    pub(super) fn remove_pod(&self, uid: &str) {
        self.links.write().retain(|_, link| *link.key.pod().uid != *uid);
    }

    /// Forgets all tokens of a pod by one route.
    pub(super) fn remove(&self, key: &VerifiedKey) {
        self.links.write().retain(|_, link| link.key != *key);
    }

    pub(super) fn tidy(&self, now: Now) {
        let mut links = self.links.write();
        links.retain(|_, link| !link.is_surely_over(now));
        if links.capacity() > 64 + 4 * links.len() {
            links.shrink_to_fit();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.links.read().len()
    }
}
