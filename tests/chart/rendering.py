"""What Helm makes of the chart, and what is asked of each object that comes out, whichever file it is in."""

import difflib
import pathlib
import shutil
import subprocess
import tempfile

import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
CHART = HERE.parent.parent / "deploy" / "chart"
AGENT = HERE.parent.parent / "target" / "debug" / "pod-identity-agent"
CERTIFICATES = HERE.parent.parent / "agent" / "src" / "config" / "testdata" / "ca.pem"
# The oldest that is validated for, and the newest whose schemas the library has.
VERSIONS = ("1.31", "1.37")
# Objects of others, whose schemas are not Kubernetes's.
FOREIGN = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "CiliumNetworkPolicy"}
# The least that must be said.
GOOD = ["--set", "clusterName=shop"]
# With hybrid nodes, which have no metadata service to read the region from.
HYBRID = "env.AWS_REGION=eu-west-1,daemonsets.hybrid.create=true"


def helm(*arguments, program="helm"):
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def render(*arguments, release="pod-identity-agent", program="helm"):
    return helm("template", release, str(CHART), "--namespace", "kube-system", *arguments, program=program)


def rendered(*arguments, release="pod-identity-agent"):
    """The objects that come out."""
    return list(filter(None, yaml.safe_load_all(render(*arguments, release=release).stdout)))


def compare(stored, rendered, write):
    """Whether a stored file is what is rendered now; or it is written."""
    if write:
        stored.write_text(rendered)
    old = stored.read_text() if stored.exists() else ""
    if old == rendered:
        return []
    difference = difflib.unified_diff(old.splitlines(), rendered.splitlines(), "stored", "rendered", lineterm="")
    return [f"{stored.name} renders differently:\n" + "\n".join(difference)]


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
        yield from check_credentials_file(pod["containers"][0])


def check_security(pod):
    for container in pod["containers"] + pod.get("initContainers", []):
        security = container["securityContext"]
        if security["capabilities"]["drop"] != ["ALL"] or not security["readOnlyRootFilesystem"]:
            yield f"{container['name']} has more than it needs"
        if security.get("privileged"):
            yield f"{container['name']} is privileged"
    ports = [port["containerPort"] for port in pod["containers"][0].get("ports", [])]
    # On the host network each is a hostPort too.
    if ports not in ([], [80]):
        yield f"ports {ports} are declared: a new pod could not stand beside the old one"


def check_arguments(container):
    """The agent itself reads its arguments. One that is wrong is added: it must be the only one that it complains of."""
    if container["args"][0] == "cleanup":
        # It would do it. With --help it does not, and still complains of what stands before that.
        told = subprocess.run([AGENT, *container["args"], "--help"], capture_output=True, text=True, timeout=10, check=False)
        if told.returncode != 0:
            yield f"the agent refuses its arguments: {told.stderr.strip()}"
        return
    arguments = container["args"] + ["--max-service-qps=none"]
    environment = {variable["name"]: variable.get("value", "node-1") for variable in container["env"]}
    # The file of isolated regions is on their nodes only.
    environment.pop("AWS_CA_BUNDLE", None)
    with tempfile.TemporaryDirectory() as folder:
        if any(mount["name"] == "kubernetes-api" for mount in container.get("volumeMounts", [])):
            # What the kubelet sets and mounts, without which there is no API server. The port is that of nobody.
            environment |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
            (pathlib.Path(folder) / "token").write_text("token")
            shutil.copy(CERTIFICATES, pathlib.Path(folder) / "ca.crt")
            arguments.append(f"--kubernetes-credentials={folder}")
        read = subprocess.run([AGENT, *arguments], env=environment, capture_output=True, text=True, timeout=10, check=False)
    complaints = [line for line in read.stderr.splitlines() if line.startswith("  ")]
    if read.returncode != 64 or len(complaints) != 1 or "--max-service-qps" not in complaints[0]:
        yield f"the agent refuses its arguments: {read.stderr.strip()}"


def check_credentials_file(container):
    """Values of Amazon's chart mount it where their agent looks; ours is told where, and must not be told another place."""
    mounted = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    for variable in container.get("env", []):
        if variable["name"] == "AWS_SHARED_CREDENTIALS_FILE":
            if not any(variable["value"].startswith(path + "/") for path in mounted):
                yield f"{variable['value']} is not mounted"
