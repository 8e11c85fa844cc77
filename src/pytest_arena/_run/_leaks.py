"""Finds and ends what a test leaves: work, tasks, connections, transactions, sessions."""

from __future__ import annotations

import gc
import sys
import threading
from asyncio import all_tasks, current_task, run_coroutine_threadsafe
from asyncio import wait as wait_for_tasks
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy.ext.asyncio import async_session
from sqlalchemy.orm import scoped_session

from pytest_arena._app._entry import in_one_line
from pytest_arena._config._load import blame
from pytest_arena._gate._connections import (
    held_by_sessions,
    record_of,
    sessions_in_use,
    sessions_on,
)
from pytest_arena._origin import (
    OUR_TASK,
    REQUEST,
    line_of,
    line_of_coroutine,
    users_frames,
)
from pytest_arena._owner import (
    JOBS,
    OWNER,
    Job,
    Owner,
    is_runner_of_anyio,
    outlives_tests,
    owner_of,
)
from pytest_arena._process import (
    AnyTask,
    alive,
    async_rest,
    context_of,
    innermost_frames,
    rest,
    running_loop,
    seconds,
)
from pytest_arena._product import raw_transactions
from pytest_arena.errors import ConnectionLeak, IsolationError, LateWorkError
from pytest_arena.warnings import LateWorkWarning, LeakWarning

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from pytest_arena._gate._connections import PooledConnection
    from pytest_arena._gate._listeners import Gate
    from pytest_arena._ledger import Ledger
    from pytest_arena._values import CodeLine

__tracebackhide__ = True  # tracebacks end at the user's line


# Work of requests that runs after their answers.

_STEP = 0.0002  # seconds between two looks

# The passes for which each wait in a loop lets it run first. A due callback may begin a task.
_PASSES = 2

_MOST_LINES = 4


def lines_of_error(lines: Iterable[object]) -> str:
    """Return the first lines for an error, sorted and each once."""
    return "\n".join(sorted(set(map(str, lines)))[:_MOST_LINES])


class TestOwner(Owner):
    """A test, with the work that its requests begin and that runs after their answers.

    These are tasks in the loops in which the app answers, the user's threads, and jobs of pools.
    """

    def __init__(self, name: str, serial: int, patience: float) -> None:
        advice = (
            "join the thread, await the job or the task, or wait for the queue (await "
            "queue.join()), before that test ends"
        )
        super().__init__(name, advice, serial)
        # The lines of work that was cancelled, or still ran when the test stopped waiting.
        self.cut_off: list[CodeLine | str] = []
        # The errors of its tasks and callbacks that no code has retrieved, with their lines.
        self.failures: dict[str, CodeLine | None] = {}
        self.patience = patience  # seconds
        # The loops in which the app has answered.
        self._loops: WeakSet[AbstractEventLoop] = WeakSet()

    def note_request(self) -> None:
        """Note that the app is about to answer a request here."""
        loop = running_loop()
        if loop is not None:
            self._loops.add(loop)

    def note_failure(self, error: Exception) -> None:
        """Note an error that a task or a callback of this work has raised."""
        self.failures[in_one_line(error)] = blame(error)

    @property
    def has_begun(self) -> bool:
        """Whether the app answered a request, or a thread or a pool got work."""
        return bool(self._loops or self._jobs())

    def _jobs(self) -> list[Job]:
        """Return the unfinished threads and jobs of this test's requests."""
        jobs = []
        for job in alive(JOBS) if JOBS else ():
            if job.owner is self and job.request is not None:
                jobs.append(job)
        return jobs

    def unfinished(self) -> list[CodeLine | str]:
        """Return the lines of the requests' tasks, threads and jobs that still run, each once."""
        # Look at jobs before and after the tasks, because a task may begin a job and end in
        # between.
        jobs = self._jobs()
        lines: list[CodeLine | str] = []
        this_task = current_task() if running_loop() else None
        for loop in alive(self._loops):
            for task in () if loop.is_closed() else all_tasks(loop):
                if task is not this_task and self._is_of_request(task):
                    lines.append(line_of_coroutine(task.get_coro()) or task.get_name())
        jobs += self._jobs()
        stacks = innermost_frames() if jobs else {}
        for job in dict.fromkeys(jobs):
            begun_at = JOBS.get(job)
            if begun_at is not None:
                frames = users_frames(stacks.get(job.thread))
                innermost = frames[0] if frames else None
                lines.append(line_of(innermost) or begun_at)
        return list(dict.fromkeys(lines))

    def _is_of_request(self, task: AnyTask) -> bool:
        if not is_users_task(task):
            return False
        context = context_of(task)
        request = context.get(REQUEST)
        if request is None or request.is_open:
            return False
        return context.get(OWNER) is self

    def note_cancelled(self, lines: Iterable[CodeLine | str]) -> None:
        """Note the lines of requests and tasks that were cancelled before they finished."""
        for line in lines:
            if line not in self.cut_off:
                self.cut_off.append(line)

    def end_work(self) -> None:
        """End this work with its test: cancel its queued jobs, and refuse it connections."""
        self.end()
        for job in self._jobs():
            job.cancel()

    # Waits. Each returns the lines of the work that still runs after its time.

    def wait_for_work(self, patience: float | None = None) -> list[CodeLine | str]:
        """Wait until no work runs, by default for at most ``arena_settle`` seconds."""
        end = seconds() + (self.patience if patience is None else patience)
        while True:
            lines = self.unfinished()
            if not lines or seconds() >= end:
                return lines
            rest(_STEP)

    async def await_work(self, patience: float | None = None) -> list[CodeLine | str]:
        """Wait in a loop like `wait_for_work`."""
        end = seconds() + (self.patience if patience is None else patience)
        while self.has_begun:
            for _ in range(_PASSES):
                await async_rest(0)
            lines = self.unfinished()
            if not lines or seconds() >= end:
                return lines
            rest(_STEP)  # not a sleep of the loop, whose clock a test may have stopped
        return []

    def settled(self, patience: float) -> None:
        """Wait until the work of each line is done.

        Raises:
            LateWorkError: work still ran after ``patience`` seconds.
        """
        for loop in alive(self._loops):
            if loop.is_running() and loop is not running_loop():
                passes = run_coroutine_threadsafe(_let_pass(), loop)
                passes.result(patience)
        _refuse_unfinished(self.wait_for_work(patience), patience)

    async def asettled(self, patience: float) -> None:
        """Wait in a loop like `settled`."""
        _refuse_unfinished(await self.await_work(patience), patience)


def _refuse_unfinished(lines: list[CodeLine | str], patience: float) -> None:
    if lines:
        longer = max(60, patience * 2)
        raise LateWorkError(
            f"work that a request had begun still runs after {patience:g} s",
            why="the work may still have rows to write",
            cause=lines_of_error(lines),
            fix="begin endless work, such as a poller, in the app's lifespan: settled() does "
            f"not wait for it. For slow work: arena.settled({longer:g})",
        )


async def _let_pass() -> None:
    for _ in range(_PASSES):
        await async_rest(0)


# The functions of tasks that libraries start and that may outlive a request. SQLAlchemy closes a
# cancelled connection of aiosqlite in such a task. anyio's pytest plugin has a task that waits for
# the test or the fixture. The first stream of sse-starlette begins a task that waits until the
# server shuts down.
_NOT_OF_USERS = {
    "_terminate_graceful_close",
    "_call_in_runner_task",
    "_shutdown_watcher",
}


def is_users_task(task: AnyTask) -> bool:
    """Return whether a task may run the user's code. False for tasks of pytest-arena."""
    if task.get_name() == OUR_TASK or is_runner_of_anyio(task):
        return False
    coroutine = task.get_coro()
    name = getattr(coroutine, "__name__", "")
    return name not in _NOT_OF_USERS or line_of_coroutine(coroutine) is not None


# Seconds to wait for the end of cancelled tasks.
_CANCEL_PATIENCE = 1.0


class Tasks:
    """The tasks that tests and the app start in the event loops of tests.

    asyncio cancels the tasks of a loop that ends with the test. In other loops, tasks of the test
    could write in the next test, so pytest-arena cancels them.
    """

    def __init__(self) -> None:
        self._threads: WeakKeyDictionary[AbstractEventLoop, int] = WeakKeyDictionary()

    @property
    def has_loops(self) -> bool:
        """Whether pytest-arena has seen a loop that exists."""
        return bool(self._threads)

    def record_loop(self, loop: AbstractEventLoop | None = None) -> None:
        """Record this loop, or the running loop. Do nothing if no asyncio loop runs."""
        loop = loop or running_loop()
        if loop is not None and loop not in self._threads:
            self._threads[loop] = threading.get_ident()

    def run_idle_loops(self) -> None:
        """Run the idle loops of this thread once."""
        for loop in self._idle_loops():
            loop.call_soon(loop.stop)
            loop.run_forever()

    def _idle_loops(self) -> list[AbstractEventLoop]:
        """Return the open loops of this thread, none if a loop runs in it."""
        if running_loop() is not None:
            return []
        here = threading.get_ident()
        idle = []
        for loop in alive(self._threads):
            if loop.is_closed():
                self._threads.pop(loop, None)
            elif self._threads.get(loop) == here:
                idle.append(loop)
        return idle

    def end(self) -> list[CodeLine | str]:
        """Cancel the tasks that still run in idle loops. Return a line for each."""
        lines: list[CodeLine | str] = []
        for loop in self._idle_loops():
            unfinished = self._unfinished(loop)
            for task in unfinished:
                line = line_of_coroutine(task.get_coro())
                lines.append(line or task.get_name())
                task.cancel()
            if unfinished:
                loop.run_until_complete(
                    wait_for_tasks(unfinished, timeout=_CANCEL_PATIENCE)
                )
        return lines

    def _unfinished(self, loop: AbstractEventLoop) -> list[AnyTask]:
        unfinished = []
        for task in all_tasks(loop):
            owner = owner_of(task)
            if owner is not None and owner.is_test and is_users_task(task):
                unfinished.append(task)
        return unfinished


# Connections, transactions and sessions.


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
    sessions = sessions_on(leaks)
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
    return [checkout for checkout in checkouts if checkout not in held]


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
    if not outlives_tests(record_of(sessions()).owner):
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
    sessions = sessions_on(checkouts)
    held = [pooled for _, pooled in held_by_sessions()]
    end_transactions(each for each in checkouts if each not in held)
    # Outside of a loop, only an invalidated connection of an async driver sends nothing.
    of_sessions = [each for each in checkouts if each in held]
    end_transactions(of_sessions, closes_connections=True)
    for session in sessions:
        transaction = session.get_transaction()
        # A rollback would expire instances, which an async session cannot load again.
        if transaction is not None and async_session(session) is not None:
            transaction.close()
        else:
            session.rollback()


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
    if not (outlives_tests(record_of(session).owner) or has_connection):
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
