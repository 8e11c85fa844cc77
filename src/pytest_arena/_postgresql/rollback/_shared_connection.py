"""Lets several sessions share one real connection.

Each transaction of the app is a savepoint of the real transaction. Savepoints are a stack, so a
second transaction that writes waits for the end of the first one.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_arena._postgresql.rollback._sockets import Disconnected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql.rollback._backend import Backend
    from pytest_arena._postgresql.rollback._session import Savepoint, Session

ONE_WRITER = (
    "with arena_isolation = rollback only one transaction can write at a time: commit or "
    "roll back the other one first, or use arena_isolation = undo"
)


class TurnRefused(Exception):
    """A session waited for the transaction of ``holder`` too long, or was cancelled."""

    def __init__(self, *, is_cancelled: bool, holder: Session | None = None) -> None:
        self.is_cancelled = is_cancelled
        action = "a lock or an open cursor"
        if holder is not None and holder.first_write:
            action = f"written or locked rows ({holder.first_write})"
        self.reason = f"another open transaction has {action}"
        super().__init__(self.reason)


class SharedConnection(ABC):
    """A real connection, which sessions use one after the other. Thread-safe."""

    lost_text: str  # the error of all sessions if the real connection has ended
    ended_text: str  # the error of a session that pytest-arena has ended

    def __init__(
        self,
        backend: Backend,
        *,
        note: Callable[[str], None],
        lock_timeout: float,
    ) -> None:
        self._backend = backend
        self._note = note
        self._lock_timeout = lock_timeout or None  # the default of clients
        self._condition = threading.Condition(threading.RLock())
        self._is_busy = False
        self._running: Session | None = None
        self._waiting_writers: set[Session] = set()
        # The session whose transaction has a savepoint.
        self._holder: Session | None = None
        self._sessions: dict[int, Session] = {}
        self.is_lost = False

    # Sessions

    def register(self, session: Session) -> None:
        """Note a connection of the app."""
        with self._condition:
            self._sessions[session.pid] = session

    def note(self, remark: str) -> None:
        """Note a difference between this isolation and real connections."""
        self._note(f"rollback: {remark} (all connections share one transaction)")

    def forget(self, session: Session) -> None:
        """Roll back the transaction of a session that ends, and forget the session."""
        with self._condition:
            is_known = self._sessions.pop(session.pid, None) is not None
        if is_known and not self.is_lost:
            self.roll_back(session)

    def interrupt(self, pid: int) -> None:
        """Cancel the statement of a session, or its wait. A driver requests this."""
        with self._condition:
            session = self._sessions.get(pid)
            if session is not None and session is self._running:
                self._backend.cancel()
            elif session in self._waiting_writers:
                self._waiting_writers.remove(session)
                self._condition.notify_all()

    def end(self, pid: int) -> None:
        """End the connection of a session, and roll back its transaction."""
        session = self._sessions.get(pid)
        if session is not None:
            self.interrupt(pid)
            try:
                self.forget(session)
            finally:
                session.end_connection(self.ended_text)

    def end_all(self) -> None:
        """End the connections of all clients."""
        for pid in [*self._sessions]:
            self.end(pid)

    def knows(self, pid: int) -> bool:
        """Return whether this is the pid of a client."""
        return pid in self._sessions

    def holders(self) -> set[int]:
        """Return the pid of the client whose transaction has a savepoint, in a set."""
        return set() if self._holder is None else {self._holder.pid}

    def writers(self) -> set[int]:
        """Return the pid of the client whose open transaction has written, in a set."""
        holder = self._holder
        if holder is None or not holder.first_write:
            return set()
        return {holder.pid}

    def inside(self) -> set[int]:
        """Return the pids of the clients in a transaction."""
        return {
            session.pid for session in [*self._sessions.values()] if session.is_begun
        }

    # Turns

    @contextmanager
    def _turn(self, session: Session | None, *, writes: bool = False) -> Iterator[None]:
        """Use the real connection alone in this block.

        With ``writes`` wait first for the end of another transaction that has a savepoint.

        Raises:
            Disconnected: the server has ended the connection.
            TurnRefused: the other transaction did not end in time, or the session was cancelled.
        """
        self._wait_for_turn(session, writes=writes)
        try:
            yield
        except Disconnected:
            self._lose()
            raise
        finally:
            with self._condition:
                self._running = None
                self._is_busy = False
                self._condition.notify_all()

    def _wait_for_turn(self, session: Session | None, *, writes: bool) -> None:
        patience = None
        if session is not None:
            patience = session.lock_timeout(self._lock_timeout)
        with self._condition:
            if writes and session is not None:
                self._waiting_writers.add(session)

            def may_go_on() -> bool:
                is_cancelled = writes and session not in self._waiting_writers
                if self._is_busy or self._is_held_back(session, writes=writes):
                    return self.is_lost or is_cancelled
                return True

            while not self._condition.wait_for(may_go_on, patience):
                if session is not None and self._is_held_back(session, writes=writes):
                    self._waiting_writers.discard(session)
                    raise TurnRefused(is_cancelled=False, holder=self._holder)
            if self.is_lost:
                raise Disconnected
            if writes and session not in self._waiting_writers:
                raise TurnRefused(is_cancelled=True)
            if session is not None:
                self._waiting_writers.discard(session)
            self._is_busy = True
            self._running = session

    def _is_held_back(self, session: Session | None, *, writes: bool) -> bool:
        """Return whether another transaction must end before the session may write."""
        return writes and self._holder not in {None, session}

    def _lose(self) -> None:
        with self._condition:
            self.is_lost = True
            sessions = [*self._sessions.values()]
            self._sessions.clear()
            self._holder = None
            self._condition.notify_all()
        for session in sessions:
            session.end_connection(self.lost_text)

    def _note_other_writer(self, session: Session) -> None:
        if self.writers() - {session.pid}:
            session.note("a transaction sees uncommitted rows of another transaction")

    # Transactions

    def _take(self, session: Session) -> None:
        """Make a session the holder. Open its savepoints that the real transaction lacks."""
        self._holder = session
        if not self._backend.has(session.savepoint):
            self._backend.set_savepoint(session.savepoint)
            if session.is_read_only:
                self._backend.be_read_only()
        for savepoint in session.savepoints:
            if not self._backend.has(savepoint.backend_name):
                self._backend.set_savepoint(savepoint.backend_name)

    def _commit_holder(self, session: Session) -> None:
        """Commit the transaction of the holder: release its savepoint."""
        self._backend.release(session.savepoint)
        self._holder = None
        if session.first_write:
            self._count_change()

    @abstractmethod
    def _count_change(self) -> None:
        """Count a committed transaction with changes."""

    def roll_back(self, session: Session) -> None:
        """Roll back a session's transaction."""
        if self._holder is session:
            with self._turn(session):
                if self._holder is session:
                    self._undo_holder(session)

    def release(self, session: Session, savepoint: Savepoint) -> None:
        """Release a savepoint of a session."""
        if self._holder is session:
            with self._turn(session):
                if self._backend.has(savepoint.backend_name):
                    self._backend.release(savepoint.backend_name)

    def roll_back_to(self, session: Session, savepoint: Savepoint) -> None:
        """Roll back to a savepoint of a session."""
        if self._holder is session:
            with self._turn(session):
                if self._backend.has(savepoint.backend_name):
                    self._backend.roll_back_to(savepoint.backend_name)
                    self._backend.execute_pending()

    def _undo_holder(self, holder: Session) -> None:
        """Roll back the holder's transaction at once.

        pytest-arena's other connections may wait for its locks. If this fails, for example because
        the server has no such savepoint, all connections end.
        """
        try:
            self._backend.undo(holder.savepoint)
            self._backend.execute_pending()
        except Exception as error:
            self._lose()
            raise Disconnected from error
        self._holder = None

    def _cut_off(self) -> None:
        """Roll back the holder's transaction, because its level is left."""
        holder = self._holder
        if holder is not None:
            self._undo_holder(holder)
            holder.cut_off()

    def close(self) -> None:
        """End all connections. The server rolls back."""
        self._lose()
        self._backend.close()
