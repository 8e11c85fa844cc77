"""Finds apps in the project's modules, and containers that have grown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._app._app_state import OTHER_APPS
from pytest_arena._app._kind import is_frameworks_app
from pytest_arena._config._load import project_modules
from pytest_arena._values import PLAIN, counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_LINES = 4


def note_other_apps(named: object) -> None:
    """Note the apps in the project's modules, also in modules of tests, without the named one."""
    apps = {}
    for module, _ in project_modules():
        for value in [*vars(module).values()]:
            if value is not named and is_frameworks_app(value):
                apps[id(value)] = value
    OTHER_APPS[:] = apps.values()


class ModuleContainers:
    """The plain containers in the project's modules, with their sizes after the collection.

    Modules of tests do not count, and modules that are imported later.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sizes: dict[str, tuple[Any, int]] = {}

    def note(self) -> None:
        """Note the present sizes."""
        self._sizes = {}
        known: set[int] = set()
        for name, container in self._containers():
            # Another module may import it.
            if id(container) not in known:
                known.add(id(container))
                self._sizes[name] = (container, len(container))

    def grown(self) -> list[str]:
        """Return a line for each container that has more items now."""
        lines = []
        for name, (container, before) in self._sizes.items():
            now = len(container)
            if now > before:
                lines.append(f"{name} has {counted(now, 'item')}, and had {before:,}")
        return lines[:_MOST_LINES]

    def _containers(self) -> Iterator[tuple[str, Any]]:
        for module, path in project_modules():
            is_of_tests = path.stem == "conftest" or "test" in path.stem.split("_")
            if is_of_tests or not path.is_relative_to(self._root):
                continue
            for name, value in [*vars(module).items()]:
                if type(value) in PLAIN and not name.startswith("__"):
                    yield f"{module.__name__}.{name}", value
