//! The page of metrics: where each number is read.
//!
//! Owns: the closures that read. Must not know: names of series.

use std::time::Duration;

use super::{Credentials, OwnIdentity, Peers, Services, reached};
use crate::identity::keys::TokenKeys;
use crate::lifecycle::limits::LIMITS;
use crate::node::metadata_clients::Reading;
use crate::pods::{PodStates, Pods};
use crate::telemetry::logging;
use crate::telemetry::metrics::{
    CachedIdentities, ConnectionNumbers, MetadataClientNumbers, PodNumbers, Readings, TokenKeyNumbers,
    UpstreamNumbers,
};

impl Services {
    /// What others count or know, each read when Prometheus asks.
    pub(super) fn readings(
        &self,
        credentials: &Credentials,
        keys: &TokenKeys,
        peers: &Peers,
        own: &OwnIdentity,
        pods: &Pods,
    ) -> Readings {
        let (store, flights) = (credentials.store.clone(), credentials.flights.clone());
        let (budgets, own, keys) = (credentials.budgets.clone(), own.clone(), keys.clone());
        let (keys_clock, pods_clock, clock) = (self.clock.clone(), self.clock.clone(), self.clock.clone());
        let pods = pods.clone();
        let (connections, limits, limited) = (peers.clone(), self.limits.clone(), peers.clone());
        let (readiness, metadata_clients) = (self.readiness.clone(), self.metadata_clients.clone());
        Readings {
            cached_identities: Box::new(move || CachedIdentities {
                verified: store.verified_len(),
                unverified: store.unverified_len(),
            }),
            upstream: Box::new(move || {
                let of_each = budgets.numbers().into_iter();
                of_each
                    .map(|(source, budget)| UpstreamNumbers {
                        source,
                        identities_in_flight: flights.to(source),
                        budget,
                    })
                    .collect()
            }),
            own_credentials_expiration: Box::new(move || own.expires()),
            token_keys: Box::new(move || {
                let now = keys_clock.now();
                let view = keys.view(now.boot);
                TokenKeyNumbers {
                    count: view.keys,
                    refreshed: view.age.and_then(|age| now.wall.checked_sub(age)),
                }
            }),
            clock_offset_seconds: Box::new(move || signed_seconds(clock.offset_ms())),
            pods: Box::new(move || pods.states(pods_clock.now().boot).map(pod_numbers)),
            connections: Box::new(move || {
                let counts = connections.stats().snapshot();
                ConnectionNumbers {
                    open: counts.connections_open,
                    refused: counts.connections_refused_full + counts.connections_refused_peer,
                    idle_closed: counts.idle_evicted + counts.idle_expired,
                    accept_errors: counts.accept_errors,
                }
            }),
            limits_reached: Box::new(move || {
                LIMITS.map(|limit| (limit.label(), reached(limit, &limits, &limited))).to_vec()
            }),
            metadata_clients: Box::new(move || metadata_clients.last().map(metadata_client_numbers)),
            log_lines_dropped: Box::new(logging::lines_dropped),
            conditions: Box::new(move || {
                readiness.report().into_iter().map(|report| (report.name.as_str(), report.met)).collect()
            }),
        }
    }
}

const fn metadata_client_numbers(reading: Reading) -> MetadataClientNumbers {
    let Reading { passed, blocked, pods } = reading;
    MetadataClientNumbers { connections: [("passed", passed), ("blocked", blocked)], pods }
}

const fn pod_numbers(states: PodStates) -> PodNumbers {
    let PodStates { asked, silent, missed, other } = states;
    [("asked", asked), ("silent", silent), ("missed", missed), ("other", other)]
}

pub(super) fn signed_seconds(ms: i64) -> f64 {
    let seconds = Duration::from_millis(ms.unsigned_abs()).as_secs_f64();
    if ms < 0 { -seconds } else { seconds }
}
