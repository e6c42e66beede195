"""What a value makes of the agent's container: its capabilities, its text, its flags."""

import json

import yaml
from rendering import GOOD, HYBRID, render, rendered

# No feature that needs more than port 80. Something has to add the addresses.
BARE = ["--set", "manageLink=false,guardAddress=false,init.create=true"]
# docs/privileges.md, with what the helper process of the last one keeps.
CAPABILITIES = {
    "": set(),
    "manageLink=true": {"NET_ADMIN"},
    "guardAddress=true": {"NET_ADMIN"},
    "blockImds=on": {"NET_ADMIN"},
    # Counting is the default, and a default asks for no capability.
    "blockImds=observe": set(),
    "probeNamespace=true": {"NET_ADMIN", "SYS_ADMIN"},
}
# What YAML reads as something else than text, or as two things.
ODD = ("123", "1e3", "0755", "null", "true")
TEXT = "a: b #c"


def agents(*arguments, **release):
    for found in rendered(*GOOD, *arguments, **release):
        if found["kind"] == "DaemonSet":
            yield found["spec"]["template"]["spec"]["containers"][0]


def check_capabilities():
    """Each feature alone gets what it needs, and no more."""
    for value, needed in CAPABILITIES.items():
        for container in agents(*BARE, "--set", value):
            added = set(container["securityContext"]["capabilities"]["add"])
            if added != needed | {"NET_BIND_SERVICE"}:
                yield f"{value or 'no feature'}: the agent has {sorted(added)}"


def check_text():
    """Text stays text, though it looks like a number, or like YAML."""
    for text in ODD:
        names = f"fullnameOverride={text},serviceAccount.name={text},priorityClassName={text}"
        monitors = "metrics.podMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.grafanaDashboard.enabled=true"
        keys = f"podLabels.{text}=a,podAnnotations.{text}=a,env.{text}=a"
        # The last namespace is the one that counts.
        arguments = ["--set-string", names, "--set", monitors, "--set-string", keys, "--namespace", text]
        told = render(*GOOD, *arguments)
        if told.returncode != 0:
            yield f"{text}: {told.stderr.strip()}"
        for found in filter(None, yaml.safe_load_all(told.stdout)):
            metadata = found["metadata"]
            expected = text + "-dashboard" if found["kind"] == "ConfigMap" else text
            # What has no namespace has it in its name.
            if found["kind"].startswith("ClusterRole"):
                name, namespace = f"{text}:{text}", None
            elif found["kind"].startswith("ValidatingAdmissionPolicy"):
                name, namespace = f"{text}.{text}", None
            else:
                name, namespace = expected, text
            if metadata["name"] != name or metadata.get("namespace") != namespace:
                yield f"{text}: the {found['kind']} is {metadata['name']!r} in {metadata.get('namespace')!r}"
            if found["kind"] == "DaemonSet":
                yield from text_of_pods(text, found["spec"]["template"])
    for container in agents("--set-string", f"clusterName={TEXT},agent.livenessEndpoint=/{TEXT}"):
        if f"--cluster-name={TEXT}" not in container["args"] or container["livenessProbe"]["httpGet"]["path"] != f"/{TEXT}":
            yield f"{TEXT!r}: {container['args']}, {container['livenessProbe']}"


def text_of_pods(text, template):
    spec = template["spec"]
    names = {
        "account": spec["serviceAccountName"],
        "priority": spec["priorityClassName"],
        "label": next((key for key, value in template["metadata"]["labels"].items() if value == "a"), None),
        "annotation": next(iter(template["metadata"]["annotations"])),
        "variable": next(variable["name"] for variable in spec["containers"][0]["env"] if variable.get("value") == "a"),
    }
    for what, name in names.items():
        if name != text:
            yield f"{text}: the {what} is {name!r}"


PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
ACCOUNTS = {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]}
REVIEWS = {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
EVENTS = {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}


def check_rights():
    """Each right is there with what needs it, and only there; and it is never the account `default`'s."""
    for values, rules in (
        ("kubernetes.pods=true", [PODS, REVIEWS, EVENTS]),
        ("kubernetes.events=false", [PODS, REVIEWS]),
        ("kubernetes.tokenReview=false", [PODS, EVENTS]),
        ("kubernetes.pods=false", [REVIEWS]),
        ("kubernetes.serviceAccounts=true", [PODS, ACCOUNTS, REVIEWS, EVENTS]),
        ("kubernetes.serviceAccounts=true,kubernetes.pods=false,kubernetes.tokenReview=false", [ACCOUNTS]),
        ("kubernetes.pods=false,kubernetes.tokenReview=false", []),
        ("kubernetes.enabled=false", []),
        ("rbac.create=false", []),
        ("serviceAccount.create=false", []),
        ("serviceAccount.create=false,serviceAccount.name=agent", [PODS, REVIEWS, EVENTS]),
    ):
        documents = list(filter(None, yaml.safe_load_all(render(*GOOD, "--set", values).stdout)))
        kinds = [document["kind"] for document in documents if document["kind"].startswith("ClusterRole")]
        if kinds != (["ClusterRole", "ClusterRoleBinding"] if rules else []):
            yield f"{values}: {kinds}"
        for document in documents:
            if document["kind"] == "ClusterRole" and document["rules"] != rules:
                yield f"{values}: {document['rules']}"
    off = "kubernetes.enabled=false,kubernetes.pods=false,kubernetes.tokenReview=false,kubernetes.checkPodUID=off"
    for container in agents("--set", off):
        flags = {"--kubernetes=off", "--watch-pods=false", "--token-review=off", "--check-pod-uid=off"}
        missing = flags - set(container["args"])
        if missing or any(mount["name"] == "kubernetes-api" for mount in container.get("volumeMounts", [])):
            yield f"without Kubernetes: {container['args']}, {container.get('volumeMounts')}"


def check_events():
    """The flag and the policy are there where Events are written; the policy only where Kubernetes has policies."""
    for values, version, writes, has_policy in (
        ("kubernetes.pods=true", "1.30", True, True),
        ("kubernetes.pods=true", "1.29", True, False),
        ("rbac.create=false", "1.30", True, True),
        ("kubernetes.eventsPolicy=false", "1.30", True, False),
        ("serviceAccount.create=false", "1.30", True, False),
        ("kubernetes.events=false", "1.30", False, False),
        ("kubernetes.pods=false", "1.30", False, False),
        ("kubernetes.enabled=false", "1.30", False, False),
    ):
        documents = rendered(*GOOD, "--set", values, "--kube-version", version)
        kinds = [document["kind"] for document in documents if document["kind"].startswith("ValidatingAdmission")]
        if kinds != (["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] if has_policy else []):
            yield f"{values} for {version}: {kinds}"
        for document in documents:
            if document["kind"] == "DaemonSet":
                arguments = document["spec"]["template"]["spec"]["containers"][0]["args"]
                if ("--kubernetes-events=true" in arguments) != writes:
                    yield f"{values}: {arguments}"
            if document["kind"] == "ValidatingAdmissionPolicy":
                (condition,) = document["spec"]["matchConditions"]
                if condition["expression"] != "request.userInfo.username == 'system:serviceaccount:kube-system:pod-identity-agent'":
                    yield f"{values}: it is for {condition['expression']}"


def check_verification():
    """The flag is always there: what the agent does is what the value says, and never its own default."""
    keys = ["--set", "jwks={/keys.json},issuers={https://a.example}"]
    for value, more in (("auto", []), ("off", []), ("required", []), ("auto", keys), ("off", keys), ("required", keys)):
        for container in agents("--set", f"tokenVerification={value}", *more):
            if f"--token-verification={value}" not in container["args"]:
                yield f"tokenVerification={value}: {container['args']}"


ROLE = "arn:aws:iam::111122223333:role/cart"
LIMITS = {"shop": ["arn:aws:iam::111122223333:role/*", "arn:aws:iam::111122223333:role/team!a/*"]}
MAP = "/etc/pod-identity-agent/role-map/config"


def check_trial_call():
    """The trial call has its token where its flag says, for EKS Auth alone; without anybody to ask there is neither."""
    alone = ["--set", "podIdentity=false,kubernetes.serviceAccounts=true"]
    hybrid = ["--set", HYBRID]
    for values, wanted in (([], True), (hybrid, True), (["--set", "trialCall=false"], False), (alone, False)):
        for found in rendered(*GOOD, *values):
            if found["kind"] != "DaemonSet":
                continue
            pod = found["spec"]["template"]["spec"]
            container = pod["containers"][0]
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            flag = [argument for argument in container["args"] if argument.startswith("--trial-token-file")]
            if bool(flag) != wanted or ("trial-call" in volumes) != wanted or ("trial-call" in mounts) != wanted:
                yield f"trial call, {values}: {flag}, {sorted(volumes)}, {sorted(mounts)}"
            elif wanted:
                (source,) = volumes["trial-call"]["projected"]["sources"]
                token = source["serviceAccountToken"]
                if flag != [f"--trial-token-file={mounts['trial-call']}/{token['path']}"]:
                    yield f"trial call, {values}: {flag} is not where the token is"
                if token["audience"] != "pods.eks.amazonaws.com":
                    yield f"trial call, {values}: for {token['audience']}"


def check_roles():
    """Flags and files of roles are there with what asks for them, and only there; the agent finds each file where its flag says."""
    given = {
        "shop/cart": {"RoleARN": ROLE, "TokenExpiration": 86400, "Audience": ""},
        # As kOps writes it for the webhook.
        "shop/till": {"RoleARN": ROLE, "Audience": "amazonaws.com", "UseRegionalSTS": True, "TokenExpiration": 0},
        "shop/odd": {"RoleARN": "arn:aws:iam::111122223333:role/team!a/{b}/cart"},
    }
    as_map = ["--set-json", "webIdentity.roleMap=" + json.dumps(given)]
    as_limits = ["--set-json", "webIdentity.roleLimits=" + json.dumps(LIMITS)]
    flag_of_limits = "--role-limits=/etc/pod-identity-agent/role-limits/config"
    annotations = ["--set", "kubernetes.serviceAccounts=true"]
    for values, flags, files in (
        ([], set(), {}),
        (annotations, {"--service-account-roles=true"}, {}),
        ([*annotations, "--set", "podIdentity=false"], {"--service-account-roles=true", "--pod-identity=false"}, {}),
        (as_map, {f"--role-map={MAP}"}, {"role-map": given}),
        (["--set", "webIdentity.roleMapConfigMap=roles"], {f"--role-map={MAP}"}, {"role-map": None}),
        ([*as_map, *as_limits], {f"--role-map={MAP}", flag_of_limits}, {"role-map": given, "role-limits": LIMITS}),
        # Nothing is allowed, which is not the same as no limits.
        (
            [*annotations, "--set-json", "webIdentity.roleLimits={}"],
            {"--service-account-roles=true", flag_of_limits},
            {"role-limits": {}},
        ),
        (
            ["--set", "webIdentity.audiences={sts.amazonaws.com,mine},webIdentity.sessionName=fixed:kafka"],
            {"--web-identity-audience=sts.amazonaws.com", "--web-identity-audience=mine", "--session-name=fixed:kafka"},
            {},
        ),
        (["--set", "webIdentity.stsEndpoint=https://vpce.example"], {"--sts-endpoint=https://vpce.example"}, {}),
    ):
        documents = rendered(*GOOD, *values)
        made = {document["metadata"]["name"]: document["data"]["config"] for document in documents if document["kind"] == "ConfigMap"}
        expected = {f"pod-identity-agent-{name}": content for name, content in files.items() if content is not None}
        if {name: json.loads(content) for name, content in made.items()} != expected:
            yield f"roles, {values}: made {made}"
        (pod,) = [document["spec"]["template"]["spec"] for document in documents if document["kind"] == "DaemonSet"]
        (container,) = pod["containers"]
        names = ("--service-account-roles", "--pod-identity", "--role-", "--web-identity-audience", "--session-name", "--sts-endpoint")
        if {flag for flag in container["args"] if flag.startswith(names)} != flags:
            yield f"roles, {values}: {container['args']}"
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"] if mount["name"].startswith("role-")}
        if mounted != {name: f"/etc/pod-identity-agent/{name}" for name in files}:
            yield f"roles, {values}: mounted {mounted}"
        sources = {volume["name"]: volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"].startswith("role-")}
        if sources != {name: "roles" if content is None else f"pod-identity-agent-{name}" for name, content in files.items()}:
            yield f"roles, {values}: volumes are of {sources}"
