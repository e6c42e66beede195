"""Names, labels and values as Helm's users and those of Amazon's chart expect them."""

import yaml
from rendering import CHART, GOOD, render, rendered

# What Amazon's chart makes of a release and of values: the name of a DaemonSet, and its selector, which no upgrade can change.
AMAZONS = ["--set", "nameOverride=eks-pod-identity-agent"]
LONG = "a" * 40 + "-pod-identity-agent-of-the-whole-shop"
UPGRADES = (
    ("eks-pod-identity-agent", [], "", "eks-pod-identity-agent", "eks-pod-identity-agent"),
    ("shop", [], "", "shop-eks-pod-identity-agent", "eks-pod-identity-agent"),
    ("shop", ["--set", "fullnameOverride=eks-pod-identity-agent"], "", "eks-pod-identity-agent", "eks-pod-identity-agent"),
    ("shop", [], "hybrid", "shop-eks-pod-identity-agent-hybrid", "eks-pod-identity-agent-hybrid"),
    ("7", [], "hybrid-bottlerocket", "7-eks-pod-identity-agent-hybrid-bottlerocket", "eks-pod-identity-agent-hybrid-bottlerocket"),
    ("shop", ["--set", f"fullnameOverride={LONG}"], "", LONG[:63].removesuffix("-"), "eks-pod-identity-agent"),
    ("shop", ["--set", f"fullnameOverride={LONG}"], "hybrid", LONG[:56].removesuffix("-") + "-hybrid", "eks-pod-identity-agent-hybrid"),
)
# Keys that are a user's own, below which nothing can be misspelt.
FREE = {"env", "affinity", "updateStrategy", "additionalArgs", "additionalSecurityContext", "resources"}
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
    for release, values, kind, name, label in UPGRADES:
        create = ["--set", f"daemonsets.cloud.create={str(not kind).lower()}"]
        create += ["--set", f"daemonsets.{kind}.create=true"] if kind else []
        objects = rendered(*GOOD, *AMAZONS, *values, *create, release=release)
        (daemonset,) = [found for found in objects if found["kind"] == "DaemonSet"]
        selector = daemonset["spec"]["selector"]["matchLabels"]
        if daemonset["metadata"]["name"] != name:
            yield f"{release}, {kind or 'cloud'}: is {daemonset['metadata']['name']} and not {name}"
        if selector != {"app.kubernetes.io/name": label, "app.kubernetes.io/instance": release}:
            yield f"{release}, {kind or 'cloud'}: finds its pods by {selector}"


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
