"""deploy/chart/README.md, which a packaged chart carries: made from the comments of values.yaml, so that it cannot differ from them.

A comment that begins with `# --` is about the value below it. `check.py --write` makes the page anew.
"""

import json
import re

import yaml
from documentation import WHOLE, values
from rendering import CHART, compare

PAGE = CHART / "README.md"
KEY = re.compile(r"^( *)([A-Za-z0-9-]+):")
COMMENT = re.compile(r"^ *# (?:-- )?(.*)$")
# A default that is longer than this is not shown; values.yaml has it.
LONGEST = 40
HEAD = """\
<!-- Made from values.yaml and Chart.yaml by tests/chart/run.sh --write; not to be edited here. -->
# {name}

{description}.

```console
helm upgrade --install pod-identity-agent deploy/chart --namespace kube-system \\
  --set clusterName=shop --set image.override=REGISTRY/pod-identity-agent:{version}
```

Needs Kubernetes {kubernetes} and Helm 3 or 4. Values files of the Amazon EKS Pod Identity Agent's chart install this chart too, and a release of it
can be upgraded in place. More: [installing]({home}/docs/install.md), [values with their relations]({home}/docs/chart.md),
[runbook of the alerts]({home}/docs/runbook.md), [examples for Argo CD, Flux, Terraform and others]({home}/deploy/examples/README.md).

## Values

| Value | Default | What it does |
|---|---|---|
"""


def comments():
    """The comment of each value, by its name."""
    path, found, comment = [], {}, None
    for line in (CHART / "values.yaml").read_text().splitlines():
        key = KEY.match(line)
        if line.strip().startswith("# -- "):
            comment = COMMENT.match(line)[1]
        elif line.strip().startswith("#") and comment is not None:
            comment += " " + COMMENT.match(line)[1]
        elif key:
            depth = len(key[1]) // 2
            path = [*path[:depth], key[2]]
            if comment is not None:
                found[".".join(path)] = comment
            comment = None
        else:
            comment = None
    return found


def shown(default):
    text = json.dumps(default)
    return f"`{text}`" if len(text) <= LONGEST else "see values.yaml"


def page():
    """The page, and the values that nothing is said of."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    tree = yaml.safe_load((CHART / "values.yaml").read_text())
    said, rows, silent = comments(), [], []
    for name, default in own(tree):
        if name not in said:
            silent.append(name)
        rows.append(f"| `{name}` | {shown(default)} | {said.get(name, '').replace('|', '&#124;')} |\n")
    head = HEAD.format(version=chart["appVersion"], kubernetes=chart["kubeVersion"].removesuffix("-0"), **{
        key: chart[key] for key in ("name", "description", "home")
    })
    return head + "".join(rows), silent


def own(tree):
    """Each value; of the kinds of nodes only whether they are made: the rest is alike, and docs/chart.md has it."""
    for name, default in values(tree):
        if not name.startswith("daemonsets.*"):
            yield name, default


def check_readme(write):
    text, silent = page()
    problems = [f"values.yaml: nothing is said of {name}, by a comment that begins with `# --`" for name in silent]
    if len(comments()) < 80 or "env" not in WHOLE:
        problems.append(f"values.yaml: only {len(comments())} comments are read")
    return problems + compare(PAGE, text, write)


def check_chart():
    """What catalogues of charts show."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    missing = {"home", "sources", "icon", "keywords", "maintainers", "annotations", "description", "kubeVersion"} - chart.keys()
    if missing:
        yield f"Chart.yaml: lacks {sorted(missing)}"
    for address in [chart["icon"], *re.findall(r"url: (\S+)", chart["annotations"]["artifacthub.io/links"])]:
        path = address.removeprefix(chart["home"] + "/")
        if not (CHART.parent.parent / path).is_file():
            yield f"Chart.yaml: {address} is no file of this repository"
    if chart["annotations"]["artifacthub.io/prerelease"] != str(chart["version"].startswith("0.")).lower():
        yield "Chart.yaml: artifacthub.io/prerelease is not what the version says"
