//! Pods as the API server sends them: 8 KiB each, of which the agent reads a dozen fields.
//!
//! Owns: what stands in them. Must not know: who asks for them. The shape is that of a deployment's pod on
//! EKS: two containers with environment and mounts, the injected token, conditions, and `managedFields` of
//! the controller and the kubelet, which are a third of it.

use serde_json::{Map, Value, json};

const IMAGE: &str = "111122223333.dkr.ecr.us-west-2.amazonaws.com/payments/app:1.42.0";

/// Who a pod is, and where.
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) node: &'a str,
    pub(crate) number: usize,
}

/// The object, as it comes in a list or a watch.
pub(crate) fn object(pod: &Named<'_>) -> Value {
    let Named { name, uid, node, number } = pod;
    let address = format!("10.0.{}.{}", number / 250, number % 250);
    let containers = ["app", "proxy"].map(container);
    let statuses = ["app", "proxy"].map(status);
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-11-26T09:00:05Z"}));
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": "default", "uid": uid,
            "resourceVersion": (1_000 + number).to_string(),
            "generateName": "app-6d4cf56db6-", "creationTimestamp": "2026-11-26T09:00:00Z",
            "labels": {"app.kubernetes.io/name": "app", "app.kubernetes.io/version": "1.42.0",
                "pod-template-hash": "6d4cf56db6", "team": "payments"},
            "annotations": {"kubernetes.io/config.seen": "2026-11-26T09:00:00.000000000Z",
                "checksum/config": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-6d4cf56db6",
                "uid": "0b5c9c0e-6d5c-4f33-9d60-3f0f4f2d8a11", "controller": true,
                "blockOwnerDeletion": true}],
            "managedFields": [managed("kube-controller-manager", ""), managed("kubelet", "status")],
        },
        "spec": {
            "volumes": [{"name": "kube-api-access", "projected": {"sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"serviceAccountToken": {"audience": "pods.eks.amazonaws.com",
                    "expirationSeconds": 86400,
                    "path": "eks-pod-identity-token"}}]}}],
            "containers": containers, "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "serviceAccountName": "app", "serviceAccount": "app",
            "nodeName": node, "securityContext": {"runAsNonRoot": true, "fsGroup": 2000},
            "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {
            "phase": "Running", "hostIP": "10.0.200.1", "podIP": address, "podIPs": [{"ip": address}],
            "qosClass": "Burstable", "startTime": "2026-11-26T09:00:01Z",
            "conditions": conditions,
            "containerStatuses": statuses,
        },
    })
}

fn container(name: &str) -> Value {
    let variables = (0..12).map(|n| {
        let value = format!("https://service-{n}.payments.svc:8443/");
        json!({"name": format!("SETTING_NUMBER_{n}"), "value": value})
    });
    json!({
        "name": name,
        "image": IMAGE,
        "env": variables.collect::<Vec<_>>(),
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
        "volumeMounts": [{"name": "kube-api-access", "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}},
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true},
    })
}

fn status(name: &str) -> Value {
    json!({
        "name": name,
        "ready": true,
        "started": true,
        "restartCount": 0,
        "image": IMAGE,
        "imageID": format!("{IMAGE}@sha256:{}", "0a".repeat(32)),
        "containerID": format!("containerd://{}", "1b".repeat(32)),
        "state": {"running": {"startedAt": "2026-11-26T09:00:04Z"}},
    })
}

/// Server-side apply's notes of who owns which field.
fn managed(manager: &str, subresource: &str) -> Value {
    let fields: Map<String, Value> = (0..12)
        .map(|n| {
            (format!("k:{{\"name\":\"SETTING_NUMBER_{n}\"}}"), json!({".": {}, "f:name": {}, "f:value": {}}))
        })
        .collect();
    json!({
        "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-11-26T09:00:00Z",
        "fieldsType": "FieldsV1", "subresource": subresource,
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/name": {}, "f:team": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:env": fields, "f:image": {},
                "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {}, "f:volumeMounts": {}}},
                "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:serviceAccountName": {}}},
    })
}

#[cfg(test)]
mod tests {
    use super::{Named, object};

    #[test]
    fn a_pod_is_as_long_as_one_of_a_deployment() {
        let pod =
            Named { name: "app-0", uid: "d0e8c9a1-0000-4000-8000-000000000000", node: "node-1", number: 0 };
        let bytes = object(&pod).to_string().len();
        assert!((7 * 1024..9 * 1024).contains(&bytes), "{bytes} bytes");
    }
}
