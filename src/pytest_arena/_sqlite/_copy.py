"""``copy``: one SQLite file that stays where it is, restored in place from a picture."""

from __future__ import annotations

import shutil
import sqlite3
import weakref
from collections import Counter
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_arena import _process
from pytest_arena._product import Held, to_nobody
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite import _ways as ways
from pytest_arena._sqlite._content import Moment, changed_rows, content
from pytest_arena._sqlite._wal import Wal
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_arena._values import TableRows

_Answer = TypeVar("_Answer")
_PATIENCE, _STEP = 0.2, 0.002  # a commit is over in less


class Copy:
    """The isolation for SQLite: connections, engines and other processes stay connected.

    A level remembers a picture of what stood when it was entered. Where nothing was written
    since the last picture, the level shares it. Else the file is brought back by the first of
    the ways that can, of which SQLite's online backup always can. ``fast`` ways are tried out
    before they are first used, once in each process; ``tell`` is told where one fails.

    Cost of enter + leave: about 40 µs where nothing was written, 5 where nobody has used it. Else
    as the way says.
    """

    name = "copy"
    fast: tuple[type[ways.Way], ...] = (ways.Pages, Wal)

    def __init__(
        self, live: Path, base: Path | None, *, tell: Callable[[str], None] = to_nobody
    ) -> None:
        self.live = live
        self.check: Callable[[], None] | None = None
        # Those that somebody still has; to walk a `WeakSet` would cost ten times as much.
        self._moments: weakref.WeakKeyDictionary[Moment, None] = (
            weakref.WeakKeyDictionary()
        )
        self._moment: Moment | None = None  # the last one
        self._owed: ways.Picture | None = (
            None  # what stands at the path still has to become this
        )
        self.restored: Counter[str] = Counter()  # how often by each way
        # A file that nobody has made yet is opened when somebody asks for what stands in it: most
        # of those in the place of memory end with their tests before that.
        is_there = base is not None or sql.identity(live) is not None
        nothing = None if is_there else ways.Picture(sql.write_nothing(live.parent))
        self._open = partial(
            Restorer, live, base or nothing, self.fast, tell, self.restored
        )
        self._opened: Restorer | None = None
        self._onlooker: ways.Onlooker | None = None  # until then
        self._missed = (
            0  # how often it was not there: who is connected has one that was deleted
        )
        self._levels: list[ways.Picture] = []
        # What each level began with, that of no level first. To enter or to leave one is a single
        # step, which nobody breaks in: there may be one too many here.
        with self._telling():
            self._starts = [nothing or self._file.first]

    @property
    def depth(self) -> int:
        """How many levels are open."""
        return len(self._levels)

    @property
    def generation(self) -> int:
        """How often the file was opened again."""
        return self._missed + (self._opened.generation if self._opened else 0)

    @property
    def _file(self) -> Restorer:
        self._opened = self._opened or self._open()
        return self._opened

    @property
    def _seen_from(self) -> Restorer | ways.Onlooker:
        """From where it is seen: from outside, as long as nobody asks for more."""
        if self._opened is None and ways.is_supported():
            if self._onlooker is None:
                with suppress(FileNotFoundError):
                    self._onlooker = ways.Onlooker(self.live)
            if self._onlooker is not None and self._onlooker.sees():
                return self._onlooker
        return self._opened or self._file

    @property
    def _is_nothing(self) -> bool:
        """Whether nobody has ever opened the file, not even this."""
        return self._opened is None and sql.identity(self.live) is None

    def enter(self) -> None:
        """Open a level above the state that stands now."""
        with self._telling():
            is_nothing = self._is_nothing
            self._missed += is_nothing
            if self._owed is not None:
                self._file.put_in_place(self._owed)
                self._owed = None
            elif not is_nothing and self._file.live_file.is_replaced():
                # A fixture that makes its database anew wants that one for the levels above it.
                self._file.reopen()
            if is_nothing:
                picture = self._starts[0]
            else:
                try:
                    self._file.live_file.check_log()
                    picture = self._file.take()
                except FileNotFoundError:
                    self._owed = self._file.now  # the next level begins with a new file
                    raise
        self._starts[self.depth + 1 :] = [picture]
        self._levels.append(picture)

    def leave(self) -> bool:
        """Go back to the state at the matching ``enter``."""
        with self._telling():
            if is_there := not self._is_nothing:
                self._file.check_place()
            self._missed += not is_there
            # The journal mode goes back with a new file: of an open one nobody could change it.
            if is_switched := str(self.live) in sql.switched:
                sql.switched.discard(str(self.live))
                self._file.put_in_place(self._levels[-1])
            changed = is_switched or (is_there and self._file.restore(self._levels[-1]))
        if self.check is not None:
            self.check()
        self._owed = None
        self.forget()
        return changed

    def leave_by_force(self) -> None:
        """Go back by putting a new file in the place of the one that is locked.

        Costs a file copy, and a new connection for everybody. Those that the gate does not know
        (of other processes, of ``sqlite3`` itself) go on with the old file, which has no name now.
        """
        owed = self._owed = self._levels.pop()
        with self._telling():
            if (
                self._opened is None
            ):  # the lock that is in the way would keep this out as well
                sql.remove_file(self.live)
            self._file.put_in_place(owed)
        self._owed = None
        self._remove_unused()

    def is_free(self) -> bool:
        """Whether nobody holds a lock that would keep the next test from writing."""
        try:
            with self._file.control.alone():
                return True
        except sql.Busy:
            return False
        except sql.FileFailure:
            return True  # that is no lock, and leaving tells of it

    def is_untouched(self) -> bool:
        """Whether nothing was committed in the top level."""
        return self._stands_at_top(lambda file: file.control.data_version())

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level, nor is about to be."""
        return self._stands_at_top(Restorer.unwritten_version)

    def _stands_at_top(self, version: Callable[[Restorer], int]) -> bool:
        if self._is_nothing:
            return True
        try:
            file = self._file
            is_there = file.is_at(self._levels[-1]) and self._owed is None
            return (
                is_there
                and file.live_file.is_in_place()
                and version(file) == file.version
            )
        except (sql.Busy, sql.FileFailure):
            return False  # somebody is about to change it

    def forget(self, *, is_undone: bool = False) -> None:  # noqa: ARG002 - nothing can be set back
        """Drop the top level, and keep what stands."""
        self._levels.pop()
        self._remove_unused()

    def replace(self, file: Path | None) -> None:
        """Give the level that stands now another content."""
        source = sql.open_picture(file) if file else sql.open_memory()
        with closing(source), self._telling():
            self._file.overwrite(source)
        self._starts[self.depth] = (
            self._file.now
        )  # nobody in this level has written that

    def save(self, file: Path) -> None:
        """Copy what stands now into a file."""
        with self._telling():
            sql.finish_file(self.live, file)

    def content(self) -> dict[str, str]:
        """Return digests of all that stands now, as a connection sees it that is new to it."""
        with self._telling():
            file = self._starts[0].file() if self._is_nothing else self.live
            return content(file) if file.exists() else {}

    def moment(self, *, exact: bool = False) -> Moment | None:
        """Return this point in time, for ``rows_changed``; None where that is not cheap.

        Costs 7 µs where nobody has committed since the last one: it is the same one then. Else
        0.2 ms where there is a write-ahead log. A small file without is read into memory, up to a
        megabyte in 0.3 ms; a larger one is None. ``exact`` is never None, and copies any file.

        Raises:
            IsolationError: exact, and the file is gone, or locked, or there is no room for a copy.
        """
        if exact:
            return self._read(lambda: self._moment_now(exact=True))
        try:  # `suppress` would cost as much as half of the rest
            return self._moment_now(exact=False)
        except (sql.Busy, sql.FileFailure, OSError):
            return None

    def _moment_now(self, *, exact: bool) -> Moment | None:
        file = self._file if exact else self._seen_from
        file.check_place()
        at = file.turn, file.control.data_version()  # first: see Restorer.take()
        if self._moment is None or self._moment.at != at:
            picture = file.glance(at[1], exact=exact)
            if picture is None:
                return None
            self._moment = Moment(picture, at)
            self._moments[self._moment] = None
            self._remove_unused()
        return self._moment

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
            start = self._starts[self.depth - depth]
            before = since.picture if isinstance(since, Moment) else start
            end = until if until or depth else self._moment_now(exact=True)
            after = end.picture if isinstance(end, Moment) else self._levels[-depth]
            if before is after:
                return []
            return changed_rows(before.file(), after.file(), limit=limit)

        return self._read(compared)

    def _read(self, ask: Callable[[], _Answer]) -> _Answer:
        """Ask until nobody is in the middle of a commit."""
        end = _process.seconds() + _PATIENCE
        while True:
            try:
                with self._telling():
                    return ask()
            except Held as error:
                if _process.seconds() > end:
                    raise IsolationError(
                        f"the database {self.live.stem!r} cannot be read now: {error}",
                        why="what a test has changed is read from the file",
                        cause="an open transaction has the file to itself",
                        fix="commit, or roll back, before asking what has changed",
                    ) from error
            _process.rest(_STEP)

    def close(self) -> None:
        """Let go of the live file and of the pictures."""
        onlooker, self._onlooker = self._onlooker, None
        if onlooker is not None:
            onlooker.close()
        if self._opened is not None:
            self._opened.close()

    def _remove_unused(self) -> None:
        """Remove the pictures of levels and moments that are gone."""
        if self._opened is None:
            return
        del self._starts[self.depth + 1 :]
        moments = [one.picture for known in self._moments.keyrefs() if (one := known())]
        self._opened.remove_unused([self._owed, *self._levels, *self._starts, *moments])

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sql.Busy as error:
            raise Held(str(error)) from error
        except (sql.FileFailure, OSError) as error:
            raise messages.lost(self.live, error, is_full=sql.is_full(error)) from error


class Restorer:
    """Takes pictures of a live file, and brings it back to them.

    At the data version ``version`` it stands at the picture ``now``; ``turn`` counts how often
    that was settled, ``generation`` how often the file was opened again. All methods raise
    ``Busy``, ``FileFailure`` and ``OSError``.
    """

    def __init__(
        self,
        live: Path,
        start: Path | ways.Picture | None,
        fast: tuple[type[ways.Way], ...],
        tell: Callable[[str], None],
        restored: Counter[str],
    ) -> None:
        self.live, self._fast, self._tell, self.restored = live, fast, tell, restored
        self._taken: list[ways.Picture] = []  # those that are ours to remove
        self._proven: set[str] = set()  # ways that have passed their trials
        self.turn = self.generation = 0
        if isinstance(start, Path):
            shutil.copyfile(start, live)
        self._open()
        if isinstance(start, ways.Picture):  # by now somebody may have written
            self.first = start
            self._stands_at(start, ways.NEVER)
            return
        self.first = ways.Picture(start) if start else self._kept(self._backup.take())
        self._settle(self.first, self.control.data_version())

    def _open(self) -> None:
        self.live_file = ways.LiveFile(self.live)
        self.control = self.live_file.control
        sql.leave_wal_alone(self.control)
        self._backup = ways.Backup(self.live_file)
        self._ways = (
            [way(self.live_file) for way in self._fast] if ways.is_supported() else []
        )

    def close(self) -> None:
        """Let go of the file, and remove its pictures."""
        self.live_file.close()
        for picture in self._taken:
            picture.remove()

    def reopen(self) -> None:
        """Go on with the file that is at the path now."""
        self.live_file.close()
        self._open()
        self._stands_at(self.now, ways.NEVER)
        self.generation += 1

    def check_place(self) -> None:
        """Raise ``FileNotFoundError`` where the file or its log is not the one that was opened."""
        if self.live_file.is_replaced():
            raise FileNotFoundError("its file was deleted or replaced")
        self.live_file.check_log()

    def is_at(self, picture: ways.Picture) -> bool:
        """Return whether the file had this content last, and only commits wrote to it since."""
        for way in self._ways:
            if way.is_written_past_log():
                return False
        return self.now is picture

    def unwritten_version(self) -> int:
        """Return the data version, when nobody has an open write transaction.

        The lock proves it, for all processes: a transaction that has not committed yet has not
        moved the number, and would commit into the next test.
        """
        with self.control.writing():
            return self.control.data_version()

    def take(self) -> ways.Picture:
        """Return a picture of what stands, which is the last one if nobody has committed since."""
        # First the number, then the picture: what is committed in between is in the picture and
        # moves the number, which costs a picture too many, and never one too few.
        version = self.control.data_version()
        if version == self.version and self.is_at(self.now):
            return self.now
        self.live_file.keep_log()
        for way in self._trusted():
            with suppress(ways.Unfit, OSError):
                self._stands_at(self._kept(way.take()), version)
                return self.now
        self._settle(self._kept(self._backup.take()), version)
        return self.now

    def glance(self, version: int, *, exact: bool) -> ways.Picture | None:
        """Return a picture of what stands, by which nothing is to be brought back.

        None where that is not cheap, and need not be exact.
        """
        if version == self.version:
            return self.now
        is_cheap = exact or self.live.stat().st_size <= ways.SMALL
        for way in self._trusted():
            if way.has_wal or is_cheap:
                with suppress(ways.Unfit, OSError):
                    return self._kept(way.take() if exact else way.glance())
        return self._kept(self._backup.take()) if is_cheap else None

    def restore(self, picture: ways.Picture) -> bool:
        """Bring the file back to a picture. Returns whether there was a change."""
        # Own writes do not move the number. One taken before them makes somebody's commit after
        # the lock was given back count as a change, which one taken afterwards would hide.
        version = self.control.data_version()
        if self.is_at(picture) and version == self.version:
            version = (
                self.unwritten_version()
            )  # each way of bringing back has locks of its own
            if version == self.version:
                return False
        self.live_file.keep_log()
        for way in self._trusted():
            with suppress(ways.Unfit, OSError):
                self._stands_at(picture, way.restore(picture, version))
                self.restored[way.name] += 1
                return True
        try:
            self._settle(picture, self._backup.restore(picture, version))
        except sql.FileFailure as error:
            # A file whose pages have another size now, and a log, is written by no backup:
            # https://sqlite.org/c3ref/backup_finish.html
            if not sql.is_refused(error):
                raise
            self.put_in_place(picture)
            return True
        self.restored[self._backup.name] += 1
        return True

    def put_in_place(self, picture: ways.Picture) -> None:
        """Put a new file, with the content of a picture, in the place of the one that is there."""
        with sql.whole_or_none(self.live_file.new_file()) as file:
            # First what may fail: as long as the copy is not whole, nothing is given up for it.
            shutil.copyfile(picture.file(), file)
            self.live_file.close()
            for ending in ("-wal", "-shm", "-journal"):
                Path(f"{self.live}{ending}").unlink(missing_ok=True)
            file.replace(self.live)
        self.reopen()
        self._settle(picture, self.control.data_version())

    def overwrite(self, source: sql.OwnConnection) -> None:
        """Make the file equal to another database, in place."""
        version = self.unwritten_version()
        source.copy_into(self.control)
        self._settle(self._kept(self._backup.take()), version)

    def remove_unused(self, pictures: Iterable[ways.Picture | None]) -> None:
        """Remove the pictures that are none of these, unless these are made of them."""
        used: set[ways.Picture] = set()
        pending = [self.now, *pictures, *(way.parent for way in self._ways)]
        while pending:
            picture = pending.pop()
            if picture is not None and picture not in used:
                used.add(picture)
                pending.append(picture.parent)
        for picture in [picture for picture in self._taken if picture not in used]:
            self._taken.remove(picture)
            picture.remove()

    def _kept(self, picture: ways.Picture) -> ways.Picture:
        self._taken.append(picture)
        return picture

    def _trusted(self) -> Iterator[ways.Way]:
        """The fast ways that do on this system what they are meant to do: tried out when needed."""
        for way in [*self._ways]:
            passed = way.name in self._proven or ways.works(type(way), self.live.parent)
            if passed:
                self._proven.add(way.name)
                yield way
            elif passed is False:  # None: there was no room for a trial
                self._ways.remove(way)
                self._tell(
                    f"{self.live.name}: the fast way {way.name!r} did not pass its trial on SQLite "
                    f"{sqlite3.sqlite_version}; tests are undone by whole copies"
                )

    def _stands_at(self, picture: ways.Picture, version: int) -> None:
        self.now, self.version = picture, version
        self.turn += 1

    def _settle(self, picture: ways.Picture, version: int) -> None:
        """The file stands at a picture by SQLite's own doing; the fast ways go on from there."""
        for way in self._ways:
            way.settle(picture, version)
        self._stands_at(picture, version)
