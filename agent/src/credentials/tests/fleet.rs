//! Several nodes of one account: what AWS allows the account is a rate over all of them, and no agent knows
//! of the others.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::aws::{Aws, Mood};
use super::{HOUR, Node};
use crate::config::Retention;

const NODES: usize = 5;
const PODS: usize = 300;
const PER_SECOND: u32 = 10;

#[tokio::test(start_paused = true)]
async fn five_nodes_share_ten_calls_a_second_for_three_hundred_pods_that_start_at_once() {
    let aws = Aws::new();
    aws.be(Mood::Rate { per_second: PER_SECOND, after: Duration::from_millis(100) });
    let retention =
        Retention::Keep { renew_after: 3 * HOUR, max_identities: NonZeroUsize::new(2_000).unwrap() };
    let nodes: Vec<Node> =
        (1..).take(NODES).map(|seed| Node::on(aws.clone(), seed, &retention, None)).collect();
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for pod in 0..PODS {
        let node = nodes[pod % NODES].clone();
        asking.spawn(async move {
            // A container that ends for want of credentials is started again.
            while !node.ask_as_boto3(pod).await {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            began.elapsed()
        });
    }
    let served = asking.join_all().await;
    // 29 s at the least: what 10 a second take for 300, and ten at once.
    let last = served.iter().copied().max().unwrap();
    assert!(last < Duration::from_secs(32), "{last:?}");
    assert!(aws.calls() <= 2 * PODS, "{} calls", aws.calls());
    assert_eq!(aws.most_of_one(), 1);
}
