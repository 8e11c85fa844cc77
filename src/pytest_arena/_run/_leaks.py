"""After a test: is everything given back, and if not, who has it?"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import inspect
from sqlalchemy.orm.session import (
    _sessions,
)  # close_all_sessions, its public user, closes them all

from pytest_arena._app._client import HOPS
from pytest_arena._gate._orm_sessions import (
    held_by_sessions,
    session_numbers,
    sessions_in_use,
    unflushed,
)
from pytest_arena._gate._registry import entry_of
from pytest_arena._origin import (
    CHILDREN,
    IDLE_WORKERS,
    NOBODYS,
    OUR_TASK,
    PIECES,
    WORK,
    Piece,
    is_of,
    line_of,
    line_of_coroutine,
    outermost,
    users_frames,
)
from pytest_arena._process import (
    alive,
    context_of,
    innermost_frames,
    rest,
    running_loop,
    seconds,
    until,
)
from pytest_arena._run._long_sessions import loaded_values
from pytest_arena.errors import ConnectionLeak, IsolationError, LateWorkError

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator
    from types import FrameType

    from sqlalchemy.orm import Session

    from pytest_arena._gate._listeners import Gate
    from pytest_arena._gate._pooled import Checkout
    from pytest_arena._values import CodeLine

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


_KNOWN_CHILD_PATIENCE = 0.25  # seconds, if the line of a child process is known
_PATIENCE = (
    1.0  # seconds for who is inside of a connection, or for a task that is cancelled
)


@dataclass(frozen=True, slots=True)
class HeldByFixtures:
    """What wider fixtures held already when a test began: it is theirs, and no leak."""

    transactions: list[Checkout] = field(default_factory=list)
    writes: int = 0  # in these
    sessions: frozenset[int] = frozenset()
    threads: frozenset[int] = (
        frozenset()
    )  # a server's, a worker's: they go on over the tests
    # SQLAlchemy's states of the instances in each session that is in use.
    instances: dict[int, WeakSet[Any]] = field(default_factory=dict)
    # The instances in pytest-arena's sessions, with the values of their attributes.
    values: dict[int, WeakKeyDictionary[Any, dict[str, Any]]] = field(
        default_factory=dict
    )

    @classmethod
    def now(cls, gate: Gate, sessions_of_tests: Collection[int] = ()) -> HeldByFixtures:
        """Look around. Costs a microsecond for each open session.

        One that an earlier test has left, in a registry, is no fixture's.
        """
        sessions = session_numbers()
        is_nothing = not sessions and not gate.registry.taken()
        if is_nothing and threading.active_count() == 1:
            return NOTHING_HELD
        threads = _threads_of_others(
            threading.get_ident(), *map(_known_by, threading.enumerate())
        )
        if is_nothing:
            return threads
        begun = open_transactions(gate)
        writes = sum(one.writes for one in begun) if begun else 0
        in_use = sessions_in_use()
        held = {session.hash_key: WeakSet(map(inspect, session)) for session in in_use}
        sessions = sessions.difference(sessions_of_tests)
        return cls(
            begun, writes, sessions, threads.threads, held, loaded_values(in_use)
        )

    def without(self, others: HeldByFixtures) -> HeldByFixtures:
        """Return what is held here and not there."""
        begun = [one for one in self.transactions if one not in others.transactions]
        writes, known = sum(one.writes for one in begun), others.instances
        left = {
            key: held.difference(known.get(key, ()))
            for key, held in self.instances.items()
        }
        left = {key: held for key, held in left.items() if held or key not in known}
        sessions, threads = (
            self.sessions - others.sessions,
            self.threads - others.threads,
        )
        values = {key: self.values[key] for key in left if key in self.values}
        return HeldByFixtures(begun, writes, sessions, threads, left, values)

    def sessions_since(self) -> frozenset[int]:
        """Return those that are there now and were not there then."""
        return session_numbers().difference(self.sessions)


NOTHING_HELD = HeldByFixtures()
_known_by = attrgetter("ident", "name")


@lru_cache(1)  # most often they are those of the test before
def _threads_of_others(here: int, *threads: tuple[int | None, str]) -> HeldByFixtures:
    others = {number or 0 for number, name in threads if name not in NOBODYS}
    return HeldByFixtures(threads=frozenset(others - {here}))


def is_anything_there(gate: Gate, tasks: Tasks) -> bool:
    """Whether there is a session, a connection or a loop, in which something can be left."""
    return bool(session_numbers() or gate.registry.taken() or tasks.loops())


def connection_leaks(gate: Gate, serial: int, before: HeldByFixtures) -> list[Checkout]:
    """Return what a test has left: connections that it took, transactions that it began."""
    if gate.registry.taken() and _left_by(gate, serial, before):
        gc.collect()  # what only a reference cycle keeps is given back when the collector runs
        return _left_by(gate, serial, before)
    return []


def _left_by(gate: Gate, serial: int, before: HeldByFixtures) -> list[Checkout]:
    out = gate.registry.taken()
    taken = [
        checkout
        for checkout in out
        if _is_of_a_test(checkout) or not is_of(checkout.thread, before.threads)
    ]
    begun = [
        one for one in taken if one.in_transaction and one not in before.transactions
    ]
    idle = [one for one in taken if one.serial == serial and one not in begun]
    held = (
        _entries_of(before.sessions) + gate.registry.entries_of_others(serial)
        if idle
        else []
    )
    return begun + [one for one in idle if one.entry not in held]


def _is_of_a_test(checkout: Checkout) -> bool:
    """Return whether a test, or its request, has begun the work that holds a connection.

    The age of the thread does not decide: an older thread of the app's pool may run a test's job.
    """
    return checkout.work is not None


def _entries_of(numbers: Container[int]) -> list[object]:
    """Return the pool's entries that sessions of these numbers hold.

    A session takes its connection when it is used: one that a wide fixture has made takes it in
    a test, and keeps it after a SELECT.
    """
    return [
        entry_of(held)
        for session, held in held_by_sessions()
        if session.hash_key in numbers
    ]


def _sessions_on(leaks: list[Checkout]) -> list[Session]:
    entries = [leak.entry for leak in leaks]
    return [
        session for session, held in held_by_sessions() if entry_of(held) in entries
    ]


def open_transactions(gate: Gate) -> list[Checkout]:
    """Return the connections out of their pools that have begun to write."""
    return [taken for taken in gate.registry.taken() if taken.in_transaction]


def end_transactions(leaks: Iterable[Checkout], *, is_closed: bool = False) -> bool:
    """Roll transactions back, so that no lock outlives the test; whoever holds them may go on.

    His statement is ended, and waited for: a connection is not touched while he is inside of it.
    Returns whether nobody is.
    """
    inside = [leak for leak in leaks if not _is_ended(leak, 0, is_closed=is_closed)]
    # Who waited for the lock of one of the others has it by now.
    return not [
        one for one in inside if not _is_ended(one, _PATIENCE, is_closed=is_closed)
    ]


def _is_ended(leak: Checkout, seconds: float, *, is_closed: bool) -> bool:
    handle = leak.handle
    if handle is not None:
        handle.interrupt()
    with (
        handle.alone(seconds) if handle else nullcontext(enter_result=True) as is_alone
    ):
        if handle is not None and is_alone:
            handle.roll_back()
        if is_closed and is_alone and leak.proxied is not None:
            leak.proxied.invalidate()
    leak.entry.invalidate(soft=True)
    return is_alone


def take_back(leaks: list[Checkout]) -> None:
    """Close leaked connections, and give their places back to the pools.

    Else the pool would be one short, and the garbage collector complain in a later test. A session
    that somebody keeps begins anew: it would not know that its connection is gone.
    """
    sessions = _sessions_on(leaks)
    if end_transactions(leaks, is_closed=True):
        for session in sessions:
            with suppress(Exception):  # a thread of the test's is inside it
                session.reset()


def empty_sessions(before: HeldByFixtures) -> list[str]:
    """Have the sessions of a test begin anew: the next one would write what waits in them.

    Returns its classes. A session that nobody keeps, but for its own transaction, is gone then.
    """
    emptied = [each for one in sessions_in_use() for each in _emptied(one, before)]
    return [kind for number, kind in emptied if number in _sessions]


def _emptied(session: Session, before: HeldByFixtures) -> list[tuple[int, str]]:
    frames = (frame for stack in _threads_at_work().values() for frame in stack)
    if any(session is one for frame in frames for one in [*frame.f_locals.values()]):
        return []  # a thread goes on with it over the test's end
    held = before.instances.get(session.hash_key)
    waiting = [one for one in unflushed([session]) if inspect(one) not in (held or ())]
    with suppress(Exception):  # a task is inside it
        if held is None and session not in [one for one, _ in held_by_sessions()]:
            session.reset()  # asks nobody, as no connection is there
        # A wider fixture's goes on with what that has put there.
        deque(map(session.expunge, filter(session.__contains__, waiting)), maxlen=0)
    return [(session.hash_key, type(one).__name__) for one in waiting]


def leak_error(leaks: list[Checkout]) -> ConnectionLeak:
    """Return the error that names who took the connections."""
    wrote = [leak for leak in leaks if leak.in_transaction]
    what = "an open transaction" if wrote else "a connection that was not given back"
    lines = sorted(
        {str(leak.line or "a line that cannot be seen") for leak in wrote or leaks}
    )
    scoped = "; of a scoped_session: Session.remove()" if _sessions_on(leaks) else ""
    here = threading.get_ident()
    is_of_a_job = any(
        isinstance(leak.work, LateWork) and leak.thread != here for leak in leaks
    )
    waits = (
        ", of a job that a request has begun: await arena.settled()"
        if is_of_a_job
        else ""
    )
    return ConnectionLeak(
        f"the test ended with {what}"
        + (f" ({len(lines)} places)" if len(lines) > 1 else ""),
        why="the next test would wait for its lock, or lose the connection from the app's pool",
        cause="\n".join(lines[:4]),
        fix="`async with session:` / `with engine.connect() as connection:`, or close it in a "
        f"fixture's tear-down{scoped}{waits}",
    )


def lost_error(holders: Iterable[Checkout], level: str) -> IsolationError:
    """Return the error that names whose open transaction stood in the way."""
    lines = sorted(
        {str(holder.line or "a line that cannot be seen") for holder in holders}
    )
    return IsolationError(
        f"{level}: an open transaction of a wider fixture stands in the way",
        why="the database cannot be brought back while somebody holds its lock",
        cause="\n".join(lines[:4]),
        fix="commit, or roll back, before the fixture's `yield`",
    )


class OwnWork:
    """Threads, jobs of pools and tasks that a test has begun itself, and not by a request.

    The test does not wait for them. Once it is over, they get no connection and send no statement.
    """

    def __init__(self, late_work: LateWork) -> None:
        self._late_work = late_work

    @property
    def is_over(self) -> bool:
        """Whether the test is over."""
        return self._late_work.is_over

    @property
    def owner(self) -> str:
        """The words for this work in a message to a later test."""
        return "a thread, a job or a task that an earlier test had begun"

    @property
    def ending(self) -> str:
        """The next step in a message about this work."""
        return "join the thread, or await the job or the task, before that test ends"

    def is_given_to(self, _: asyncio.AbstractEventLoop) -> bool:
        """Return False: the test does not wait for its calls into loops."""
        return False


class LateWork:
    """The work that the requests of one test have begun, and that goes on after their answers.

    That is tasks in the loops in which the app has answered, and what was given to threads, also
    what still waits for one, or for its time. A library's own thread is known by the user's code
    on its stack. What was at work when the first request came is the app's own, or a fixture's.
    """

    def __init__(self, patience: float, endless: set[str]) -> None:
        self.is_over = False  # the test is
        self.own = OwnWork(self)
        self._patience = patience  # seconds
        self._endless = (
            endless  # lines that were waited for in vain: once is enough for a run
        )
        self._tasks_before: dict[
            asyncio.AbstractEventLoop, WeakSet[asyncio.Task[Any]]
        ] = {}
        self._loops_elsewhere: dict[asyncio.AbstractEventLoop, None] = {}
        self._threads_before: frozenset[int] = frozenset()
        self.cut_off: list[str] = []
        # The frames of the threads that worked when it was cut off. None before the test waited.
        self._threads_cut_off: dict[int, FrameType] | None = None

    def serving(self) -> None:
        """In the app's loop, before it answers."""
        loop = running_loop()
        if loop is not None and loop not in self._tasks_before:
            if not self._tasks_before:
                self._threads_before = frozenset(
                    {*_threads_at_work(), *_threads_in_greenlets()}
                )
            self._tasks_before[loop] = WeakSet(asyncio.all_tasks(loop))

    def is_given_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Note that this work calls into a loop. Return whether the app answers in another loop."""
        is_elsewhere = loop not in self._tasks_before
        if is_elsewhere:
            self._loops_elsewhere[loop] = None
        return is_elsewhere

    @property
    def has_begun(self) -> bool:
        """Whether a request was served, or something given to a thread."""
        return bool(self._tasks_before or self._pieces())

    def _pieces(self) -> list[Piece]:
        return [
            piece
            for piece in alive(PIECES)
            if piece.work is self and not piece.is_ended
        ]

    def lines(self) -> list[str]:
        """Return where each stands that still works: none, where no request was served."""
        if not self.has_begun:
            return []
        here = asyncio.current_task() if running_loop() else None
        # Before tasks and threads are looked at, and after: each may take a job, begin another
        # one, and end meanwhile.
        begun = self._lines_of_pieces()
        tasks = [
            task
            for loop, before in [
                *self._tasks_before.items()
            ]  # another loop may begin to serve
            if not loop.is_closed()
            for task in asyncio.all_tasks(loop)
            if task is not here and task not in IDLE_WORKERS and _is_the_users(task)
            # What serves the first request is there when that is begun.
            if (hops := context_of(task).get(HOPS) or ()) or task not in before
            if not any(one.is_open for one in hops)
        ]
        of_tasks = [
            line_of_coroutine(task.get_coro()) or task.get_name() for task in tasks
        ]
        of_tasks += self._lines_elsewhere()
        at_work = {thread: line_of(one[0]) for thread, one in self.threads().items()}
        passed_over = at_work.keys() | _threads_among(alive(IDLE_WORKERS))
        begun |= self._lines_of_pieces()
        of_pieces = [
            line for piece, line in begun.items() if piece.thread not in passed_over
        ]
        return list(map(str, [*of_tasks, *at_work.values(), *of_pieces]))

    def _lines_of_pieces(self) -> dict[Piece, object]:
        lines = {piece: PIECES.get(piece) for piece in self._pieces()}
        return {piece: line for piece, line in lines.items() if line is not None}

    def unfinished(self) -> list[str]:
        """Return the lines of unfinished work that a test may wait for, each once."""
        return [
            line for line in dict.fromkeys(self.lines()) if line not in self._endless
        ]

    def _lines_elsewhere(self) -> Iterator[CodeLine]:
        """Yield the lines of its tasks in loops in which the app does not answer.

        Such a loop has other tasks too. The context of a task shows whether it is of this work.
        """
        for loop in [*self._loops_elsewhere]:
            if loop.is_closed() or loop in self._tasks_before:
                continue
            for task in asyncio.all_tasks(loop):
                if task in IDLE_WORKERS:
                    continue
                line = line_of_coroutine(task.get_coro())
                if line is not None and context_of(task).get(WORK) is self:
                    yield line

    def end(self, late: dict[int, FrameType]) -> None:
        """The test is over: nothing of it begins any more, and what goes on has no connection.

        ``late`` is told at what a thread is that somebody else has begun: a library's.
        """
        self.is_over = True
        working = self._work_of_threads()
        cut_off = working if self._threads_cut_off is None else self._threads_cut_off
        # Since then a thread may have begun work of another test.
        late.update(
            {key: frame for key, frame in working.items() if cut_off.get(key) is frame}
        )
        self._threads_cut_off = None
        for piece in self._pieces():
            if not piece.is_job:
                piece.cancel()

    def children_left(self) -> list[str]:
        """Return the lines that have begun child processes which still run."""
        children = [child for child in CHILDREN if child.work in (self, self.own)]
        if not children:
            return []
        CHILDREN[:] = [child for child in CHILDREN if child not in children]
        patience = self._patience
        if self._endless.issuperset(str(child.line) for child in children):
            patience = min(patience, _KNOWN_CHILD_PATIENCE)
        until(
            lambda: not any(child.is_running() for child in children), within=patience
        )
        lines = [str(child.line) for child in children if child.is_running()]
        self._endless.update(lines)
        return lines

    def cancel_jobs(self) -> None:
        """Cancel the jobs that still wait for a thread of their pool.

        A coroutine in another thread's loop may await one. It then ends, and returns its
        connection. So this is called once the connections that the test has left are known.
        """
        for piece in self._pieces():
            piece.cancel()

    def threads(self) -> dict[int, list[FrameType]]:
        """Return the threads that still work, with the frames of the user's code.

        A worker that waits for its next job does not work.
        """
        found = _threads_at_work() if self._tasks_before else {}
        passed_over = self._threads_before | _threads_among(alive(IDLE_WORKERS))
        return {key: found[key] for key in found if not is_of(key, passed_over)}

    def _work_of_threads(self) -> dict[int, FrameType]:
        """Return the threads that still work, with the outermost frame of the user's code."""
        return {thread: stack[-1] for thread, stack in self.threads().items()}

    def settled(self, patience: float | None = None) -> None:
        """As ``waiting``."""
        deque(self.waiting(patience), maxlen=0)

    async def asettled(self, patience: float | None = None) -> None:
        """As ``waiting``, in a loop."""
        for _ in self.waiting(patience):
            await asyncio.sleep(0)

    def pausing(self) -> Iterator[None]:
        """Pause shortly while work runs that may end, at most ``arena_settle`` seconds.

        The test goes on after it. ``unfinished`` returns the lines that still run.
        """
        end = seconds() + self._patience
        while self.unfinished() and seconds() < end:
            rest(_STEP)
            yield

    def take_endless(self) -> list[str]:
        """Return the lines that still run. No test waits for them again."""
        lines = self.unfinished()
        self._endless.update(lines)
        return lines

    def waiting(self, patience: float | None = None) -> Iterator[None]:
        """Pause shortly, as long as something works and the time is not up.

        Without a time of its own it is the end of the test: what works then is cut off.

        Raises:
            LateWorkError: it goes on after the time that was given.
        """
        endless = self._endless if patience is None else set()
        end = seconds() + (self._patience if patience is None else patience)
        while not endless.issuperset(left := self.lines()) and seconds() < end:
            rest(_STEP)  # the loop's own clock may be one that a test has stopped
            yield
        if patience is None:
            self.cut_off += left
            self._threads_cut_off = self._work_of_threads() if left else {}
            self._endless.update(left)
        elif left:
            raise late_error(
                left, f"work that a request had begun goes on after {patience:g} s"
            )


_STEP = 0.0002  # seconds


def _threads_at_work() -> dict[int, list[FrameType]]:
    tops = innermost_frames()
    del tops[
        threading.get_ident()
    ]  # of this stack: a cycle, which would keep its callers' too
    tops.pop(
        threading.main_thread().ident or 0, None
    )  # no request's, and its stack is deep
    found = dict(zip(tops, map(users_frames, tops.values()), strict=True))
    return {ident: stack for ident, stack in found.items() if stack}


def _threads_among(workers: Iterable[object]) -> set[int]:
    return {
        worker.ident or 0 for worker in workers if isinstance(worker, threading.Thread)
    }


def _threads_in_greenlets() -> set[int]:
    """Those of which only SQLAlchemy's part is seen: the user's code that calls it is below."""
    main = threading.main_thread().ident or 0  # as above
    roots = {n: outermost(top) for n, top in innermost_frames().items() if n != main}
    return {
        main,
        *(n for n, root in roots.items() if root.f_code.co_name != "_bootstrap"),
    }


def _is_the_users(task: asyncio.Task[Any]) -> bool:
    """Neither ours, nor what is left of a connection of aiosqlite that was cancelled in the middle.

    SQLAlchemy stops its thread, and a task of its own waits for that in vain.
    """
    name = getattr(task.get_coro(), "__name__", "")
    return task.get_name() != OUR_TASK and name != "_terminate_graceful_close"


def late_error(lines: Iterable[str], what: str) -> LateWorkError:
    """Return the error that names the work which a request had begun."""
    return LateWorkError(
        what,
        why="what it had still to write is missing, and no test has seen whether it works",
        cause="\n".join(sorted(set(lines))[:4]),
        fix="await arena.settled()   before you look at what it does (or a longer arena_settle)",
    )


class Tasks:
    """The tasks that tests, and what they called, start in their event loops.

    A loop that ends with the test ends its tasks, as asyncio does. One that lives on would let
    them write into the next test: what a test has started ends with it, whatever the loop. What
    is there when a loop is first seen, or comes with a wider fixture, stays.
    """

    def __init__(self) -> None:
        self._threads: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = (
            WeakKeyDictionary()
        )
        self._known: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._of_fixtures: WeakSet[asyncio.Task[Any]] = WeakSet()

    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """Return those that were seen."""
        return alive(self._threads)

    def see(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Know this loop, or the one that runs here; harmless where none does, as under trio."""
        loop = loop or running_loop()
        if loop is not None and loop not in self._threads:
            self._threads[loop] = threading.get_ident()
            self._known.update(asyncio.all_tasks(loop))

    @contextmanager
    def of_a_wide_fixture(self) -> Iterator[None]:
        """Around its set-up: the tasks that this starts are not the test's."""
        before = set(self._present())
        try:
            yield
        finally:
            self._known.update(task for task in self._present() if task not in before)

    def begin_example(self) -> None:
        """In the test's own loop, before its coroutine: what runs already is its fixtures'."""
        self.see()
        self._of_fixtures = WeakSet(self._present())

    async def aend_of_example(self) -> None:
        """In the loop, between two examples of one test: cancel those that the example began."""
        if (loop := running_loop()) is not None:
            kept = {asyncio.current_task(), *self._of_fixtures}
            left = [task for task in self._left(loop) if task not in kept]
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=_PATIENCE)

    def go_on(self) -> bool:
        """Let idle loops of this thread do what they have to do now. Returns whether there are."""
        here = threading.get_ident() if running_loop() is None else None
        known = list(self._threads.items())
        idle = [
            loop for loop, thread in known if thread == here and not loop.is_closed()
        ]
        for loop in idle:
            loop.call_soon(loop.stop)
            loop.run_forever()
        return bool(idle)

    def end(self) -> list[str]:
        """Cancel those that still run in loops that are idle; return a line for each."""
        lines: list[str] = []
        # This thread may run none of another thread's, and none inside another loop.
        here = threading.get_ident() if running_loop() is None else None
        for loop in self.loops():
            if loop.is_closed():
                self._threads.pop(
                    loop, None
                )  # nothing runs in it any more, whoever keeps it
                continue
            left = self._left(loop) if self._threads.get(loop) == here else []
            for task in left:
                lines.append(str(line_of_coroutine(task.get_coro()) or task.get_name()))
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=_PATIENCE))
        return lines

    def _left(self, loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
        return [
            it
            for it in asyncio.all_tasks(loop)
            if it not in self._known and _is_the_users(it)
        ]

    def _present(self) -> Iterator[asyncio.Task[Any]]:
        for loop in list(self._threads):
            yield from asyncio.all_tasks(loop)
