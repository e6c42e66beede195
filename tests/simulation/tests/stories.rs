//! The stories that every change must pass.

use simulation::issuer::KeyState;
use simulation::kind::Kind;
use simulation::side_by_side;
use simulation::story::{Outcome, Story};
use simulation::suite;

#[expect(clippy::unwrap_used, reason = "a helper of tests is not seen as one by clippy")]
fn run(story: &Story) -> Outcome {
    story.run().unwrap()
}

/// The outcomes of all these stories; the first that breaks a promise fails.
#[expect(clippy::unwrap_used, reason = "a helper of tests is not seen as one by clippy")]
fn none_breaks_a_promise(stories: impl IntoIterator<Item = Story>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    side_by_side::run(stories, |outcome| outcomes.push(outcome.clone())).unwrap();
    for outcome in &outcomes {
        let Story { kind, seed, length, slots, .. } = &outcome.story;
        let hours =
            if *kind == Kind::Days { (length.as_secs() / 3600).to_string() } else { kind.name().to_owned() };
        let again = format!("make simulate SEED={seed} HOURS={hours} PODS={}", slots.len());
        assert!(outcome.found.is_none(), "{outcome}\nTry: {again}");
    }
    outcomes
}

#[test]
fn no_seed_breaks_a_promise() {
    let mut of_roles = (0, 0);
    for outcome in none_breaks_a_promise(suite::days()) {
        assert!(outcome.totals.2 > 30, "a story in which nothing happens proves nothing: {outcome}");
        of_roles = (of_roles.0 + outcome.of_roles.0, of_roles.1 + outcome.of_roles.1);
    }
    let (sets, of_other_roles) = of_roles;
    assert!(sets > 100 && of_other_roles > 10, "{sets} sets of STS, {of_other_roles} after a change of role");
}

#[test]
fn no_day_of_sixty_pods_breaks_a_promise() {
    for outcome in none_breaks_a_promise(suite::full_days()) {
        let (pods, sets, calls) = outcome.totals;
        assert!(pods > 100 && sets > 1000 && calls > 1000, "a quiet day: {outcome}");
    }
}

#[test]
fn ten_days_with_everything_that_happens_to_nodes_break_no_promise() {
    let story = suite::ten_days(3);
    // What a seed draws changes with the generator: this one must have everything.
    let weather = story.weather();
    let withdrawals = weather.keys.windows(2).filter(|pair| is_withdrawal(pair[0].1, pair[1].1)).count();
    let (keys, bends, own) = (weather.keys.len(), weather.bends.len(), weather.own.sets_before(story.length));
    assert!(keys > 20 && withdrawals > 3 && bends > 10 && own > 20, "{keys} {withdrawals} {bends} {own}");
    let outcome = run(&story);
    assert!(outcome.found.is_none(), "{outcome}\nTry: make simulate SEED=3 HOURS=240 PODS=8");
    let (pods, sets, calls) = outcome.totals;
    assert!(pods > 50 && sets > 1000 && calls > 2000, "ten days in which little happens: {outcome}");
}

/// Whether keys go that were published before.
fn is_withdrawal(before: KeyState, after: KeyState) -> bool {
    matches!((before.published, after.published), (Some(before), Some(after)) if before & !after != 0)
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in [3, 5, 7] {
        let (once, again) = (run(&suite::day(seed)), run(&suite::day(seed)));
        assert_eq!((once.digest, once.count), (again.digest, again.count), "seed {seed}");
        assert_ne!(once.digest, run(&suite::day(seed + 1)).digest);
    }
}

/// Where the machine is busy, real time goes by between two moments of a story. moka made room by real time,
/// and forgot by it. This story, in which sixteen identities are kept of sixty pods, was another one each
/// time.
#[test]
fn the_same_seed_is_the_same_story_on_a_busy_machine() {
    let told = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| run(&Story::new(2, 24, 60))));
        threads.map(|thread| thread.join().map(|outcome| (outcome.digest, outcome.count)))
    });
    let [first, others @ ..] = told.map(|told| told.unwrap_or_default());
    assert_eq!(others, [first; 3]);
    assert_ne!(first, Default::default());
}

#[test]
fn no_short_story_breaks_a_promise() {
    none_breaks_a_promise(suite::short());
}

#[test]
fn no_story_of_a_pause_breaks_a_promise() {
    none_breaks_a_promise(suite::pauses());
}
