"""Does a way do what it is meant to do, with this SQLite and on this file system?"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._trial_sql import Scratch
from pytest_arena._sqlite.ways import Backup, Live, Unfit

if TYPE_CHECKING:
    from pytest_arena._sqlite._trial_sql import States
    from pytest_arena._sqlite.ways import Picture, Way

__all__ = ["works"]


def works(way: type[Way], folder: Path) -> bool | None:
    """Try a way out in a scratch file, once for each folder. Costs some milliseconds.

    Fast ways rest on what SQLite's files hold, which is documented, and on when its connections
    look at them again, which is not. So it is looked at, before it is relied on. None where
    there is no room for that now: it is tried again the next time.
    """
    try:
        return _tried(way, folder)
    except _NoRoom:
        return None


class _NoRoom(Exception):
    """The disk is full, which says nothing of a way."""


@cache
def _tried(way: type[Way], folder: Path) -> bool:
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="trial-") as scratch:
            return _passes(way, Path(scratch) / "trial.db")
    except Exception as error:
        if sql.is_full(error):
            raise _NoRoom from error  # not to be remembered
        return False  # whatever it is, this way is not for this system


def _passes(way: type[Way], file: Path) -> bool:
    with ExitStack() as stack:
        scratch = Scratch(file, has_wal=way.has_wal)
        stack.callback(scratch.close)
        numbers = count()
        live = Live.open(file, partial(_numbered, file, numbers))
        if live is None:
            return False
        stack.callback(live.close)
        return _undoes(way(live), live, scratch)


def _numbered(file: Path, numbers: count[int]) -> Path:
    return file.with_name(f"{file.name}.level-{next(numbers)}")


def _undoes(way: Way, live: Live, scratch: Scratch) -> bool:
    before, parent = scratch.states(), Backup(live.control, live.new_file).take()
    way.settle(parent, sql.data_version(live.control))
    scratch.change()
    middle, upper = scratch.states(), way.take()
    return (
        _goes_back(way, live, scratch, (upper, middle))
        and _waits_for_readers(way, live, scratch, upper)
        and _goes_back(way, live, scratch, (parent, before))
        and scratch.is_sound()
    )


def _goes_back(way: Way, live: Live, scratch: Scratch, to: tuple[Picture, States]) -> bool:
    """Go back three times. One connection sleeps through each, and looks after each change.

    What a way puts back wrongly is seen where a number comes again that stood for something else:
    in the third turn, at the latest.
    """
    for _ in range(3):
        scratch.change()
        first, second = scratch.states()
        if first != second or first == to[1][0]:
            return False
        way.restore(to[0], sql.data_version(live.control))
    return scratch.states() == to[1]


def _waits_for_readers(way: Way, live: Live, scratch: Scratch, picture: Picture) -> bool:
    scratch.change()
    with scratch.reader():
        try:
            way.restore(picture, sql.data_version(live.control))
        except (sql.Busy, Unfit):
            return True
    return False
