"""Values that Helm's users expect of any chart: each one's effect on the DaemonSet and its pods, and none without it."""

import json

import yaml
from rendering import render

IMAGE = "registry.example.com/agent"
DIGEST = "sha256:" + "0" * 64
SECRET = {"secretKeyRef": {"name": "proxy", "key": "url"}}
SOURCE = [{"configMapRef": {"name": "agent-environment"}}]
DNS = {"options": [{"name": "ndots", "value": "1"}]}
# What is set, where its effect is looked for, and what is there. Each is not there by default.
EFFECTS = (
    ({"minReadySeconds": 30}, "spec.minReadySeconds", 30),
    ({"revisionHistoryLimit": 0}, "spec.revisionHistoryLimit", 0),
    ({"terminationGracePeriodSeconds": 45}, "pod.terminationGracePeriodSeconds", 45),
    ({"dnsPolicy": "ClusterFirstWithHostNet"}, "pod.dnsPolicy", "ClusterFirstWithHostNet"),
    ({"dnsConfig": DNS}, "pod.dnsConfig", DNS),
    ({"envFrom": SOURCE}, "agent.envFrom", SOURCE),
    ({"daemonsetAnnotations": {"a/b": True}}, "metadata.annotations", {"a/b": "true"}),
    ({"podSecurityContext": {"fsGroup": 7}}, "pod.securityContext", {"seccompProfile": {"type": "RuntimeDefault"}, "fsGroup": 7}),
    ({"podSecurityContext": {"seccompProfile": {"type": "Unconfined"}}}, "pod.securityContext.seccompProfile", {"type": "Unconfined"}),
    ({"securityContext": {"runAsUser": 65532}}, "agent.securityContext.runAsUser", 65532),
    ({"securityContext": {"capabilities": {"add": ["BPF"]}}}, "agent.securityContext.capabilities", {"drop": ["ALL"], "add": ["BPF"]}),
    ({"resources": {"limits": {"memory": "64Mi"}}}, "agent.resources",
     {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}),
    ({"resources": {"requests": None}}, "agent.resources", None),
    ({"env": {"HTTPS_PROXY": {"valueFrom": SECRET}}}, "variable.HTTPS_PROXY", {"name": "HTTPS_PROXY", "valueFrom": SECRET}),
    ({"env": {"NODE_NAME": "a"}}, "variable.NODE_NAME", {"name": "NODE_NAME", "value": "a"}),
    ({"daemonsets": {"cloud": {"env": {"A": {"valueFrom": SECRET}}}}, "env": {"A": "b"}}, "variable.A", {"name": "A", "valueFrom": SECRET}),
    ({"env": {"AWS_REGION": ""}, "envFrom": SOURCE}, "variable.AWS_REGION", None),
    ({"env": {"AWS_REGION": ""}}, "variable.AWS_REGION", None),
    ({"image": {"registry": "a.example"}}, "agent.image", "a.example/pod-identity-agent:0.1.0"),
    ({"image": {"containerRegistry": "a.example"}}, "agent.image", "a.example/pod-identity-agent:0.1.0"),
    ({"image": {"registry": "a.example", "containerRegistry": "b.example"}}, "agent.image", "a.example/pod-identity-agent:0.1.0"),
    ({"image": {"registry": "a.example"}, "global": {"imageRegistry": "b.example"}}, "agent.image", "b.example/pod-identity-agent:0.1.0"),
    ({"image": {"repository": IMAGE, "digest": DIGEST}}, "agent.image", f"{IMAGE}@{DIGEST}"),
    ({"image": {"repository": IMAGE, "digest": DIGEST, "tag": "v1"}}, "agent.image", f"{IMAGE}:v1@{DIGEST}"),
    ({"image": {"override": f"{IMAGE}:2"}, "global": {"imageRegistry": "b.example"}}, "agent.image", f"{IMAGE}:2"),
)
REFUSED_HERE = (
    {"env": {"A": {"value": "b"}}},
    {"env": {"A": {"valueFrom": SECRET, "more": 1}}},
    {"image": {"digest": "sha256:0"}},
    {"dnsPolicy": "clusterfirst"},
    {"minReadySeconds": "5s"},
)


def rendered_with(values):
    """What Helm says of these values and the required ones."""
    values = {"clusterName": "shop", **values, "env": {"AWS_REGION": "eu-west-1", **values.get("env", {})}}
    # One `--set-json` for each section, so that what is not named keeps its default.
    return render(*[argument for key, value in values.items() for argument in ("--set-json", f"{key}={json.dumps(value)}")])


def look(daemonset, path):
    pod = daemonset["spec"]["template"]["spec"]
    (agent,) = pod["containers"]
    place, *keys = path.split(".")
    if place == "variable":
        found = [variable for variable in agent["env"] if variable["name"] == keys[0]]
        return found[0] if len(found) == 1 else (found or None)
    here = {"metadata": daemonset["metadata"], "spec": daemonset["spec"], "pod": pod, "agent": agent}[place]
    for key in keys:
        here = here.get(key, {})
    return here or (here if here == 0 else None)


def daemonset_of(values):
    documents = filter(None, yaml.safe_load_all(rendered_with(values).stdout))
    return next((document for document in documents if document["kind"] == "DaemonSet"), None)


def check_effects():
    default = daemonset_of({})
    for values, path, expected in EFFECTS:
        daemonset = daemonset_of(values)
        if daemonset is None:
            yield f"{values}: is not rendered: {rendered_with(values).stderr.strip()}"
            continue
        if look(daemonset, path) != expected:
            yield f"{values}: {path} is {look(daemonset, path)}"
        if look(default, path) == expected:
            yield f"{values}: {path} is the same without it"
    for values in REFUSED_HERE:
        if rendered_with(values).returncode == 0:
            yield f"{values} is rendered"


def check_once():
    """A variable and a key stand in a container once, however many values name it."""
    values = {"env": {"AWS_REGION": "us-iso-east-1", "AWS_CA_BUNDLE": "/a", "NODE_NAME": "b"}}
    values["daemonsets"] = {"cloud": {"env": {"NODE_NAME": "c"}, "additionalSecurityContext": {"runAsUser": 0, "capabilities": {"add": ["X"]}}}}
    agent = daemonset_of(values)["spec"]["template"]["spec"]["containers"][0]
    names = [variable["name"] for variable in agent["env"]]
    if sorted(names) != ["AWS_CA_BUNDLE", "AWS_REGION", "NODE_NAME"]:
        yield f"variables: {names}"
    text = rendered_with(values).stdout
    if text.count("runAsUser:") != 1 or text.count("capabilities:") != 1:
        yield "the security context has a key twice"


def check_extra_objects():
    """A user's own objects, as maps and as text, both with templates."""
    as_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-a"}}
    as_text = "apiVersion: v1\nkind: Secret\nmetadata: {name: '{{ .Values.clusterName }}-b'}"
    found = filter(None, yaml.safe_load_all(rendered_with({"extraObjects": [as_map, as_text]}).stdout))
    names = {(document["kind"], document["metadata"]["name"]) for document in found}
    if not {("ConfigMap", "pod-identity-agent-a"), ("Secret", "shop-b")} <= names:
        yield f"extraObjects: {sorted(names)}"
