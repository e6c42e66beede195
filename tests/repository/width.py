"""No line of Rust is wider than .editorconfig says; rustfmt does not see to comments and strings."""

from tree import Problem

MOST = 110


def check(tree):
    for path in tree.files(".rs", under=("agent/", "tests/")):
        for number, line in enumerate(tree.text(path).splitlines(), 1):
            if len(line) > MOST:
                yield Problem("width", path, number, f"{len(line)} characters, {MOST} are allowed")
