//! How AWS is when, and when the node's clock goes wrong: drawn from the seed before the story begins.
//!
//! Owns: outages, throttling, rejections of the node's identity, clock jumps. Must not know: pods.

use std::time::Duration;

use crate::kind::{Bend, Kind};
use crate::rng::Rng;

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
}

/// The weather of a story.
#[derive(Clone, Debug)]
pub struct Weather {
    spells: Vec<(Duration, Duration, Sky)>,
    /// What happens to the node's clocks when.
    pub bends: Vec<(Duration, Bend)>,
}

/// What may come instead of a clear sky.
const CLOUDS: [Sky; 10] = [
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
];

impl Weather {
    /// The weather of a seed. It is clear at the end.
    pub fn of(kind: Kind, seed: u64, length: Duration) -> Self {
        let mut chance = Rng::stream(seed, u64::from(u32::MAX), 1);
        match kind {
            Kind::Days => Self::of_days(chance, length),
            Kind::Crowd
            | Kind::Sleepers
            | Kind::WrongClock
            | Kind::Steps
            | Kind::Pause
            | Kind::PauseInOutage => Self { spells: kind.sky(chance.below(100)), bends: kind.bends() },
        }
    }

    fn of_days(mut chance: Rng, length: Duration) -> Self {
        let mut spells = Vec::new();
        // A node that starts while AWS throttles is worth a story of its own.
        let mut at = if chance.percent(50) { Duration::ZERO } else { chance.about(2 * HOUR) };
        while at < length {
            let sky = chance.one_of(Sky::Hangs, &CLOUDS);
            let most = chance.one_of(5 * MINUTE, &[10 * MINUTE, 15 * MINUTE, 45 * MINUTE, 3 * HOUR]);
            let until = (at + chance.between(2 * MINUTE, most)).min(length);
            spells.push((at, until, sky));
            at = until + MINUTE + chance.about(3 * HOUR);
        }
        let bends = jumps(&mut chance, &spells, length);
        Self { spells, bends }
    }

    /// How AWS is at this time.
    pub fn sky(&self, at: Duration) -> Sky {
        self.spells
            .iter()
            .find(|(from, to, _)| (*from..*to).contains(&at))
            .map_or(Sky::Clear, |spell| spell.2)
    }

    /// For how long it has been clear at this time.
    pub fn clear_for(&self, at: Duration) -> Duration {
        if self.sky(at) != Sky::Clear {
            return Duration::ZERO;
        }
        let last = self.spells.iter().map(|(_, to, _)| *to).filter(|to| *to <= at).max();
        at.saturating_sub(last.unwrap_or_default())
    }

    /// All changes, in order.
    pub fn changes(&self) -> Vec<(Duration, &'static str)> {
        self.spells
            .iter()
            .flat_map(|(from, to, sky)| [(*from, sky.name()), (*to, Sky::Clear.name())])
            .collect()
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
        }
    }
}

/// Clock jumps; half of them in the middle of trouble, when AWS's `Date` cannot help.
fn jumps(chance: &mut Rng, spells: &[(Duration, Duration, Sky)], length: Duration) -> Vec<(Duration, Bend)> {
    let mut jumps = Vec::new();
    let mut at = chance.about(8 * HOUR);
    while at < length {
        let inside = spells.iter().find(|(from, _, _)| *from > at).filter(|_| chance.percent(50));
        let from = inside.map_or(at, |(from, to, _)| chance.between(*from, *to));
        let most = chance.one_of(MINUTE, &[10 * MINUTE, HOUR, 3 * HOUR]);
        let error = i64::try_from(chance.between(10 * Duration::from_secs(1), most).as_millis()).unwrap_or(0);
        let until = from + MINUTE + chance.about(HOUR);
        jumps.push((from, Bend::Wall(if chance.percent(60) { -error } else { error })));
        jumps.push((until, Bend::Wall(0)));
        at = until + chance.about(12 * HOUR);
    }
    jumps
}
