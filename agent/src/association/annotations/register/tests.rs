//! The order of reads, and when there are none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Annotated, Answer, MOST_ACCOUNTS, Next, Register};
use crate::association::settings::RoleSettings;
use crate::clock::BootTime;
use crate::rng::Rng;
use crate::workload::{RoleArn, ServiceAccount, StsEndpoint};

const HOUR: Duration = Duration::from_secs(3_600);

fn at(ms: u64) -> BootTime {
    BootTime::from_boot(Duration::from_millis(1_000_000 + ms))
}

fn account(number: usize) -> ServiceAccount {
    in_namespace("ns", number)
}

fn in_namespace(namespace: &str, number: usize) -> ServiceAccount {
    let (name, uid) = (format!("sa-{number}").into(), format!("uid-{number}").into());
    ServiceAccount { namespace: namespace.into(), name, uid }
}

fn number_of(account: &ServiceAccount) -> usize {
    account.name.trim_start_matches("sa-").parse().unwrap()
}

fn a_role() -> Answer {
    let role = RoleArn::read("arn:aws:iam::111122223333:role/reader").unwrap();
    let endpoint = StsEndpoint::Regional;
    let settings = RoleSettings { role, audience: None, endpoint, token_life: Some(HOUR) };
    Answer::Annotated(Annotated::Role(Arc::new(settings)))
}

/// A register in which time passes in steps, with an API server that takes 50 ms for each answer.
struct Played {
    register: Register,
    rng: Rng,
    ms: u64,
    step: u64,
    under_way: Vec<(u64, ServiceAccount)>,
    /// When reads began, in milliseconds, and of which account.
    reads: Vec<(u64, usize)>,
    most_under_way: usize,
}

impl Played {
    fn new() -> Self {
        let (register, rng) = (Register::default(), Rng::seeded(7));
        Self { register, rng, ms: 0, step: 10, under_way: Vec::new(), reads: Vec::new(), most_under_way: 0 }
    }

    /// Until then; `before` is called at each step, `answer` for each read.
    fn until(
        &mut self,
        ms: u64,
        mut before: impl FnMut(&mut Register, u64),
        mut answer: impl FnMut(&ServiceAccount, u64) -> Answer,
    ) {
        while self.ms < ms {
            let now = at(self.ms);
            before(&mut self.register, self.ms);
            let (over, under_way) = self.under_way.drain(..).partition(|(began, _)| self.ms - began >= 50);
            self.under_way = under_way;
            for (_, account) in over {
                self.register.note(&account, &answer(&account, self.ms), now, &self.rng);
            }
            while let Next::Read(account) = self.register.next(now) {
                assert!(self.under_way.iter().all(|(_, other)| *other != account), "one read of an account");
                self.reads.push((self.ms, number_of(&account)));
                self.under_way.push((self.ms, account));
                self.most_under_way = self.most_under_way.max(self.under_way.len());
            }
            self.ms += self.step;
        }
    }
}

fn nothing(_: &mut Register, _: u64) {}

#[test]
fn of_250_accounts_each_has_its_turn_in_order_at_two_reads_a_second() {
    let mut played = Played { step: 100, ..Played::new() };
    let waits = |register: &mut Register, _| {
        for number in
            (0..250).filter(|number| register.known(&account(*number)).is_none()).collect::<Vec<_>>()
        {
            register.enter(&account(number), at(number as u64));
            register.wait_for(&account(number), at(number as u64));
        }
    };
    waits(&mut played.register, 0);
    played.until(
        126_000,
        |register, ms| {
            // A client waits for 4.5 s, and asks again after 5 s.
            for number in (0..250).filter(|_| ms % 9_500 <= 4_500) {
                if register.known(&account(number)).is_none() {
                    register.wait_for(&account(number), at(ms));
                }
            }
        },
        |_, _| a_role(),
    );
    let order: Vec<usize> = played.reads.iter().map(|(_, number)| *number).collect();
    assert_eq!(order, (0..250).collect::<Vec<_>>());
    assert!(played.reads.windows(3).all(|three| three[2].0 - three[0].0 >= 1_000), "{:?}", played.reads);
    assert!(played.reads[249].0 <= 125_000, "{:?}", played.reads[249]);
    assert!(played.reads[1].0 <= 100, "two at once: {:?}", played.reads[1]);
}

#[test]
fn those_who_wait_come_first_and_leave_every_fourth_read_to_the_others() {
    let mut played = Played { step: 50, ..Played::new() };
    for number in 0..10 {
        played.register.enter(&account(number), at(0));
        played.register.read_at(&account(number), at(0));
    }
    // Twenty accounts without a role, of which pods ask all the time.
    let greedy = |register: &mut Register, ms| {
        for number in 100..120 {
            register.enter(&account(number), at(ms));
            register.wait_for(&account(number), at(ms));
        }
    };
    played.until(30_000, greedy, |_, _| Answer::Annotated(Annotated::None));
    let quiet: Vec<usize> =
        played.reads.iter().map(|(_, number)| *number).filter(|number| *number < 100).collect();
    assert_eq!(quiet.len(), 10, "{:?}", played.reads);
    let place = |number: usize| played.reads.iter().position(|(_, read)| *read == number);
    assert!((0..10).all(|number| place(number) >= Some(3)), "those who wait first");
    let mut of_greedy = HashMap::<usize, usize>::new();
    played.reads.iter().filter(|(_, number)| *number >= 100).for_each(|(_, number)| {
        *of_greedy.entry(*number).or_default() += 1;
    });
    let (least, most) = (of_greedy.values().min().unwrap(), of_greedy.values().max().unwrap());
    assert!(of_greedy.len() == 20 && most - least <= 1, "{of_greedy:?}");
}

#[test]
fn an_account_is_read_again_every_ten_minutes_for_two_hours_and_sooner_if_somebody_asks() {
    let mut played = Played { step: 1_000, ..Played::new() };
    played.register.enter(&account(1), at(0));
    played.register.wait_for(&account(1), at(0));
    const HOUR: u64 = 3_600_000;
    played.until(26 * HOUR, nothing, |_, _| a_role());
    let pauses: Vec<u64> = played.reads.windows(2).map(|two| two[1].0 - two[0].0).collect();
    assert!(pauses.iter().all(|pause| (480_000..=722_000).contains(pause)), "{pauses:?}");
    assert!(pauses.iter().min().unwrap() + 120_000 < *pauses.iter().max().unwrap(), "jittered: {pauses:?}");
    let last = played.reads.last().unwrap().0;
    assert!((2 * HOUR..2 * HOUR + 722_000).contains(&last), "{last}");
    // Somebody asks again: the old answer counts, and is renewed.
    assert!(played.register.ask(&account(1), at(26 * HOUR)).is_some());
    assert!(played.register.take_new_wish());
    played.until(26 * HOUR + 1_000, nothing, |_, _| a_role());
    assert_eq!(played.reads.last().unwrap().0, 26 * HOUR);
    let reads = played.reads.len();
    // All the time: no more than once a minute.
    played.until(
        26 * HOUR + 601_000,
        |register, ms| drop(register.ask(&account(1), at(ms)).cloned()),
        |_, _| a_role(),
    );
    let more = played.reads.len() - reads;
    assert!((9..=10).contains(&more), "{more}");
}

#[test]
fn an_api_server_that_is_away_is_tried_once_at_a_time_and_less_and_less_often() {
    let mut played = Played { step: 50, ..Played::new() };
    for number in 0..50 {
        played.register.enter(&account(number), at(0));
    }
    let wait =
        |register: &mut Register, ms| (0..50).for_each(|number| register.wait_for(&account(number), at(ms)));
    played.until(300_000, wait, |_, _| Answer::Failed);
    let tries: Vec<u64> = played.reads.iter().map(|(ms, _)| *ms).collect();
    assert!(tries[..2] == [0, 0] && tries.len() <= 2 + 7 + 300 / 15, "{tries:?}");
    assert!(tries.windows(2).skip(1).all(|two| two[1] - two[0] >= 500), "{tries:?}");
    let accounts: Vec<usize> = played.reads.iter().map(|(_, number)| *number).collect();
    let distinct: std::collections::HashSet<_> = accounts.iter().collect();
    // One of four is tried again, as one that a pod waits for.
    assert!(distinct.len() >= accounts.len() - accounts.len() / 4, "other ones: {accounts:?}");
    // It is back.
    let began = played.ms;
    played.until(
        began + 56_000,
        |register, ms| {
            (0..50)
                .filter(|number| register.known(&account(*number)).is_none())
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|number| register.wait_for(&account(number), at(ms)));
        },
        |_, _| a_role(),
    );
    assert!((0..50).all(|number| played.register.known(&account(number)).is_some()));
}

#[test]
fn one_account_that_always_fails_holds_nobody_up() {
    let mut played = Played { step: 50, ..Played::new() };
    let wait = |register: &mut Register, ms: u64| {
        for number in 0..20 {
            register.enter(&account(number), at(ms));
            if register.known(&account(number)).is_none() {
                register.wait_for(&account(number), at(ms));
            }
        }
    };
    let one_fails =
        |account: &ServiceAccount, _| if number_of(account) == 0 { Answer::Failed } else { a_role() };
    played.until(20_000, wait, one_fails);
    assert!((1..20).all(|number| played.register.known(&account(number)).is_some()), "{:?}", played.reads);
}

#[test]
fn without_the_right_in_one_namespace_the_others_are_read() {
    let mut played = Played { step: 50, ..Played::new() };
    let closed = |number| in_namespace("closed", number);
    let wait = |register: &mut Register, ms: u64| {
        for account in (0..5).map(closed).chain((10..15).map(account)) {
            register.enter(&account, at(ms));
            if register.known(&account).is_none() {
                register.wait_for(&account, at(ms));
            }
        }
    };
    let answer = |account: &ServiceAccount, _| match &*account.namespace {
        "closed" => Answer::Forbidden,
        _ => a_role(),
    };
    // Pods ask for a minute, and then no more for ten.
    played.until(60_000, wait, answer);
    let tries = |played: &Played| played.reads.iter().filter(|(_, number)| *number < 10).count();
    // While they wait, every 5 to 10 s, and two at once.
    assert!((12..=24 + 2).contains(&tries(&played)), "{:?}", played.reads);
    let before = tries(&played);
    played.until(660_000, nothing, answer);
    assert!((10..15).all(|number| played.register.known(&account(number)).is_some()));
    assert!(
        played.register.is_forbidden(&closed(0), at(played.ms))
            || played.register.forbidden_namespaces() == 1
    );
    // For 15 s as if they waited; then after pauses of 40, 80, 160, 300 s, or half of that.
    assert!((2 * 2..=2 * 10).contains(&(tries(&played) - before)), "{:?}", played.reads);
    assert!(!played.register.is_forbidden(&account(10), at(played.ms)));
    // Somebody gives the right.
    played.until(played.ms + 13_000, wait, |_, _| a_role());
    assert!(
        (0..5).all(|number| played.register.known(&closed(number)).is_some()),
        "{:?}",
        played.reads.last()
    );
    assert_eq!(played.register.forbidden_namespaces(), 0);
}

#[test]
fn a_failure_is_new_once_and_so_is_the_answer_after_it() {
    let (mut register, rng) = (Register::default(), Rng::seeded(7));
    register.enter(&account(1), at(0));
    let mut noted = Vec::new();
    let mut ms = 0;
    for answer in
        [a_role(), Answer::Failed, Answer::Failed, a_role(), Answer::Forbidden, Answer::Forbidden, a_role()]
    {
        register.read_at(&account(1), at(ms));
        while !matches!(register.next(at(ms)), Next::Read(_)) {
            ms += 100;
        }
        noted.push(register.note(&account(1), &answer, at(ms), &rng));
    }
    assert_eq!(noted, [false, true, false, true, true, false, true]);
}

#[test]
fn at_the_bound_the_account_is_forgotten_that_was_asked_for_longest_ago() {
    let mut register = Register::default();
    for number in 0..MOST_ACCOUNTS {
        assert_eq!(register.enter(&account(number), at(number as u64)), None);
    }
    register.ask(&account(0), at(5_000));
    assert_eq!(register.enter(&account(0), at(5_001)), None, "it is there");
    assert_eq!(register.enter(&account(9_999), at(6_000)), Some(account(1)));
    assert_eq!(register.accounts.len(), MOST_ACCOUNTS);
    // One that is being read is forgotten too, and its answer with it.
    register.wait_for(&account(2), at(6_000));
    assert_eq!(register.next(at(6_000)), Next::Read(account(2)));
    assert_eq!(register.enter(&account(10_000), at(6_000)), Some(account(2)));
    assert!(!register.note(&account(2), &a_role(), at(6_100), &Rng::seeded(7)));
    assert_eq!((register.under_way, register.known(&account(2))), (0, None));
}

#[test]
fn one_who_has_left_keeps_its_place_for_a_while_and_longer_where_nobody_has_read() {
    let mut register = Register::default();
    register.enter(&account(1), at(0));
    register.wait_for(&account(1), at(0));
    assert_eq!(register.next(at(600_000)), Next::Idle, "not without end");
    register.wait_for(&account(1), at(600_000));
    // Another one comes later, and stays.
    register.enter(&account(2), at(700_000));
    register.wait_for(&account(2), at(700_000));
    assert_eq!(register.next(at(700_000)), Next::Read(account(1)));
    assert_eq!(register.next(at(700_000)), Next::Read(account(2)));
    for number in [1, 2] {
        register.note(&account(number), &Answer::Annotated(Annotated::None), at(700_000), &Rng::seeded(7));
        register.wait_for(&account(number), at(710_000));
    }
    register.wait_for(&account(2), at(720_000));
    assert_eq!(register.next(at(725_000)), Next::Read(account(2)));
    assert!(matches!(register.next(at(725_000)), Next::Wait(_)), "the other one is read when it is time");
}

#[test]
fn an_account_that_nobody_has_read_comes_before_those_without_a_role() {
    let mut played = Played { step: 50, ..Played::new() };
    let wait = |register: &mut Register, ms: u64| {
        for number in 0..20 {
            register.enter(&account(number), at(ms));
            register.wait_for(&account(number), at(ms));
        }
        if ms == 40_000 {
            register.enter(&account(99), at(ms));
            register.wait_for(&account(99), at(ms));
        }
    };
    played.until(45_000, wait, |_, _| Answer::Annotated(Annotated::None));
    let read = played.reads.iter().find(|(_, number)| *number == 99).unwrap();
    assert!(read.0 <= 41_000, "{read:?}");
}

#[test]
fn many_accounts_that_nobody_has_read_leave_every_fourth_read_to_one_that_is_read_again() {
    let mut played = Played { step: 50, ..Played::new() };
    played.register.enter(&account(0), at(0));
    played.register.wait_for(&account(0), at(0));
    played.until(1_000, nothing, |_, _| Answer::Annotated(Annotated::None));
    let wait = |register: &mut Register, ms: u64| {
        for number in (1..=250).filter(|_| ms == 1_000) {
            register.enter(&account(number), at(ms));
            register.wait_for(&account(number), at(ms));
        }
        register.wait_for(&account(0), at(ms));
    };
    played.until(21_000, wait, |_, _| Answer::Annotated(Annotated::None));
    let again = played.reads.iter().filter(|(_, number)| *number == 0).count();
    assert_eq!(again, 1 + 10, "{:?}", played.reads);
}

#[test]
fn that_an_account_has_no_role_counts_for_five_seconds_and_longer_where_there_are_many() {
    for (accounts, seconds) in [(1, 5), (5, 5), (20, 20), (100, 60)] {
        let mut register = Register::default();
        for number in 0..accounts {
            register.enter(&account(number), at(0));
            register.wait_for(&account(number), at(0));
        }
        for number in 0..accounts {
            let ms = 500 * number as u64;
            register.ask(&account(number), at(ms));
            let Next::Read(account) = register.next(at(ms)) else { panic!() };
            register.note(&account, &Answer::Annotated(Annotated::None), at(ms), &Rng::seeded(7));
        }
        let longest = (0..accounts).filter_map(|number| register.known(&account(number)));
        let longest = longest.map(|known| known.no_role_counts.as_secs()).max();
        assert_eq!(longest, Some(seconds), "{accounts}");
        // A minute later nobody asks for the others any more.
        register.ask(&account(0), at(200_000));
        register.read_at(&account(0), at(200_000));
        let Next::Read(account) = register.next(at(200_000)) else { panic!() };
        register.note(&account, &Answer::Annotated(Annotated::None), at(200_000), &Rng::seeded(7));
        assert_eq!(register.known(&account).unwrap().no_role_counts.as_secs(), 5);
    }
}

#[test]
fn what_failed_is_tried_again_though_nobody_waits_any_more() {
    for answer in [Answer::Failed, Answer::Forbidden] {
        let mut played = Played { step: 50, ..Played::new() };
        played.register.enter(&account(1), at(0));
        played.register.wait_for(&account(1), at(0));
        let answers = |_: &ServiceAccount, ms| if ms < 60_000 { answer.clone() } else { a_role() };
        played.until(400_000, nothing, answers);
        assert!(played.register.known(&account(1)).is_some(), "{:?}", played.reads);
    }
}

#[test]
fn a_renewal_has_an_old_answer_read_and_keeps_its_account_among_those_that_are_read() {
    const HOUR: u64 = 3_600_000;
    let mut played = Played { step: 1_000, ..Played::new() };
    played.register.enter(&account(1), at(0));
    played.register.wait_for(&account(1), at(0));
    played.until(30_000, nothing, |_, _| a_role());
    played.register.note_renewal(&account(1));
    played.until(59_000, nothing, |_, _| a_role());
    assert_eq!(played.reads.len(), 1, "the answer is fresh");
    played.until(61_000, nothing, |_, _| a_role());
    played.register.note_renewal(&account(1));
    assert!(played.register.take_new_wish());
    played.until(62_000, nothing, |_, _| a_role());
    assert_eq!(played.reads.last().unwrap().0, 61_000);
    // Nobody asks for two days, and its credentials are renewed each hour.
    let renews = |register: &mut Register, ms| {
        if ms % HOUR == 0 {
            register.note_renewal(&account(1));
        }
    };
    played.until(48 * HOUR, renews, |_, _| a_role());
    assert!(played.reads.windows(2).all(|two| two[1].0 - two[0].0 <= 722_000), "{:?}", played.reads);
    assert!(played.reads.last().unwrap().0 > 47 * HOUR);
}

#[test]
fn a_token_that_outlives_the_annotation_is_news_once_for_each_account() {
    let mut register = Register::default();
    let day = 24 * HOUR;
    assert_eq!(register.note_token_life(&account(0), day), None, "nobody knows it");
    for number in 0..2 {
        let account = account(number);
        register.enter(&account, at(0));
        register.wait_for(&account, at(0));
        assert_eq!(register.note_token_life(&account, day), None, "it was not read");
        assert_eq!(register.next(at(0)), Next::Read(account.clone()));
        register.note(&account, &a_role(), at(10), &Rng::seeded(7));
        assert_eq!(register.note_token_life(&account, HOUR), None, "as annotated");
        assert_eq!(register.note_token_life(&account, day), Some(HOUR));
        assert_eq!(register.note_token_life(&account, day), None, "it was said");
    }
}
