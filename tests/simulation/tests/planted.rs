//! The planted bugs: the simulation must find each of them, by the promise that it breaks.
//!
//! Only in the copy of the tree that has the bugs. `bugs/cargo.sh test --test planted` looks for four of
//! them, or for those that the variable `BUGS` names: `BUGS=all`, or `BUGS="OneClock NoLimit"`.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::{available_parallelism, scope};

use parking_lot::Mutex;
use simulation::bug::Bug;
use simulation::journal::KEPT;
use simulation::kind::Kind;
use simulation::shrink::{RUNS, shrink};
use simulation::story::{Outcome, Story};
use simulation::suite;
use simulation::watch::Invariant;

/// The bugs that every change must find: one for each of the first four promises, and quick to find.
const FOUR: [Bug; 4] = [Bug::SharedSlot, Bug::ServesTheExpired, Bug::NoFallback, Bug::TwoFlights];

/// The promise that a bug is about, which some story must see broken, and what else it may break on the way.
/// Any other breach means that the simulation is wrong about the bug or about itself.
const fn breaks(bug: Bug) -> (Invariant, &'static [Invariant]) {
    use Invariant::{
        Blame, Budget, Entitlement, Gone, HeldIsServed, LongLife, NeverExpired, OneCall, OwnSetOnly, Time,
    };
    match bug {
        Bug::SharedSlot => (OwnSetOnly, &[]),
        Bug::ServesTheExpired => (NeverExpired, &[]),
        // By a time that wrong dates set back, a set that has expired is kept as well.
        Bug::OneClock => (NeverExpired, &[Gone]),
        Bug::RefusalBeatsHeld | Bug::NoFallback => (HeldIsServed, &[]),
        Bug::NeverWaits => (LongLife, &[]),
        // Nor does it hear from AWS that an association is gone.
        Bug::GivesUp => (LongLife, &[Entitlement]),
        Bug::TwoFlights => (OneCall, &[]),
        // Later requests get the flight's set until it expires; and the flight never leaves the table.
        Bug::FlightStays => (Gone, &[HeldIsServed, NeverExpired, LongLife]),
        Bug::NoLimit | Bug::NeverShrinks => (Budget, &[]),
        // When all permits are gone, nobody is served, those who wait wait for ever, and AWS tells no time.
        Bug::LeakedPermit => (HeldIsServed, &[Gone, LongLife, Time]),
        Bug::RenewsForNobody => (Gone, &[]),
        // The newer set is thrown away, so the older is renewed again and again, also when its pod is gone.
        Bug::KeepsTheOlder => (HeldIsServed, &[Gone, LongLife]),
        Bug::BlamesThePod => (Blame, &[]),
        // The time is never confirmed; and a wall clock that is behind refuses good tokens, and keeps sets
        // that have expired.
        Bug::IgnoresDate => (Time, &[Gone, Blame]),
        Bug::AllowsTheUnproven => (OwnSetOnly, &[]),
        // The older set is renewed again and again.
        Bug::KeepsTheRole => (Entitlement, &[HeldIsServed, LongLife, Gone]),
        // And beside the pod's new one, also when the pod is gone.
        Bug::KeepsTheLeftRole => (Entitlement, &[Gone]),
        Bug::NeverRevokes => (Entitlement, &[]),
        Bug::NoPatience | Bug::EvictsVerified => (HeldIsServed, &[]),
    }
}

#[test]
fn this_build_has_the_bugs_and_a_patch_for_each() {
    const { assert!(Bug::ARE_PLANTED) }
    let patches: BTreeSet<String> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("bugs"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".patch").map(str::to_owned))
        .filter(|name| name != "switch")
        .collect();
    assert_eq!(patches, Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect());
}

#[test]
fn with_no_bug_switched_on_no_short_story_breaks_a_promise() {
    for short in suite::short() {
        let outcome = run(&short);
        assert!(outcome.found.is_none(), "{outcome}");
    }
}

#[test]
fn a_planted_bug_is_found_and_breaks_the_promise_that_it_should() {
    let bugs = Mutex::new(chosen().into_iter());
    let wrong = Mutex::new(Vec::new());
    scope(|scope| {
        for _ in 0..available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(bug) = { bugs.lock().next() } {
                    match find(bug) {
                        Ok(outcome) => println!("{bug:?}: {}", first_line(&outcome)),
                        Err(why) => wrong.lock().push(why),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The bugs to look for.
#[expect(clippy::disallowed_methods, reason = "a choice of the person who starts the test, not a setting")]
fn chosen() -> Vec<Bug> {
    let Ok(names) = std::env::var("BUGS") else { return FOUR.to_vec() };
    if names == "all" {
        return Bug::ALL.to_vec();
    }
    let bugs: Vec<Bug> = names.split_whitespace().map(Bug::named).collect::<Option<_>>().unwrap_or_default();
    assert!(!bugs.is_empty(), "BUGS={names}: all, or names out of {:?}", Bug::ALL);
    bugs
}

/// The story that breaks the promise that this bug is about; or why the bug does not count as found.
fn find(bug: Bug) -> Result<Outcome, String> {
    let (intended, others) = breaks(bug);
    for story in suite::all() {
        let outcome = run(&story.with(bug));
        match invariant(&outcome) {
            None => {}
            Some(invariant) if invariant == intended => return Ok(outcome),
            Some(invariant) if others.contains(&invariant) => {}
            Some(_) => return Err(format!("{bug:?} is not expected to break this: {outcome}")),
        }
    }
    Err(format!("{bug:?} never breaks {intended}"))
}

#[test]
fn in_ten_days_a_set_is_asked_for_in_its_last_seconds() {
    let ten_days = (1..=4).map(suite::ten_days);
    let found = first_that_breaks(Invariant::NeverExpired, ten_days, Bug::ServesTheExpired);
    assert!(found.is_some());
}

#[test]
fn a_failing_story_is_made_shorter_in_a_bounded_number_of_runs_and_fails_the_same_way() {
    let crowds = (1..=3).map(|seed| Story::short(Kind::Rates, seed));
    let crowd = first_that_breaks(Invariant::Budget, crowds, Bug::NoLimit).unwrap();
    // Of a day with six pods none may be one too many for its breach: then the next day is told.
    let days = (1..=99).map(|seed| run(&suite::day(seed).with(Bug::NeverWaits)));
    let has_pods_to_spare =
        |failed: &Outcome| shrink(failed.clone()).unwrap().0.story.slots.len() < failed.story.slots.len();
    let day = days
        .filter(|outcome| invariant(outcome) == Some(Invariant::LongLife))
        .find(has_pods_to_spare)
        .unwrap();
    for failed in [crowd, day] {
        let (story, before) = (failed.story.clone(), invariant(&failed));
        let (shrunk, runs) = shrink(failed.clone()).unwrap();
        assert!(before.is_some() && invariant(&shrunk) == before, "{failed}became\n{shrunk}");
        assert_eq!(
            invariant(&run(&shrunk.story)),
            before,
            "the story that is printed fails when it is told again"
        );
        assert!((1..=RUNS).contains(&runs), "{runs} runs");
        assert!(shrunk.story.length < story.length, "{:?}", shrunk.story.length);
        assert!(shrunk.story.slots.len() < story.slots.len(), "{} slots", shrunk.story.slots.len());
        assert!(shrunk.count < failed.count, "{failed}became\n{shrunk}");
        // A head, what is seen of the pods involved and of the node, and how it was found.
        let lines = shrunk.to_string().lines().count();
        assert!(lines <= 5 + KEPT * (shrunk.involved.len() + 1), "{lines} lines:\n{shrunk}");
    }
}

/// The first of these stories that breaks this promise with a bug; the draws change with the code.
fn first_that_breaks(
    promise: Invariant,
    mut stories: impl Iterator<Item = Story>,
    bug: Bug,
) -> Option<Outcome> {
    stories
        .find_map(|story| Some(run(&story.with(bug))).filter(|outcome| invariant(outcome) == Some(promise)))
}

#[expect(clippy::unwrap_used, reason = "a helper of tests is not seen as one by clippy")]
fn run(story: &Story) -> Outcome {
    story.run().unwrap()
}

fn first_line(outcome: &Outcome) -> String {
    outcome.to_string().lines().take(1).collect()
}

fn invariant(outcome: &Outcome) -> Option<Invariant> {
    outcome.found.as_ref().map(|(_, found)| found.invariant)
}
