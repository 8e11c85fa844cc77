"""Refuses to start a process whose arguments name a database of the app.

pytest-arena does not guard other processes. They inherit the variables of ``arena_env``, which name
the test's database.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._config._supported import product_of
from pytest_arena._databases._app_databases import real
from pytest_arena._gate import _gate_notes
from pytest_arena._gate._engines import requested_by_engines
from pytest_arena._gate._known_engines import known_engines
from pytest_arena._origin import line_that_pytest_called, user_line
from pytest_arena._product import NOWHERE

if TYPE_CHECKING:
    from pytest_arena._databases._app_databases import KnownDatabases
    from pytest_arena._ledger import Ledger
    from pytest_arena._values import Child

__tracebackhide__ = True  # tracebacks end at the user's line

_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>()\[\]{}|;`?]+")
_BETWEEN_PATHS = re.compile(r":///|[\s'\"<>()\[\]{}|;`=,:?&]+")


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
        of_engines = requested_by_engines(known_engines.find())
        names = {*self._known.requested, *self._known.files.of_app}
        names.update(engine.name for engine in of_engines)
        for argument in child.arguments:
            for name in filter(None, names):
                if self._names_server(argument, name) or self._names_file(
                    argument, child.folder, name
                ):
                    raise self._ledger.refused(_gate_notes.child_naming(name))
        line = user_line()
        if line is None:
            return  # a library starts the child, such as pytest-xdist
        place = line.short
        called = line_that_pytest_called()
        if called not in {None, line}:
            place = f"{called.short} ({place})"
        self.starts[f"{_program_name(child)} at {place}"] = None

    def _names_server(self, argument: str, name: str) -> bool:
        """Return whether an argument has a URL of a database, of any host, which has many names."""
        product, is_server, place = name.partition("://")
        if not is_server or self._known.files.is_allowed(name):
            return False
        database = place.partition("/")[2]
        return any(
            product_of(url) == product_of(product)
            and url.endswith(f"/{database}")
            and NOWHERE not in url
            for url in _URL.findall(argument)
        )

    def _names_file(self, argument: str, folder: str, name: str) -> bool:
        """Return whether an argument has the path of a file."""
        if "://" in name or Path(name).name not in argument:
            return False
        files = self._known.files
        if self._known.at_file(name) is not None or not files.belongs_to_app(name):
            return False
        words = [argument, *_BETWEEN_PATHS.split(argument)]
        return any(real(str(Path(folder, word))) == real(name) for word in words)


def _program_name(child: Child) -> str:
    """Return the name of a child's program. Its arguments may have secrets."""
    words = " ".join(child.arguments).split()
    if not words or "=" in words[0]:
        return "a process"
    return Path(words[0]).name
