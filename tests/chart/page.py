"""The page of metrics as Prometheus gets it from the agent: whether strict readers read it, and docs/metrics.md lists it."""

import contextlib
import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from prometheus_client import parser as text_format
from prometheus_client.openmetrics import parser as open_metrics
from rendering import AGENT, CHART
from series import DASHBOARD, REFERENCE, documented

OPEN_METRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
# What Amazon's agent calls its counters. promtool says of them, and may say nothing else, that they want a suffix.
AMAZONS = {"pod_identity_http_response", "pod_identity_cache_state", "pod_identity_cache_errors", "pod_identity_local_validation"}
COMPLAINT = 'counter metrics should have "_total" suffix'
# How long the agent may take to serve its metrics.
PATIENCE = 10


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def agent(*more):
    """An agent that reaches nothing; with the usual addresses unless others are given. The addresses of its pages."""
    ports = {flag: free_port() for flag in ("--port", "--probe-port", "--metrics-port")}
    arguments = [argument for flag, port in ports.items() for argument in (flag, str(port))]
    arguments += ["--cluster-name", "shop", "--metrics-address", "127.0.0.1", *more]
    # Closed ports of this machine instead of AWS and of the instance metadata.
    arguments += ["--endpoint", f"http://127.0.0.1:{free_port()}"]
    environment = {"AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with tempfile.TemporaryFile("w+") as log:
        running = subprocess.Popen([AGENT, "server", *arguments], env=environment, stdout=log, stderr=log)
        try:
            yield (f"http://127.0.0.1:{ports['--port']}/v1/credentials", f"http://127.0.0.1:{ports['--metrics-port']}")
        except OSError as error:
            log.seek(0)
            raise RuntimeError(f"{error}; the agent said: {log.read()}") from error
        finally:
            running.terminate()
            running.wait(timeout=PATIENCE)


def scrape(address, accept=None):
    """The content type and the page."""
    request = urllib.request.Request(address, headers={"Accept": accept} if accept else {})
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.headers["content-type"], answer.read().decode()
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def check_page():
    with agent("--bind-hosts", "127.0.0.1") as (credentials, admin):
        address = f"{admin}/metrics"
        kind, _ = scrape(address)
        if kind != "text/plain; version=0.0.4; charset=utf-8":
            yield f"metrics: {kind} where no format is asked for"
        with contextlib.suppress(urllib.error.HTTPError):
            # Without a token: refused, and counted.
            urllib.request.urlopen(credentials, timeout=PATIENCE)
        _, plain = scrape(address)
        kind, open_page = scrape(address, OPEN_METRICS)
        if kind != "application/openmetrics-text; version=1.0.0; charset=utf-8":
            yield f"metrics: {kind} where OpenMetrics is asked for"
    if 'pod_identity_http_response{code="400"} 1' not in plain:
        yield "metrics: a refused request is not counted"
    yield from check_promtool(plain)
    families = documented()
    for reader, page in ((text_format, plain), (open_metrics, open_page)):
        try:
            read = list(reader.text_string_to_metric_families(page))
        except ValueError as error:
            yield f"metrics: {reader.__name__} does not read them: {error}"
            continue
        yield from check_documented(families, read)


def check_readiness():
    """What readiness waits for, by default, is what the alert and the dashboard call not serving."""
    with agent() as (_, admin):
        scrape(f"{admin}/healthz")
        try:
            page = urllib.request.urlopen(f"{admin}/readyz", timeout=PATIENCE).read()
        except urllib.error.HTTPError as unready:
            page = unready.read()
    required = {condition["name"] for condition in json.loads(page)["conditions"] if condition["required"]}
    for asks in (CHART / "alerts.yaml", DASHBOARD):
        asked = [set(names.split("|")) for names in re.findall(r'condition=~\\?"(running\|[^"\\]*)', asks.read_text())]
        if asked != [required]:
            yield f"{asks.name}: asks for {asked}, readiness waits for {sorted(required)}"


def check_promtool(page):
    """promtool finds nothing but Amazon's names wrong."""
    told = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False)
    expected = {f"{name} {COMPLAINT}" for name in AMAZONS}
    for line in (told.stdout + told.stderr).splitlines():
        if line not in expected:
            yield f"metrics: promtool: {line}"


def check_documented(families, read):
    """Each series of the page is in the document, with its type and its labels."""
    for family in read:
        for sample in family.samples:
            # The reader of the text format gives a counter its suffix.
            bare = sample.name.removesuffix("_total") if sample.name.removesuffix("_total") in AMAZONS else sample.name
            for ending in ("_bucket", "_count", "_sum"):
                bare = bare.removesuffix(ending) if bare not in families else bare
            if bare not in families:
                yield f"{REFERENCE.name}: nothing of {sample.name}"
                continue
            kind, labels = families[bare]
            if family.type not in {kind, "gauge" if kind == "info" else kind, "unknown" if bare in AMAZONS else kind}:
                yield f"{REFERENCE.name}: {bare} is a {family.type}"
            for label, value in sample.labels.items():
                if label != "le" and (label not in labels or (labels[label] is not None and value not in labels[label] | {""})):
                    yield f"{REFERENCE.name}: {bare} has no {label} {value}"
