//! Which containers of a pod are changed, and how what they have already is kept.

use serde_json::{Value, json};

use super::kinds::Kind::{Association, WebIdentity};
use super::kinds::variable;
use super::{Injection, changed};
use crate::harness::cluster::{Turn, cluster, eventually};

const REGION: &str = "ap-south-1";

/// Variables and mounts of each container and init container that has any, by name.
fn containers(pod: &Value) -> Value {
    let mut by_name = json!({});
    for kind in ["initContainers", "containers"] {
        for container in pod["spec"][kind].as_array().into_iter().flatten() {
            let name = container["name"].as_str().expect("a name");
            by_name[name] = json!([container["env"], container["volumeMounts"]]);
        }
    }
    by_name
}

fn container(name: &str, env: &Value) -> Value {
    json!({"name": name, "image": "localhost/client:test", "env": env})
}

/// What a container without anything is given.
fn all() -> Value {
    json!([Association.all_variables(REGION), [Association.mount()]])
}

fn created(cluster: &Turn, name: &str, change: impl FnOnce(&mut Value)) -> Value {
    cluster.create(&changed(name, "app", change)).expect("it is accepted")
}

#[test]
fn containers_of_each_sort_are_given_variables_and_keep_their_order() {
    let cluster = cluster("sorts of containers");
    let _injection = Injection::with(&cluster, REGION, &json!({"default.app": ""}));
    let kept = created(&cluster, "sorts", |pod| {
        let mut sidecar = container("sidecar", &json!([]));
        sidecar["restartPolicy"] = "Always".into();
        let skipped = |name: &str| container(name, &json!([]));
        pod["metadata"]["annotations"] =
            json!({"eks.amazonaws.com/skip-containers": "skipped-init, skipped,nobody"});
        pod["spec"]["initContainers"] =
            json!([skipped("skipped-init"), container("init", &json!([])), sidecar]);
        pod["spec"]["containers"] = json!([skipped("skipped"), container("main", &json!([]))]);
    });
    let expected = json!({
        "skipped-init": [null, null], "init": all(), "sidecar": all(), "skipped": [null, null], "main": all(),
    });
    assert_eq!(containers(&kept), expected);
    let order = |kind: &str| -> Vec<Value> {
        let containers = kept["spec"][kind].as_array().expect("a list").iter();
        containers.map(|container| container["name"].clone()).collect()
    };
    assert_eq!(order("initContainers"), ["skipped-init", "init", "sidecar"]);
    assert_eq!(order("containers"), ["skipped", "main"]);
    assert_eq!(kept["spec"]["initContainers"][2]["restartPolicy"], "Always");
}

#[test]
fn what_containers_have_stays_as_it_is() {
    let cluster = cluster("existing variables");
    let _injection = Injection::with(&cluster, REGION, &json!({"default.app": ""}));
    let of_name = json!({"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}});
    let of_region = json!({"name": "AWS_REGION",
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}});
    let other = variable("TWICE", "$(AWS_REGION)");
    let containers_before = json!([
        container("full-uri", &json!([variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost")])),
        container("relative-uri", &json!([variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2")])),
        container("token", &json!([variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t")])),
        container("web-identity", &json!([variable("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")])),
        container("role", &json!([variable("AWS_ROLE_ARN", "arn")])),
        container("value-from", &json!([of_name])),
        container("region", &json!([variable("AWS_DEFAULT_REGION", "us-east-1")])),
        container("region-from", &json!([of_region])),
        // Kubernetes allows both, and a merge by keys does not.
        container("others", &json!([other, other])),
    ]);
    let kept = created(&cluster, "existing", |pod| {
        pod["spec"]["containers"] = containers_before.clone();
        pod["spec"]["containers"][8]["ports"] = json!([{"containerPort": 80}, {"containerPort": 80}]);
    });
    let mut expected = containers(&json!({"spec": {"containers": containers_before}}));
    for name in ["region", "region-from"] {
        let own = expected[name][0][0].clone();
        let env: Vec<Value> = [own].into_iter().chain(Association.variables()).collect();
        expected[name] = json!([env, [Association.mount()]]);
    }
    let both = [other.clone(), other].into_iter();
    let env: Vec<Value> = both.chain(Association.all_variables(REGION)).collect();
    expected["others"] = json!([env, [Association.mount()]]);
    assert_eq!(containers(&kept), expected);
    assert_eq!(kept["spec"]["containers"][8]["ports"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_pod_of_which_no_container_is_changed_is_given_no_token() {
    let cluster = cluster("nothing to change");
    let _injection = Injection::with(&cluster, REGION, &json!({"default.app": ""}));
    let kept = created(&cluster, "skipped", |pod| {
        pod["metadata"]["annotations"] = json!({"eks.amazonaws.com/skip-containers": "main"});
    });
    assert_eq!(containers(&kept), json!({"main": [null, null]}));
    assert_eq!(kept["spec"]["volumes"], json!(null));
    assert_eq!(kept["metadata"]["labels"], json!({"made-by": "test"}));
}

#[test]
fn volumes_and_mounts_of_the_same_name_or_place_are_used_if_they_have_the_token() {
    let cluster = cluster("existing volumes");
    let _injection = Injection::with(&cluster, REGION, &json!({"default.app": ""}));
    let other = json!({"name": "other", "emptyDir": {}});
    let mount_of_other = |folder: &str| json!([{"name": "other", "mountPath": folder}]);
    let kept = created(&cluster, "other-volume", |pod| {
        pod["spec"]["volumes"] = json!([other]);
        pod["spec"]["containers"][0]["volumeMounts"] = mount_of_other("/other");
    });
    assert_eq!(kept["spec"]["volumes"], json!([Association.volume(86_400), other]));
    let mounts = json!([mount_of_other("/other")[0], Association.mount()]);
    assert_eq!(kept["spec"]["containers"][0]["volumeMounts"], mounts);

    let own = Association.volume(3_600);
    let kept = created(&cluster, "own-volume", |pod| {
        pod["spec"]["volumes"] = json!([own]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([Association.mount()]);
        let second = container("second", &json!([]));
        pod["spec"]["containers"].as_array_mut().expect("a list").push(second);
    });
    assert_eq!(kept["spec"]["volumes"], json!([own]), "one token is enough");
    assert_eq!(containers(&kept), json!({"main": all(), "second": all()}));

    let name_is_taken = json!({"name": Association.volume_name(), "emptyDir": {}});
    let mut of_another_audience = WebIdentity.volume(3_600);
    of_another_audience["name"] = Association.volume_name().into();
    for (number, volume) in [name_is_taken, of_another_audience].into_iter().enumerate() {
        let kept =
            created(&cluster, &format!("taken-{number}"), |pod| pod["spec"]["volumes"] = json!([volume]));
        assert_eq!(kept["spec"]["volumes"], json!([volume]));
        assert_eq!(containers(&kept), json!({"main": [null, null]}), "its file would not be there");
    }

    let kept = created(&cluster, "place-is-taken", |pod| {
        pod["spec"]["volumes"] = json!([other]);
        pod["spec"]["containers"][0]["volumeMounts"] = mount_of_other(Association.folder());
        let second = container("second", &json!([]));
        pod["spec"]["containers"].as_array_mut().expect("a list").push(second);
    });
    let expected = json!({"main": [null, mount_of_other(Association.folder())], "second": all()});
    assert_eq!(containers(&kept), expected);
}

#[test]
fn lifetime_and_address_are_what_annotation_and_settings_say() {
    let cluster = cluster("lifetime and address");
    let of_ipv6 = "http://[fd00:ec2::23]/v1/credentials";
    let injection =
        Injection::with(&cluster, REGION, &json!({"default.app": "", "credentials-uri": of_ipv6}));
    for (number, (annotation, lifetime)) in [
        ("3600", 3_600),
        ("599", 600),
        ("600", 600),
        ("86400", 86_400),
        ("86401", 86_400),
        ("4294967297", 86_400),
        ("an hour", 86_400),
        ("-1", 86_400),
        ("", 86_400),
    ]
    .into_iter()
    .enumerate()
    {
        let kept = created(&cluster, &format!("lifetime-{number}"), |pod| {
            pod["metadata"]["annotations"] = json!({"eks.amazonaws.com/token-expiration": annotation});
        });
        assert_eq!(kept["spec"]["volumes"], json!([Association.volume(lifetime)]), "{annotation}");
        let uri = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", of_ipv6);
        assert_eq!(kept["spec"]["containers"][0]["env"][2], uri);
    }
    let env = || {
        let kept = cluster.try_out(&super::pod("tried", "app")).expect("it is accepted");
        kept["spec"]["containers"][0]["env"].clone()
    };
    // What is not there, and what has no value.
    let nothing = json!({"default.app": ""});
    let empty = json!({"default.app": "", "credentials-uri": "", "region": "", "audience": ""});
    for data in [nothing, empty] {
        injection.cluster.apply(&super::settings(&json!({"default.app": "", "credentials-uri": of_ipv6})));
        let uri = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", of_ipv6);
        eventually("there is no region any more, and the address of IPv6", || env()[0] == uri);
        injection.cluster.apply(&super::settings(&data));
        eventually("the address of IPv4", || env() == json!(Association.variables()));
    }
}

#[test]
fn a_container_that_is_added_afterwards_is_given_variables_too() {
    let cluster = cluster("a container that is added");
    let _injection = Injection::with(&cluster, REGION, &json!({"default.app": ""}));
    // As a service mesh does. After ours: policies are asked in the order of their names.
    let add = "[JSONPatch{op: 'add', path: '/spec/containers/-', \
        value: Object.spec.containers{name: 'proxy', image: 'localhost/client:test'}}]";
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]);
    for (kind, spec) in [
        (
            "MutatingAdmissionPolicy",
            json!({
                "failurePolicy": "Ignore", "reinvocationPolicy": "Never",
                "matchConstraints": {"resourceRules": rules},
                "matchConditions": [{
                    "name": "mesh", "expression": "object.metadata.?name.orValue('') == 'in-a-mesh'",
                }],
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": add}}],
            }),
        ),
        ("MutatingAdmissionPolicyBinding", json!({"policyName": "test-mesh"})),
    ] {
        let api = "admissionregistration.k8s.io/v1";
        cluster.apply(
            &json!({"apiVersion": api, "kind": kind, "metadata": {"name": "test-mesh"}, "spec": spec}),
        );
    }
    let in_a_mesh = super::pod("in-a-mesh", "app");
    eventually("the other policy is in force", || {
        let kept = cluster.try_out(&in_a_mesh).expect("it is accepted");
        kept["spec"]["containers"].as_array().is_some_and(|containers| containers.len() == 2)
    });
    let kept = cluster.create(&in_a_mesh).expect("it is accepted");
    assert_eq!(containers(&kept), json!({"main": all(), "proxy": all()}));
    assert_eq!(kept["spec"]["volumes"], json!([Association.volume(86_400)]));
}
