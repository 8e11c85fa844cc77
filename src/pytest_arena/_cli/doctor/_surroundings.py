"""What a file of the suite stands in: the project's configuration, and the app's modules.

Modules are found as files and read as text; nothing is imported.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONFIGURATIONS = ("pytest.toml", "pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
TEST_FOLDERS = {"tests", "test", "testing"}
_MAKERS = r"(?:\w+\.)*(?:async_)?(?:sessionmaker|scoped_session|create_engine|create_async_engine)"
_WIPES = re.compile(
    r"drop_all\b|TRUNCATE\s|DROP\s+(?:TABLE|SCHEMA|DATABASE)|DELETE\s+FROM",
    re.IGNORECASE,
)
_LIFESPAN = re.compile(
    r"\blifespan\s*=|\.on_event\(|\bon_startup\s*=|add_event_handler\("
)
_REEXPORTS = 3  # of a name, from module to module


class Surroundings:
    """The project around one folder of tests: its configuration, and its conftest files' text."""

    def __init__(self, folder: Path) -> None:
        self.root = find_root(folder)
        self.folders = [
            e for e in (folder, *folder.parents) if e.is_relative_to(self.root)
        ]
        self.configuration = configuration(self.root)
        self.uses_arena = bool(re.search(r"(?m)^\s*arena_\w+\s*=", self.configuration))
        self.conftests = "\n".join(read(each / "conftest.py") for each in self.folders)
        self.defining = cache(self._defining)
        self.module = cache(self._module)

    def made_by(self, origin: str) -> str:
        """What makes an object of the app's: ``create_engine``, ``sessionmaker`` …, else ""."""
        text, name = self.defining(origin)
        found = (
            re.search(rf"(?m)^{name}\b[^=\n]*=\s*({_MAKERS})\b", text) if text else None
        )
        return found[1] if found else ""

    def gives_engine(self, origin: str) -> bool:
        """Return whether this is a function or method of the app with `engine` in its name."""
        *owners, name = origin.split(".")
        if "engine" not in name.lower() or "test" in origin.lower():
            return False
        prefixes = (".".join(owners[:end]) for end in range(len(owners), 0, -1))
        return any(self.module(prefix)[0] for prefix in prefixes)

    def wipes(self, origin: str) -> bool:
        """Whether a function of the app's drops or empties tables."""
        text, name = self.defining(origin)
        body = re.search(rf"(?ms)^(?:async )?def {name}\(.*?(?=^\S(?!\))|\Z)", text)
        return bool(body and _WIPES.search(body[0]))

    def has_lifespan(self, origin: str) -> bool:
        """Whether an app's module gives it work to do at its start."""
        text, name = self.defining(origin)
        return bool(
            re.search(rf"(?m)^{name}\b[^=\n]*=", text) and _LIFESPAN.search(text)
        )

    def _defining(self, origin: str) -> tuple[str, str]:
        """The text of the app's module that defines a name, and the name there, for a pattern."""
        for _ in range(_REEXPORTS):
            module, _, name = origin.rpartition(".")
            text, package = self.module(module)
            again = None
            if name in text:
                named = rf"\b(?:(\w+) as )?{re.escape(name)}\b"
                again = re.search(
                    rf"(?m)^from (\S+) import (?:[^(\n]*|\([^)]*){named}", text
                )
            if not again:
                return text, re.escape(name)
            origin = f"{absolute(again[1], package)}.{again[2] or name}"
        return "", ""

    def _module(self, module: str) -> tuple[str, str]:
        """The text of a module of the app's, and its package; "" where it is none."""
        parts = module.split(".")
        of_tests = parts[-1].startswith(("test_", "conftest"))
        if not parts[0] or of_tests or TEST_FOLDERS.intersection(parts):
            return "", ""
        for base in (
            place for e in self.folders for place in (e, e / "src", e / "backend")
        ):
            if TEST_FOLDERS.intersection(base.relative_to(self.root).parts):
                continue  # a helper of the tests
            if text := read(base.joinpath(*parts, "__init__.py")):
                return text, module
            if text := read(base.joinpath(*parts).with_suffix(".py")):
                return text, module.rpartition(".")[0]
        return "", ""


@cache
def surroundings(folder: Path) -> Surroundings:
    """What the files of a folder stand in."""
    return Surroundings(folder)


def absolute(module: str, package: str) -> str:
    """The full name of a module that may be named from within a package."""
    dots = len(module) - len(module.lstrip("."))
    if not dots:
        return module
    return ".".join(
        [*package.split(".")[: len(package.split(".")) - dots + 1], module[dots:]]
    )


@cache
def find_root(folder: Path) -> Path:
    """The next folder above with pytest's configuration, else of git, else what tests are in."""
    above = (folder, *folder.parents)
    for each in above:
        if "pytest" in configuration(each) or (each / ".git").exists():
            return each
    tests = [place for place, each in enumerate(above) if each.name in TEST_FOLDERS]
    return above[max(tests, default=-1) + 1]


@cache
def configuration(root: Path) -> str:
    """The text of the files that configure pytest."""
    return "\n".join(read(root / name) for name in CONFIGURATIONS)


@cache
def read(path: Path) -> str:
    """The text of a file; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
