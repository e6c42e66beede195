"""docs/chart.md: every value of the chart, no other, and its default. The pages that show commands: whether the chart takes them."""

import re
import shlex
import tempfile

import yaml
from rendering import CHART, GOOD, helm

PAGE = CHART.parent.parent / "docs" / "chart.md"
ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \| (Amazon|Ours) \| (.+) \|$")
PAGES = (CHART.parent.parent / "README.md", CHART / "README.md", PAGE.parent / "install.md", PAGE.parent / "any-cluster.md")
# Values as files, in a page.
VALUES = (PAGE.parent / "private-clusters.md",)
POLICIES = CHART.parent / "policies"
COMMAND = re.compile(r"^ *(helm upgrade (?:.*\\\n)*.*)$", re.MULTILINE)
ISSUER = "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE"
# Maps whose keys are their user's and not the chart's.
WHOLE = {"env", "affinity", "updateStrategy", "additionalArgs", "additionalSecurityContext", "resources"}
# What the page says of a default that is too long for it.
SAID = {dict: "map", list: "list", str: "text"}


def values(tree, path=()):
    """Each value by its name. Of the DaemonSets, all but `create` are one: what is for one is for each."""
    for key, value in tree.items():
        here = (*path, key)
        if isinstance(value, dict) and value and key not in WHOLE:
            yield from values(value, here)
        elif path[:1] == ("daemonsets",) and key != "create":
            yield f"daemonsets.*.{key}", value
        else:
            yield ".".join(here), value


def check_documentation():
    chart = dict(values(yaml.safe_load((CHART / "values.yaml").read_text())))
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = [found.groups() for found in map(ROW.match, rows) if found]
    if len(told) != len(rows):
        yield f"{PAGE.name}: {len(rows) - len(told)} rows are not of the form of the others"
    names = [name for name, *_ in told]
    for name in sorted(set(chart) - set(names)):
        yield f"{PAGE.name}: nothing of {name}"
    for name in sorted({name for name in names if name not in chart or names.count(name) > 1}):
        yield f"{PAGE.name}: {name} is no value, or there twice"
    for name, default, *_ in told:
        if name in chart and default != said(name, chart[name]):
            yield f"{PAGE.name}: the default of {name} is {said(name, chart[name])}"


def rendered_by(command):
    """What `helm template` makes of an upgrade."""
    told = command.replace("\\\n", " ").replace("…", "registry.example.com/agent:1")
    # An image has no upper case, and neither has a release.
    told = told.replace("$ISSUER", ISSUER).replace("REGISTRY", "registry.example.com").replace("RELEASE", "release")
    release, values = told.removeprefix("helm upgrade").split("deploy/chart")
    values = re.sub(r" --wait\b| --take-ownership\b| --reset-then-reuse-values\b| --values \w+", "", values)
    before = [] if "clusterName=" in values else GOOD
    return helm("template", shlex.split(release)[-1], str(CHART), *before, *shlex.split(values))


def check_commands():
    """Each `helm upgrade` of the pages renders; and the README's installs what the README says."""
    known = [set(re.findall(r"--[a-z0-9-]+", helm("upgrade", "--help", program=program).stdout)) for program in ("helm", "helm3")]
    for page in PAGES:
        commands = COMMAND.findall(page.read_text())
        if not commands:
            yield f"{page.name}: no command is found"
        for command in commands:
            told = rendered_by(command)
            # Rendering knows fewer flags than an upgrade.
            unknown = [flag for flag in re.findall(r"(?<=\s)--[a-z0-9-]+", command) if not all(flag in flags for flags in known)]
            if unknown:
                yield f"{page.name}: {command}: Helm does not know {unknown}"
            if told.returncode != 0:
                yield f"{page.name}: {command}: {told.stderr.strip()}"
            elif page.name == "README.md" and ("mountPath: /var/run/secrets/kubernetes.io" not in told.stdout or "containerPort" in told.stdout):
                yield f"{page.name}: {command}: verifies no tokens, or declares a port"


def said(name, value):
    if "*" in name or (isinstance(value, (dict, list)) and value):
        return SAID[type(value)]
    if value == "":
        return '`""`'
    return f"`{value}`" if isinstance(value, str) else f"`{yaml.safe_dump(value).splitlines()[0]}`"


def check_values():
    """Values that a page shows as a file are values of the chart."""
    for page in VALUES:
        blocks = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
        if not blocks:
            yield f"{page.name}: shows no values"
        for block in blocks:
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(block)
                file.flush()
                told = helm("template", "a", str(CHART), *GOOD, "--values", file.name)
            if told.returncode != 0:
                yield f"{page.name}: {told.stderr.strip()}"


def check_policies():
    """The samples let pods reach every port that the agent may listen on: policies see the one behind the guard."""
    guard = yaml.safe_load((CHART / "values.yaml").read_text())["guardPort"]
    for sample in sorted(POLICIES.glob("*.yaml")):
        ports = {int(found) for found in re.findall(r"\bport: \"?(\d+)", sample.read_text())}
        if ports != {80, guard, guard + 1}:
            yield f"{sample.name}: lets pods reach {sorted(ports)}"
