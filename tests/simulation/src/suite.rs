//! The stories that every change must pass, and in which the planted bugs must be found.
//!
//! Owns: their seeds and their order. Must not know: what happens in them.

use crate::kind::Kind;
use crate::story::Story;

/// The seeds of the stories of eight hours.
const SEEDS: [u64; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
/// Days with sixty pods: 6 s each of one processor.
const FULL_DAYS: [u64; 6] = [1, 2, 3, 72, 2_026_112_650, 2_026_112_683];
/// The seeds of each kind of short story.
const SHORT_SEEDS: [u64; 3] = [1, 2, 3];
/// More seeds of the stories in which the node is paused: what they find depends on who asks when.
const PAUSE_SEEDS: std::ops::RangeInclusive<u64> = 4..=6;

/// The short stories, first one of each kind.
pub fn short() -> impl Iterator<Item = Story> {
    SHORT_SEEDS.into_iter().flat_map(|seed| Kind::SHORT.map(|kind| Story::short(kind, seed)))
}

/// More of the short stories in which the node is paused.
pub fn pauses() -> impl Iterator<Item = Story> {
    [Kind::Pause, Kind::PauseInOutage]
        .into_iter()
        .flat_map(|kind| PAUSE_SEEDS.map(move |seed| Story::short(kind, seed)))
}

/// Eight hours with six pods at a time.
pub fn days() -> impl Iterator<Item = Story> {
    SEEDS.into_iter().map(day)
}

/// A day with sixty pods at a time, of which every night tells a hundred.
pub fn full_days() -> impl Iterator<Item = Story> {
    FULL_DAYS.into_iter().map(|seed| Story::new(seed, 24, 60))
}

/// Ten days with eight pods at a time, and with everything that days bring.
pub fn ten_days(seed: u64) -> Story {
    Story::new(seed, 240, 8)
}

/// One of these stories, with any seed.
pub fn day(seed: u64) -> Story {
    Story::new(seed, 8, 6)
}

/// All of them, the short ones first.
pub fn all() -> impl Iterator<Item = Story> {
    short().chain(days())
}
