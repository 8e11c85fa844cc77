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
    r"drop_all\b|TRUNCATE\s|DROP\s+(?:TABLE|SCHEMA|DATABASE)|DELETE\s+FROM", re.IGNORECASE
)
_LIFESPAN = re.compile(r"\blifespan\s*=|\.on_event\(|\bon_startup\s*=|add_event_handler\(")
_REEXPORTS = 3  # of a name, from module to module


class Surroundings:
    """The project around one folder of tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = find_root(folder)

    def option(self, name: str) -> str:
        """The value of an option of pytest's, as it is written in the configuration file."""
        found = re.search(rf"(?m)^\s*{name}\s*=\s*[\"']?([\w.:-]*)", configuration(self.root))
        return found[1] if found else ""

    @property
    def uses_arena(self) -> bool:
        """Whether pytest-arena is configured for the suite."""
        return configures_arena(self.root)

    @property
    def is_strict(self) -> bool:
        """Whether pytest-asyncio is known to run no coroutine without its mark."""
        text = configuration(self.root)
        named = re.search(r"pytest[-_]asyncio|asyncio_mode", text)
        automatic = r"(?:asyncio|anyio)_mode\s*=\s*[\"']?auto|mode[= ]auto|pytest[-_]aiohttp"
        return bool(named) and not re.search(automatic, text)

    @property
    def one_loop(self) -> bool:
        """Whether all tests run on one event loop, or might."""
        wide = self.option("asyncio_default_test_loop_scope") in {"session", "package", "module"}
        return wide or "add_marker" in conftests(self.folder, self.root)

    def conftests(self) -> str:
        """The text of the conftest files that pytest would read for this folder."""
        return conftests(self.folder, self.root)

    def made_by(self, origin: str) -> str:
        """What makes an object of the app's: ``create_engine``, ``sessionmaker`` …, else ""."""
        return maker(self.folder, self.root, origin)

    def wipes(self, origin: str) -> bool:
        """Whether a function of the app's drops or empties tables."""
        text, name = self._defining(origin)
        body = re.search(rf"(?ms)^(?:async )?def {name}\(.*?(?=^\S(?!\))|\Z)", text)
        return bool(body and _WIPES.search(body[0]))

    def has_lifespan(self, origin: str) -> bool:
        """Whether an app's module gives it work to do at its start."""
        text, name = self._defining(origin)
        return bool(re.search(rf"(?m)^{name}\b[^=\n]*=", text) and _LIFESPAN.search(text))

    def is_own(self, origin: str) -> bool:
        """Whether a name comes from a module of the project that is no part of the tests."""
        return bool(self._defining(origin)[0])

    def _defining(self, origin: str) -> tuple[str, str]:
        """The text of the app's module that defines a name, and the name there."""
        return defining(self.folder, self.root, origin)


@cache
def defining(folder: Path, root: Path, origin: str) -> tuple[str, str]:
    """The text of the app's module that defines a name, and the name there, for a pattern."""
    for _ in range(_REEXPORTS):
        module, _, name = origin.rpartition(".")
        text, package = module_text(folder, root, module)
        again = None
        if name in text:
            named = rf"\b(?:(\w+) as )?{re.escape(name)}\b"
            again = re.search(rf"(?m)^from (\S+) import (?:[^(\n]*|\([^)]*){named}", text)
        if not again:
            return text, re.escape(name)
        origin = f"{absolute(again[1], package)}.{again[2] or name}"
    return "", ""


@cache
def maker(folder: Path, root: Path, origin: str) -> str:
    """What makes the object of this name, where it is an engine or opens sessions."""
    text, name = defining(folder, root, origin)
    found = re.search(rf"(?m)^{name}\b[^=\n]*=\s*({_MAKERS})\b", text) if text else None
    return found[1] if found else ""


def absolute(module: str, package: str) -> str:
    """The full name of a module that may be named from within a package."""
    dots = len(module) - len(module.lstrip("."))
    if not dots:
        return module
    return ".".join([*package.split(".")[: len(package.split(".")) - dots + 1], module[dots:]])


@cache
def find_root(folder: Path) -> Path:
    """The next folder above with pytest's configuration, else of git, else what tests are in."""
    above = (folder, *folder.parents)
    tests = [place for place, each in enumerate(above) if each.name in TEST_FOLDERS]
    fallback = above[max(tests, default=-1) + 1]
    for each in above:
        if "pytest" in _own_configuration(each):
            return each
        if (each / ".git").exists():
            return each
    return fallback


@cache
def _own_configuration(folder: Path) -> str:
    return "\n".join(read(folder / name) for name in CONFIGURATIONS)


def configuration(root: Path) -> str:
    """The text of the files that configure pytest."""
    return _own_configuration(root)


@cache
def configures_arena(root: Path) -> bool:
    """Whether an option of pytest-arena stands in the configuration."""
    return bool(re.search(r"(?m)^\s*arena_\w+\s*=", configuration(root)))


@cache
def conftests(folder: Path, root: Path) -> str:
    """The text of the conftest files from the root down to a folder."""
    folders = [each for each in (folder, *folder.parents) if each.is_relative_to(root)]
    return "\n".join(read(each / "conftest.py") for each in folders)


@cache
def module_text(folder: Path, root: Path, module: str) -> tuple[str, str]:
    """The text of a module of the app's, and its package; "" where it is none."""
    if not module or module.startswith("."):
        return "", ""
    parts = module.split(".")
    if TEST_FOLDERS.intersection(parts) or parts[-1].startswith(("test_", "conftest")):
        return "", ""
    above = [each for each in (folder, *folder.parents) if each.is_relative_to(root)]
    for base in (place for each in above for place in (each, each / "src", each / "backend")):
        if TEST_FOLDERS.intersection(base.relative_to(root).parts):
            continue  # a helper of the tests
        if text := read(base.joinpath(*parts, "__init__.py")):
            return text, module
        if text := read(base.joinpath(*parts).with_suffix(".py")):
            return text, module.rpartition(".")[0]
    return "", ""


@cache
def read(path: Path) -> str:
    """The text of a file; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
