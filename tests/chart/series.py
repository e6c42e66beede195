"""What asks for the agent's series, the alerts and the dashboard: whether Prometheus reads it, and the agent has them."""

import json
import re
import subprocess
import tempfile

import yaml
from rendering import CHART, GOOD, HERE, HYBRID, check_object, render, rendered

DASHBOARD = CHART / "dashboard.json"
# Every series, made from the agent's own page by its test the_document_lists_every_series.
REFERENCE = CHART.parent.parent / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| ([^|]+) \| .+ \|$", re.MULTILINE)
# What is asked for: a name, and the labels that are matched.
ASKED = re.compile(r"\b(pod_identity_\w+)(?:\{([^}]*)\})?")
MATCHED = re.compile(r'(\w+)\s*(?:=|!=|=~|!~)\s*"([^"]*)"')
# Labels that Prometheus adds, and the one of histograms.
OTHERS = {"cluster", "instance", "job", "le", "node"}
# What Grafana puts in before it asks Prometheus. A string may have variables: they are matched, not looked up, there.
GRAFANA = {"$__rate_interval": "5m", "$instance": ".+", "$cluster": ".*"}


def documented():
    """Each family by its name: its type, and its labels with their values, or None where they are not listed."""
    families = {}
    for name, kind, cell in ROW.findall(REFERENCE.read_text()):
        labels = {}
        for label in [] if cell == "–" else cell.split("; "):
            label, values = label.split(": ", 1)
            listed = re.findall(r"`([^`]+)`", values)
            # "HTTP status" and the like.
            labels[label.strip("`")] = set(listed) if re.fullmatch(r"(empty|`[^`]+`)(, `[^`]+`)*", values) else None
        families[name] = (kind, labels)
    return families


def samples_of(name, kind):
    return [name + ending for ending in ("_bucket", "_count", "_sum")] if kind == "histogram" else [name]


def promtool(*arguments):
    # 7 s on an idle processor; in tests/run.sh it gives way to the cluster.
    told = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=300, check=False)
    return [f"promtool: {told.stdout}{told.stderr}"] if told.returncode != 0 else []


def check_asked(where, expressions):
    """Whether the agent has what is asked for: each series, each label of it, and each of its values."""
    has = {sample: labels for name, (kind, labels) in documented().items() for sample in samples_of(name, kind)}
    if len(has) < 20:
        yield f"{REFERENCE.name}: {len(has)} series are read from its tables"
    for series, matchers in sorted({found for expression in expressions for found in ASKED.findall(expression)}):
        if series not in has:
            yield f"{where}: the agent has no series {series}"
            continue
        for label, values in MATCHED.findall(matchers):
            if label in OTHERS:
                continue
            if label not in has[series]:
                yield f"{where}: {series} has no label {label}"
            elif has[series][label] is not None:
                for value in sorted(set(values.split("|")) - has[series][label]):
                    yield f"{where}: {series} has no {label} {value}"


def check_alerts():
    """promtool reads and tests them; and each series that they name is one that the agent has."""
    alerts = CHART / "alerts.yaml"
    yield from promtool("check", "rules", alerts)
    yield from promtool("test", "rules", HERE / "alerts_test.yaml")
    yield from check_asked(alerts.name, [alerts.read_text()])
    yield from check_names_in_alerts()


def check_names_in_alerts():
    """With the chart, alerts are about its own DaemonSets and their pods, whatever they are called, and about no others."""
    kinds = f"{HYBRID},metrics.prometheusRule.enabled=true"
    for override in ("", "other", "a-b", "a" * 40 + "-pod-identity-agent-of-the-shop"):
        objects = rendered(*GOOD, "--set", kinds, "--set-string", f"fullnameOverride={override}")
        sets = [found["metadata"]["name"] for found in objects if found["kind"] == "DaemonSet"]
        # As Kubernetes names them: 58 characters of the DaemonSet's name and a hyphen, and five more.
        pods = [(name + "-")[:58] + "k7x2q" for name in sets]
        (rule,) = [found for found in objects if found["kind"] == "PrometheusRule"]
        asked = " ".join(alert["expr"] for group in rule["spec"]["groups"] for alert in group["rules"])
        for label, ours, others in (("daemonset", sets, "kube-proxy"), ("pod", pods, "coredns-k7x2q")):
            found = re.findall(rf'namespace="([^"]*)", {label}=~"([^"]*)"', asked)
            if len(set(found)) != 1 or found[0][0] != "kube-system":
                yield f"alerts of {override or 'the usual names'}: {label} is asked for by {found}"
                continue
            missed = [name for name in ours if not re.fullmatch(found[0][1], name)]
            if len(ours) != 2 or missed or re.fullmatch(found[0][1], others):
                yield f"alerts of {override or 'the usual names'}: {found[0][1]} does not find {missed}, or finds {others}"


def check_dashboard():
    """Each question is one that Prometheus reads and the agent answers; and no panel lies on another, or asks nothing."""
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    asking = [panel for panel in panels if panel["type"] != "row"]
    questions = [target["expr"] for panel in asking for target in panel["targets"]]
    variables = [variable["definition"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    yield from check_asked(DASHBOARD.name, questions + variables)
    yield from check_read(questions)
    yield from check_layout(panels)
    yield from check_fleet(asking, questions)
    for panel in asking:
        if not (panel["targets"] and panel["title"] and panel["description"]):
            yield f"{DASHBOARD.name}: {panel['title'] or panel['id']} asks or says nothing"


def check_fleet(asking, questions):
    """It is for many clusters, with and without a label of that name, and for many nodes: only the table has a row for each."""
    templating = {variable["name"]: variable for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    if templating.get("cluster", {}).get("allValue") != ".*":
        yield f"{DASHBOARD.name}: where series have no label cluster, nothing is found"
    for question in questions:
        asked = re.findall(r"\bpod_identity_\w+(?:\{([^}]*)\})?", question)
        if any('cluster=~"$cluster", instance=~"$instance"' not in matchers for matchers in asked):
            yield f"{DASHBOARD.name}: asks other clusters and nodes too: {question}"
        if "by (instance" in question:
            yield f"{DASHBOARD.name}: takes nodes of two clusters with the same address for one: {question}"
    for panel in asking:
        for target in panel["targets"]:
            outermost = re.match(r"(?:(?:sum|min|max|count) by \(([^)]*)\)|pod_identity_)", target["expr"])
            each = outermost and (outermost[1] is None or "instance" in outermost[1])
            if each and panel["type"] != "table":
                yield f"{DASHBOARD.name}: {panel['title']} has a line for each node"


def check_read(questions):
    for variable, value in GRAFANA.items():
        questions = [question.replace(variable, value) for question in questions]
    rules = [{"record": f"question:{number}", "expr": question} for number, question in enumerate(questions)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": DASHBOARD.name, "rules": rules}]}, file)
        file.flush()
        yield from promtool("check", "rules", file.name)


def check_layout(panels):
    taken = {}
    for panel in panels:
        at = panel["gridPos"]
        for square in [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]:
            other = taken.setdefault(square, panel["title"])
            if other != panel["title"] or square[0] >= 24:
                yield f"{DASHBOARD.name}: {panel['title']} lies on {other}, or beside the page"
                break
    if len({panel["id"] for panel in panels}) != len(panels):
        yield f"{DASHBOARD.name}: two panels have the same id"


def check_dashboard_object():
    """It is there where it is asked for only, whole, and with the label that it is found by."""
    switch = ["--set", "metrics.grafanaDashboard.enabled=true", "--set", "metrics.grafanaDashboard.extraLabels.team=a"]
    found = {"off": [], "on": []}
    for kind, arguments in (("off", GOOD), ("on", GOOD + switch)):
        documents = filter(None, yaml.safe_load_all(render(*arguments).stdout))
        found[kind] = [document for document in documents if document["kind"] == "ConfigMap"]
    if found["off"] or len(found["on"]) != 1:
        yield f"dashboard: {len(found['off'])} where it is off, {len(found['on'])} where it is on"
        return
    yield from check_object(found["on"][0])
    labels = found["on"][0]["metadata"]["labels"]
    if labels.get("grafana_dashboard") != "1" or labels.get("team") != "a":
        yield f"dashboard: Grafana does not find it by {labels}"
    if [text.strip() for text in found["on"][0]["data"].values()] != [DASHBOARD.read_text().strip()]:
        yield "dashboard: the ConfigMap has another"
