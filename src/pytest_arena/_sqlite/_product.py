"""SQLite: files in a folder of this process."""

from __future__ import annotations

import re
import sqlite3
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL, Dialect

from pytest_arena._product import (
    Aim,
    Asked,
    Core,
    Database,
    Isolation,
    Key,
    isolation_named,
)
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._copy import Copy
from pytest_arena._sqlite._home import Home, kept_file
from pytest_arena._sqlite._templates import FileShelves

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_arena._config._read import Config


class SQLite:
    """Each database is a live file; templates are files in the user's cache."""

    name, shell = "sqlite", "sqlite3"
    forced = (
        "a new file was put in its place. SQLAlchemy's connections are opened anew; those of "
        "sqlite3 itself and of other processes go on with the old file"
    )

    def __init__(self, core: Core, config: Config) -> None:
        self._core, self._config = core, config
        self._home = Home()
        self._shelves = FileShelves(config.cache / "templates", self._home)
        self._count = count(1)

    @property
    def shown(self) -> str:
        """Its version."""
        return f"SQLite {sqlite3.sqlite_version}"

    def drivers(self) -> tuple[str, ...]:
        """Python's own is always there."""
        return ("aiosqlite", "") if find_spec("aiosqlite") else ("",)

    def meant(self, asked: Asked) -> tuple[Key | None, tuple[str, ...]]:
        """The file; a memory database without a name is its engine's alone.

        Its names are the path without the ending, from the whole to the last part of it.
        """
        if not asked.name:
            return Key("shared memory", asked.memory) if asked.memory else None, ()
        parts = Path(asked.name).with_suffix("").parts[1:]
        tails = tuple("/".join(parts[at:]) for at in range(len(parts)))
        return Key("file", str(Path(asked.name).resolve())), tails

    def live_at(self, asked: Asked) -> None:
        """Return None: no file of the arena's is on a server."""
        del asked

    def new_file(self, name: str, taken: Collection[str]) -> Path:
        """A file of its own, with room in its name for SQLite's side files.

        Simple letters: the path stands in URLs, too. Some file systems do not tell A from a.
        """
        simple = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[-100:]
        while simple.lower() in taken:
            simple = f"{next(self._count)}-{simple[-100:]}"
        return self._home.path / simple

    def shelves(self, dialect: type[Dialect]) -> FileShelves:
        """The same for all drivers."""
        del dialect
        return self._shelves

    def isolate(self, database: Database, content: Any) -> Isolation:
        """``copy``, which is all that SQLite has."""
        kind: type[Copy] = isolation_named(
            self._config, {"auto": Copy, "copy": Copy}, self.shown
        )
        return kind(Path(database.file), content, tell=self._core.ledger.note)

    def ask_for(self, name: str, isolation: Isolation) -> str:
        """There is copy alone."""
        return "" if name == isolation.name else f"{self.shown} is isolated by copy"

    def aim(self, database: Database) -> Aim:
        """The live file."""
        generation = database.isolation.generation if database.isolation else 0
        return Aim(database.key, str(database.live), (database.born, generation))

    def url(self, database: Database, driver: str) -> URL:
        """The path of the live file."""
        return URL.create(
            f"sqlite+{driver}" if driver else "sqlite", database=database.file
        )

    def keep(self, database: Database, title: str) -> str:
        """A copy in the user's cache."""
        file = kept_file(self._config.cache, title, Path(database.file).name)
        if database.isolation is not None:
            database.isolation.save(file)
        return str(file)

    def policed(self, database: Database, *, is_off: bool = False) -> tuple[str, ...]:
        """SQLite has none."""
        del database, is_off
        return ()

    def policed_for_arena(self, database: Database) -> tuple[str, ...]:
        """Return no table: SQLite has no policies."""
        del database
        return ()

    def remove(self, database: Database) -> None:
        """The live file, its side files and pictures."""
        if database.isolation is not None:
            database.isolation.close()
            sql.remove_file(Path(database.file))

    def close(self, *, is_hurried: bool = False) -> str:
        """Remove the folder, which takes no time."""
        del is_hurried
        self._home.close()
        return ""
