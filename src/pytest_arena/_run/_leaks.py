"""Finds and ends what a test leaves: work, tasks, connections, transactions, sessions."""

from __future__ import annotations

import gc
import sys
import threading
from asyncio import all_tasks, current_task
from asyncio import wait as wait_for_tasks
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from sqlalchemy.ext.asyncio import async_session

from pytest_arena._databases._refusals import late_work
from pytest_arena._gate._listeners import CLOSE_IT, gate
from pytest_arena._gate._registry import (
    held_by_sessions,
    record_of,
    sessions_in_use,
)
from pytest_arena._origin import line_of_task
from pytest_arena._owner import Owner, is_users_task, owner_of
from pytest_arena._process import AnyTask, alive, running_loop
from pytest_arena.errors import (
    ConnectionLeak,
    LateWorkError,
)
from pytest_arena.warnings import LateWorkWarning, LeakWarning

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from pytest_arena._gate._registry import PooledConnection
    from pytest_arena._values import CodeLine


def lines_of_error(lines: Iterable[object]) -> str:
    """Return the lines for an error, sorted and each once."""
    return "\n".join(sorted(set(map(str, lines))))


def refuse_unfinished(lines: list[CodeLine | str], patience: float) -> None:
    """Refuse work that still runs after a wait."""
    if lines:
        raise LateWorkError(
            f"work that a request had begun still runs after {patience:g} s",
            why="the work may still have rows to write",
            cause=lines_of_error(lines),
            fix="begin endless work, such as a poller, in the app's lifespan: settled() does "
            f"not wait for it. For slow work: arena.settled({max(60, patience * 2):g})",
        )


# Seconds to wait for the end of cancelled tasks.
_CANCEL_PATIENCE = 1.0


class Tasks:
    """The tasks that tests and the app start in the event loops of tests.

    asyncio cancels the tasks of a loop that ends with the test. In other loops, tasks of the test
    could write in the next test, so pytest-arena cancels them.
    """

    def __init__(self) -> None:
        self._threads: WeakKeyDictionary[AbstractEventLoop, int] = WeakKeyDictionary()

    def record_loop(self, loop: AbstractEventLoop | None = None) -> None:
        """Record this loop, or the running loop. Do nothing if no asyncio loop runs."""
        loop = loop or running_loop()
        if loop is not None:
            self._threads.setdefault(loop, threading.get_ident())

    def run_idle_loops(self) -> None:
        """Run the idle loops of this thread once."""
        for loop in self._idle_loops():
            loop.call_soon(loop.stop)
            loop.run_forever()

    def loops(self) -> list[AbstractEventLoop]:
        """Return the open loops of all threads."""
        return [loop for loop in alive(self._threads) if not loop.is_closed()]

    def _idle_loops(self) -> list[AbstractEventLoop]:
        """Return the open loops of this thread, none if a loop runs in it."""
        if running_loop() is not None:
            return []
        return [loop for loop in self.loops() if self._threads.get(loop) == threading.get_ident()]

    def of(self, owner: Owner, loops: Iterable[AbstractEventLoop]) -> list[AnyTask]:
        """Return the tasks of an owner that may run the user's code, without the present one."""
        this_task = current_task() if running_loop() else None
        return [
            task
            for loop in loops
            for task in all_tasks(loop)
            if task is not this_task and owner_of(task) is owner and is_users_task(task)
        ]

    def end(self, owner: Owner) -> list[CodeLine | str]:
        """Cancel the tasks of a test that still run in idle loops. Return a line for each."""
        lines: list[CodeLine | str] = []
        for loop in self._idle_loops():
            unfinished = self.of(owner, [loop])
            for task in unfinished:
                if type(task.get_coro()).__name__ == "async_generator_athrow":
                    continue  # by this task asyncio closes a generator that the test has dropped
                lines.append(line_of_task(task))
                task.cancel()
            if unfinished:
                loop.run_until_complete(wait_for_tasks(unfinished, timeout=_CANCEL_PATIENCE))
        return lines


# Connections, transactions and sessions.


def end_connections_of_test(test: Owner, *, has_failed: bool) -> None:
    """Roll back what a test has begun, and close the connections that it has not returned.

    An idle connection is a warning, unless the test has failed. A transaction that the test has
    begun in a session of a wide fixture is rolled back without a report.
    """
    for session in sessions_in_use():
        record = record_of(session)
        request = record.changed_by if record.line else record.begun_by
        if record.is_of_app and request and not request.is_refused:
            gate.lost.note_unflushed(session, request)
            with suppress(Exception):  # a task may use the session
                _empty_session(session)
        del session, record  # a leak may be in a reference cycle
    if not (gate.registry.checked_out() or gate.registry.has_raw):
        return
    leaks = _leaks_of()
    own = [leak for leak in leaks if leak.owner is test]
    # This may also end a connection in the app's state, because that state is restored later.
    gate.end_raw(test)
    transactions = [leak for leak in own if leak.has_uncommitted_writes]
    for leak in own if not (transactions or has_failed) else ():
        gate.warn_of_leak(leak)
    for leak in leaks:
        if leak.owner is not None and leak.owner is not test:
            gate.core.ledger.warn(
                LateWorkWarning,
                f"work of {leak.owner.name} still used a connection, which pytest-arena closed",
                cause=leak.place,
                fix=late_work(leak.owner).fix,
            )
    _close(leaks)
    _roll_back_others(test)
    if transactions and not has_failed:  # its own error says more
        raise ConnectionLeak(
            "the test ended with an open transaction",
            why="the next test would wait for its lock",
            cause=lines_of_error(leak.place for leak in transactions),
            fix=CLOSE_IT,
        )


def end_connections_of_fixture(fixture: Owner) -> None:
    """Close the connections that a wide fixture, which is over, has not returned or closed."""
    gate.end_raw(fixture)
    _close(_leaks_of())


def _close(leaks: list[PooledConnection]) -> None:
    sessions = [session for session, pooled in held_by_sessions() if pooled in leaks]
    # Otherwise the pools lack these connections, and the collector warns in a later test.
    end_transactions(leaks, closes_connections=True)
    for session in sessions:  # they do not notice that the connection was closed
        with suppress(Exception):  # a thread of the test uses the session
            session.reset()


def _leaks_of() -> list[PooledConnection]:
    """Return the connections that owners that are over have not returned."""
    leaks = _unreturned()
    if not leaks:
        return []
    if not any(leak.has_uncommitted_writes for leak in leaks):
        _remove_session_of_flask()
    # A connection in a reference cycle is no leak: the collector returns it to its pool.
    gc.collect()
    # A session of a wide fixture may keep the connection that it has checked out in a test.
    held = gate.registry.held_by_others()
    return [leak for leak in _unreturned() if leak not in held]


def _remove_session_of_flask() -> None:
    """Remove Flask-SQLAlchemy's session of an app context that outlives the test.

    Flask removes it when the context ends. A session of a wide fixture stays.
    """
    flask = sys.modules.get("flask")
    if flask is None or not flask.has_app_context():
        return
    sessions = getattr(flask.current_app.extensions.get("sqlalchemy"), "session", None)
    if sessions is not None and not record_of(sessions()).outlives_tests:
        sessions.remove()


def _unreturned() -> list[PooledConnection]:
    left = [checkout for checkout in gate.registry.checked_out() if checkout.is_left]
    # An idle connection that reaches no database of the tests blocks no test.
    return [checkout for checkout in left if checkout.has_uncommitted_writes or checkout.usage]


def _roll_back_others(test: Owner) -> None:
    """Roll back what a test has begun in sessions and connections of wide fixtures."""
    checkouts = []
    for checkout in gate.registry.checked_out():
        is_writing = checkout.has_uncommitted_writes and checkout.has_begun_in(test)
        if (is_writing or checkout.owner is test) and not checkout.is_in_background:
            checkouts.append(checkout)
    held = [each for each in held_by_sessions() if each[1] in checkouts]
    of_sessions = [pooled for _, pooled in held]
    end_transactions(each for each in checkouts if each not in of_sessions)
    # Outside of a loop, only an invalidated connection of an async driver sends nothing.
    end_transactions(of_sessions, closes_connections=True)
    for session, pooled in held:
        if pooled.pending_writes and pooled.owner is test and record_of(session).is_of_app:
            gate.lost.note_end(pooled.pending_writes)
        transaction = session.get_transaction()
        # A rollback would expire instances, which an async session cannot load again.
        if transaction is not None and async_session(session) is not None:
            transaction.close()
        else:
            session.rollback()


def end_transactions(
    leaks: Iterable[PooledConnection], *, closes_connections: bool = False
) -> None:
    """Roll back transactions, so that no lock outlives the test.

    pytest-arena cancels a running statement first. ``closes_connections`` also closes the
    connections.
    """
    for leak in leaks:
        if leak.handle is not None:
            leak.handle.interrupt()
            leak.handle.roll_back()
        if closes_connections and leak.proxied is not None:
            leak.proxied.invalidate()
        if leak.entry is not None:
            leak.entry.invalidate(soft=True)


def empty_sessions(*, has_failed: bool) -> None:
    """Forget the objects of a test or a fixture in sessions that outlive it. Warn of pending ones.

    Otherwise the next test would read them, or write the pending ones.
    """
    pending = []
    for session in sessions_in_use():
        if not record_of(session).is_used_by_wide_fixture:
            names = [type(instance).__name__ for instance in session.new]
            pending.append((ref(session), names))
            with suppress(Exception):  # a task may use the session
                _empty_session(session)
        # Otherwise this variable keeps the last session alive, so that it counts as open below.
        del session
    for reference, names in pending:
        for name in names if reference() is not None else ():
            if not has_failed:  # the report of a failed test has the pending objects
                gate.core.ledger.warn(
                    LeakWarning,
                    f"the test left {name} pending in a session that outlives the test",
                    cause="no code has written it",
                    fix="commit it, wait for the job that uses the session, or call "
                    "Session.remove() in an autouse fixture",
                )


def _empty_session(session: Session) -> None:
    """Reset a session, or undo the changes of its instances if it outlives the test."""
    has_connection = any(held is session for held, _ in held_by_sessions())
    if not (record_of(session).outlives_tests or has_connection):
        session.reset()
    for instance in [*session.new, *session.deleted]:
        session.expunge(instance)
    # An async session cannot load an expired attribute when it is read.
    instances = [*session] if async_session(session) is None else [*session.dirty]
    for instance in instances:
        session.expire(instance)


def lines_of_holders() -> list[str]:
    """Return the lines that have begun the open transactions."""
    return [str(each.place) for each in gate.registry.checked_out() if each.has_uncommitted_writes]
