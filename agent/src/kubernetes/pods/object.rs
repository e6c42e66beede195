//! A pod, as far as it is read.
//!
//! Owns: the dozen fields. Must not know: what they are for. All else of a pod, the values of its environment
//! with its secrets among them, is skipped while it is parsed and never kept.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::containers::{Container, injection};
use crate::pods::{Asked, Injection, LivePod, PodName};
use crate::workload::ServiceAccountName;

/// A pod.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Object {
    pub(super) metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

/// Many pods.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub(super) metadata: ListMetadata,
    pub(super) items: Vec<Object>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) more: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    name: Box<str>,
    namespace: Box<str>,
    pub(super) uid: Box<str>,
    pub(super) resource_version: String,
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Labels {
    /// The webhook of EKS is not called for pods with this label, whatever its value.
    #[serde(rename = "eks.amazonaws.com/skip-pod-identity-webhook")]
    skips_webhook: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Annotations {
    #[serde(rename = "eks.amazonaws.com/skip-containers")]
    skipped_containers: Option<Box<str>>,
    /// What shows a static pod of the kubelet: it is never admitted, and has no service account.
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<Box<str>>,
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    service_account_name: Box<str>,
    #[serde(default)]
    init_containers: Vec<Container>,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    phase: Phase,
    #[serde(default, rename = "podIPs")]
    addresses: Vec<Address>,
}

/// How far a pod has come; `Pending`, `Running` and `Unknown` are one here.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Phase {
    #[serde(alias = "Failed")]
    Succeeded,
    #[default]
    #[serde(other)]
    Live,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    ip: Box<str>,
}

impl Object {
    /// Whether it was bound to this node.
    pub(super) fn is_on(&self, node: &str) -> bool {
        self.spec.node_name.as_deref() == Some(node)
    }

    /// What is kept of it.
    pub(super) fn into_pod(self) -> LivePod {
        let (is_finished, injection) = (self.is_finished(), self.injection());
        let Metadata { name, namespace, uid, .. } = self.metadata;
        let service_account =
            ServiceAccountName { namespace: namespace.clone(), name: self.spec.service_account_name };
        let addresses = self.status.addresses.iter();
        let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.ip.parse().ok()).collect();
        LivePod {
            name: PodName { namespace, name, uid },
            service_account,
            addresses: addresses.into(),
            is_on_host_network: self.spec.host_network,
            is_finished,
            injection,
            asked: Asked::default(),
        }
    }

    fn is_finished(&self) -> bool {
        let has_ended = match self.status.phase {
            Phase::Succeeded => true,
            Phase::Live => false,
        };
        has_ended || self.metadata.deletion_timestamp.is_some()
    }

    fn injection(&self) -> Injection {
        let annotations = &self.metadata.annotations;
        let containers = self.spec.init_containers.iter().chain(&self.spec.containers);
        let skipped = annotations.skipped_containers.as_deref().unwrap_or_default();
        match injection(containers, skipped) {
            Injection::Missing
                if annotations.mirror.is_some() || self.metadata.labels.skips_webhook.is_some() =>
            {
                Injection::NotWanted
            }
            judged @ (Injection::Injected | Injection::NotWanted | Injection::Missing) => judged,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Object;
    use crate::pods::{Injection, LivePod};

    #[test]
    fn a_pod_is_read_at_each_stage_of_its_life() {
        let metadata = json!({"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7"});
        let pending: Object = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        assert!(!pending.is_on("node-1"));
        let pod = pending.into_pod();
        assert_eq!((&*pod.name.uid, pod.addresses.len(), pod.is_on_host_network), ("u", 0, false));

        let running: Object = serde_json::from_value(json!({
            "metadata": metadata,
            "spec": {
                "nodeName": "node-1",
                "hostNetwork": true,
                "serviceAccountName": "sa",
                "containers": [{"name": "main", "image": "i", "env": [{"name": "a", "value": "b"}]}],
            },
            "status": {"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]},
        }))
        .unwrap();
        assert!(running.is_on("node-1"));
        let pod = running.into_pod();
        assert_eq!(
            pod.addresses.to_vec(),
            ["10.0.0.7", "fd00::7"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap())
        );
        assert!(pod.is_on_host_network);
        assert_eq!((&*pod.service_account.namespace, &*pod.service_account.name), ("ns", "sa"));
    }

    /// A pod with one container without variables, changed at these places.
    fn changed(changes: &[(&str, Value)]) -> LivePod {
        let mut pod = json!({
            "metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7",
                "annotations": {"a": "b"}, "labels": {"c": "d"}},
            "spec": {"serviceAccountName": "sa", "containers": [{"name": "main"}]},
            "status": {"phase": "Running"},
        });
        for (place, value) in changes {
            let (parent, field) = place.rsplit_once(' ').unwrap();
            pod.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        serde_json::from_value::<Object>(pod).unwrap().into_pod()
    }

    #[test]
    fn init_containers_count_as_well_and_those_who_opt_out_are_not_missed() {
        let injected = json!([{"name": "init", "env": [{"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI"}]}]);
        let cases = [
            (vec![], Injection::Missing),
            (vec![("/spec initContainers", injected.clone())], Injection::Injected),
            (vec![("/spec ephemeralContainers", injected.clone())], Injection::Missing),
            (
                vec![("/metadata/annotations eks.amazonaws.com/skip-containers", json!("main"))],
                Injection::NotWanted,
            ),
            (vec![("/metadata/annotations kubernetes.io/config.mirror", json!("e3"))], Injection::NotWanted),
            (
                vec![("/metadata/labels eks.amazonaws.com/skip-pod-identity-webhook", json!("true"))],
                Injection::NotWanted,
            ),
            (
                vec![
                    ("/metadata/labels eks.amazonaws.com/skip-pod-identity-webhook", json!("true")),
                    ("/spec containers", injected),
                ],
                Injection::Injected,
            ),
        ];
        for (changes, expected) in cases {
            assert_eq!(changed(&changes).injection, expected, "{changes:?}");
        }
    }

    #[test]
    fn a_pod_has_finished_when_it_has_ended_or_is_being_deleted() {
        for (phase, is_finished) in [
            ("Pending", false),
            ("Running", false),
            ("Unknown", false),
            ("Succeeded", true),
            ("Failed", true),
        ] {
            assert_eq!(changed(&[("/status phase", json!(phase))]).is_finished, is_finished, "{phase}");
        }
        assert!(changed(&[("/metadata deletionTimestamp", json!("2026-11-26T10:00:00Z"))]).is_finished);
    }

    #[test]
    fn a_pod_takes_few_hundred_bytes() {
        let size = size_of::<LivePod>();
        assert!(size <= 128, "{size} bytes, and its names");
    }
}
