//! What an admin reads of flags that do not match the cluster, while the API server makes up for them.

use std::time::Duration;

use super::{Accept, Auto, Node, Required, of_former_issuer, unpublished};
use crate::telemetry::logging::tests::Logged;

#[tokio::test(start_paused = true)]
async fn wrong_flags_are_named_once_a_minute_also_where_the_api_server_authenticates_the_tokens() {
    for (token, warning) in
        [(of_former_issuer(), "that is none of --issuer"), (unpublished(), "that none of --jwks has")]
    {
        for mode in [Auto, Required] {
            let (node, logged) = (Node::new(mode, Accept), Logged::from_now_on());
            for _ in 0..3 {
                assert_eq!(node.verdict(&token).await, "verified p-uid");
            }
            // Due again after ten minutes, and answered.
            tokio::time::sleep(Duration::from_secs(601)).await;
            assert_eq!(node.verdict(&token).await, "verified p-uid");
            let text = logged.text();
            let warnings: Vec<&str> = text.lines().filter(|line| line.contains(warning)).collect();
            assert_eq!(warnings.len(), 2, "{mode:?}: {text}");
            let say_what_follows =
                warnings.iter().all(|line| line.contains("the API server authenticates it"));
            assert!(say_what_follows, "{text}");
        }
    }
}
