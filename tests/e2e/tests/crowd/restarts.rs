//! The agent of a full node is killed and comes again, with nothing in memory, while AWS throttles or is
//! away.

use std::time::Duration;

use nix::sys::signal::Signal;
use sandbox::{Effect, Fault, Pod, Sandbox, Service};
use tokio::time::{Instant, sleep};

use super::pods::{AT, address_of, alone, ask, verifying};
use crate::harness::{Agent, Asker, Client, Load, Node, Window, Wired, eks_auth_calls, pod, sandbox, slow};

const PODS: usize = 200;

/// Two hundred pods that all have their credentials.
async fn a_full_node(node: &Node, sandbox: &Sandbox, agent: &Agent) -> (Wired, Vec<Pod>) {
    let crowd = node.pod(sandbox);
    node.stand_for_many(&crowd);
    let pods: Vec<_> = (0..PODS).map(|n| pod(sandbox, &format!("app-of-many-{n}"))).collect();
    let client = |(pod, identity): (usize, &Pod)| {
        let token = identity.token.clone();
        Client { pod, token, from: Some(address_of(pod)), to: AT }
    };
    let clients = pods.iter().enumerate().map(client).collect();
    ask(&crowd, clients, Duration::from_secs(1), 3).await.assert_all_served(PODS);
    assert_eq!(eks_auth_calls(sandbox).len(), PODS);
    assert!(agent.log().contains("effective configuration"));
    (crowd, pods)
}

/// Each asks once a second, with tokens that rotate.
fn load(crowd: &Wired, pods: &[Pod]) -> Load {
    let asker = |(n, pod): (usize, &Pod)| Asker {
        name: pod.spec.pod.clone(),
        tokens: vec![pod.token.clone(), pod.another_token().unwrap(), pod.another_token().unwrap()],
        from: Some(address_of(n)),
        to: AT,
    };
    Load::of_many(crowd, pods.iter().enumerate().map(asker).collect())
}

async fn kill(agent: &mut Agent) {
    agent.signal(Signal::SIGKILL);
    agent.ended(Duration::from_secs(3)).await;
}

#[test]
fn two_hundred_pods_are_served_within_three_tries_after_a_sigkill_while_aws_throttles() {
    alone(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let builder = verifying(&sandbox);
        let mut agent = builder.start().await;
        let (crowd, pods) = a_full_node(node, &sandbox, &agent).await;
        let limit = Fault::new(Service::EksAuth, Effect::Throttle { max_concurrent: 20 });
        sandbox.faults().set([slow(100), limit]);
        let load = load(&crowd, &pods);
        sleep(Duration::from_secs(1)).await;
        sandbox.reset_calls();
        let killed = Instant::now();
        kill(&mut agent).await;
        let next = builder.start().await;
        sleep(Duration::from_secs(5)).await;
        let calls = eks_auth_calls(&sandbox);
        let report = load.end().await;
        let granted = calls.iter().filter(|call| call.status == Some(200)).count();
        let (hurt, last) = report.hurt();
        eprintln!(
            "{} calls, {granted} granted; {hurt} attempts of {} requests hurt, the last {:?} after the kill",
            calls.len(),
            report.len(),
            last.map(|last| last.saturating_duration_since(killed))
        );
        report.assert_none_lost();
        assert_eq!(granted, PODS, "one set for each pod");
        assert!(calls.len() < 2 * PODS, "{} calls", calls.len());
        assert!(!next.log().contains("panic"), "{}", next.log());
    });
}

#[test]
fn what_two_hundred_pods_lose_when_aws_is_gone_at_a_restart_is_counted_and_ends_with_the_outage() {
    alone(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let builder = verifying(&sandbox);
        let mut agent = builder.start().await;
        let (crowd, pods) = a_full_node(node, &sandbox, &agent).await;
        let load = load(&crowd, &pods);
        sleep(Duration::from_secs(1)).await;
        let gone = [Service::EksAuth, Service::Imds].map(|service| Fault::new(service, Effect::Refuse));
        sandbox.faults().set(gone);
        kill(&mut agent).await;
        let next = builder.spawn();
        let from = Instant::now();
        // As long as boto3 asks: whoever began at the kill has lost by then.
        sleep(Duration::from_secs(8)).await;
        let page = next.probe("/readyz").await.unwrap();
        assert_eq!(page.status, 503, "without credentials of its own it is not ready: {page:?}");
        sandbox.faults().set([]);
        let healed = Instant::now();
        sleep(Duration::from_secs(6)).await;
        let report = load.end().await;
        let during = report.lost_of(Window { from, to: healed });
        // Whoever asks a moment after it is over, and three seconds later as boto3 does, is served.
        let after = report.lost_of(Window::of(healed, Duration::from_secs(60)));
        let counted = async |outcome: &str| {
            let series = format!("pod_identity_agent_requests_total{{outcome=\"{outcome}\"}}");
            next.metric(&series).await
        };
        let (unavailable, cancelled) = (counted("unavailable").await, counted("cancelled").await);
        let failed = report.failed_attempts(Window { from, to: healed });
        eprintln!(
            "lost {} of {} requests during the outage, {} of {} begun after it; {failed} attempts failed; \
             counted {unavailable} unavailable, {cancelled} cancelled",
            during.1, during.0, after.1, after.0
        );
        assert!(during.1 > PODS, "that was no outage");
        assert_eq!(after.1, 0, "of {}", after.0);
        let counted = usize::try_from(unavailable + cancelled).unwrap();
        assert!(counted >= failed * 9 / 10, "{counted} counted of {failed}");
        assert!(!next.log().contains("panic"), "{}", next.log());
    });
}
