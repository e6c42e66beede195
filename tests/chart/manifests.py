"""deploy/manifests: what the chart renders, for those who do not use Helm."""

import re
import subprocess

import yaml
from rendering import CHART, GOOD, check_object, compare, render, rendered

FOLDER = CHART.parent / "manifests"
# What stands in the files for what only their reader knows, and a sample of it. The image has upper case, which no image has.
PLACEHOLDERS = {
    "REPLACE-WITH-CLUSTER-NAME": "shop",
    "REPLACE-WITH-IMAGE": "registry.example.com/pod-identity-agent:0.1.0",
}
ALWAYS = [
    "clusterName=REPLACE-WITH-CLUSTER-NAME",
    "image.override=REPLACE-WITH-IMAGE",
]
# What each is for, and its values.
MANIFESTS = {
    "default": ("The agent as the chart installs it without more values.", []),
    "unguarded": (
        "The agent where nftables cannot be used: port 80 is declared, and pods with hostPort 80 are EVICTED, see docs/guard.md.",
        ["guardAddress=false"],
    ),
}
# They say that Helm looks after the object, which here nobody does.
HELMS = re.compile(r"^# Source: .*\n|^ *(app\.kubernetes\.io/managed-by|helm\.sh/chart): .*\n", re.MULTILINE)


# By `kubectl apply -k`, with the placeholders replaced.
OVERLAY = CHART.parent / "examples" / "kustomize"


def head(name):
    told, values = MANIFESTS[name]
    how = ", with " + ", ".join(values) if values else ""
    replacing = " \\\n#        ".join(f"-e 's|{placeholder}|{sample}|'" for placeholder, sample in PLACEHOLDERS.items())
    return f"""\
# {told}
# Replace the two placeholders and apply it:
#
#   sed  {replacing} \\
#        deploy/manifests/{name}.yaml | kubectl apply -f -
#
# Made from deploy/chart by tests/chart/run.sh --write{how}; not to be edited here. docs/install.md tells more.
"""


def check_manifest(name, write):
    values = [argument for value in ALWAYS + MANIFESTS[name][1] for argument in ("--set", value)]
    rendered = render(*values)
    if rendered.returncode != 0:
        return [f"manifests/{name}.yaml: {rendered.stderr.strip()}"]
    text = head(name) + HELMS.sub("", rendered.stdout)
    problems = compare(FOLDER / f"{name}.yaml", text, write)
    for placeholder, sample in PLACEHOLDERS.items():
        # Once in the head, and at least once below it.
        if text.count(placeholder) < 2:
            problems.append(f"{placeholder} is nowhere in it")
        text = text.replace(placeholder, sample)
    for document in filter(None, yaml.safe_load_all(text)):
        problems += check_object(document)
    return [f"manifests/{name}.yaml: {problem}" for problem in problems]


def check_kustomization():
    """The overlay is default.yaml with its placeholders replaced, and nothing else of it changed."""
    built = subprocess.run(["kubectl", "kustomize", str(OVERLAY)], capture_output=True, text=True, timeout=60, check=False)
    if built.returncode != 0:
        yield f"kustomize: {built.stderr.strip()}"
        return
    text = (FOLDER / "default.yaml").read_text()
    for placeholder, sample in PLACEHOLDERS.items():
        text = text.replace(placeholder, sample)
    wanted, found = (by_name(filter(None, yaml.safe_load_all(source))) for source in (text, built.stdout))
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            yield f"kustomize: {key} is not that of default.yaml"
    for document in found.values():
        yield from check_object(document)


def by_name(documents):
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def check_takeover():
    """What was applied by kubectl can be taken over by Helm: a release of this name has the same objects, and the same selector."""
    released = by_name(rendered(*GOOD))
    for name in MANIFESTS:
        for key, document in by_name(filter(None, yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))).items():
            theirs = released.get(key, {"metadata": {}})
            if fixed(document) != fixed(theirs):
                yield f"manifests/{name}.yaml: {key} is {fixed(document)}, and that of a release {fixed(theirs)}"


def fixed(document):
    """What no upgrade can change: where an object is, and which pods are a DaemonSet's."""
    is_daemonset = document.get("kind") == "DaemonSet"
    return document["metadata"].get("namespace"), document["metadata"].get("name"), is_daemonset and document["spec"]["selector"]
