"""What does the gate know of a connection in a pool, and of one that somebody has taken?"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import ConnectionPoolEntry

    from pytest_arena._gate._reads import Part
    from pytest_arena._product import Aim, Handle, Key, Live
    from pytest_arena._values import CodeLine

__all__ = ["INFO", "Checkout", "EntryInfo", "Written", "abandon"]

INFO = "pytest_arena"  # where it stands in the dictionary ``info`` of a pool's entry


@dataclass(slots=True)
class Written:
    """What a transaction that is open has written by now, by statements that SQLAlchemy ran."""

    line: CodeLine | None  # of the first of them
    serial: int  # of the level in which that was
    parts: list[Part] = field(default_factory=list)
    savepoints: dict[str, int] = field(default_factory=dict)  # how many parts there were by then
    has_failed: bool = False  # a statement; until its savepoint is rolled back

    def mark(self, savepoint: str) -> None:
        """From here on it can be undone without the rest."""
        self.savepoints[savepoint] = len(self.parts)

    def go_back_to(self, savepoint: str) -> None:
        """What was written since then was undone, and so was an error."""
        del self.parts[self.savepoints.get(savepoint, 0) :]
        self.has_failed = False


@dataclass(slots=True)
class EntryInfo:
    """What is known of one pooled connection.

    ``aim`` is None where it goes its own way, ``handle`` where nobody can ask it anything.
    """

    aim: Aim | None
    handle: Handle | None = None
    session: object = None
    stale: bool = False
    used: bool = False
    opened: Callable[[Any], Live | None] | None = None  # says what the led connection is
    process: int = field(default_factory=os.getpid)
    written: Written | None = None
    changes: int = 0  # that the driver had counted when its transaction was begun, or before

    @property
    def key(self) -> Key | None:
        """The key of its database on a server; None where it is on none."""
        return self.aim.key if self.handle and self.aim and self.aim.address else None

    def aims(self) -> tuple[Aim, ...]:
        """Where the connection lands, and the files that it has attached."""
        attached = self.handle.attached() if self.handle else ()
        return (self.aim, *attached) if self.aim else attached

    def begin_use(self) -> None:
        """Somebody takes the connection: the first one finds it as it looks when it is new."""
        self.used = True
        self.changes, self.written = self.handle.changes() if self.handle else 0, None
        if self.session is None and self.handle and self.aim:
            self.session = self.handle.session()

    def end_use(self) -> bool:
        """Between tests, while it is idle: it is stale where it does not look as it did.

        Returns whether that is news.
        """
        if not (self.handle and self.aim and self.used):
            return False
        # One that cannot be asked (it belongs to another thread) is dropped as well.
        now, was_stale = self.handle.session(), self.stale
        self.stale = was_stale or now is None or now != self.session
        self.used = False
        return self.stale and not was_stale


@dataclass(frozen=True, slots=True)
class Checkout:
    """A connection that somebody has taken from a pool and not given back."""

    entry: ConnectionPoolEntry
    handle: Handle | None
    key: Key | None  # of a database on a server
    line: CodeLine | None
    serial: int  # of the level in which it was taken
    thread: int = field(default_factory=threading.get_ident)  # that took it

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write and has neither committed nor rolled back."""
        return self.handle is not None and self.handle.in_transaction

    @property
    def writes(self) -> int:
        """How many statements have written in its transaction, and no savepoint has undone."""
        info = self.entry.info.get(INFO)
        return len(info.written.parts) if isinstance(info, EntryInfo) and info.written else 0


# What a fork left to the child: SQLite forbids to use it there, and to close it as well.
_abandoned: list[Any] = []


def abandon(entry: Any) -> None:
    """Take a connection out of its entry, and keep it from ever being closed."""
    _abandoned.append(entry.dbapi_connection)
    entry.dbapi_connection = None
