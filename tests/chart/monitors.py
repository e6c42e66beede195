"""PodMonitor and ServiceMonitor: which targets Prometheus makes of them, by the rules that its operator adds and its own.

An object that is valid may still select nothing: the operator drops a pod whose port it does not find declared.
"""

import re

from rendering import GOOD, rendered

META = "__meta_kubernetes_"
# What the pod of a DaemonSet looks like to Prometheus: one target for each declared port of a container, or one for a container
# without. https://prometheus.io/docs/prometheus/latest/configuration/configuration/#pod
ADDRESSES = {"10.0.0.7": "10.0.0.7:2705", "2001:db8::7": "[2001:db8::7]:2705"}


def bracketed(address):
    return f"[{address}]" if ":" in address else address


def targets_of(pod, address):
    labels = {f"{META}pod_label_{safe(name)}": value for name, value in pod["metadata"]["labels"].items()}
    labels |= {f"{META}pod_ip": address, f"{META}pod_node_name": "node-1", f"{META}pod_phase": "Running"}
    for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
        of_container = labels | {f"{META}pod_container_name": container["name"]}
        for port in container.get("ports", []):
            number = str(port["containerPort"])
            of_port = {f"{META}pod_container_port_name": port.get("name", ""), f"{META}pod_container_port_number": number}
            yield of_container | of_port | {"__address__": f"{bracketed(address)}:{number}"}
        if not container.get("ports"):
            yield of_container | {"__address__": bracketed(address)}


def safe(name):
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def operators_rules(monitor, endpoint):
    """As prometheus-operator writes them before those of the endpoint."""
    for name, value in monitor["spec"]["selector"]["matchLabels"].items():
        yield {"action": "keep", "sourceLabels": [f"{META}pod_label_{safe(name)}"], "regex": re.escape(value)}
    if "port" in endpoint:
        yield {"action": "keep", "sourceLabels": [f"{META}pod_container_port_name"], "regex": endpoint["port"]}
    elif "portNumber" in endpoint:
        yield {"action": "keep", "sourceLabels": [f"{META}pod_container_port_number"], "regex": str(endpoint["portNumber"])}
    yield {"action": "drop", "sourceLabels": [f"{META}pod_phase"], "regex": "(Failed|Succeeded)"}
    for source, target in (("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod")):
        yield {"sourceLabels": [META + source], "targetLabel": target}


def relabelled(labels, rules):
    """The labels of a target, or None if it is dropped. As Prometheus: expressions match the whole."""
    for rule in rules:
        value = ";".join(labels.get(name, "") for name in rule["sourceLabels"])
        found = re.fullmatch(rule.get("regex", "(.*)"), value, re.DOTALL)
        action = rule.get("action", "replace")
        if action == "keep" and not found or action == "drop" and found:
            return None
        if action == "replace" and found:
            new = found.expand(re.sub(r"\$\{(\d+)\}|\$(\d+)", r"\\g<\1\2>", rule.get("replacement", "$1")))
            labels = labels | {rule["targetLabel"]: new}
    return {name: value for name, value in labels.items() if not name.startswith(META)}


def check_pod_monitor():
    """Each pod of each DaemonSet is one target, with its address, whatever its family, and its node."""
    for what, values in {
        "defaults": [],
        "port and init container": ["--set", "init.create=true,guardAddress=false"],
        "hybrid": ["--set", "daemonsets.hybrid.create=true"],
        "names": ["--set", "nameOverride=other,fullnameOverride=another"],
    }.items():
        objects = rendered(*GOOD, "--set", "metrics.podMonitor.enabled=true", *values)
        monitor = next(found for found in objects if found["kind"] == "PodMonitor")
        for daemonset in (found for found in objects if found["kind"] == "DaemonSet"):
            for address, expected in ADDRESSES.items():
                scraped = set()
                for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                    rules = [*operators_rules(monitor, endpoint), *endpoint.get("relabelings", [])]
                    for target in targets_of(daemonset["spec"]["template"], address):
                        labels = relabelled(target, rules)
                        scraped |= {(labels["__address__"], labels.get("node"))} if labels else set()
                        if labels and labels["container"] != "agent":
                            yield f"PodMonitor, {what}: the container {labels['container']} is scraped"
                if scraped != {(expected, "node-1")}:
                    yield f"PodMonitor, {what}: scrapes {scraped} of a pod at {address}"


def check_service_monitor():
    """It finds one Service, and that all pods of the release, and no other's."""
    objects = rendered(*GOOD, "--set", "metrics.serviceMonitor.enabled=true,daemonsets.hybrid.create=true")
    by_kind = {kind: [found for found in objects if found["kind"] == kind] for kind in ("Service", "ServiceMonitor", "DaemonSet")}
    (service,), (monitor,) = by_kind["Service"], by_kind["ServiceMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    if not wanted <= service["metadata"]["labels"].items():
        yield f"ServiceMonitor: does not find {service['metadata']['labels']}"
    if monitor["spec"]["endpoints"][0]["port"] != service["spec"]["ports"][0]["name"]:
        yield "ServiceMonitor: the Service has no port of that name"
    selector = service["spec"]["selector"]
    for daemonset in by_kind["DaemonSet"]:
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
