"""``copy``: one SQLite file that stays where it is, restored in place from a picture."""

from __future__ import annotations

import weakref
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from pytest_arena import _process
from pytest_arena._product import Held, nothing, to_nobody
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._content import changed_rows, content
from pytest_arena._sqlite._restorer import Restorer
from pytest_arena._sqlite._ways import Pages, Wal
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._sqlite._ways import Picture, Way
    from pytest_arena._values import TableRows

__all__ = ["Copy"]


_Answer = TypeVar("_Answer")
_PATIENCE, _STEP = 0.2, 0.002  # a commit is over in less


class Moment:
    """A point in time, for whoever asks later what has changed since.

    ``at`` are the turn and the data version of the file; the picture shows what it held.
    """

    __slots__ = ("__weakref__", "at", "picture")

    def __init__(self, picture: Picture, at: tuple[int, int]) -> None:
        self.picture, self.at = picture, at


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
        self.generation = 0
        self.check: Callable[[], None] = nothing
        self._moments: weakref.WeakSet[Moment] = weakref.WeakSet()  # those that somebody still has
        self._moment: Moment | None = None  # the last one
        self._owed: Picture | None = None  # what stands at the path still has to become this
        with self._telling():
            self._file = Restorer(live, base, self.fast, tell)
        self._levels: list[Picture] = []
        self._starts = [self._file.first]  # what each level began with, that of no level first

    @property
    def depth(self) -> int:
        """How many levels are open."""
        return len(self._levels)

    @property
    def restored(self) -> Counter[str]:
        """How often the file was brought back by each way."""
        return self._file.restored

    def enter(self) -> None:
        """Open a level above the state that stands now."""
        with self._telling():
            if self._owed is not None:
                self._put_in_place(self._owed)
            elif not self._file.is_in_place():
                # A fixture that makes its database anew wants that one for the levels above it.
                self._file.reopen()
                self.generation = self._file.generation
            picture = self._file.take()
        self._levels.append(picture)
        self._starts.append(picture)

    def leave(self) -> bool:
        """Go back to the state at the matching ``enter``."""
        with self._telling():
            self._file.check_place()
            changed = self._file.restore(self._levels[-1])
        self.check()
        self._owed = None
        self.forget()
        return changed

    def leave_by_force(self) -> None:
        """Go back by putting a new file in the place of the one that is locked.

        Costs a file copy, and a new connection for everybody. Those that the gate does not know
        (of other processes, of ``sqlite3`` itself) go on with the old file, which has no name now.
        """
        self._starts.pop()
        self._owed = self._levels.pop()
        with self._telling():
            self._put_in_place(self._owed)
        self._remove_unused()

    def _put_in_place(self, picture: Picture) -> None:
        try:
            self._file.put_in_place(picture)
        finally:
            self.generation = self._file.generation
        self._owed = None

    def is_free(self) -> bool:
        """Whether nobody holds a lock that would keep the next test from writing."""
        try:
            with sql.alone(self._file.control):
                return True
        except sql.Busy:
            return False
        except sql.FileFailure:
            return True  # that is no lock, and leaving tells of it

    def is_untouched(self) -> bool:
        """Whether nothing was committed in the top level."""
        return self._stands_at_top(lambda: sql.data_version(self._file.control))

    def is_clean(self) -> bool:
        """Whether nothing was changed in the top level, nor is about to be."""
        return self._stands_at_top(self._file.unwritten_version)

    def _stands_at_top(self, version: Callable[[], int]) -> bool:
        file = self._file
        if file.now is not self._levels[-1] or not file.is_in_place() or self._owed is not None:
            return False
        try:
            return version() == file.version
        except (sql.Busy, sql.FileFailure):
            return False  # somebody is about to change it

    def forget(self, *, is_undone: bool = False) -> None:  # noqa: ARG002 - nothing can be set back
        """Drop the top level, and keep what stands."""
        self._starts.pop()
        self._levels.pop()
        self._remove_unused()

    def replace(self, file: Path | None) -> None:
        """Give the level that stands now another content."""
        source = sql.open_picture(file) if file else sql.open_memory()
        with closing(source), self._telling():
            self._file.overwrite(source)
        self._starts[-1] = self._file.now  # nobody in this level has written that

    def save(self, file: Path) -> None:
        """Copy what stands now into a file."""
        with self._telling():
            if self._file.is_in_place():
                sql.copy_to_file(self._file.control, file)
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
        with suppress(sql.Busy, sql.FileFailure, OSError):
            return self._moment_now(exact=False)
        return None

    def _moment_now(self, *, exact: bool) -> Moment | None:
        file = self._file
        file.check_place()
        at = file.turn, sql.data_version(file.control)  # first: see Restorer.take()
        if self._moment is None or self._moment.at != at:
            picture = file.now if at[1] == file.version else file.glance(exact=exact)
            if picture is None:
                return None
            self._moment = Moment(picture, at)
            self._moments.add(self._moment)
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
            before = since.picture if isinstance(since, Moment) else self._starts[-1 - depth]
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
        self._file.close_all(self._levels)

    def _remove_unused(self) -> None:
        """Remove the pictures of levels and moments that are gone."""
        moments = [moment.picture for moment in self._moments]
        self._file.remove_unused([self._owed, *self._levels, *self._starts, *moments])

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sql.Busy as error:
            raise Held(str(error)) from error
        except (sql.FileFailure, OSError) as error:
            full, folder = sql.is_full(error), self.live.parent
            raise IsolationError(
                f"the database {self.live.stem!r} cannot be read or written: {error}",
                why="each test starts on the database as it was before the test that ran last",
                cause=f"no more room in {folder}" if full else f"what was done to {self.live}",
                fix=f"df -h {folder}   # make room there, or have tests write less"
                if full
                else "leave the file where it is: `metadata.drop_all(engine)` empties it in place",
            ) from error
