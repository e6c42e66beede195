//! What the rest of the agent sees of the table: who owns it, and where connections go.
//!
//! Owns: that state, and waiting for it. Must not know: how the table is written.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// An agent that has lost the table goes on accepting for this long: a SYN that is sent again comes to the
/// port that the first one was translated to.
pub const AFTER_TURNING: Duration = Duration::from_secs(5);
/// The last change of the table before the listeners close: a listing and a write of `nft`.
const LEAVING: Duration = Duration::from_secs(3);

/// Who owns the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableStatus {
    /// It cannot be written, or not yet.
    #[default]
    None,
    /// This agent's.
    Owner,
    /// Another agent's of this node.
    StoodBack,
}

/// The state of the table, as this agent knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Who owns it.
    pub status: TableStatus,
    /// The guard port that each address is redirected to; one that is missing here leads to the port of SDKs.
    pub guard_ports: Vec<(IpAddr, u16)>,
    /// The addresses where a probe to the port of SDKs has come to this agent by the table.
    pub leads_here: Vec<IpAddr>,
}

impl State {
    /// The guard port that connections to an address go to, if to any.
    pub fn guard_port_of(&self, address: IpAddr) -> Option<u16> {
        self.guard_ports.iter().find(|(of, _)| *of == address).map(|(_, port)| *port)
    }
}

/// The table, for those who only look at it. Clones share it.
#[derive(Clone, Debug)]
pub struct Switch {
    state: Arc<watch::Sender<(State, Instant)>>,
    is_leaving: Arc<watch::Sender<bool>>,
    has_left: Arc<watch::Sender<bool>>,
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

impl Switch {
    /// Nobody's yet.
    pub fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new((State::default(), Instant::now()))),
            is_leaving: Arc::default(),
            has_left: Arc::default(),
        }
    }

    /// Who owns the table now.
    pub fn status(&self) -> TableStatus {
        self.state.borrow().0.status
    }

    /// The table now.
    pub fn state(&self) -> State {
        self.state.borrow().0.clone()
    }

    /// Waits until this has been true of the table for a time without a break.
    pub async fn until(&self, time: Duration, mut is_so: impl FnMut(&State) -> bool) {
        let mut changes = self.state.subscribe();
        let mut since: Option<Instant> = None;
        loop {
            let (state, changed) = changes.borrow_and_update().clone();
            since = is_so(&state).then(|| since.unwrap_or(changed));
            let passes = async {
                match since {
                    Some(since) => sleep_until(since + time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passes => return,
                // It fails only without a sender, and `self` holds the sender.
                _changed = changes.changed() => {}
            }
        }
    }

    /// Has the keeper write the table for the last time, before this agent's listeners close.
    pub async fn leave(&self) {
        self.is_leaving.send_replace(true);
        let mut has_left = self.has_left.subscribe();
        let _in_time = timeout(LEAVING, has_left.wait_for(|left| *left)).await.map(|_| ());
    }

    /// The addresses that have been seen to lead to this agent.
    pub(super) fn show_led(&self, leads_here: Vec<IpAddr>) {
        self.show(State { leads_here, ..self.state() });
    }

    pub(super) fn show(&self, state: State) {
        self.state.send_if_modified(|(shown, since)| {
            let is_new = *shown != state;
            if is_new {
                (*shown, *since) = (state, Instant::now());
            }
            is_new
        });
    }

    pub(super) async fn wait_for_leave(&self) {
        let _asked = self.is_leaving.subscribe().wait_for(|leaving| *leaving).await.map(|_| ());
    }

    pub(super) fn left(&self) {
        self.has_left.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance, timeout};

    use super::{AFTER_TURNING, State, Switch, TableStatus};
    use crate::workload::WELL_KNOWN;

    fn to(guard_port: u16) -> State {
        State {
            status: TableStatus::StoodBack,
            guard_ports: vec![(WELL_KNOWN[0], guard_port)],
            ..State::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_been_so_for_long_is_not_waited_for_again() {
        let switch = Switch::new();
        switch.show(to(2708));
        advance(AFTER_TURNING).await;
        let start = Instant::now();
        switch.until(AFTER_TURNING, |state| state.status == TableStatus::StoodBack).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_break_begins_the_time_anew() {
        let switch = Switch::new();
        let is_back = |state: &State| state.status == TableStatus::StoodBack;
        let waiting = timeout(AFTER_TURNING * 2, switch.until(AFTER_TURNING, is_back));
        let turning = async {
            switch.show(to(2708));
            tokio::time::sleep(Duration::from_secs(3)).await;
            switch.show(State { status: TableStatus::Owner, ..State::default() });
            tokio::time::sleep(Duration::from_secs(1)).await;
            switch.show(to(2707));
        };
        let start = Instant::now();
        let (waited, ()) = tokio::join!(waiting, turning);
        assert!(waited.is_ok());
        assert_eq!(start.elapsed(), Duration::from_secs(4) + AFTER_TURNING);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_a_table_that_cannot_be_written() {
        let start = Instant::now();
        Switch::new().leave().await;
        assert_eq!(start.elapsed(), super::LEAVING);
    }
}
