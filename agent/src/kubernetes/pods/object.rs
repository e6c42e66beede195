//! A pod, as far as it is read.
//!
//! Owns: the dozen fields. Must not know: what they are for. All else of a pod, its environment with its
//! secrets among it, is skipped while it is parsed and never kept.

use std::net::IpAddr;

use serde::Deserialize;

use crate::pods::{LivePod, PodName};

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
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<Box<str>>,
    #[serde(default)]
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default, rename = "podIPs")]
    addresses: Vec<Address>,
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
        let Metadata { name, namespace, uid, resource_version: _ } = self.metadata;
        let addresses = self.status.addresses.iter();
        let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.ip.parse().ok()).collect();
        LivePod {
            name: PodName { namespace, name, uid },
            addresses: addresses.into(),
            is_on_host_network: self.spec.host_network,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Object;

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
                "containers": [{"env": [{"name": "a", "value": "b"}]}],
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
    }
}
