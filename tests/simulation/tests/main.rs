//! The seeds that every change must pass, and the bugs that they must find.

use simulation::bug::Bug;
use simulation::kind::Kind;
use simulation::shrink::{RUNS, shrink};
use simulation::story::{Outcome, Story};
use simulation::watch::Invariant;

/// The seeds of `make test`. 40 is the one that serves a set in its last seconds.
const SEEDS: [u64; 13] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 40];

/// The seeds of each kind of short story.
const SHORT_SEEDS: [u64; 4] = [1, 2, 3, 4];

/// The promise that a bug is about, which some story must see broken, and what else it may break on the way.
/// Any other breach means that the simulation is wrong about the bug or about itself.
const fn breaks(bug: Bug) -> (Invariant, &'static [Invariant]) {
    use Invariant::{Blame, Budget, Gone, HeldIsServed, LongLife, NeverExpired, OneCall, OwnSetOnly};
    match bug {
        Bug::SharedPlace => (OwnSetOnly, &[]),
        Bug::ServesTheExpired => (NeverExpired, &[]),
        // By a clock that is behind, a set that has expired is kept as well.
        Bug::OneClock => (NeverExpired, &[Gone]),
        Bug::RefusalBeatsHeld | Bug::NoFallback => (HeldIsServed, &[]),
        Bug::NeverWaits | Bug::GivesUp => (LongLife, &[]),
        Bug::TwoFlights => (OneCall, &[]),
        // Those who come later are given what the flight brought, until it expires; and it is never tidied
        // away.
        Bug::FlightStays => (Gone, &[HeldIsServed, NeverExpired, LongLife]),
        Bug::NoLimit | Bug::NeverShrinks => (Budget, &[]),
        // When all permits are gone nobody is served, and those who wait wait for ever.
        Bug::LeakedPermit => (HeldIsServed, &[Gone, LongLife]),
        Bug::RenewsForNobody => (Gone, &[]),
        // The newer set is thrown away, so that the older is renewed again and again, also when its pod is
        // gone.
        Bug::KeepsTheOlder => (HeldIsServed, &[Gone, LongLife]),
        Bug::BlamesThePod => (Blame, &[]),
        // The boot clock still ends a set's service in time; by the wall clock, which is behind, it is kept.
        Bug::IgnoresDate => (Gone, &[]),
    }
}

fn story(seed: u64) -> Story {
    Story::new(seed, 8, 6)
}

#[expect(clippy::expect_used, reason = "a helper of tests is not seen as one by clippy")]
fn run(story: &Story) -> Outcome {
    story.run().expect("a runtime can be built")
}

#[test]
fn no_seed_breaks_a_promise() {
    for seed in SEEDS {
        let outcome = run(&story(seed));
        assert!(outcome.found.is_none(), "{outcome}\nTry: make simulate SEED={seed} HOURS=8 PODS=6");
        assert!(outcome.totals.2 > 30, "a story in which nothing happens proves nothing: {outcome}");
    }
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in [3, 5] {
        let (once, again) = (run(&story(seed)), run(&story(seed)));
        assert_eq!((once.digest, once.count), (again.digest, again.count), "seed {seed}");
        assert_ne!(once.digest, run(&story(seed + 1)).digest);
    }
}

/// All stories, the short ones first.
fn stories() -> impl Iterator<Item = Story> {
    let short = [Kind::Crowd, Kind::Sleepers, Kind::WrongClock]
        .into_iter()
        .flat_map(|kind| SHORT_SEEDS.map(|seed| Story::short(kind, seed)));
    short.chain(SEEDS.map(story))
}

#[test]
fn no_short_story_breaks_a_promise() {
    for short in stories().take_while(|story| story.kind != Kind::Days) {
        let outcome = run(&short);
        assert!(outcome.found.is_none(), "{outcome}");
    }
}

#[test]
fn each_planted_bug_is_found_and_breaks_the_promise_that_it_should() {
    let (one, other) = Bug::ALL.split_at(Bug::ALL.len() / 2);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let halves = [one, other]
            .map(|bugs| scope.spawn(move || bugs.iter().filter_map(|bug| what_is_wrong(*bug)).collect()));
        halves
            .into_iter()
            .flat_map(|half: std::thread::ScopedJoinHandle<'_, Vec<String>>| half.join().unwrap())
            .collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Why this bug does not count as found, if it does not.
fn what_is_wrong(bug: Bug) -> Option<String> {
    let (intended, others) = breaks(bug);
    for story in stories() {
        let outcome = run(&story.with(bug));
        match outcome.found.as_ref().map(|(_, found)| found.invariant) {
            None => {}
            Some(invariant) if invariant == intended => return None,
            Some(invariant) if others.contains(&invariant) => {}
            Some(_) => return Some(format!("{bug:?} is not expected to break this: {outcome}")),
        }
    }
    Some(format!("{bug:?} never breaks {intended}"))
}

#[test]
fn a_failing_story_is_made_shorter_in_a_bounded_number_of_runs_and_fails_the_same_way() {
    for (story, bug) in [(Story::short(Kind::Crowd, 2), Bug::NoLimit), (story(40), Bug::ServesTheExpired)] {
        let failed = run(&story.clone().with(bug));
        let before = invariant(&failed);
        let (shrunk, runs) = shrink(failed.clone()).expect("a runtime can be built");
        assert!(before.is_some() && invariant(&shrunk) == before, "{failed}became\n{shrunk}");
        assert_eq!(
            invariant(&run(&shrunk.story)),
            before,
            "the story that is printed fails when it is told again"
        );
        assert!((1..=RUNS).contains(&runs), "{runs} runs");
        assert!(shrunk.story.slots.len() < story.slots.len(), "{} slots", shrunk.story.slots.len());
        assert!(shrunk.story.length < story.length, "{:?}", shrunk.story.length);
        let lines = |outcome: &Outcome| outcome.to_string().lines().count();
        assert!(lines(&shrunk) <= lines(&failed) && shrunk.count < failed.count, "{failed}became\n{shrunk}");
    }
}

fn invariant(outcome: &Outcome) -> Option<Invariant> {
    outcome.found.as_ref().map(|(_, found)| found.invariant)
}
