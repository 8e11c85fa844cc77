"""Refuses to let the user's code write, rename or remove the files of SQLite databases."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import FILE_FORMAT, FILES
from pytest_arena._interpreter import on_audit_events
from pytest_arena._origin import cause_of_connection, is_called_by_user, is_own
from pytest_arena.errors import ProductionDatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._product import Core

    CurrentCore = Callable[[], Core]

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_WRITING = os.O_WRONLY | os.O_RDWR
# By path: whether this process created the file or folder. A path without an entry has the value of
# its nearest known folder. The times of a file do not show who created it.
_created: dict[str, bool] = {}


def watch_files(core: CurrentCore) -> None:
    """Watch database files until the process ends.

    An audit hook is called before the system call, and can refuse it. No code can remove the hook:
    https://docs.python.org/3/library/sys.html#sys.addaudithook. The watch begins before the import
    of SQLite's driver, because a conftest may remove a file earlier.
    """
    on_audit_events(
        {
            "open": partial(_admit_open, core),
            "os.remove": partial(_admit_removal, core),
            "os.rename": partial(_admit_renaming, core),
            "os.mkdir": _note_creation,
            FILE_FORMAT.opening: _note_creation,
        }
    )


def _admit_open(
    core: CurrentCore, name: Any, _mode: object = None, flags: int = 0
) -> None:
    """Refuse to write a database file that is not the test's. Costs 0.2 µs."""
    if not flags & _WRITING or isinstance(name, int) or is_own():
        return
    _note_creation(name)
    file = os.path.realpath(os.fsdecode(name))
    _admit_change(core(), file, f"writing {file}")


def _note_creation(name: object, _mode: int = 0, folder: int = -1) -> None:
    """Note that this process creates a file or folder, if it does not exist yet."""
    entry = _entry(name, folder)
    if not os.path.lexists(entry):
        _created[entry] = True


def _is_created_here(file: str) -> bool:
    """Return whether this process created a file, or else its nearest known folder."""
    path = Path(file)
    for place in (path, *path.parents):
        is_created = _created.get(str(place))
        if is_created is not None:
            return is_created
    return False


def _admit_removal(core: CurrentCore, name: object, folder: int = -1) -> None:
    """Refuse to let the user's code remove a database file, if the file exists."""
    file = _entry(name, folder)
    _admit_loss(core(), file, f"removing {file}")


def _admit_renaming(
    core: CurrentCore,
    old: object,
    new: object,
    old_folder: int = -1,
    new_folder: int = -1,
) -> None:
    """Refuse to let the user's code rename a database file, or overwrite it by a renamed file."""
    source = _entry(old, old_folder)
    target = _entry(new, new_folder)
    now = core()
    _admit_loss(now, source, f"renaming {source}")
    if not _is_created_here(target):
        _admit_change(now, target, f"renaming {source} to {target}")
    _created[target] = _is_created_here(source) and not Path(target).is_dir()


def _admit_loss(core: Core, file: str, action: str) -> None:
    """Refuse to remove or rename a database or its folder, unless this process created it."""
    below = core.files.find_below(file)
    if _is_created_here(file):
        core.files.note_removal(below or file)
    elif below and is_called_by_user():
        raise core.ledger.refused(_changed_file(below, action))
    else:
        _admit_change(core, file, action, exists=os.path.lexists(file))


def _admit_change(core: Core, file: str, action: str, *, exists: bool = True) -> None:
    database = _without_log(file)
    if core.ledger.test and exists and core.files.is_replaced(database):
        raise core.ledger.refused(_changed_file(database, action))
    _admit_change_of_old(core, database, action)


def _admit_change_of_old(core: Core, database: str, action: str) -> None:
    """Refuse a change of a database file that is older than the run, by the user's code.

    An engine may name the file later. Once an engine of the app is known, a test may change other
    files, such as backups: the run fails if an engine names such a file later. Libraries may change
    files: pytest-cov removes the old ``.coverage``, pytest the temporary folders of earlier runs.
    """
    is_older = core.files.is_of_earlier_run(database) and is_called_by_user()
    if is_older and core.ledger.test and core.files.of_app:
        core.files.register_opened(database)
    elif is_older:
        error = ProductionDatabaseError(
            f"refused: {action}: {database} is an {FILES.shown} database that is older "
            "than this run",
            why="it may have the developer's data. The tests do not need the file, because each "
            "test has a separate database",
            cause=cause_of_connection(),
            fix="delete the line. If the file is a leftover, remove it by hand. If tests may "
            f"change this file:\narena_allow = {database}",
        )
        raise core.ledger.refused(error)


def _without_log(file: str) -> str:
    for suffix in FILE_FORMAT.logs:
        file = file.removesuffix(suffix)
    return file


def _entry(name: Any, folder: int) -> str:
    """Return the absolute path of an entry of a folder. Do not follow the entry if it is a link.

    ``shutil.rmtree`` names a file relative to the number of an open folder, whose path Linux shows.
    """
    path = Path(os.fsdecode(name))
    if folder >= 0:
        with suppress(OSError):
            path = Path(f"/proc/self/fd/{folder}").readlink() / path
    try:
        path = path.absolute()
    except FileNotFoundError:  # the working folder was removed
        return str(path)
    # `Path.resolve` raises a RuntimeError for a loop of links on some versions of Python.
    return str(Path(os.path.realpath(path.parent), path.name))


def _changed_file(file: str, action: str) -> ProductionDatabaseError:
    """Return the error for a file of the app that a test removes, renames or writes."""
    return ProductionDatabaseError(
        f"refused: {action}: {file} is a database file of the app",
        why="the test's database is in another file. This file has the app's data",
        cause=cause_of_connection(),
        fix="delete the line: each test starts with a fresh database. If tests may change this "
        f"file:\narena_allow = {file}",
    )
