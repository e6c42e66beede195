//! One set of credentials in hand, and how much life it has.
//!
//! Owns: the life of a set by two clocks, and the marks that serving leaves on it. Must not know: who may have it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::{BootTime, Now};
use crate::credentials::model::{Grant, Issued, Unservable};
use crate::credentials::policy::not_found_streak::NotFoundStreak;
use crate::identity::PresentedToken;
use crate::planted::{self, Bug};
use crate::workload::CredentialKey;

/// With less than this left a set counts as expired: a request signed with it might arrive too late (design,
/// invariant 2; Amazon's agent uses the same 15 s).
pub const MIN_REMAINING_LIFE: Duration = Duration::from_secs(15);

/// When a set ends, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// AWS's word, on the corrected wall clock.
    pub wall: SystemTime,
    /// The same moment on the boot clock, as reckoned when the set arrived.
    pub boot: BootTime,
}

impl Expiry {
    /// The life left: the shorter of what the two clocks say.
    pub fn left(self, now: Now) -> Duration {
        let by_wall = self.wall.duration_since(now.wall).unwrap_or_default();
        if planted::is_on(Bug::OneClock) { by_wall } else { by_wall.min(self.boot.since(now.boot)) }
    }
}

/// What the decision needs to know of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The life left now.
    pub left: Duration,
    /// The whole life it had when it arrived.
    pub lifetime: Duration,
    /// Its renewal is due.
    pub is_due: bool,
    /// A renewal failed or was too slow a moment ago: neither nudge nor wait again yet.
    pub is_quiet: bool,
}

/// A set of credentials in hand.
pub struct Held {
    key: CredentialKey,
    body: Bytes,
    grant: Grant,
    /// The token of longest life that its holder has presented; it earns the next set.
    presented: Mutex<PresentedToken>,
    /// Its `exp` in seconds since the epoch, so that a hit need not take the lock to see that nothing is new.
    presented_expires: AtomicU64,
    expiry: Expiry,
    lifetime: Duration,
    renew_at: BootTime,
    was_asked_for: AtomicBool,
    was_hit: AtomicBool,
    /// Boot time in nanoseconds until which nobody waits for a renewal again.
    quiet_until: AtomicU64,
    failed_renewals: AtomicU64,
    /// Boot time in nanoseconds of the one look that is planned; plans made before are void.
    planned_at: AtomicU64,
    /// Boot time in nanoseconds at which somebody asked last.
    asked_at: AtomicU64,
    /// How long AWS has been saying that there is no association.
    not_found: Mutex<Option<NotFoundStreak>>,
    /// The pod is entitled to it no more: not even those who wait get it.
    is_dropped: AtomicBool,
    /// AWS does not take a token that expires then (seconds of the Unix epoch); 0: none was refused.
    refused_token: AtomicU64,
}

impl Held {
    /// Takes a fresh set in hand.
    ///
    /// `renew_after` is the longest time to keep it before renewal; `jitter` in `0.0..1.0` makes the renewal earlier by up to a
    /// tenth of the lifetime, never later.
    ///
    /// # Errors
    /// [`Unservable`], when no SDK could read it.
    pub fn new(
        key: CredentialKey,
        issued: &Issued,
        presented: PresentedToken,
        now: Now,
        renew_after: Duration,
        jitter: f64,
    ) -> Result<Self, Unservable> {
        let lifetime =
            issued.expiration.duration_since(issued.answered_at.unwrap_or(now.wall)).unwrap_or_default();
        let due = renew_after.min(lifetime / 2);
        let earlier = (lifetime / 10).mul_f64(jitter.clamp(0.0, 1.0));
        Ok(Self {
            key,
            body: issued.to_body()?,
            grant: issued.grant.clone(),
            presented_expires: AtomicU64::new(unix_seconds(presented.expires)),
            presented: Mutex::new(presented),
            expiry: Expiry { wall: issued.expiration, boot: now.boot.plus(lifetime) },
            lifetime,
            renew_at: now.boot.plus(due.saturating_sub(earlier)),
            was_asked_for: AtomicBool::new(false),
            was_hit: AtomicBool::new(false),
            quiet_until: AtomicU64::new(0),
            failed_renewals: AtomicU64::new(0),
            planned_at: AtomicU64::new(0),
            asked_at: AtomicU64::new(now.boot.as_nanos()),
            not_found: Mutex::new(None),
            is_dropped: AtomicBool::new(false),
            refused_token: AtomicU64::new(0),
        })
    }

    /// What the decision needs to know.
    pub fn freshness(&self, now: Now) -> Freshness {
        Freshness {
            left: self.expiry.left(now),
            lifetime: self.lifetime,
            is_due: self.renew_at <= now.boot,
            is_quiet: now.boot.as_nanos() < self.quiet_until.load(Ordering::Relaxed),
        }
    }

    /// The body to send. Marks the set as wanted, so that it will be renewed.
    pub fn serve(&self) -> Bytes {
        self.was_asked_for.store(true, Ordering::Relaxed);
        self.body.clone()
    }

    /// Whether somebody asked since it arrived: a set that nobody wants is not renewed (design, invariant 8).
    pub fn was_asked_for(&self) -> bool {
        self.was_asked_for.load(Ordering::Relaxed)
    }

    /// True for the first cache hit only, for the access log.
    pub fn is_first_hit(&self) -> bool {
        !self.was_hit.swap(true, Ordering::Relaxed)
    }

    /// A successor keeps its predecessor's history: a renewed identity has had its first hit already.
    pub fn inherit(&self, predecessor: &Self) {
        self.was_hit.store(predecessor.was_hit.load(Ordering::Relaxed), Ordering::Relaxed);
        // A newer token may have been presented while the flight was under way with the older one.
        self.remember(&predecessor.presented());
    }

    /// Nobody waits for a renewal of this set, nor starts one, before `until`.
    pub fn be_quiet_until(&self, until: BootTime) {
        self.quiet_until.fetch_max(until.as_nanos(), Ordering::Relaxed);
    }

    /// Counts a failed renewal; returns how many there were in a row.
    pub fn count_failed_renewal(&self) -> u64 {
        self.failed_renewals.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Somebody asks for it.
    pub fn asked(&self, now: BootTime) {
        self.asked_at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// When somebody asked last, in nanoseconds of boot time.
    pub fn last_asked(&self) -> u64 {
        self.asked_at.load(Ordering::Relaxed)
    }

    /// AWS said once more that there is no association.
    pub fn not_found_again(&self, now: BootTime) -> NotFoundStreak {
        let mut streak = self.not_found.lock();
        let so_far = NotFoundStreak::and_again(*streak, now);
        *streak = Some(so_far);
        so_far
    }

    /// There is an association after all.
    pub fn found(&self) {
        *self.not_found.lock() = None;
    }

    /// Since when AWS has been saying that there is no association.
    pub fn not_found_since(&self) -> Option<BootTime> {
        self.not_found.lock().map(|streak| streak.since)
    }

    /// Its pod is entitled to it no more.
    pub fn drop_for_good(&self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }

    /// Whether its pod is entitled to it no more.
    pub fn is_dropped(&self) -> bool {
        self.is_dropped.load(Ordering::Relaxed)
    }

    /// AWS does not take this token: until a newer one comes there is no hurry to renew.
    pub fn wait_for_token_newer_than(&self, refused: &PresentedToken) {
        self.refused_token.fetch_max(unix_seconds(refused.expires), Ordering::Relaxed);
    }

    /// Whether a newer token is waited for.
    pub fn waits_for_token(&self) -> bool {
        self.refused_token.load(Ordering::Relaxed) != 0
    }

    /// A token was presented. If it is newer than the one that AWS did not take, the waiting is over.
    pub fn hear_of_token(&self, presented: &PresentedToken) {
        let refused = self.refused_token.load(Ordering::Relaxed);
        if refused != 0 && unix_seconds(presented.expires) > refused {
            self.refused_token.store(0, Ordering::Relaxed);
            self.quiet_until.store(0, Ordering::Relaxed);
        }
    }

    /// Plans the next look at it; only the last plan counts.
    pub fn plan(&self, at: BootTime) {
        self.planned_at.store(at.as_nanos(), Ordering::Relaxed);
    }

    /// Whether a look at `at` is the one that is planned.
    pub fn is_planned(&self, at: BootTime) -> bool {
        self.planned_at.load(Ordering::Relaxed) == at.as_nanos()
    }

    /// Whose it is.
    pub fn key(&self) -> &CredentialKey {
        &self.key
    }

    /// The token that renews it: the one of longest life that was presented for it.
    pub fn presented(&self) -> PresentedToken {
        self.presented.lock().clone()
    }

    /// Its holder has presented this token. One that lives longer takes the place of the one before, so that renewal does
    /// not end with a token that the kubelet has long replaced.
    pub fn remember(&self, presented: &PresentedToken) {
        let expires = unix_seconds(presented.expires);
        if expires <= self.presented_expires.load(Ordering::Relaxed) {
            return;
        }
        let mut known = self.presented.lock();
        if presented.expires > known.expires {
            *known = presented.clone();
            self.presented_expires.store(expires, Ordering::Relaxed);
        }
    }

    /// What it was issued for.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// When it ends.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// The whole life it had when it arrived.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// When its renewal is due.
    pub fn renew_at(&self) -> BootTime {
        self.renew_at
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("grant", &self.grant)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Expiry, Held};
    use crate::clock::{BootTime, Now};
    use crate::credentials::model::tests::issued;
    use crate::identity::{BearerToken, PresentedToken};
    use crate::workload::CredentialKey;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Now {
        let since = Duration::from_secs(seconds);
        Now { wall: UNIX_EPOCH + since, boot: BootTime::from_boot(since) }
    }

    fn held(lifetime: Duration, renew_after: Duration, jitter: f64) -> Held {
        let token = BearerToken::from_header(b"a.b.c").unwrap();
        let presented = PresentedToken { token, expires: UNIX_EPOCH + 24 * HOUR, issued: None };
        let key = CredentialKey::Unverified(presented.token.digest());
        Held::new(key, &issued(UNIX_EPOCH + lifetime), presented, at(0), renew_after, jitter).unwrap()
    }

    #[test]
    fn the_clock_that_says_less_is_believed() {
        let expiry = Expiry { wall: UNIX_EPOCH + HOUR, boot: BootTime::from_boot(HOUR) };
        let wall_set_back = Now { wall: UNIX_EPOCH, boot: BootTime::from_boot(HOUR) };
        let boot_standing_still = Now { wall: UNIX_EPOCH + HOUR, boot: BootTime::from_boot(Duration::ZERO) };
        assert_eq!(expiry.left(wall_set_back), Duration::ZERO);
        assert_eq!(expiry.left(boot_standing_still), Duration::ZERO);
        assert_eq!(expiry.left(at(1800)), HOUR / 2);
    }

    #[test]
    fn renewal_is_due_at_half_life_or_sooner_never_later() {
        let due = |lifetime, renew_after, jitter| held(lifetime, renew_after, jitter).renew_at();
        let boot = |seconds| BootTime::from_boot(Duration::from_secs(seconds));
        assert_eq!(due(6 * HOUR, 3 * HOUR, 0.0), boot(3 * 3600));
        assert_eq!(due(6 * HOUR, HOUR, 0.0), boot(3600), "the flag makes it earlier");
        assert_eq!(due(HOUR, 3 * HOUR, 0.0), boot(1800), "a short life makes it earlier");
        assert_eq!(due(HOUR, 3 * HOUR, 1.0), boot(1800 - 360), "jitter takes up to a tenth of the life off");
    }

    #[test]
    fn the_token_of_longest_life_renews_it_and_a_successor_inherits_it() {
        let presented = |text: &str, hours: u32| PresentedToken {
            token: BearerToken::from_header(text.as_bytes()).unwrap(),
            expires: UNIX_EPOCH + hours * HOUR,
            issued: None,
        };
        let set = held(HOUR, HOUR, 0.0);
        set.remember(&presented("a.older.c", 23));
        assert_eq!(set.presented().token.reveal(), "a.b.c");
        set.remember(&presented("a.newer.c", 25));
        assert_eq!(set.presented().token.reveal(), "a.newer.c");
        let successor = held(HOUR, HOUR, 0.0);
        successor.inherit(&set);
        assert_eq!(successor.presented().token.reveal(), "a.newer.c");
    }

    #[test]
    fn a_set_is_wanted_once_it_was_served_and_has_one_first_hit() {
        let held = held(HOUR, HOUR, 0.0);
        assert!(!held.was_asked_for());
        let _body = held.serve();
        assert!(held.was_asked_for());
        assert!(held.is_first_hit());
        assert!(!held.is_first_hit());
    }
}
