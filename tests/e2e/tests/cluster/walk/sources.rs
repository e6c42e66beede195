//! By which source a pod gets its role: its service account's annotation, the role map, the association of an
//! add-on, and which of two counts. Each by the default chains of three SDKs.

use serde_json::{Value, json};

use super::{MAPPED, assert_given_by_agent, begin, container, create_provider, create_role};
use crate::clients::built;
use crate::harness::cluster::{NODES, Shell, Turn, cluster, eventually};

/// boto3, the AWS CLI and the SDK for Rust, one after the other.
const WHO_AM_I: &str =
    "set -e; python3 /who_am_i.py; aws sts get-caller-identity --query Arn --output text; /who-am-i";
/// The trust policy of EKS Pod Identity.
const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
    "Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"]}]}"#;

/// A pod, and what it must be.
struct Expected {
    namespace: &'static str,
    account: &'static str,
    pod: &'static str,
    role: &'static str,
    by_association: bool,
}

const ANNOTATED: Expected = Expected {
    namespace: "default",
    account: "annotated",
    pod: "annotated-0",
    role: "annotated",
    by_association: false,
};
const OF_THE_MAP: Expected =
    Expected { namespace: "default", account: MAPPED, pod: "mapped-0", role: MAPPED, by_association: false };
const ADD_ON: Expected = Expected {
    namespace: "kube-system",
    account: "ebs-csi-controller-sa",
    pod: "ebs-csi-0",
    role: "StorageDriver",
    by_association: true,
};
const BOTH: Expected = Expected {
    namespace: "default",
    account: "both",
    pod: "both-0",
    role: "associated",
    by_association: true,
};
const PODS: [Expected; 4] = [ANNOTATED, OF_THE_MAP, ADD_ON, BOTH];

#[test]
fn each_pod_gets_the_role_of_its_source_by_each_sdk_and_an_association_wins() {
    let cluster = cluster("walk: sources");
    let (_injection, shell) = begin(&cluster, "sources", "default");
    for expected in &PODS {
        let Expected { namespace, account, pod, .. } = expected;
        shell.at_end(&format!("kubectl delete -n {namespace} serviceaccount/{account} pod/{pod} --now"));
        shell.run(&format!("kubectl create serviceaccount -n {namespace} {account}"));
    }
    annotate_and_associate(&cluster, &shell);
    for expected in &PODS {
        let kept = cluster.create(&pod(&cluster, expected)).expect("it is accepted");
        let variables = kept["spec"]["containers"][0]["env"].to_string();
        assert!(variables.contains("AWS_CONTAINER_CREDENTIALS_FULL_URI"), "it is injected: {variables}");
    }
    for expected in &PODS {
        let Expected { namespace, pod, .. } = expected;
        let wrote = shell.run(&format!(
            "kubectl wait --for=jsonpath='{{.status.phase}}'=Succeeded -n {namespace} pod/{pod} \
                --timeout=60s >&2 || {{ kubectl logs -n {namespace} {pod} >&2; exit 1; }}
            kubectl logs -n {namespace} {pod}"
        ));
        assert_is(&cluster, expected, &wrote);
    }
}

/// All these roles would let the pods in, so that only the choice of the source decides.
fn annotate_and_associate(cluster: &Turn, shell: &Shell<'_>) {
    create_provider(cluster, shell);
    for (name, service_account) in [
        ("annotated", "default:annotated"),
        (MAPPED, "default:mapped"),
        ("of-the-annotation", "default:both"),
    ] {
        create_role(cluster, shell, name, service_account);
    }
    shell.write("pod-identity.json", TRUST);
    for name in ["StorageDriver", "associated"] {
        shell.run(&format!(
            "aws iam create-role --role-name {name} --assume-role-policy-document file://pod-identity.json"
        ));
    }
    shell.run(
        "kubectl label namespace default pod-identity-agent/inject=web-identity
        role=arn:aws:iam::111122223333:role
        kubectl annotate serviceaccount annotated eks.amazonaws.com/role-arn=$role/annotated
        kubectl annotate serviceaccount both eks.amazonaws.com/role-arn=$role/of-the-annotation
        aws eks create-addon --cluster-name sandbox --addon-name aws-ebs-csi-driver \\
            --pod-identity-associations \"serviceAccount=ebs-csi-controller-sa,roleArn=$role/StorageDriver\"
        aws eks create-pod-identity-association --cluster-name sandbox --namespace default \\
            --service-account both --role-arn $role/associated",
    );
    // As in docs/injection.md: all associations of the cluster.
    shell.run(
        r#"aws eks list-pod-identity-associations --cluster-name sandbox --output text \
  --query 'associations[].[join(`.`, [namespace, serviceAccount]), associationId]' |
  awk '{ printf "%s\"%s\": \"%s\"", separator, $1, $2; separator = ", " }' |
  xargs -0 printf '{"data": {%s}}' |
  xargs -0 kubectl -n kube-system patch configmap pod-identity-agent-injection --type merge --patch"#,
    );
    eventually("the associations are known to the injection", || {
        let kept = cluster.try_out(&pod(cluster, &BOTH)).expect("it is accepted");
        kept["spec"]["volumes"].to_string().contains("eks-pod-identity-token")
    });
}

/// A pod with the three SDKs and no variable of credentials.
fn pod(cluster: &Turn, expected: &Expected) -> Value {
    let mut container = container(cluster, WHO_AM_I);
    container["volumeMounts"] = json!([{"name": "rust", "mountPath": "/who-am-i"}]);
    // Nodes see the machine's files: those that cargo has made need no image.
    let rust = json!({"name": "rust", "hostPath": {"path": built("who-am-i"), "type": "File"}});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": expected.pod, "namespace": expected.namespace},
        "spec": {
            "serviceAccountName": expected.account,
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "nodeSelector": {"kubernetes.io/hostname": NODES[0]},
            "containers": [container],
            "volumes": [rust],
        },
    })
}

fn assert_is(cluster: &Turn, expected: &Expected, wrote: &str) {
    let Expected { pod, .. } = expected;
    let lines: Vec<&str> = wrote.lines().map(str::trim_end).collect();
    let [boto3, key_of_boto3, method, cli, rust, key_of_rust] = lines[..] else { panic!("{pod}: {wrote}") };
    let session = match expected.by_association {
        true => format!("eks-sandbox-{pod}-"),
        false => format!("{}.{pod}", expected.namespace),
    };
    let arn = format!("arn:aws:sts::111122223333:assumed-role/{}/{session}", expected.role);
    assert!(boto3.starts_with(&arn), "{pod} is not {arn}: {wrote}");
    assert_eq!([cli, rust], [boto3, boto3], "one session for all three, from the agent");
    assert_eq!((key_of_rust, method), (key_of_boto3, "container-role"));
    assert_given_by_agent(cluster, pod, expected.role, expected.by_association);
}
