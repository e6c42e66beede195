"""The PrometheusRule: what the values change of the alerts of alerts.yaml, and the runbook that each links to."""

import json
import re
import tempfile

import yaml
from rendering import CHART, GOOD, HERE, render, rendered
from series import promtool

RUNBOOK = CHART.parent.parent / "docs" / "runbook.md"
RULE = "metrics.prometheusRule"
# An alert with a threshold and one without.
WITH, WITHOUT = "PodIdentityRequestsRefused", "PodIdentityAgentAbsent"
REFUSED_HERE = {
    "there is no such alert": {"PodIdentityThrotled": {"severity": "info"}},
    "this alert has no threshold": {WITHOUT: {"threshold": 1}},
    "/alerts/PodIdentityThrottled/for": {"PodIdentityThrottled": {"for": "soon"}},
    "/alerts/PodIdentityThrottled/threshold": {"PodIdentityThrottled": {"threshold": "many"}},
}


def of_file():
    (group,) = yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"]
    return {alert["alert"]: alert for alert in group["rules"]}


def with_changes(changes, *more):
    return [*GOOD, "--set", f"{RULE}.enabled=true", "--set-json", f"{RULE}.alerts={json.dumps(changes)}", *more]


def of_chart(changes=None, *more):
    (rule,) = [found for found in rendered(*with_changes(changes or {}, *more)) if found["kind"] == "PrometheusRule"]
    return rule["spec"], {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}


def check_runbook():
    """Each alert links to a section of its name, and each such section is an alert's."""
    sections = re.findall(r"^## (PodIdentity\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    alerts = of_file()
    for name in sorted(alerts.keys() ^ set(sections)):
        yield f"{RUNBOOK.name}: {name} is in the runbook or among the alerts alone"
    for section in re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE):
        missing = [part for part in ("Pods notice:", "Look:", "Mend:") if f"**{part}**" not in section]
        if section.startswith("PodIdentity") and missing:
            yield f"{RUNBOOK.name}: {section.splitlines()[0]} lacks {missing}"
    home = yaml.safe_load((CHART / "Chart.yaml").read_text())["home"]
    for base, more in (
        (f"{home}/docs/runbook.md", []),
        ("https://wiki.example/a", ["--set", f"{RULE}.runbookUrl=https://wiki.example/a"]),
    ):
        for name, alert in of_chart({}, *more)[1].items():
            # As pages make an anchor of a heading.
            if alert["annotations"].get("runbook_url") != f"{base}#{name.lower()}":
                yield f"alerts: {name} links to {alert['annotations'].get('runbook_url')}"


def check_each_fires():
    """promtool has seen each alert firing, and times when none does."""
    tests = yaml.safe_load((HERE / "alerts_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["promql_expr_test"]]
    firing = {name for case in cases for sample in case["exp_samples"] for name in re.findall(r'alertname="(\w+)"', sample["labels"])}
    for name in sorted(of_file().keys() ^ firing):
        yield f"alerts_test.yaml: {name} is no alert, or never seen firing"
    if not any(case["exp_samples"] == [] for case in cases):
        yield "alerts_test.yaml: some alert always fires"


def check_thresholds():
    """Each number that can be changed stands in its expression once, and changes there and in the annotation; nothing else does."""
    plain, changed = of_chart()[1], {}
    for name, alert in of_file().items():
        threshold = alert["annotations"].get("threshold")
        if threshold is None:
            continue
        if len(re.findall(rf"[<>] {re.escape(threshold)}(?= |$)", alert["expr"])) != 1:
            yield f"alerts.yaml: {name} does not compare with its threshold {threshold} once"
        changed[name] = {"threshold": 7777.5}
    if len(changed) < 8 or WITH not in changed:
        yield f"alerts.yaml: only {sorted(changed)} have a threshold"
    spec, alerts = of_chart(changed)
    yield from readable(spec)
    for name, alert in plain.items():
        new, old = alerts[name], alert["annotations"].get("threshold")
        if name not in changed:
            if new != alert:
                yield f"alerts: {name} is changed by the thresholds of others"
        elif new["annotations"]["threshold"] != "7777.5" or new["expr"] != re.sub(rf"([<>]) {re.escape(old)}(?= |$)", r"\1 7777.5", alert["expr"]):
            yield f"alerts: {name} with another threshold is {new}"


def check_changes():
    """Severity, time and being there at all, by name; a name or a number that changes nothing is refused."""
    plain = of_chart()[1]
    spec, alerts = of_chart({WITH: {"severity": "page", "for": "1h30m"}, WITHOUT: {"enabled": False}})
    yield from readable(spec)
    if alerts.keys() != plain.keys() - {WITHOUT}:
        yield f"alerts: {WITHOUT} switched off leaves {sorted(alerts)}"
    if alerts[WITH] != plain[WITH] | {"for": "1h30m", "labels": {"severity": "page"}}:
        yield f"alerts: {WITH} changed is {alerts[WITH]}"
    on_delete = of_chart({}, "--set", "updateStrategy.type=OnDelete")[1]
    if on_delete.keys() != plain.keys() - {"PodIdentityUpdateStuck"}:
        yield f"alerts: where an update waits for people there are {sorted(on_delete)}"
    for given, written in ((2000000, "2000000"), (0.25, "0.25"), ("0.50", "0.50"), (0, "0")):
        alert = of_chart({WITH: {"threshold": given}})[1][WITH]
        if alert["annotations"]["threshold"] != written or f"> {written} *" not in alert["expr"]:
            yield f"alerts: the threshold {given!r} comes out as {alert}"
    for sentence, changes in REFUSED_HERE.items():
        told = render(*with_changes(changes))
        if told.returncode == 0 or sentence.lstrip("/").split("/")[-1] not in told.stderr:
            yield f"alerts: {changes} is refused without {sentence!r}: {told.stderr.strip()}"


def readable(spec):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(spec, file)
        file.flush()
        yield from promtool("check", "rules", file.name)
