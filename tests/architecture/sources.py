"""The repository's own files, read and parsed: what rules about the code look at."""

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("api", "domain", "infrastructure", "projections", "scripts")
FOLDERS: Final = (*PACKAGES, "tests", "docs", "sdk", ".ci")
MADE: Final = {"__pycache__", "node_modules"}
TEXTS: Final = (
    ".py",
    ".sql",
    ".md",
    ".toml",
    ".cfg",
    ".json",
    ".yml",
    ".yaml",
    ".html",
    ".css",
    ".js",
    ".ts",
    "",
)


@dataclass(frozen=True, slots=True)
class Source:
    """One file of Python; `name` is its path in the project."""

    name: str
    tree: ast.Module

    def places(self, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))


@cache
def sources() -> tuple[Source, ...]:
    """All of it but the tests."""
    folders = (*PACKAGES, "sdk/python")
    files = sorted(file for folder in folders for file in (PROJECT / folder).rglob("*.py"))
    return tuple(Source(named(file), ast.parse(file.read_text("utf-8"))) for file in files)


def texts() -> Iterator[tuple[str, str]]:
    """Every file that people write, tests and prose included."""
    for file in sorted(PROJECT.iterdir()):
        if file.is_file() and file.suffix in {".md", ".toml", ".cfg"}:
            yield named(file), file.read_text("utf-8")
    for root in FOLDERS:
        for folder, inner, files in os.walk(PROJECT / root):
            inner[:] = sorted(set(inner) - MADE)  # others may be at work in what is made
            for file in sorted(Path(folder, name) for name in files):
                if file.suffix in TEXTS:
                    yield named(file), file.read_text("utf-8")


def named(file: Path) -> str:
    return file.relative_to(PROJECT).as_posix()
