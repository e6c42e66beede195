//! The agent ends and comes again while pods ask: what an upgrade of a DaemonSet without surge does to a
//! node.

use std::time::Duration;

use tokio::time::Instant;

use nix::sys::signal::Signal;

use super::{a_while, on_both_families, pods_with_credentials};
use crate::harness::{Builder, IPV4, Load, Window, on_a_node, sandbox};

/// From the signal until the next one listens, connections are refused: nobody is there. Applications do not
/// notice: boto3 tries three times, a second apart.
fn assert_survived(signal: Signal, code: Option<i32>) {
    on_a_node(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        let builder = Builder::on_a_node(&sandbox).with_keys(&sandbox);
        let mut agent = builder.start().await;
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let loads = on_both_families(&pods, Load::rotating, 25);
        a_while().await;
        let from = Instant::now();
        agent.signal(signal);
        assert_eq!(agent.ended(Duration::from_secs(3)).await.code(), code, "{}", agent.log());
        let _next = builder.start().await;
        let window = Window { from, to: Instant::now() };
        assert!(window.to - window.from < Duration::from_secs(2), "{window:?}: ended and begun takes long");
        a_while().await;
        for load in loads {
            let report = load.end().await;
            report.assert_none_lost();
            report.assert_unhurt_but_in(&[window]);
        }
    });
}

#[test]
fn sigterm_and_a_new_start_under_load_lose_no_request() {
    assert_survived(Signal::SIGTERM, Some(0));
}

#[test]
fn sigkill_and_a_new_start_under_load_lose_no_request() {
    assert_survived(Signal::SIGKILL, None);
}
