//! The API server restarts, is away for minutes and changes its keys, while pods ask all the time.
//!
//! One test, because it needs a cluster of its own and a machine has two processors. It takes no turn, and is
//! named to begin with the first and to run beside all others. The outage is longer than a watch and than the
//! time between two reads of the keys, which are shortened by their flags.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::time::Instant;

use crate::harness::cluster::{Cluster, NODES, Stop, eventually};
use crate::harness::is_nightly;

const WATCH_TIMEOUT: Duration = Duration::from_secs(20);
/// As documented: a watch without a word is given up when its end is 10 s late.
const SILENCE: Duration = Duration::from_secs(30);
const REFRESH: Duration = Duration::from_secs(20);
/// Twice the longest pause between two tries of the agent to reach the API server: one may meet a server that
/// listens and is not ready.
const NEXT_TRY: Duration = Duration::from_secs(20);
/// From a deletion to the refusal of the pod's token.
const REVOKED: Duration = Duration::from_secs(5);
/// Longer than all of it: a load ends by itself then.
const LOAD_SECONDS: &str = "3600";

fn outage() -> Duration {
    Duration::from_secs(if is_nightly() { 600 } else { 180 })
}

#[test]
fn pods_do_not_notice_an_api_server_that_restarts_is_away_or_changes_its_keys() {
    let cluster = Cluster::start_bare();
    let began = Instant::now();
    cluster.make_accounts();
    cluster.install(&json!({
        "agent": {"additionalArgs": {
            "--watch-timeout": format!("{}s", WATCH_TIMEOUT.as_secs()),
            "--jwks-refresh-interval": format!("{}s", REFRESH.as_secs()),
        }},
    }));
    let loads = ["app-node-1", "shop-node-1", "app-node-2", "shop-node-2"];
    for load in loads {
        let (account, node) = load.split_once('-').expect("an account and a node");
        cluster.start_pod(load, account, node, &["python3", "/load.py", "5", LOAD_SECONDS]);
    }
    for pod in ["asks", "early", "late"] {
        cluster.start_pod(pod, "app", NODES[0], &["/bin/sleep", "3600"]);
    }
    for pod in loads.iter().chain(&["asks", "early", "late"]) {
        cluster.until_running(pod);
    }
    cluster.who_am_i("asks").unwrap();
    let mut took = vec![("installed", began.elapsed())];
    let mut stage = |name, stage: &dyn Fn(&Cluster)| {
        let began = Instant::now();
        stage(&cluster);
        took.push((name, began.elapsed()));
    };
    stage("restarts", &it_restarts_and_nobody_is_taken_for_gone);
    stage("outage", &it_is_away_and_new_pods_are_served_all_the_same_keys);
    stage("return", &it_is_back_and_a_deleted_pod_is_refused_within_seconds);
    stage("new key", &it_signs_with_a_new_key_and_the_agent_asks_for_it);
    stage("old key withdrawn", &it_withdraws_the_old_key_and_names_another_issuer);
    for load in cluster.end_loads(loads) {
        load.assert_unhurt();
    }
    let took: Vec<_> =
        took.iter().map(|(name, took)| format!("{name} {:.1} s", took.as_secs_f64())).collect();
    eprintln!("  API server: {}", took.join(", "));
}

fn restart(cluster: &Cluster, how: Stop, flags: &[String]) {
    cluster.stop_api_server(how);
    cluster.start_api_server(flags);
}

/// Waits until something is so, for so long at most.
fn within(limit: Duration, what: &str, is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    eventually(what, is_so);
    assert!(began.elapsed() < limit, "{what}: after {:?}", began.elapsed());
}

fn until_pods_are_known(cluster: &Cluster) {
    within(NEXT_TRY, "the agents know their pods", || NODES.iter().all(|node| cluster.knows_pods(node)));
}

fn it_restarts_and_nobody_is_taken_for_gone(cluster: &Cluster) {
    until_pods_are_known(cluster);
    for how in [Stop::Kill, Stop::Term, Stop::Kill] {
        restart(cluster, how, &[]);
        until_pods_are_known(cluster);
    }
    for node in NODES {
        assert_eq!(cluster.pod_checks(node, "gone"), 0, "somebody who lives was taken for gone on {node}");
        assert!(cluster.pod_checks(node, "confirmed") > 0, "they are looked at on {node}");
    }
    cluster.who_am_i("asks").unwrap();
}

/// How long ago the keys were read with success.
#[expect(clippy::disallowed_methods, reason = "the agent gives a Unix time, and is on this machine")]
fn age_of_keys(cluster: &Cluster, node: &str) -> Duration {
    let read = cluster.metric(node, "pod_identity_agent_token_keys_refresh_timestamp_seconds");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.saturating_sub(Duration::from_secs_f64(read))
}

fn it_is_away_and_new_pods_are_served_all_the_same_keys(cluster: &Cluster) {
    let [early, late] = ["early", "late"].map(|pod| cluster.container(pod));
    let began = Instant::now();
    // First it answers nothing, then it refuses connections: one is found out by time-outs only.
    cluster.freeze_api_server();
    cluster.who_am_i_on(NODES[0], &early).expect("it has never asked, and its key is known");
    within(SILENCE + Duration::from_secs(5), "the condition says that the watch is silent", || {
        let condition = cluster.condition(NODES[0], "pods");
        !condition.is_met && condition.reason.contains("API server")
    });
    std::thread::sleep((outage() / 3).saturating_sub(began.elapsed()));
    cluster.stop_api_server(Stop::Kill);
    std::thread::sleep(outage().saturating_sub(began.elapsed() + Duration::from_secs(5)));
    cluster.who_am_i_on(NODES[0], &late).expect("its key is known though it was not read for minutes");
    for node in NODES {
        let condition = cluster.condition(node, "pods");
        assert!(!condition.is_met && condition.reason.contains("cannot be reached"), "{condition:?}");
        let age = age_of_keys(cluster, node);
        assert!(age > outage().mul_f64(0.8), "the keys were read {age:?} ago, so this was no outage");
    }
    std::thread::sleep(outage().saturating_sub(began.elapsed()));
}

fn it_is_back_and_a_deleted_pod_is_refused_within_seconds(cluster: &Cluster) {
    cluster.start_api_server(&[]);
    let [deleted_at_once, deleted_later] = ["early", "late"].map(|pod| cluster.token_of(pod));
    let delete =
        |pod| cluster.kubectl(&["delete", "pod", pod, "--force", "--grace-period=0", "--wait=false"]);
    delete("early");
    until_pods_are_known(cluster);
    let is_refused = |token: &str| cluster.shown("asks", token) == "403";
    within(REVOKED, "a pod that was deleted before the watch went on", || is_refused(&deleted_at_once));
    assert_eq!(cluster.shown("asks", &deleted_later), "200", "and nobody else");
    delete("late");
    within(REVOKED, "a pod that was deleted after it", || is_refused(&deleted_later));
    within(NEXT_TRY + REFRESH, "the keys are read again", || age_of_keys(cluster, NODES[0]) < REFRESH);
    cluster.pod("after-the-outage", "app", NODES[0]);
    cluster.who_am_i("after-the-outage").expect("a new pod");
}

fn key_flags(signing: &str, verifying: &[&str]) -> Vec<String> {
    let verifying = verifying.iter().map(|key| format!("--service-account-key-file={key}"));
    verifying.chain([format!("--service-account-signing-key-file={signing}")]).collect()
}

fn it_signs_with_a_new_key_and_the_agent_asks_for_it(cluster: &Cluster) {
    let [old, new] = cluster.signing_keys();
    // Then the next read is far away, and only the unknown key can be the reason for one.
    eventually("the keys were just read", || age_of_keys(cluster, NODES[0]) < Duration::from_secs(1));
    let read = Instant::now();
    restart(cluster, Stop::Kill, &key_flags(new, &[new, old]));
    let token = cluster.new_token("asks", "app");
    assert_ne!(key_id(&token), key_id(&cluster.token_of("asks")));
    assert!(read.elapsed() < REFRESH.mul_f64(0.9), "the keys are read about now: {:?}", read.elapsed());
    assert_eq!(cluster.shown("asks", &token), "200", "its key was asked for");
    assert_eq!(reviews(cluster, "authenticated"), 0.0, "and the token was not shown to the API server");
    cluster.pod("of-the-new-key", "app", NODES[0]);
    cluster.who_am_i("of-the-new-key").expect("EKS Auth takes it too");
}

fn it_withdraws_the_old_key_and_names_another_issuer(cluster: &Cluster) {
    let [_, new] = cluster.signing_keys();
    let old = cluster.token_of("asks");
    assert_eq!(cluster.shown("asks", &old), "200", "two keys verify");
    renew_tokens(cluster, &old);
    let of_old_issuer = cluster.new_token("of-the-new-key", "app");
    let mut flags = key_flags(new, &[new]);
    let issuers = ["https://issuer.example/new", cluster.issuer()];
    flags.extend(issuers.map(|issuer| format!("--service-account-issuer={issuer}")));
    restart(cluster, Stop::Kill, &flags);
    let of_new_issuer = cluster.new_token("of-the-new-key", "app");
    let refreshed = REFRESH.mul_f64(1.1) + Duration::from_secs(5);
    within(refreshed, "the old key verifies no more", || cluster.shown("asks", &old) == "400");
    assert_eq!(cluster.shown("asks", &of_new_issuer), "200", "the API server names it");
    // The API server names the newest of its issuers only, and accepts both.
    assert_eq!(cluster.shown("asks", &of_old_issuer), "200", "the API server says that it is genuine");
    for outcome in ["authenticated", "denied"] {
        assert!(reviews(cluster, outcome) >= 1.0, "{outcome}");
    }
}

/// How many tokens the API server was shown that it judged like that.
fn reviews(cluster: &Cluster, outcome: &str) -> f64 {
    let series = format!("pod_identity_agent_token_reviews_total{{outcome=\"{outcome}\"}}");
    cluster.metric(NODES[0], &series)
}

/// The `kid` and the algorithm of a token.
fn key_id(token: &str) -> &str {
    token.split('.').next().expect("a header")
}

/// Starts the kubelet anew, which then gives its pods new tokens, and waits until the agent has one: an API
/// server that has withdrawn a key takes no token of that key, not even the agent's own.
fn renew_tokens(cluster: &Cluster, old: &str) {
    cluster.on_node(NODES[0], &["sh", "-c", "kill -KILL $(pgrep -x kubelet)"]);
    let agent = cluster.agent(NODES[0]).expect("it runs");
    let own = format!("/proc/{agent}/root/var/run/secrets/kubernetes.io/serviceaccount/token");
    eventually("the agent's own token is of the new key", || {
        key_id(&cluster.on_node(NODES[0], &["cat", &own])) != key_id(old)
    });
    eventually("the pods can be reached", || {
        cluster.try_kubectl(&["exec", "asks", "--", "sh", "-c", "true"]).status.success()
    });
}
