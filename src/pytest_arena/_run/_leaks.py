"""Finds and ends connections, transactions and sessions that a test leaves open."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import async_session
from sqlalchemy.orm import scoped_session

from pytest_arena._gate._connections import entry_of
from pytest_arena._gate._orm_sessions import (
    held_by_sessions,
    is_used_by_wide_fixture,
    owner_of_session,
    session_numbers,
    sessions_in_use,
)
from pytest_arena._owner import outlives_tests
from pytest_arena._product import raw_transactions
from pytest_arena._run._late_work import lines_of_error
from pytest_arena.errors import ConnectionLeak, IsolationError
from pytest_arena.warnings import LateWorkWarning, LeakWarning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from pytest_arena._gate._connections import PooledConnection
    from pytest_arena._gate._listeners import Gate
    from pytest_arena._ledger import Ledger
    from pytest_arena._owner import Owner
    from pytest_arena._values import CodeLine


__tracebackhide__ = True  # tracebacks end at the user's line


def end_connections_of_test(
    gate: Gate, ledger: Ledger, owner: Owner, *, has_failed: bool
) -> None:
    """Roll back what a test has begun, and close the connections that it has not returned.

    An idle connection is a warning, unless the test has failed. A transaction that the test has
    begun in a session of a wider fixture is rolled back without a report.

    Raises:
        ConnectionLeak: the test left a transaction.
    """
    registry = gate.registry
    if not (registry.checked_out() or registry.has_raw):
        return
    leaks = _leaks_of(gate, owner)
    # This may also end a connection in the app's state, because that state is restored later.
    gate.end_raw(owner.serial)
    transactions = [leak for leak in leaks if leak.in_transaction]
    error = _leak_error(transactions) if transactions else None
    for leak in leaks if error is None and not has_failed else ():
        ledger.warn(
            LeakWarning,
            "the test ended with a connection that was not returned to its pool, and "
            "pytest-arena closed it",
            cause=_line_to_blame(leak),
            fix=_CLOSE_IT,
        )
    sessions = _sessions_on(leaks)
    # Otherwise the pools lack these connections, and the collector warns in a later test.
    end_transactions(leaks, closes_connections=True)
    for session in sessions:  # they do not notice that the connection was closed
        with suppress(Exception):  # a thread of the test uses the session
            session.reset()
    _end_late_connections(gate, ledger, owner)
    _roll_back_others(gate, owner.serial)
    if error is not None:
        raise error


def _leaks_of(gate: Gate, owner: Owner) -> list[PooledConnection]:
    """Return the connections that a test has not returned, or has left in a transaction.

    A connection that a session of a wider fixture holds is no leak of the test.
    """
    leaks = _checkouts_of(gate, owner)
    if leaks and not any(leak.in_transaction for leak in leaks):
        _remove_session_of_flask()
    if leaks:
        # A connection in a reference cycle is no leak: the collector returns it to its pool.
        gc.collect()
        leaks = _checkouts_of(gate, owner)
    return leaks


def _checkouts_of(gate: Gate, owner: Owner) -> list[PooledConnection]:
    checkouts = []
    for checkout in gate.registry.checked_out():
        # An idle connection that reaches no database of the tests blocks no test.
        is_in_way = checkout.in_transaction or checkout.usage
        if checkout.owner is owner and is_in_way:
            checkouts.append(checkout)
    if not checkouts:
        return []
    held = gate.registry.held_by_others()
    return [checkout for checkout in checkouts if checkout.entry not in held]


def _remove_session_of_flask() -> None:
    """Remove Flask-SQLAlchemy's session of an app context that outlives the test.

    Flask removes it when the context ends. A session of a wider fixture stays.
    """
    flask = sys.modules.get("flask")
    if flask is None or not flask.has_app_context():
        return
    extension = flask.current_app.extensions.get("sqlalchemy")
    sessions = getattr(extension, "session", None)
    if not isinstance(sessions, scoped_session):
        return
    if not outlives_tests(owner_of_session(sessions())):
        sessions.remove()


def _end_late_connections(gate: Gate, ledger: Ledger, test: Owner) -> None:
    """Close the connections that threads keep after the end of a lifespan or an earlier test."""
    late = []
    for checkout in gate.registry.checked_out():
        owner = checkout.owner
        if owner is not None and owner.is_over and owner is not test:
            late.append(checkout)
            ledger.warn(
                LateWorkWarning,
                f"a thread of {owner.name} still used a connection, which pytest-arena closed",
                cause=_line_to_blame(checkout),
                fix=owner.advice,
            )
    end_transactions(late, closes_connections=True)


def _roll_back_others(gate: Gate, serial: int) -> None:
    """Roll back what a test has begun in sessions and connections of wider fixtures."""
    checkouts = []
    for checkout in gate.registry.checked_out():
        is_writing = checkout.in_transaction and checkout.has_begun_in(serial)
        if (is_writing or checkout.is_of(serial)) and not checkout.is_in_background:
            checkouts.append(checkout)
    sessions = _sessions_on(checkouts)
    held = [entry_of(connection) for _, connection in held_by_sessions()]
    end_transactions(each for each in checkouts if each.entry not in held)
    # Outside of a loop, only an invalidated connection of an async driver sends nothing.
    of_sessions = [each for each in checkouts if each.entry in held]
    end_transactions(of_sessions, closes_connections=True)
    for session in sessions:
        transaction = session.get_transaction()
        # A rollback would expire instances, which an async session cannot load again.
        if transaction is not None and async_session(session) is not None:
            transaction.close()
        else:
            session.rollback()


def _sessions_on(leaks: list[PooledConnection]) -> list[Session]:
    entries = [leak.entry for leak in leaks]
    return [
        session
        for session, connection in held_by_sessions()
        if entry_of(connection) in entries
    ]


def open_transactions(gate: Gate) -> list[PooledConnection]:
    """Return the checked-out connections that have begun to write."""
    checkouts = gate.registry.checked_out()
    return [checkout for checkout in checkouts if checkout.in_transaction]


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


def end_connections_of_fixture(gate: Gate, fixture: Owner) -> None:
    """Close the connections that tasks and threads of a wider fixture keep after its tear-down."""
    checkouts = gate.registry.checked_out()
    left = [
        checkout
        for checkout in checkouts
        if checkout.owner is fixture and checkout.is_in_background
    ]
    end_transactions(left, closes_connections=True)


def empty_sessions(ledger: Ledger, *, has_failed: bool) -> None:
    """Forget the objects of a test or a fixture in sessions that outlive it. Warn of pending ones.

    Otherwise the next test would read them, or write the pending ones.
    """
    pending = {}
    for session in sessions_in_use():
        if not is_used_by_wide_fixture(session):
            names = [type(instance).__name__ for instance in session.new]
            pending[session.hash_key] = names
            with suppress(Exception):  # a task may use the session
                _empty_session(session)
        # Otherwise this variable keeps the last session alive, so that it counts as open below.
        del session
    for number in session_numbers().intersection(pending):
        for name in pending[number]:
            if not has_failed:  # the report of a failed test has the pending objects
                ledger.warn(
                    LeakWarning,
                    f"the test left {name} pending in a session that outlives the test",
                    cause="no code has written it",
                    fix="commit it, wait for the job that uses the session, or call "
                    "Session.remove() in an autouse fixture",
                )


def _empty_session(session: Session) -> None:
    """Reset a session that no wider fixture has made. Else undo the changes of its instances."""
    has_connection = any(held is session for held, _ in held_by_sessions())
    if not (outlives_tests(owner_of_session(session)) or has_connection):
        session.reset()
        return
    for instance in [*session.new, *session.deleted]:
        session.expunge(instance)
    # An async session cannot load an expired attribute when it is read.
    instances = [*session] if async_session(session) is None else [*session.dirty]
    for instance in instances:
        session.expire(instance)


def _leak_error(leaks: list[PooledConnection]) -> ConnectionLeak:
    """Return the error for transactions. It contains the lines of their first writes."""
    what = "the test ended with an open transaction"
    lines = {*map(_line_to_blame, leaks)}
    if len(lines) > 1:
        what += f" ({len(lines)} places)"
    return ConnectionLeak(
        what,
        why="the next test would wait for its lock",
        cause=lines_of_error(lines),
        fix=_CLOSE_IT,
    )


_CLOSE_IT = (
    "commit, and close it: `async with session:` / `with engine.connect() as connection:`. For a "
    "scoped_session: Session.remove(). For a thread or a job: wait for its end"
)


def error_of_holders(holders: Iterable[PooledConnection], level: str) -> IsolationError:
    """Return the error for open transactions that prevent a level's enter or leave."""
    return IsolationError(
        f"{level}: an open transaction of a wider fixture is in the way",
        why="pytest-arena cannot restore the database while a transaction holds its lock",
        cause=lines_of_error([*map(_line_to_blame, holders), *raw_transactions()]),
        fix="commit, or roll back, before the fixture's `yield`",
    )


def _line_to_blame(checkout: PooledConnection) -> CodeLine | str:
    """Return the line of the first write in the open transaction, or the line of the checkout."""
    writes = checkout.pending_writes
    # Prefer the write: the checkout may be of an earlier test, if a session outlives its test.
    if writes is not None and writes.line is not None:
        return writes.line
    return checkout.line or "a line that cannot be seen"
