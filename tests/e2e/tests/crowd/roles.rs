//! A crowd of new pods with roles, while STS throttles: the promise is the one for EKS Auth, and pods of EKS
//! Auth notice nothing of it.

use std::time::Duration;

use sandbox::{Effect, Fault, Service};

use super::pods::{AT, address_of, alone, ask, verifying};
use crate::harness::{Client, pod as pod_of_eks_auth, sandbox};
use crate::web_identity::{READER, file, map_of, pod, session_of, sts_calls, trust_app};

const PODS: usize = 500;
/// Pods of EKS Auth among them.
const OTHERS: usize = 50;
/// What STS takes for a call.
const LATENCY: u64 = 100;

/// `most`: so many calls STS grants at once. `calls_for_each`: what a pod costs at most.
fn five_hundred_pods_with_a_role(most: usize, calls_for_each: usize) {
    alone(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        trust_app(&sandbox);
        let crowd = node.pod(&sandbox);
        node.stand_for_many(&crowd);
        let name = |pod| format!("app-of-many-{pod}");
        let client = |pod, token| Client { pod, token, from: Some(address_of(pod)), to: AT };
        let with_role: Vec<_> = (0..PODS).map(|n| client(n, pod(&sandbox, &name(n)).token)).collect();
        let others: Vec<_> =
            (PODS..PODS + OTHERS).map(|n| client(n, pod_of_eks_auth(&sandbox, &name(n)).token)).collect();
        sandbox.faults().set([
            Fault::new(Service::Sts, Effect::Latency { ms: LATENCY, jitter_ms: 0 }),
            Fault::new(Service::Sts, Effect::Throttle { max_concurrent: most }),
        ]);
        let map = file(&sandbox, "role-map.json", &map_of(READER));
        let builder = verifying(&sandbox).flag("--sts-endpoint", sandbox.sts_url());
        let _agent = builder.flag("--role-map", &map).start().await;
        let (many, rest) = tokio::join!(
            ask(&crowd, with_role, Duration::from_millis(500), 3),
            ask(&crowd, others, Duration::from_millis(500), 1),
        );
        let calls = sts_calls(&sandbox);
        eprintln!("{}; {} calls of STS; EKS Auth: {}", many.summary(), calls.len(), rest.summary());
        rest.assert_all_served(OTHERS);
        many.assert_all_served(PODS);
        for (pod, key) in many.keys() {
            assert_eq!(sandbox.holder_of(key).map(|holder| holder.pod), Some(name(pod)), "{key}");
            assert_eq!(session_of(&sandbox, key).role_arn, READER);
        }
        assert!(calls.len() <= calls_for_each * PODS, "{} calls", calls.len());
    });
}

#[test]
fn five_hundred_pods_with_a_role_are_served_within_three_tries_with_one_call_each() {
    five_hundred_pods_with_a_role(50, 1);
}

#[test]
fn while_sts_throttles_five_hundred_pods_with_a_role_are_served_within_three_tries_with_two_calls_each() {
    five_hundred_pods_with_a_role(40, 2);
}
