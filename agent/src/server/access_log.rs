//! One event per request for credentials, on the target `access`.
//!
//! Owns: which request is worth a line at info (misses, refusals, failures, the first hit of an identity),
//! how many such lines a peer has in a minute, and the sum of the rest. Must not know: how anything was
//! decided. Amazon's agent writes a line per request at info; on a busy node that is most of what it logs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::credentials::flight::shared_call::FlightId;
use crate::credentials::issued::Grant;
use crate::telemetry::metrics::Outcome;
use crate::workload::{Caller, PeerKey};

/// How often the sum of hits is logged.
const SUM_EVERY: Duration = Duration::from_secs(60);
/// Lines at info of one peer between two sums: enough for a pod with many processes that all start at once,
/// too few to fill a disk when one pod sends rubbish at full speed. What is left out is counted in the sum.
const MOST_LINES: u64 = 1_000;
/// Peers with a budget of their own; those that come after share one. A node has 250 pods at most by default,
/// and host networking has a few addresses.
const MOST_PEERS: usize = 1_024;

/// What is known of a request when it has ended.
pub struct Access<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// The identity's first hit.
    pub is_first_hit: bool,
    /// The status sent.
    pub status: Option<u16>,
    /// Why not, from a closed set.
    pub cause: Option<&'static str>,
    /// From where it came.
    pub peer: IpAddr,
    /// The peer that its line is charged to.
    pub charged_to: PeerKey,
    /// How long it took, with what it waited for a place.
    pub took: Duration,
    /// Who it was, or claimed to be.
    pub caller: &'a Caller,
    /// The flight that it waited for; the lines of the call carry its number.
    pub flight: Option<FlightId>,
    /// What was handed out.
    pub grant: Option<&'a Grant>,
}

/// Writes the events.
#[derive(Debug, Default)]
pub struct AccessLog {
    hits: AtomicU64,
    minute: Mutex<Minute>,
}

/// The lines since the last sum.
#[derive(Debug, Default)]
struct Minute {
    lines: HashMap<PeerKey, u64>,
    /// Of the peers beyond [`MOST_PEERS`].
    lines_of_others: u64,
}

/// What was left out since the last sum.
#[derive(Debug, Default, PartialEq, Eq)]
struct LeftOut {
    /// Lines.
    lines: u64,
    /// Of so many peers; those without a budget of their own count as one.
    peers: u64,
    /// The peer with the most lines left out, and how many.
    most: Option<(PeerKey, u64)>,
}

impl Minute {
    /// Counts a line; whether its peer has one left.
    fn allows(&mut self, peer: PeerKey) -> bool {
        let has_own_budget = self.lines.len() < MOST_PEERS || self.lines.contains_key(&peer);
        let lines =
            if has_own_budget { self.lines.entry(peer).or_default() } else { &mut self.lines_of_others };
        *lines += 1;
        *lines <= MOST_LINES
    }

    fn left_out(&self) -> LeftOut {
        let mut left_out = LeftOut::default();
        let of_peers = self.lines.iter().map(|(peer, lines)| (Some(*peer), *lines));
        for (peer, lines) in of_peers.chain([(None, self.lines_of_others)]) {
            let over = lines.saturating_sub(MOST_LINES);
            if over == 0 {
                continue;
            }
            left_out.lines += over;
            left_out.peers += 1;
            if let Some(peer) = peer.filter(|_| left_out.most.is_none_or(|(_, most)| over > most)) {
                left_out.most = Some((peer, over));
            }
        }
        left_out
    }
}

impl AccessLog {
    /// A request ended.
    pub fn record(&self, access: &Access<'_>) {
        let is_quiet = match access.outcome {
            Outcome::Hit => !access.is_first_hit,
            Outcome::Fetched
            | Outcome::Refused
            | Outcome::Unavailable
            | Outcome::Invalid
            | Outcome::Cancelled => false,
        };
        if access.outcome == Outcome::Hit {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        let is_worth_a_line = !is_quiet && self.minute.lock().allows(access.charged_to);
        if is_worth_a_line { write_info(access) } else { write_debug(access) }
    }

    /// Logs the sum of hits once a minute, for ever; cancel by dropping.
    pub async fn keep_summing(&self) {
        loop {
            tokio::time::sleep(SUM_EVERY).await;
            let hits = self.hits.swap(0, Ordering::Relaxed);
            let left_out = std::mem::take(&mut *self.minute.lock()).left_out();
            if hits > 0 || left_out.lines > 0 {
                write_sum(hits, &left_out);
            }
        }
    }
}

fn write_sum(hits: u64, left_out: &LeftOut) {
    tracing::info!(
        target: "access",
        hits,
        left_out = left_out.lines,
        left_out.peers = left_out.peers,
        left_out.most.addr = left_out.most.map(|(peer, _)| tracing::field::display(peer)),
        left_out.most.lines = left_out.most.map(|(_, lines)| lines),
        seconds = SUM_EVERY.as_secs(),
        "served from memory"
    );
}

/// A verified pod is `pod.*`; what an unverified token says is `claimed.*`, so that nobody takes one for the
/// other.
fn write_info(access: &Access<'_>) {
    let (pod, claimed) = (access.caller.verified(), access.caller.claimed());
    tracing::info!(
        target: "access",
        outcome = access.outcome.as_str(),
        status = access.status,
        cause = access.cause,
        peer.addr = %access.peer,
        took_ms = millis(access.took),
        pod.namespace = pod.map(|pod| &*pod.service_account.namespace),
        pod.service_account = pod.map(|pod| &*pod.service_account.name),
        pod.name = pod.map(|pod| &*pod.name),
        claimed.namespace = claimed.map(|pod| &*pod.namespace),
        claimed.service_account = claimed.map(|pod| &*pod.service_account),
        claimed.name = claimed.and_then(|pod| pod.name.as_deref()),
        association = access.grant.and_then(Grant::association),
        role = access.grant.map(|grant| &*grant.role),
        call.id = access.flight.map(tracing::field::display),
        "credentials requested"
    );
}

fn write_debug(access: &Access<'_>) {
    tracing::debug!(
        target: "access",
        outcome = access.outcome.as_str(),
        peer.addr = %access.peer,
        took_ms = millis(access.took),
        "credentials requested"
    );
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{LeftOut, MOST_PEERS, Minute};
    use crate::workload::PeerKey;

    fn peer(number: u32) -> PeerKey {
        PeerKey::new(Ipv4Addr::from_bits(number).into(), 1)
    }

    #[test]
    fn a_noisy_peer_silences_itself_and_nobody_else_and_the_sum_says_what_is_missing() {
        let mut minute = Minute::default();
        let written = (0..50_000).filter(|_| minute.allows(peer(1))).count();
        assert_eq!(written, 1_000);
        assert!((2..252).all(|other| minute.allows(peer(other))));
        (0..1_001).for_each(|_| _ = minute.allows(peer(2)));
        let most = Some((peer(1), 49_000));
        assert_eq!(minute.left_out(), LeftOut { lines: 49_002, peers: 2, most });
        assert_eq!(Minute::default().left_out(), LeftOut::default());
    }

    #[test]
    fn however_many_peers_there_are_the_memory_is_bounded() {
        let mut minute = Minute::default();
        assert_eq!((0..5_000).filter(|number| minute.allows(peer(*number))).count(), MOST_PEERS + 1_000);
        assert_eq!(minute.lines.len(), MOST_PEERS);
        assert!(minute.allows(peer(7)), "who has a budget keeps it");
        assert_eq!(minute.left_out(), LeftOut { lines: 5_000 - 2_024, peers: 1, most: None });
    }
}
