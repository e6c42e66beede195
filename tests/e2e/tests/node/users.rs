//! An update to a release that runs as another user: root believes nobody but root to be an agent.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::releases::{MIN_READY, PER_POD, epoch, is_ready, led_to, only_refused, release};
use super::{a_while, on_both_families, pods_with_credentials};
use crate::harness::{Builder, IPV4, Load, eventually, on_a_node, sandbox};

/// Each takes the other for a stranger: one that is not root is neither believed nor answered. The one that
/// has lost the table takes it back after three probes, once, and then not again for half a minute.
const MOST_TURNS: u32 = 3;

fn assert_ends(of_the_old: fn(Builder) -> Builder, of_the_new: fn(Builder) -> Builder) {
    on_a_node(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        let mut old = of_the_old(release(&sandbox, 1)).start().await;
        let first = epoch(node);
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let loads = on_both_families(&pods, Load::start, PER_POD);
        let new = of_the_new(release(&sandbox, 2)).start().await;
        sleep(MIN_READY).await;
        assert!(is_ready(&new).await, "{}", new.probe("/readyz").await.unwrap().body);
        let asked = Instant::now();
        old.signal(Signal::SIGTERM);
        assert!(old.ended(Duration::from_secs(20)).await.success());
        let served_on = asked.elapsed();
        eventually("nobody is led to a guard port", async || led_to(node).is_none()).await;
        a_while().await;
        assert!(is_ready(&new).await);
        let turns = epoch(node).wrapping_sub(first);
        let refused = only_refused(loads).await;
        eprintln!(
            "{refused} refused at 200 a second, {turns} turns, the old one served on for {served_on:?}"
        );
        // As where no table is.
        assert!(refused <= 12, "{refused} attempts at 200 a second");
        assert!(turns <= MOST_TURNS, "{turns} turns");
        assert!(served_on < Duration::from_secs(15), "{served_on:?}");
    });
}

#[test]
#[ignore = "in make nightly: a limit that the pages tell, and 200 connections a second"]
fn from_nobody_to_root_an_update_ends() {
    assert_ends(Builder::of_nobody, |root| root);
}

#[test]
#[ignore = "in make nightly: a limit that the pages tell, and 200 connections a second"]
fn from_root_to_nobody_an_update_ends() {
    assert_ends(|root| root, Builder::of_nobody);
}
