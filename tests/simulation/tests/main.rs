//! The stories that every change must pass.

use simulation::story::{Outcome, Story};
use simulation::suite;

#[expect(clippy::unwrap_used, reason = "a helper of tests is not seen as one by clippy")]
fn run(story: &Story) -> Outcome {
    story.run().unwrap()
}

#[test]
fn no_seed_breaks_a_promise() {
    for day in suite::days() {
        let outcome = run(&day);
        assert!(outcome.found.is_none(), "{outcome}\nTry: make simulate SEED={} HOURS=8 PODS=6", day.seed);
        assert!(outcome.totals.2 > 30, "a story in which nothing happens proves nothing: {outcome}");
    }
}

#[test]
fn ten_days_with_everything_that_happens_to_nodes_break_no_promise() {
    let outcome = run(&suite::ten_days(2));
    assert!(outcome.found.is_none(), "{outcome}\nTry: make simulate SEED=2 HOURS=240 PODS=8");
    let (pods, sets, calls) = outcome.totals;
    assert!(pods > 50 && sets > 1000 && calls > 2000, "ten days in which little happens: {outcome}");
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in [3, 5] {
        let (once, again) = (run(&suite::day(seed)), run(&suite::day(seed)));
        assert_eq!((once.digest, once.count), (again.digest, again.count), "seed {seed}");
        assert_ne!(once.digest, run(&suite::day(seed + 1)).digest);
    }
}

#[test]
fn no_short_story_breaks_a_promise() {
    for short in suite::short() {
        let outcome = run(&short);
        assert!(outcome.found.is_none(), "{outcome}");
    }
}
