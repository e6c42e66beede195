//! Seeded chance.
//!
//! Owns: independent streams of one seed, so that leaving a pod out of a story changes nothing for the
//! others. Must not know: what is drawn.

use std::time::Duration;

/// One stream of a seed.
#[derive(Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// The stream of this seed that these two numbers name.
    pub fn stream(seed: u64, one: u64, other: u64) -> Self {
        let mixed = [one, other].iter().fold(seed, |so_far, number| scramble(so_far ^ scramble(*number)));
        Self(fastrand::Rng::with_seed(mixed))
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.0.u32(0..100) < percent
    }

    /// Evenly between two durations.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.0.f64())
    }

    /// With this mean, mostly shorter, at times much longer (exponential), at most eight times as long.
    pub fn about(&mut self, mean: Duration) -> Duration {
        mean.mul_f64((-(1.0 - self.0.f64()).ln()).min(8.0))
    }

    /// A whole number below a bound.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0.u32(0..bound.max(1))
    }

    /// One of these; the first if there is only one.
    pub fn one_of<T: Copy>(&mut self, first: T, others: &[T]) -> T {
        let drawn = self.0.usize(0..=others.len());
        drawn.checked_sub(1).and_then(|index| others.get(index)).copied().unwrap_or(first)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): neighbours become strangers.
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
