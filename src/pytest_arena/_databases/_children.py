"""Refuses to start a process whose arguments name a database of the app.

pytest-arena does not guard other processes. They inherit the variables of ``arena_env``, which name
the test's database.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._config._supported import FILE_PRODUCTS, SUPPORTED, with_dialect
from pytest_arena._databases._app_databases import parse_url, real
from pytest_arena._gate import _gate_notes
from pytest_arena._gate._engines import requested_by_engines, requested_by_url
from pytest_arena._gate._known_engines import known_engines
from pytest_arena._origin import line_that_pytest_called, user_line
from pytest_arena._product import NOWHERE, product_package

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from pytest_arena._databases._app_databases import KnownDatabases
    from pytest_arena._ledger import Ledger
    from pytest_arena._values import Child

__tracebackhide__ = True  # tracebacks end at the user's line

_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>()\[\]{}|;`]+")
_PATH = re.compile(r"[^\s'\"<>()\[\]{}|;`=,:?&]+")


class Children:
    """Checks the arguments of child processes."""

    def __init__(self, ledger: Ledger, known: KnownDatabases) -> None:
        self._ledger = ledger
        self._known = known
        # The lines that started processes, with the names of the programs.
        self.starts: dict[str, None] = {}

    def check(self, child: Child) -> None:
        """Refuse a child whose arguments name a database of the app.

        Raises:
            ProductionDatabaseError: ``arena_allow`` does not allow the database.
        """
        engines = requested_by_engines(known_engines.find())
        names = [*self._known.requested, *self._known.files.of_app]
        names += [engine.name for engine in engines]
        for argument in child.arguments:
            words = [argument, *_URL.findall(argument), *_PATH.findall(argument)]
            for word in dict.fromkeys(words):
                name = self._database_at(word, child.folder, names)
                if name:
                    raise self._ledger.refused(_gate_notes.child_naming(name))
        line = user_line()
        if line is None:
            return  # a library starts the child, such as pytest-xdist
        place = line.short
        called = line_that_pytest_called()
        if called not in {None, line}:
            place = f"{called.short} ({place})"
        self.starts[f"{_program_name(child)} at {place}"] = None

    def _database_at(self, word: str, folder: str, names: list[str]) -> str:
        """Return the app's database that a word names, in the form of ``arena_allow``, or "".

        ``names`` are the app's databases.
        """
        if "://" not in word:
            return self._file_at(Path(folder, word), names)
        url = parse_url(with_dialect(word))
        if url is None or NOWHERE in word:
            return ""
        if url.get_backend_name() in FILE_PRODUCTS:
            path, _, _ = (url.database or "").removeprefix("file:").partition("?")
            return self._file_at(Path(folder, path), names)
        database = requested_by_url(_with_known_driver(url))
        if database is None or self._known.files.is_allowed(database.name):
            return ""
        if database.product in SUPPORTED:
            connections = product_package(database.product).connections
            if connections.owns(database.name):
                return ""
        # Two hosts with one name are one database.
        is_of_app = _without_host(database.name) in map(_without_host, names)
        return database.name if is_of_app else ""

    def _file_at(self, file: Path, names: list[str]) -> str:
        """Return the app's file at a path, without links, or ""."""
        # Compare the names first: reading the disk for each word of a command is slow.
        if not any(name.endswith(file.name) for name in names):
            return ""
        files = self._known.files
        if self._known.at_file(str(file)) is not None or files.is_ours(str(file)):
            return ""
        return real(str(file)) if files.belongs_to_app(str(file)) else ""


def _without_host(name: str) -> tuple[str, str]:
    product, _, place = name.partition("://")
    return product, place.partition("/")[2]


def _program_name(child: Child) -> str:
    """Return the name of a child's program. Its arguments may have secrets."""
    words = " ".join(child.arguments).split()
    if not words or "=" in words[0]:
        return "a process"
    return Path(words[0]).name


def _with_known_driver(url: URL) -> URL:
    """Return the URL with an engine's driver. The child's driver may not be installed here."""
    backend = url.get_backend_name()
    for engine in known_engines.find():
        if engine.dialect.name == backend:
            return url.set(drivername=f"{backend}+{engine.dialect.driver}")
    return url
