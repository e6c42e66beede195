//! The series of Amazon's agent, so that its dashboards and alerts work with this one.
//!
//! Owns: their exact names, labels and label values (eks-pod-identity-agent 0.2). Must not know: the series
//! of this agent, which count the same things more precisely.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use super::{Authenticated, CallOutcome, Outcome};

/// A counter without `_total` in its name. Amazon's names have none, and OpenMetrics allows that for type
/// `unknown` only; in the text format it is a `counter`, as Amazon's agent shows it.
#[derive(Clone, Debug, Default)]
struct UnsuffixedCounter(Arc<AtomicU64>);

impl UnsuffixedCounter {
    fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl TypedMetric for UnsuffixedCounter {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for UnsuffixedCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.encode_gauge(&self.0.load(Ordering::Relaxed))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTypeAndCode {
    r#type: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

/// Amazon's four series. Clones share them.
#[derive(Clone)]
pub(super) struct AmazonMetrics {
    http_response: Family<ByCode, UnsuffixedCounter>,
    /// Made beforehand, as the next: a hit must not pay for a look-up.
    http_200: UnsuffixedCounter,
    cache_hit: UnsuffixedCounter,
    cache_miss: UnsuffixedCounter,
    cache_errors: Family<ByTypeAndCode, UnsuffixedCounter>,
    validation_success: UnsuffixedCounter,
    validation_failure: UnsuffixedCounter,
    validation_skipped: UnsuffixedCounter,
}

impl AmazonMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let http_response = Family::<ByCode, UnsuffixedCounter>::default();
        registry.register(
            "pod_identity_http_response",
            "Answers to requests for credentials, by HTTP status",
            http_response.clone(),
        );
        let cache_state = Family::<ByState, UnsuffixedCounter>::default();
        registry.register(
            "pod_identity_cache_state",
            "Requests for credentials that were served from the cache (hit), or waited for AWS (miss)",
            cache_state.clone(),
        );
        let cache_errors = Family::<ByTypeAndCode, UnsuffixedCounter>::default();
        registry.register(
            "pod_identity_cache_errors",
            "Failed calls to AWS, by whether the same call may succeed later, and by AWS's error code; \
             the code is empty where AWS gave none",
            cache_errors.clone(),
        );
        let local_validation = Family::<ByResult, UnsuffixedCounter>::default();
        registry.register(
            "pod_identity_local_validation",
            "Tokens, by the result of their verification on the node; skipped: no key could decide",
            local_validation.clone(),
        );
        let state = |state| cache_state.get_or_create_owned(&ByState { state });
        let result = |result| local_validation.get_or_create_owned(&ByResult { result });
        Self {
            http_200: http_response.get_or_create_owned(&ByCode { code: 200 }),
            http_response,
            cache_hit: state("hit"),
            cache_miss: state("miss"),
            cache_errors,
            validation_success: result("success"),
            validation_failure: result("failure"),
            validation_skipped: result("skipped"),
        }
    }

    /// A request ended. `status` is `None` when the client left before one was sent.
    pub(super) fn answered(&self, outcome: Outcome, status: Option<u16>) {
        match status {
            Some(200) => self.http_200.inc(),
            Some(code) => self.http_response.get_or_create(&ByCode { code }).inc(),
            None => {}
        }
        match outcome {
            Outcome::Hit => self.cache_hit.inc(),
            Outcome::Fetched | Outcome::Unavailable => self.cache_miss.inc(),
            Outcome::Refused | Outcome::Invalid | Outcome::Cancelled => {}
        }
    }

    /// A token was judged.
    pub(super) fn judged(&self, authenticated: Authenticated) {
        match authenticated {
            Authenticated::Verified => self.validation_success.inc(),
            Authenticated::Refused => self.validation_failure.inc(),
            Authenticated::Unverified | Authenticated::Undecided => self.validation_skipped.inc(),
        }
    }

    /// A call to AWS ended.
    pub(super) fn called(&self, outcome: CallOutcome) {
        let by = match outcome {
            CallOutcome::Done => return,
            CallOutcome::Passing(label) => ByTypeAndCode { r#type: "Recoverable", code: aws_code(label) },
            CallOutcome::Final(code) => ByTypeAndCode { r#type: "NonRecoverable", code },
        };
        self.cache_errors.get_or_create(&by).inc();
    }
}

/// AWS's code for a failure that is no refusal (EKS Auth's service model); Amazon's agent has an empty one
/// where no answer of AWS came.
fn aws_code(label: &'static str) -> &'static str {
    match label {
        "throttled" => "ThrottlingException",
        "server_error" | "issuer_unreadable" => "InternalServerException",
        _ => "",
    }
}
