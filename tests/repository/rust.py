"""Just enough of Rust's syntax to tell code from comments and strings, and the product from its tests."""

import posixpath
import re
from functools import cache

TOKEN = re.compile(
    r"""
      (?P<comment> //[^\n]* | /\*.*?\*/ )
    | (?P<string>  b?r(?P<hashes>\#*)".*?"(?P=hashes) | b?"(?:\\.|[^"\\])*" )
    | (?P<char>    b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^'\\\n])' )
    """,
    re.VERBOSE | re.DOTALL,
)


@cache
def code_of(text):
    """The text with comments, strings and characters blanked; every offset stays where it was."""
    return TOKEN.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


# What is compiled for tests only; properties are compiled for tests/fuzz too.
FOR_TESTS = r"#\[cfg\((?:test|fuzzing|any\(test, fuzzing\))\)\]"
TEST_ITEM = re.compile(FOR_TESTS)
TEST_MODULE = re.compile(FOR_TESTS + r"\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;")


def product_of(code):
    """The code without the items that are compiled for tests only; every offset stays where it was."""
    start = 0
    while found := TEST_ITEM.search(code, start):
        end = end_of_item(code, found.end())
        code = code[: found.start()] + re.sub(r"[^\n]", " ", code[found.start() : end]) + code[end:]
        start = end
    return code


def end_of_item(code, start):
    """Where the item that begins here ends: behind its braces, or its semicolon."""
    depth = 0
    for offset in range(start, len(code)):
        if code[offset] == "{":
            depth += 1
        elif code[offset] == "}":
            depth -= 1
            if depth == 0:
                return offset + 1
        elif code[offset] == ";" and depth == 0:
            return offset + 1
    return len(code)


def product_files(tree, root):
    """The files of the product under a folder, with their code: neither files of tests nor parts of others for tests."""
    paths = tree.files(".rs", under=(root,))
    tests = set()
    for path in paths:
        folder, name = posixpath.split(path)
        inside = folder if name in ("mod.rs", "lib.rs", "main.rs") else path.removesuffix(".rs")
        tests.update(f"{inside}/{found[1]}" for found in TEST_MODULE.finditer(code_of(tree.text(path))))
    for path in paths:
        if not any(path == f"{test}.rs" or path.startswith(f"{test}/") for test in tests):
            yield path, product_of(code_of(tree.text(path)))
