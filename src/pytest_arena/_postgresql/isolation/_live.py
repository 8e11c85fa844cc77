"""Which database is live on a server, and how is its change journal talked to?"""

from __future__ import annotations

import os
import threading
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from pytest_arena._postgresql import _clone_sql as sql
from pytest_arena._postgresql._content import content
from pytest_arena._postgresql._control import Failed, open_control
from pytest_arena._postgresql.journal._server import Left, ServerJournal
from pytest_arena._values import TableRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_arena._postgresql._control import Control
    from pytest_arena._postgresql.journal._server import Look
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._values import Address

__all__ = ["LiveDatabase", "joined"]

_LOCKED = "55P03"

_Answer = TypeVar("_Answer")


class LiveDatabase:
    """The database that tests work on now. Any thread may ask.

    A test may end every connection to its database, the journal's too: it is made once more. A
    forked child has one of its own.
    """

    def __init__(self, own: ServerRegistry) -> None:
        self._own = own
        self.name = ""
        self._was_lost = False
        self._journal: ServerJournal | None = None
        self._reader: Control | None = None  # to read all that is there: warm, it takes a third
        self._abandoned: list[object] = []  # a parent's: closing them would end its session
        self._process = os.getpid()
        self._turn = threading.RLock()

    @property
    def address(self) -> Address:
        """How one logs in to it."""
        return self._own.address_of(self.name)

    def go_to(self, name: str, journal: ServerJournal) -> None:
        """From here on another one is live."""
        with self._turn:
            self.release()
            self.name, self._journal, self._process = name, journal, os.getpid()

    def release(self) -> None:
        """Close what is ours: somebody is about to copy it, or to drop it."""
        with self._turn:
            self._leave_to_the_parent()
            journal, self._journal = self._journal, None
            if journal is not None:
                journal.close()
            self._close_reader()

    def ask(self, question: Callable[[ServerJournal], _Answer]) -> _Answer:
        """Ask its journal, and once more where the connection was lost.

        Raises:
            Failed: the journal refused, or the server is gone.
        """
        with self._turn:
            try:
                return question(self._opened())
            except Failed as error:
                if not error.is_lost:
                    raise
            self.release()
            self._was_lost = True
            self.clients_inside()  # a server that is started anew is waited for there
            return question(self._opened())

    def was_lost(self) -> bool:
        """Whether its journal had to be connected to anew, since this was asked for last.

        Whatever ended our connection has most likely ended the app's as well.
        """
        was_lost, self._was_lost = self._was_lost, False
        return was_lost

    def asked(self, question: Callable[[ServerJournal], _Answer]) -> _Answer:
        """Ask its journal.

        Raises:
            ArenaError: it cannot be asked.
        """
        with self._own.saying("the change journal cannot be asked"):
            return self.ask(question)

    def is_altered_at(self, number: int) -> bool:
        """Enter a level, and return whether that could not be: the journal does not fit any more.

        Raises:
            ArenaError: somebody holds a lock, or the server is gone or has no room: another
                database in its place would be of no use.
        """
        with self._own.saying("the change journal cannot go on"):
            try:
                return bool(self.ask(lambda journal: journal.enter(number)))
            except Failed as error:
                if error.sqlstate == _LOCKED or error.is_elsewhere:
                    raise
                return True

    def left(self, number: int) -> Left | None:
        """Leave a level; None where somebody is in the way.

        Whatever else keeps the journal from it is a mark: it was dropped, or made useless.

        Raises:
            ArenaError: the server is gone.
        """
        try:
            return self.ask(lambda journal: journal.leave(number))
        except Failed as error:
            if error.sqlstate == _LOCKED:
                return None
            self._say_if_lost(error)
            return Left(was_changed=True, marks=(f"the change journal cannot be read: {error}",))

    def _say_if_lost(self, error: Failed) -> None:
        if error.is_lost:
            with self._own.saying("the live database cannot be reached"):
                raise error

    def rows_changed(
        self,
        number: int,
        since: str = "",
        until: str = "",
        *,
        is_top: bool = False,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return what the journal has of a level."""
        return self.asked(
            lambda journal: journal.rows_changed(
                level=number, since=since, until=until, is_top=is_top, limit=limit
            )
        )

    def _opened(self) -> ServerJournal:
        self._leave_to_the_parent()
        if self._journal is None:
            self._journal = ServerJournal(self.address)
        return self._journal

    def _leave_to_the_parent(self) -> None:
        if self._process != os.getpid():
            self._abandoned += [self._journal, self._reader]
            self._journal, self._reader, self._process = None, None, os.getpid()

    def clients_inside(self) -> set[int]:
        """Return the backends of clients inside a transaction, whether or not they wrote."""
        return {int(pid) for (pid,) in self._own.control.rows(sql.waits_or_works(self.name))}

    def end(self, pid: int, *, cancel: bool) -> None:
        """End a connection to it, or only the statement that it is at."""
        self._own.control.rows(sql.end_backend(self.name, pid, cancel=cancel))

    def end_all(self) -> None:
        """End all connections to it."""
        self._own.control.rows(sql.end_backends(self.name))

    def look(self, number: int) -> Look:
        """Look at what stands, above the start of a level.

        Raises:
            ArenaError: the journal or the server is gone.
        """
        return self.asked(lambda journal: journal.look(number))

    def in_the_way(self, number: int) -> set[int]:
        """Return the backends that have written in a transaction, or may hold another lock.

        Raises:
            ArenaError: the server is gone.
        """
        writers = set(self.look(number).writers)
        return writers or self.clients_inside()

    def end_prepared(self, number: int) -> tuple[str, ...]:
        """Roll back what was prepared there, if nobody else is in the way, and return its names.

        No session holds such a transaction, so that there is none to be ended.
        """
        look = self.look(number)
        if look.writers:
            return ()
        saying = self._own.saying("prepared transactions cannot be ended")
        with saying, closing(open_control(self.address)) as control:
            for name in look.prepared:
                control.run(sql.rollback_prepared(name))
        return look.prepared

    def content(self) -> dict[str, str]:
        """Return digests of all that stands in it.

        Raises:
            Failed: somebody holds a lock, or the server is gone.
        """
        with self._turn:
            self._leave_to_the_parent()
            try:
                return content(self._opened_to_read())
            except Failed as error:
                if not error.is_lost:
                    raise
            self._close_reader()
            return content(self._opened_to_read())

    def _opened_to_read(self) -> Control:
        if self._reader is None:
            self._reader = open_control(self.address)
        return self._reader

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


def joined(first: Iterable[TableRows], second: Iterable[TableRows]) -> list[TableRows]:
    """Return two lists of changes as one: what a row became in both is told twice."""
    found: dict[tuple[str, tuple[str, ...]], TableRows] = {}
    for rows in (*first, *second):
        known = found.get((rows.table, rows.columns))
        found[rows.table, rows.columns] = _together(known, rows) if known else rows
    return list(found.values())


def _together(one: TableRows, other: TableRows) -> TableRows:
    return TableRows(
        one.table,
        one.columns,
        other.key,
        one.gone + other.gone,
        one.come + other.come,
        one.more + other.more,
    )
