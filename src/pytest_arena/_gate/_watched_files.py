"""Refuses to let the user's code open, change or remove the files of SQLite databases."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import FILE_FORMAT, FILES
from pytest_arena._origin import is_called_by_user, is_own, who_connects
from pytest_arena._process import on_audit_events
from pytest_arena.errors import ProductionDatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._product import Core

    CurrentCore = Callable[[], Core]

__tracebackhide__ = True  # a traceback ends at a line of the app or of the test

_WRITING = os.O_WRONLY | os.O_RDWR
# Whether this process created a file or folder, by its path. The times of a file do not show it.
# A path without an entry has the value of its folder.
_created: dict[str, bool] = {}


def watch_files(core: CurrentCore) -> None:
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
            "os.link": partial(_admit_link, core),
            "os.mkdir": _note_creation,
            FILE_FORMAT.opening: _note_creation,
            "os.truncate": partial(_admit_setting, core, "truncating"),
            "os.chmod": partial(_admit_setting, core, "changing the mode of"),
            "os.utime": partial(_admit_setting, core, "changing the times of"),
        }
    )


def _admit_open(
    core: CurrentCore, name: object, _mode: object = None, flags: int = 0
) -> None:
    """Refuse to let a test open a database file of the app by its path. Costs 2 µs.

    The test's database is another file: the app would read or overwrite the developer's file.
    """
    if not isinstance(name, str | bytes | os.PathLike) or is_own():
        return
    now = core()
    file = os.fsdecode(name)
    if now.ledger.test:
        database = _without_log(file)
        has_name = database.endswith(now.files.names)
        is_of_app = has_name and now.files.is_replaced(os.path.realpath(database))
        if is_of_app or now.files.is_link_into_app(file):
            # shutil.copy opens a file by its path, for example.
            error = ProductionDatabaseError(
                f"refused: opening {file}, a database file of the app, by its path",
                why="the test's database is in another file. This file has the app's data, or "
                "does not exist",
                cause=who_connects(),
                fix="copy the database by a connection of the engine: VACUUM INTO 'copy.db'. Or "
                "set the app's path to make_url(arena.url).database in a fixture. If tests may "
                f"open this file:\narena_allow = {file}",
            )
            raise now.ledger.refused(error)
    if flags & _WRITING:
        _note_creation(name)
        _admit_change_of_old(now, os.path.realpath(file), f"writing {file}")


def _note_creation(name: object, _mode: int = 0, folder: int = -1) -> None:
    """Note that the call creates a file or folder, if it does not exist yet."""
    entry = _entry(name, folder)
    if not os.path.lexists(entry):
        _created[entry] = True


def _is_created_here(file: str) -> bool:
    """Whether this process created a file, or the nearest folder around it that is known."""
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
    """Refuse to let the user's code rename a database file, or put another in its place."""
    source = _entry(old, old_folder)
    target = _entry(new, new_folder)
    now = core()
    _admit_loss(now, source, f"renaming {source}")
    if not _is_created_here(target):
        _admit_change(now, target, f"renaming {source} to {target}")
    _created[target] = _is_created_here(source) and not Path(target).is_dir()


def _admit_link(core: CurrentCore, name: object, *_: object) -> None:
    """Refuse to let the user's code give a database file another name, which hides changes."""
    file = _entry(name, -1)
    _admit_change_of_old(core(), file, f"linking {file}")


def _admit_loss(core: Core, file: str, action: str) -> None:
    """Refuse to remove or rename a database or its folder, unless this process created it."""
    below = core.files.find_below(file)
    if _is_created_here(file):
        core.files.note_removal(below or file)
    elif below and is_called_by_user():
        raise core.ledger.refused(_changed_file(below, action))
    else:
        _admit_change(core, file, action, is_there=os.path.lexists(file))


def _admit_setting(core: CurrentCore, action: str, name: Any, *_: object) -> None:
    """Refuse to let the user's code set the size, the mode or the times of a database file."""
    if isinstance(name, int):
        return  # the number of an open file: `_admit_open` has seen its path
    file = os.path.realpath(os.fsdecode(name))
    now = core()
    is_there = Path(file).is_file()
    if now.ledger.test and is_there and now.files.is_link_into_app(file):
        raise now.ledger.refused(_changed_file(file, f"{action} {file}"))
    _admit_change(now, file, f"{action} {file}", is_there=is_there)


def _admit_change(core: Core, file: str, action: str, *, is_there: bool = True) -> None:
    database = _without_log(file)
    if core.ledger.test and is_there and core.files.is_replaced(database):
        raise core.ledger.refused(_changed_file(database, action))
    _admit_change_of_old(core, database, action)


def _admit_change_of_old(core: Core, database: str, action: str) -> None:
    """Refuse a change, by the user's code, of a database that is older than the run.

    An engine may name the file later. If an engine of the app is known, a test may change other
    files, such as backups. The change fails the run if an engine names the file later. A library
    may change its files: pytest-cov removes the old ``.coverage``, pytest the temporary folders of
    earlier runs.
    """
    is_older = core.files.is_of_earlier_run(database) and is_called_by_user()
    if is_older and core.ledger.test and core.files.names:
        core.files.register_opened(database)
    elif is_older:
        error = ProductionDatabaseError(
            f"refused: {action}: {database} is an {FILES.shown} database that is older "
            "than this run",
            why="it may have the developer's data. The tests do not need the file, because each "
            "test has a separate database",
            cause=who_connects(),
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

    ``shutil.rmtree`` names a file by an open folder. Linux shows the path of an open folder.
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
    """Return the error for a file of the app that a test removes, renames or changes."""
    return ProductionDatabaseError(
        f"refused: {action}: {file} is a database file of the app",
        why="the test's database is in another file. This file has the app's data",
        cause=who_connects(),
        fix="delete the line: each test starts with a fresh database. If tests may change this "
        f"file:\narena_allow = {file}",
    )
