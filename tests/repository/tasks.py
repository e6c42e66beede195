"""Each task of the agent stands in ARCHITECTURE.md by its name, and whether it is essential; and no task that is no more."""

import re

from rust import code_of, product_of
from tree import Problem, line_of

PAGE = "ARCHITECTURE.md"
ROOT = "agent/src/"
# How a task is started, and whether that makes it essential.
STARTED = re.compile(r"\b(until_stopped|beside|spawn(?:_essential|_detached)?)\(\s*\"([\w-]+)\"")
ESSENTIAL = ("until_stopped", "spawn_essential")
SECTION = re.compile(r"^## Tasks$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (`[^|]*) \|", re.MULTILINE)
# Named by their address and port, or elsewhere in the section.
BY_ADDRESS = re.compile(r"listener-|probes|metrics$")


def started(tree):
    """Each task that the product starts: (path, line, name, whether it is essential)."""
    for path in tree.files(".rs", under=(ROOT,)):
        if path.rsplit("/", 1)[-1] in ("tests.rs", "testing.rs") or "/tests/" in path:
            continue
        text = tree.text(path)
        product = product_of(code_of(text))
        for found in STARTED.finditer(text):
            if product[found.start()] != " ":
                yield path, line_of(text, found.start()), found[2], found[1] in ESSENTIAL


def check(tree):
    if not tree.exists(PAGE):
        return
    page = tree.text(PAGE)
    section = SECTION.search(page)
    if not section:
        yield Problem("tasks", PAGE, 1, "has no section of tasks")
        return
    told = {}
    for row in ROW.finditer(section[1]):
        for name in re.findall(r"`([\w-]+)`", row[1]):
            told[name] = ("(essential)" in row[1], line_of(page, section.start(1) + row.start()))
    beside_table = set(re.findall(r"`([\w-]+)`", section[1])) - set(told)
    seen = set()
    for path, line, name, is_essential in started(tree):
        seen.add(name)
        if name in told and told[name][0] != is_essential:
            yield Problem("tasks", path, line, f"{name}: {PAGE} is wrong about whether it is essential")
        if name not in told and name not in beside_table:
            yield Problem("tasks", path, line, f"{PAGE} does not name the task {name}")
    for name, (_, line) in told.items():
        if name not in seen and not BY_ADDRESS.match(name):
            yield Problem("tasks", PAGE, line, f"no task is started by the name {name}")
