//! Which kind of story: days on a busy node, or minutes in which one thing happens that days hardly ever
//! bring.
//!
//! Owns: the short stories' timetables. Must not know: the habits of pods, or what counts as a breach.

use std::time::Duration;

use crate::weather::Sky;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The kind of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pods come and go for hours, under any weather.
    Days,
    /// Twenty pods live on the node; when their renewals are due, sixty more start at once, and AWS
    /// throttles.
    Crowd,
    /// Pods that ask once, sleep past a renewal that nobody asked for, and ask again late in the life of its
    /// set, while their role is in trouble.
    Sleepers,
    /// The node's clock falls behind while AWS can tell, and again while it cannot, until all sets have
    /// expired.
    WrongClock,
}

/// When the crowd comes: the sets of 15 minutes of [`RESIDENTS`] are due at 6 to 7.5 minutes
/// (docs/design/decisions.md#renewals).
const CROWD_AT: Duration = Duration::from_secs(385);
/// The slots that are there before the crowd.
const RESIDENTS: u32 = 20;
/// Pods of the short stories start within this.
pub const START: Duration = Duration::from_secs(5);

impl Kind {
    /// How long it lasts.
    pub const fn length(self) -> Option<Duration> {
        match self {
            Self::Days => None,
            Self::Crowd => Some(Duration::from_secs(10 * 60)),
            Self::Sleepers => Some(Duration::from_secs(60 * 60)),
            Self::WrongClock => Some(Duration::from_secs(90 * 60)),
        }
    }

    /// How many pods it has.
    pub const fn pods(self) -> u32 {
        match self {
            Self::Days => 0,
            Self::Crowd => RESIDENTS + 60,
            Self::Sleepers | Self::WrongClock => 6,
        }
    }

    /// When the pod of a slot comes, and how long its sets live.
    pub const fn arrival(self, slot: u32) -> (Duration, Duration) {
        match self {
            Self::Crowd if slot < RESIDENTS => (Duration::ZERO, Duration::from_secs(15 * 60)),
            Self::Crowd => (CROWD_AT, Duration::from_secs(3600)),
            Self::Days | Self::Sleepers | Self::WrongClock => (Duration::ZERO, Duration::from_secs(30 * 60)),
        }
    }

    /// Its weather: from, to, how. `strength` is drawn from the seed.
    pub fn sky(self, strength: u32) -> Vec<(Duration, Duration, Sky)> {
        match self {
            Self::Days | Self::Sleepers => Vec::new(),
            // Fewer than the eight calls that the agent begins with, so that it must learn.
            Self::Crowd => vec![(CROWD_AT - SECOND, 9 * MINUTE, Sky::Throttles(2 + strength % 4))],
            Self::WrongClock => vec![(30 * MINUTE, 70 * MINUTE, Sky::Hangs)],
        }
    }

    /// When the error of the wall clock becomes how many milliseconds.
    pub fn jumps(self) -> Vec<(Duration, i64)> {
        match self {
            Self::Days | Self::Crowd | Self::Sleepers => Vec::new(),
            Self::WrongClock => {
                vec![(MINUTE, -25 * 60_000), (32 * MINUTE, -50 * 60_000), (75 * MINUTE, 0)]
            }
        }
    }

    /// The trouble that each of its pods has with its role: from, to, what AWS says.
    pub fn spells(self) -> Vec<crate::ledger::Spell> {
        match self {
            Self::Days | Self::Crowd | Self::WrongClock => Vec::new(),
            // After the renewal at 12 to 15 minutes, and over the end of its set.
            Self::Sleepers => vec![(20 * MINUTE, 50 * MINUTE, "AccessDeniedException")],
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "crowd" => Some(Self::Crowd),
            "sleepers" => Some(Self::Sleepers),
            "clock" => Some(Self::WrongClock),
            _ => None,
        }
    }
}
