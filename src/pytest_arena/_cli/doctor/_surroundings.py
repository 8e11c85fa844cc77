"""The configuration and app of a test file.

This module reads the modules of the app as text, and imports none of them.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

from pytest_arena._cli._imports import absolute, imported_paths, parsed

if TYPE_CHECKING:
    from collections.abc import Iterable
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
_ARENA_APP = re.compile(r"""(?m)^\s*arena_app\s*=\s*["']?([\w.]+)""")
_REEXPORTS = 3  # the longest chain of modules that import a name from each other
_IMPORTS = 6  # the longest chain of modules that import each other


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the app.

    Attributes:
        package: the package to which its relative imports belong.
    """

    path: Path
    text: str
    package: str


class Surroundings:
    """The project around one folder of tests: its configuration, its conftest files, its app."""

    def __init__(self, folder: Path) -> None:
        self.root = find_root(folder)
        self.folders = []
        for above in (folder, *folder.parents):
            if above.is_relative_to(self.root):
                self.folders.append(above)
        self.configuration = configuration(self.root)
        self.uses_arena = bool(re.search(r"(?m)^\s*arena_\w+\s*=", self.configuration))
        conftests = [read(above / "conftest.py") for above in self.folders]
        self.conftests = "\n".join(conftests)
        # Several rules look for the same names.
        self.defining = cache(self._defining)
        self.module = cache(self._module)

    def is_engine_or_maker(self, origin: str) -> bool:
        """Return whether a name of the app is an engine or a session maker."""
        text, name = self.defining(origin)
        made = rf"(?m)^{name}\b[^=\n]*=\s*{_MAKERS}\b"
        return bool(text and re.search(made, text))

    def is_engine_function(self, origin: str) -> bool:
        """Return whether a name with `engine` in it is a function or method of the app."""
        owner, _, name = origin.rpartition(".")
        if "engine" not in name.lower() or "test" in origin.lower():
            return False
        while owner:
            if self.module(owner):
                return True
            owner = owner.rpartition(".")[0]
        return False

    def wipes(self, origin: str) -> bool:
        """Return whether a name is a function of the app that drops or empties tables."""
        text, name = self.defining(origin)
        body = re.search(rf"(?ms)^(?:async )?def {name}\(.*?(?=^\S(?!\))|\Z)", text)
        return bool(body and _WIPES.search(body[0]))

    def has_lifespan(self, origin: str) -> bool:
        """Return whether a name is an app whose module gives it a lifespan."""
        text, name = self.defining(origin)
        is_assigned = re.search(rf"(?m)^{name}\b[^=\n]*=", text)
        return bool(is_assigned and _LIFESPAN.search(text))

    def _defining(self, origin: str) -> tuple[str, str]:
        """Return the text of the app's module that defines a name, and a pattern of the name."""
        for _ in range(_REEXPORTS):
            module, _, name = origin.rpartition(".")
            defining = self.module(module)
            text = defining.text if defining else ""
            pattern = re.escape(name)
            imported = re.search(
                rf"(?m)^from (\S+) import (?:[^(\n]*|\([^)]*)\b(?:(\w+) as )?{pattern}\b",
                text,
            )
            if defining is None or not name or not imported:
                return text, pattern
            origin_module = absolute(imported[1], defining.package)
            original_name = imported[2] or name
            origin = f"{origin_module}.{original_name}"
        return "", ""

    def modules_behind(self, paths: Iterable[str]) -> list[Module]:
        """Return the app's modules that these imports and ``arena_app`` reach.

        An import of ``a.b.c`` also imports ``a.b`` and ``a``.
        """
        reached: dict[Module, None] = {}
        pending = [*paths, *_ARENA_APP.findall(self.configuration)]
        for _ in range(_IMPORTS):
            modules = chain.from_iterable(map(self._modules_on, pending))
            new = [module for module in modules if module not in reached]
            reached.update(dict.fromkeys(new))
            pending = list(chain.from_iterable(map(_paths_behind, new)))
        return list(reached)

    def _modules_on(self, path: str) -> list[Module]:
        """Return the app's modules that an import of a dotted path runs."""
        modules = []
        while path:
            module = self.module(path)
            if module is not None:
                modules.append(module)
            path = path.rpartition(".")[0]
        return modules

    def _module(self, module: str) -> Module | None:
        """Return a module of the app. None for a test module and an empty module."""
        parts = module.split(".")
        is_test = parts[-1].startswith(("test_", "conftest"))
        if not parts[0] or is_test or TEST_FOLDERS.intersection(parts):
            return None
        for folder in self.folders:
            if TEST_FOLDERS.intersection(folder.relative_to(self.root).parts):
                continue
            for base in (folder, folder / "src", folder / "backend"):
                location = base.joinpath(*parts)
                path = location / "__init__.py"
                text = read(path)
                if text:
                    return Module(path, text, module)
                path = location.with_suffix(".py")
                text = read(path)
                if text:
                    return Module(path, text, module.rpartition(".")[0])
        return None


@cache
def _paths_behind(module: Module) -> list[str]:
    """Return the absolute dotted paths that a module imports."""
    try:
        tree = parsed(module.text)
    except SyntaxError:
        return []
    paths = imported_paths(ast.walk(tree))
    return [absolute(path, module.package) for path in paths]


@cache
def surroundings(folder: Path) -> Surroundings:
    """Return the project around the files of a folder."""
    return Surroundings(folder)


@cache
def find_root(folder: Path) -> Path:
    """Return the project's root.

    The root is the nearest parent, or the folder itself, that has ``.git`` or mentions pytest in a
    configuration file. Without such a folder it is the parent of the outermost folder of tests.
    Without tests it is the folder itself.
    """
    candidates = (folder, *folder.parents)
    for candidate in candidates:
        is_configured = "pytest" in configuration(candidate)
        if is_configured or (candidate / ".git").exists():
            return candidate
    root = folder
    for path in candidates:
        if path.name in TEST_FOLDERS:
            root = path.parent
    return root


@cache
def configuration(root: Path) -> str:
    """Return the text of the files that may configure pytest."""
    texts = [read(root / name) for name in CONFIGURATIONS]
    return "\n".join(texts)


@cache
def read(path: Path) -> str:
    """Return the text of a file, or "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
