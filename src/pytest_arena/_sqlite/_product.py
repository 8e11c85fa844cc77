"""SQLite: files in a folder of this process."""

from __future__ import annotations

import os
import re
import sqlite3
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.engine import URL, Dialect

from pytest_arena._product import (
    ConnectTarget,
    Core,
    Database,
    Isolation,
    Key,
    RequestedDatabase,
)
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._copy import Copy
from pytest_arena._sqlite._files import FileTemplates, Home, kept_file
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_arena._config._read import Config
    from pytest_arena._product import Usage


_ROLLBACK_IS_COPY = "rollback on SQLite is copy: a copy of a file needs no rights"


class SQLite:
    """SQLite in a run. Each database is a live file. Templates are files in the user's cache."""

    name = "sqlite"
    shares_connections = False
    forced = (
        "a new file has replaced it. SQLAlchemy opens its connections again. Connections "
        "of sqlite3 itself and of other processes keep using the old file"
    )

    def __init__(self, core: Core, config: Config) -> None:
        if not hasattr(sqlite3.Connection, "serialize"):
            raise _too_old(sqlite3.sqlite_version)
        self._core = core
        self._config = config
        self._home = Home()
        self._templates = FileTemplates(config.cache / "templates", self._home)
        self._numbers = count(1)
        self._targets: dict[Database, ConnectTarget] = {}

    @property
    def shown(self) -> str:
        """The product and its version."""
        return f"SQLite {sqlite3.sqlite_version}"

    def identify(
        self, requested: RequestedDatabase
    ) -> tuple[Key | None, tuple[str, ...]]:
        """Return the key of a requested database, and the names by which an option may name it."""
        if requested.memory:
            return Key("shared memory", requested.memory), ()
        if not requested.name:
            return None, ()
        file = Path(requested.name)
        parts = file.with_suffix("").parts[1:]
        names = ["/".join(parts[start:]) for start in range(len(parts))]
        # `Path.resolve` raises a RuntimeError for a loop of links on some versions of Python.
        return Key("file", os.path.realpath(file)), tuple(names)

    def new_file(self, name: str, taken: Collection[str]) -> Path:
        """Return an unused path for a database."""
        simple = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[-100:]
        while simple.lower() in taken:
            simple = f"{next(self._numbers)}-{simple[-100:]}"
        return self._home.path / simple

    def template_store(self, dialect: type[Dialect]) -> FileTemplates:
        """Return the store of templates, which all drivers share."""
        del dialect
        return self._templates

    def isolate(self, database: Database, content: Any, uses: Usage) -> Isolation:
        """Return the isolation of a database, which is always ``copy``."""
        del uses
        if self._config.isolation == "rollback":
            self._core.ledger.note(_ROLLBACK_IS_COPY)
        return Copy(Path(database.file), content, note=self._core.ledger.note)

    def target(self, database: Database) -> ConnectTarget:
        """Return the live file of a database."""
        number = 0
        if database.isolation is not None:
            number = database.isolation.generation
        # Each checkout calls this.
        generation = (database.born, number)
        target = self._targets.get(database)
        if target is None or target.generation != generation:
            target = ConnectTarget(database.key, database.file, generation)
            self._targets[database] = target
        return target

    def url(self, database: Database, driver: str) -> URL:
        """Return the URL of the live file."""
        name = f"sqlite+{driver}" if driver else "sqlite"
        return URL.create(name, database=database.file)

    def keep(self, database: Database, title: str) -> str:
        """Copy a database into the user's cache. Return the path."""
        file = kept_file(self._config.cache, title, Path(database.file).name)
        cast("Copy", database.isolation).save(file)
        return str(file)

    def shell(self, where: str) -> list[str]:
        """Return the words of the command that opens a database."""
        return ["sqlite3", where]

    def remove(self, database: Database) -> None:
        """Remove the live file, its side files and its snapshots."""
        self._targets.pop(database, None)
        if database.isolation is not None:
            database.isolation.close()
            sql.remove_file(Path(database.file))

    def close(self) -> str:
        """Remove the folder. Return "", because that takes no time."""
        self._home.close()
        return ""


def _too_old(version: str) -> IsolationError:
    """Return the error for an SQLite library that cannot copy a database into memory."""
    return IsolationError(
        f"SQLite {version} of this Python cannot copy a database into memory",
        why="pytest-arena keeps the content that it restores after a test in memory",
        cause="an SQLite before 3.36, or one that was built without sqlite3_serialize",
        fix="a Python with SQLite 3.36 or later:\n"
        'python -c "import sqlite3; print(sqlite3.sqlite_version)"',
    )
