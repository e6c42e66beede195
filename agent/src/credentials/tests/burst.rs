//! A node that starts: all its pods ask at once.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::task::JoinSet;

use super::aws::Mood;
use super::{HOUR, Node};
use crate::config::Retention;

const PODS: usize = 2_000;
const CLIENTS: usize = 3;

#[tokio::test(start_paused = true)]
async fn two_thousand_pods_with_three_clients_each_are_served_within_boto3s_tries_by_one_call_each() {
    let max_identities = NonZeroUsize::new(2 * PODS).unwrap();
    let node = Node::keeping(&Retention::Keep { renew_after: 3 * HOUR, max_identities });
    node.aws.be(Mood::Throttles { above: 50, after: Duration::from_millis(100) });
    let mut asking = JoinSet::new();
    for client in 0..PODS * CLIENTS {
        let (node, pod) = (node.clone(), client % PODS);
        // A pod's clients are spread over the half second, too.
        let after = Duration::from_micros(u64::try_from(client * 83).unwrap());
        asking.spawn(async move {
            tokio::time::sleep(after).await;
            node.ask_as_boto3(pod).await
        });
    }
    let served = asking.join_all().await.into_iter().filter(|served| *served).count();
    assert_eq!(served, PODS * CLIENTS);
    assert_eq!(node.aws.calls(), PODS);
    assert_eq!(node.aws.most_of_one(), 1);
    assert!(node.aws.most_in_all() <= 50, "{}", node.aws.most_in_all());
}
