"""Words that we do not use for our own things: the field has a usual one, or the phrase reads as translated."""

import re

from tree import Problem, line_of

AGENT = ("agent/src/",)
# What users, operators and contributors read.
PAGES = ("agent/src/", "deploy/", "docs/", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "Makefile")

# Name of the word, what to search for, where, and what to write instead.
WORDS = (
    # Names of our own things.
    ("crew", r"\b[Cc]rew\b", AGENT, "FlightRunner, attempts"),
    ("boarding", r"\b[Bb]oard(?:ing|s|ed)?\b|\b[Ee]mbark\w*", AGENT, "join, FlightHandle"),
    ("aloft", r"[Aa]loft\b|\b[Aa]board\b", AGENT, "InFlight"),
    ("landed", r"[Ll]anded\b|\b[Ll]anding\b|\blands?\b", AGENT, "Done, finished"),
    ("flown", r"\bflown\b|\bfly\(", AGENT, "run"),
    ("seat", r"\b[Ss]eat(?:s|ed|ing)?\b", AGENT, "waiter, position"),
    ("lane", r"\b[Ll]anes?\b", AGENT, "priority"),
    ("crowd", r"\b[Cc]rowd\w*", AGENT, "RecentAnswers"),
    ("witness", r"\b[Ww]itness\w*", AGENT, "another association"),
    ("settle", r"\bsettles?\(|\bpub mod settle\b|`settle`", AGENT, "outcome"),
    ("risen", r"\b[Rr]isen\b", AGENT, "priority raised"),
    ("trouble", r"\btell_trouble\b", AGENT, "report_failure"),
    ("seal", r"\bseal\b", AGENT, "probe key"),
    ("standing", r"\bstanding\b", AGENT, "status"),
    ("heard", r"\b[Hh]eard\b|\b[Hh]ears?\b", PAGES, "answer; is notified"),
    ("news", r"\b[Nn]ews\b", PAGES, "events, changes"),
    ("furnish", r"\bfurnish\w*|\bthrowaway\b|\bturn_deaf\b|\bdeaf\b|\bAtHand\b|\bSwitchOn\b|\bLEAST_LIFE\b|\bTELLING\b", PAGES,
     "set_up, veth_pair, drop_new_syns, Lookup, BringUp, MIN_REMAINING_LIFE"),
    # Phrases.
    ("in hand", r"\bin hand\b|\bat hand\b", PAGES, "cached"),
    ("unwell", r"\bunwell\b", PAGES, "failing"),
    ("is led", r"\b(?:is|are|be|was) led\b|\bleads? (?:port|pods|tokens|those)\b", PAGES, "is redirected, sends to"),
    ("is told", r"\b(?:is|are|be|was|were) told\b", PAGES, "is reported, gets an error, is given"),
    ("came of it", r"\b(?:came|comes?|becomes?|became) of (?:it|them|that|those|tokens|the|asking|joining|a)\b", PAGES, "the result, what happens to"),
    ("all the same", r"\ball the same\b", PAGES, "anyway"),
    ("of ours", r"\bof ours\b", PAGES, "our"),
    ("must be said", r"\bmust be said\b|\bsaid to be\b", PAGES, "required"),
    ("whoever", r"\b[Ww]hoever\b", PAGES, "a client that, anyone who"),
    ("whose", r"\b[Ww]hose\b", PAGES, "of which; turn the sentence round"),
    ("in vain", r"\bin vain\b|\bmean(?:s|t)? ill\b|\bthe way of the pods\b|\bempty hands\b", PAGES, "without success; the usual word"),
    ("house", r"\bhouse\b", PAGES, "the usual word"),
)


def check(tree):
    for name, pattern, where, instead in WORDS:
        regex = re.compile(pattern)
        for path in tree.files("", under=where):
            if path.endswith((".json", ".pem")):
                continue
            text = tree.text(path)
            for found in regex.finditer(text):
                yield Problem(f"word {name}", path, line_of(text, found.start()), f"{found[0]!r}: write {instead}")
