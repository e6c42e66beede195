"""An upgrade of a release of Amazon's chart, as Helm sees it in the cluster: refused where it would take the agents off all nodes at once.

The cluster is a page that answers what Helm asks for when it looks an object up.
"""

import contextlib
import http.server
import json
import tempfile
import threading

import yaml
from conventions import KINDS, NAMES, OWN, RELEASES, suffixed
from rendering import GOOD, HYBRID, render

# The kinds of the chart, without which Helm does not go on: group and version, plural, kind, whether it has a namespace.
KINDS_OF_OBJECTS = (
    ("v1", "serviceaccounts", "ServiceAccount", True),
    ("v1", "services", "Service", True),
    ("apps/v1", "daemonsets", "DaemonSet", True),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", False),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", False),
    ("admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False),
    ("admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False),
)


def discovery():
    """What an API server says of its kinds."""
    versions = sorted({version for version, *_ in KINDS_OF_OBJECTS})
    groups = []
    for version in versions:
        if "/" in version:
            served = {"groupVersion": version, "version": version.split("/")[1]}
            groups.append({"name": version.split("/")[0], "versions": [served], "preferredVersion": served})
    answers = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
    }
    for version in versions:
        resources = [
            {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": ["get", "list", "patch"]}
            for its, plural, kind, namespaced in KINDS_OF_OBJECTS
            if its == version
        ]
        answers[f"/apis/{version}" if "/" in version else f"/api/{version}"] = {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": resources,
        }
    return answers


FOLDER = "/apis/apps/v1/namespaces/kube-system/daemonsets/"
SENTENCE = "would be removed from all nodes at once"


def daemonset(name, label, release, chart="eks-pod-identity-agent-1.2.0"):
    """As Helm made it of Amazon's chart."""
    labels = {"app.kubernetes.io/name": label, "app.kubernetes.io/instance": release}
    metadata = {"name": name, "namespace": "kube-system", "labels": labels | {"helm.sh/chart": chart}}
    metadata["annotations"] = {"meta.helm.sh/release-name": release}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": {"selector": {"matchLabels": labels}}}


@contextlib.contextmanager
def cluster(*objects):
    """An API server that has these DaemonSets; a kubeconfig for it."""
    answers = discovery() | {FOLDER + found["metadata"]["name"]: found for found in objects}

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            answer = answers.get(self.path.split("?")[0])
            self.send_response(200 if answer else 404)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer or missing).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "a", "user": {}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(config, file)
            file.flush()
            yield file.name
    finally:
        server.shutdown()
        server.server_close()


def upgraded(config, release, values, *kinds, program="helm"):
    create = ",".join(f"daemonsets.{kind}.create={str(kind in kinds).lower()}" for kind in KINDS)
    # The page has no schemas.
    flags = ["--kubeconfig", config, "--dry-run=server", "--is-upgrade", "--disable-openapi-validation", "--set-string", values, "--set", HYBRID, "--set", create]
    return render(*GOOD, *flags, release=release, program=program)


def check_refused_upgrades():
    for release in RELEASES:
        amazons = [daemonset(*[suffixed("eks-pod-identity-agent", kind)] * 2, release) for kind in KINDS[:2]]
        own = [daemonset(f"{release}-eks-pod-identity-agent", "eks-pod-identity-agent", release)]
        others = [daemonset("eks-pod-identity-agent", "eks-pod-identity-agent", "another")]
        mine = [daemonset("eks-pod-identity-agent", "eks-pod-identity-agent", release, chart="pod-identity-agent-0.1.0")]
        for what, objects, values, kinds, is_refused in (
            ("the documented names", amazons, NAMES, KINDS[:2], False),
            ("no names", amazons, "nameOverride=", KINDS[:2], True),
            ("one of the names", amazons, "fullnameOverride=eks-pod-identity-agent", KINDS[:2], True),
            ("a kind of nodes that is not made any more", amazons, NAMES, KINDS[:1], True),
            ("its own names", own, OWN, KINDS[:1], release == "eks-pod-identity-agent"),
            ("another release's", others, "nameOverride=", KINDS[:1], False),
            ("a release of this chart", mine, "nameOverride=", KINDS[:1], False),
            ("nothing there", [], "nameOverride=", KINDS[:1], False),
        ):
            with cluster(*objects) as config:
                for program in ("helm", "helm3"):
                    told = upgraded(config, release, values, *kinds, program=program)
                    if (told.returncode != 0) != is_refused or (is_refused and SENTENCE not in told.stderr):
                        yield f"upgrade of {release} by {program}, {what}: {told.returncode}, {told.stderr.strip()}"
