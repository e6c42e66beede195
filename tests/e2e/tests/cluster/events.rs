//! What a pod's owner reads with kubectl, and what the agent's account may not write.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::cluster::{NODES, Turn, cluster, eventually};

/// Sends an Event as an agent would, with its own token: what, where, and the agent's pid on its node.
const SENDS: &str = r#"
own=/proc/$3/root/var/run/secrets/kubernetes.io/serviceaccount
curl --silent --show-error --cacert $own/ca.crt --header "Authorization: Bearer $(cat $own/token)" \
    --header "Content-Type: $4" --request $5 --data "$1" \
    "https://$(tr '\0' '\n' </proc/$3/environ | sed -n 's/^KUBERNETES_SERVICE_HOST=//p'):443$2"
"#;

/// The Events about a pod, by reason.
fn events(cluster: &Turn, pod: &str) -> BTreeMap<String, Vec<Value>> {
    let all = cluster.kubectl(&["get", "events.events.k8s.io", "--output", "json"]);
    let all: Value = serde_json::from_str(&all).expect("JSON");
    let mut by_reason = BTreeMap::<String, Vec<Value>>::new();
    for event in all["items"].as_array().expect("a list") {
        if event["reportingController"] == "pod-identity-agent" && event["regarding"]["name"] == pod {
            let reason = event["reason"].as_str().expect("a reason").to_owned();
            by_reason.entry(reason).or_default().push(event.clone());
        }
    }
    by_reason
}

/// The note of the one Event of that reason about a pod, once it is there.
fn note(cluster: &Turn, pod: &str, reason: &str) -> String {
    eventually(&format!("{reason} about {pod}"), || events(cluster, pod).contains_key(reason));
    let events = events(cluster, pod).remove(reason).expect("it is there");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["reportingInstance"], NODES[0], "{events:?}");
    assert_eq!(events[0]["type"], "Warning");
    events[0]["note"].as_str().expect("a note").to_owned()
}

#[test]
fn each_pod_that_somebody_can_help_has_one_event_that_says_how() {
    let cluster = cluster("Events");
    cluster.install(&json!({}));
    eventually("the pods are known", || NODES.iter().all(|node| cluster.knows_pods(node)));
    let without_variables = |spec: &mut Value| spec["containers"][0]["env"] = json!([]);
    cluster.start_pod("nobody", "stranger", NODES[0], &["/bin/sleep", "1000"]);
    cluster.start_pod("works", "app", NODES[0], &["/bin/sleep", "1000"]);
    cluster.start_pod_with("missed", "app", NODES[0], &["/bin/sleep", "1000"], without_variables);
    cluster.start_pod("elsewhere", "app", NODES[1], &["/bin/sleep", "1000"]);
    for pod in ["nobody", "works", "missed", "elsewhere"] {
        cluster.until_running(pod);
    }

    cluster.who_am_i("nobody").expect_err("nothing is associated with it");
    cluster.who_am_i("nobody").expect_err("and it asks again");
    let says = note(&cluster, "nobody", "NoPodIdentityAssociation");
    assert!(says.contains("aws eks create-pod-identity-association --cluster-name"), "{says}");
    assert!(says.contains("--namespace default --service-account stranger"), "{says}");
    let described = cluster.kubectl(&["describe", "pod", "nobody"]);
    assert!(described.contains("NoPodIdentityAssociation") && described.contains(&says), "{described}");

    assert!(events(&cluster, "missed").is_empty(), "nobody knows of an association yet");
    cluster.who_am_i("works").expect("it has one");
    let says = note(&cluster, "missed", "PodIdentityNotInjected");
    assert!(says.contains("default/app") && says.contains("create the pod again"), "{says}");
    assert_eq!(cluster.metric(NODES[0], "pod_identity_agent_pods{state=\"missed\"}"), 1.0);

    let away = cluster.token_of("elsewhere");
    eventually("the cluster was asked where its pod is", || {
        assert_eq!(cluster.shown("works", &away), "403");
        events(&cluster, "elsewhere").contains_key("TokenOfAnotherNode")
    });
    let says = note(&cluster, "elsewhere", "TokenOfAnotherNode");
    assert!(says.contains(NODES[0]), "{says}");

    let uid = cluster.kubectl(&["get", "pod", "works", "-o", "jsonpath={.metadata.uid}"]);
    let bound = ["--bound-object-kind=Pod", "--bound-object-name=works", "--bound-object-uid", uid.trim()];
    let foreign = cluster.kubectl(&[&["create", "token", "app", "--audience=others"], &bound[..]].concat());
    let (content, signature) = foreign.trim().rsplit_once('.').expect("a token");
    let forged = format!("{content}.{}", signature.chars().rev().collect::<String>());
    assert_eq!(cluster.shown("works", &forged), "400");
    assert_eq!(cluster.shown("works", foreign.trim()), "400");
    let says = note(&cluster, "works", "WrongTokenAudience");
    assert!(says.contains("pods.eks.amazonaws.com"), "{says}");
    let posted = cluster.metric(NODES[0], "pod_identity_agent_events_total{outcome=\"posted\"}");
    assert_eq!(posted, 4.0, "one for each pod, and none by the forger");
    for outcome in ["failed", "dropped"] {
        let series = format!("pod_identity_agent_events_total{{outcome=\"{outcome}\"}}");
        assert_eq!(cluster.metric(NODES[0], &series), 0.0, "{outcome}");
    }
}

/// What the API server answers to an Event that is sent with the token of the agent on the first node.
fn sent(cluster: &Turn, method: &str, name: &str, event: &Value) -> Value {
    let agent = cluster.agent(NODES[0]).expect("it runs");
    let (path, kind) = match method {
        "POST" => (String::new(), "application/json"),
        _ => (format!("/{name}"), "application/merge-patch+json"),
    };
    let path = format!("/apis/events.k8s.io/v1/namespaces/default/events{path}");
    let (event, agent) = (event.to_string(), agent.as_str());
    let said = cluster.on_node(NODES[0], &["sh", "-c", SENDS, "sh", &event, &path, agent, kind, method]);
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON: {said}"))
}

#[test]
fn the_agents_account_writes_no_other_events() {
    let cluster = cluster("who may write Events");
    cluster.install(&json!({}));
    let event = |name: &str| {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": name, "namespace": "default"},
            "eventTime": "2026-11-26T10:00:00.000000Z",
            "reportingController": "pod-identity-agent", "reportingInstance": NODES[0],
            "action": "IssueCredentials", "reason": "RoleNotAssumable", "type": "Warning", "note": "n",
            "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "p", "uid": "u"},
        })
    };
    // A policy is in force a moment after it was made.
    let mut others = event("of-another-node");
    others["reportingInstance"] = NODES[1].into();
    eventually("the policy is in force", || {
        let said = sent(&cluster, "POST", "", &others);
        let _made_before_it = cluster.try_kubectl(&["delete", "event", "of-another-node"]);
        said["message"].as_str().is_some_and(|said| said.contains("the node that the writer's token is of"))
    });
    assert_eq!(sent(&cluster, "POST", "", &event("own"))["metadata"]["name"], "own", "an agent's own");
    for (field, value, says) in [
        ("reportingController", json!("kubelet"), "reportingController must be"),
        ("reason", json!("Killing"), "the reason must be"),
        (
            "regarding",
            json!({"kind": "Node", "namespace": "default", "name": "n", "apiVersion": "v1"}),
            "regarding must be a Pod",
        ),
    ] {
        let mut other = event("other");
        other[field] = value;
        let said = sent(&cluster, "POST", "", &other);
        assert!(said["message"].as_str().is_some_and(|said| said.contains(says)), "{field}: {said}");
    }
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-11-26T10:06:00.000000Z"}});
    assert_eq!(sent(&cluster, "PATCH", "own", &series)["series"]["count"], 2);
    let kubelets = cluster.kubectl(&[
        "get",
        "events.events.k8s.io",
        "--field-selector=reportingController=kubelet",
        "--output=jsonpath={.items[0].metadata.name}",
    ]);
    let said = sent(&cluster, "PATCH", kubelets.trim(), &series);
    assert_eq!(said["code"], 422, "the kubelet's: {said}");
    cluster.kubectl(&["delete", "event", "own"]);
}
