//! Exponential back-off: the pause after the n-th failure in a row.
//!
//! Owns: the formula. Must not know: what is retried, how often, or who counts the failures.

use std::time::Duration;

use crate::rng::Rng;

/// Pauses that double from a first one up to a longest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// A back-off of these pauses.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pause after `failures` failures in a row: `first * 2^(failures - 1)`, at most `longest`. None
    /// counts as one.
    pub fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1);
        self.first.saturating_mul(2_u32.saturating_pow(doublings)).min(self.longest)
    }

    /// The same, shortened by chance to between half and the whole of it, so that those that failed together
    /// do not all retry together.
    pub fn jittered(&self, failures: u32, rng: &Rng) -> Duration {
        self.pause(failures).mul_f64(0.5 + rng.fraction() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;
    use crate::rng::Rng;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let cases = [
            (100, 1_600, [100, 100, 200, 400, 800, 1_600, 1_600]),
            (10, 1_000, [10, 10, 20, 40, 80, 160, 320]),
            (5_000, 120_000, [5_000, 5_000, 10_000, 20_000, 40_000, 80_000, 120_000]),
            (120_000, 120_000, [120_000; 7]),
        ];
        for (first, longest, expected) in cases {
            let backoff = Backoff::new(Duration::from_millis(first), Duration::from_millis(longest));
            let pauses = [0, 1, 2, 3, 4, 5, 6].map(|failures| backoff.pause(failures).as_millis());
            assert_eq!(pauses, expected, "{first} ms to {longest} ms");
        }
    }

    #[test]
    fn no_count_of_failures_overflows() {
        let longest = Duration::from_secs(30);
        let backoff = Backoff::new(Duration::from_millis(500), longest);
        for failures in [7, 31, 32, 33, 64, u32::MAX] {
            assert_eq!(backoff.pause(failures), longest, "{failures}");
        }
    }

    #[test]
    fn jitter_takes_away_up_to_half() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        let rng = Rng::seeded(7);
        let pauses: Vec<Duration> = (0..1_000).map(|_| backoff.jittered(2, &rng)).collect();
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(1) && *least < Duration::from_millis(1_010), "{least:?}");
        assert!(*most < Duration::from_secs(2) && *most > Duration::from_millis(1_990), "{most:?}");
    }
}
