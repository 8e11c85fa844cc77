"""Refuses to let the user's code open, change or remove the files of SQLite databases."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._origin import is_called_by_user, who_connects
from pytest_arena._process import on_audit_events
from pytest_arena.errors import ProductionDatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._product import Core

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_LOGS = ("-wal", "-journal")  # SQLite keeps the latest writes in a log beside the file
_WRITING = os.O_WRONLY | os.O_RDWR


def watch_files(core: Callable[[], Core]) -> None:
    """Watch database files until the process ends.

    An audit hook sees a call before the system does it, and can refuse it. No code can remove the
    hook: https://docs.python.org/3/library/sys.html#sys.addaudithook. This starts before SQLite's
    driver is imported, because a conftest may remove a file first.
    """
    on_audit_events(
        {
            "open": partial(_admit_open, core),
            "os.remove": partial(_admit_removal, core),
            "os.rename": partial(_admit_renaming, core),
            "os.truncate": partial(_admit_truncation, core),
        }
    )


def _admit_open(
    core: Callable[[], Core], name: object, _mode: object = None, flags: int = 0
) -> None:
    """Refuse to let a test open a database file of the app by its path. Costs 2 µs.

    The test's database is another file: the app would read or overwrite the developer's file.
    """
    if not isinstance(name, str | bytes | os.PathLike):
        return
    now = core()
    file = os.fsdecode(name)
    if now.ledger.test:
        has_name = file.endswith(now.files.names)
        is_of_app = has_name and now.files.is_replaced(os.path.realpath(file))
        if is_of_app or now.files.is_link_into_app(file):
            raise now.ledger.refused(_opened_file(file))
    if flags & _WRITING:
        _admit_change_of_old(now, os.path.realpath(file), f"writing {file}")


def _admit_removal(
    core: Callable[[], Core], name: object, folder: int = -1, *_: object
) -> None:
    """Refuse to let the user's code remove a database file. A file must be there.

    A fixture may remove an empty file that ``tempfile`` has made for its engine.
    """
    file = _entry(name, folder)
    now = core()
    if not now.files.give_up_empty(file):
        _admit_change(now, file, f"removing {file}", is_there=os.path.lexists(file))


def _admit_renaming(
    core: Callable[[], Core],
    old: object,
    new: object,
    old_folder: int = -1,
    new_folder: int = -1,
) -> None:
    """Refuse to let the user's code rename a database file, or put another in its place."""
    source = _entry(old, old_folder)
    target = _entry(new, new_folder)
    now = core()
    below = now.files.find_below(source)
    if below and is_called_by_user():
        raise now.ledger.refused(_changed_file(below, f"renaming {source}"))
    _admit_change(now, source, f"renaming {source}", is_there=os.path.lexists(source))
    _admit_change(now, target, f"renaming {source} to {target}")


def _admit_truncation(core: Callable[[], Core], name: Any, *_: object) -> None:
    """Refuse to let the user's code truncate a database file."""
    if isinstance(name, int):
        return  # the number of an open file: `_admit_open` has seen its path
    file = os.path.realpath(os.fsdecode(name))
    now = core()
    is_there = Path(file).is_file()
    if now.ledger.test and is_there and now.files.is_link_into_app(file):
        raise now.ledger.refused(_changed_file(file, f"truncating {file}"))
    _admit_change(now, file, f"truncating {file}", is_there=is_there)


def _admit_change(core: Core, file: str, action: str, *, is_there: bool = True) -> None:
    database = _without_log(file)
    if (
        core.ledger.test
        and is_there
        and database.endswith(core.files.names)
        and core.files.is_replaced(database)
    ):
        raise core.ledger.refused(_changed_file(database, action))
    _admit_change_of_old(core, database, action)


def _admit_change_of_old(core: Core, database: str, action: str) -> None:
    """Refuse a change of a database that was there before the run, by the user's code.

    An engine may name the file later. In a test of an app whose engine is known, another file is
    the app's business: a backup, for instance. A library may change its own file: pytest-cov
    removes the old ``.coverage``, pytest the temporary folders of earlier runs.
    """
    if core.ledger.test and core.files.names:
        return
    if core.files.is_of_earlier_run(database) and is_called_by_user():
        raise core.ledger.refused(_old_file(database, action))


def _without_log(file: str) -> str:
    for suffix in _LOGS:
        file = file.removesuffix(suffix)
    return file


def _entry(name: Any, folder: int) -> str:
    """Return the path of an entry of a folder. An entry that is a link is not followed.

    ``shutil.rmtree`` names a file by an open folder. Linux knows the path of that.
    """
    path = Path(os.fsdecode(name))
    if folder >= 0:
        with suppress(OSError):
            path = Path(f"/proc/self/fd/{folder}").readlink() / path
    return str(path.absolute().parent.resolve() / path.name)


def _opened_file(file: str) -> ProductionDatabaseError:
    """Return the error for a file of the app that a test opens by its path, as shutil.copy does."""
    return ProductionDatabaseError(
        f"refused: opening {file}, a database file of the app, by its path",
        why="the test's database is in another file. This file has the app's data, or does not "
        "exist",
        cause=who_connects(),
        fix="copy the database by a connection of the engine: VACUUM INTO 'copy.db'. Or set the "
        "app's path to make_url(arena.url).database in a fixture. If tests may open this file:\n"
        f"arena_allow = {file}",
    )


def _changed_file(file: str, action: str) -> ProductionDatabaseError:
    """Return the error for a file of the app that a test removes, renames or truncates."""
    return ProductionDatabaseError(
        f"refused: {action}: {file} is a database file of the app",
        why="the test's database is in another file. This file has the app's data",
        cause=who_connects(),
        fix="delete the line: each test starts with a fresh database. If tests may change this "
        f"file:\narena_allow = {file}",
    )


def _old_file(file: str, action: str) -> ProductionDatabaseError:
    """Return the error for a change of a database that is older than this run."""
    return ProductionDatabaseError(
        f"refused: {action}: {file} is an SQLite database that is older than this run",
        why="it may have the developer's data. The app's tests do not need it: each one has a "
        "separate database",
        cause=who_connects(),
        fix="delete the line. If the file is a leftover, remove it by hand. If tests may change "
        f"this file:\narena_allow = {file}",
    )
