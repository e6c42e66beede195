//! What AWS refused lately.
//!
//! Owns: the memory of refusals, per identity: 1 s, doubling to 30 s, so that SDKs' own retries (Java asks
//! six times in 20 ms) do not all reach AWS, and a fresh association is still picked up within a second
//! (docs/design/client-contract.md#time-limits). Must not know: outages. Only a real answer is remembered;
//! "could not reach AWS" says nothing about an identity.
//!
//! A refusal is of a token as much as of its holder: a verified pod that comes with a newer token is asked
//! for anew. Newer, not other: with two old ones taking turns nothing would ever be remembered.
//!
//! The map is bounded and apart from the store of credentials: a flood of refused tokens evicts other
//! refusals only.

use std::time::{Duration, SystemTime};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::clock::BootTime;
use crate::credentials::source::Refusal;
use crate::workload::{Caller, CredentialKey, Principal, Route};

/// The first refusal is remembered this long; each further one twice as long as the one before.
const SHORTEST: Duration = Duration::from_secs(1);
/// No refusal is remembered longer.
const LONGEST: Duration = Duration::from_secs(30);
/// How many identities are remembered. One entry takes about 400 bytes, and what a stranger claims to be up
/// to a kilobyte more.
const CAPACITY: u64 = 4_096;
/// After this long without a refusal the count starts anew. An outer bound by moka's own clock; what counts
/// is `until`.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Refusals by identity.
#[derive(Clone)]
pub struct RecentRefusals {
    remembered: Cache<CredentialKey, Remembered>,
}

#[derive(Clone)]
struct Remembered {
    refusal: Refusal,
    /// Who was refused, and by which way, for people.
    caller: Caller,
    route: Route,
    at: BootTime,
    /// `exp` of the newest token that was refused.
    token_expires: SystemTime,
    in_a_row: u32,
    until: BootTime,
}

/// An identity that was refused in the last minutes.
#[derive(Clone, Debug)]
pub struct RefusedIdentity {
    /// Who.
    pub principal: Principal,
    /// Why.
    pub refusal: Refusal,
    /// When it was refused last.
    pub at: BootTime,
}

impl RecentRefusals {
    /// Nothing is remembered yet.
    pub fn new() -> Self {
        let remembered = Cache::builder()
            .max_capacity(CAPACITY)
            .time_to_live(FORGOTTEN_AFTER)
            // LRU, not moka's default TinyLFU: that one would not admit a new identity to a full map
            // (docs/design/facts.md#moka).
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { remembered }
    }

    /// Remembers that this identity was refused, for the token that was judged and all older ones.
    pub fn remember(&self, principal: &Principal, refusal: Refusal, now: BootTime) {
        let Principal { key, caller, route } = principal;
        let token_expires = refusal.judged.expires;
        let earlier = self.remembered.get(key);
        let (in_a_row, newest) = earlier.map_or((0, token_expires), |earlier| {
            let is_newer = token_expires > earlier.token_expires;
            (if is_newer { 0 } else { earlier.in_a_row }, token_expires.max(earlier.token_expires))
        });
        let in_a_row = in_a_row.saturating_add(1);
        let until = now.plus(remember_for(in_a_row));
        let (caller, route) = (caller.clone(), route.clone());
        let refused = Remembered { refusal, caller, route, at: now, token_expires: newest, in_a_row, until };
        self.remembered.insert(key.clone(), refused);
    }

    /// The refusal that still stands for a token of this `exp`, if there is one.
    pub fn recall(&self, key: &CredentialKey, token_expires: SystemTime, now: BootTime) -> Option<Refusal> {
        self.remembered
            .get(key)
            .filter(|remembered| now < remembered.until && token_expires <= remembered.token_expires)
            .map(|remembered| remembered.refusal)
    }

    /// Whether a token of this `exp`, or a newer one, was refused in the last minutes, even if it may be
    /// asked for again by now.
    pub fn was_refused_lately(&self, key: &CredentialKey, token_expires: SystemTime) -> bool {
        self.remembered.get(key).is_some_and(|remembered| token_expires <= remembered.token_expires)
    }

    /// All identities that were refused in the last minutes, for people. Does not count as use.
    pub fn all(&self) -> Vec<RefusedIdentity> {
        let refused = self.remembered.iter().map(|(key, remembered)| {
            let Remembered { refusal, caller, route, at, .. } = remembered;
            RefusedIdentity { principal: Principal { key: (*key).clone(), caller, route }, refusal, at }
        });
        refused.collect()
    }

    /// A success wipes the slate clean.
    pub fn forget(&self, key: &CredentialKey) {
        self.remembered.invalidate(key);
    }

    /// Runs moka's housekeeping; without it expired entries stay in memory.
    pub fn tidy(&self) {
        self.remembered.run_pending_tasks();
    }
}

impl Default for RecentRefusals {
    fn default() -> Self {
        Self::new()
    }
}

fn remember_for(in_a_row: u32) -> Duration {
    let doublings = in_a_row.saturating_sub(1).min(5);
    (SHORTEST * 2_u32.pow(doublings)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::{RecentRefusals, remember_for};
    use crate::clock::BootTime;
    use crate::credentials::source::tests::refusal_of_token;
    use crate::credentials::source::{Refusal, RefusalClass};
    use crate::workload::{BearerToken, Caller, CredentialKey, Principal, Route};

    fn key() -> CredentialKey {
        CredentialKey::Unverified(BearerToken::from_header(b"a.b.c").unwrap().digest())
    }

    fn who() -> Principal {
        Principal { key: key(), caller: Caller::Unknown, route: Route::EksAuth }
    }

    fn exp(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn refused(expires: u64) -> Refusal {
        refusal_of_token(RefusalClass::RoleNotAssumable, expires)
    }

    #[test]
    fn refusals_are_remembered_for_one_second_doubling_to_thirty() {
        let seconds: Vec<u64> = (1..=8).map(|n| remember_for(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn a_refusal_stands_until_its_time_is_over_and_a_success_ends_it() {
        let refusals = RecentRefusals::new();
        let at = |ms| BootTime::from_boot(Duration::from_millis(ms));
        refusals.remember(&who(), refused(9), at(0));
        assert!(refusals.recall(&key(), exp(9), at(999)).is_some());
        assert!(refusals.recall(&key(), exp(9), at(1000)).is_none());
        assert!(refusals.was_refused_lately(&key(), exp(9)));
        assert!(!refusals.was_refused_lately(&key(), exp(10)), "a newer token has a clean slate");
        refusals.remember(&who(), refused(9), at(1000));
        assert!(
            refusals.recall(&key(), exp(9), at(2999)).is_some(),
            "the second in a row is remembered twice as long"
        );
        refusals.forget(&key());
        assert!(refusals.recall(&key(), exp(9), at(1000)).is_none());
        assert!(!refusals.was_refused_lately(&key(), exp(9)));
    }

    #[test]
    fn a_newer_token_is_asked_for_anew_and_an_older_one_is_not() {
        let refusals = RecentRefusals::new();
        let at = |ms| BootTime::from_boot(Duration::from_millis(ms));
        refusals.remember(&who(), refused(9), at(0));
        assert!(refusals.recall(&key(), exp(10), at(1)).is_none());
        refusals.remember(&who(), refused(10), at(1));
        assert!(
            refusals.recall(&key(), exp(9), at(2)).is_some(),
            "two tokens in turn do not undo the memory"
        );
        assert!(refusals.recall(&key(), exp(10), at(1000)).is_some());
        assert!(refusals.recall(&key(), exp(10), at(1001)).is_none(), "the first of this token: one second");
    }
}
