//! An Event as the API server takes it (events.k8s.io/v1). Pure.
//!
//! Owns: its fields, by the rules that Kubernetes checks (docs/design/facts.md#events). Must not know: when
//! one is written, or how it is sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::events::Write;
use crate::pods::PodName;
use crate::workload::is_name;

/// Who writes. The chart's admission policy knows it too.
const CONTROLLER: &str = "pod-identity-agent";
/// What did not come about.
const ACTION: &str = "IssueCredentials";
/// The longest name of an object, in bytes.
const LONGEST_NAME: usize = 253;
/// Of the name of an Event this is the time: a dot and the nanoseconds since 1970 in hexadecimal.
const LONGEST_TIME: usize = 1 + 16;
/// The longest `reportingInstance`, in bytes: here, the name of the node.
pub(super) const LONGEST_INSTANCE: usize = 128;

/// A new Event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    event_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<Series>,
    reporting_controller: &'static str,
    reporting_instance: &'a str,
    action: &'static str,
    reason: &'static str,
    regarding: Regarding<'a>,
    note: &'a str,
    #[serde(rename = "type")]
    kind_of_event: &'static str,
}

#[derive(Debug, Serialize)]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Regarding<'a> {
    api_version: &'static str,
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
}

/// A merge patch of an Event: all else of it is immutable.
#[derive(Debug, Serialize)]
pub(super) struct Repeated {
    series: Series,
}

/// How often the same occurred; at least twice.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    count: u32,
    last_observed_time: String,
}

impl<'a> Event<'a> {
    /// Of this name, by the agent on this node.
    pub(super) fn new(write: &'a Write, name: &'a str, node: &'a str) -> Self {
        let PodName { namespace, name: pod, uid } = &write.pod;
        Self {
            api_version: "events.k8s.io/v1",
            kind: "Event",
            metadata: Metadata { name, namespace },
            event_time: micro_time(write.first),
            series: (write.count > 1).then(|| Series::of(write)),
            reporting_controller: CONTROLLER,
            reporting_instance: node,
            action: ACTION,
            reason: write.reason.as_str(),
            regarding: Regarding { api_version: "v1", kind: "Pod", namespace, name: pod, uid },
            note: &write.note,
            kind_of_event: "Warning",
        }
    }
}

impl Repeated {
    pub(super) fn of(write: &Write) -> Self {
        Self { series: Series::of(write) }
    }
}

impl Series {
    fn of(write: &Write) -> Self {
        Self { count: write.count, last_observed_time: micro_time(write.last) }
    }
}

/// The name of a new Event: as client-go makes it, of its pod and its time. One that is sent again has the
/// same, so the API server does not store it twice.
pub(super) fn name(write: &Write) -> String {
    let pod: String = write.pod.name.chars().take(LONGEST_NAME - LONGEST_TIME).collect();
    let first = write.first.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = u64::try_from(first.as_nanos()).unwrap_or(u64::MAX);
    // A label of a name must not end with either.
    format!("{}.{nanoseconds:x}", pod.trim_end_matches(['.', '-']))
}

/// The path of all Events of a namespace. `None`: that is no namespace.
pub(super) fn path(namespace: &str) -> Option<String> {
    is_name(namespace).then(|| format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"))
}

/// RFC 3339 with exactly six digits after the second: Kubernetes reads no other.
fn micro_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    let seconds = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // What is not to be represented is 1970: Kubernetes would take no better one.
    let text = seconds.format(&Rfc3339).unwrap_or_default();
    let micros = Duration::from_nanos(since.subsec_nanos().into()).as_micros();
    format!("{}.{micros:06}Z", text.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::{Value, json};

    use super::{Event, Repeated, micro_time, name, path};
    use crate::events::{Reason, Write};
    use crate::pods::PodName;
    use crate::workload::is_name;

    fn write(count: u32) -> Write {
        Write {
            pod: PodName { namespace: "shop".into(), name: "cart-0".into(), uid: "u-1".into() },
            reason: Reason::RoleNotAssumable,
            note: "Mend it".into(),
            first: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_042_999),
            last: UNIX_EPOCH + Duration::from_secs(1_700_000_090),
            count,
            existing: None,
        }
    }

    #[test]
    fn a_new_event_has_every_field_that_kubernetes_requires() {
        let write = write(1);
        let event = serde_json::to_value(Event::new(&write, "cart-0.1", "node-1")).unwrap();
        let expected = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "cart-0.1", "namespace": "shop"},
            "eventTime": "2023-11-14T22:13:20.000042Z",
            "reportingController": "pod-identity-agent",
            "reportingInstance": "node-1",
            "action": "IssueCredentials",
            "reason": "RoleNotAssumable",
            "regarding": {
                "apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "cart-0", "uid": "u-1",
            },
            "note": "Mend it",
            "type": "Warning",
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn a_series_has_a_count_of_at_least_two_and_changes_nothing_else() {
        let series = json!({"count": 7, "lastObservedTime": "2023-11-14T22:14:50.000000Z"});
        assert_eq!(serde_json::to_value(Repeated::of(&write(7))).unwrap(), json!({"series": series}));
        let write = write(7);
        let anew: Value = serde_json::to_value(Event::new(&write, "cart-0.1", "node-1")).unwrap();
        assert_eq!(anew["series"], series);
    }

    #[test]
    fn the_name_is_the_pods_with_the_time_and_has_the_form_of_a_name() {
        assert_eq!(name(&write(1)), "cart-0.17979cfe362aa7f7");
        for pod in ["p".repeat(253), "p".repeat(235) + "-" + &"p".repeat(17), "p".repeat(235) + ".a"] {
            let mut write = write(1);
            write.pod.name = pod.into();
            let name = name(&write);
            assert!(is_name(&name) && name.len() > 240, "{name}");
        }
    }

    #[test]
    fn times_have_six_digits_and_a_namespace_leads_nowhere_else() {
        for (nanoseconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (999, "1970-01-01T00:00:00.000000Z"),
            (1_500_000_000, "1970-01-01T00:00:01.500000Z"),
        ] {
            assert_eq!(micro_time(UNIX_EPOCH + Duration::from_nanos(nanoseconds)), expected);
        }
        assert_eq!(path("shop").as_deref(), Some("/apis/events.k8s.io/v1/namespaces/shop/events"));
        assert_eq!(path("../../../api/v1/namespaces/x"), None);
    }
}
