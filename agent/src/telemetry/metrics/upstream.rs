//! What calls to AWS count.
//!
//! Owns: the three kinds of their end, and the series about it, of each source apart. Must not know: which
//! failure is of which kind.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::amazon::AmazonMetrics;
use crate::workload::Source;

/// The outcomes of a call to any source.
const COMMON: [&str; 11] = [
    "ok",
    "throttled",
    "timeout",
    "connection",
    "server_error",
    "issuer_unreadable",
    "unreadable",
    "lost",
    "own_credentials_missing",
    "region_unknown",
    "ExpiredTokenException",
];
/// Those of EKS Auth besides.
const EKS_AUTH: [&str; 6] = [
    "own_credentials_rejected",
    "AccessDeniedException",
    "ResourceNotFoundException",
    "InvalidTokenException",
    "InvalidParameterException",
    "InvalidRequestException",
];
/// Those of STS besides. Its calls are not signed, so none rejects the agent's own credentials.
const WEB_IDENTITY: [&str; 6] = [
    "AccessDenied",
    "RegionDisabledException",
    "PackedPolicyTooLarge",
    "IDPRejectedClaim",
    "InvalidIdentityToken",
    "ValidationError",
];

/// Every outcome that a call to a source may have, so that each series exists from the first scrape on: a
/// rate over a series that has just appeared misses its first count. One that is missing here fails the tests
/// (`called`).
pub(super) fn outcomes(source: Source) -> impl Iterator<Item = &'static str> {
    let besides = match source {
        Source::EksAuth => EKS_AUTH,
        Source::WebIdentity => WEB_IDENTITY,
    };
    COMMON.into_iter().chain(besides)
}

/// How a call to AWS ended. A failure has its label: AWS's code for a refusal, else a word of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It brought credentials.
    Done,
    /// It failed, and the same call may succeed later.
    Passing(&'static str),
    /// It was refused.
    Final(&'static str),
}

impl CallOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Passing(label) | Self::Final(label) => label,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySource {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySourceAndOutcome {
    source: &'static str,
    outcome: &'static str,
}

/// What calls to AWS count.
pub struct UpstreamMetrics {
    calls: Family<BySourceAndOutcome, Counter>,
    seconds: Family<BySource, Histogram, fn() -> Histogram>,
    amazon: AmazonMetrics,
}

impl UpstreamMetrics {
    pub(super) fn new(registry: &mut Registry, amazon: AmazonMetrics) -> Self {
        let calls = Family::<BySourceAndOutcome, Counter>::default();
        registry.register(
            "pod_identity_agent_upstream_calls",
            "Calls to AWS for credentials, by source. ok: credentials were issued; AWS's code where it \
             refused; else why there was no usable answer",
            calls.clone(),
        );
        let seconds = Family::<BySource, Histogram, fn() -> Histogram>::new_with_constructor(of_one_call);
        registry.register_with_unit(
            "pod_identity_agent_upstream_call_duration",
            "Time that calls to AWS took, however they ended, by source",
            Unit::Seconds,
            seconds.clone(),
        );
        Self { calls, seconds, amazon }
    }

    /// A source may be called from now on: its series exist. One that is off has none.
    pub fn may_call(&self, source: Source) {
        drop(self.seconds.get_or_create(&BySource { source: source.as_str() }));
        for outcome in outcomes(source) {
            drop(self.calls.get_or_create(&BySourceAndOutcome { source: source.as_str(), outcome }));
        }
    }

    /// A call to AWS ended.
    pub fn called(&self, source: Source, outcome: CallOutcome, took: Duration) {
        let label = outcome.label();
        debug_assert!(outcomes(source).any(|known| known == label), "{source:?} has no outcome {label}");
        self.seconds.get_or_create(&BySource { source: source.as_str() }).observe(took.as_secs_f64());
        self.calls.get_or_create(&BySourceAndOutcome { source: source.as_str(), outcome: label }).inc();
        self.amazon.called(outcome);
    }
}

/// A quick answer takes 50 ms; the longest attempt has some seconds (proxies and TLS inspection).
fn of_one_call() -> Histogram {
    Histogram::new([0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 2.5, 5.0])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::CallOutcome;
    use crate::telemetry::metrics::Metrics;
    use crate::workload::Source;

    const CALLS: &str = "pod_identity_agent_upstream_calls_total";
    const SECONDS: &str = "pod_identity_agent_upstream_call_duration_seconds";

    #[test]
    fn a_source_that_is_on_has_its_series_at_zero_and_one_that_is_off_has_none() {
        let metrics = Metrics::new();
        metrics.upstream.may_call(Source::WebIdentity);
        let page = metrics.counts();
        for outcome in ["ok", "throttled", "InvalidIdentityToken"] {
            let series = format!("{CALLS}{{source=\"web-identity\",outcome=\"{outcome}\"}} 0\n");
            assert!(page.contains(&series), "{series}{page}");
        }
        assert!(page.contains(&format!("{SECONDS}_count{{source=\"web-identity\"}} 0\n")), "{page}");
        assert!(!page.contains("ResourceNotFoundException"), "an outcome of EKS Auth: {page}");
        assert!(!page.contains("eks-auth"), "{page}");
    }

    #[test]
    fn calls_to_one_source_are_not_counted_for_the_other() {
        let metrics = Metrics::new();
        Source::ALL.into_iter().for_each(|source| metrics.upstream.may_call(source));
        let throttled = CallOutcome::Passing("throttled");
        metrics.upstream.called(Source::WebIdentity, throttled, Duration::from_millis(20));
        let page = metrics.counts();
        for (source, number) in [("web-identity", 1), ("eks-auth", 0)] {
            let of_source = format!("source=\"{source}\"");
            let calls = format!("{CALLS}{{{of_source},outcome=\"throttled\"}} {number}\n");
            let seconds = format!("{SECONDS}_count{{{of_source}}} {number}\n");
            assert!(page.contains(&calls) && page.contains(&seconds), "{calls}{seconds}{page}");
        }
    }
}
