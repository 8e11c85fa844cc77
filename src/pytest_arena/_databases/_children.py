"""Which databases of the app do the arguments and variables of a child process name?

A child process has no guard. It opens a database that its arguments name, so pytest-arena refuses
to start it. It may open a database that its environment names, so pytest-arena warns.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from pytest_arena._databases._app_databases import real
from pytest_arena._gate import _gate_notes
from pytest_arena._gate._engines import asked_by_engine, asked_by_url
from pytest_arena._gate._listeners import find_engines
from pytest_arena._origin import user_line
from pytest_arena._product import NOWHERE, UNNAMED

if TYPE_CHECKING:
    from pytest_arena._config._read import Config
    from pytest_arena._databases._app_databases import KnownDatabases
    from pytest_arena._ledger import Ledger
    from pytest_arena._values import Child

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>()\[\]{}|;`]+")
_PATH = re.compile(r"[^\s'\"<>()\[\]{}|;`=,:?&]+")


class Children:
    """Checks the arguments and variables of child processes."""

    def __init__(self, config: Config, ledger: Ledger, known: KnownDatabases) -> None:
        self._config = config
        self._ledger = ledger
        self._known = known
        self.warnings: dict[str, None] = {}  # for the reports of failed tests

    def check(self, child: Child) -> None:
        """Refuse a child whose arguments name a database of the app. Warn if its variables do.

        Raises:
            ProductionDatabaseError: the arguments name a database that ``arena_allow`` does not.
        """
        reader = _NamedDatabases(self._config, self._known, child.folder)
        for argument in child.arguments:
            name = reader.named_in(argument)
            if name:
                raise self._ledger.refused(_gate_notes.child_by_argument(name))
        line = user_line()
        if line is None:
            return  # a library starts the child: pytest-xdist a worker, for example
        variables = os.environ if child.variables is None else child.variables
        for variable, value in variables.items():
            if variable.startswith("ARENA_"):
                continue
            name = reader.named_by(value)
            if name:
                is_redirected = variable in self._config.env
                self._warn(
                    _gate_notes.child_by_variable(name, variable, line, is_redirected=is_redirected)
                )

    def _warn(self, warning: str) -> None:
        self._ledger.note(warning)
        self.warnings[warning] = None


class _NamedDatabases:
    """Finds the databases of the app in the arguments and variables of a child in a folder."""

    def __init__(self, config: Config, known: KnownDatabases, folder: str) -> None:
        self._config = config
        self._known = known
        self._folder = folder
        self._servers = [*known.asked]
        files = [*known.files.of_app]
        for engine in find_engines():
            database = asked_by_engine(engine)
            if database is None:
                continue
            names = files if database.product == "sqlite" else self._servers
            names.append(database.name)
        self._file_names = {Path(file).name for file in files}

    def named_in(self, argument: str) -> str:
        """Return the app's database that an argument names in any place, or ""."""
        words = [argument, *_URL.findall(argument), *_PATH.findall(argument)]
        names = (self.named_by(word) for word in dict.fromkeys(words))
        return next(filter(None, names), "")

    def named_by(self, text: str) -> str:
        """Return the app's database that a text names, in the form of ``arena_allow``, or ""."""
        if "://" not in text:
            return self._file_at(text)
        url = _url(text)
        if url is None:
            return ""
        if url.get_backend_name() != "sqlite":
            return self._server_at(url)
        return self._file_at((url.database or "").removeprefix("file:").partition("?")[0])

    def _file_at(self, path: str) -> str:
        files = self._known.files
        # A word such as `test` is rarely a path.
        if "." not in path and "/" not in path:
            return ""
        # The names first: it takes time to look each word of a command up on the disk.
        if Path(path).name not in self._file_names:
            return ""
        file = str(Path(self._folder, path))
        if self._known.at_file(file) is not None or files.is_ours(file):
            return ""
        return real(file) if files.belongs_to_app(file) else ""

    def _server_at(self, url: URL) -> str:
        database = asked_by_url(_with_known_driver(url))
        if database is None or NOWHERE in database.name or UNNAMED in database.name:
            return ""
        if self._config.drivers == "off" or self._known.files.is_allowed(database.name):
            return ""
        product = self._known.products.opened.get(database.product)
        if product is not None and product.live_at(database) is not None:
            return ""
        # One server may have several host names: the database's name decides.
        start = f"{database.product}://"
        end = f"/{database.database}"
        is_known = any(name.startswith(start) and name.endswith(end) for name in self._servers)
        return database.name if is_known else ""


def _with_known_driver(url: URL) -> URL:
    """Return the URL with an engine's driver. The child may use one that this process lacks."""
    backend = url.get_backend_name()
    for engine in find_engines():
        if engine.dialect.name == backend:
            return url.set(drivername=f"{backend}+{engine.dialect.driver}")
    return url


def _url(text: str) -> URL | None:
    # libpq accepts this scheme, and SQLAlchemy does not.
    text = re.sub(r"^postgres://", "postgresql://", text)
    with suppress(ArgumentError, ValueError):
        return make_url(text)
    return None
