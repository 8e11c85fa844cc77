"""Whose is a file: the arena's own, the app's, or the tests'?"""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena import _gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._config import Config
    from pytest_arena._sqlite._home import Home

__all__ = ["Files", "real", "tails_of"]


class Files:
    """Tells files apart by where they lie, by ``arena_allow``, and by what engines have meant."""

    def __init__(self, config: Config, home: Home) -> None:
        below_root = (str(config.root / text) for text in config.allow)
        self._allowed = (*config.allow, *below_root)
        # Beside what is ours in the cache's folder there may be anything.
        cache = config.cache.resolve()
        self._folders = (home.path, cache / "templates", cache / "kept")
        # By their real paths, with what could be seen of them when an engine first meant them.
        self._of_app: dict[str, tuple[int, int] | None] = {}
        self.temporary: Callable[[], Path | None] = lambda: None

    def add(self, file: str) -> None:
        """An engine of the app's means this file: a database of the arena stands for it."""
        self._of_app[real(file)] = _signature(file)

    def changed(self) -> list[str]:
        """Return the app's own files that are not what they were: another process wrote to them."""
        return [file for file, before in self._of_app.items() if _signature(file) != before]

    def is_ours(self, file: str) -> bool:
        """Whether it lies in a folder of the arena's."""
        path = Path(real(file))
        return any(path.is_relative_to(folder) for folder in self._folders)

    def is_free(self, file: str) -> bool:
        """Whether tests may open this file themselves: pytest's folders, ``arena_allow``."""
        temporary = self.temporary()
        if temporary is not None and Path(real(file)).is_relative_to(temporary):
            return not self._is_link_to_app(file)
        names = {file, real(file)}
        return any(self.is_allowed(name) or self.is_allowed(f"sqlite:///{name}") for name in names)

    def is_allowed(self, name: str) -> bool:
        """Whether ``arena_allow`` names this database. A relative file is one below the root.

        Of a database on several hosts, each has to be allowed.
        """
        return all(
            one in self._allowed or any(fnmatch(one, pattern) for pattern in self._allowed)
            for one in _each_host(name)
        )

    def belongs_to_app(self, file: str) -> bool:
        """Whether this is a file of an engine's, so that a database of the arena stands for it.

        Engines that have not connected yet count.
        """
        is_known = real(file) in self._of_app or self._is_link_to_app(file)
        return (is_known or _is_meant_by_an_engine(file)) and not self.is_free(file)

    def stands_for(self, real: str) -> bool:
        """Whether a database of the arena stands in this file's place, known by its real path."""
        return real in self._of_app and not self.is_free(real)

    def _is_link_to_app(self, file: str) -> bool:
        """Whether the file is another name (a hard link) of one that belongs to the app."""
        others = (known for known in list(self._of_app) if known != real(file))
        return any(_is_same(known, file) for known in others)


_HOSTS = re.compile(r"(\w+://)([^/]+)(/.*)")


def _each_host(name: str) -> list[str]:
    """The names of a database on a server, one for each of its hosts; any other name alone."""
    found = _HOSTS.fullmatch(name)
    if found is None:
        return [name]
    return [f"{found[1]}{host}{found[3]}" for host in found[2].split(",")]


def real(file: str) -> str:
    """Return a file's path without links, by which it is known."""
    return str(Path(file).resolve())


def tails_of(file: str) -> tuple[str, ...]:
    """Return a file's names without its ending, from its whole path to the last part of it."""
    parts = Path(file).with_suffix("").parts[1:] if file else ()
    return tuple("/".join(parts[at:]) for at in range(len(parts)))


def _is_meant_by_an_engine(file: str) -> bool:
    found = [_gate.asked_by_engine(engine) for engine in _gate.find_engines()]
    names = [one.name for one in found if one and one.product == "sqlite" and one.name]
    return any(real(name) == real(file) or _is_same(name, file) for name in names)


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # one of them is not there
        return False


def _signature(file: str) -> tuple[int, int] | None:
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
