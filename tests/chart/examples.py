"""deploy/examples: each is read as its tool reads it, and the chart takes the values in it."""

import json
import re
import tempfile

import hcl2
import yaml
from rendering import CHART, check_object, render

FOLDER = CHART.parent / "examples"
LABEL = {"pod-identity": "ours"}
# What variables of Terraform may be given for.
SAMPLES = {"clusterName": "shop", "env.AWS_REGION": "eu-west-1", "image.override": "registry.example.com/pod-identity-agent:0.1.0"}


def read(path):
    return list(filter(None, yaml.safe_load_all((FOLDER / path).read_text())))


def by_kind(path):
    return {document["kind"]: document for document in read(path)}


def check_rendered(where, values, *more, release="pod-identity-agent"):
    """The chart takes these values, and what comes out is what Kubernetes takes."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        told = render("--values", file.name, *more, release=release)
    if told.returncode != 0:
        yield f"{where}: {told.stderr.strip()}"
    for document in filter(None, yaml.safe_load_all(told.stdout)):
        yield from (f"{where}: {problem}" for problem in check_object(document))


def check_argo_cd():
    (application,) = read("argo-cd/application.yaml")
    if (application["apiVersion"], application["kind"]) != ("argoproj.io/v1alpha1", "Application"):
        yield "argo-cd: is no Application"
    source, destination = application["spec"]["source"], application["spec"]["destination"]
    if not (CHART.parent.parent / source["path"] / "Chart.yaml").is_file() or destination["namespace"] != "kube-system":
        yield f"argo-cd: {source['path']} is no chart, or is not for kube-system"
    yield from check_rendered("argo-cd", source["helm"]["valuesObject"], release=source["helm"]["releaseName"])


def check_flux():
    found = by_kind("flux/helmrelease.yaml")
    release, repository = found["HelmRelease"], found["GitRepository"]
    spec = release["spec"]["chart"]["spec"]
    reference = spec["sourceRef"]
    if (reference["kind"], reference["name"]) != (repository["kind"], repository["metadata"]["name"]):
        yield f"flux: {reference} is not the repository"
    if not (CHART.parent.parent / spec["chart"] / "Chart.yaml").is_file() or release["spec"]["targetNamespace"] != "kube-system":
        yield f"flux: {spec['chart']} is no chart, or is not for kube-system"
    yield from check_rendered("flux", release["spec"]["values"], release=release["spec"]["releaseName"])


def check_terraform():
    parsed = hcl2.loads((FOLDER / "terraform" / "main.tf").read_text())
    (release,) = [resource["helm_release"]["pod_identity_agent"] for resource in parsed["resource"] if "helm_release" in resource]
    path = release["chart"].removeprefix("${path.module}/")
    if (FOLDER / "terraform" / path).resolve() != CHART.resolve() or release["namespace"] != "kube-system":
        yield f"terraform: {release['chart']} is not the chart, or not for kube-system"
    files = [re.search(r'path\.module}/([^"\\]+)', value)[1] for value in release["values"]]
    variables = {name for variable in parsed["variable"] for name in variable}
    used = set(re.findall(r"\bvar\.(\w+)", (FOLDER / "terraform" / "main.tf").read_text()))
    if used != variables:
        yield f"terraform: variables {sorted(variables)}, of which {sorted(used)} are used"
    settings = [argument for one in release["set"] for argument in ("--set", f"{one['name']}={SAMPLES[one['name']]}")]
    for file in files:
        (values,) = read(f"terraform/{file}")
        yield from check_rendered("terraform", values, *settings, release=release["name"])


def check_eksctl():
    (cluster,), (values,) = read("eksctl/cluster.yaml"), read("eksctl/values.yaml")
    if (cluster["apiVersion"], cluster["kind"]) != ("eksctl.io/v1alpha5", "ClusterConfig"):
        yield "eksctl: is no ClusterConfig"
    if (values["clusterName"], values["env"]["AWS_REGION"]) != (cluster["metadata"]["name"], cluster["metadata"]["region"]):
        yield "eksctl: the values are of another cluster"
    (addon,) = [addon for addon in cluster["addons"] if addon["name"] == "eks-pod-identity-agent"]
    required = json.loads(addon["configurationValues"])["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    (key,), (value,) = zip(*LABEL.items())
    if {"key": key, "operator": "NotIn", "values": [value]} not in term["matchExpressions"]:
        yield "eksctl: the add-on's agent runs beside this one"
    if any(group["labels"] != LABEL for group in cluster["managedNodeGroups"]) or values["nodeSelector"] != LABEL:
        yield "eksctl: node groups and values do not have the label"
    yield from check_rendered("eksctl", values)


def check_karpenter():
    found, (values,) = by_kind("karpenter/nodepool.yaml"), read("karpenter/values.yaml")
    pool, node_class = found["NodePool"]["spec"]["template"], found["EC2NodeClass"]
    reference = pool["spec"]["nodeClassRef"]
    if (reference["kind"], reference["name"]) != (node_class["kind"], node_class["metadata"]["name"]):
        yield f"karpenter: {reference} is not the class of nodes"
    if node_class["apiVersion"].split("/")[0] != reference["group"]:
        yield f"karpenter: {reference['group']} is another group"
    if pool["metadata"]["labels"] != LABEL or values["nodeSelector"] != LABEL:
        yield "karpenter: nodes and values do not have the label"
    if node_class["spec"]["metadataOptions"] != {"httpTokens": "required", "httpPutResponseHopLimit": 1}:
        yield "karpenter: pods reach the node's role"
    yield from check_rendered("karpenter", values)


def check_examples():
    for check in (check_argo_cd, check_flux, check_terraform, check_eksctl, check_karpenter):
        yield from check()
    page = (FOLDER / "README.md").read_text()
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()} - {"README.md"}
    linked = {link for link in re.findall(r"\]\(([^)]+)\)", page) if not link.startswith("..")}
    if files != linked:
        yield f"examples: the page lists {sorted(linked)}, and there are {sorted(files)}"
