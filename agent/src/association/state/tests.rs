//! What pods are given, and what ends that. Times are in milliseconds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Chosen, MOST_ACCOUNTS, State};
use crate::association::annotations::{Annotated, Answer, Next};
use crate::association::role_limits::RoleLimits;
use crate::association::role_map::RoleMap;
use crate::association::settings::RoleSettings;
use crate::association::testing::roles;
use crate::association::{NoRoute, Withdrawn};
use crate::clock::BootTime;
use crate::config::WebIdentity;
use crate::rng::Rng;
use crate::workload::RouteStatus::{Ended, Given, ToExpiry};
use crate::workload::{Pod, RoleArn, ServiceAccount, StsEndpoint};

const STS: &str = "sts.amazonaws.com";

fn at(ms: u64) -> BootTime {
    BootTime::from_boot(Duration::from_millis(1_000_000 + ms))
}

fn account() -> ServiceAccount {
    ServiceAccount { namespace: "ns".into(), name: "sa".into(), uid: "sa-uid".into() }
}

fn pod(uid: &str) -> Pod {
    Pod { service_account: account(), name: uid.into(), uid: uid.into(), node: None }
}

fn arn(role: &str) -> String {
    format!("arn:aws:iam::111122223333:role/{role}")
}

fn annotated(role: &str, audience: Option<&str>) -> Annotated {
    let (role, audience) = (RoleArn::read(&arn(role)).unwrap(), audience.map(Arc::from));
    let endpoint = StsEndpoint::Regional;
    Annotated::Role(Arc::new(RoleSettings { role, audience, endpoint, token_life: None }))
}

fn map(role: Option<&str>) -> RoleMap {
    let entry = role.map(|role| format!(r#""ns/sa":{{"RoleARN":"{}"}}"#, arn(role)));
    RoleMap::read(format!("{{{}}}", entry.unwrap_or_default()).as_bytes()).unwrap()
}

fn limits(role: &str) -> RoleLimits {
    RoleLimits::read(format!(r#"{{"ns":["{}"]}}"#, arn(role)).as_bytes()).unwrap()
}

/// With a map, limits, annotations.
fn state(map: bool, limits: bool, annotations: bool) -> State {
    State::new(&roles(map.then_some(Path::new("/map")), limits.then_some(Path::new("/limits")), annotations))
}

/// The same, with a map or annotations, where the agent serves these audiences.
fn state_serving(audiences: &[&str], map: bool, annotations: bool) -> State {
    let roles = roles(map.then_some(Path::new("/map")), None, annotations);
    State::new(&WebIdentity { audiences: audiences.iter().map(|name| (*name).to_owned()).collect(), ..roles })
}

/// What a pod is given, in a word.
fn choice(state: &mut State, pod_uid: &str, ms: u64) -> String {
    said(&state.choose(&pod(pod_uid), &STS.into(), at(ms)))
}

fn said(chosen: &Chosen) -> String {
    match chosen {
        Chosen::Route(route) => route.role.as_str().replace("arn:aws:iam::111122223333:role/", ""),
        Chosen::Refused(NoRoute::OtherAudience(other)) => format!("OtherAudience {}", other.of_role),
        Chosen::Refused(why) => format!("{why:?}"),
        Chosen::Former(route, why) => {
            let role = route.role.as_str().rsplit('/').next().unwrap();
            format!("{role} to its end: {why}")
        }
        Chosen::Unknown => "?".to_owned(),
    }
}

/// The account is read: it begins at that time, unless it is not wanted then.
fn read(state: &mut State, ms: u64, annotated: Annotated) {
    assert_eq!(state.next_read(at(ms)), Next::Read(account()), "at {ms}");
    state.note_read(&account(), &Answer::Annotated(annotated), at(ms + 5), &Rng::seeded(7));
}

/// The same for a new pod, which waits for it.
fn read_for(state: &mut State, pod_uid: &str, ms: u64, annotated: Annotated) -> String {
    let waits =
        |state: &mut State, ms| said(&state.choose_waiting(&pod(pod_uid), &STS.into(), at(ms), at(ms)));
    assert_eq!(waits(state, ms), "?");
    read(state, ms, annotated);
    waits(state, ms + 6)
}

fn withdrawn(state: &mut State) -> Vec<String> {
    std::iter::from_fn(|| state.next_withdrawn())
        .map(|Withdrawn { service_account, role }| {
            assert_eq!(service_account, account());
            role.as_str().rsplit('/').next().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn a_new_pod_has_the_annotation_read_and_an_old_one_does_not() {
    let mut state = state(false, false, true);
    assert_eq!(choice(&mut state, "a", 0), "?");
    assert_eq!(read_for(&mut state, "a", 0, annotated("r", None)), "r");
    assert_eq!(choice(&mut state, "a", 30_000), "r");
    assert_eq!(state.next_read(at(30_000)), Next::Wait(state_due(&mut state, 30_000)), "nothing to read yet");
    assert_eq!(choice(&mut state, "b", 30_000), "?", "a new pod");
}

/// For how long the register would wait.
fn state_due(state: &mut State, ms: u64) -> Duration {
    match state.next_read(at(ms)) {
        Next::Wait(pause) => pause,
        other @ (Next::Read(_) | Next::Idle) => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_role_is_remembered_for_five_seconds_and_a_new_pod_does_not_inherit_it() {
    let mut state = state(false, false, true);
    assert_eq!(read_for(&mut state, "a", 0, Annotated::None), "NoRole");
    assert_eq!(choice(&mut state, "a", 4_999), "NoRole");
    assert_eq!(choice(&mut state, "b", 2_000), "?", "annotated and restarted");
    assert_eq!(read_for(&mut state, "b", 2_100, annotated("r", None)), "r");
    assert_eq!(choice(&mut state, "a", 2_200), "r");
    let mut state = self::state(false, false, true);
    assert_eq!(read_for(&mut state, "a", 0, Annotated::None), "NoRole");
    assert_eq!(choice(&mut state, "a", 5_000), "?");
    assert_eq!(
        read_for(&mut state, "a", 5_000, Annotated::Invalid("no ARN".into())),
        r#"InvalidRole("no ARN")"#
    );
}

#[test]
fn an_annotation_that_is_gone_once_changes_nothing_for_known_pods() {
    let mut state = state(false, false, true);
    assert_eq!(read_for(&mut state, "a", 0, annotated("r", None)), "r");
    assert_eq!(
        read_for(&mut state, "b", 60_000, Annotated::None),
        "NoRole",
        "a new pod is given what there is"
    );
    assert_eq!(choice(&mut state, "a", 60_100), "r");
    // It is read again ten seconds after that, though nobody asks.
    assert_eq!(state_due(&mut state, 60_100), Duration::from_millis(9_900));
    read(&mut state, 70_000, annotated("r", None));
    assert_eq!((withdrawn(&mut state), choice(&mut state, "a", 70_100)), (vec![], "r".to_owned()));
    // A second time, from the beginning.
    assert_eq!(read_for(&mut state, "c", 90_000, Annotated::None), "NoRole");
    assert_eq!((withdrawn(&mut state), choice(&mut state, "a", 90_100)), (vec![], "r".to_owned()));
}

#[test]
fn an_annotation_that_is_gone_twice_ends_the_entitlement() {
    let mut state = state(false, false, true);
    assert_eq!(read_for(&mut state, "a", 0, annotated("r", None)), "r");
    assert_eq!(read_for(&mut state, "b", 60_000, Annotated::None), "NoRole");
    // New pods have it read in between: that is too soon.
    assert_eq!(read_for(&mut state, "c", 69_000, Annotated::None), "NoRole");
    assert_eq!((withdrawn(&mut state), choice(&mut state, "a", 69_100)), (vec![], "r".to_owned()));
    read(&mut state, 70_000, Annotated::Invalid("no ARN".into()));
    assert_eq!(withdrawn(&mut state), ["r"]);
    assert_eq!(choice(&mut state, "a", 70_100), r#"InvalidRole("no ARN")"#);
    assert_eq!(withdrawn(&mut state), [""; 0], "once");
    // It comes back.
    assert_eq!(read_for(&mut state, "a", 76_000, annotated("r", None)), "r");
}

#[test]
fn another_role_is_for_new_pods_at_once_and_for_old_ones_when_the_former_has_ended() {
    let mut state = state(false, false, true);
    assert_eq!(read_for(&mut state, "a", 0, annotated("old", None)), "old");
    assert_eq!(read_for(&mut state, "b", 60_000, annotated("new", None)), "new");
    assert_eq!(choice(&mut state, "a", 60_100), "old");
    read(&mut state, 70_000, annotated("new", None));
    assert_eq!(withdrawn(&mut state), ["old"]);
    assert_eq!(
        (choice(&mut state, "a", 70_100), choice(&mut state, "b", 70_100)),
        ("new".into(), "new".into())
    );
}

#[test]
fn another_audience_of_the_same_role_leaves_pods_what_they_have_and_renews_it_no_more() {
    let mut state = state_serving(&[STS, "mine"], false, true);
    assert_eq!(read_for(&mut state, "a", 0, annotated("r", None)), "r");
    let Chosen::Route(route) = state.choose(&pod("a"), &STS.into(), at(100)) else { panic!() };
    state.register.as_mut().unwrap().read_at(&account(), at(60_000));
    read(&mut state, 60_000, annotated("r", Some("mine")));
    assert_eq!(choice(&mut state, "a", 60_100), "r", "one read ends nothing");
    assert_eq!(choice(&mut state, "new", 60_100), "?");
    assert_eq!(state.status(&pod("a"), &route), Given);
    read(&mut state, 70_000, annotated("r", Some("mine")));
    assert_eq!(withdrawn(&mut state), [""; 0]);
    let why = "the audience of the service account's role is now mine, and the pod's token is for \
               sts.amazonaws.com: restart the pod, so that it gets a token for the former";
    assert_eq!(choice(&mut state, "a", 70_100), format!("r to its end: {why}"));
    assert_eq!(state.status(&pod("a"), &route), ToExpiry);
    assert_eq!(said(&state.choose(&pod("a"), &"mine".into(), at(70_200))), "r");
    // It is the account's role still, and ends like any other.
    let ms = 600_000;
    state.register.as_mut().unwrap().read_at(&account(), at(ms));
    read(&mut state, ms, Annotated::None);
    assert!(choice(&mut state, "a", ms + 100).starts_with("r to its end"));
    read(&mut state, ms + 10_000, Annotated::None);
    // Once for each audience that the pod was given it for.
    assert_eq!((withdrawn(&mut state), state.status(&pod("a"), &route)), (vec!["r".to_owned(); 2], Ended));
}

#[test]
fn an_audience_that_comes_back_is_given_as_before() {
    let of = |audience: &str| {
        let content = format!(r#"{{"ns/sa":{{"RoleARN":"{}","Audience":"{audience}"}}}}"#, arn("r"));
        Some(RoleMap::read(content.as_bytes()).unwrap())
    };
    let mut state = state_serving(&[STS, "mine"], true, false);
    state.note_map(of(STS), at(0));
    let Chosen::Route(route) = state.choose(&pod("a"), &STS.into(), at(0)) else { panic!() };
    state.note_map(of("mine"), at(5_000));
    state.note_map(None, at(10_000));
    assert_eq!(state.status(&pod("a"), &route), Given, "five seconds are no proof");
    state.note_map(None, at(15_000));
    assert_eq!(state.status(&pod("a"), &route), ToExpiry);
    state.note_map(of(STS), at(20_000));
    assert_eq!((state.status(&pod("a"), &route), choice(&mut state, "a", 20_100)), (Given, "r".to_owned()));
    // To one that the agent does not serve.
    state.note_map(of("vault"), at(25_000));
    state.note_map(None, at(35_000));
    let said = choice(&mut state, "a", 35_100);
    assert!(
        said.contains("now vault") && said.ends_with("which --web-identity-audience must name"),
        "{said}"
    );
    assert_eq!(withdrawn(&mut state), [""; 0]);
}

#[test]
fn a_pod_keeps_its_route_while_its_role_comes_from_elsewhere_or_by_another_endpoint() {
    let of = |members: &str| {
        let content = format!(r#"{{"ns/sa":{{"RoleARN":"{}"{members}}}}}"#, arn("r"));
        Some(RoleMap::read(content.as_bytes()).unwrap())
    };
    let mut state = state(true, false, true);
    state.note_map(Some(map(None)), at(0));
    assert_eq!(read_for(&mut state, "a", 0, annotated("r", None)), "r");
    let Chosen::Route(route) = state.choose(&pod("a"), &STS.into(), at(100)) else { panic!() };
    // From the annotation to an entry, to another endpoint, to the audience by its name.
    let entries = ["", r#","UseRegionalSTS":false"#, r#","Audience":"sts.amazonaws.com""#];
    for (entry, ms) in entries.into_iter().zip([100_000, 200_000, 300_000]) {
        state.note_map(of(entry), at(ms));
        state.register.as_mut().unwrap().read_at(&account(), at(ms));
        for after in [0, 10_000, 20_000] {
            if let Next::Read(account) = state.next_read(at(ms + after)) {
                let gone = Answer::Annotated(Annotated::None);
                state.note_read(&account, &gone, at(ms + after), &Rng::seeded(7));
            }
            state.note_map(None, at(ms + after));
        }
        assert_eq!(withdrawn(&mut state), [""; 0], "{entry}");
        assert_eq!(state.choose(&pod("a"), &STS.into(), at(ms + 30_000)), Chosen::Route(Arc::clone(&route)));
        assert_eq!(state.status(&pod("a"), &route), Given, "{entry}");
    }
    // But the role is the role.
    state.note_map(Some(map(None)), at(400_000));
    state.note_map(None, at(410_000));
    assert_eq!(withdrawn(&mut state), ["r"]);
    assert_eq!(state.status(&pod("a"), &route), Ended);
}

#[test]
fn an_entry_that_left_the_map_counts_for_ten_minutes_where_the_annotation_cannot_be_read() {
    let mut state = state(true, false, true);
    state.note_map(Some(map(Some("r"))), at(0));
    assert_eq!(choice(&mut state, "a", 0), "r");
    state.note_map(Some(map(None)), at(5_000));
    for second in (5..=615).step_by(5) {
        assert_eq!((withdrawn(&mut state), choice(&mut state, "a", second * 1_000)), (vec![], "r".into()));
        while let Next::Read(account) = state.next_read(at(second * 1_000)) {
            state.note_read(&account, &Answer::Forbidden, at(second * 1_000), &Rng::seeded(7));
        }
        state.note_map(None, at(second * 1_000));
    }
    assert_eq!(withdrawn(&mut state), ["r"]);
}

#[test]
fn nor_does_it_count_for_longer_where_the_map_cannot_be_read_any_more_either() {
    let mut state = state(true, false, true);
    state.note_map(Some(map(Some("r"))), at(0));
    assert_eq!(choice(&mut state, "a", 0), "r");
    state.note_map(Some(map(None)), at(5_000));
    state.note_map(None, at(15_000));
    for second in 15..=915 {
        if second == 614 {
            assert_eq!(
                (withdrawn(&mut state), choice(&mut state, "a", second * 1_000)),
                (vec![], "r".into())
            );
        }
        while let Next::Read(account) = state.next_read(at(second * 1_000)) {
            state.note_read(&account, &Answer::Forbidden, at(second * 1_000), &Rng::seeded(7));
        }
    }
    assert_eq!(withdrawn(&mut state), ["r"]);
}

#[test]
fn at_the_bound_a_pod_stays_that_asks_no_more_and_has_credentials_that_are_renewed() {
    let mut state = state(true, false, false);
    state.note_map(Some(map(Some("r"))), at(0));
    let Chosen::Route(route) = state.choose(&pod("a"), &STS.into(), at(0)) else { panic!() };
    for number in 1..3_000 {
        state.choose(&pod(&format!("p{number}")), &STS.into(), at(number));
        if number % 500 == 0 {
            assert_eq!(state.status(&pod("a"), &route), Given);
        }
    }
    state.note_map(Some(map(None)), at(5_000));
    state.note_map(None, at(15_000));
    assert_eq!(state.status(&pod("a"), &route), Ended);
}

#[test]
fn an_api_server_that_is_away_ends_nothing_and_a_new_pod_gets_the_known_answer_after_a_second() {
    let mut state = state(false, false, true);
    assert_eq!(read_for(&mut state, "a", 0, annotated("r", None)), "r");
    let waits =
        |state: &mut State, ms| said(&state.choose_waiting(&pod("b"), &STS.into(), at(60_000), at(ms)));
    assert_eq!(waits(&mut state, 60_000), "?");
    assert_eq!(state.next_read(at(60_000)), Next::Read(account()));
    state.note_read(&account(), &Answer::Failed, at(60_500), &Rng::seeded(7));
    assert_eq!(waits(&mut state, 60_999), "?");
    assert_eq!(waits(&mut state, 61_000), "r");
    for day in 1..20 {
        let ms = day * 86_400_000;
        assert_eq!(choice(&mut state, "a", ms), "r");
        while let Next::Read(account) = state.next_read(at(ms)) {
            state.note_read(&account, &Answer::Failed, at(ms), &Rng::seeded(7));
        }
    }
    assert_eq!(withdrawn(&mut state), [""; 0]);
}

#[test]
fn a_new_pod_waits_longer_for_its_turn_than_for_silence_and_never_for_an_old_refusal() {
    let mut state = state(false, false, true);
    assert_eq!(read_for(&mut state, "a", 0, annotated("old", None)), "old");
    let waits = |state: &mut State, uid: &str, ms| {
        said(&state.choose_waiting(&pod(uid), &STS.into(), at(60_000), at(ms)))
    };
    assert_eq!(waits(&mut state, "b", 60_000), "?");
    // Another account is answered: the API server is there.
    let other = Pod { service_account: ServiceAccount { name: "other".into(), ..account() }, ..pod("o") };
    state.choose_waiting(&other, &STS.into(), at(59_990), at(59_990));
    let Next::Read(first) = state.next_read(at(60_000)) else { panic!() };
    state.note_read(&first, &Answer::Annotated(Annotated::None), at(60_010), &Rng::seeded(7));
    assert_eq!(&*first.name, "other");
    assert_eq!((waits(&mut state, "b", 61_500), waits(&mut state, "b", 62_999)), ("?".into(), "?".into()));
    assert_eq!(waits(&mut state, "b", 63_000), "old");
    let mut state = self::state(false, false, true);
    assert_eq!(read_for(&mut state, "a", 0, Annotated::None), "NoRole");
    assert_eq!(waits(&mut state, "b", 120_000), "?", "it could have a role by now");
}

#[test]
fn without_the_right_a_known_role_counts_at_once_and_an_unknown_one_is_waited_for() {
    let mut state = state(false, false, true);
    assert_eq!(choice(&mut state, "a", 0), "?");
    let waits = |state: &mut State, uid: &str, ms| {
        said(&state.choose_waiting(&pod(uid), &STS.into(), at(ms), at(ms)))
    };
    assert_eq!(waits(&mut state, "a", 0), "?");
    assert_eq!(state.next_read(at(0)), Next::Read(account()));
    state.note_read(&account(), &Answer::Forbidden, at(10), &Rng::seeded(7));
    assert_eq!(
        (choice(&mut state, "a", 20), waits(&mut state, "b", 20)),
        ("?".into(), "?".into()),
        "they wait: the right may come a moment later"
    );
    assert_eq!(read_for(&mut state, "a", 10_100, annotated("r", None)), "r");
    assert_eq!(waits(&mut state, "c", 12_000), "?");
    assert_eq!(state.next_read(at(12_000)), Next::Read(account()));
    state.note_read(&account(), &Answer::Forbidden, at(12_010), &Rng::seeded(7));
    assert_eq!((waits(&mut state, "c", 12_020), choice(&mut state, "a", 12_020)), ("r".into(), "r".into()));
    assert_eq!(withdrawn(&mut state), [""; 0]);
}

#[test]
fn the_map_wins_and_needs_no_api_server() {
    let mut state = state(true, false, true);
    assert_eq!(choice(&mut state, "a", 0), "?", "the file was not looked at yet");
    state.note_map(Some(map(Some("mapped"))), at(10));
    assert_eq!(choice(&mut state, "a", 20), "mapped");
    assert_eq!(state.next_read(at(20)), Next::Idle);
    let mut state = self::state(true, false, false);
    state.note_map(Some(map(None)), at(10));
    assert_eq!(choice(&mut state, "a", 20), "NoRole");
}

#[test]
fn an_entry_that_leaves_the_map_ends_the_entitlement_by_two_good_reads_ten_seconds_apart() {
    let mut state = state(true, false, false);
    state.note_map(Some(map(Some("r"))), at(0));
    assert_eq!(choice(&mut state, "a", 0), "r");
    state.note_map(Some(map(None)), at(5_000));
    assert_eq!(
        (choice(&mut state, "a", 5_000), choice(&mut state, "b", 5_000)),
        ("r".into(), "NoRole".into())
    );
    state.note_map(None, at(14_999));
    assert_eq!(withdrawn(&mut state), [""; 0]);
    state.note_map(None, at(15_000));
    assert_eq!(
        (withdrawn(&mut state), choice(&mut state, "a", 15_000)),
        (vec!["r".to_owned()], "NoRole".into())
    );
    // It comes, goes, and is back in time.
    state.note_map(Some(map(Some("r"))), at(20_000));
    assert_eq!(choice(&mut state, "a", 20_000), "r");
    state.note_map(Some(map(None)), at(25_000));
    state.note_map(Some(map(Some("r"))), at(30_000));
    state.note_map(Some(map(None)), at(35_000));
    state.note_map(None, at(40_000));
    assert_eq!((withdrawn(&mut state), choice(&mut state, "a", 40_000)), (vec![], "r".into()));
}

#[test]
fn an_entry_that_leaves_the_map_while_an_annotation_names_the_same_role_takes_nothing_away() {
    for (annotation, ends) in [(annotated("r", None), vec![]), (Annotated::None, vec!["r".to_owned()])] {
        let mut state = state(true, false, true);
        state.note_map(Some(map(Some("r"))), at(0));
        assert_eq!(choice(&mut state, "a", 0), "r");
        state.note_map(Some(map(None)), at(5_000));
        // Now the annotation decides, so it is read at once.
        assert!(state.has_new_wish());
        read(&mut state, 5_000, annotation.clone());
        state.note_map(None, at(15_000));
        if !ends.is_empty() {
            read(&mut state, 15_000, annotation);
        }
        assert_eq!(withdrawn(&mut state), ends);
    }
}

#[test]
fn an_entry_with_another_role_ends_what_the_annotation_gave() {
    let mut state = state(true, false, true);
    state.note_map(Some(map(None)), at(0));
    assert_eq!(read_for(&mut state, "a", 0, annotated("r", None)), "r");
    state.note_map(Some(map(Some("mapped"))), at(5_000));
    assert_eq!(
        (choice(&mut state, "a", 5_000), choice(&mut state, "b", 5_000)),
        ("r".into(), "mapped".into())
    );
    state.note_map(None, at(15_000));
    assert_eq!(
        (withdrawn(&mut state), choice(&mut state, "a", 15_000)),
        (vec!["r".to_owned()], "mapped".into())
    );
}

#[test]
fn the_limits_bind_map_and_annotation() {
    let mut state = state(true, true, true);
    state.note_map(Some(map(Some("r"))), at(0));
    assert_eq!(choice(&mut state, "a", 0), "?");
    state.note_limits(Some(limits("other")), at(20));
    assert_eq!(
        (choice(&mut state, "a", 20), choice(&mut state, "a", 21)),
        ("NotAllowed".into(), "NotAllowed".into())
    );
    state.note_limits(Some(limits("*")), at(30));
    assert_eq!(choice(&mut state, "a", 30), "r");
    // They are tightened.
    state.note_limits(Some(limits("other")), at(5_000));
    assert_eq!(
        (choice(&mut state, "a", 5_000), choice(&mut state, "b", 5_000)),
        ("r".into(), "NotAllowed".into())
    );
    state.note_limits(None, at(15_000));
    assert_eq!(
        (withdrawn(&mut state), choice(&mut state, "a", 15_000)),
        (vec!["r".to_owned()], "NotAllowed".into())
    );
    let mut state = self::state(false, true, true);
    state.note_limits(Some(limits("other")), at(0));
    assert_eq!(read_for(&mut state, "a", 0, annotated("r", None)), "NotAllowed");
}

#[test]
fn what_sts_is_asked_for() {
    let mut state = state(true, false, false);
    let content =
        format!(r#"{{"ns/s*":{{"RoleARN":"{}","Audience":"mine","UseRegionalSTS":false}}}}"#, arn("r"));
    state.note_map(Some(RoleMap::read(content.as_bytes()).unwrap()), at(0));
    assert_eq!(choice(&mut state, "a", 0), "OtherAudience mine");
    let Chosen::Route(route) = state.choose(&pod("a"), &"mine".into(), at(0)) else { panic!() };
    assert_eq!((route.role.as_str(), &*route.audience, &*route.session_name), (&*arn("r"), "mine", "ns.a"));
    assert_eq!(route.endpoint, StsEndpoint::Global);
    let Chosen::Route(again) = state.choose(&pod("a"), &"mine".into(), at(1)) else { panic!() };
    assert!(Arc::ptr_eq(&route, &again), "nothing is made anew for a hit");
    assert_eq!(choice(&mut state, "a", 2), "OtherAudience mine");
}

#[test]
fn everything_is_bounded() {
    let mut state = state(true, false, true);
    let any = format!(r#"{{"ns/sa":{{"RoleARN":"{}"}},"many/*":{{"RoleARN":"{0}"}}}}"#, arn("r"));
    state.note_map(Some(RoleMap::read(any.as_bytes()).unwrap()), at(0));
    let of = |namespace: &str, number: usize| {
        let name = number.to_string();
        let service_account =
            ServiceAccount { namespace: namespace.into(), name: name.as_str().into(), uid: "u".into() };
        Pod {
            service_account,
            name: name.as_str().into(),
            uid: format!("{namespace}-{name}").into(),
            node: None,
        }
    };
    for number in 0..MOST_ACCOUNTS + 200 {
        state.choose(&of("many", number), &STS.into(), at(number as u64));
        state.choose_waiting(&of("annotated", number), &STS.into(), at(number as u64), at(number as u64));
    }
    assert!(state.grants.accounts().len() <= MOST_ACCOUNTS);
    assert!(state.pods.len() <= MOST_ACCOUNTS);
    assert_eq!(withdrawn(&mut state), [""; 0], "what is forgotten is not withdrawn");
    // One account that is annotated with another role all the time.
    for number in 0..60 {
        let ms = 10_000 + number * 100;
        state.note_map(Some(map(Some(&format!("r{number}")))), at(ms));
        state.choose(&pod(&format!("p{number}")), &STS.into(), at(ms));
    }
    let ended = withdrawn(&mut state);
    assert_eq!(ended.len(), 60 - 32, "{ended:?}");
}

#[test]
fn what_a_pod_has_outlasts_former_roles_that_no_pod_has() {
    let mut state = state(true, false, false);
    for number in 0..60 {
        let ms = number * 100;
        state.note_map(Some(map(Some(&format!("r{number}")))), at(ms));
        let uid = format!("p{number}");
        state.choose(&pod(&uid), &STS.into(), at(ms));
        if number > 0 {
            state.pods.forget_pod(&uid);
        }
    }
    let ended = withdrawn(&mut state);
    assert_eq!(ended.len(), 60 - 32);
    assert!(!ended.contains(&"r0".to_owned()), "{ended:?}");
    assert_eq!(choice(&mut state, "p0", 6_000), "r0");
}

#[test]
fn a_role_that_names_no_audience_is_for_each_that_is_served() {
    let mut state = state(true, false, false);
    state.note_map(Some(map(Some("r"))), at(0));
    for audience in [STS, "second", STS, "second"] {
        let Chosen::Route(route) = state.choose(&pod("a"), &audience.into(), at(0)) else { panic!() };
        assert_eq!((&*route.audience, route.role.as_str()), (audience, &*arn("r")));
        assert_eq!(state.status(&pod("a"), &route), Given);
    }
}

#[test]
fn what_was_withdrawn_is_given_no_more_and_what_was_forgotten_still_is() {
    let mut state = state(true, false, false);
    state.note_map(Some(map(Some("r"))), at(0));
    let Chosen::Route(route) = state.choose(&pod("a"), &STS.into(), at(0)) else { panic!() };
    state.note_map(Some(map(None)), at(1_000));
    assert_eq!(state.status(&pod("a"), &route), Given);
    state.pods.forget(&account());
    assert_eq!(state.status(&pod("a"), &route), Given);
    // It asks again, and what it is given is not known: it has lost nothing by that.
    assert_eq!(choice(&mut state, "a", 2_000), "NoRole");
    assert_eq!(state.status(&pod("a"), &route), Given);
    state.note_map(Some(map(Some("r"))), at(3_000));
    assert_eq!(choice(&mut state, "a", 3_000), "r");
    state.note_map(Some(map(None)), at(5_000));
    state.note_map(None, at(15_000));
    assert_eq!(state.status(&pod("a"), &route), Ended);
    state.note_map(Some(map(Some("r"))), at(16_000));
    assert_eq!(choice(&mut state, "a", 16_000), "r");
    assert_eq!(state.status(&pod("a"), &route), Given);
    state.note_map(Some(map(Some("other"))), at(20_000));
    state.note_map(None, at(30_000));
    assert_eq!(choice(&mut state, "a", 30_000), "other");
    assert_eq!(state.status(&pod("a"), &route), Ended);
}

#[test]
fn a_pod_of_an_account_that_was_made_again_loses_what_the_new_one_loses() {
    let mut state = state(false, false, true);
    assert_eq!(read_for(&mut state, "a", 0, annotated("r", None)), "r");
    // The same pod, with a token of the account that has the same name now.
    let again = ServiceAccount { uid: "second-uid".into(), ..account() };
    let rotated = Pod { service_account: again.clone(), ..pod("a") };
    let choose = |state: &mut State, ms| state.choose_waiting(&rotated, &STS.into(), at(ms), at(ms));
    let read = |state: &mut State, ms, annotated| {
        assert_eq!(state.next_read(at(ms)), Next::Read(again.clone()));
        state.note_read(&again, &Answer::Annotated(annotated), at(ms), &Rng::seeded(7));
    };
    assert_eq!(said(&choose(&mut state, 1_000)), "?", "nothing of the former counts for it");
    read(&mut state, 1_000, annotated("r", None));
    let Chosen::Route(route) = choose(&mut state, 1_100) else { panic!() };
    state.register.as_mut().unwrap().read_at(&again, at(20_000));
    read(&mut state, 20_000, Annotated::None);
    read(&mut state, 30_000, Annotated::None);
    assert_eq!(state.next_withdrawn().map(|withdrawn| withdrawn.service_account), Some(again));
    assert_eq!(state.status(&rotated, &route), Ended);
    assert_eq!(said(&choose(&mut state, 30_100)), "NoRole");
}
