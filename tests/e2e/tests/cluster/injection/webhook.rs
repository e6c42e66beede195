//! deploy/injection/webhook, which is not run here: that it is what a Kubernetes API server and the webhook's
//! own documents understand.

use serde_json::{Value, json};

use crate::harness::cluster::{Turn, cluster, repository};

/// The webhook's flags that we use (its main.go, of 2024 and later).
const FLAGS: [&str; 10] = [
    "in-cluster",
    "namespace",
    "service-name",
    "tls-cert",
    "tls-key",
    "watch-container-credentials-config",
    "container-credentials-audience",
    "container-credentials-full-uri",
    // Of klog.
    "logtostderr",
    "v",
];

/// The objects of a file, by kind.
fn objects(cluster: &Turn, file: &str) -> Vec<Value> {
    let file = repository("deploy/injection/webhook").join(file);
    let file = file.to_string_lossy();
    let strict = ["create", "--dry-run=client", "--validate=strict", "-o", "json", "-f", &file];
    let text = cluster.kubectl(&strict);
    serde_json::Deserializer::from_str(&text).into_iter().map(|object| object.expect("JSON")).collect()
}

/// A list of texts in JSON.
fn texts(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
}

#[test]
fn the_configuration_for_older_clusters_is_what_kubernetes_and_the_webhook_document() {
    let cluster = cluster("the webhook's files");
    let all: Vec<Value> =
        ["namespace.yaml", "account.yaml", "settings.yaml", "server.yaml", "configuration.yaml"]
            .into_iter()
            .flat_map(|file| objects(&cluster, file))
            .collect();
    let of_kind = |kind: &str| {
        let mut found = all.iter().filter(|object| object["kind"] == kind);
        found.next().unwrap_or_else(|| panic!("no {kind}"))
    };
    let namespace = of_kind("Namespace")["metadata"]["name"].clone();

    let spec = &of_kind("Deployment")["spec"]["template"]["spec"];
    let command = texts(&spec["containers"][0]["command"]);
    assert_eq!(command[0], "/webhook");
    let mut accounts_file = "";
    for flag in &command[1..] {
        let (name, value) = flag.trim_start_matches("--").split_once('=').unwrap_or((&flag[2..], "true"));
        assert!(FLAGS.contains(&name), "no flag of the webhook: {flag}");
        match name {
            "namespace" => assert_eq!(namespace, value),
            "service-name" => assert_eq!(of_kind("Service")["metadata"]["name"], value),
            "watch-container-credentials-config" => accounts_file = value,
            _ => (),
        }
    }

    may_read_what_it_watches(of_kind, &namespace, &spec["serviceAccountName"]);

    let settings = of_kind("ConfigMap");
    let mounts = spec["containers"][0]["volumeMounts"].as_array().expect("a list").iter();
    let mut of_accounts = mounts.filter(|mount| mount["name"] == "accounts");
    let folder = of_accounts.next().expect("it is mounted")["mountPath"].as_str().expect("a path");
    let key =
        accounts_file.strip_prefix(folder).and_then(|key| key.strip_prefix('/')).expect("it is in there");
    let volumes = spec["volumes"].as_array().expect("a list");
    let name = &settings["metadata"]["name"];
    assert!(volumes.contains(&json!({"name": "accounts", "configMap": {"name": name}})), "{volumes:?}");
    // Its IdentityConfigObject: what is misspelt there is ignored without a word.
    let accounts: Value =
        serde_json::from_str(settings["data"][key].as_str().expect("a text")).expect("JSON");
    assert_eq!(accounts, json!({"identities": [{"namespace": "shop", "serviceAccount": "cart"}]}));

    let webhook = &of_kind("MutatingWebhookConfiguration")["webhooks"][0];
    let service =
        json!({"name": "pod-identity-webhook", "namespace": namespace, "path": "/mutate", "port": 443});
    let mut asked = webhook["clientConfig"]["service"].clone();
    asked["port"] = 443.into();
    assert_eq!(asked, service);
    assert_eq!(of_kind("Service")["spec"]["ports"][0]["port"], 443);
    // It answers in no other version.
    assert_eq!(webhook["admissionReviewVersions"], json!(["v1beta1"]));
    cluster.try_out(of_kind("MutatingWebhookConfiguration")).expect("the API server takes it");
}

fn may_read_what_it_watches<'a>(of_kind: impl Fn(&str) -> &'a Value, namespace: &Value, account: &Value) {
    assert_eq!(of_kind("ServiceAccount")["metadata"]["name"], *account);
    for (kind, binding, resource) in [
        // Its informers: of all service accounts, and with --watch-config-map of ConfigMaps in its namespace.
        ("ClusterRole", "ClusterRoleBinding", "serviceaccounts"),
        ("Role", "RoleBinding", "configmaps"),
    ] {
        let (role, binding) = (of_kind(kind), of_kind(binding));
        let rule = json!({"apiGroups": [""], "resources": [resource], "verbs": ["get", "list", "watch"]});
        assert_eq!(role["rules"], json!([rule]), "{kind}");
        let api = "rbac.authorization.k8s.io";
        let named = json!({"apiGroup": api, "kind": kind, "name": role["metadata"]["name"]});
        assert_eq!(binding["roleRef"], named);
        let bound = json!({"kind": "ServiceAccount", "name": account, "namespace": namespace});
        assert_eq!(binding["subjects"], json!([bound]));
        let place = if kind == "Role" { namespace } else { &Value::Null };
        assert_eq!((&role["metadata"]["namespace"], &binding["metadata"]["namespace"]), (place, place));
    }
}
