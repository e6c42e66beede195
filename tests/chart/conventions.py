"""Names, labels and values as Helm's users and those of Amazon's chart expect them."""

import re

import yaml
from rendering import CHART, GOOD, HYBRID, render, rendered

# What docs/install.md gives to an upgrade of a release of Amazon's chart: its default values have both names.
NAMES = "nameOverride=eks-pod-identity-agent,fullnameOverride=eks-pod-identity-agent"
INSTALL = CHART.parent.parent / "docs" / "install.md"
# A release of Amazon's chart without a fullnameOverride: each DaemonSet has the release's name.
OWN = "nameOverride=eks-pod-identity-agent,fullnameOverride="
LONG = "a" * 40 + "-pod-identity-agent-of-the-whole-shop"
# From the test data of Amazon's own repository (expected_eks_pod_identity_agent_hybrid_helm_template.yaml).
CUT = "eks-pod-identity-agent-custom-test-truncate-123213213121321121"
RELEASES = ("eks-pod-identity-agent", "shop", "7")
KINDS = ("cloud", "hybrid", "hybrid-bottlerocket")


def suffixed(name, kind):
    return name if kind == "cloud" else f"{name}-{kind}"


# Release, values, kind of nodes; and what Amazon's chart makes of them: the name of the DaemonSet and its label
# app.kubernetes.io/name. With its instance, which is the release, that is its selector, which no upgrade can change.
UPGRADES = (
    *((release, NAMES, kind, *[suffixed("eks-pod-identity-agent", kind)] * 2) for release in RELEASES for kind in KINDS),
    ("eks-pod-identity-agent", OWN, "cloud", "eks-pod-identity-agent", "eks-pod-identity-agent"),
    ("my-eks-pod-identity-agent", OWN, "hybrid", "my-eks-pod-identity-agent-hybrid", "eks-pod-identity-agent-hybrid"),
    ("shop", OWN, "cloud", "shop-eks-pod-identity-agent", "eks-pod-identity-agent"),
    ("shop", OWN, "hybrid", "shop-eks-pod-identity-agent-hybrid", "eks-pod-identity-agent-hybrid"),
    ("7", OWN, "hybrid-bottlerocket", "7-eks-pod-identity-agent-hybrid-bottlerocket", "eks-pod-identity-agent-hybrid-bottlerocket"),
    ("shop", OWN + LONG, "cloud", LONG[:63].removesuffix("-"), "eks-pod-identity-agent"),
    ("shop", OWN + LONG, "hybrid", LONG[:56].removesuffix("-") + "-hybrid", "eks-pod-identity-agent-hybrid"),
    ("release-name", f"nameOverride={CUT},fullnameOverride={CUT}", "cloud", CUT, CUT),
    (
        *("release-name", f"nameOverride={CUT},fullnameOverride={CUT}", "hybrid"),
        *["eks-pod-identity-agent-custom-test-truncate-123213213121-hybrid"] * 2,
    ),
)
# Keys that are a user's own, below which nothing can be misspelt.
FREE = {"env", "affinity", "updateStrategy", "additionalArgs", "additionalSecurityContext", "resources", "global"}
# Values of Amazon's charts without an effect here, and what Helm and charts around this one add.
DEAD = (
    "image.region=us-west-2",
    "podLivenessCheck.enabled=false",
    "podLiveness.enabled=false",
    "agent.metrics.enabled=true",
    "global.registry=example.com",
    "enabled=true",
)


def check_upgrades():
    """A release of Amazon's chart is upgraded in place: the same DaemonSet, found by the same labels."""
    if f"--set {NAMES}" not in INSTALL.read_text():
        yield f"{INSTALL.name}: an upgrade of Amazon's chart does not have {NAMES}"
    for release, values, kind, name, label in UPGRADES:
        create = [f"daemonsets.{one}.create={str(one == kind).lower()}" for one in KINDS]
        objects = rendered(*GOOD, "--set-string", values, "--set", HYBRID, "--set", ",".join(create), release=release)
        (daemonset,) = [found for found in objects if found["kind"] == "DaemonSet"]
        selector = daemonset["spec"]["selector"]["matchLabels"]
        if daemonset["metadata"]["name"] != name:
            yield f"{release}, {kind}: is {daemonset['metadata']['name']} and not {name}"
        if selector != {"app.kubernetes.io/name": label, "app.kubernetes.io/instance": release}:
            yield f"{release}, {kind}: finds its pods by {selector}"


EVERYTHING = (
    "metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.grafanaDashboard.enabled=true,"
    f"kubernetes.serviceAccounts=true,{HYBRID},daemonsets.hybrid-bottlerocket.create=true"
)
ROLES = [
    *("--set-json", 'webIdentity.roleMap={"shop/cart": {"RoleARN": "arn:aws:iam::111122223333:role/cart"}}'),
    *("--set-json", 'webIdentity.roleLimits={"shop": ["*"]}'),
]
# Of Helm's guide to labels; each object has them.
CONVENTIONAL = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "version", "component", "part-of", "managed-by")}


def check_every_object():
    """Every kind of object that the chart has: conventional labels, common labels and annotations, and a name that is short enough."""
    common = "commonLabels.cost=7,commonAnnotations.owner=true,commonLabels.app\\.kubernetes\\.io/name=other"
    objects = []
    # Both monitors at once are refused.
    for more in (EVERYTHING, EVERYTHING.replace("serviceMonitor", "podMonitor")):
        objects += rendered(*GOOD, *ROLES, "--set", more, "--set", common, "--set", f"fullnameOverride={LONG}")
    kinds = {found["kind"] for found in objects}
    if len(kinds) < 11:
        yield f"every object: only {sorted(kinds)}"
    for found in objects:
        metadata = found["metadata"]
        what = f"{found['kind']} {metadata['name']}"
        labels = metadata["labels"]
        if not CONVENTIONAL | {"helm.sh/chart"} <= labels.keys() or labels.get("cost") != "7":
            yield f"{what}: has the labels {labels}"
        if labels["app.kubernetes.io/name"] == "other":
            yield f"{what}: a common label has changed what the selector looks for"
        if metadata.get("annotations", {}).get("owner") != "true":
            yield f"{what}: has the annotations {metadata.get('annotations')}"
        # That of what has no namespace begins with one.
        if len(re.split("[:.]", metadata["name"])[-1]) > 63:
            yield f"{what}: has more than 63 characters"
        if found["kind"] == "DaemonSet":
            of_pods = found["spec"]["template"]["metadata"]
            if of_pods["labels"].get("cost") != "7" or "owner" in of_pods.get("annotations", {}):
                yield f"{what}: its pods have {of_pods}"
            yield from check_config_maps(what, found["spec"]["template"]["spec"], objects)


def check_config_maps(what, pod, objects):
    """Those that pods mount are there."""
    made = {found["metadata"]["name"] for found in objects if found["kind"] == "ConfigMap"}
    asked = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    if len(asked) != 2 or not asked <= made:
        yield f"{what}: mounts {sorted(asked)}, and there are {sorted(made)}"


def check_labels():
    """Whatever is in the values: labels that Kubernetes takes, the selector among those of the pods, and no version there."""
    for values in sorted((CHART.parent.parent / "tests" / "chart" / "variants").glob("*.yaml")):
        for found in rendered("--values", str(values), release="shop"):
            labels = found["metadata"]["labels"]
            if found["metadata"]["labels"].get("app.kubernetes.io/instance") != "shop":
                yield f"{values.name}: {found['kind']} has the labels {labels}"
            if found["kind"] != "DaemonSet":
                continue
            of_pods = found["spec"]["template"]["metadata"]["labels"]
            if not found["spec"]["selector"]["matchLabels"].items() <= of_pods.items():
                yield f"{values.name}: the selector does not find {of_pods}"
            if {"app.kubernetes.io/version", "helm.sh/chart"} & of_pods.keys():
                yield f"{values.name}: a new version of the chart restarts every agent"
            for name, value in (labels | of_pods).items():
                if not isinstance(value, str) or len(value) > 63:
                    yield f"{values.name}: the label {name} is {value!r}"


def misspelt(tree, path=()):
    """Each key of the values with a letter missing, where the chart looks for it."""
    for key, value in tree.items():
        yield ".".join((*path, key[:-1]))
        if isinstance(value, dict) and value and key not in FREE:
            yield from misspelt(value, (*path, key))


def check_typos():
    """No misspelt value passes silently; Amazon's dead ones do."""
    for name in misspelt(yaml.safe_load((CHART / "values.yaml").read_text())):
        if render(*GOOD, "--set-json", f"{name}={{}}").returncode == 0:
            yield f"{name} is taken for a value"
    for value in DEAD:
        told = render(*GOOD, "--set", value)
        if told.returncode != 0:
            yield f"{value}, which does no harm: {told.stderr.strip()}"
