//! The ports that this agent listens on at each of its addresses.
//!
//! Owns: that list, and telling of its changes. Must not know: sockets, and what is redirected where.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

/// The listeners at one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Whether one is on the port of SDKs itself.
    pub has_own_port: bool,
    /// The guard port that one is on, meanwhile.
    pub guard_port: Option<u16>,
    /// The port of another agent that has ended, which this one has taken over.
    pub covered_port: Option<u16>,
}

/// The listeners at every guarded address. Clones share the list.
#[derive(Clone, Debug)]
pub struct Places {
    list: Arc<watch::Sender<BTreeMap<IpAddr, Place>>>,
}

impl Place {
    /// The port other than that of SDKs that connections can be sent to.
    pub fn other_port(&self) -> Option<u16> {
        self.guard_port.or(self.covered_port)
    }

    /// Whether anything listens.
    pub fn listens(&self) -> bool {
        self.has_own_port || self.other_port().is_some()
    }
}

impl Places {
    /// No listener yet.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let list = addresses.into_iter().map(|address| (address, Place::default())).collect();
        Self { list: Arc::new(watch::Sender::new(list)) }
    }

    /// Changes what is known of one address.
    pub fn change(&self, address: IpAddr, change: impl FnOnce(&mut Place)) {
        self.list.send_if_modified(|list| {
            let place = list.entry(address).or_default();
            let before = *place;
            change(place);
            before != *place
        });
    }

    /// Every address with its listeners.
    pub fn list(&self) -> Vec<(IpAddr, Place)> {
        self.list.borrow().iter().map(|(address, place)| (*address, *place)).collect()
    }

    /// What is known of one address.
    pub fn at(&self, address: IpAddr) -> Place {
        self.list.borrow().get(&address).copied().unwrap_or_default()
    }

    /// Waits until this is true of one address.
    pub async fn until(&self, address: IpAddr, mut is_so: impl FnMut(&Place) -> bool) {
        let mut changes = self.list.subscribe();
        // Waiting fails only without a sender, and `self` holds the sender.
        let _list = changes
            .wait_for(|list| is_so(&list.get(&address).copied().unwrap_or_default()))
            .await
            .map(|_| ());
    }

    /// The changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<BTreeMap<IpAddr, Place>> {
        self.list.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Places};
    use crate::workload::WELL_KNOWN;

    #[test]
    fn an_address_is_led_to_its_guard_port_before_one_that_was_another_agents() {
        let covered = Place { covered_port: Some(2708), ..Place::default() };
        assert_eq!(covered.other_port(), Some(2708));
        assert_eq!(Place { guard_port: Some(2707), ..covered }.other_port(), Some(2707));
        assert!(covered.listens() && !Place::default().listens());
    }

    #[tokio::test]
    async fn only_a_change_wakes_who_waits() {
        let places = Places::new(WELL_KNOWN);
        let mut changes = places.changes();
        places.change(WELL_KNOWN[0], |place| place.has_own_port = false);
        assert!(!changes.has_changed().unwrap());
        places.change(WELL_KNOWN[0], |place| place.has_own_port = true);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        places.until(WELL_KNOWN[0], |place| place.has_own_port).await;
        assert_eq!(places.list().len(), 2);
    }
}
