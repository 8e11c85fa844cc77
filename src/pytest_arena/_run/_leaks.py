"""Finds and ends connections, transactions and sessions that a test leaves open."""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import async_session
from sqlalchemy.orm import scoped_session

# The public `close_all_sessions` would close the sessions of fixtures too.
from pytest_arena._gate._orm_sessions import (
    has_outer_owner,
    held_by_sessions,
    is_used_by_wide_fixture,
    owner_of_session,
    session_numbers,
    sessions_in_use,
    unflushed,
)
from pytest_arena._gate._registry import entry_of
from pytest_arena._owner import outlives_tests
from pytest_arena._product import raw_transactions
from pytest_arena._run._late_work import lines_of_error
from pytest_arena.errors import ConnectionLeak, IsolationError
from pytest_arena.warnings import LeakWarning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

    from pytest_arena._gate._listeners import Gate
    from pytest_arena._gate._registry import Checkout
    from pytest_arena._ledger import Ledger
    from pytest_arena._owner import Owner
    from pytest_arena._values import CodeLine


__tracebackhide__ = True  # tracebacks end at the user's line

# Seconds to wait for a thread that uses a leaked connection.
_PATIENCE = 1.0


def leaks_of(gate: Gate, owner: Owner) -> list[Checkout]:
    """Return the connections that a test has not returned, or has left in a transaction.

    A connection that a session of a wider fixture holds is no leak of the test.
    """
    leaks = _checkouts_of(gate, owner)
    if not leaks:
        return []
    if not any(leak.in_transaction for leak in leaks):
        _remove_session_of_flask()
    # A connection in a reference cycle is no leak: the collector returns it to its pool.
    gc.collect()
    return _checkouts_of(gate, owner)


def _checkouts_of(gate: Gate, owner: Owner) -> list[Checkout]:
    checkouts = []
    for checkout in gate.registry.checked_out():
        if outlives_tests(checkout.owner):
            continue
        # An idle connection that reaches no database of the tests blocks no test.
        is_idle = checkout.owner is owner and bool(checkout.usages)
        if checkout.in_transaction or is_idle:
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


def roll_back_others(gate: Gate, serial: int) -> None:
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
    if not end_transactions(of_sessions, closes_connections=True):
        return
    for session in sessions:
        transaction = session.get_transaction()
        # A rollback would expire instances, which an async session cannot load again.
        if transaction is not None and async_session(session) is not None:
            transaction.close()
        else:
            session.rollback()


def _sessions_on(leaks: list[Checkout]) -> list[Session]:
    entries = [leak.entry for leak in leaks]
    return [
        session
        for session, connection in held_by_sessions()
        if entry_of(connection) in entries
    ]


def open_transactions(gate: Gate) -> list[Checkout]:
    """Return the checked-out connections that have begun to write."""
    checkouts = gate.registry.checked_out()
    return [checkout for checkout in checkouts if checkout.in_transaction]


def end_transactions(
    leaks: Iterable[Checkout], *, closes_connections: bool = False
) -> bool:
    """Roll back transactions, so that no lock outlives the test. Return whether all succeeded.

    pytest-arena cancels a running statement and waits for its end. It never touches a connection
    in use. ``closes_connections`` also closes the connections.
    """
    for seconds in (0, _PATIENCE):
        # In the first pass, a thread may still wait for a lock that another of these leaks holds.
        leaks = [
            leak
            for leak in leaks
            if not _end_transaction(
                leak, seconds, closes_connections=closes_connections
            )
        ]
    return not leaks


def _end_transaction(
    leak: Checkout, seconds: float, *, closes_connections: bool
) -> bool:
    """Roll back a transaction. Return False, without a rollback, if its connection is in use."""
    handle = leak.handle
    guard: AbstractContextManager[bool] = nullcontext(enter_result=True)
    if handle is not None:
        handle.interrupt()
        guard = handle.alone(seconds)
    with guard as is_alone:
        if handle is not None and is_alone:
            handle.roll_back()
        if closes_connections and is_alone and leak.proxied is not None:
            leak.proxied.invalidate()
    leak.entry.invalidate(soft=True)
    return is_alone


def end_leaks(leaks: list[Checkout]) -> None:
    """End leaked transactions, and close their connections.

    Otherwise the pools lack these connections, and the garbage collector warns in a later test.
    pytest-arena also resets the sessions, which do not notice that the connection was closed.
    """
    sessions = _sessions_on(leaks)
    if end_transactions(leaks, closes_connections=True):
        for session in sessions:
            with suppress(Exception):  # a thread of the test uses the session
                session.reset()


def end_connections(gate: Gate, fixture: Owner) -> None:
    """Close the connections that tasks and threads of a wider fixture keep after its tear-down."""
    checkouts = gate.registry.checked_out()
    left = [
        checkout
        for checkout in checkouts
        if checkout.owner is fixture and checkout.is_in_background
    ]
    end_transactions(left, closes_connections=True)


def empty_sessions() -> list[str]:
    """Expunge the objects that a test or a wider fixture left in sessions that outlive it.

    Otherwise the next test would read them, or write the pending ones. Return the name of the class
    of each pending object.
    """
    emptied = []
    for session in sessions_in_use():
        emptied += _empty_session(session)
        # Otherwise this variable keeps the last session alive, so that it counts as open below.
        del session
    numbers = session_numbers()
    return [kind for number, kind in emptied if number in numbers]


def _empty_session(session: Session) -> list[tuple[int, str]]:
    if is_used_by_wide_fixture(session):
        return []
    pending = [
        instance for instance in unflushed([session]) if not has_outer_owner(instance)
    ]
    with suppress(Exception):  # a task may use the session
        has_connection = any(held is session for held, _ in held_by_sessions())
        if not (outlives_tests(owner_of_session(session)) or has_connection):
            session.reset()
        _forget_instances(session)
    return [(session.hash_key, type(instance).__name__) for instance in pending]


def _forget_instances(session: Session) -> None:
    """Expunge the instances of a test. Expire the others, whose rows may be restored.

    An async session cannot load an expired attribute when it is read, so its other instances keep
    their values.
    """
    is_async = async_session(session) is not None
    for instance in [*session]:
        if not has_outer_owner(instance):
            session.expunge(instance)
        elif inspect(instance).persistent and not is_async:
            session.expire(instance)


def leak_error(leaks: list[Checkout], raw: Sequence[str] = ()) -> ConnectionLeak:
    """Return the error for transactions. It contains the lines of their first writes.

    ``raw`` has the lines of lost writes by connections that no engine has opened.
    """
    what = "the test ended with an open transaction"
    lines = {*_lines_of(leaks), *raw}
    if len(lines) > 1:
        what += f" ({len(lines)} places)"
    return ConnectionLeak(
        what,
        why="the next test would wait for its lock",
        cause=lines_of_error(lines),
        fix=_next_after(leaks),
    )


def warn_of_idle(ledger: Ledger, leaks: list[Checkout]) -> None:
    """Warn of connections that were not returned to their pools."""
    fix = _next_after(leaks)
    for leak in leaks:
        ledger.warn(
            LeakWarning,
            "the test ended with a connection that was not returned to its pool, and "
            "pytest-arena closed it",
            cause=_line_to_blame(leak),
            fix=fix,
        )


def _next_after(leaks: list[Checkout]) -> str:
    fix = (
        "`async with session:` / `with engine.connect() as connection:`, or close it in a "
        "fixture's tear-down"
    )
    if _sessions_on(leaks):
        fix += ". For a scoped_session: Session.remove()"
    this_thread = threading.get_ident()
    elsewhere = [leak.request for leak in leaks if leak.thread != this_thread]
    if any(elsewhere):
        fix += ". For a job that a request has begun: await arena.settled()"
    if None in elsewhere:
        fix += ". For a thread that the test has begun: thread.join()"
    return fix


def raw_leak_error(lines: list[str]) -> ConnectionLeak:
    """Return the error for uncommitted writes of connections that no engine has opened."""
    return ConnectionLeak(
        "the test ended with an open transaction, of a connection that no engine has opened",
        why="pytest-arena rolls it back, so that no other connection ever sees its rows",
        cause=lines_of_error(lines),
        fix="connection.commit(), or close the connection in a fixture's tear-down",
    )


def error_of_open_transactions(gate: Gate, level: str) -> IsolationError:
    """Return the error for the open transactions of engines and of drivers."""
    return error_of_holders(open_transactions(gate), level, raw_transactions())


def error_of_holders(
    holders: Iterable[Checkout], level: str, raw: Iterable[str] = ()
) -> IsolationError:
    """Return the error for the open transaction of a wider fixture.

    ``raw`` has the lines of connections that no engine has opened.
    """
    return IsolationError(
        f"{level}: an open transaction of a wider fixture is in the way",
        why="pytest-arena cannot restore the database while a transaction holds its lock",
        cause=lines_of_error([*_lines_of(holders), *raw]),
        fix="commit, or roll back, before the fixture's `yield`",
    )


def _lines_of(checkouts: Iterable[Checkout]) -> Iterator[CodeLine | str]:
    return map(_line_to_blame, checkouts)


def _line_to_blame(checkout: Checkout) -> CodeLine | str:
    """Return the line of the first write in the open transaction, or the line of the checkout."""
    writes = checkout.pending_writes
    # Prefer the write: the checkout may be of an earlier test, if a session outlives its test.
    if writes is not None and not writes.is_over and writes.line is not None:
        return writes.line
    return checkout.line or "a line that cannot be seen"
