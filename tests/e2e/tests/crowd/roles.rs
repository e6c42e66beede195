//! Crowds with roles, while STS throttles and while the keys are late: the promise is the one for EKS Auth,
//! and pods of EKS Auth notice nothing of it.

use std::time::Duration;

use sandbox::{Effect, Fault, Sandbox, Service};

use super::pods::{AT, address_of, alone, ask, clients_of_one, cpu_time, verifying};
use crate::harness::{Builder, Client, pod as pod_of_eks_auth, sandbox};
use crate::web_identity::{READER, file, map_of, pod, session_of, sts_calls, trust_app};

const PODS: usize = 500;
/// Pods of EKS Auth among them.
const OTHERS: usize = 50;

fn slow(service: Service, ms: u64) -> Fault {
    Fault::new(service, Effect::Latency { ms, jitter_ms: 0 })
}

fn with_a_map(sandbox: &Sandbox) -> Builder {
    trust_app(sandbox);
    let map = file(sandbox, "role-map.json", &map_of(READER));
    verifying(sandbox).flag("--sts-endpoint", sandbox.sts_url()).flag("--role-map", &map)
}

/// All ask within half a second, each up to three times as boto3 does. STS takes 100 ms for a call. `most`:
/// so many calls it grants at once. `calls_for_each`: what a pod costs at most.
fn five_hundred_pods_with_a_role(most: usize, calls_for_each: usize) {
    alone(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        let wired = node.pod(&sandbox);
        node.stand_for_many(&wired);
        let name = |pod| format!("app-of-many-{pod}");
        let client = |pod, token| Client { pod, token, from: Some(address_of(pod)), to: AT };
        let with_role: Vec<_> = (0..PODS).map(|n| client(n, pod(&sandbox, &name(n)).token)).collect();
        let others: Vec<_> =
            (PODS..PODS + OTHERS).map(|n| client(n, pod_of_eks_auth(&sandbox, &name(n)).token)).collect();
        let throttle = Fault::new(Service::Sts, Effect::Throttle { max_concurrent: most });
        sandbox.faults().set([slow(Service::Sts, 100), throttle]);
        let agent = with_a_map(&sandbox).start().await;
        let before = cpu_time("self");
        let (many, rest) = tokio::join!(
            ask(&wired, with_role, Duration::from_millis(500), 3),
            ask(&wired, others, Duration::from_millis(500), 1),
        );
        let calls = sts_calls(&sandbox);
        eprintln!("{}; {} calls of STS; EKS Auth: {}", many.summary(), calls.len(), rest.summary());
        let (ours, clients) = (cpu_time(&agent.pid().to_string()), cpu_time("self") - before);
        eprintln!("processor time: {ours:?} of the agent, {clients:?} of clients and sandbox");
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

/// The number of the promise for EKS Auth, at the same pace: STS grants fifty calls at once, 100 ms each.
#[test]
fn two_thousand_pods_with_a_role_and_three_clients_each_are_served_within_three_tries_with_one_call_each() {
    const PODS: usize = 2_000;
    alone(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let wired = node.pod(&sandbox);
        node.stand_for_many(&wired);
        let name = |pod| format!("app-of-many-{pod}");
        let client = |n: usize| {
            let token = pod(&sandbox, &name(n)).token;
            vec![Client { pod: n, token, from: Some(address_of(n)), to: AT }; 3]
        };
        let clients: Vec<_> = (0..PODS).flat_map(client).collect();
        let throttle = Fault::new(Service::Sts, Effect::Throttle { max_concurrent: 50 });
        sandbox.faults().set([slow(Service::Sts, 100), throttle]);
        let agent = with_a_map(&sandbox).of_the_image().start().await;
        let many = ask(&wired, clients, Duration::from_millis(500), 3).await;
        let calls = sts_calls(&sandbox).len();
        eprintln!("{}; {calls} calls of STS", many.summary());
        eprintln!("processor time: {:?} of the agent", cpu_time(&agent.pid().to_string()));
        many.assert_all_served(PODS);
        assert_eq!(calls, PODS, "one call for each pod");
    });
}

#[test]
fn four_hundred_first_requests_of_one_pod_with_a_role_are_served_by_one_call_at_the_first_try() {
    alone(async |node| {
        node.add_link();
        let sandbox = sandbox();
        sandbox.faults().set([slow(Service::Sts, 700), slow(Service::Issuer, 1_000)]);
        let _agent = with_a_map(&sandbox).start().await;
        let wired = node.pod(&sandbox);
        let token = pod(&sandbox, "app-0").token;
        let clients = clients_of_one(&wired, 400).into_iter();
        let clients = clients.map(|client| Client { token: token.clone(), ..client }).collect();
        let many = ask(&wired, clients, Duration::ZERO, 1).await;
        eprintln!("{}", many.summary());
        many.assert_all_served(1);
        assert_eq!(session_of(&sandbox, many.key_of(0)).role_arn, READER);
        assert_eq!(sts_calls(&sandbox).len(), 1);
    });
}
