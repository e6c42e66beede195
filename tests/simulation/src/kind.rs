//! Which kind of story: days on a busy node, or minutes in which one thing happens that days hardly ever
//! bring.
//!
//! Owns: the short stories' timetables. Must not know: the habits of pods, or what counts as a breach.

use std::time::Duration;

use crate::issuer::KeyState;
use crate::own::{Own, OwnSet};
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
    /// The node's clock is wrong at boot, and is stepped in both directions, rightly and wrongly, by minutes
    /// and by more than a day; in the end AWS is away meanwhile.
    Steps,
    /// The hypervisor pauses the node for an hour; two minutes after it wakes NTP sets its clock right.
    Pause,
    /// The same while AWS is away, which comes back half an hour later.
    PauseInOutage,
    /// The keys that verify tokens come late, are withdrawn, are rotated and come back, also in an outage.
    Keys,
    /// The node's own credentials lapse, are rotated late, are revoked, are good only after a while, and the
    /// metadata service is away; also in an outage.
    OwnCredentials,
    /// Answers of AWS have wrong dates: one alone, one alone by more than a day, then two that agree, an hour
    /// back, and an outage.
    WrongDates,
}

/// Answers of AWS have a wrong `Date`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie {
    /// From when on.
    pub at: Duration,
    /// By so many seconds.
    pub off: i64,
    /// So many answers.
    pub answers: u32,
}

/// What happens to the clocks of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    /// The error of the wall clock becomes so many milliseconds, by the boot clock. After a pause its length
    /// is right.
    Wall(i64),
    /// The node is paused for so long: its clocks stand still.
    Pause(Duration),
}

/// When the crowd comes: the sets of 15 minutes of [`RESIDENTS`] are due at 6 to 7.5 minutes
/// (docs/design/decisions.md#renewals).
const CROWD_AT: Duration = Duration::from_secs(385);
/// When the node is paused, and for how long.
const PAUSE_AT: Duration = Duration::from_secs(30 * 60);
const PAUSE: Duration = Duration::from_secs(3600);
const MINUTE_MS: i64 = 60_000;
/// The slots that are there before the crowd.
const RESIDENTS: u32 = 20;
/// Pods of the short stories start within this.
pub const START: Duration = Duration::from_secs(5);

impl Kind {
    /// The short ones.
    pub const SHORT: [Self; 9] = [
        Self::Crowd,
        Self::Sleepers,
        Self::WrongClock,
        Self::Steps,
        Self::Pause,
        Self::PauseInOutage,
        Self::Keys,
        Self::OwnCredentials,
        Self::WrongDates,
    ];

    /// How long it lasts.
    pub const fn length(self) -> Option<Duration> {
        match self {
            Self::Days => None,
            Self::Crowd => Some(Duration::from_secs(10 * 60)),
            Self::Sleepers => Some(Duration::from_secs(60 * 60)),
            Self::WrongClock => Some(Duration::from_secs(90 * 60)),
            Self::Steps => Some(Duration::from_secs(4 * 3600)),
            Self::Pause | Self::PauseInOutage | Self::OwnCredentials | Self::WrongDates => {
                Some(Duration::from_secs(3 * 3600))
            }
            Self::Keys => Some(Duration::from_secs(5 * 3600)),
        }
    }

    /// How many pods it has.
    pub const fn pods(self) -> u32 {
        match self {
            Self::Days => 0,
            Self::Crowd => RESIDENTS + 60,
            Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::OwnCredentials
            | Self::WrongDates => 6,
        }
    }

    /// When the pod of a slot comes, and how long its sets live.
    pub const fn arrival(self, slot: u32) -> (Duration, Duration) {
        match self {
            Self::Crowd if slot < RESIDENTS => (Duration::ZERO, Duration::from_secs(15 * 60)),
            Self::Crowd => (CROWD_AT, Duration::from_secs(3600)),
            Self::Days | Self::Sleepers | Self::WrongClock => (Duration::ZERO, Duration::from_secs(30 * 60)),
            Self::WrongDates => {
                // One asks when the answers begin to agree on a wrong date.
                let late = Duration::from_secs(if slot == 5 { 101 * 60 } else { 0 });
                (late, Duration::from_secs(30 * 60))
            }
            Self::Keys | Self::OwnCredentials => {
                let late = Duration::from_secs(if slot % 3 == 2 { 61 * 60 } else { 0 });
                (late, Duration::from_secs(if slot.is_multiple_of(2) { 15 * 60 } else { 3600 }))
            }
            // Fresh from the kubelet, on a node that nothing has told of its pause.
            Self::Pause | Self::PauseInOutage if slot == 2 => {
                (Duration::from_secs(91 * 60), Duration::from_secs(30 * 60))
            }
            // Some sets are over when the pause is, and others are not; new pods come after it.
            Self::Steps | Self::Pause | Self::PauseInOutage => {
                let late = Duration::from_secs(if slot % 3 == 2 { 95 * 60 } else { 0 });
                (late, Duration::from_secs(if slot.is_multiple_of(2) { 30 * 60 } else { 6 * 3600 }))
            }
        }
    }

    /// Its weather: from, to, how. `strength` is drawn from the seed.
    pub fn sky(self, strength: u32) -> Vec<(Duration, Duration, Sky)> {
        match self {
            Self::Days | Self::Sleepers | Self::Pause => Vec::new(),
            // Fewer than the eight calls that the agent begins with, so that it must learn.
            Self::Crowd => vec![(CROWD_AT - SECOND, 9 * MINUTE, Sky::Throttles(2 + strength % 4))],
            Self::WrongClock => vec![(30 * MINUTE, 70 * MINUTE, Sky::Hangs)],
            Self::Steps => vec![(150 * MINUTE, 170 * MINUTE, Sky::Refuses)],
            // Keys and own credentials change in the middle of them.
            Self::Keys => vec![
                (50 * MINUTE, 75 * MINUTE, Sky::Refuses),
                (150 * MINUTE, 170 * MINUTE, Sky::Says(503, "ServiceUnavailableException")),
                (250 * MINUTE, 265 * MINUTE, Sky::Hangs),
            ],
            Self::OwnCredentials => vec![(150 * MINUTE, 165 * MINUTE, Sky::Refuses)],
            Self::WrongDates => vec![(103 * MINUTE, 160 * MINUTE, Sky::Refuses)],
            Self::PauseInOutage => vec![(25 * MINUTE, PAUSE_AT + PAUSE + 30 * MINUTE, Sky::Refuses)],
        }
    }

    /// What happens to the clocks when.
    pub fn bends(self) -> Vec<(Duration, Bend)> {
        use Bend::{Pause, Wall};
        match self {
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::Keys
            | Self::OwnCredentials
            | Self::WrongDates => Vec::new(),
            Self::WrongClock => {
                vec![
                    (MINUTE, Wall(-25 * MINUTE_MS)),
                    (32 * MINUTE, Wall(-50 * MINUTE_MS)),
                    (75 * MINUTE, Wall(0)),
                ]
            }
            Self::Steps => vec![
                (Duration::ZERO, Wall(25 * 60 * MINUTE_MS)),
                (15 * MINUTE, Wall(60 * MINUTE_MS)),
                (25 * MINUTE, Wall(0)),
                (40 * MINUTE, Wall(-90_000)),
                (60 * MINUTE, Wall(25 * 60 * MINUTE_MS)),
                (80 * MINUTE, Wall(-25 * 60 * MINUTE_MS)),
                (110 * MINUTE, Wall(0)),
                (155 * MINUTE, Wall(-60 * MINUTE_MS)),
                (165 * MINUTE, Wall(0)),
                (200 * MINUTE, Wall(60 * MINUTE_MS)),
            ],
            Self::Pause | Self::PauseInOutage => vec![
                (PAUSE_AT, Pause(PAUSE)),
                (PAUSE_AT + PAUSE + 2 * MINUTE, Wall(i64::try_from(PAUSE.as_millis()).unwrap_or_default())),
            ],
        }
    }

    /// The trouble that each of its pods has with its role: from, to, what AWS says.
    pub fn spells(self) -> Vec<crate::ledger::Spell> {
        match self {
            Self::Days
            | Self::Crowd
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::OwnCredentials
            | Self::WrongDates => Vec::new(),
            // After the renewal at 12 to 15 minutes, and over the end of its set.
            Self::Sleepers => vec![(20 * MINUTE, 50 * MINUTE, "AccessDeniedException")],
        }
    }

    /// What the issuer does when. Without any of it the agent has no keys and verifies nothing. `has_key`:
    /// the stories of bent clocks have one, which is there from the start. `when` moves an event of the story
    /// by up to four minutes, by its number.
    pub fn keys(self, has_key: bool, when: impl Fn(u64) -> Duration) -> Vec<(Duration, KeyState)> {
        let events: &[(u32, u32, Option<u32>)] = match self {
            Self::Steps | Self::Pause | Self::PauseInOutage if has_key => {
                return vec![(Duration::ZERO, KeyState { signer: 0, published: Some(0b1) })];
            }
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::OwnCredentials
            | Self::WrongDates => &[],
            Self::Keys => &[
                // They come late; key 0 is withdrawn in an outage, and comes back in it.
                (20, 0, Some(0b1)),
                (54, 1, Some(0b10)),
                (67, 1, Some(0b11)),
                // A rotation as it should be, and the withdrawal of what still signs tokens in use.
                (90, 1, Some(0b111)),
                (100, 2, Some(0b111)),
                (122, 2, Some(0b100)),
                (136, 2, Some(0b111)),
                // In an outage, all keys are new; the old ones come back after it, and go again.
                (154, 3, Some(0b1000)),
                (175, 3, Some(0b1111)),
                (195, 3, Some(0b1000)),
                // No document, while a new key signs; then it is there.
                (210, 4, None),
                (230, 4, Some(0b11000)),
                // The only key that signs is withdrawn, and comes back in an outage.
                (242, 4, Some(0b1000)),
                (256, 4, Some(0b11000)),
            ],
        };
        let first = (!events.is_empty()).then_some((Duration::ZERO, KeyState { signer: 0, published: None }));
        let later = events.iter().zip(0..).map(|(&(minute, signer, published), number)| {
            (minute * MINUTE + when(number), KeyState { signer, published })
        });
        first.into_iter().chain(later).collect()
    }

    /// The node's own credentials.
    pub fn own(self) -> Own {
        match self {
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::WrongDates => Own::steady(),
            Self::OwnCredentials => {
                let set = |given: u32, expires: u32| OwnSet::new(given * MINUTE, expires * MINUTE);
                let sets = vec![
                    set(0, 60),
                    // Five minutes after the first has lapsed; revoked four minutes before the next is there.
                    OwnSet { rejected: 80 * MINUTE, ..set(65, 400) },
                    OwnSet { rejected: 130 * MINUTE, ..set(84, 400) },
                    // AWS takes it three minutes after it is given; the one before is good meanwhile.
                    OwnSet { accepted: 103 * MINUTE, ..set(100, 135) },
                    // Given while the metadata service is away; revoked in an outage that ends before the
                    // next is there.
                    OwnSet { rejected: 155 * MINUTE, ..set(128, 400) },
                    set(170, 10_000),
                ];
                Own::of(sets, vec![(125 * MINUTE, 140 * MINUTE)])
            }
        }
    }

    /// The wrong dates of AWS's answers.
    pub fn lies(self) -> Vec<Lie> {
        match self {
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::OwnCredentials => Vec::new(),
            Self::WrongDates => vec![
                Lie { at: 76 * MINUTE, off: -3600, answers: 1 },
                Lie { at: 87 * MINUTE, off: 25 * 3600, answers: 1 },
                Lie { at: 101 * MINUTE, off: -3600, answers: 2 },
            ],
        }
    }

    /// The life of the tokens of a slot.
    pub const fn token_life(self, slot: u32) -> Duration {
        match self {
            // Some pods outlive the rotation of a key with their token, and others rotate theirs meanwhile.
            Self::Keys => Duration::from_secs(if slot.is_multiple_of(3) { 24 * 3600 } else { 3600 }),
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::OwnCredentials
            | Self::WrongDates => Duration::from_secs(24 * 3600),
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "crowd" => Some(Self::Crowd),
            "sleepers" => Some(Self::Sleepers),
            "clock" => Some(Self::WrongClock),
            "steps" => Some(Self::Steps),
            "pause" => Some(Self::Pause),
            "pause-in-outage" => Some(Self::PauseInOutage),
            "keys" => Some(Self::Keys),
            "own" => Some(Self::OwnCredentials),
            "dates" => Some(Self::WrongDates),
            _ => None,
        }
    }
}
