"""PodMonitor and ServiceMonitor as prometheus-operator reads them: the scrape jobs that it makes, and what the chart's objects select.

An object that is valid may still select nothing: the operator drops a pod whose port it does not find declared. The rules here are
those of the operator's own generator: `golden/prometheus.yaml` is made by it (operator/run.sh), and they must be the same.
"""

import re

import yaml
from rendering import GOOD, HERE, HYBRID, rendered

META = "__meta_kubernetes_"
GOLDEN = HERE / "golden" / "prometheus.yaml"


def safe(name):
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def rule(*sources, target=None, **more):
    """One relabelling, as Prometheus spells it."""
    return ({"source_labels": list(sources)} if sources else {}) | ({"target_label": target} if target else {}) | more


def selected(kind, monitor):
    for name, value in sorted(monitor["spec"]["selector"]["matchLabels"].items()):
        labels = (f"{META}{kind}_label_{safe(name)}", f"{META}{kind}_labelpresent_{safe(name)}")
        yield rule(*labels, action="keep", regex=f"({value});true")


def own(relabelings):
    """The monitor's own."""
    spelt = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return [{spelt.get(key, key): value for key, value in relabeling.items()} for relabeling in relabelings]


def sharded():
    """At the end, for several instances of Prometheus. $(SHARD) is the number of this one."""
    yield rule("__address__", "__tmp_hash", target="__tmp_hash", regex="(.+);", replacement="$1", action="replace")
    yield rule("__tmp_hash", target="__tmp_hash", modulus=1, action="hashmod")
    yield rule("__tmp_hash", "__tmp_disable_sharding", regex="$(SHARD);|.+;.+", action="keep")


RUNNING = rule(f"{META}pod_phase", action="drop", regex="(Failed|Succeeded)")
JOB = rule("job", target="__tmp_prometheus_job_name")


def rules_of_pod_monitor(monitor):
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    yield from (JOB, RUNNING, *selected("pod", monitor))
    if "port" in endpoint:
        yield rule(f"{META}pod_container_port_name", action="keep", regex=endpoint["port"])
    elif "portNumber" in endpoint:
        yield rule(f"{META}pod_container_port_number", action="keep", regex=str(endpoint["portNumber"]))
    for source, target in (("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod")):
        yield rule(META + source, target=target)
    yield rule(target="job", replacement=f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}")
    yield from (*own(endpoint["relabelings"]), *sharded())


def rules_of_service_monitor(monitor):
    (endpoint,) = monitor["spec"]["endpoints"]
    yield from (JOB, *selected("service", monitor))
    yield rule(f"{META}endpoint_port_name", action="keep", regex=endpoint["port"])
    of_endpoint = (f"{META}endpoint_address_target_kind", f"{META}endpoint_address_target_name")
    for kind in ("Node", "Pod"):
        yield rule(*of_endpoint, target=kind.lower(), separator=";", regex=f"{kind};(.*)", replacement="${1}")
    for source, target in (("namespace", "namespace"), ("service_name", "service"), ("pod_name", "pod"), ("pod_container_name", "container")):
        yield rule(META + source, target=target)
    yield from (RUNNING, rule(f"{META}service_name", target="job", replacement="${1}"))
    yield rule(target="endpoint", replacement=endpoint["port"])
    yield from (*own(endpoint["relabelings"]), *sharded())


def job_of(monitor):
    """The operator's scrape job, without the service discovery, which is the cluster's."""
    is_pods = monitor["kind"] == "PodMonitor"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints" if is_pods else "endpoints"]
    kind = "podMonitor" if is_pods else "serviceMonitor"
    job = {
        "job_name": f"{kind}/{monitor['metadata']['namespace']}/{monitor['metadata']['name']}/0",
        "honor_labels": False,
        "scrape_interval": endpoint["interval"],
        "metrics_path": endpoint["path"],
        "relabel_configs": list((rules_of_pod_monitor if is_pods else rules_of_service_monitor)(monitor)),
    }
    if "scrapeTimeout" in endpoint:
        job["scrape_timeout"] = endpoint["scrapeTimeout"]
    if "metricRelabelings" in endpoint:
        job["metric_relabel_configs"] = own(endpoint["metricRelabelings"])
    return job


def monitor_of(kind, *values):
    name = kind[0].lower() + kind[1:]
    objects = rendered(*GOOD, "--set", f"metrics.{name}.enabled=true", *values)
    (monitor,) = [found for found in objects if found["kind"] == kind]
    return monitor, objects


def check_operators_rules():
    """What is taken here for the operator's jobs are those of its generator."""
    golden = {job["job_name"]: job for job in yaml.safe_load(GOLDEN.read_text())["scrape_configs"]}
    if len(golden) != 2:
        yield f"{GOLDEN.name}: has the jobs {sorted(golden)}"
    for kind in ("PodMonitor", "ServiceMonitor"):
        name = kind[0].lower() + kind[1:]
        job = job_of(monitor_of(kind, "--set", f"metrics.{name}.scrapeTimeout=10s")[0])
        theirs = golden.get(job["job_name"], {})
        (discovery,) = theirs.pop("kubernetes_sd_configs", [{}])
        if discovery != {"role": "pod" if kind == "PodMonitor" else "endpoints", "namespaces": {"names": ["kube-system"]}}:
            yield f"{GOLDEN.name}: {kind}: looks for targets by {discovery}"
        for key in sorted(job.keys() | theirs.keys()):
            if job.get(key) != theirs.get(key):
                yield f"{GOLDEN.name}: {kind}: {key} is {theirs.get(key)}, and here {job.get(key)}; tests/chart/operator/run.sh --write makes it anew"


def check_service_monitor():
    """It finds one Service, and that all pods of the release, and no other's."""
    monitor, objects = monitor_of("ServiceMonitor", "--set", HYBRID)
    (service,) = [found for found in objects if found["kind"] == "Service"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    if not wanted <= service["metadata"]["labels"].items():
        yield f"ServiceMonitor: does not find {service['metadata']['labels']}"
    selector = service["spec"]["selector"]
    for daemonset in (found for found in objects if found["kind"] == "DaemonSet"):
        if not selector.items() <= daemonset["spec"]["template"]["metadata"]["labels"].items():
            yield f"Service: does not find the pods of {daemonset['metadata']['name']}"
    if selector["app.kubernetes.io/instance"] != "pod-identity-agent" or len(selector) < 2:
        yield f"Service: {selector} may find pods of another chart"


def check_metrics_off():
    """As in Amazon's chart: no Service, no monitors, and the agent's own default of port and address."""
    off = "metrics.enabled=false,metrics.podMonitor.enabled=true,metrics.port=2725"
    objects = rendered(*GOOD, "--set", off)
    shown = {"Service", "PodMonitor", "ServiceMonitor"} & {found["kind"] for found in objects}
    if shown:
        yield f"metrics off: {shown}"
    flags = [flag for found in objects if found["kind"] == "DaemonSet" for flag in found["spec"]["template"]["spec"]["containers"][0]["args"]]
    if any("metrics" in flag for flag in flags):
        yield f"metrics off: {flags}"
