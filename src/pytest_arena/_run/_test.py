"""The running test: its clients, sessions and requests."""

from __future__ import annotations

import threading
from asyncio import run_coroutine_threadsafe, wait_for, wrap_future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import proxy

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from pytest_arena._app._entry import in_one_line
from pytest_arena._config._load import blame
from pytest_arena._databases._sessions import Sessions
from pytest_arena._gate._listeners import gate
from pytest_arena._gate._registry import RunningStatements, has_changed_tests_session
from pytest_arena._ledger import LIFESPAN, READING, Request, route_of
from pytest_arena._origin import REQUEST, line_of_task, line_of_thread
from pytest_arena._owner import JOBS, OWNER, Job, Owner
from pytest_arena._process import (
    alive,
    async_rest,
    context_of,
    rest,
    running_loop,
    seconds,
)
from pytest_arena.errors import ArenaError, PendingWorkError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable, Callable, Mapping
    from traceback import TracebackException

    from pytest_arena._app._app_run import AppRun
    from pytest_arena._app._apps import AppState
    from pytest_arena._databases._resolver import Databases
    from pytest_arena._gate._lost_writes import Uncommitted
    from pytest_arena._gate._registry import PendingWrites
    from pytest_arena._ledger import Ledger
    from pytest_arena._product import Database
    from pytest_arena._run._expect import Block
    from pytest_arena._run._leaks import Tasks
    from pytest_arena._values import CodeLine, Plan


class Watcher(Protocol):
    """Observes tests. Only runs with scenarios have one."""

    def asserted(self, place: str, text: str) -> None:
        """Called when an assertion has passed."""

    def settled(self, errors: list[BaseException]) -> list[BaseException]:
        """Called at the end of a test. Returns the errors to raise."""


@dataclass(frozen=True, slots=True)
class StoryMoment:
    """A point in time between two requests, in each database that existed."""

    levels: tuple[Owner, ...]
    times: Mapping[Database, object]  # None if reading the time failed or costs too much

    @classmethod
    def now(cls, databases: Databases) -> StoryMoment:
        """Return the time in each database that has content. Never raises."""
        times: dict[Database, object] = {}
        for database, isolation in databases.provisioned.items():
            times[database] = None
            with suppress(Exception):  # else the request would fail
                times[database] = isolation.moment()
        return cls(tuple(databases.levels), times)

    def knows(self, database: Database) -> bool:
        """Return whether the changes of this database before and after this time can be read."""
        return database not in self.times or self.times[database] is not None


@dataclass(slots=True, eq=False)
class Turn:
    """One request, or several requests that ran at the same time and have one set of changes."""

    before: StoryMoment | None  # None if pytest-arena has forgotten it
    after: StoryMoment | None = None  # None while the requests run
    records: list[Request] = field(default_factory=list)
    is_at_once: bool = False
    # The number of the run's checkouts before the turn.
    checkouts_before: int = 0
    has_checked_out: bool = True  # whether code has checked out a connection. Known at the end
    # The uncommitted writes when the turn began.
    held: set[PendingWrites] = field(default_factory=set)


_SHARES_SESSION = (
    "{test}: the app wrote in the test's session and left the transaction open. The app shares "
    "the test's session, so this test cannot find a forgotten commit. next: remove the override, "
    "or the app context, that gives the app this session, or an object of it"
)
_CHANGED_BY_TEST = (
    "{{test}}: it changed {0} in db_session, and {1} wrote nothing. The commit before the request "
    "wrote the change, so this test cannot find a request that does nothing. next: send the new "
    "value without changing the object. If the request needs the change: db_session.commit() first"
)
_UPDATING = frozenset({"PUT", "PATCH"})
_REPEATED = (307, 308)  # redirects that repeat the request
_ADVICE = (
    "join the thread, await the job or the task, or wait for the queue (await queue.join()), "
    "before that test ends"
)
_PATIENCE = 1.0  # seconds
_STEP = 0.0002  # seconds between two looks for work
_KEPT = 40  # the number of last turns whose changes can be read


@dataclass(eq=False)
class RunningTest(Owner):
    """A test that runs, with its clients, its sessions and its requests.

    A request costs at most one query to each database before it and one after it. A database
    that no connection uses meanwhile gets no query.
    """

    is_test = True

    plan: Plan
    patience: float  # seconds that its end waits for late work
    tasks: Tasks
    databases: Databases
    ledger: Ledger
    aclose_redis: Callable[[], Awaitable[None]]
    faults: list[Callable[..., Any]] = field(default_factory=list)
    request: Any = None  # pytest's request of the test's fixtures
    app_state: AppState | None = None  # when the test's level was entered
    sessions: Sessions = field(init=False)
    # Errors that the app has raised, with its requests. Of one that it has answered, a traceback
    # without frames: a frame would keep a session of the app alive.
    app_errors: list[tuple[Request, Exception | TracebackException]] = field(default_factory=list)
    # Its requests, with those of logins and of nested levels, and the lifespan.
    records: list[Request] = field(default_factory=list)
    # The requests of the level on top, with logins: a nested level begins without requests.
    requests_of_level: list[Request] = field(default_factory=list)
    losses: list[Uncommitted] = field(default_factory=list)
    # The runs of the app that the fixture `arena_app` returns. Clients use the last one.
    app_runs: list[AppRun] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    under_way: int = 0  # the number of requests without an answer
    is_changed: bool = False  # whether it changed a database
    errors: list[BaseException] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    replay: Any = None  # the `Replay` of a test that runs again
    race: Any = None  # the `Race` or `Attempt` that runs, or has failed: they import this module
    has_level: bool = False  # whether its level was entered once
    is_set_up: bool = False  # whether pytest calls the test function
    # Whether its end has begun. Only after the wait for its work it is over (`is_over`), and later
    # it is no longer the current test.
    settled: bool = False
    loop: AbstractEventLoop | None = None  # the loop of the test's coroutine
    # Set when the test fails: lines of uncommitted work, and of late work.
    uncommitted: list[str] | None = None
    unfinished: list[CodeLine | str] | None = None
    # Whether a request may have begun work for which no one has waited.
    may_have_late_work: bool = False
    # The lines of work that was cancelled, or still ran when the test stopped waiting.
    cut_off: dict[CodeLine | str, None] = field(default_factory=dict)
    # The errors of its tasks and callbacks that no code has retrieved, with their lines.
    failures: dict[str, CodeLine | None] = field(default_factory=dict)
    failed: bool = False
    # The classes of existing rows that the commit before the next request changes.
    changed_rows: set[str] = field(default_factory=set)
    thread: int = field(default_factory=threading.get_ident)  # of pytest
    # Sync clients may be called in several threads.
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # The base is no dataclass: an `Owner` has values that its makers do not give.
        super().__init__(self.plan.name, _ADVICE)
        self.stage = self.plan.stage
        self.isolation = self.plan.isolation
        # By a cycle the test and its app would stay until the next garbage collection.
        self.sessions = Sessions(partial(RunningTest.start_app, proxy(self)))

    # Work of requests that runs after their answers: tasks in the loops in which the app answers,
    # the user's threads, and jobs of pools.

    def note_failure(self, error: object) -> None:
        """Note an error that a task or a callback of this work has raised."""
        # pytest-arena reports an ArenaError elsewhere.
        if isinstance(error, Exception) and not isinstance(error, ArenaError):
            self.failures[in_one_line(error)] = blame(error)

    def note_failed_tasks(self) -> None:
        """Note the errors of tasks that have failed and that no code has awaited.

        A reference of the app, or a cycle, may keep such a task alive. Otherwise a collection
        would report it in a later test, or while pytest formats a traceback.
        """
        for task in alive(self.request_tasks):
            if task.done() and task._log_traceback:  # noqa: SLF001 - no other name
                self.note_failure(task.exception())

    def _jobs(self) -> list[Job]:
        """Return the unfinished threads and jobs of this test's requests."""
        jobs = [job for job in alive(JOBS) if job.is_unfinished]
        return [job for job in jobs if job.owner is self and job.request is not None]

    def unfinished_work(self) -> list[CodeLine | str]:
        """Return the lines of the requests' tasks, threads and jobs that still run, each once."""
        # Look at jobs before and after the tasks, because a task may begin a job and end in
        # between.
        jobs = self._jobs() if JOBS else []
        lines: list[CodeLine | str] = []
        for task in self.tasks.of(self, self.tasks.loops()):
            request = context_of(task).get(REQUEST)
            if request is not None and not request.is_open:
                lines.append(line_of_task(task))
        jobs += self._jobs() if JOBS else []
        lines += filter(None, map(JOBS.get, jobs))  # of the code that has begun them
        return list(dict.fromkeys(lines))

    # Waits. Each returns the lines of the work that still runs after its time.

    def wait_for_work(self, patience: float) -> list[CodeLine | str]:
        """Wait until no work runs."""
        end = seconds() + patience
        while True:
            lines = self.unfinished_work()
            if not lines or seconds() >= end:
                return lines
            self.tasks.run_idle_loops()
            rest(_STEP)

    async def await_work(self, patience: float) -> list[CodeLine | str]:
        """Wait in a loop like `wait_for_work`."""
        end = seconds() + patience
        while True:
            await async_rest(0)
            lines = self.unfinished_work()
            if not lines or seconds() >= end:
                return lines
            rest(_STEP)  # not a sleep of the loop, whose clock a test may have stopped

    # Called around the test function.

    def begin_call(self) -> None:
        """Note the loop of the test's coroutine."""
        self.loop = running_loop()
        self.tasks.record_loop()

    def end_set_up(self) -> None:
        """Note that the set-up of the function fixtures has ended."""
        self.is_set_up = True

    # The app of a test that uses a client starts before the test's first line, or earlier at the
    # first statement of `db_session`. Then the start-up sees no rows of the test. In a test
    # without a client, no session starts the app.

    @property
    def has_app(self) -> bool:
        """Whether its app has started, or needs no start."""
        return bool(self.app_runs) and self.app_runs[-1].is_started

    @property
    def will_start_app(self) -> bool:
        """Whether the next statement of `db_session` starts the app."""
        return self.plan.starts_app and not self.has_app

    def start_app(self) -> None:
        """Start the app before the first row of `db_session`, like in production."""
        if not self.will_start_app:
            return
        if in_greenlet():
            await_only(self.astart())
        elif self.app_runs and not self.plan.is_async:  # that one starts it in its loop
            self.app_runs[-1].join()

    async def astart(self) -> None:
        """Start the app in the running loop."""
        if self.plan.starts_app and self.app_runs:
            await self.app_runs[-1].astart()

    async def asettle(self) -> list[CodeLine | str]:
        """Wait for the work that the test's requests have begun. Return what still runs.

        An async test waits in its loop, any other test in `Levels.settle_test`.
        """
        lines = await self.await_work(self.patience) if self.may_have_late_work else []
        self.cut_off |= dict.fromkeys(lines)
        self.may_have_late_work = False
        return lines

    async def aclose(self) -> None:
        """Close the sessions and shut down the apps, which need the loop."""
        if self.sessions.opened:
            await self.sessions.aclose()
        for app_run in self.app_runs:
            await app_run.aclose()
        await self.aclose_redis()

    # The commit of pending work: before a request, a login or a block, and by `arena.settled()`.
    # It runs where the client calls: there a failure names the line of the test.

    def commit(self, *, is_sync_only: bool = False) -> None:
        """Commit pending work of sync sessions. Refuse other work, unless ``is_sync_only``."""
        if self.sessions.opened:
            self.changed_rows |= self.sessions.changes()
            self.sessions.commit_sync_sessions()
            if not is_sync_only:
                self.sessions.refuse_pending()

    async def acommit(self) -> None:
        """Commit pending work in this loop, if it runs in the test's thread.

        In another thread, commit async sessions in the loop of the test, unless a sync client
        blocks this loop.
        """
        if not self.sessions.opened:
            return
        self.changed_rows |= self.sessions.changes()
        if threading.get_ident() == self.thread:
            self.sessions.commit_sync_sessions()
            await self.sessions.acommit_async_sessions()
            return
        # The client has called the app in this process, and waits.
        if OWNER.get() is not None:
            self.sessions.commit_sync_sessions()
        loop = self.loop
        if loop is not None and loop.is_running() and self.sessions.has_async_work:
            commit = run_coroutine_threadsafe(self.sessions.acommit_async_sessions(), loop)
            with suppress(TimeoutError):
                await wait_for(wrap_future(commit), _PATIENCE)
        try:
            self.sessions.refuse_pending(line_of_thread(self.thread))
        except PendingWorkError as error:
            self.ledger.refused(error)  # a client may turn the error into an answer
            raise

    def begin_lifespan(self) -> Request:
        """Note that the app is about to start. Return the record of its lifespan."""
        record = Request(method=LIFESPAN, path="of the app")
        self.records.append(record)
        return record

    def requests(self) -> list[Request]:
        """Return the requests of the test, also of nested levels, without logins."""
        return [each for each in self.records if each.method != LIFESPAN and not each.is_login]

    def begin_request(self, request: Request) -> None:
        """Begin a request: in a new turn, or in the present turn if other requests are open."""
        if running_loop() is not self.loop:
            self.tasks.record_loop()
        self.may_have_late_work = True
        if gate.registry.schedule is not None:
            gate.registry.schedule.note_request(request)
        with self._lock:
            if self.under_way:
                self.turns[-1].is_at_once = True
            else:
                self._begin_turn()
            self.under_way += 1
            self.turns[-1].records.append(request)
            self.requests_of_level.append(request)
        self.records.append(request)

    def _begin_turn(self) -> None:
        before = StoryMoment.now(self.databases)
        registry = gate.registry
        registry.running = RunningStatements()
        self.turns.append(
            Turn(before, checkouts_before=registry.checkouts, held=registry.pending_writes())
        )
        if len(self.turns) > _KEPT:
            # The moments may hold the content of a database.
            self.turns[-_KEPT - 1].before = None
            self.turns[-_KEPT - 1].after = None

    def end_request(self, request: Request) -> None:
        """End a request, and the turn if this was its last open request."""
        gate.registry.running.end(request)
        # The test's sessions had no pending work when the request began.
        is_shared = self.sessions.pending() or has_changed_tests_session(request)
        if is_shared and not request.is_refused:
            self.ledger.note(_SHARES_SESSION)
        if self.changed_rows:
            self._note_changed_rows(request)
        with self._lock:
            self.under_way -= 1
            if not self.under_way:
                turn = self.turns[-1]
                late = gate.registry.running.late
                turn.is_at_once |= bool(late)
                turn.records += dict.fromkeys(late)
                turn.after = StoryMoment.now(self.databases)
                turn.has_checked_out = gate.registry.checkouts > turn.checkouts_before

    def _note_changed_rows(self, request: Request) -> None:
        """Note a request that wrote nothing, after a commit of the test's changes of rows."""
        is_skipped = request.is_login or request.method in READING
        if is_skipped or request.status in _REPEATED:
            return
        names = ", ".join(sorted(self.changed_rows))
        self.changed_rows.clear()
        is_silent = not (request.has_written or gate.registry.has_raw)
        if is_silent and not request.is_refused and request.method in _UPDATING:
            self.ledger.note(_CHANGED_BY_TEST.format(names, route_of(request)))

    def take_lost(self) -> None:
        """Take the new lost writes."""
        works = gate.lost.by_level
        for level in [each for each in works if each.is_test]:  # its own, and those inside of it
            self.losses += [work for work in works.pop(level) if work.is_lost]

    def turn_of(self, request: object) -> Turn | None:
        """Return the turn of a request, None for a request of another test."""
        for turn in self.turns:
            if request in turn.records:
                return turn
        return None

    def forget(self) -> None:
        """Forget its requests, because their moments may hold the content of a database."""
        self.turns.clear()
        self.under_way = 0


class Current:
    """The running test."""

    def __init__(self) -> None:
        self.test: RunningTest | None = None
        self.in_teardown = False  # whether pytest tears fixtures down

    def required_test(self) -> RunningTest:
        """Return the running test. pytest sets up fixtures only during a test."""
        return cast("RunningTest", self.test)
