//! Which kind of story: days on a busy node, or minutes in which one thing happens that days hardly ever
//! bring.
//!
//! Owns: the short stories' timetables. Must not know: the habits of pods, or what counts as a breach.

use std::time::Duration;

use pod_identity_agent::clock::Quartz;

use crate::issuer::KeyState;
use crate::own::{Own, OwnSet};
use crate::weather::Sky;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

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
    /// The same with keys as [`Kind::Keys`], and what no key proves is refused.
    KeysRequired,
    /// AWS answers well, and slowly, for good; new pods come all the time.
    Slow,
    /// One pod's association is gone for good, another's moves to another role, and then AWS says for a
    /// quarter of an hour that nobody has one.
    Gone,
    /// More pods than the agent may keep, five of them behind one address; the agent is started again.
    Tight,
    /// Three hundred pods start at once on five nodes, and the account may make ten calls a second.
    Rates,
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
    /// Its quartz runs like this.
    Quartz(Quartz),
}

/// When the crowd comes: the sets of 15 minutes of [`RESIDENTS`] are due at 6 to 7.5 minutes
/// (docs/design/decisions.md#renewals).
const CROWD_AT: Duration = Duration::from_secs(385);
/// When the node is paused, and for how long.
const PAUSE_AT: Duration = Duration::from_secs(30 * 60);
const PAUSE: Duration = Duration::from_secs(3600);
const MINUTE_MS: i64 = 60_000;
/// How slowly a slow AWS answers, in milliseconds.
pub const SLOW_MS: [u64; 3] = [1_300, 2_000, 3_000];
/// What AWS says of a pod that has no association.
pub const NO_ASSOCIATION: &str = "ResourceNotFoundException";
/// The slots that are there before the crowd.
const RESIDENTS: u32 = 20;

impl Kind {
    /// The short ones.
    pub const SHORT: [Self; 14] = [
        Self::Crowd,
        Self::Sleepers,
        Self::WrongClock,
        Self::Steps,
        Self::Pause,
        Self::PauseInOutage,
        Self::Keys,
        Self::OwnCredentials,
        Self::WrongDates,
        Self::KeysRequired,
        Self::Slow,
        Self::Gone,
        Self::Tight,
        Self::Rates,
    ];

    /// How long it lasts.
    pub const fn length(self) -> Option<Duration> {
        match self {
            Self::Days => None,
            Self::Crowd => Some(Duration::from_secs(10 * 60)),
            Self::Sleepers => Some(Duration::from_secs(60 * 60)),
            Self::WrongClock => Some(Duration::from_secs(90 * 60)),
            Self::Steps => Some(Duration::from_secs(4 * 3600)),
            Self::Pause
            | Self::PauseInOutage
            | Self::OwnCredentials
            | Self::WrongDates
            | Self::Gone
            | Self::Tight => Some(Duration::from_secs(3 * 3600)),
            Self::Slow => Some(Duration::from_secs(2 * 3600)),
            Self::Rates => Some(Duration::from_secs(5 * 60)),
            Self::Keys | Self::KeysRequired => Some(Duration::from_secs(5 * 3600)),
        }
    }

    /// Its pods start within this.
    pub const fn start(self) -> Duration {
        match self {
            Self::Rates => Duration::from_millis(100),
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::OwnCredentials
            | Self::WrongDates
            | Self::KeysRequired
            | Self::Slow
            | Self::Gone
            | Self::Tight => Duration::from_secs(5),
        }
    }

    /// For how long the node is looked at after everybody has left: the longest life of a set, a renewal at
    /// most 3 h after it came, and its successor's life. Most of a short story's costs are here.
    pub const fn aftermath(self) -> Duration {
        match self {
            Self::Days => Duration::from_secs(28 * 3600),
            // It is about the first minute of five agents.
            Self::Rates => Duration::ZERO,
            Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::OwnCredentials
            | Self::WrongDates
            | Self::KeysRequired
            | Self::Slow
            | Self::Gone
            | Self::Tight => Duration::from_secs(16 * 3600),
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
            | Self::KeysRequired
            | Self::OwnCredentials
            | Self::Gone
            | Self::WrongDates => 6,
            Self::Tight => 12,
            Self::Slow => 40,
            Self::Rates => 300,
        }
    }

    /// When the pod of a slot comes, and how long its sets live.
    pub const fn arrival(self, slot: u32) -> (Duration, Duration) {
        match self {
            Self::Crowd if slot < RESIDENTS => (Duration::ZERO, Duration::from_secs(15 * 60)),
            Self::Crowd => (CROWD_AT, Duration::from_secs(3600)),
            Self::Days | Self::Sleepers | Self::WrongClock | Self::Gone => {
                (Duration::ZERO, Duration::from_secs(30 * 60))
            }
            // Half of them at once, the others one after the other.
            Self::Slow => {
                let late = slot.saturating_sub(20) * 5 * 60;
                (
                    Duration::from_secs(late as u64),
                    Duration::from_secs(if slot.is_multiple_of(2) { 15 * 60 } else { 3600 }),
                )
            }
            Self::Tight => {
                (Duration::ZERO, Duration::from_secs(if slot.is_multiple_of(2) { 15 * 60 } else { 3600 }))
            }
            Self::Rates => (Duration::ZERO, Duration::from_secs(6 * 3600)),
            Self::WrongDates => {
                // One asks when the answers begin to agree on a wrong date.
                let late = Duration::from_secs(if slot == 5 { 101 * 60 } else { 0 });
                (late, Duration::from_secs(30 * 60))
            }
            Self::Keys | Self::KeysRequired | Self::OwnCredentials => {
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
            Self::Days | Self::Sleepers | Self::Pause | Self::Gone => Vec::new(),
            // Who was admitted keeps what it has, also when others cannot be served.
            Self::Tight => vec![(60 * MINUTE, 72 * MINUTE, Sky::Refuses)],
            Self::Slow => {
                let [quick, slower, slowest] = SLOW_MS;
                let slowness = [slowest, quick, slower].into_iter().cycle().nth(strength as usize);
                vec![(Duration::ZERO, HOUR * 1000, Sky::Slow(slowness.unwrap_or(slowest)))]
            }
            Self::Rates => vec![(Duration::ZERO, HOUR * 1000, Sky::Allows { per_second: 10, at_once: 10 })],
            // Fewer than the eight calls that the agent begins with, so that it must learn.
            Self::Crowd => vec![(CROWD_AT - SECOND, 9 * MINUTE, Sky::Throttles(2 + strength % 4))],
            Self::WrongClock => vec![(30 * MINUTE, 70 * MINUTE, Sky::Hangs)],
            Self::Steps => vec![(150 * MINUTE, 170 * MINUTE, Sky::Refuses)],
            // Keys and own credentials change in the middle of them.
            Self::Keys | Self::KeysRequired => vec![
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
            | Self::KeysRequired
            | Self::Slow
            | Self::Gone
            | Self::Tight
            | Self::Rates
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
    pub fn spells(self, slot: u32) -> Vec<crate::ledger::Spell> {
        match self {
            Self::Days
            | Self::Crowd
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::OwnCredentials
            | Self::KeysRequired
            | Self::Slow
            | Self::Tight
            | Self::Rates
            | Self::WrongDates => Vec::new(),
            Self::Gone => {
                let mut spells = vec![(110 * MINUTE, 125 * MINUTE, NO_ASSOCIATION)];
                if slot == 0 {
                    spells.insert(0, (35 * MINUTE, 100 * MINUTE, NO_ASSOCIATION));
                }
                spells
            }
            // After the renewal at 12 to 15 minutes, and over the end of its set.
            Self::Sleepers => vec![(20 * MINUTE, 50 * MINUTE, "AccessDeniedException")],
        }
    }

    /// What the issuer does when. Without any of it the agent has no keys and verifies nothing. `has_key`:
    /// the stories of bent clocks have one, which is there from the start. `when` moves an event of the story
    /// by up to four minutes, by its number.
    pub fn keys(self, has_key: bool, when: impl Fn(u64) -> Duration) -> Vec<(Duration, KeyState)> {
        let events: &[(u32, u32, Option<u32>)] = match self {
            Self::Steps | Self::Pause | Self::PauseInOutage | Self::Gone | Self::Tight if has_key => {
                return vec![(Duration::ZERO, KeyState { signer: 0, published: Some(0b1) })];
            }
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Gone
            | Self::Tight
            | Self::OwnCredentials
            | Self::Slow
            | Self::Rates
            | Self::WrongDates => &[],
            Self::Keys | Self::KeysRequired => &[
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
            | Self::KeysRequired
            | Self::Slow
            | Self::Gone
            | Self::Tight
            | Self::Rates
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
            | Self::KeysRequired
            | Self::Slow
            | Self::Gone
            | Self::Tight
            | Self::Rates
            | Self::OwnCredentials => Vec::new(),
            Self::WrongDates => vec![
                Lie { at: 76 * MINUTE, off: -3600, answers: 1 },
                Lie { at: 87 * MINUTE, off: 25 * 3600, answers: 1 },
                Lie { at: 101 * MINUTE, off: -3600, answers: 2 },
            ],
        }
    }

    /// When the association of a slot's pod moves to another role.
    pub fn moves(self, slot: u32) -> Vec<Duration> {
        match self {
            Self::Gone if slot == 1 => vec![80 * MINUTE],
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::OwnCredentials
            | Self::KeysRequired
            | Self::Slow
            | Self::Gone
            | Self::Tight
            | Self::Rates
            | Self::WrongDates => Vec::new(),
        }
    }

    /// When the agent is killed and started again.
    pub fn restarts(self) -> Vec<Duration> {
        match self {
            Self::Tight => vec![40 * MINUTE, 100 * MINUTE, 101 * MINUTE],
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::OwnCredentials
            | Self::KeysRequired
            | Self::Slow
            | Self::Gone
            | Self::Rates
            | Self::WrongDates => Vec::new(),
        }
    }

    /// By when every pod of it must have been served, and how many calls AWS may have had for each until
    /// then.
    pub const fn all_served_by(self) -> Option<(Duration, u64)> {
        match self {
            Self::Rates => Some((Duration::from_secs(32), 2)),
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::Keys
            | Self::OwnCredentials
            | Self::KeysRequired
            | Self::Slow
            | Self::Gone
            | Self::Tight
            | Self::WrongDates => None,
        }
    }

    /// The life of the tokens of a slot.
    pub const fn token_life(self, slot: u32) -> Duration {
        match self {
            // Some pods outlive the rotation of a key with their token, and others rotate theirs meanwhile.
            Self::Keys | Self::KeysRequired => {
                Duration::from_secs(if slot.is_multiple_of(3) { 24 * 3600 } else { 3600 })
            }
            Self::Days
            | Self::Crowd
            | Self::Sleepers
            | Self::WrongClock
            | Self::Steps
            | Self::Pause
            | Self::PauseInOutage
            | Self::OwnCredentials
            | Self::Slow
            | Self::Gone
            | Self::Tight
            | Self::Rates
            | Self::WrongDates => Duration::from_secs(24 * 3600),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Days => "days",
            Self::Crowd => "crowd",
            Self::Sleepers => "sleepers",
            Self::WrongClock => "clock",
            Self::Steps => "steps",
            Self::Pause => "pause",
            Self::PauseInOutage => "pause-in-outage",
            Self::Keys => "keys",
            Self::OwnCredentials => "own",
            Self::WrongDates => "dates",
            Self::KeysRequired => "keys-required",
            Self::Slow => "slow",
            Self::Gone => "gone",
            Self::Tight => "tight",
            Self::Rates => "rates",
        }
    }

    /// The short one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::SHORT.into_iter().find(|kind| kind.name() == name)
    }
}
