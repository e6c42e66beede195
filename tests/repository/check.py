#!/usr/bin/env python3
"""The rules of this repository that no compiler checks.

  check.py                 fail if a rule is broken more often than ceilings.txt allows
  check.py --list RULE     show every place that breaks a rule, allowed or not
  check.py --tighten       lower the ceilings to what is left; never raises one
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import citations
import crates
import folders
import named_tests
import sentences
import tasks
import width
import words
from tree import Tree

HERE = Path(__file__).resolve().parent
CEILINGS = HERE / "ceilings.txt"
RULES = (citations, folders, crates, width, words, named_tests, sentences, tasks)
# Shown of one rule; the rest is behind --list.
MOST_SHOWN = 20


def problems_of(tree):
    """All problems, by the name of their rule."""
    found = defaultdict(list)
    for rule in RULES:
        for problem in rule.check(tree):
            found[problem.rule].append(problem)
    return found


def read_ceilings(path=CEILINGS):
    """How often a rule may be broken. A rule that is not named here may not be broken at all."""
    ceilings = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            count, _, rule = line.strip().partition(" ")
            ceilings[rule.strip()] = int(count)
    return ceilings


def over_the_ceiling(found, ceilings):
    """The rules that are broken more often than allowed."""
    return {rule: problems for rule, problems in found.items() if len(problems) > ceilings.get(rule, 0)}


def tightened(found, ceilings):
    """The ceilings as low as they can be now."""
    lower = {rule: min(count, len(found.get(rule, ()))) for rule, count in ceilings.items()}
    return {rule: count for rule, count in lower.items() if count}


def write_ceilings(ceilings, path=CEILINGS):
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    path.write_text(head + "".join(f"{count} {rule}\n" for rule, count in sorted(ceilings.items())))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", metavar="RULE", help="show every place that breaks a rule")
    parser.add_argument("--tighten", action="store_true", help="lower the ceilings to what is left")
    arguments = parser.parse_args()
    found, ceilings = problems_of(Tree(HERE.parent.parent)), read_ceilings()
    if arguments.list:
        print(*found.get(arguments.list, ["nothing"]), sep="\n")
        return 0
    if arguments.tighten:
        write_ceilings(tightened(found, ceilings))
        return 0
    broken = over_the_ceiling(found, ceilings)
    for rule, problems in sorted(broken.items()):
        for problem in problems[:MOST_SHOWN]:
            print(problem, file=sys.stderr)
        allowed = ceilings.get(rule, 0)
        print(f"{rule}: {len(problems)}, allowed {allowed}; all of them: check.py --list '{rule}'", file=sys.stderr)
    left = sum(len(found.get(rule, ())) for rule in ceilings)
    loose = ceilings != tightened(found, ceilings)
    print(f"repository: {len(broken)} rules broken, {left} old places left" + ("; lower the ceilings: --tighten" if loose else ""))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
