//! Which pods the log names: each once a day, with the number of its connections. Pure.
//!
//! Owns: what is remembered of each address. Must not know: how a line is written, or where counts come from.
//!
//! An address is given to another pod when its pod is gone. Then the count begins anew, as far as this
//! process has seen the change.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::pods::LivePod;

/// Between two lines about a pod.
const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// In one reading; the others come with the next one. A node with many pods must not fill the log at once.
const MOST_LINES: usize = 20;

/// The pods of this node by their addresses; `None`, where they are not known.
pub(super) type PodsByAddress = Option<HashMap<IpAddr, Arc<LivePod>>>;

/// What is remembered of the addresses: no more than the table has.
#[derive(Debug, Default)]
pub(super) struct Clients {
    known: HashMap<IpAddr, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The UID of the pod that had the address last.
    uid: Option<Box<str>>,
    /// The count of the last reading.
    counted: u64,
    /// What was counted before its pod was given the address.
    before: u64,
    /// The count in its last line.
    told: u64,
    /// When that was written; `None`: there was none about its pod.
    told_at: Option<Instant>,
}

/// Somebody to tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The address.
    pub(super) address: IpAddr,
    /// The pod, where it is known.
    pub(super) pod: Option<Arc<LivePod>>,
    /// How often it connected.
    pub(super) connections: u64,
}

/// What a reading has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Those to tell of now.
    pub(super) tell: Vec<Client>,
    /// How many pods, or addresses where pods are not known, have connected in the last day.
    pub(super) pods: usize,
}

impl Clients {
    /// Compares a reading with the last one. Where pods are known, an address that none of them has counts
    /// for nobody: its pod is gone, or the sender was made up.
    pub(super) fn take(&mut self, counted: &[(IpAddr, u64)], pods: &PodsByAddress, now: Instant) -> Found {
        let addresses: HashSet<_> = counted.iter().map(|(address, _)| *address).collect();
        self.known.retain(|address, _| addresses.contains(address));
        let mut found = Found::default();
        let mut uids: HashSet<&str> = HashSet::new();
        for (address, count) in counted {
            let known = self.known.entry(*address).or_default();
            let pod = pods.as_ref().map(|pods| pods.get(address));
            known.read(*count, pod.flatten());
            if pod.is_some_and(|pod| pod.is_none()) || known.connections() == 0 {
                continue;
            }
            let pod = pod.flatten();
            // A pod with an address of each family is one pod.
            found.pods += usize::from(pod.is_none_or(|pod| uids.insert(&pod.name.uid)));
            if found.tell.len() < MOST_LINES && known.is_due(now) {
                (known.told, known.told_at) = (known.counted, Some(now));
                let connections = known.connections();
                found.tell.push(Client { address: *address, pod: pod.cloned(), connections });
            }
        }
        found
    }
}

impl Known {
    fn read(&mut self, count: u64, pod: Option<&Arc<LivePod>>) {
        if count < self.counted {
            // Nobody came for a day, and then somebody did; or the table was made anew.
            (self.counted, self.before, self.told) = (0, 0, 0);
        }
        if let Some(LivePod { name, .. }) = pod.map(|pod| &**pod) {
            let is_others = self.uid.as_ref().is_some_and(|uid| *uid != name.uid);
            if is_others {
                self.before = self.counted;
            }
            // A line without the name of its pod is written again with it.
            if is_others || self.uid.is_none() {
                (self.told, self.told_at) = (self.before, None);
            }
            self.uid = Some(name.uid.clone());
        }
        self.counted = count;
    }

    /// How often its pod has connected.
    const fn connections(&self) -> u64 {
        self.counted.saturating_sub(self.before)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.counted > self.told && self.told_at.is_none_or(|at| now - at >= A_DAY)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{A_DAY, Clients, Found, MOST_LINES, PodsByAddress};
    use crate::pods::testing::pod;

    const MINUTE: Duration = Duration::from_secs(60);

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Which pods have which addresses.
    fn known(pods: &[(u8, &str)]) -> PodsByAddress {
        Some(pods.iter().map(|(last, uid)| (address(*last), Arc::new(pod(uid)))).collect())
    }

    /// The pods that get a line, and how often each connected.
    fn told(found: &Found) -> Vec<(Option<&str>, u64)> {
        let name = |client: &super::Client| client.connections;
        found
            .tell
            .iter()
            .map(|client| (client.pod.as_ref().map(|pod| &*pod.name.uid), name(client)))
            .collect()
    }

    #[test]
    fn each_pod_is_told_of_once_a_day_and_only_if_it_came_again() {
        let (mut clients, start, pods) = (Clients::default(), Instant::now(), known(&[(1, "a")]));
        let mut take = |count, after| clients.take(&[(address(1), count)], &pods, start + after);
        assert_eq!(told(&take(3, Duration::ZERO)), [(Some("a"), 3)]);
        for minute in 1..24 * 60 {
            let found = take(3 + u64::from(minute), MINUTE * minute);
            assert_eq!((told(&found), found.pods), (vec![], 1), "after {minute} minutes");
        }
        assert_eq!(told(&take(2_000, A_DAY)), [(Some("a"), 2_000)]);
        assert_eq!(told(&take(2_000, A_DAY * 2)), [], "it has not come since");
        assert_eq!(told(&take(2_001, A_DAY * 2 + MINUTE)), [(Some("a"), 2_001)]);
    }

    #[test]
    fn an_address_that_another_pod_has_now_begins_anew() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        clients.take(&[(address(1), 5)], &known(&[(1, "a")]), now);
        let found = clients.take(&[(address(1), 5)], &known(&[(1, "b")]), now);
        assert_eq!((told(&found), found.pods), (vec![], 0), "it has not connected");
        let found = clients.take(&[(address(1), 7)], &known(&[(1, "b")]), now);
        assert_eq!((told(&found), found.pods), (vec![(Some("b"), 2)], 1));
    }

    #[test]
    fn where_pods_are_known_an_address_of_none_of_them_counts_for_nobody() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        let found = clients.take(&[(address(1), 5), (address(9), 5)], &known(&[(1, "a")]), now);
        assert_eq!((told(&found), found.pods), (vec![(Some("a"), 5)], 1));
        // Its pod was not known to have the address yet.
        let found = clients.take(&[(address(9), 5)], &known(&[(9, "young")]), now);
        assert_eq!(told(&found), [(Some("young"), 5)]);
        let found = clients.take(&[(address(9), 6)], &known(&[]), now);
        assert_eq!(found, Found::default(), "it is gone");
    }

    #[test]
    fn without_pods_addresses_are_told_and_again_by_name_when_the_name_is_known() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        let counted = [(address(1), 5)];
        let found = clients.take(&counted, &None, now);
        assert_eq!((told(&found), found.pods), (vec![(None, 5)], 1));
        assert_eq!(told(&clients.take(&counted, &None, now)), []);
        assert_eq!(told(&clients.take(&counted, &known(&[(1, "a")]), now)), [(Some("a"), 5)]);
        assert_eq!(told(&clients.take(&counted, &None, now)), [], "the watch is away");
    }

    #[test]
    fn a_count_that_began_anew_is_no_step_back() {
        let (mut clients, start, pods) = (Clients::default(), Instant::now(), known(&[(1, "a")]));
        clients.take(&[(address(1), 5)], &pods, start);
        let found = clients.take(&[(address(1), 2)], &pods, start + A_DAY);
        assert_eq!(told(&found), [(Some("a"), 2)]);
    }

    #[test]
    fn a_pod_with_two_addresses_is_one_pod() {
        let counted = [(address(1), 5), (address(2), 1)];
        for (other, pods) in [("a", 1), ("b", 2)] {
            let found = Clients::default().take(&counted, &known(&[(1, "a"), (2, other)]), Instant::now());
            assert_eq!(found.pods, pods);
        }
    }

    #[test]
    fn made_up_senders_fill_neither_the_log_nor_the_memory() {
        let (mut clients, start) = (Clients::default(), Instant::now());
        let many: Vec<_> = (0..=200).map(|last| (address(last), 1)).collect();
        let mut lines = 0;
        for minute in 0..60 {
            let found = clients.take(&many, &None, start + MINUTE * minute);
            assert!(found.tell.len() <= MOST_LINES, "{}", found.tell.len());
            lines += found.tell.len();
        }
        assert_eq!(lines, many.len(), "each in turn, once");
        clients.take(&[], &None, start + MINUTE * 61);
        assert!(clients.known.is_empty(), "what the table has not is forgotten");
    }
}
