//! One event per request for credentials, on the target `access`.
//!
//! Owns: which request is worth a line at info (misses, refusals, failures, the first hit of an identity) and
//! the per-minute sum of the rest. Must not know: how anything was decided. Amazon's agent writes a line per
//! request at info; on a busy node that is most of what it logs.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::credentials::flight::shared_call::FlightId;
use crate::credentials::issued::Grant;
use crate::telemetry::metrics::Outcome;
use crate::workload::Caller;

/// How often the sum of hits is logged.
const SUM_EVERY: Duration = Duration::from_secs(60);
/// Lines at info between two sums: enough for a node on which every pod starts at once, too few to fill a
/// disk when one pod sends rubbish at full speed. What is left out is counted in the sum.
const MOST_LINES: u64 = 1_000;

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
    /// How long it took.
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
    lines: AtomicU64,
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
        let is_worth_a_line = !is_quiet && self.lines.fetch_add(1, Ordering::Relaxed) < MOST_LINES;
        if is_worth_a_line { write_info(access) } else { write_debug(access) }
    }

    /// Logs the sum of hits once a minute, for ever; cancel by dropping.
    pub async fn keep_summing(&self) {
        loop {
            tokio::time::sleep(SUM_EVERY).await;
            let hits = self.hits.swap(0, Ordering::Relaxed);
            let left_out = self.lines.swap(0, Ordering::Relaxed).saturating_sub(MOST_LINES);
            if hits > 0 || left_out > 0 {
                let seconds = SUM_EVERY.as_secs();
                tracing::info!(target: "access", hits, left_out, seconds, "served from memory");
            }
        }
    }
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
