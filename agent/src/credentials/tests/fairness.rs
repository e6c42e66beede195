//! One peer never slows another (invariant 10), whatever it sends.

use std::time::Duration;

use super::aws::Mood;
use super::{Node, peer};
use crate::credentials::policy::hold::LONGEST_HOLD;
use crate::credentials::provider::Lookup;
use crate::lifecycle::limits::Limit;

const SLOW: Mood = Mood::Issues { after: Duration::from_millis(400), life: Duration::from_secs(6 * 3600) };

#[tokio::test(start_paused = true)]
async fn a_peer_with_many_tokens_has_eight_calls_under_way_and_the_rest_wait_their_turn() {
    let node = Node::new();
    node.aws.be(SLOW);
    let mut asks = tokio::task::JoinSet::new();
    for token in 0..24 {
        let node = node.clone();
        asks.spawn(async move { node.ask_as(&node.request_from(peer(1), token)).await.is_ok() });
    }
    let served = asks.join_all().await.into_iter().filter(|served| *served).count();
    assert_eq!(served, 24, "all that wait are served in the end");
    assert!(node.aws.most_in_all() <= 8, "{}", node.aws.most_in_all());
    assert!(node.limits.count(Limit::UpstreamCallsPerPeer) >= 16);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_bad_tokens_costs_aws_eight_calls_a_second_and_another_pod_nothing() {
    let node = Node::new();
    node.aws.be(Mood::Says(400, "InvalidTokenException"));
    let mut flood = tokio::task::JoinSet::new();
    // As many at once as one peer may hold, each with a new token every time.
    for client in 0..32_usize {
        let node = node.clone();
        flood.spawn(async move {
            for n in 0.. {
                let request = node.request_from(peer(1), 1_000 + client + 32 * n);
                let ask = node.ask_as(&request);
                let _refused_or_late = tokio::time::timeout(LONGEST_HOLD, ask).await;
                tokio::task::yield_now().await;
            }
        });
    }
    let mut slowest = Duration::ZERO;
    for pod in 1..=40 {
        node.aws.be_to(pod, Mood::Issues { after: Duration::from_millis(80), life: super::HOUR });
        let began = tokio::time::Instant::now();
        node.ask(pod).await.unwrap();
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(250) - began.elapsed()).await;
    }
    flood.abort_all();
    assert!(slowest <= Duration::from_millis(100), "{slowest:?}");
    let of_flood = node.aws.calls() - 40;
    assert!((70..=96).contains(&of_flood), "{of_flood} calls in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_joins_a_flight_needs_no_permit_of_its_own() {
    let node = Node::new();
    node.aws.be(Mood::Hangs);
    let mut others = tokio::task::JoinSet::new();
    for token in 0..8 {
        let node = node.clone();
        others.spawn(async move { node.ask_as(&node.request_from(peer(1), token)).await.is_ok() });
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    node.aws.be(Mood::Issues { after: Duration::from_millis(80), life: super::HOUR });
    let joins = node.credentials.provider.lookup(&node.request_from(peer(1), 3), node.clock.now());
    assert!(matches!(joins, Lookup::Wait(waiting) if !waiting.is_over_quota()));
    assert!(node.ask_as(&node.request_from(peer(1), 3)).await.is_ok());
}
