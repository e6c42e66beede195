//! Making a failing story short: fewer hours, fewer pods, the same breach.
//!
//! Owns: the search, by running the story again. Must not know: what happens in it.

use std::time::Duration;

use crate::story::{Outcome, Story};

/// Runs at most; each is shorter than the story itself.
pub const RUNS: usize = 24;

/// The shortest story found that breaks the same promise, and how many runs it took to find it.
///
/// # Errors
/// When the runtime cannot be built.
pub fn shrink(failed: Outcome) -> std::io::Result<(Outcome, usize)> {
    let mut best = cut(failed);
    let mut chunk = best.story.slots.len().div_ceil(2);
    let mut runs = 0;
    while chunk > 0 && runs < RUNS {
        let mut is_shorter = false;
        for at in (0..best.story.slots.len()).step_by(chunk) {
            let Some(candidate) = without(&best, at, chunk) else { continue };
            runs += 1;
            let outcome = candidate.run()?;
            if is_same_breach(&best, &outcome) {
                best = cut(outcome);
                is_shorter = true;
                break;
            }
            if runs >= RUNS {
                break;
            }
        }
        if !is_shorter {
            chunk /= 2;
        }
    }
    Ok((best, runs))
}

/// Nothing after the breach matters.
fn cut(mut outcome: Outcome) -> Outcome {
    if let Some((at, _)) = &outcome.found {
        outcome.story.length = outcome.story.length.min(*at + Duration::from_secs(1));
    }
    outcome
}

/// The story without some slots. Those of the breach stay.
fn without(best: &Outcome, at: usize, chunk: usize) -> Option<Story> {
    let is_left_out =
        |index: usize, slot: &u32| (at..at + chunk).contains(&index) && !best.involved.contains(slot);
    let slots: Vec<u32> = best
        .story
        .slots
        .iter()
        .enumerate()
        .filter(|(index, slot)| !is_left_out(*index, slot))
        .map(|(_, slot)| *slot)
        .collect();
    (slots.len() < best.story.slots.len()).then(|| Story { slots, ..best.story.clone() })
}

fn is_same_breach(one: &Outcome, other: &Outcome) -> bool {
    let invariant = |outcome: &Outcome| outcome.found.as_ref().map(|(_, found)| found.invariant);
    invariant(one) == invariant(other)
}
