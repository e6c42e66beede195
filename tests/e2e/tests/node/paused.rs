//! An owner that stands still for longer than what it wrote lasts, as in a paused machine.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::releases::{PER_POD, epoch, led_to, readiness_says, release, table};
use super::{on_both_families, pods_with_credentials};
use crate::harness::{IPV4, Load, Node, eventually, on_a_node, sandbox};

/// The shortest that the flags allow.
const LAPSE: Duration = Duration::from_secs(6);

/// Whether anything leads anywhere.
fn is_in_force(node: &Node) -> bool {
    table(node).contains("169.254.170.23 . 80 timeout")
}

#[test]
fn alone_it_leads_again_within_seconds() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let agent = release(&sandbox, 1)
            .switch("--share-port")
            .flag("--guard-port-timeout", "6s")
            .flag("--guard-timeout", "6s")
            .start()
            .await;
        let (port, first) = (led_to(node), epoch(node));
        assert_eq!(port, Some(2707));
        // Long enough to be renewed several times.
        sleep(Duration::from_secs(8)).await;
        assert_eq!(led_to(node), port);
        agent.signal(Signal::SIGSTOP);
        eventually("its elements lapse", async || !is_in_force(node)).await;
        agent.signal(Signal::SIGCONT);
        let continued = Instant::now();
        eventually("it leads again", async || led_to(node) == port).await;
        assert!(continued.elapsed() < Duration::from_secs(3), "{:?}", continued.elapsed());
        // Anew, if it had not begun to renew it when it was paused.
        assert!(epoch(node).wrapping_sub(first) <= 1, "what has lapsed is written once");
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
    });
}

#[test]
#[ignore = "in make nightly: 25 s of load"]
fn it_takes_back_nothing_that_another_agent_has_taken_meanwhile() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let brief = |number| {
            let builder = release(&sandbox, number).flag("--guard-port-timeout", "6s");
            builder.flag("--guard-timeout", "6s")
        };
        let old = brief(1).start().await;
        let first = epoch(node);
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        old.signal(Signal::SIGSTOP);
        let new = brief(2).start().await;
        let port = led_to(node);
        assert!(port.is_some(), "the paused one has port 80");
        let loads = on_both_families(&pods, Load::start, PER_POD);
        sleep(LAPSE + Duration::from_secs(2)).await;
        assert_eq!((led_to(node), epoch(node)), (port, first.wrapping_add(1)));
        old.signal(Signal::SIGCONT);
        eventually("it stands by", async || readiness_says(&old, "on standby").await).await;
        // As long as it would have renewed several times.
        sleep(LAPSE).await;
        assert_eq!((led_to(node), epoch(node)), (port, first.wrapping_add(1)), "it takes nothing back");
        assert!(!readiness_says(&new, "on standby").await);
        for load in loads {
            load.end().await.assert_unhurt_but_in(&[]);
        }
    });
}
