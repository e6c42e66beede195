//! What is counted, and the page that Prometheus reads.
//!
//! Owns: with the files of its folder, names, labels and help of every series; the crate `prometheus_client`
//! is named nowhere else. Must not know: what the numbers are used for. Labels are closed sets: never a pod,
//! a token, an account or an error's text.
//!
//! Names are frozen with the first release, and docs/metrics.md lists them; it is made from here
//! (`reference`). Amazon's series keep their exact names beside those of this agent, so that its dashboards
//! keep working.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use amazon::AmazonMetrics;
use process::Process;

mod amazon;
mod authentication;
mod events;
mod pod_checks;
mod process;
mod readings;
#[cfg(test)]
mod reference;
mod requests;
mod self_probe;
mod text_format;
mod token_reviews;
mod upstream;

pub use authentication::{Authenticated, AuthenticationMetrics};
pub use events::{EventMetrics, EventOutcome};
pub use pod_checks::{PodCheckMetrics, PodPresence};
pub use readings::{
    BudgetNumbers, CachedIdentities, ConnectionNumbers, MetadataClientNumbers, PodNumbers, Read, Readings,
    TokenKeyNumbers, UpstreamNumbers,
};
#[cfg(test)]
pub(crate) use reference::page_with_everything;
pub use requests::{Outcome, RequestMetrics};
pub use self_probe::{ProbedFrom, SelfProbeMetrics};
pub use token_reviews::{ReviewOutcome, TokenReviewMetrics};
pub use upstream::{CallOutcome, UpstreamMetrics};

/// The label that requests, verdicts and calls have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// What is counted where it happens.
pub struct Metrics {
    /// Of requests for credentials.
    pub requests: Arc<RequestMetrics>,
    /// Of the verdicts on tokens.
    pub authentications: Arc<AuthenticationMetrics>,
    /// Of the reviews of tokens at the API server.
    pub token_reviews: Arc<TokenReviewMetrics>,
    /// Of the checks of callers against the cluster's pods.
    pub pod_checks: Arc<PodCheckMetrics>,
    /// Of Kubernetes Events.
    pub events: Arc<EventMetrics>,
    /// Of the calls to AWS.
    pub upstream: Arc<UpstreamMetrics>,
    /// Of the probes of the agent's own addresses.
    pub self_probe: Arc<SelfProbeMetrics>,
    registry: Registry,
}

impl Metrics {
    /// Registers everything, so that each series is there from the first scrape on.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let amazon = AmazonMetrics::new(&mut registry);
        registry.register(
            "pod_identity_agent_build",
            "The version of the agent",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let requests = Arc::new(RequestMetrics::new(&mut registry, amazon.clone()));
        let authentications = Arc::new(AuthenticationMetrics::new(&mut registry, amazon.clone()));
        let token_reviews = Arc::new(TokenReviewMetrics::new(&mut registry));
        let pod_checks = Arc::new(PodCheckMetrics::new(&mut registry));
        let events = Arc::new(EventMetrics::new(&mut registry));
        let upstream = Arc::new(UpstreamMetrics::new(&mut registry, amazon));
        let self_probe = Arc::new(SelfProbeMetrics::new(&mut registry));
        Self { requests, authentications, token_reviews, pod_checks, events, upstream, self_probe, registry }
    }

    /// What is counted, as OpenMetrics text: the part of the page that is not read elsewhere.
    pub fn counts(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _infallible = encode_registry(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A format of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format 0.0.4.
    Text,
}

/// The page that Prometheus reads: what is counted, and what is read when it asks.
pub struct MetricsPage {
    counted: Arc<Metrics>,
    read: Registry,
}

impl MetricsPage {
    /// A page of these counts and readings, and of the process.
    pub fn new(counted: Arc<Metrics>, readings: Readings) -> Self {
        let mut read = Registry::default();
        read.register_collector(Box::new(readings));
        read.register_collector(Box::new(Process::new()));
        Self { counted, read }
    }

    /// The page as it is now.
    pub fn render(&self, format: Format) -> String {
        let mut page = self.counted.counts();
        // Writing to a String does not fail.
        let _infallible = encode_registry(&mut page, &self.read).and_then(|()| encode_eof(&mut page));
        match format {
            Format::OpenMetrics => page,
            Format::Text => text_format::from_open_metrics(&page),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::{Authenticated, CallOutcome, Format, Metrics, Outcome, page_with_everything};
    use crate::workload::Source;

    const AMAZONS: [&str; 4] = [
        "pod_identity_http_response",
        "pod_identity_cache_state",
        "pod_identity_cache_errors",
        "pod_identity_local_validation",
    ];

    #[test]
    fn amazons_series_keep_their_exact_names_and_labels() {
        let metrics = Metrics::new();
        metrics.requests.answered(Outcome::Hit, Some(200), Duration::from_micros(20));
        metrics.requests.answered(Outcome::Fetched, Some(200), Duration::from_micros(20));
        metrics.requests.answered(Outcome::Refused, Some(403), Duration::from_micros(20));
        metrics.upstream.called(
            Source::EksAuth,
            CallOutcome::Passing("throttled"),
            Duration::from_millis(20),
        );
        metrics.upstream.called(Source::EksAuth, CallOutcome::Passing("timeout"), Duration::from_millis(20));
        metrics.upstream.called(
            Source::EksAuth,
            CallOutcome::Final("AccessDeniedException"),
            Duration::from_millis(20),
        );
        metrics.upstream.called(Source::EksAuth, CallOutcome::Done, Duration::from_millis(20));
        metrics.authentications.judged(Authenticated::Verified);
        metrics.authentications.judged(Authenticated::Unverified);
        metrics.authentications.judged(Authenticated::Undecided);
        let text = metrics.counts();
        for line in [
            "pod_identity_http_response{code=\"200\"} 2",
            "pod_identity_http_response{code=\"403\"} 1",
            "pod_identity_cache_state{state=\"hit\"} 1",
            "pod_identity_cache_state{state=\"miss\"} 1",
            "pod_identity_cache_errors{type=\"Recoverable\",code=\"ThrottlingException\"} 1",
            "pod_identity_cache_errors{type=\"Recoverable\",code=\"\"} 1",
            "pod_identity_cache_errors{type=\"NonRecoverable\",code=\"AccessDeniedException\"} 1",
            "pod_identity_local_validation{result=\"success\"} 1",
            "pod_identity_local_validation{result=\"skipped\"} 2",
            "pod_identity_local_validation{result=\"failure\"} 0",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn only_amazons_counters_lack_their_suffix_and_both_formats_have_the_same_samples() {
        let page = page_with_everything();
        let (open_metrics, text) = (page.render(Format::OpenMetrics), page.render(Format::Text));
        assert!(open_metrics.ends_with("# EOF\n") && !text.contains("# EOF"));
        let typed = |page: &str, kind: &str| -> BTreeSet<String> {
            let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(kind));
            types.map(str::to_owned).collect()
        };
        let amazons: BTreeSet<String> = AMAZONS.into_iter().map(str::to_owned).collect();
        assert_eq!(typed(&open_metrics, " unknown"), amazons);
        let unsuffixed: BTreeSet<String> =
            typed(&text, " counter").into_iter().filter(|name| !name.ends_with("_total")).collect();
        assert_eq!(unsuffixed, amazons);
        // The process's own numbers change from one page to the next.
        let samples = |page: &str| -> Vec<String> {
            let lines = page.lines().filter(|line| !line.starts_with("# ") && !line.starts_with("process_"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(samples(&open_metrics), samples(&text));
        assert!(samples(&text).len() > 100, "{text}");
    }
}
