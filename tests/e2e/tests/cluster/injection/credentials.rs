//! What the SDK in an injected pod gets, by the agent and by nobody else.

use serde_json::{Value, json};

use super::Injection;
use crate::harness::cluster::{NODES, cluster};

/// Region of the sandbox.
const REGION: &str = "us-west-2";

/// Leaves a pod nothing by which an SDK finds credentials; where the sandbox's STS is stays.
fn without_variables(spec: &mut Value) {
    let env = spec["containers"][0]["env"].as_array_mut().expect("it has variables");
    env.retain(|variable| variable["name"] == "AWS_ENDPOINT_URL_STS");
    assert_eq!(env.len(), 1);
    spec["containers"][0]["volumeMounts"] = json!([]);
    spec["volumes"] = json!([]);
}

#[test]
fn pods_that_set_nothing_get_their_roles_from_the_agent() {
    let cluster = cluster("credentials by injection");
    cluster.install(&json!({}));
    let _injection = Injection::with(&cluster, REGION, &json!({"default.app": "", "default.shop": ""}));
    for (pod, account, node) in [("given-app", "app", NODES[0]), ("given-shop", "shop", NODES[1])] {
        cluster.start_pod_with(pod, account, node, &["/bin/sleep", "1000"], |spec| {
            without_variables(spec);
            let mut first = spec["containers"][0].clone();
            first["name"] = "first".into();
            first["command"] = json!(["python3", "/who_am_i.py"]);
            spec["initContainers"] = json!([first]);
        });
    }
    for (pod, account) in [("given-app", "app"), ("given-shop", "shop")] {
        cluster.until_running(pod);
        let role = format!("arn:aws:sts::111122223333:assumed-role/{account}/eks-sandbox-{pod}-");
        let of_init_container = cluster.kubectl(&["logs", pod, "--container", "first"]);
        assert!(of_init_container.starts_with(&role), "{of_init_container}");
        assert!(of_init_container.trim_end().ends_with("container-role"), "{of_init_container}");
        let (arn, _) = cluster.who_am_i(pod).expect("it has an association");
        assert!(arn.starts_with(&role), "{arn}");
        let lines = cluster.access_lines(pod);
        assert!(lines.iter().any(|line| line["outcome"] == "fetched"), "the agent gave them: {lines:?}");
    }
    let role = "assumed-role/stranger/";
    cluster.start_pod_with("given-nothing", "stranger", NODES[0], &["/bin/sleep", "1000"], without_variables);
    cluster.until_running("given-nothing");
    let said = cluster.who_am_i("given-nothing");
    assert!(!said.is_ok_and(|(arn, _)| arn.contains(role)));
    assert!(cluster.access_lines("given-nothing").is_empty(), "it has nothing by which to ask");
}
