"""Prometheus itself, with the operator's rules for the chart's monitors: which pods it scrapes, at which address, under which labels.

Debian's Prometheus has no Kubernetes discovery, so the pods come to it in a file, with the labels that its discovery would give them.
"""

import contextlib
import http.server
import json
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import yaml
from monitors import META, job_of, monitor_of, safe
from page import free_port
from rendering import HYBRID

# Nodes of both families; what stands there for all nodes' pods is one listener on the loopback addresses.
ADDRESSES = {"node-v4": "127.0.0.1", "node-v6": "::1"}
PAGE = b"# TYPE shown gauge\nshown 1\nleft_out 1\n"
PATIENCE = 60
# Values that change what a pod looks like to Prometheus.
VARIANTS = {
    "defaults": [],
    "port and init container": ["--set", "init.create=true,guardAddress=false"],
    "hybrid": ["--set", HYBRID],
    "names": ["--set", "nameOverride=other,fullnameOverride=another"],
    "relabelings": ["--set-json", 'metrics.KIND.relabelings=[{"targetLabel": "team", "replacement": "a"}]'],
}
STRANGER = {"metadata": {"labels": {"app.kubernetes.io/name": "coredns"}}, "spec": {"containers": [{"name": "agent"}]}}


def joined(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def of_pod(name, template, node):
    """The labels of a pod; https://prometheus.io/docs/prometheus/latest/configuration/configuration/#pod"""
    labels = {f"{META}namespace": "kube-system", f"{META}pod_name": f"{name}-{node}", f"{META}pod_ip": ADDRESSES[node]}
    labels |= {f"{META}pod_node_name": node, f"{META}pod_phase": "Running"}
    for key, value in template["metadata"]["labels"].items():
        labels |= {f"{META}pod_label_{safe(key)}": value, f"{META}pod_labelpresent_{safe(key)}": "true"}
    return labels


def ports_of(template):
    """Each container with each of its ports, or with none."""
    for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
        labels = {f"{META}pod_container_name": container["name"]}
        for port in container.get("ports", [None]) or [None]:
            yield port and port["containerPort"], labels | ({f"{META}pod_container_port_name": port["name"]} if port else {})


def pods_of(objects):
    for found in objects:
        if found["kind"] == "DaemonSet":
            yield found["metadata"]["name"], found["spec"]["template"]
    yield "coredns", STRANGER


def targets_of_role_pod(objects):
    """One target for each declared port of a container, or one for a container without, with the bare address."""
    for name, template in pods_of(objects):
        for node, address in ADDRESSES.items():
            for port, labels in ports_of(template):
                yield joined(address, port) if port else address, of_pod(name, template, node) | labels


def targets_of_role_endpoints(objects):
    """One for each address and port of a Service; and one for each port that a pod behind it declares and the Service does not."""
    (service,) = [found for found in objects if found["kind"] == "Service"]
    (metrics,) = service["spec"]["ports"]
    of_service = {f"{META}service_name": service["metadata"]["name"]}
    for key, value in service["metadata"]["labels"].items():
        of_service |= {f"{META}service_label_{safe(key)}": value, f"{META}service_labelpresent_{safe(key)}": "true"}
    for name, template in pods_of(objects):
        if not service["spec"]["selector"].items() <= template["metadata"]["labels"].items():
            continue
        for node, address in ADDRESSES.items():
            pod = of_pod(name, template, node)
            of_endpoint = {f"{META}endpoint_address_target_kind": "Pod", f"{META}endpoint_address_target_name": pod[f"{META}pod_name"]}
            yield joined(address, metrics["targetPort"]), of_service | pod | of_endpoint | {f"{META}endpoint_port_name": metrics["name"]}
            for port, labels in ports_of(template):
                if port:
                    yield joined(address, port), of_service | pod | labels


def expected_of(kind, what, objects, port):
    """The agents, each once: at its node's address, with its node, its pod and the namespace, which alerts and dashboard ask for."""
    for name, template in pods_of(objects):
        for node, address in ADDRESSES.items():
            if template is not STRANGER:
                labels = {"instance": joined(address, port), "node": node, "pod": f"{name}-{node}", "namespace": "kube-system"}
                labels |= {"container": "agent"} if kind == "PodMonitor" else {"service": objects_name(objects), "endpoint": "metrics"}
                labels["job"] = f"kube-system/{objects_name(objects)}" if kind == "PodMonitor" else objects_name(objects)
                yield labels | ({"team": "a"} if what == "relabelings" else {})


def objects_name(objects):
    return next(found["metadata"]["name"] for found in objects if found["kind"] == "Service")


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/metrics" else 404)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def listeners(port):
    servers = []
    for address in ADDRESSES.values():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = type("Server", (http.server.ThreadingHTTPServer,), {"address_family": family})((address, port), Page)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def prometheus(folder, jobs):
    """It scrapes these jobs; the address of its API."""
    port = free_port()
    (folder / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
    arguments = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with open(folder / "log", "w+") as log:
        running = subprocess.Popen(["prometheus", *arguments], stdout=log, stderr=log, cwd=folder)
        try:
            yield f"http://127.0.0.1:{port}/api/v1"
        except OSError as error:
            raise RuntimeError(f"{error}; Prometheus said: {(folder / 'log').read_text()[-2000:]}") from error
        finally:
            running.terminate()
            running.wait(timeout=PATIENCE)


def asked(address):
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        return json.loads(answer.read())["data"]


def active(api, pools):
    """The targets of each job, once every job has some and each was scraped; or those that there are, in the end."""
    deadline, targets = time.monotonic() + PATIENCE, []
    while True:
        with contextlib.suppress(urllib.error.URLError):
            targets = asked(f"{api}/targets?state=active")["activeTargets"]
            if {target["scrapePool"] for target in targets} >= pools and all(target["health"] != "unknown" for target in targets):
                return targets
        if time.monotonic() > deadline:
            return targets
        time.sleep(0.2)


def jobs_of(folder, port):
    """A job for each monitor and each variant, with its pods in a file; and what is expected of each."""
    for kind, targets_of in (("PodMonitor", targets_of_role_pod), ("ServiceMonitor", targets_of_role_endpoints)):
        key = kind[0].lower() + kind[1:]
        dropped = f'metrics.{key}.metricRelabelings=[{{"sourceLabels": ["__name__"], "regex": "left_out", "action": "drop"}}]'
        for what, values in VARIANTS.items():
            values = [value.replace("KIND", key) for value in values]
            monitor, objects = monitor_of(kind, *values, "--set", f"metrics.port={port}", "--set-json", dropped)
            name = f"{kind}, {what}"
            file = folder / f"{safe(name)}.json"
            file.write_text(json.dumps([{"targets": [address], "labels": labels} for address, labels in targets_of(objects)]))
            job = json.loads(json.dumps(job_of(monitor)).replace("$(SHARD)", "0"))
            # Scraped soon, which by the chart's interval may take 15 s.
            job |= {"job_name": name, "file_sd_configs": [{"files": [str(file)]}], "scrape_interval": "1s", "scrape_timeout": "1s"}
            yield job, list(expected_of(kind, what, objects, port))


def check_scraping():
    """Each agent is scraped once, whatever the family of its address, and is up; nothing else is scraped."""
    port = free_port()
    with tempfile.TemporaryDirectory() as name, listeners(port):
        folder = pathlib.Path(name)
        jobs = [*jobs_of(folder, port)]
        with prometheus(folder, [job for job, _ in jobs]) as api:
            targets = active(api, {job["job_name"] for job, _ in jobs})
            samples = asked(f"{api}/query?query=count(shown)%20or%20label_replace(count(left_out),%22l%22,%22o%22,%22%22,%22%22)")
    for job, expected in jobs:
        scraped = [target for target in targets if target["scrapePool"] == job["job_name"]]
        for target in scraped:
            if target["health"] != "up":
                yield f"{job['job_name']}: {target['scrapeUrl']} is {target['health']}: {target['lastError']}"
        for labels in (target["labels"] for target in scraped):
            if labels not in expected:
                yield f"{job['job_name']}: {labels} is scraped"
        if len(scraped) != len(expected):
            yield f"{job['job_name']}: {len(scraped)} targets for {len(expected)} agents"
    # One series of each target (jobs of several variants have the same), and none of those that metricRelabelings drop.
    several = {frozenset(labels.items()) for _, expected in jobs for labels in expected}
    values = [(result["metric"], result["value"][1]) for result in samples["result"]]
    if values != [({}, str(len(several)))]:
        yield f"samples: {values}"
