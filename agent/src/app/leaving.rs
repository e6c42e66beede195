//! The end of the agent, before it closes its listeners.
//!
//! Owns: how long it serves on for the sake of another agent. Must not know: how listeners drain.
//!
//! During an update the new agent has the table before the old one is asked to end. But a pod may be deleted
//! with no other agent there yet, and the next one starts within seconds: until then pods are better served
//! by this one.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Config;
use crate::lifecycle::shutdown::{Asked, Shutdown};
use crate::node::guard::{AFTER_TURNING, Switch, TableStatus};
use crate::node::other_agents;

/// How often it is looked for another agent.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits for a signal, serves on as long as that may help pods, and starts the drain. The end of the drain
/// counts from the signal on, as the kubelet's patience does.
pub(super) async fn leave_when_asked(shutdown: &Shutdown, config: &Config, switch: &Switch) {
    let asked = tokio::select! {
        asked = shutdown.wait_until_asked() => asked,
        () = shutdown.wait_for_stopped() => Asked::ByPerson,
    };
    let delay = match asked {
        Asked::BySupervisor => config.shutdown.delay,
        Asked::ByPerson => Duration::ZERO,
    };
    let end = Instant::now() + delay + config.shutdown.grace;
    let leaving = async {
        serve_on(delay, switch).await;
        if config.node_network.keeps_a_table() {
            switch.leave().await;
        }
    };
    tokio::select! {
        () = leaving => {}
        // A second signal.
        () = shutdown.wait_for_stopped() => {}
    }
    shutdown.begin(end.saturating_duration_since(Instant::now()).min(config.shutdown.grace));
}

async fn serve_on(delay: Duration, switch: &Switch) {
    let until = Instant::now() + delay;
    if switch.status() == TableStatus::None {
        // The other one waits for the port.
        let _found = timeout_at(until, another_agent()).await;
        return;
    }
    let taken = switch.until(Duration::ZERO, |state| state.status == TableStatus::StoodBack);
    if timeout_at(until, taken).await.is_ok() {
        // It may come back: the other one has died meanwhile.
        let over = switch.until(AFTER_TURNING, |state| state.status == TableStatus::StoodBack);
        let _over = timeout_at(until + AFTER_TURNING, over).await;
    }
}

async fn another_agent() {
    while !other_agents::is_there_one() {
        sleep(LOOK_EVERY).await;
    }
}
