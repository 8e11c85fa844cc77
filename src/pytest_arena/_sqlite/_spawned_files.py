"""Connections of processes that multiprocessing spawns."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, wraps
from types import ModuleType
from typing import Any

from pytest_arena._interpreter import when_imported
from pytest_arena._process import send_to_spawned


@dataclass(frozen=True, slots=True)
class SpawnedFiles:
    """Redirects the connections of the process that unpickles this object.

    ``files`` maps the real path of each database file of the app to the test's file.
    """

    files: Mapping[str, str]

    def __reduce__(self) -> tuple[object, ...]:
        """Return the call that unpickling makes in the new process."""
        return install, (self.files,)


def install(files: Mapping[str, str]) -> SpawnedFiles:
    """Redirect the connections of this process, and of processes that it spawns."""
    spawned = SpawnedFiles(files)
    when_imported("sqlite3", partial(_replace_connect, files))
    send_to_spawned(lambda: [spawned])
    return spawned


def _replace_connect(files: Mapping[str, str], module: ModuleType) -> None:
    """Make ``sqlite3.connect`` open the test's files in place of the app's."""
    from pytest_arena._sqlite import _sql as sql  # noqa: PLC0415 - most spawned processes need no database

    connect: Any = vars(module)["connect"]

    @wraps(connect)
    def connect_to_test(database: Any, *args: object, **kwargs: object) -> object:
        name = os.fsdecode(database)
        uri = bool(kwargs.get("uri"))
        file = sql.file_of(name, uri=uri)
        real_path = os.path.realpath(file)
        if file and real_path in files:
            database = sql.renamed(name, files[real_path], uri=uri)
        return connect(database, *args, **kwargs)

    vars(module)["connect"] = connect_to_test
    vars(vars(module)["dbapi2"])["connect"] = connect_to_test
