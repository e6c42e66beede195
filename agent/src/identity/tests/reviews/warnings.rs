//! What an admin reads of flags that do not match the cluster, while the API server makes up for them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use super::{Accept, Auto, Deny, Node, Required, of_former_issuer, unpublished};
use crate::identity::keys::TokenKeys;
use crate::identity::testing::{
    EcSigner, ISSUER, Signer as _, authenticator, authenticator_of_api_server, claims_with, good_claims,
};
use crate::lifecycle::tasks::spawn_detached;
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

/// An API server of EKS before Kubernetes 1.34 does: EKS signs with keys of its own. No flag is wrong then.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_publishes_other_keys_than_it_authenticates_is_no_mistake_of_anybody() {
    for mode in [Auto, Required] {
        let keys = TokenKeys::of_sources(1);
        keys.replace(0, &json!({ "keys": [EcSigner::new("other").jwk()] }));
        spawn_detached("test-source", keys.clone().read_for_nothing(0));
        let node = Node::of(authenticator_of_api_server(mode, &[ISSUER], &keys), keys.clone(), Accept);
        let logged = Logged::from_now_on();
        assert_eq!(node.verdict(&unpublished()).await, "verified p-uid", "{mode:?}");
        assert!(!logged.text().contains("--jwks"), "{}", logged.text());
    }
}

/// A pod asks again with a token that was verified before: that is as good as a new one.
#[tokio::test(start_paused = true)]
async fn a_remembered_token_counts_against_those_of_a_key_that_nobody_has() {
    let key = EcSigner::new("known");
    let (authenticator, keys) = authenticator(Auto, &[key.jwk()]);
    let node = Node::of(authenticator, keys, Deny);
    let good = key.token(&good_claims());
    let foreign = node.authenticator.foreign_tokens();
    let (clock, said) = (node.clock.clone(), Arc::new(Mutex::new(None)));
    let noted = Arc::clone(&said);
    spawn_detached("test-report", foreign.report(clock, move |why| *noted.lock() = why));
    for minute in 0..30 {
        assert_eq!(node.verdict(&good).await, "verified p-uid");
        let claims = claims_with("/kubernetes.io/pod/uid", json!(format!("uid-{minute}")));
        node.verdict(&EcSigner::new("other").token(&claims)).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(*said.lock(), None, "minute {minute}");
    }
}
