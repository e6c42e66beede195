//! Many stories, as many at a time as there are processors.
//!
//! Owns: the threads. Must not know: what the stories are about. A story lives on one thread, so they do not
//! disturb one another.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc;
use std::thread::{available_parallelism, scope};

use parking_lot::Mutex;

use crate::story::{Outcome, Story};

/// Runs them all, and hands each outcome over when it is there.
///
/// # Errors
/// When a runtime cannot be built; the rest is not told then.
pub fn run(stories: impl IntoIterator<Item = Story>, mut told: impl FnMut(&Outcome)) -> io::Result<()> {
    let waiting: Mutex<VecDeque<Story>> = Mutex::new(stories.into_iter().collect());
    let (outcomes, ready) = mpsc::channel();
    let next = || waiting.lock().pop_front();
    scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, std::num::NonZeroUsize::get) {
            let outcomes = outcomes.clone();
            let next = &next;
            scope.spawn(move || {
                while let Some(story) = next() {
                    let _ = outcomes.send(story.run());
                }
            });
        }
        drop(outcomes);
        ready.iter().try_for_each(|outcome| outcome.map(|outcome| told(&outcome)))
    })
}
