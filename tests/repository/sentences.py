"""What a page says that the agent says, the agent says; and no sentence that a pod can get is on no page."""

import re

from rust import TOKEN, product_of
from tree import Problem, line_of

ANSWERS = "agent/src/server/pages/rejection.rs"
# Which pages have the sentences of answers: all of these together have each of them.
PAGES = ("docs/troubleshooting.md", "docs/any-cluster.md")
# Reasons of conditions, and where their words are from.
REASONS = "docs/private-clusters.md"
CAUSES = ("agent/src/outgoing/error.rs", "agent/src/credentials/source/obstacle.rs")

# Words of the C library, the kernel and rustls, with the addresses that they are about.
OF_OTHERS = (
    "failed to lookup address information", "Temporary failure in name resolution", "127.0.0.1:", "Connection refused (",
    "invalid peer certificate", "UnknownIssuer", "certificate not valid for name",
)

# A part of a literal that is filled in when it is said, and what a page has for it.
FILLED_IN = re.compile(r"\{[^}]*\}")
# What stands for anything in a table of these pages.
NOTHING = "nothing"


def literals(tree, path):
    """The strings of a file's product code. Escapes for line ends are taken out, as the compiler does."""
    text = tree.text(path)
    # Neither braces nor attributes in a string count as such; its letters show whether a test was blanked around it.
    marked = product_of(TOKEN.sub(lambda found: ("S" if found["string"] else " ") * len(found[0]), text))
    for found in TOKEN.finditer(text):
        if found["string"] and marked[found.start()] == "S":
            yield re.sub(r"\\\n\s*", "", found["string"].strip('"')), line_of(text, found.start())


def sentences(tree):
    """The sentences of answers, up to what is filled in: those that begin as sentences do, and are more than a code."""
    for text, line in literals(tree, ANSWERS):
        beginning = FILLED_IN.split(text)[0].rstrip(": ")
        if re.match(r"[A-Z]", beginning) and " " in beginning:
            yield beginning, line


def cells(text, head):
    """First cells of the tables that begin with this head, with their lines, up to the end of each table."""
    for table in re.finditer(rf"^\| {re.escape(head)} \|[^\n]*\n\|[-| ]+\n((?:\|[^\n]*\n)*)", text, re.MULTILINE):
        first = line_of(text, table.start(1))
        for number, row in enumerate(table[1].splitlines()):
            yield row.strip("|").split(" | "), first + number


def check(tree):
    if not tree.exists(ANSWERS):
        return
    said = dict(sentences(tree))
    shown = set()
    for page in PAGES:
        for row, line in cells(tree.text(page), "The agent says"):
            sentence = row[0].strip().strip("`").removesuffix("…").rstrip(": ")
            shown.add(sentence)
            if sentence not in said and not row[0].strip().startswith(NOTHING):
                yield Problem("sentence", page, line, f"the agent does not say {sentence!r}")
    for sentence, line in said.items():
        if sentence not in shown:
            yield Problem("sentence", ANSWERS, line, f"{' and '.join(PAGES)} lack {sentence!r}")
    yield from reasons(tree)


def reasons(tree):
    """Each reason that the page shows is made of words of the agent, and of those of others that we know."""
    known = {text for path in CAUSES for text, _ in literals(tree, path)}
    patterns = [re.compile(".+".join(map(re.escape, FILLED_IN.split(text)))) for text in known if not text.startswith("{")]
    for row, line in cells(tree.text(REASONS), "Step"):
        for part in row[1].strip().strip("`").removeprefix("… ").split(": "):
            # A step, and what became of it (`ConnectError`).
            step = part.removesuffix(" failed").removesuffix(" took too long")
            is_ours = step in known or any(pattern.fullmatch(part) for pattern in patterns)
            if not is_ours and not part.startswith(OF_OTHERS):
                yield Problem("sentence", REASONS, line, f"no error of the agent reads {part!r}")
