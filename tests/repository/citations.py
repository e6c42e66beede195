"""Every citation resolves: to a file of this repository, and to a heading where it names one."""

import posixpath
import re

from tree import Problem, line_of

# What may hold a citation.
TEXTS = (".rs", ".md", ".py", ".sh", ".yaml", ".yml", ".toml", ".tpl", ".txt", ".json", "Makefile", "Dockerfile")
INVARIANTS = "docs/design/invariants.md"
# Pages about the source of others: paths in them are not ours.
ABOUT_OTHERS = ("docs/design/facts.md", "docs/design/client-contract.md", "docs/design/pains.md")

# A gap between two words that may be a line break inside a comment.
GAP = r"(?:[ \t]*\n[ \t]*(?:///?!?|//!|\#)?[ \t]*|[ \t]+)"
PAGE = re.compile(r"\bdocs/[\w./-]*\w\.md(?:#([\w-]+))?")
NUMBERED = re.compile(rf"\b[Ii]nvariants?{GAP}(\d+(?:(?:,{GAP}|{GAP}and{GAP}|{GAP}to{GAP})\d+)*)")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
QUOTED_PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)+\.(?:rs|py|sh|yaml|md|tpl|toml|json|txt))`")

# Forms that cite something outside the repository. tests/repository/ceilings.txt says how many are left.
OLD = re.compile(
    "|".join(
        (
            rf"\bdesign,?{GAP}(?:section{GAP})?\d[\d.]*",
            rf"\bdesign,?{GAP}invariants?\b",
            rf"\bof{GAP}the{GAP}design{GAP}\(section",
            r"\bthe design's\b",
            rf"\btable{GAP}of{GAP}4\.\d",
            rf"\bsdk-contract\b(?:,?{GAP}(?:sections?{GAP})?\d[\d.]*)?",
            rf"\b(?:facts|pains)(?:,{GAP}section)?{GAP}\d[\d.]*",
            rf"\bissue{GAP}[A-Z]\d*\b",
        )
    )
)


def headings(text):
    """The anchors of a page, as GitHub makes them."""
    anchors, is_code = {}, False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_code = not is_code
        found = None if is_code else re.match(r"#{1,6} +(.+?) *#*$", line)
        if found:
            words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found[1]).lower())
            anchor = words.strip().replace(" ", "-")
            seen = anchors.get(anchor, 0)
            anchors[anchor] = seen + 1
            if seen:
                anchors[f"{anchor}-{seen}"] = 1
    return set(anchors)


def problem_with(tree, page, anchor):
    """Why a page and an anchor cannot be cited; nothing if they can."""
    if not tree.exists(page):
        return f"there is no {page}"
    if anchor and page.endswith(".md") and anchor not in headings(tree.text(page)):
        return f"{page} has no heading #{anchor}"
    return None


def check(tree):
    for path in tree.files(*TEXTS):
        text = tree.text(path)
        yield from citations(tree, path, text)
        for found in OLD.finditer(text):
            yield Problem("old-citation", path, line_of(text, found.start()), " ".join(found[0].split()))
        if path.endswith(".md"):
            yield from links(tree, path, text)


def citations(tree, path, text):
    for found in PAGE.finditer(text):
        problem = problem_with(tree, found[0].partition("#")[0], found[1])
        if problem:
            yield Problem("citation", path, line_of(text, found.start()), problem)
    anchors = None
    for found in NUMBERED.finditer(text):
        anchors = anchors or (headings(tree.text(INVARIANTS)) if tree.exists(INVARIANTS) else {"none"})
        for number in re.findall(r"\d+", found[1]):
            if f"invariant-{number}" not in anchors:
                yield Problem("citation", path, line_of(text, found.start()), f"there is no invariant {number}")


def links(tree, path, text):
    for found in LINK.finditer(text):
        target, _, anchor = found[1].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        page = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) if target else path
        problem = problem_with(tree, page, anchor)
        if problem:
            yield Problem("citation", path, line_of(text, found.start()), f"the link leads nowhere: {problem}")
    if path in ABOUT_OTHERS:
        return
    for found in QUOTED_PATH.finditer(text):
        places = ("", "agent/src/", posixpath.dirname(path) + "/")
        # What a build makes is not in the tree.
        if not found[1].startswith("target/") and not any(tree.exists(place + found[1]) for place in places):
            yield Problem("path", path, line_of(text, found.start()), f"there is no {found[1]}")
