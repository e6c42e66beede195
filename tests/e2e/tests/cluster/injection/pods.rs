//! Which pods are given something, and as which kind.

use serde_json::{Value, json};

use super::kinds::Kind::{self, Association, WebIdentity};
use super::{Injection, changed, pod};
use crate::harness::cluster::{cluster, eventually};

/// By which a pod or a namespace opts in.
const OPT_IN: &str = "pod-identity-agent/inject";
const REGION: &str = "eu-west-1";

/// The pod as it was before, so far as it may be changed: labels, volumes, and what its containers have.
fn parts(pod: &Value) -> Value {
    let mut labels = pod["metadata"]["labels"].clone();
    if let Some(labels) = labels.as_object_mut() {
        labels.remove("made-by");
    }
    json!({
        "labels": labels.as_object().filter(|labels| !labels.is_empty()),
        "volumes": pod["spec"]["volumes"],
        "env": pod["spec"]["containers"][0]["env"],
        "mounts": pod["spec"]["containers"][0]["volumeMounts"],
    })
}

/// The parts of a pod of one container that had nothing.
fn given(kind: Option<Kind>, labels: &Value) -> Value {
    let Some(kind) = kind else {
        return json!({"labels": labels, "volumes": null, "env": null, "mounts": null});
    };
    let mut labels = labels.clone();
    if kind == Association {
        labels["eks.amazonaws.com/pod-identity"] = "enabled".into();
    }
    json!({
        "labels": labels, "volumes": [kind.volume(86_400)],
        "env": kind.all_variables(REGION), "mounts": [kind.mount()],
    })
}

#[test]
fn a_pod_is_given_the_one_kind_that_its_account_or_its_label_asks_for() {
    let cluster = cluster("kinds of injection");
    let _injection = Injection::with(&cluster, REGION, &json!({"default.app": "", "default.default": ""}));
    let cases: [(&str, &str, Value, Option<Kind>); 8] = [
        ("association", "app", json!(null), Some(Association)),
        ("opted-in", "stranger", json!({OPT_IN: "web-identity"}), Some(WebIdentity)),
        ("both", "app", json!({OPT_IN: "web-identity"}), Some(Association)),
        ("neither", "stranger", json!(null), None),
        ("another-value", "stranger", json!({OPT_IN: "true"}), None),
        ("opted-out", "app", json!({"eks.amazonaws.com/skip-pod-identity-webhook": ""}), None),
        ("agent", "app", json!({"app.kubernetes.io/name": "pod-identity-agent"}), None),
        ("amazons", "app", json!({"app.kubernetes.io/name": "eks-pod-identity-agent"}), None),
    ];
    for (name, account, labels, kind) in cases {
        let pod = changed(name, account, |pod| pod["metadata"]["labels"] = labels.clone());
        let kept = cluster.create(&pod).expect("it is accepted");
        assert_eq!(parts(&kept), given(kind, &labels), "{name}");
        // Pods of nobody's have no labels at all, and a label has to be put somewhere.
        let unlabelled = changed("unlabelled", account, |pod| pod["metadata"]["labels"] = labels.clone());
        let kept = cluster.try_out(&unlabelled).expect("it is accepted");
        assert_eq!(parts(&kept), given(kind, &labels), "{name}, without the label of the tests");
    }
    let of_default_account = changed("default", "-", |pod| {
        pod["spec"].as_object_mut().expect("a spec").remove("serviceAccountName");
    });
    let kept = cluster.create(&of_default_account).expect("it is accepted");
    assert_eq!(kept["spec"]["serviceAccountName"], "default");
    assert_eq!(parts(&kept), given(Some(Association), &json!(null)), "a pod that names no account");
}

#[test]
fn pods_of_a_namespace_that_opted_in_are_given_the_kind_unless_they_opt_out() {
    let cluster = cluster("a namespace that opted in");
    let _injection = Injection::with(&cluster, REGION, &json!({"opted-in.app": ""}));
    let of_namespace = |name: &str, account: &str, labels: &Value| {
        changed(name, account, |pod| {
            pod["metadata"]["namespace"] = "opted-in".into();
            pod["metadata"]["labels"] = labels.clone();
        })
    };
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "opted-in", "labels": {OPT_IN: "web-identity"}},
    }));
    for account in ["app", "default"] {
        let metadata = json!({"name": account, "namespace": "opted-in"});
        cluster.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
    }
    eventually("the label of the namespace is known", || {
        let kept = cluster.try_out(&of_namespace("probe", "default", &json!(null)));
        kept.is_ok_and(|kept| kept["spec"]["volumes"] != json!(null))
    });
    for (account, labels, kind) in [
        ("default", json!(null), Some(WebIdentity)),
        ("default", json!({OPT_IN: "none"}), None),
        ("app", json!(null), Some(Association)),
        // It opts out of opting in, not of its association.
        ("app", json!({OPT_IN: "none"}), Some(Association)),
    ] {
        let kept = cluster.try_out(&of_namespace("some", account, &labels)).expect("it is accepted");
        assert_eq!(parts(&kept), given(kind, &labels), "{account} {labels}");
    }
    let elsewhere = cluster.try_out(&pod("elsewhere", "app")).expect("it is accepted");
    assert_eq!(parts(&elsewhere), given(None, &json!(null)), "an account of that name in another namespace");
}

#[test]
fn pods_that_cannot_use_a_token_or_the_agent_are_left_alone_and_those_of_the_host_network_are_not() {
    let cluster = cluster("pods that are left alone");
    let _injection = Injection::with(&cluster, REGION, &json!({"default.app": ""}));
    let untouched = |name: &str, pod: &Value| {
        let kept = cluster.create(pod).expect("it is accepted");
        assert_eq!(parts(&kept)["volumes"], json!(null), "{name}");
        assert_eq!(parts(&kept)["env"], json!(null), "{name}");
    };
    untouched(
        "a static pod",
        &changed("static", "-", |pod| {
            pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "e3"});
            pod["metadata"]["labels"] = json!({OPT_IN: "web-identity"});
            // Its kubelet has placed it, and it may not name an account.
            pod["spec"]["nodeName"] = "node-1".into();
            for field in ["serviceAccountName", "automountServiceAccountToken", "nodeSelector"] {
                pod["spec"].as_object_mut().expect("a spec").remove(field);
            }
        }),
    );
    let windows: [fn(&mut Value); 3] = [
        |pod| pod["spec"]["os"] = json!({"name": "windows"}),
        |pod| pod["spec"]["nodeSelector"]["kubernetes.io/os"] = "windows".into(),
        |pod| pod["spec"]["nodeSelector"]["beta.kubernetes.io/os"] = "windows".into(),
    ];
    for (number, change) in windows.into_iter().enumerate() {
        untouched("a pod for Windows", &changed(&format!("windows-{number}"), "app", change));
    }
    let linux = changed("linux", "app", |pod| {
        pod["spec"]["os"] = json!({"name": "linux"});
        pod["spec"]["nodeSelector"]["kubernetes.io/os"] = "linux".into();
        pod["spec"]["hostNetwork"] = true.into();
    });
    let kept = cluster.create(&linux).expect("it is accepted");
    assert_eq!(parts(&kept), given(Some(Association), &json!(null)), "on the host network");
}

#[test]
fn a_pod_that_opts_in_is_given_a_token_for_the_audience_of_the_settings() {
    let cluster = cluster("audience of injection");
    let mine = json!({"default.app": "", "audience": "https://mine.example"});
    let injection = Injection::with(&cluster, "eu-north-1", &mine);
    let audience_of = |name: &str, account: &str| {
        let pod = changed(name, account, |pod| pod["metadata"]["labels"] = json!({OPT_IN: "web-identity"}));
        let given = cluster.try_out(&pod).expect("it is accepted");
        given["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"].clone()
    };
    assert_eq!(audience_of("opted-in", "stranger"), "https://mine.example");
    assert_eq!(audience_of("association", "app"), "pods.eks.amazonaws.com", "an association has its own");
    injection.set("eu-south-1", &json!({"audience": ""}));
    assert_eq!(audience_of("opted-in", "stranger"), "sts.amazonaws.com");
}
