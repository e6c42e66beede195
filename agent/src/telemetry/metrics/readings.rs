//! Numbers that others keep, read when Prometheus asks.
//!
//! Owns: which numbers, and their series. Must not know: who keeps them, or how. What is not known has no
//! sample, and never a number that stands for "unknown".

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::workload::Source;

/// Reads a number, or some that belong together. Called once per scrape; it must not wait.
pub type Read<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Where each number is read.
pub struct Readings {
    /// Cached identities.
    pub cached_identities: Read<CachedIdentities>,
    /// The calls to each source that may be asked.
    pub upstream: Read<Vec<UpstreamNumbers>>,
    /// When the agent's own credentials expire, where that is known.
    pub own_credentials_expiration: Read<Option<SystemTime>>,
    /// The keys that tokens are verified with.
    pub token_keys: Read<TokenKeyNumbers>,
    /// By how many seconds AWS's clock is ahead of the node's.
    pub clock_offset_seconds: Read<f64>,
    /// The pods of this node, by their state; `None` while that is not known.
    pub pods: Read<Option<PodNumbers>>,
    /// Connections to the credential endpoint.
    pub connections: Read<ConnectionNumbers>,
    /// How often each limit was reached, by its label.
    pub limits_reached: Read<Vec<(&'static str, u64)>>,
    /// Pods that connect to the instance metadata service; `None` where nobody counts them.
    pub metadata_clients: Read<Option<MetadataClientNumbers>>,
    /// Lines that the log left out.
    pub log_lines_dropped: Read<u64>,
    /// Each condition by its name, and whether it is met.
    pub conditions: Read<Vec<(&'static str, bool)>>,
}

/// Identities with credentials in the cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct CachedIdentities {
    /// Those that the agent verified itself.
    pub verified: u64,
    /// Those that EKS Auth verified.
    pub unverified: u64,
}

/// The calls to one source.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamNumbers {
    /// The source.
    pub source: Source,
    /// Identities for which it is being called.
    pub identities_in_flight: usize,
    /// The budget of calls to it.
    pub budget: BudgetNumbers,
}

/// The budget of calls to a source.
#[derive(Clone, Copy, Debug, Default)]
pub struct BudgetNumbers {
    /// Calls that may be under way at once.
    pub limit: u32,
    /// Calls under way.
    pub in_flight: u32,
    /// How many wait, by priority.
    pub waiting: [(&'static str, usize); 5],
}

/// The keys that tokens are verified with.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenKeyNumbers {
    /// Their number.
    pub count: usize,
    /// When they were last read; of several sources, the one that was read longest ago counts. `None` if one
    /// was never read, or there is none.
    pub refreshed: Option<SystemTime>,
}

/// The pods of this node, by their state.
pub type PodNumbers = [(&'static str, usize); 4];

/// Pods that connect to the instance metadata service.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetadataClientNumbers {
    /// Their connections, by outcome.
    pub connections: [(&'static str, u64); 2],
    /// How many connected in the last day.
    pub pods: usize,
}

/// Connections to the credential endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionNumbers {
    /// Open now.
    pub open: u64,
    /// Refused for a limit, since the start.
    pub refused: u64,
    /// Idle ones that were closed, since the start.
    pub idle_closed: u64,
    /// Accepts that failed, since the start.
    pub accept_errors: u64,
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").finish_non_exhaustive()
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.cache(encoder)?;
        self.upstream(encoder)?;
        self.times(encoder)?;
        self.pods(encoder)?;
        self.metadata_clients(encoder)?;
        self.connections(encoder)?;
        counter(
            encoder,
            "pod_identity_agent_log_lines_dropped",
            "Log lines that were left out because standard error was not read in time, or refused them.",
            (self.log_lines_dropped)(),
        )?;
        let mut limits = counters(
            encoder,
            "pod_identity_agent_limit_reached",
            "How often a limit was reached; /readyz says for a minute what happens then.",
        )?;
        for (limit, reached) in (self.limits_reached)() {
            counter_by(&mut limits, ("limit", limit), reached)?;
        }
        let mut conditions = gauges(
            encoder,
            "pod_identity_agent_condition",
            "1 while a condition is met; /readyz has the reason where it is not.",
        )?;
        for (condition, is_met) in (self.conditions)() {
            gauge_by(&mut conditions, ("condition", condition), u64::from(is_met))?;
        }
        Ok(())
    }
}

impl Readings {
    fn cache(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let cached = (self.cached_identities)();
        let mut identities = gauges(
            encoder,
            "pod_identity_agent_cached_identities",
            "Identities with credentials in the cache, by whether the agent verified them itself.",
        )?;
        gauge_by(&mut identities, ("verified", "true"), cached.verified)?;
        gauge_by(&mut identities, ("verified", "false"), cached.unverified)
    }

    fn upstream(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let upstream = (self.upstream)();
        let of_each = |number: fn(&UpstreamNumbers) -> u64| {
            upstream.iter().map(move |of| (("source", of.source.as_str()), number(of)))
        };
        gauges_by(
            encoder,
            "pod_identity_agent_upstream_identities_in_flight",
            "Identities for which AWS is being called, by source; each has at most one call to each source.",
            of_each(|of| count(of.identities_in_flight)),
        )?;
        gauges_by(
            encoder,
            "pod_identity_agent_upstream_calls_in_flight",
            "Calls to AWS under way, by source.",
            of_each(|of| u64::from(of.budget.in_flight)),
        )?;
        gauges_by(
            encoder,
            "pod_identity_agent_upstream_calls_limit",
            "Calls to AWS that may be under way at once, by source; it adapts to throttling by that source.",
            of_each(|of| u64::from(of.budget.limit)),
        )?;
        let mut waiting = gauges(
            encoder,
            "pod_identity_agent_upstream_calls_waiting",
            "Calls to AWS that wait for their turn, by source and priority.",
        )?;
        for of in &upstream {
            for (priority, number) in of.budget.waiting {
                let labels = [("source", of.source.as_str()), ("priority", priority)];
                ConstGauge::new(count(number)).encode(waiting.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn times(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(at) = (self.own_credentials_expiration)() {
            seconds(
                encoder,
                "pod_identity_agent_own_credentials_expiration_timestamp",
                "Unix time at which the AWS credentials of the agent itself expire; absent while it has \
                 none, or none that expire.",
                unix_time(at),
            )?;
        }
        let keys = (self.token_keys)();
        gauge(
            encoder,
            "pod_identity_agent_token_keys",
            "Keys that tokens are verified with.",
            count(keys.count),
        )?;
        if let Some(at) = keys.refreshed {
            seconds(
                encoder,
                "pod_identity_agent_token_keys_refresh_timestamp",
                "Unix time at which the token keys were last read; of several sources, the one that was read \
                 longest ago counts. Absent until each was read.",
                unix_time(at),
            )?;
        }
        seconds(
            encoder,
            "pod_identity_agent_clock_offset",
            "Seconds by which the clock of AWS is ahead of the clock of the node; 0 while they are close, or \
             AWS has not answered yet.",
            (self.clock_offset_seconds)(),
        )
    }

    fn pods(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(pods) = (self.pods)() else { return Ok(()) };
        let mut states = gauges(
            encoder,
            "pod_identity_agent_pods",
            "Pods of this node, by their state. asked: they have asked for credentials, with a token that a \
             key has verified, since the agent started; silent: they have the variables of EKS Pod Identity, \
             and have not asked; missed: they lack the variables, though their service accounts have \
             associations; other: all else, finished pods included. Absent while the pods are not followed.",
        )?;
        for (state, number) in pods {
            gauge_by(&mut states, ("state", state), count(number))?;
        }
        Ok(())
    }

    fn metadata_clients(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(clients) = (self.metadata_clients)() else { return Ok(()) };
        let mut connections = counters(
            encoder,
            "pod_identity_agent_imds_connections",
            "Connections of pods to the instance metadata service, by outcome. passed: nothing on the node \
             stopped them; blocked: --block-imds=on rejected them. The kernel counts, so that a restart of \
             the agent loses none. Absent where they are not counted.",
        )?;
        for (outcome, number) in clients.connections {
            counter_by(&mut connections, ("outcome", outcome), number)?;
        }
        gauge(
            encoder,
            "pod_identity_agent_imds_pods",
            "Pods that connected to the instance metadata service in the last 24 hours, and still exist; \
             addresses, where the pods are not followed. The log names each. Absent where they are not \
             counted.",
            count(clients.pods),
        )
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let connections = (self.connections)();
        gauge(
            encoder,
            "pod_identity_agent_connections_open",
            "Open connections to the credential endpoint.",
            connections.open,
        )?;
        counter(
            encoder,
            "pod_identity_agent_connections_refused",
            "Connections that were closed, or refused after waiting, because a limit was reached.",
            connections.refused,
        )?;
        counter(
            encoder,
            "pod_identity_agent_connections_idle_closed",
            "Idle connections that the agent closed: to make room, or after their time.",
            connections.idle_closed,
        )?;
        counter(
            encoder,
            "pod_identity_agent_accept_errors",
            "Connections that could not be accepted, mostly for lack of file descriptors.",
            connections.accept_errors,
        )
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstGauge::new(value).encode(gauges(encoder, name, help)?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(counters(encoder, name, help)?)
}

/// A gauge in seconds; the encoder adds the unit to the name.
fn seconds(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let unit = Unit::Seconds;
    let metric = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

fn gauges<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn counters<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

fn gauges_by(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = ((&'static str, &'static str), u64)>,
) -> fmt::Result {
    let mut family = gauges(encoder, name, help)?;
    for (label, value) in values {
        gauge_by(&mut family, label, value)?;
    }
    Ok(())
}

fn gauge_by(family: &mut MetricEncoder<'_>, label: (&'static str, &'static str), value: u64) -> fmt::Result {
    ConstGauge::new(value).encode(family.encode_family(&[label])?)
}

fn counter_by(
    family: &mut MetricEncoder<'_>,
    label: (&'static str, &'static str),
    value: u64,
) -> fmt::Result {
    ConstCounter::new(value).encode(family.encode_family(&[label])?)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// To the millisecond: more digits would only be noise of reading two clocks.
fn unix_time(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1000.0).round() / 1000.0
}
