"""Which folder of agent/src may import which: arrows point inwards, and there is no circle. Tests may look further."""

import re
from collections import defaultdict

from rust import product_files
from tree import Problem, line_of

ROOT = "agent/src/"

# From the inside out. A folder may import what stands above it here; within a layer only what PEERS allows.
LAYERS = (
    ("workload", "clock", "rng", "secret", "words", "backoff", "watched_file", "cli"),
    ("config",),
    ("lifecycle", "telemetry"),
    ("outgoing", "pods", "status"),
    ("events",),
    ("identity", "association", "aws", "node", "kubernetes"),
    ("credentials",),
    ("server",),
    ("app",),
    ("command",),
    ("lib", "main"),
)
PEERS = {
    # Metrics show conditions and limits.
    ("telemetry", "lifecycle"),
    # A back-off has jitter.
    ("backoff", "rng"),
    # Tokens are nouns of workload, and secrets.
    ("workload", "secret"),
}
# What the layers would allow and the design does not: these folders share only the nouns of `workload`.
FORBIDDEN = {
    ("credentials", "identity"): "credentials know callers by the nouns of workload",
    ("credentials", "association"): "which source serves a caller is decided before",
    ("credentials", "node"): "the node's network is not their business",
    ("credentials", "kubernetes"): "they know nothing of the API server",
    ("server", "aws"): "only credentials talk to AWS",
    ("server", "kubernetes"): "app builds what it needs of it",
}
# Today's exceptions: (file or folder under agent/src, imported folder) and why. One that nothing needs is a problem too.
EXCEPTIONS = {
}

IMPORT = re.compile(r"\bcrate::(?:(\w+)|\{([^}]*)\})")
CLIMB = re.compile(r"(?<![\w:])((?:super::)+)(\w+)")


def folder_of(path):
    """The folder, or the file beside lib.rs, that a path under agent/src belongs to."""
    return path.removeprefix(ROOT).split("/")[0].removesuffix(".rs")


def imports(tree):
    """Each import of another folder: (path, line, importing folder, imported folder)."""
    folders = {folder_of(path) for path in tree.files(".rs", under=(ROOT,))}
    for path, code in product_files(tree, ROOT):
        own = folder_of(path)
        depth = len([part for part in path.removeprefix(ROOT).split("/") if part not in ("mod.rs", "lib.rs", "main.rs")])
        for found in IMPORT.finditer(code):
            names = [found[1]] if found[1] else re.findall(r"(?:^|,)\s*(\w+)", found[2])
            yield from ((path, line_of(code, found.start()), own, name) for name in names if name != own)
        for found in CLIMB.finditer(code):
            if found[1].count("super") >= depth > 0 and found[2] in folders - {own}:
                yield path, line_of(code, found.start()), own, found[2]


def layer_of(folder):
    return next((number for number, layer in enumerate(LAYERS) if folder in layer), None)


def complaint(own, other):
    """Why a folder may not import another; nothing if it may."""
    if layer_of(own) is None or layer_of(other) is None:
        unknown = other if layer_of(other) is None else own
        return f"{unknown} has no layer in tests/repository/folders.py"
    if (own, other) in FORBIDDEN:
        return f"{own} must not import {other}: {FORBIDDEN[own, other]}"
    if layer_of(other) > layer_of(own):
        return f"{own} must not import {other}, which is further out"
    if layer_of(other) == layer_of(own) and (own, other) not in PEERS:
        return f"{own} must not import {other}, which stands beside it"
    return None


def circles(edges):
    """The folders that import each other, in whatever number of steps."""

    def reached(start):
        seen, todo = set(), [start]
        while todo:
            for other in edges[todo.pop()]:
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen

    return sorted(folder for folder in list(edges) if folder in reached(folder))


def check(tree):
    edges, used = defaultdict(set), set()
    for path, line, own, other in imports(tree):
        inside = path.removeprefix(ROOT)
        exception = next((key for key in EXCEPTIONS if inside.startswith(key[0]) and other == key[1]), None)
        wrong = complaint(own, other)
        if wrong and exception:
            used.add(exception)
        elif wrong:
            yield Problem("arrow", path, line, wrong)
        else:
            edges[own].add(other)
    for folder in circles(edges):
        yield Problem("arrow", ROOT + folder, 1, "imports itself by way of other folders")
    # Only where the whole agent is: a part of it says nothing about the rest.
    if tree.exists(ROOT + "lib.rs"):
        for place, other in sorted(set(EXCEPTIONS) - used):
            yield Problem("arrow", ROOT + place, 1, f"the exception for {other} in folders.py is not needed any more")
