//! What one pod may have of the agent, seen from the network of a pod: on loopback every caller is the host.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pods_with_credentials;
use crate::harness::{Builder, IPV4, Request, eks_auth_calls, on_a_node, sandbox};

/// Unverified calls of one pod a second (docs/design/decisions.md#fairness).
const SHARE: usize = 8;

#[test]
fn a_pod_with_rubbish_for_tokens_gets_eight_calls_a_second_out_of_us_and_others_are_served() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let _agent = Builder::on_a_node(&sandbox).start().await;
        let others = pods_with_credentials(node, &sandbox, 2, IPV4).await;
        let rubbish = node.pod(&sandbox);
        let (head_and_claims, signature) = rubbish.identity.token.rsplit_once('.').unwrap();
        let (head_and_claims, signature) = (head_and_claims.to_owned(), signature.to_owned());
        sandbox.reset_calls();
        let began = Instant::now();
        let flood = rubbish.namespace.within(async move || {
            let mut clients = JoinSet::new();
            for client in 0..40 {
                let (head_and_claims, signature) = (head_and_claims.clone(), signature.clone());
                clients.spawn(async move {
                    for n in 0.. {
                        let token = format!("{head_and_claims}.{client:04x}{n:04x}{}", &signature[8..]);
                        if began.elapsed() > Duration::from_secs(3) {
                            return n;
                        }
                        let request = Request::credentials(&token);
                        let patience = Duration::from_secs(2);
                        let _any =
                            tokio::time::timeout(patience, request.send(SocketAddr::new(IPV4, 80))).await;
                    }
                    0
                });
            }
            clients.join_all().await.into_iter().sum::<usize>()
        });
        let asking = async {
            while began.elapsed() < Duration::from_secs(3) {
                for pod in &others {
                    assert_eq!(pod.ask(IPV4).await.unwrap().status, 200);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (sent, ()) = tokio::join!(flood, asking);
        let (calls, lasted) = (eks_auth_calls(&sandbox).len(), began.elapsed());
        let most = SHARE * (2 + usize::try_from(lasted.as_secs()).unwrap());
        assert!(sent > most, "{sent} sent: that is no flood");
        assert!(calls >= SHARE && calls <= most, "{calls} calls in {lasted:?}, {most} allowed");
    });
}
