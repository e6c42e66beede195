//! The node's own credentials: what the metadata service gives when, and what AWS takes when.
//!
//! Owns: their timetable, and when there is trouble that no agent could avoid. Must not know: the agent.

use std::time::Duration;

use crate::rng::Rng;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// The life of an instance role's set: least and most.
const LIFE: (Duration, Duration) = (HOUR, Duration::from_secs(6 * 3600));

/// One set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSet {
    /// From when on the metadata service gives it, until the next.
    pub given: Duration,
    /// Its expiry.
    pub expires: Duration,
    /// AWS takes it from then ...
    pub accepted: Duration,
    /// ... to then.
    pub rejected: Duration,
}

/// The timetable.
#[derive(Clone, Debug)]
pub struct Own {
    sets: Vec<OwnSet>,
    away: Vec<(Duration, Duration)>,
    /// When the agent forgets all.
    restarts: Vec<Duration>,
    trouble: Vec<(Duration, Duration)>,
}

impl OwnSet {
    /// Good from the moment when it is given.
    pub fn new(given: Duration, expires: Duration) -> Self {
        Self { given, expires, accepted: Duration::ZERO, rejected: Duration::MAX }
    }

    fn is_good(self, at: Duration) -> bool {
        at < self.expires && (self.accepted..self.rejected).contains(&at)
    }
}

impl Own {
    /// These sets, in the order in which they are given; the metadata service is away at these times.
    pub fn of(sets: Vec<OwnSet>, away: Vec<(Duration, Duration)>) -> Self {
        Self { sets, away, restarts: Vec::new(), trouble: Vec::new() }.forgotten_at(&[])
    }

    /// The same, for an agent that is started again at these times: what it had read it must read again.
    #[must_use]
    pub fn forgotten_at(self, restarts: &[Duration]) -> Self {
        let mut own = Self { restarts: restarts.to_vec(), ..self };
        own.trouble = own.find_trouble();
        own
    }

    /// One set that is good for ever.
    pub fn steady() -> Self {
        Self::of(vec![OwnSet::new(Duration::ZERO, 10_000 * HOUR)], Vec::new())
    }

    /// One to six hours each, and every third in trouble: rotated after it has lapsed, revoked before the
    /// next is there, or good only a while after it is given.
    pub fn of_days(chance: &mut Rng, length: Duration) -> Self {
        let mut life = chance.between(LIFE.0, LIFE.1);
        let mut sets = vec![OwnSet::new(Duration::ZERO, life)];
        let mut away = Vec::new();
        let mut at = Duration::ZERO;
        while at < length + 48 * HOUR {
            let calm = at + chance.between(life.mul_f64(0.67), life.mul_f64(0.83));
            life = chance.between(LIFE.0, LIFE.1);
            let Some(last) = sets.last_mut() else { break };
            let mut next = OwnSet::new(calm, calm + life);
            if at < length {
                match chance.below(9) {
                    0 => next = OwnSet::new(last.expires + chance.about(10 * MINUTE), Duration::ZERO),
                    1 => last.rejected = calm.saturating_sub(chance.between(SECOND, 20 * MINUTE)),
                    2 => next.accepted = calm + chance.between(10 * SECOND, 5 * MINUTE),
                    3 => away.push((calm, calm + chance.about(30 * MINUTE))),
                    _ => {}
                }
            }
            next.expires = next.given + life;
            at = next.given;
            sets.push(next);
        }
        Self::of(sets, away)
    }

    /// How many sets are given before this time.
    pub fn sets_before(&self, at: Duration) -> usize {
        self.sets.iter().filter(|set| set.given < at).count()
    }

    /// The number and the expiry of the set that the metadata service gives; `None`: it does not answer.
    pub fn given(&self, at: Duration) -> Option<(usize, Duration)> {
        if self.away.iter().any(|(from, to)| (*from..*to).contains(&at)) {
            return None;
        }
        let number = self.sets.iter().rposition(|set| set.given <= at)?;
        self.sets.get(number).map(|set| (number, set.expires))
    }

    /// What AWS has against a call that this set signed.
    pub fn judge(&self, number: Option<usize>, at: Duration) -> Option<&'static str> {
        let Some(set) = number.and_then(|number| self.sets.get(number)) else {
            return Some("UnrecognizedClientException");
        };
        if at >= set.expires {
            Some("ExpiredTokenException")
        } else if set.is_good(at) {
            None
        } else {
            Some("AccessDeniedException")
        }
    }

    /// For how long there has been a set to be had that AWS takes.
    pub fn good_for(&self, at: Duration) -> Duration {
        if self.trouble.iter().any(|(from, to)| (*from..*to).contains(&at)) {
            return Duration::ZERO;
        }
        let last = self.trouble.iter().map(|(_, to)| *to).filter(|to| *to <= at).max();
        at.saturating_sub(last.unwrap_or_default())
    }

    /// Between which moments no set is to be had that AWS takes.
    fn find_trouble(&self) -> Vec<(Duration, Duration)> {
        let mut moments: Vec<Duration> = self
            .sets
            .iter()
            .flat_map(|set| [set.given, set.expires, set.accepted, set.rejected])
            .chain(self.away.iter().flat_map(|(from, to)| [*from, *to]))
            .chain(self.restarts.iter().copied())
            .collect();
        moments.sort();
        moments.dedup();
        let next = moments.iter().skip(1).copied().chain([Duration::MAX]);
        moments.iter().copied().zip(next).filter(|(at, _)| !self.is_to_be_had(*at)).collect()
    }

    fn is_to_be_had(&self, at: Duration) -> bool {
        let started =
            self.restarts.iter().copied().filter(|started| *started <= at).max().unwrap_or_default();
        let next_given = self.sets.iter().skip(1).map(|set| set.given).chain([Duration::MAX]);
        self.sets.iter().zip(next_given).any(|(set, next_given)| {
            let mut seen = set.given.max(started);
            // One time of absence may end within another.
            while let Some((_, back)) = self.away.iter().find(|(away, back)| (*away..*back).contains(&seen)) {
                seen = *back;
            }
            seen <= at && seen < next_given && set.is_good(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, HOUR, MINUTE, Own, OwnSet};

    #[test]
    fn trouble_is_when_no_set_is_to_be_had_that_aws_takes() {
        let lapses = OwnSet::new(Duration::ZERO, 60 * MINUTE);
        let late = OwnSet { rejected: 80 * MINUTE, ..OwnSet::new(65 * MINUTE, 10 * HOUR) };
        let unseen = OwnSet { accepted: 83 * MINUTE, ..OwnSet::new(79 * MINUTE, 10 * HOUR) };
        let away = vec![(78 * MINUTE, 83 * MINUTE), (82 * MINUTE, 85 * MINUTE)];
        let own = Own::of(vec![lapses, late, unseen], away);
        for (minute, good_for) in
            [(59, 59), (60, 0), (64, 0), (65, 0), (66, 1), (79, 14), (80, 0), (84, 0), (86, 1)]
        {
            assert_eq!(own.good_for(minute * MINUTE), good_for * MINUTE, "minute {minute}");
        }
        assert_eq!(own.given(66 * MINUTE), Some((1, 10 * HOUR)));
        assert_eq!(own.given(80 * MINUTE), None);
        assert_eq!(own.judge(Some(0), 61 * MINUTE), Some("ExpiredTokenException"));
        assert_eq!(own.judge(Some(2), 82 * MINUTE), Some("AccessDeniedException"));
        assert_eq!(own.judge(Some(2), 83 * MINUTE), None);
        let own = own.forgotten_at(&[79 * MINUTE]);
        assert_eq!(own.good_for(79 * MINUTE), Duration::ZERO, "what was read before is forgotten");
    }
}
