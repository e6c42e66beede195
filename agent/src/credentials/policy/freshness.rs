//! How much life credentials have left, and when they are renewed. Pure.
//!
//! Owns: the life of a set by two clocks, and the moment its renewal is due by either of them. Must not
//! know: which identity the set belongs to.

use std::time::{Duration, SystemTime};

use crate::clock::{BootTime, Now, Trust};

/// With less than this left a set counts as expired: a request signed with it might arrive too late
/// (invariant 2; Amazon's agent uses the same 15 s).
pub const MIN_REMAINING_LIFE: Duration = Duration::from_secs(15);

/// When a set ends, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// AWS's word.
    pub wall: SystemTime,
    /// The same moment on the boot clock, as reckoned when the set arrived.
    pub boot: BootTime,
    /// The set came with AWS's `Date`: its life is known whatever the node's wall clock says.
    pub is_dated: bool,
}

/// What the decision on a request needs to know of an identity's set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The life left now.
    pub left: Duration,
    /// The whole life that the set had when it arrived.
    pub lifetime: Duration,
    /// The identity's renewal is due.
    pub is_due: bool,
    /// A renewal failed or was too slow a moment ago: do not start or await another one yet.
    pub is_quiet: bool,
}

/// How pressing a renewal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Due, with plenty of life left.
    Routine,
    /// Less than a sixth of the lifetime is left.
    Pressing,
}

impl Expiry {
    /// The life left: the shorter of what the two clocks say, while AWS's time is not confirmed by its
    /// stricter reading. Of a set that came with its own `Date` the node's wall clock is no judge.
    pub fn left(self, now: Now) -> Duration {
        let by_boot = self.boot.since(now.boot);
        match now.trust {
            Trust::Unknown if self.is_dated => by_boot,
            Trust::Unknown | Trust::Unconfirmed | Trust::Confirmed => self.left_by_wall(now).min(by_boot),
        }
    }

    /// The life that is left at most: what AWS's next answer may show that there was all along. A set is not
    /// served by it, but it is kept by it.
    pub fn left_at_most(self, now: Now) -> Duration {
        match now.trust {
            Trust::Unconfirmed => self.boot.since(now.boot),
            Trust::Unknown | Trust::Confirmed => self.left(now),
        }
    }

    /// Whether so little is left that the set counts as expired.
    pub fn is_over(self, now: Now) -> bool {
        self.left(now) < MIN_REMAINING_LIFE
    }

    /// Whether it counts as expired whatever AWS's next answer says.
    pub fn is_surely_over(self, now: Now) -> bool {
        self.left_at_most(now) < MIN_REMAINING_LIFE
    }

    fn left_by_wall(self, now: Now) -> Duration {
        self.wall.duration_since(now.wall).unwrap_or_default()
    }
}

impl Freshness {
    /// Below a sixth of its lifetime a set's renewal rises in the queue.
    pub fn urgency(&self) -> Urgency {
        if self.left < self.lifetime / 6 { Urgency::Pressing } else { Urgency::Routine }
    }
}

/// When a renewal is due: when a set has so much life left. It is no moment of the boot clock, which stands
/// still while a hypervisor pauses the node: the renewal would be late by the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    expiry: Expiry,
    left: Duration,
}

impl Due {
    /// Of a set with this life that has just come: at half of it, or after `renew_after` if that is sooner.
    /// `jitter` in `0.0..1.0` makes that earlier by up to a tenth of the life, never later.
    pub fn of_new(expiry: Expiry, life: Duration, renew_after: Duration, jitter: f64) -> Self {
        let earlier = (life / 10).mul_f64(jitter.clamp(0.0, 1.0));
        let after = renew_after.min(life / 2).saturating_sub(earlier);
        Self { expiry, left: life.saturating_sub(after) }
    }

    /// Of a set that ends then: after this time.
    pub fn after(time: Duration, expiry: Expiry, now: Now) -> Self {
        Self { expiry, left: expiry.left_at_most(now).saturating_sub(time) }
    }

    /// How long until then. While the time is in doubt boot time decides: a wrong step of the wall clock must
    /// not have everything renewed at once.
    pub fn due_in(self, now: Now) -> Duration {
        self.expiry.left_at_most(now).saturating_sub(self.left)
    }

    /// Whether it is due.
    pub fn is_past(self, now: Now) -> bool {
        self.due_in(now).is_zero()
    }

    /// When that is on the boot clock, as far as is known now.
    pub fn at(self, now: Now) -> BootTime {
        now.boot.plus(self.due_in(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Due, Expiry};
    use crate::clock::{BootTime, Now, Trust};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_clock_that_says_less_is_believed() {
        let at = |since| Now::confirmed(UNIX_EPOCH + since, BootTime::from_boot(since));
        let expiry = Expiry { wall: UNIX_EPOCH + HOUR, boot: BootTime::from_boot(HOUR), is_dated: true };
        let wall_set_back = Now::confirmed(UNIX_EPOCH, BootTime::from_boot(HOUR));
        let boot_standing_still = Now::confirmed(UNIX_EPOCH + HOUR, BootTime::from_boot(Duration::ZERO));
        assert_eq!(expiry.left(wall_set_back), Duration::ZERO);
        assert_eq!(expiry.left(boot_standing_still), Duration::ZERO);
        assert_eq!(expiry.left(at(HOUR / 2)), HOUR / 2);
        assert!(expiry.is_over(at(HOUR - Duration::from_millis(14_999))));
        assert!(!expiry.is_over(at(HOUR - Duration::from_secs(15))));
    }

    #[test]
    fn how_long_a_set_is_served_and_kept_by_what_is_known_of_the_time() {
        let late = Now::confirmed(UNIX_EPOCH + 2 * HOUR, BootTime::from_boot(HOUR / 2));
        let half = HOUR / 2;
        // By the wall clock it is over, by the boot clock half of it is left.
        let cases = [
            ("AWS says what time it is", Trust::Confirmed, true, Duration::ZERO, Duration::ZERO),
            ("that is doubtful", Trust::Unconfirmed, true, Duration::ZERO, half),
            ("only the wall clock does, and the set knows better", Trust::Unknown, true, half, half),
            ("only the wall clock does", Trust::Unknown, false, Duration::ZERO, Duration::ZERO),
        ];
        for (what, trust, is_dated, served, kept) in cases {
            let expiry = Expiry { wall: UNIX_EPOCH + HOUR, boot: BootTime::from_boot(HOUR), is_dated };
            let now = Now { trust, ..late };
            assert_eq!((expiry.left(now), expiry.left_at_most(now)), (served, kept), "{what}");
        }
    }

    #[test]
    fn renewal_is_due_at_half_life_or_sooner_never_later() {
        let boot = |seconds| BootTime::from_boot(Duration::from_secs(seconds));
        let due = |life, renew_after, jitter| {
            let now = Now::confirmed(UNIX_EPOCH, boot(0));
            Due::of_new(expiring_in(life), life, renew_after, jitter).at(now)
        };
        assert_eq!(due(6 * HOUR, 3 * HOUR, 0.0), boot(3 * 3600));
        assert_eq!(due(6 * HOUR, HOUR, 0.0), boot(3600), "the flag makes it earlier");
        assert_eq!(due(HOUR, 3 * HOUR, 0.0), boot(1800), "a short life makes it earlier");
        assert_eq!(due(HOUR, 3 * HOUR, 1.0), boot(1800 - 360), "jitter takes up to a tenth of the life off");
    }

    #[test]
    fn a_renewal_is_not_late_by_a_pause_of_the_node_and_not_early_by_a_doubtful_clock() {
        let due = Due::of_new(expiring_in(2 * HOUR), 2 * HOUR, 3 * HOUR, 0.0);
        let boot = BootTime::from_boot(HOUR / 2);
        let awake = Now::confirmed(UNIX_EPOCH + HOUR / 2, boot);
        assert_eq!((due.due_in(awake), due.is_past(awake)), (HOUR / 2, false));
        // Paused for another half an hour, which AWS has told the node, or its wall clock alone says.
        let paused = Now { wall: UNIX_EPOCH + HOUR, ..awake };
        assert!(due.is_past(paused));
        assert!(!due.is_past(Now { trust: Trust::Unconfirmed, ..paused }));
        let soon = Due::after(Duration::from_secs(10), expiring_in(2 * HOUR), awake);
        assert_eq!(soon.at(awake), boot.plus(Duration::from_secs(10)));
        assert!(soon.is_past(paused));
    }

    /// A set of this life that came at the beginning of all clocks.
    fn expiring_in(life: Duration) -> Expiry {
        Expiry { wall: UNIX_EPOCH + life, boot: BootTime::from_boot(life), is_dated: true }
    }
}
