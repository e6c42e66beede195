"""The files of the repository, as the rules read them."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# Made by builds and tools; none of it is ours.
SKIPPED = {".git", ".cache", "target", "__pycache__", "node_modules"}
# The rules themselves name what they forbid.
OWN = "tests/repository/"


@dataclass(frozen=True)
class Problem:
    """One place that breaks a rule."""

    rule: str
    path: str
    line: int
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.text} [{self.rule}]"


class Tree:
    """The files under one folder. Paths are relative to it and have forward slashes."""

    def __init__(self, root):
        self.root = Path(root)
        self.paths = sorted(self._walk())

    def _walk(self):
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if name not in SKIPPED]
            for name in names:
                path = (Path(folder) / name).relative_to(self.root).as_posix()
                if not path.startswith(OWN):
                    yield path

    def files(self, *suffixes, under=("",)):
        """The files with one of these endings in one of these folders."""
        return [path for path in self.paths if path.endswith(suffixes) and path.startswith(tuple(under))]

    @lru_cache(maxsize=None)
    def text(self, path):
        return (self.root / path).read_text(encoding="utf-8")

    def exists(self, path):
        return (self.root / path).exists()


def line_of(text, offset):
    """The number of the line that an offset is on."""
    return text.count("\n", 0, offset) + 1
