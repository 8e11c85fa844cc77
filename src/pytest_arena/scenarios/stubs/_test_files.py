"""Which tests are lacking, and into which files do they go, when no line of these is changed?"""

from __future__ import annotations

import ast
import io
import tokenize
import unicodedata
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pytest_arena.scenarios.stubs._test_code import (
    TestWriter,
    in_triple_quotes,
    slug,
    slug_with_hash,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_arena.scenarios.specs import Index, ScenarioSpec

__all__ = ["StubFile", "stubs"]


@dataclass(frozen=True, slots=True)
class StubFile:
    """What is to be written: a new file, or what comes after the end of one that is there."""

    path: Path
    text: str
    tests: int
    is_new: bool

    def write(self) -> None:
        """Write it. No byte that is there is changed.

        Raises:
            OSError: the file cannot be written, or has come into being in the meantime.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "x" if self.is_new else "a"
        with self.path.open(mode, encoding="utf-8", newline="") as file:
            file.write(self.text)


def stubs(
    scenarios: Sequence[ScenarioSpec],
    *,
    index: Index,
    mapped: Collection[str] = (),
    folder: Path | None = None,
    runner: str = "",
    elsewhere: Collection[str] = (),
) -> list[StubFile]:
    """Return what is to be written for each scenario to have a test.

    One file for each feature, one async test for each scenario. Each fails as a stub until it is
    written. Nothing is written here, and nothing that is there would be changed: tests are added
    at the end of a feature's file, or go into one with a number where it cannot take them.

    Args:
        scenarios: all of them: a feature's file has its name whichever of them have a test.
        index: says how a marker names a scenario.
        mapped: keys of the scenarios that get none.
        folder: where the files are, or will be; None for those of an empty folder.
        runner: the marker that async tests need to be run: ``asyncio``, ``anyio`` or none.
        elsewhere: names of test modules in other folders.
    """
    names: dict[str, str] = {}  # of files, by features; the first of two that are like has its own
    lacking: dict[str, list[ScenarioSpec]] = {}
    for scenario in scenarios:
        feature = _feature(scenario)
        if feature not in names:
            name = slug(feature)
            names[feature] = slug_with_hash(name, feature) if name in names.values() else name
        if scenario.key not in mapped:
            lacking.setdefault(names[feature], []).append(scenario)
    writer = TestWriter(index, runner)
    files = []
    for name, ones in lacking.items():
        place = (
            _find_place(folder, name, elsewhere) if folder else _TestModule(Path(f"test_{name}.py"))
        )
        names_there = {*place.names, "pytest"}
        tests = "\n\n".join(writer.test(scenario, names_there) for scenario in ones)
        # Two empty lines after imports, but one before a value: so isort has it.
        gap = "\n\n" if tests.startswith("@") else "\n"
        feature = in_triple_quotes(_feature(ones[0]))
        head = f'"""Scenarios of the feature {feature}."""\n\nimport pytest\n{gap}'
        text = f"{place.gap if place.text else head}{tests}".replace("\n", place.newline)
        files.append(StubFile(place.path, text, len(ones), place.is_new))
    return files


def _feature(scenario: ScenarioSpec) -> str:
    """Its name; features of one name are the same, whichever files they stand in."""
    name = " ".join(unicodedata.normalize("NFC", scenario.feature).split())
    return name or PurePosixPath(scenario.spec).stem


@dataclass(frozen=True, slots=True)
class _TestModule:
    """A file that tests can go to: which names it has already, and how it ends."""

    path: Path
    is_new: bool = True
    text: str = ""
    names: frozenset[str] = frozenset()

    @property
    def newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    @property
    def gap(self) -> str:
        """What has to come before a test, for two empty lines to be between."""
        ended = self.text.replace("\r\n", "\n")
        return "\n" * max(0, 3 - (len(ended) - len(ended.rstrip("\n"))))


def _find_place(folder: Path, name: str, elsewhere: Collection[str]) -> _TestModule:
    """Return ``test_<name>.py``, or with the first number at which it can be had.

    Outside of packages Python would take two modules of one name for the same.
    """
    is_package = (folder / "__init__.py").exists()
    paths = (folder / f"test_{name}{f'_{number}' * (number > 1)}.py" for number in count(1))
    free = (path for path in paths if is_package or path.name not in elsewhere)
    return next(place for path in free if (place := _place(path)))


def _place(path: Path) -> _TestModule | None:
    """A file that is not there, or that is Python in UTF-8 and imports pytest; else None."""
    if not path.exists():
        return _TestModule(path)
    try:
        code = path.read_bytes()
        # A BOM is another encoding: nothing can come after its text unseen.
        is_utf8 = tokenize.detect_encoding(io.BytesIO(code).readline)[0] == "utf-8"
        text, tree = code.decode(), ast.parse(code)
    except (OSError, ValueError, SyntaxError):
        return None
    imports = [name for node in tree.body if isinstance(node, ast.Import) for name in node.names]
    if not is_utf8 or (
        text and not any(one.name == "pytest" and not one.asname for one in imports)
    ):
        return None
    # All names that a module gives to anything, as those of its functions are no more free.
    named = (
        getattr(node, "asname", None) or getattr(node, "name", None) or getattr(node, "id", None)
        for node in ast.walk(tree)
    )
    names = frozenset(name for name in named if isinstance(name, str))
    return _TestModule(path, is_new=False, text=text, names=names)
