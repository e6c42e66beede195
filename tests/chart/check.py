"""The chart: what it renders, what it refuses, and whether Kubernetes knows every field of it.

`check.py --write` makes the golden files anew; read the difference before it is committed.
"""

import argparse
import difflib
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
CHART = HERE.parent.parent / "deploy" / "chart"
TELEMETRY = HERE.parent.parent / "agent" / "src" / "telemetry"
AGENT = HERE.parent.parent / "target" / "debug" / "pod-identity-agent"
# The oldest that is validated for, and the newest whose schemas the library has.
VERSIONS = ("1.31", "1.37")
# Objects of others, whose schemas are not Kubernetes's.
FOREIGN = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "CiliumNetworkPolicy"}
GOOD = ["--set", "clusterName=shop", "--set", "env.AWS_REGION=eu-west-1"]
REFUSED = {
    "no cluster": (["--set", "env.AWS_REGION=eu-west-1"], "clusterName is required"),
    "no region": (["--set", "clusterName=shop"], "env.AWS_REGION is required"),
    "placeholders": (["--set", "clusterName=EKS_CLUSTER_NAME", "--set", "env.AWS_REGION=x"], "clusterName is required"),
    "Amazon's image": (
        GOOD + ["--set", "image.override=602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/eks-pod-identity-agent:0.1.10"],
        "is the Amazon agent's, which this chart does not start",
    ),
    "Amazon's registry": (
        GOOD + ["--set", "image.containerRegistry=602401143452.dkr.ecr.us-west-2.amazonaws.com"],
        "where the Amazon agent's image lives",
    ),
    "nobody listens": (GOOD + ["--set", "sharePort=true"], "sharePort needs guardAddress"),
    "surge beside a declared port": (
        GOOD + ["--set", "updateStrategy.rollingUpdate.maxSurge=1", "--set", "updateStrategy.rollingUpdate.maxUnavailable=0"],
        "maxSurge needs agent.advertiseProxyPort=false",
    ),
    "no addresses": (GOOD + ["--set", "manageLink=false"], "either manageLink or init.create"),
    "a port that is none": (GOOD + ["--set", "guardPort=0"], "guardPort"),
    "a link that is none": (GOOD + ["--set", "link=eth0"], "link"),
    "a flag that is none": (GOOD + ["--set", "agent.additionalArgs.qps=3"], "additionalArgs"),
}


def helm(*arguments):
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, timeout=60, check=False)


def render(*arguments):
    return helm("template", "release", str(CHART), "--namespace", "kube-system", *arguments)


def check_variant(values, write):
    rendered = render("--values", str(values))
    if rendered.returncode != 0:
        return [f"{values.name}: {rendered.stderr.strip()}"]
    problems = []
    golden = HERE / "golden" / values.name
    if write:
        golden.write_text(rendered.stdout)
    elif not golden.exists() or golden.read_text() != rendered.stdout:
        old = golden.read_text().splitlines() if golden.exists() else []
        difference = difflib.unified_diff(old, rendered.stdout.splitlines(), "golden", "rendered", lineterm="")
        problems.append(f"{values.name} renders differently:\n" + "\n".join(difference))
    for document in filter(None, yaml.safe_load_all(rendered.stdout)):
        problems += [f"{values.name}: {problem}" for problem in check_object(document)]
    return problems


def check_object(document):
    if document["kind"] not in FOREIGN:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{document['kind']} for {version}: {error.message}"
    if document["kind"] == "DaemonSet":
        pod = document["spec"]["template"]["spec"]
        yield from check_security(pod)
        yield from check_arguments(pod["containers"][0])


def check_security(pod):
    for container in pod["containers"] + pod.get("initContainers", []):
        security = container["securityContext"]
        if security["capabilities"]["drop"] != ["ALL"] or not security["readOnlyRootFilesystem"]:
            yield f"{container['name']} has more than it needs"
        if security.get("privileged"):
            yield f"{container['name']} is privileged"
    ports = [port["containerPort"] for port in pod["containers"][0].get("ports", [])]
    if ports not in ([], [80]):
        yield f"ports {ports} are declared: a new pod could not stand beside the old one"


def check_arguments(container):
    """The agent itself reads its arguments. One that is wrong is added: it must be the only one that it complains of."""
    arguments = container["args"] + ["--max-service-qps=0"]
    environment = {variable["name"]: variable.get("value", "node-1") for variable in container["env"]}
    # The file of isolated regions is on their nodes only.
    environment.pop("AWS_CA_BUNDLE", None)
    read = subprocess.run([AGENT, *arguments], env=environment, capture_output=True, text=True, timeout=10, check=False)
    complaints = [line for line in read.stderr.splitlines() if line.startswith("  ")]
    if read.returncode != 64 or len(complaints) != 1 or "--max-service-qps" not in complaints[0]:
        yield f"the agent refuses its arguments: {read.stderr.strip()}"


def check_alerts():
    """promtool reads and tests them; and each series that they name is one that the agent has."""
    for arguments in (["check", "rules", CHART / "alerts.yaml"], ["test", "rules", HERE / "alerts_test.yaml"]):
        told = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
        if told.returncode != 0:
            yield f"promtool: {told.stdout}{told.stderr}"
    sources = "".join(source.read_text() for source in TELEMETRY.rglob("*.rs"))
    for series in sorted(set(re.findall(r"pod_identity_agent_(\w+)", (CHART / "alerts.yaml").read_text()))):
        name = series.removesuffix("_total")
        if f'"{name}"' not in sources and f'"pod_identity_agent_{name}"' not in sources:
            yield f"alerts.yaml: the agent has no series pod_identity_agent_{series}"


def check_refused(name, arguments, sentence):
    rendered = render(*arguments)
    said = rendered.stderr
    if rendered.returncode == 0:
        return [f"{name}: is rendered"]
    return [] if sentence in said else [f"{name}: refused without {sentence!r}: {said.strip()}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the golden files")
    write = parser.parse_args().write
    problems, checks = [], 0
    lint = helm("lint", "--strict", str(CHART), *GOOD)
    checks += 1
    if lint.returncode != 0:
        problems.append(f"helm lint: {lint.stdout}{lint.stderr}")
    for values in sorted((HERE / "variants").glob("*.yaml")):
        checks += 1
        problems += check_variant(values, write)
    checks += 1
    problems += check_alerts()
    for sample in sorted((CHART.parent / "policies").glob("*.yaml")):
        checks += 1
        for document in yaml.safe_load_all(sample.read_text()):
            problems += [f"{sample.name}: {problem}" for problem in check_object(document)]
    for name, (arguments, sentence) in REFUSED.items():
        checks += 1
        problems += check_refused(name, arguments, sentence)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"chart: {checks} checks, {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
