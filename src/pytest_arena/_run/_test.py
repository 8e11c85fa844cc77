"""Which test runs now, what belongs to it, and when were its requests made?"""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pytest_arena._app._app_errors import no_asyncio
from pytest_arena._app._client import AppWatcher, Hooks
from pytest_arena._databases._sessions import Sessions
from pytest_arena._gate._answers import RequestAnswer
from pytest_arena._gate._orm_sessions import session_numbers
from pytest_arena._gate.writes._lost_writes import LostObjects, LostWrite
from pytest_arena._origin import LOGINS
from pytest_arena._process import running_loop
from pytest_arena.errors import PendingWorkError, causes, impossible

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Container, Mapping
    from traceback import TracebackException

    from sqlalchemy.orm import InstanceState

    from pytest_arena._app._app_run import AppRun
    from pytest_arena._app._app_state import AppState
    from pytest_arena._app._exchange import Exchange
    from pytest_arena._changes import Mask
    from pytest_arena._databases._resolver import Databases, Level
    from pytest_arena._gate._listeners import Gate
    from pytest_arena._gate._pooled import PendingWrites
    from pytest_arena._ledger import Ledger, Request
    from pytest_arena._product import Database
    from pytest_arena._run.leaks._late_work import LateWork
    from pytest_arena._run.leaks._loop_tasks import Tasks
    from pytest_arena._values import Plan, TableRows


class Watcher(Protocol):
    """Wants to know what tests do, and may have one run again. Made only where scenarios are."""

    @property
    def app_watcher(self) -> AppWatcher:
        """What is called around each request to an app."""

    @property
    def is_rehearsing(self) -> bool:
        """Whether the test that runs is run again: nobody is told of it."""

    def uses_app(self, app: object) -> None:
        """Clients are about to talk to this app."""

    def asserted(self, place: str, text: str) -> None:
        """An assertion has passed."""

    def remember(self) -> Callable[[], object]:
        """Return what ends an example, and has the next one begin where the first did."""

    def settled(self, errors: list[Exception]) -> list[Exception]:
        """The test is over. Returns those of its errors of which somebody is to be told."""

    def close(self) -> None:
        """The run is over: everything is as it was before."""


@dataclass(frozen=True, slots=True)
class StoryMoment:
    """A point in time between two requests, in each database that was there."""

    levels: tuple[Level, ...]
    times: Mapping[Database, object]  # None where the isolation cannot tell cheaply

    def time_of(self, database: Database) -> object:
        """The time in one database; None, its beginning, where it was not there yet."""
        return self.times.get(database)

    def knows(self, database: Database) -> bool:
        """Whether it can be told what has changed in this database since, or until then."""
        return database not in self.times or self.times[database] is not None


class Moments:
    """The time as each database has it, and what has changed in between."""

    def __init__(self, databases: Databases, mask: Mask) -> None:
        self._databases = databases
        self.mask = mask

    def now(self) -> StoryMoment:
        """Ask each database that somebody has connected to. Never raises."""
        times: dict[Database, object] = {}
        for database in self._databases.provisioned():
            isolation = database.isolation
            try:
                times[database] = isolation.moment() if isolation is not None else None
            except Exception:  # noqa: BLE001 - a request must not fail since nobody could look at it
                times[database] = None
        return StoryMoment(tuple(self._databases.levels), times)

    def levels(self) -> tuple[Level, ...]:
        """Return the present levels, the lowest first."""
        return tuple(self._databases.levels)

    def used(self) -> list[Database]:
        """The databases that somebody has connected to."""
        return self._databases.provisioned()

    def rows(
        self,
        database: Database,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
        limit: int | None = None,
    ) -> list[TableRows]:
        """Return the changed rows of one database, none if no connection has used it."""
        if database.isolation is None:
            return []
        return database.isolation.rows_changed(since, until, depth=depth, limit=limit)


@dataclass(slots=True, eq=False)
class Turn:
    """Requests that ran at the same time. Their changes cannot be told apart."""

    before: StoryMoment | None  # None if pytest-arena has forgotten it
    after: StoryMoment | None = None  # None while the requests run
    records: list[Request] = field(default_factory=list)
    is_at_once: bool = False
    checkouts: int = 0  # of connections: before it, and once it is over, in it
    is_quiet: bool = False  # it has sent no statement
    lost: list[LostWrite | LostObjects] = field(default_factory=list)
    held: set[PendingWrites] = field(default_factory=set)  # by the test, before it

    @property
    def went_well(self) -> bool:
        """Whether each request has an answer that is no refusal: then its app meant to commit.

        One without requests has not: what ended in it had begun in an example that is over.
        """
        answers = [one.status for one in self.records]
        return bool(answers) and all(
            one is not None and one < REFUSAL for one in answers
        )


REFUSAL = 400
_PATIENCE = 1.0  # seconds
# The first and the last turns that a report lists one by one. It sums up the others.
FIRST = 6
LAST = 24
_KEPT = 100  # the last ones, of which it can be asked what they changed


@dataclass(slots=True, eq=False)
class RunningTest(Hooks):
    """What belongs to one test while it runs: clients and sessions, moments of its requests.

    Cost of a request: at most a question to each database before and after it; none where nobody
    has used it since the last one, or uses it before the test ends.
    """

    plan: Plan
    serial: int
    tasks: Tasks
    late_work: LateWork
    moments: Moments
    gate: Gate
    ledger: Ledger
    app_watcher: AppWatcher | None = None
    askers: Mapping[tuple[str, str], str] = field(
        default_factory=dict
    )  # before, and by whom
    client_options: Callable[[], Mapping[str, Any]] = (
        dict  # asks for the fixture of that name
    )
    app_states: list[AppState] = field(default_factory=list)
    sessions: Sessions = field(default_factory=Sessions)
    broken: list[tuple[str, Exception]] = field(
        default_factory=list
    )  # what the app has raised
    # Tracebacks without frames: a frame would keep a session of the app alive.
    handled_traces: list[tuple[str, TracebackException]] = field(default_factory=list)
    answers: list[tuple[Request, RequestAnswer]] = field(default_factory=list)
    # Also of the examples before the last one, whose turns are forgotten.
    lost: list[tuple[Request, LostWrite | LostObjects]] = field(default_factory=list)
    app_runs: list[AppRun] = field(
        default_factory=list
    )  # the last one is what clients talk to
    checkouts: int = 0  # of connections, before the test
    use_app: Callable[[], object] = bool  # asks for the fixture `arena_app`
    blocks: list[Callable[[], None]] = field(
        default_factory=list
    )  # of `expect_changes`: `begin`
    turns: list[Turn] = field(default_factory=list)
    has_app: bool = False  # clients talk to what the fixture `arena_app` is
    is_to_be_started: bool = False  # its app, whether or not a client asks it
    start_moment: StoryMoment | None = (
        None  # before its app started, if it had used connections
    )
    has_start_used_rows: bool = False  # whether the start-up used a connection
    under_way: int = 0  # how many requests are
    changed: list[str] = field(default_factory=list)  # names of databases
    of_fixtures: list[Exchange] = field(
        default_factory=list
    )  # requests that these have open
    errors: list[Exception] = field(default_factory=list)
    failed: bool = False
    has_level: bool = False  # it was entered once
    settled: bool = False
    is_used: bool = (
        True  # once it is settled: whether there was anything to end or to close
    )
    loop: AbstractEventLoop | None = None  # of its coroutine
    uncommitted: list[str] | None = None  # lines, from before its sessions were closed
    unfinished: list[str] | None = None  # lines of late work, from when it failed
    held: Container[InstanceState[Any]] | None = None  # by its sessions, when it failed
    _seen: int = -1  # how many checkouts there were when the last request ended
    _start_loop: AbstractEventLoop | None = (
        None  # the loop in which a session started its app
    )
    _start_checkouts: int = 0  # of connections, before the app started
    _of_app: set[PendingWrites] = field(
        default_factory=set
    )  # not committed, between requests
    # Sync clients may be called in several threads.
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # Around its coroutine, in the loop that it has.

    def begin_call(self) -> None:
        """What comes now is the test's own.

        Raises:
            ConfigError: it is no loop of asyncio's, and the test uses fixtures of ours.
        """
        if running_loop() is None and (self.app_runs or self.sessions.is_used):
            raise no_asyncio()
        self.tasks.see()
        self.loop = running_loop()
        self.of_fixtures = [
            one for app_run in self.app_runs for one in app_run.exchanges
        ]

    def start_early(self) -> None:
        """Have its app start at the first use of its sessions, or else before its function."""
        if self.app_runs[-1].has_lifespan and not self.plan.has_examples:
            self.is_to_be_started = True
            self.sessions.starter = self

    def start(self) -> bool:
        """Start the app of a sync test. Return False in an async test, whose loop does not run."""
        if self.plan.is_async:
            return False
        self.sessions.starter = None
        self.app_runs[-1].join({"backend": "asyncio"})
        return True

    async def astart(self) -> None:
        """Start its app in the running loop, if a fixture has asked for that."""
        if not self.is_to_be_started:
            return
        loop = running_loop()
        app_run = self.app_runs[-1]
        # A fixture may have a wider loop than the test, which does not run during the test.
        if self._start_loop is not None and self._start_loop is not loop:
            app_run.close_lifespans_in(self._start_loop)
        self._start_loop = loop
        self.sessions.starter = None
        await app_run.ajoin()

    def left_open(self) -> list[str]:
        """Return what of its own requests is open, a line for each."""
        open_requests = []
        for app_run in self.app_runs:
            for exchange in app_run.exchanges:
                if exchange not in self.of_fixtures:
                    open_requests.append(exchange.shown)
        return open_requests

    async def asettle(self) -> None:
        """At the end of its coroutine: end its requests, wait for the work that they have begun."""
        self.late_work.cut_off += self.left_open()
        for app_run in self.app_runs:
            await app_run.aclose_exchanges()
        await self.late_work.asettled()

    async def aclose(self) -> None:
        """Close what needs the loop."""
        if self.sessions.is_used:
            await self.sessions.aclose()
        for app_run in self.app_runs:
            await app_run.aclose()

    async def aclose_failed(self) -> None:
        """As ``aclose``; what fails is told at settling, beside the test's own failure."""
        try:
            await self.aclose()
        except Exception as error:  # noqa: BLE001 - kept, and raised by the tear-down
            self.errors.append(error)

    # What its clients tell.

    async def abefore(self) -> None:
        """Before a request of an async client."""
        if running_loop() is not self.loop:
            self.tasks.see()
        if self.sessions.is_used:
            is_alone = self._forget_lost()
            await self.sessions.acommit()
            if is_alone:
                self._refuse_lost()
        self.begins()

    def before(self, *, refuses: bool = True) -> None:
        """Before a request of a sync client."""
        if self.sessions.is_used:
            is_alone = self._forget_lost()
            with nullcontext() if refuses else suppress(PendingWorkError):
                self.sessions.commit()
                if is_alone:
                    self._refuse_lost()
        self.begins()

    def _forget_lost(self) -> bool:
        """Forget what the test itself has lost. Return False if requests are under way."""
        if self.under_way:
            return False
        self.take_lost()
        return True

    def _refuse_lost(self) -> None:
        """Raise a PendingWorkError if the commit of the test's sessions was a rollback."""
        for lost in self.gate.lost.take():
            if isinstance(lost, LostWrite) and lost.is_failed:
                raise PendingWorkError(
                    f"a statement of db_session failed after it wrote {', '.join(lost.tables)}",
                    why="the server rolls such a transaction back at its commit: the rows are lost",
                    cause=lost.line,
                    fix="with db_session.begin_nested():   around the statement that may fail "
                    "(`async with` in an async test)",
                )

    async def aserves(self) -> None:
        """Before a request by a socket: an async session is committed in the loop of the test.

        Not where that stands still, as in a test that waits for a sync client: it can never be.
        """
        if self.sessions.is_used and self.loop is not None and self.loop.is_running():
            commit = asyncio.run_coroutine_threadsafe(
                self.sessions.acommit(), self.loop
            )
            done, _ = await asyncio.wait(
                {asyncio.wrap_future(commit)}, timeout=_PATIENCE
            )
            for one in done:
                one.result()

    def starting(self) -> None:
        """Note that the app is about to start. Its start-up may see all rows written until now."""
        checkouts = self.gate.registry.checkouts
        if checkouts != self.checkouts and self.start_moment is None:
            self.start_moment = self.moments.now()
        self._start_checkouts = checkouts

    def started(self) -> None:
        """Note that the app is up."""
        if self.gate.registry.checkouts != self._start_checkouts:
            self.has_start_used_rows = True

    def begins(self) -> None:
        """A request is about to be sent; what is pending is committed."""
        with self._lock:
            if not self.under_way:
                self.take_lost()  # by the test itself, or after the last request
                registry = self.gate.registry
                is_quiet = registry.is_quiet
                last = self.turns[-1].after if self.turns else None
                # If nothing can have happened since the last request ended, that is the time.
                is_same = (
                    last is not None and is_quiet and registry.checkouts == self._seen
                )
                if last is None or not is_same or last.levels != self.moments.levels():
                    last = self.moments.now()
                turn = Turn(last)
                turn.checkouts = registry.checkouts
                turn.is_quiet = is_quiet
                if not is_quiet:
                    turn.held = self.own_writes()
                self.turns.append(turn)
                if (place := len(self.turns) - _KEPT) > FIRST:
                    old = self.turns[place]
                    old.before = old.after = None  # they may hold a database's content
            else:
                self.turns[-1].is_at_once = True
            self.under_way += 1

    def serving(self) -> None:
        """In the app's loop, before it answers."""
        self.late_work.serving()

    def requested(self, request: Request) -> None:
        """After a request."""
        self.ledger.requests.append(request)
        self.answered(request)

    def answered(self, request: Request) -> None:
        """A request has its answer, or a redirect on the way to it; by any client."""
        with self._lock:
            if self.under_way:
                request.turn = self.turns[-1]
                request.turn.records.append(request)

    def ended(self) -> None:
        """After a request and its redirects, with all that the app does after its answer."""
        with self._lock:
            if not self.under_way:  # of an example that is over
                return
            self.under_way -= 1
            if not self.under_way:
                turn = self.turns[-1]
                self.take_lost(turn)
                registry = self.gate.registry
                # In this order: later checkouts are counted, and present ones are seen.
                self._seen = registry.checkouts
                is_quiet = registry.is_quiet
                if not is_quiet:
                    self._seen = -1
                turn.after = self.moments.now()
                turn.checkouts = registry.checkouts - turn.checkouts
                turn.is_quiet &= not turn.checkouts
                if not is_quiet:
                    self._of_app |= self.own_writes() - turn.held

    def take_lost(self, turn: Turn | None = None) -> None:
        """Note what requests have lost, each with its own turn. ``turn`` is the one that ends.

        What the test itself has lost is forgotten.
        """
        if not self.gate.lost.losses:
            return
        for lost in self.gate.lost.take():
            request = self.request_of(lost)
            if request is not None:
                self._note_lost(request, lost)
            elif turn is not None and turn.went_well:
                turn.lost.append(lost)
                self.lost.append((turn.records[0], lost))

    def take_unclosed(self) -> None:
        """Note the objects that went with sessions which no request has closed."""
        for request, answer in self.answers:
            for pending in answer.unflushed:
                is_kept = pending.session in session_numbers()
                if not (is_kept or pending.is_given_up or pending.are_written):
                    line = str(pending.line or "a line that cannot be seen")
                    self._note_lost(request, LostObjects(str(pending), line, answer))
            answer.unflushed.clear()

    def _note_lost(self, request: Request, lost: LostWrite | LostObjects) -> None:
        status = request.status
        if status is None or status >= REFUSAL:
            return
        self.lost.append((request, lost))
        if request.turn is not None:
            request.turn.lost.append(lost)

    def request_of(self, lost: LostWrite | LostObjects) -> Request | None:
        """Return the request that has begun the work which lost something."""
        if lost.request is None:
            return None
        answers = (
            request for request, answer in self.answers if answer is lost.request
        )
        return next(answers, None)

    def answering(self, request: Request) -> RequestAnswer:
        """Note that the app begins to answer a request."""
        answer = RequestAnswer.begin()
        request.answer = answer
        request.statements = answer.statements
        request.is_login = bool(LOGINS.get())
        self.answers.append((request, answer))
        return answer

    def broke(self, request: str, error: Exception) -> None:
        """The app has raised instead of answering."""
        self.broken.append((request, error))

    def handled(self, request: str, trace: TracebackException) -> None:
        """The app has answered an exception that it did not expect."""
        self.handled_traces.append((request, trace))

    def was_broken_by(self, raised: BaseException) -> bool:
        """Return whether an error of the test is one that the app raised in a request."""
        raised_by_app = [error for _, error in self.broken]
        return any(
            cause is error for cause in causes(raised) for error in raised_by_app
        )

    # What else happens to it.

    def own_writes(self) -> set[PendingWrites]:
        """What it has written itself that stands uncommitted now."""
        writes = set()
        for checkout in self.gate.registry.taken():
            pending = checkout.connection.pending_writes
            if pending and pending not in self._of_app:
                writes.add(pending)
        return writes

    def enter(self, state: AppState) -> None:
        """Note that the test's level is entered, with the state of the app then."""
        self.has_level = True
        self.app_states = [state]

    def remember_app(self, *states: AppState) -> None:
        """Record the state of the app, which pytest-arena restores when the test ends."""
        self.app_states[:] = states

    def begin_anew(self) -> None:
        """The content is another one: what is under way asks what has changed since now."""
        with self._lock:
            self._seen = -1
            if self.under_way:
                self.turns[-1].before = self.moments.now()
        for begin in self.blocks:
            begin()

    def cut(self, number: int) -> None:
        """Forget all turns after the first so many."""
        with self._lock:
            for turn in self.turns[number:]:
                for (
                    record
                ) in turn.records:  # which an answer may keep until it is collected
                    record.turn = None
                turn.records.clear()
            del self.turns[number:]
            self.under_way = 0

    def has_changed(self, databases: list[str]) -> None:
        """These had changed when one of its levels was left."""
        for name in databases:
            if name not in self.changed:
                self.changed.append(name)


class Current:
    """The test that runs, if one does, and whether it is its turn."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self.test: RunningTest | None = None
        self.in_teardown = (
            False  # its fixtures, and maybe wider ones, are being finished
        )
        self.being_set_up: list[Any] = []  # wider fixtures, the innermost last

    def running(self) -> RunningTest:
        """Return the test, where there must be one: pytest sets fixtures up in a test."""
        if self.test is None:
            raise impossible("no test runs: a fixture was set up outside of any")
        return self.test

    def on_top(self) -> RunningTest | None:
        """Return the test if its level is on top, or its example's, and no wide fixture's."""
        levels = self._databases.levels
        if not levels:
            return None
        if levels[-1].serial > 0:
            return self.test
        # The level of a wide fixture is above the test's if the test wrote before it asked for it.
        is_over = self.test is None or self.test.settled
        is_below = any(level.owner is self.test for level in levels)
        return self.test if is_below and not (is_over or self.being_set_up) else None

    def owner(self) -> object:
        """Return whose level is on top."""
        levels = self._databases.levels
        return levels[-1].owner if levels else None
