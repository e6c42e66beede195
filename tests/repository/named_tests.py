"""Each test that a page names is there: `path::name`, in Rust, Python, or the alert tests of promtool."""

import re

from tree import Problem, line_of

NAMED = re.compile(r"`([\w./-]+\.(?:rs|py|yaml))::(\w+)`")
# The page on which each row names its test, or says after these words why it has none.
ROWS = "docs/design/operating.md"
NONE = "no test: "
IDS = [f"F{number}" for number in range(1, 13)] + ["G1"] + [f"B{number}" for number in range(1, 9)]


def is_in(path, name, text):
    """Whether a file has this test."""
    if path.endswith(".rs"):
        return re.search(rf"#\[(?:tokio::)?test\b[^\]]*\]\s*(?:(?:#\[[^\]]*\]|//[^\n]*)\s*)*(?:async )?fn {name}\(", text)
    if path.endswith(".py"):
        return re.search(rf"^\s*def {name}\(|^{name} = ", text, re.MULTILINE)
    return re.search(rf"\b{name}\b", text)


def check(tree):
    for page in tree.files(".md"):
        text = tree.text(page)
        for found in NAMED.finditer(text):
            path, name = found.groups()
            if not tree.exists(path):
                yield Problem("named-test", page, line_of(text, found.start()), f"there is no {path}")
            elif not is_in(path, name, tree.text(path)):
                yield Problem("named-test", page, line_of(text, found.start()), f"{path} has no test {name}")
    if tree.exists(ROWS):
        yield from rows(tree.text(ROWS))


def rows(text):
    seen = []
    for found in re.finditer(r"^\| ([A-Z]\d+) \|([^\n]*)$", text, re.MULTILINE):
        seen.append(found[1])
        if not NAMED.search(found[2]) and NONE not in found[2]:
            yield Problem("named-test", ROWS, line_of(text, found.start()), f"{found[1]} names no test")
    if seen != IDS:
        yield Problem("named-test", ROWS, 1, f"rows are {seen}, and should be {IDS}")
