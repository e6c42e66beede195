//! How AWS is when, and when the node's clock goes wrong: drawn from the seed before the story begins.
//!
//! Owns: outages, throttling, rejections of the node's identity, clock jumps, changes of keys. Must not
//! know: pods.

use std::time::Duration;

use pod_identity_agent::clock::Quartz;

use crate::issuer::KeyState;
use crate::kind::{Bend, Kind, Lie, SLOW_MS};
use crate::own::Own;
use crate::rng::Rng;
use crate::shape::Shape;
use crate::source::Source;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// How AWS answers everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sky {
    /// As it should, in 20 to 120 ms.
    Clear,
    /// Not at all.
    Hangs,
    /// No connection.
    Refuses,
    /// With this status and code.
    Says(u16, &'static str),
    /// 429 above so many calls at once; the others slowly.
    Throttles(u32),
    /// Well, badly or not at all, by chance; slowly.
    Flaky,
    /// Well, after so many milliseconds.
    Slow(u64),
    /// 429 above so many calls a second, by a token bucket that holds so many; as accounts are limited.
    Allows {
        /// What is added in a second.
        per_second: u32,
        /// What the bucket holds.
        at_once: u32,
    },
}

/// The weather of a story.
#[derive(Clone, Debug)]
pub struct Weather {
    spells: Vec<(Duration, Duration, Sky)>,
    /// The same of STS, which has troubles of its own.
    of_sts: Vec<(Duration, Duration, Sky)>,
    /// What happens to the node's clocks when.
    pub bends: Vec<(Duration, Bend)>,
    /// What the issuer of tokens does when; nothing: the agent has no keys.
    pub keys: Vec<(Duration, KeyState)>,
    /// The node's own credentials.
    pub own: Own,
    /// The wrong dates of AWS's answers.
    pub lies: Vec<Lie>,
    /// When the agent is killed and started again.
    pub restarts: Vec<Duration>,
    /// How the agent is set up, and where its pods are.
    pub shape: Shape,
}

/// What may come instead of a clear sky.
const CLOUDS: [Sky; 15] = [
    Sky::Refuses,
    Sky::Says(500, "InternalServerException"),
    Sky::Says(503, "ServiceUnavailableException"),
    Sky::Says(403, "AccessDeniedException"),
    Sky::Says(403, "ExpiredTokenException"),
    Sky::Says(403, "UnrecognizedClientException"),
    Sky::Throttles(1),
    Sky::Throttles(2),
    Sky::Throttles(5),
    Sky::Flaky,
    Sky::Slow(SLOW_MS[0]),
    Sky::Slow(SLOW_MS[1]),
    Sky::Slow(SLOW_MS[2]),
    Sky::Allows { per_second: 2, at_once: 2 },
    Sky::Allows { per_second: 10, at_once: 10 },
];

/// What may come instead of it over STS. Its calls are not signed, so none is about the node.
const CLOUDS_OF_STS: [Sky; 11] = [
    Sky::Refuses,
    Sky::Says(500, "InternalFailure"),
    Sky::Says(503, "ServiceUnavailable"),
    Sky::Says(400, "IDPCommunicationError"),
    Sky::Throttles(1),
    Sky::Throttles(2),
    Sky::Throttles(5),
    Sky::Flaky,
    Sky::Slow(SLOW_MS[0]),
    Sky::Slow(SLOW_MS[1]),
    Sky::Allows { per_second: 2, at_once: 2 },
];

impl Weather {
    /// The weather of a seed. It is clear at the end.
    pub fn of(kind: Kind, seed: u64, length: Duration) -> Self {
        let mut chance = Rng::stream(seed, u64::from(u32::MAX), 1);
        match kind {
            Kind::Days => Self::of_days(seed, chance, length),
            Kind::Crowd
            | Kind::Sleepers
            | Kind::WrongClock
            | Kind::Steps
            | Kind::Pause
            | Kind::PauseInOutage
            | Kind::Keys
            | Kind::OwnCredentials
            | Kind::WrongDates
            | Kind::KeysRequired
            | Kind::Slow
            | Kind::Gone
            | Kind::Tight
            | Kind::Rates => {
                let keys = kind.keys(seed.is_multiple_of(2), |event| {
                    Rng::stream(seed, u64::from(u32::MAX) + 2, event).between(Duration::ZERO, 4 * MINUTE)
                });
                Self {
                    spells: kind.sky(chance.below(100)),
                    of_sts: Vec::new(),
                    bends: kind.bends(),
                    own: kind.own().forgotten_at(&kind.restarts()),
                    lies: kind.lies(),
                    restarts: kind.restarts(),
                    shape: Shape::of(kind, seed, !keys.is_empty()),
                    keys,
                }
            }
        }
    }

    fn of_days(seed: u64, mut chance: Rng, length: Duration) -> Self {
        let spells = skies(&mut chance, &CLOUDS, length);
        let bends = bends(&mut chance, &spells, length);
        let stream = |number| Rng::stream(seed, u64::from(u32::MAX) + 2, number);
        let (keys, own) = (keys_of_days(&mut stream(100), length), Own::of_days(&mut stream(101), length));
        let shape = Shape::of(Kind::Days, seed, !keys.is_empty());
        let of_sts = if shape.percent_of_roles == 0 {
            Vec::new()
        } else {
            skies(&mut stream(104), &CLOUDS_OF_STS, length)
        };
        let restarts = restarts(&mut stream(103), length);
        let own = own.forgotten_at(&restarts);
        Self { spells, of_sts, bends, keys, own, lies: Vec::new(), restarts, shape }
    }

    /// How a service is at this time.
    pub fn sky(&self, source: Source, at: Duration) -> Sky {
        self.spells_of(source)
            .iter()
            .find(|(from, to, _)| (*from..*to).contains(&at))
            .map_or(Sky::Clear, |spell| spell.2)
    }

    fn spells_of(&self, source: Source) -> &[(Duration, Duration, Sky)] {
        match source {
            Source::EksAuth => &self.spells,
            Source::Sts => &self.of_sts,
        }
    }

    /// For how long a service has been well at this time, and EKS Auth taken the credentials of the node that
    /// are to be had.
    pub fn clear_for(&self, source: Source, at: Duration) -> Duration {
        self.is_so_for(source, at, |sky| sky == Sky::Clear)
    }

    /// The same of both: any set may be renewed to know the time.
    pub fn all_clear_for(&self, at: Duration) -> Duration {
        self.clear_for(Source::EksAuth, at).min(self.clear_for(Source::Sts, at))
    }

    /// For how long it has been giving good answers, quickly or slowly, to credentials that are to be had.
    pub fn good_for(&self, source: Source, at: Duration) -> Duration {
        let is_good = |sky| match sky {
            Sky::Clear | Sky::Slow(_) => true,
            Sky::Hangs
            | Sky::Refuses
            | Sky::Says(..)
            | Sky::Throttles(_)
            | Sky::Flaky
            | Sky::Allows { .. } => false,
        };
        self.is_so_for(source, at, is_good)
    }

    fn is_so_for(&self, source: Source, at: Duration, is_so: impl Fn(Sky) -> bool) -> Duration {
        if !is_so(self.sky(source, at)) {
            return Duration::ZERO;
        }
        // The calls of STS are not signed.
        let own = match source {
            Source::EksAuth => self.own.good_for(at),
            Source::Sts => at,
        };
        let others = self.spells_of(source).iter().filter(|(_, to, sky)| *to <= at && !is_so(*sky));
        at.saturating_sub(others.map(|(_, to, _)| *to).max().unwrap_or_default()).min(own)
    }

    /// All changes, in order.
    pub fn changes(&self) -> Vec<(Duration, Source, &'static str)> {
        let of = |source| {
            let named = move |(from, to, sky): &(Duration, Duration, Sky)| {
                [(*from, source, sky.name()), (*to, source, Sky::Clear.name())]
            };
            self.spells_of(source).iter().flat_map(named)
        };
        of(Source::EksAuth).chain(of(Source::Sts)).collect()
    }
}

impl Sky {
    const fn name(self) -> &'static str {
        match self {
            Self::Clear => "answers as it should",
            Self::Hangs => "does not answer",
            Self::Refuses => "cannot be connected to",
            Self::Says(_, code) => code,
            Self::Throttles(_) => "throttles",
            Self::Flaky => "is flaky",
            Self::Slow(_) => "answers slowly",
            Self::Allows { .. } => "allows few calls a second",
        }
    }
}

/// What comes one after the other. A node that starts while AWS throttles is worth a story of its own.
fn skies(chance: &mut Rng, clouds: &[Sky], length: Duration) -> Vec<(Duration, Duration, Sky)> {
    let mut spells = Vec::new();
    let mut at = if chance.percent(50) { Duration::ZERO } else { chance.about(2 * HOUR) };
    while at < length {
        let sky = chance.one_of(Sky::Hangs, clouds);
        let most = chance.one_of(5 * MINUTE, &[10 * MINUTE, 15 * MINUTE, 45 * MINUTE, 3 * HOUR]);
        let until = (at + chance.between(2 * MINUTE, most)).min(length);
        spells.push((at, until, sky));
        at = until + MINUTE + chance.about(3 * HOUR);
    }
    spells
}

/// One story in five has no keys. In the others the issuer changes something every few hours: a new key is
/// published and signs, an old one is withdrawn, early or late, or comes back, or nothing can be read.
fn keys_of_days(chance: &mut Rng, length: Duration) -> Vec<(Duration, KeyState)> {
    if chance.percent(20) {
        return Vec::new();
    }
    let (mut signer, mut published) = (0, 1_u32);
    let mut at = if chance.percent(50) { Duration::ZERO } else { chance.about(30 * MINUTE) };
    let mut states = vec![(Duration::ZERO, KeyState { signer, published: None })];
    while at < length {
        states.push((at, KeyState { signer, published: Some(published) }));
        at += 10 * MINUTE + chance.about(4 * HOUR);
        match chance.below(5) {
            0 | 1 if signer < 31 => {
                // Published an hour before it signs, or not in time.
                let early = chance.percent(70);
                if early {
                    states.push((at, KeyState { signer, published: Some(published | 1 << (signer + 1)) }));
                    at += HOUR;
                }
                signer += 1;
                let now = if early { published | 1 << signer } else { published };
                states.push((at, KeyState { signer, published: Some(now) }));
                at += chance.about(HOUR);
                published |= 1 << signer;
            }
            2 => published = 1 << signer,
            3 => published |= 1 << chance.below(signer + 1),
            _ => {
                states.push((at, KeyState { signer, published: None }));
                at += chance.about(HOUR);
                // Without the key that signs, for a while.
                states.push((at, KeyState { signer, published: Some((published & !(1 << signer)).max(1)) }));
                at += chance.about(20 * MINUTE);
            }
        }
    }
    states
}

/// What happens to the clocks: wrong steps, pauses of the node, and a quartz that is fast or slow. Half of
/// the events come in the middle of trouble, when AWS's `Date` cannot help.
fn bends(chance: &mut Rng, spells: &[(Duration, Duration, Sky)], length: Duration) -> Vec<(Duration, Bend)> {
    let mut bends = Vec::new();
    if chance.percent(50) {
        let ppm = i32::try_from(20 + chance.below(80)).unwrap_or_default();
        let fast_ppm = if chance.percent(50) { ppm } else { -ppm };
        bends.push((Duration::ZERO, Bend::Quartz(Quartz { fast_ppm, is_wall_steered: chance.percent(70) })));
    }
    let (mut at, mut paused) = (chance.about(8 * HOUR), Duration::ZERO);
    while at < length {
        let inside = spells.iter().find(|(from, _, _)| *from > at).filter(|_| chance.percent(50));
        let from = inside.map_or(at, |(from, to, _)| chance.between(*from, *to));
        let until = if chance.percent(35) {
            pause(chance, &mut bends, from, &mut paused)
        } else {
            step(chance, &mut bends, from, paused)
        };
        at = until + MINUTE + chance.about(12 * HOUR);
    }
    bends
}

/// The node is paused for a minute to five hours. Mostly its wall clock is set right within minutes; where
/// nobody does that, it stays as it is until something else happens. Until when.
fn pause(
    chance: &mut Rng,
    bends: &mut Vec<(Duration, Bend)>,
    from: Duration,
    paused: &mut Duration,
) -> Duration {
    let most = chance.one_of(2 * MINUTE, &[20 * MINUTE, HOUR, 5 * HOUR]);
    let length = chance.between(MINUTE, most);
    *paused += length;
    bends.push((from, Bend::Pause(length)));
    let woken = from + length;
    if chance.percent(30) {
        return woken + chance.about(2 * HOUR);
    }
    let set = woken + chance.between(Duration::from_secs(1), 10 * MINUTE);
    bends.push((set, Bend::Wall(ms(*paused))));
    set
}

/// The wall clock is set wrong, and mostly right again after a while. Until when.
fn step(chance: &mut Rng, bends: &mut Vec<(Duration, Bend)>, from: Duration, paused: Duration) -> Duration {
    let most = chance.one_of(MINUTE, &[10 * MINUTE, HOUR, 3 * HOUR]);
    let error = ms(chance.between(10 * Duration::from_secs(1), most));
    let until = from + MINUTE + chance.about(HOUR);
    bends.push((from, Bend::Wall(ms(paused) + if chance.percent(60) { -error } else { error })));
    if chance.percent(80) {
        bends.push((until, Bend::Wall(ms(paused))));
    }
    until
}

/// In one story of two the agent is started again every now and then.
fn restarts(chance: &mut Rng, length: Duration) -> Vec<Duration> {
    let mut restarts = Vec::new();
    let mut at = chance.about(8 * HOUR);
    let has_any = chance.percent(50);
    while has_any && at < length {
        restarts.push(at);
        at += MINUTE + chance.about(12 * HOUR);
    }
    restarts
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
