//! Three agents on one node at once: an update that is replaced by another before its old agent has ended.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::releases::{IN_TURN, MIN_READY, PER_POD, PODS, epoch, is_ready, led_to, readiness_says, release};
use super::{a_while, on_both_families, pods_with_credentials};
use crate::harness::{Agent, IPV4, Load, eventually, on_a_node, sandbox};

/// How many of them say that another one has the table.
async fn on_standby(agents: &[&Agent]) -> usize {
    let mut standing_by = 0;
    for agent in agents {
        let page = agent.probe("/readyz").await.expect("an answer").json();
        let conditions = page["conditions"].as_array().expect("conditions").clone();
        let guard = conditions.iter().find(|condition| condition["name"] == "address-guard");
        let reason = guard.expect("the condition")["reason"].as_str().unwrap_or_default().to_owned();
        standing_by += usize::from(reason.contains("on standby"));
    }
    standing_by
}

#[test]
fn an_update_that_is_replaced_leaves_one_owner_and_loses_no_connection() {
    let _turn = IN_TURN.lock();
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let mut old = release(&sandbox, 1).start().await;
        let first = epoch(node);
        let pods = pods_with_credentials(node, &sandbox, PODS, IPV4).await;
        let loads = on_both_families(&pods, Load::start, PER_POD);
        let mut new = release(&sandbox, 2).start().await;
        eventually("the old one stands by", async || readiness_says(&old, "on standby").await).await;
        let newer = release(&sandbox, 3).start().await;
        eventually("the new one stands by too", async || on_standby(&[&old, &new, &newer]).await == 2).await;
        assert_eq!(on_standby(&[&newer]).await, 0, "the last one has it");
        assert_eq!(epoch(node), first.wrapping_add(2), "each newcomer takes it once");
        let port = led_to(node);
        assert!([Some(2707), Some(2708)].contains(&port), "{port:?}");
        sleep(MIN_READY).await;
        assert_eq!((epoch(node), led_to(node)), (first.wrapping_add(2), port), "nobody takes it back");
        for ended in [&mut old, &mut new] {
            ended.signal(Signal::SIGTERM);
            assert!(ended.ended(Duration::from_secs(10)).await.success());
            a_while().await;
        }
        eventually("the newer one has port 80 itself", async || led_to(node).is_none()).await;
        a_while().await;
        assert_eq!(epoch(node), first.wrapping_add(2));
        assert!(is_ready(&newer).await);
        for load in loads {
            load.end().await.assert_unhurt_but_in(&[]);
        }
    });
}

#[test]
fn three_that_start_together_leave_one_owner_and_no_fight() {
    let _turn = IN_TURN.lock();
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let [a, b, c] = [1, 2, 3].map(|number| release(&sandbox, number).spawn());
        for agent in [&a, &b] {
            agent.until_ready().await;
        }
        // Two guard ports and port 80 are three places.
        c.until_ready().await;
        eventually("two stand by", async || on_standby(&[&a, &b, &c]).await == 2).await;
        let (settled, port) = (epoch(node), led_to(node));
        for _ in 0..50 {
            sleep(Duration::from_millis(100)).await;
            assert_eq!((epoch(node), led_to(node)), (settled, port));
        }
        assert_eq!(on_standby(&[&a, &b, &c]).await, 2);
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
    });
}
