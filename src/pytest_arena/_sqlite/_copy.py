"""``copy``: one SQLite file that stays where it is, restored in place from a picture."""

from __future__ import annotations

import os
import shutil
import weakref
from collections import Counter
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from pytest_arena import _clock
from pytest_arena._product import Held, nothing, to_nobody
from pytest_arena._sqlite import _names as names
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._content import changed_rows, content
from pytest_arena._sqlite._trial import works
from pytest_arena._sqlite._ways import (
    NEVER,
    Backup,
    Live,
    MemoryPicture,
    Pages,
    Picture,
    Unfit,
    Wal,
    whole_or_none,
)
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._sqlite._ways import Way
    from pytest_arena._values import TableRows

__all__ = ["Copy"]


_Answer = TypeVar("_Answer")
_PATIENCE, _STEP = 0.2, 0.002  # a commit is over in less
# A copy in memory costs 0.5 ms at this size. A larger file pays its log's length where it has one,
# and nothing where it has none: then nobody is told what it held, unless he asks for it.
_SMALL = 1024 * 1024


class Moment:
    """A point in time, and its data version, for whoever asks later what has changed since."""

    __slots__ = ("__weakref__", "picture", "version")

    def __init__(self, picture: Picture, version: int) -> None:
        self.picture, self.version = picture, version


class Copy:
    """The isolation for SQLite: connections, engines and other processes stay connected.

    A level remembers a picture of what stood when it was entered. Where nothing was written
    since the last picture, the level shares it. Else the file is brought back by the first of
    the ways that can, of which SQLite's online backup always can. ``fast`` ways are tried out
    before they are first used, once in each process; ``tell`` is told where one fails.

    Cost of enter + leave: about 40 µs where nothing was written. Else as the way says.
    """

    name = "copy"
    fast: tuple[type[Way], ...] = (Pages, Wal)

    def __init__(
        self, live: Path, base: Path | None, *, tell: Callable[[str], None] = to_nobody
    ) -> None:
        self.live = live
        self._folder = live.parent  # to make and hash a path anew costs some µs a test
        self.generation = 0
        self.restored: Counter[str] = Counter()  # how often by each way
        self._tell = tell
        self.check: Callable[[], None] = nothing
        self._levels: list[Picture] = []
        self._starts: list[Picture] = []  # what each level began with, that of no level first
        self._moments: weakref.WeakSet[Moment] = weakref.WeakSet()  # those that somebody still has
        self._moment: Moment | None = None  # the last one, until the file is brought back
        self._taken: list[Picture] = []  # those that are ours to remove
        self._owed: Picture | None = None  # what stands at the path still has to become this
        self._count = 0
        with self._telling():
            self._begin(base)

    @property
    def depth(self) -> int:
        """How many levels are open."""
        return len(self._levels)

    def _begin(self, base: Path | None) -> None:
        if base is not None:
            shutil.copyfile(base, self.live)
        self._open()
        self._first = Picture(base) if base else self._kept(self._backup.take())
        self._settle(self._first, sql.data_version(self._control))
        self._starts.append(self._first)

    def _open(self) -> None:
        self._live = Live.open(self.live, self._new_file)
        self._control = self._live.control if self._live else sql.open_control(self.live)
        sql.leave_wal_alone(self._control)
        self._backup = Backup(self._control, self._new_file)
        self._ways = [way(self._live) for way in self.fast] if self._live else []
        self._identity = _identity(self.live)

    def _new_file(self) -> Path:
        self._count += 1
        return self.live.with_name(f"{self.live.name}.level-{self._count}")

    def enter(self) -> None:
        """Open a level above the state that stands now."""
        with self._telling():
            self._mend()
            # First the number, then the picture: what is committed in between is in the picture
            # and moves the number, which costs a picture too many, and never one too few.
            version = sql.data_version(self._control)
            if version != self._version:
                self._take(version)
        self._levels.append(self._now)
        self._starts.append(self._now)

    def leave(self) -> bool:
        """Go back to the state at the matching ``enter``."""
        with self._telling():
            if not self._is_in_place():
                raise FileNotFoundError("its file was deleted or replaced")
            changed = self._restore(self._levels[-1])
        self.check()
        self._pop()
        self._owed = None
        self._remove_unused()
        return changed

    def leave_by_force(self) -> None:
        """Go back by putting a new file in the place of the one that is locked.

        Costs a file copy, and a new connection for everybody. Those that the gate does not know
        (of other processes, of ``sqlite3`` itself) go on with the old file, which has no name now.
        """
        self._owed = self._pop()
        with self._telling():
            self._put_in_place(self._owed)
        self._remove_unused()

    def _pop(self) -> Picture:
        self._starts.pop()
        return self._levels.pop()

    def _put_in_place(self, picture: Picture) -> None:
        with whole_or_none(self._new_file()) as file:
            # First what may fail: as long as the copy is not whole, nothing is given up for it.
            shutil.copyfile(picture.file(), file)
            self._close_live()
            for gone in names.side_files(self.live):
                gone.unlink(missing_ok=True)
            file.replace(self.live)
        self._reopen()
        self._settle(picture, sql.data_version(self._control))
        self._owed = None

    def _mend(self) -> None:
        """Go on with the file at the path, where it is not what it should be or another one."""
        if self._owed is not None:
            self._put_in_place(self._owed)
        elif not self._is_in_place():
            # A fixture that makes its database anew wants that one for the levels above it.
            self._close_live()
            self._reopen()

    def _reopen(self) -> None:
        self._open()
        self._stands_at(self._now, NEVER)
        self.generation += 1

    def _is_in_place(self) -> bool:
        return _identity(self.live) == self._identity

    def is_free(self) -> bool:
        """Whether nobody holds a lock that would keep the next test from writing."""
        try:
            with sql.alone(self._control):
                return True
        except sql.Busy:
            return False
        except sql.Failed:
            return True  # that is no lock, and leaving tells of it

    def is_untouched(self) -> bool:
        """Whether nothing was committed in the top level."""
        try:
            version = sql.data_version(self._control)
        except (sql.Busy, sql.Failed):
            return False
        return self._stands_at_top() and version == self._version

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level."""
        try:
            return self._stands_at_top() and self._version_unwritten() == self._version
        except (sql.Busy, sql.Failed):
            return False  # somebody is about to change it

    def _stands_at_top(self) -> bool:
        return self._now is self._levels[-1] and self._is_in_place() and self._owed is None

    def forget(self, *, is_undone: bool = False) -> None:  # noqa: ARG002 - nothing can be set back
        """Drop the top level, and keep what stands."""
        self._pop()
        self._remove_unused()

    def replace(self, file: Path | None) -> None:
        """Give the level that stands now another content."""
        source = sql.open_picture(file) if file else sql.open_memory()
        with closing(source), self._telling():
            version = self._version_unwritten()
            sql.copy_into(source, self._control)
            self._settle(self._kept(self._backup.take()), version)
        self._starts[-1] = self._now  # nobody in this level has written that

    def save(self, file: Path) -> None:
        """Copy what stands now into a file."""
        with self._telling():
            if self._is_in_place():
                sql.copy_to_file(self._control, file)
            else:
                sql.finish_file(self.live, file)

    def content(self) -> dict[str, str]:
        """Return digests of all that stands now, as a connection sees it that is new to it."""
        if not self.live.exists():
            return {}
        with self._telling(), closing(sql.open_control(self.live)) as connection:
            return content(connection)

    def moment(self, *, exact: bool = False) -> Moment | None:
        """Return this point in time, for ``rows_changed``; None where that is not cheap.

        Costs 7 µs where nobody has committed since the last one: it is the same one then. Else
        0.1 ms in a small file, 0.5 ms at a megabyte; beyond, 0.3 ms where there is a write-ahead
        log. ``exact`` is never None, and copies any file.

        Raises:
            IsolationError: exact, and the file is gone, or locked, or there is no room for a copy.
        """
        if exact:
            return self._read(lambda: self._moment_now(exact=True))
        with suppress(sql.Busy, sql.Failed, OSError):
            return self._moment_now(exact=False)
        return None

    def _moment_now(self, *, exact: bool) -> Moment | None:
        if not self._is_in_place():
            raise FileNotFoundError("its file was deleted or replaced")
        version = sql.data_version(self._control)  # first: see enter()
        if self._moment is None or self._moment.version != version:
            picture = self._now if version == self._version else self._picture_now(exact=exact)
            if picture is None:
                return None
            self._moment = Moment(picture, version)
            self._moments.add(self._moment)
            self._remove_unused()
        return self._moment

    def _picture_now(self, *, exact: bool) -> Picture | None:
        """Take a picture of what stands; None where that is not cheap, and need not be exact."""
        pages = self._control.number("PRAGMA page_count")
        if pages * self._control.number("PRAGMA page_size") <= _SMALL:
            return self._kept(MemoryPicture(self._control, self._new_file))
        for way in self._trusted():
            if way.has_wal or exact:
                with suppress(Unfit, OSError):
                    return self._kept(way.take())
        return self._kept(self._backup.take()) if exact else None

    def rows_changed(
        self,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the rows that were committed, net: in the top level, between two moments of it.

        ``depth`` says how many levels below: what that one had written when the next was entered;
        as many as there are levels is what was written before the first. Reads both states, in
        SQLite; what differs is Python's. The live file is never written to, nor any lock kept.

        Raises:
            IsolationError: the file is gone, or locked, or there is no room for a copy of it.
        """

        def compared() -> list[TableRows]:
            before = since.picture if isinstance(since, Moment) else self._starts[-1 - depth]
            after = until.picture if isinstance(until, Moment) else self._end_of(depth)
            if before is after:
                return []
            return changed_rows(before.file(), after.file(), limit=limit)

        return self._read(compared)

    def _read(self, ask: Callable[[], _Answer]) -> _Answer:
        """Ask until nobody is in the middle of a commit."""
        end = _clock.seconds() + _PATIENCE
        while True:
            try:
                with self._telling():
                    return ask()
            except Held as error:
                if _clock.seconds() > end:
                    raise IsolationError(
                        f"the database {self.live.stem!r} cannot be read now: {error}",
                        why="what a test has changed is read from the file",
                        cause="an open transaction has the file to itself",
                        fix="commit, or roll back, before asking what has changed",
                    ) from error
            _clock.rest(_STEP)

    def _end_of(self, depth: int) -> Picture:
        if depth:
            return self._levels[-depth]
        moment = self._moment_now(exact=True)
        return moment.picture if moment is not None else self._now

    def close(self) -> None:
        """Let go of the live file and of the pictures."""
        self._close_live()
        for picture in {*self._taken, *self._levels, self._now, self._first}:
            picture.close()

    def _close_live(self) -> None:
        if self._live is not None:
            self._live.close()
        self._control.close()

    def _stands_at(self, picture: Picture, version: int) -> None:
        self._moment = None  # what brought the file back need not have moved its data version
        self._now, self._version = picture, version

    def _settle(self, picture: Picture, version: int) -> None:
        """The file stands at a picture by SQLite's own doing; the fast ways go on from there."""
        for way in self._ways:
            way.settle(picture, version)
        self._stands_at(picture, version)

    def _version_unwritten(self) -> int:
        """Return the data version, when nobody has an open write transaction.

        The lock proves it, for all processes: a transaction that has not committed yet has not
        moved the number, and would commit into the next test.
        """
        with sql.writing(self._control):
            return sql.data_version(self._control)

    def _restore(self, picture: Picture) -> bool:
        # Own writes do not move the number. One taken before them makes somebody's commit after
        # the lock was given back count as a change, which one taken afterwards would hide.
        version = sql.data_version(self._control)
        if self._now is picture and version == self._version:
            version = self._version_unwritten()  # each way of bringing back has locks of its own
        clean = self._now is picture and version == self._version
        if not clean:
            self._bring_back(picture, version)
        return not clean

    def _bring_back(self, picture: Picture, version: int) -> None:
        for way in self._trusted():
            with suppress(Unfit, OSError):
                self._stands_at(picture, way.restore(picture, version))
                self.restored[way.name] += 1
                return
        self._settle(picture, self._backup.restore(picture, version))
        self.restored[self._backup.name] += 1

    def _take(self, version: int) -> None:
        for way in self._trusted():
            with suppress(Unfit, OSError):
                self._stands_at(self._kept(way.take()), version)
                return
        self._settle(self._kept(self._backup.take()), version)

    def _trusted(self) -> Iterator[Way]:
        """The fast ways that do on this system what they are meant to do."""
        for way in self._ways:
            passed = works(type(way), self._folder)
            if passed:
                yield way
            elif passed is False:
                self._tell(
                    f"{self.live.name}: the fast way {way.name!r} did not pass its trial on SQLite "
                    f"{sql.version()}; tests are undone by whole copies"
                )

    def _kept(self, picture: Picture) -> Picture:
        self._taken.append(picture)
        return picture

    def _remove_unused(self) -> None:
        """Remove the pictures of levels that are gone, unless others are made of them."""
        used: set[Picture] = set()
        pending = [self._now, self._owed, *self._levels, *self._starts]
        pending += [moment.picture for moment in self._moments]
        pending += [way.parent for way in self._ways]
        while pending:
            picture = pending.pop()
            if picture is not None and picture not in used:
                used.add(picture)
                pending.append(picture.parent)
        for picture in [picture for picture in self._taken if picture not in used]:
            self._taken.remove(picture)
            picture.remove()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sql.Busy as error:
            raise Held(str(error)) from error
        except (sql.Failed, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> IsolationError:
        full = sql.is_full(error)
        return IsolationError(
            f"the database {self.live.stem!r} cannot be read or written: {error}",
            why="each test starts on the database as it was before the test that ran last",
            cause=f"no more room in {self._folder}" if full else f"what was done to {self.live}",
            fix=f"df -h {self._folder}   # make room there, or have tests write less"
            if full
            else "leave the file where it is: `metadata.drop_all(engine)` empties it in place",
        )


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file is at a path now, None for no file. Costs a microsecond or two."""
    try:
        status = os.stat(file)  # noqa: PTH116 - asked at each boundary: a third of Path's time
    except OSError:
        return None
    return status.st_dev, status.st_ino
