"""Values that are null or empty: Helm takes them out of the chart before anybody looks, its own defaults too.

What is derived from `values.yaml` here is every value of it, so a new one cannot be forgotten in the schema.
"""

import re

import yaml
from conventions import FREE
from rendering import CHART, GOOD, HYBRID, render

# What uses as many of the values as can be had at once; a null of one that nothing uses would show nothing.
KINDS = ["--set", f"{HYBRID},daemonsets.hybrid-bottlerocket.create=true,init.create=true"]
EXTRAS = ["--set", "metrics.prometheusRule.enabled=true,metrics.grafanaDashboard.enabled=true"]
NODE = ["--set", "sharePort=true,blockImds=true,probeNamespace=true,auditLog=true"]
KEYS = ["--set", "jwks={https://a.example/keys},issuers={https://a.example}"]
ROLES = "kubernetes.serviceAccounts=true,webIdentity.roleMapConfigMap=roles,webIdentity.audiences={mine}"
# What the values are used for, and which of them that use concerns: what others make of it is the same as by default.
USES = {
    "defaults": ([], ("",)),
    "everything, and a ServiceMonitor": (KINDS + EXTRAS + NODE + KEYS + ["--set", "metrics.serviceMonitor.enabled=true"], ("",)),
    "a PodMonitor": (KINDS + ["--set", "metrics.podMonitor.enabled=true"], ("metrics.",)),
    "roles": (["--set", ROLES], ("kubernetes.", "webIdentity.", "podIdentity", "rbac.")),
    "removal": (["--set", "removeFromNodes=true"], ("",)),
}


def scalars(tree, path=()):
    """Each value that is no map and no list, but for those below a key that is a user's own."""
    for key, value in tree.items():
        if isinstance(value, dict) and key not in FREE:
            yield from scalars(value, (*path, key))
        elif not isinstance(value, (dict, list)):
            yield ".".join((*path, key))


def check_nulls():
    """A null scalar is refused, or is the default; never a part that is missing, or text like `<nil>`."""
    names = list(scalars(yaml.safe_load((CHART / "values.yaml").read_text())))
    if len(names) < 40:
        yield f"nulls: only {len(names)} values are found"
    for use, (values, concerns) in USES.items():
        plain = render(*GOOD, *values)
        if plain.returncode != 0:
            yield f"nulls, {use}: {plain.stderr.strip()}"
            continue
        for name in (name for name in names if name.startswith(concerns)):
            told = render(*GOOD, *values, "--set", f"{name}=null")
            if told.returncode == 0 and told.stdout != plain.stdout:
                yield f"nulls, {use}: {name}=null is taken, and is not the default"
            if told.returncode != 0 and name.rsplit(".", 1)[-1] not in told.stderr:
                yield f"nulls, {use}: {name}=null is refused, but not by its name: {told.stderr.strip()}"


# Sections, which have values of their own; without them nothing can be made, and a sentence says so.
SECTIONS = ("daemonsets", "env", "updateStrategy", "global")


def wholes(tree, path=()):
    """Each map and list that is a value as a whole: one without values of its own, or a user's own."""
    for key, value in tree.items():
        here = (*path, key)
        if isinstance(value, dict) and value and key not in FREE:
            yield from wholes(value, here)
        elif isinstance(value, (dict, list)) and here[0] not in SECTIONS:
            yield ".".join(here)


def check_empties():
    """A map or a list that is empty text or null is none of the kind, as in Amazon's chart: public scripts say `--set affinity=`."""
    names = list(wholes(yaml.safe_load((CHART / "values.yaml").read_text())))
    if len(names) < 30:
        yield f"empties: only {len(names)} values are found"
    uses = GOOD + KINDS + EXTRAS + ["--set", "metrics.podMonitor.enabled=true"]
    for name in names:
        empty, null = (render(*uses, "--set", f"{name}={text}") for text in ("", "null"))
        if empty.returncode != 0 or null.returncode != 0:
            yield f"empties: {name}: {(empty.stderr or null.stderr).strip()}"
        elif empty.stdout != null.stdout:
            yield f"empties: {name} is one thing as empty text, and another as null"
        elif re.search(r"<nil>|<no value>|^[^\"]*: (null|\"\")$", empty.stdout, re.MULTILINE):
            yield f"empties: {name}: nothing comes out as text"
