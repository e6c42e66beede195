//! AWS's "Associate an IAM role to a service account": annotate, delete the pods, look at the new ones.

use serde_json::json;

use super::{assert_given_by_agent, begin, container, create_provider, create_role};
use crate::harness::cluster::{NODES, Shell, Turn, cluster, eventually};

/// The pods of the DaemonSet that are ready.
fn ready_pods(shell: &Shell<'_>) -> Vec<String> {
    let all = shell.run("kubectl get pods -n network -l k8s-app=aws-node --no-headers");
    let ready = all.lines().filter(|line| line.contains("1/1") && line.contains("Running"));
    ready.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// The document's DaemonSet, in a namespace of the test's own.
fn daemonset(cluster: &Turn) -> String {
    let labels = json!({"k8s-app": "aws-node"});
    let spec = json!({
        "serviceAccountName": "aws-node", "terminationGracePeriodSeconds": 0,
        "containers": [container(cluster, "sleep 1000")],
    });
    let daemonset = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "aws-node", "namespace": "network"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    });
    daemonset.to_string()
}

#[test]
fn pods_that_are_created_again_have_variables_by_which_they_get_the_annotated_role() {
    let cluster = cluster("walk: annotation");
    let (_injection, shell) = begin(&cluster, "annotation", "network");
    create_provider(&cluster, &shell);
    create_role(&cluster, &shell, "cni", "network:aws-node");
    shell.write("daemonset.yaml", &daemonset(&cluster));
    shell.run("kubectl create serviceaccount -n network aws-node\nkubectl apply -f daemonset.yaml");
    eventually("the pods run", || ready_pods(&shell).len() == NODES.len());

    // 1 and 2: annotate.
    shell.run(
        "kubectl annotate serviceaccount -n network aws-node \\
            eks.amazonaws.com/role-arn=arn:aws:iam::111122223333:role/cni
        kubectl annotate serviceaccount -n network aws-node \\
            eks.amazonaws.com/sts-regional-endpoints=true",
    );
    // Not in the document: pods opt in.
    shell.run("kubectl label namespace network pod-identity-agent/inject=web-identity");
    let before = ready_pods(&shell);
    let variables =
        |pod: &str| shell.run(&format!("kubectl exec -n network {pod} -- env | grep AWS || true"));
    // "does not apply them to pods that are already running"
    assert!(!variables(&before[0]).contains("AWS_CONTAINER"), "{}", variables(&before[0]));

    // 3 and 4: delete the pods, "confirm that the pods all restarted".
    shell.run("kubectl delete pods -n network -l k8s-app=aws-node");
    eventually("all pods restarted", || ready_pods(&shell).len() == NODES.len());
    let after = ready_pods(&shell);
    assert!(after.iter().all(|pod| !before.contains(pod)), "{before:?} {after:?}");

    // 5: the variables. Those of the document would take the pod past the agent.
    let variables = variables(&after[0]);
    for line in [
        "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/var/run/secrets/pod-identity-agent/serviceaccount/token",
    ] {
        assert!(variables.lines().any(|variable| variable.trim_end() == line), "{line}: {variables}");
    }
    assert!(!variables.contains("AWS_WEB_IDENTITY_TOKEN_FILE"), "{variables}");
    for pod in &after {
        let who = shell.run(&format!("kubectl exec -n network {pod} -- aws sts get-caller-identity"));
        assert!(who.contains(&format!("assumed-role/cni/network.{pod}")), "{who}");
        assert_given_by_agent(&cluster, pod, "cni", false);
    }
}
