"""Who notes what a test does, from its first fixture to the end of its call?"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    Select,
    String,
    Table,
    TypeDecorator,
    Uuid,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.engine.cursor import CursorFetchStrategy
from sqlalchemy.orm import object_session
from sqlalchemy.types import TypeEngine

from pytest_arena._app._login import is_logging_in
from pytest_arena._databases._resolver import Level
from pytest_arena._databases._sessions import FreshSession
from pytest_arena._gate._writes import Doings, watch_statements
from pytest_arena._ledger import Request
from pytest_arena._process import seconds as now
from pytest_arena._run._run import ArenaRun
from pytest_arena.scenarios._breakage import Breaking
from pytest_arena.scenarios._door import AppDoor, is_by_itself, request_now
from pytest_arena.scenarios._log import (
    MOST_ROWS,
    Log,
    Reading,
    Row,
    bare,
    better,
    unknown,
)
from pytest_arena.scenarios.evidence._document import Facts
from pytest_arena.scenarios.specs._specification import (
    Pairs,
    ScenarioSpec,
    Specification,
    literals,
)


class Instruments:
    """Notes the facts of tests that prove a scenario. Never fails a test."""

    breaking: Breaking | None = None  # a test is run again with something broken
    _wide: dict[Level, Counter[str]]  # rows of wider fixtures' levels

    def __init__(self, run: ArenaRun) -> None:
        self.run = run
        self.door = AppDoor(lambda: run.apps, self)
        self.specification: Specification | None = None
        self.log: Log | None = None
        self.wants_bodies = False  # whether what was sent may hold one of the literals
        self.off: dict[str, str] = {}
        """What does not work in this run, and why: what it would tell is unknown, and not no."""
        self._facts: Facts | None = None
        self._wide = {}
        self._literals: tuple[str, ...] = ()
        self._wanted_by: dict[object, tuple[str, ...]] = {}
        self._doings: dict[Level, Doings] = {}  # of the levels that stand
        self._end_watching: Callable[[], None] | None = None

    # What the run tells.

    @property
    def is_rehearsing(self) -> bool:
        """Whether the test that runs is run again: nobody is told of it."""
        return self.breaking is not None

    def settled(self, errors: list[Exception]) -> list[Exception]:
        """The test is over. Returns those of its errors of which somebody is to be told."""
        if self.breaking is None:
            return errors
        self.breaking.errors += errors
        return []

    def uses_app(self, app: object) -> None:
        """Clients are about to talk to this app."""
        self.door.watch(app)

    def remember(self) -> Callable[[], object]:
        """Return what ends an example of Hypothesis', and has the next one begin where it did.

        Each is a whole test, and the best of them tells.
        """
        log = self.log
        if log is None:
            return list
        requests, answered, blocks = len(log.requests), log.answered, len(log.blocks)
        steps = len(log.steps)

        def restore() -> None:
            self._facts = self._told(log)
            del log.requests[requests:], log.blocks[blocks:], log.steps[steps:]
            log.answered, log.heard, log.values, log.assertions = answered, {}, {}, 0

        return restore

    def close(self) -> None:
        """The run is over: everything is as it was before."""
        self.log = None
        self.door.close()
        if self._end_watching is not None:
            self._end_watching()
            self._end_watching = None

    # What the plugin calls.

    def expect(self) -> None:
        """Tests of scenarios are to come: see what makes an app, and what wider fixtures do.

        Their first user may be a test that proves nothing.
        """
        if self._end_watching is None:
            self._end_watching = watch_statements(self._doings_now)
        self.door.open()

    def begin_test(
        self,
        scenarios: tuple[ScenarioSpec, ...],
        fixture_names: frozenset[str],
        *,
        rows: frozenset[Pairs] = frozenset(),
    ) -> None:
        """In set-up: from here on note what the test does, which is to prove these.

        Of an Outline it may prove some of the rows alone.
        """
        self.expect()
        self._doings = {
            level: one for level, one in self._standing() if level in self._doings
        }
        self.log, self._facts = Log(scenarios, fixture_names), None
        key = (tuple((one.key, one.rev) for one in scenarios), rows)
        if key not in self._wanted_by:
            texts = (text for one in scenarios for text in literals(one, rows))
            self._wanted_by[key] = tuple(dict.fromkeys(texts))
        self._literals = self._wanted_by[key]
        self.wants_bodies = bool(self._literals)

    def begin_call(self) -> None:
        """Fixtures are set up: what is asserted from here on counts."""
        if self.log is not None:
            self.log.in_call = True

    def end_call(self, fixture_names: Iterable[str]) -> None:
        """The test's function is over, its level still stands: read what can be read only now.

        It has asked for these fixtures as well, while it ran.
        """
        if (log := self.log) is not None:
            log.fixture_names |= frozenset(fixture_names)
            log.in_call = False
            self._facts = self._told(log)
            log.values = {}  # what the test still holds is nobody's any more

    def take(self) -> Facts | None:
        """Return the facts of the test, once; None where its call was never reached."""
        facts, self._facts, self.log = self._facts, None, None
        return facts

    def mask(self) -> Callable[[str], str]:
        """Return what takes out of a text what the test or the app wrote into secret columns."""
        asked = (*self.log.requests, *self.log.logins) if self.log else ()
        sides = [*self._doings.values(), *(one.doings for one in asked)]
        return self.run.moments.mask.without(
            named for one in sides for named in one.named
        )

    def _told(self, log: Log) -> Facts:
        if not log.requests and (
            doubt := self.door.doubt(has_asked_another=log.has_asked_another)
        ):
            log.off.setdefault("requested", doubt)
        doings = dict(self._standing())
        self._wide = {
            level: rows for level, rows in self._wide.items() if level in doings
        }
        off = log.off | self.off
        reading = Reading(
            self.run, log, doings, self._literals, self._wide, off, self.mask()
        )
        try:
            return better(reading.facts(), self._facts)
        except Exception as error:  # noqa: BLE001 - a test never fails by who watches it
            return unknown(error)

    # What a test tells.

    def asserted(
        self,
        place: str,
        text: str,
        values: Sequence[object] = (),
        *,
        is_idle: bool = False,
    ) -> None:
        """An assertion has passed. What a login function asserts is not the test's.

        Values are those of its parts, and of what stands around it. An idle one could not have
        failed, whatever its text looks like.
        """
        log = self.log
        if log is not None and log.in_call and not is_logging_in():
            log.passed(place, text, values if self._literals else (), is_idle=is_idle)

    def is_as_seeded(self, value: object) -> bool:
        """Whether it is an instance in a session of the test's by which nobody has read since.

        Neither the test itself, nor an app that works by the test's own session. Of one that is in
        none it is not known who has read it.
        """
        if (
            not hasattr(value, "_sa_instance_state")
            or self.log is None
            or self.run.test is None
        ):
            return False
        is_ours = isinstance(object_session(value), FreshSession)
        return is_ours and self.run.test.sessions.reads() == self.log.reads

    def written_by_test(self) -> int:
        """Rows that the test's side has written, or has pending, and clients that log in."""
        test = self.run.test
        if test is None:
            return 0
        rows = sum(one.executed for level, one in self._standing() if level.is_test)
        logins = sum(app_run.logged_in for app_run in test.app_runs)
        return rows + logins + test.sessions.pending()

    # What statements tell.

    def _doings_now(self) -> Doings | None:
        request = request_now()
        if request is not None:
            doings: Doings = request.doings
            return doings
        levels = self.run.databases.levels
        if not levels or self.run.databases.build() is not None:
            return None  # of a template, which the test may have to wait for
        if levels[-1].is_test and self.log is None:
            return None  # of a test that proves no scenario
        own = self._doings_of(levels[-1])
        return own.of_the_app() if is_by_itself() else own

    def _standing(self) -> list[tuple[Level, Doings]]:
        return [(level, self._doings_of(level)) for level in self.run.databases.levels]

    def _doings_of(self, level: Level) -> Doings:
        if level not in self._doings:
            self._doings[level] = Doings()
        return self._doings[level]

    # What requests tell.

    def wants(self, app: object) -> bool:
        """Whether a test runs that is to be watched, and this is the app that it is about."""
        # What a wider fixture asks is no request of the test's.
        if self.log is None or self.run.current.on_top() is None:
            return False
        is_it = self.door.is_under_test(app)
        self.log.has_asked_another |= not is_it
        return is_it

    def begins(self, request: Request) -> None:
        """A request is about to be answered."""
        request.doings = Doings(answers=Answers())
        try:
            self._note(request)
        except Exception as error:  # noqa: BLE001 - a request never fails by who watches it
            if self.log is not None:
                self.log.off["requested"] = f"a request could not be noted: {error!r}"
        if self.breaking is not None:
            self.breaking.begins(request)

    def _note(self, request: Request) -> None:
        test, log = self.run.test, self.log
        if log is None or test is None:
            return
        if request.is_login:
            log.logins.append(request)
        if not request.is_counted:
            return
        request.number, request.is_preparation = len(log.requests), log.is_preparing
        under_way = [one for one in log.requests if not one.is_over]
        request.is_at_once = bool(under_way)
        for one in under_way:
            one.is_at_once = True
        if all(one.is_preparation for one in log.requests):
            log.reads = test.sessions.reads()
        last = log.requests[-1] if log.requests else None
        log.requests.append(request)
        if not test.under_way:  # no client of the test's own: theirs, a wide fixture's
            log.of_others.add(request)
            request.began = now()
            test.begins()
        request.turn = test.turns[-1]
        if last is not None and last.turn is request.turn:  # a redirect
            request.since = last.until = self.run.moments.now()
        standing = [one for _, one in self._standing()]
        request.marks = {one: len(one.written) for one in standing}
        request.doings.see_pending(standing)

    def sending(self, request: Request, send: Any) -> Any:
        """Return what the app is to send its answer by."""
        return send if self.breaking is None else self.breaking.sending(request, send)

    def answers(self, request: Request) -> None:
        """What is asserted from here on comes after it, also while a websocket is open."""
        if self.log is not None and request.number >= 0 and not request.is_answered:
            request.is_answered = True
            self.log.answered += 1

    def ends(self, request: Request) -> None:
        """A request is over, with all that the app does after its answer."""
        if self.breaking is not None:
            self.breaking.ends(request)
        self.answers(request)
        test, log = self.run.test, self.log
        if test is not None and log is not None and request in log.of_others:
            log.of_others.remove(request)
            request.seconds = now() - request.began
            test.answered(request)
            test.ended()


# What are the queries of a request given?

_Columns = tuple[tuple[int, str, str], ...]  # of a row: place, table, key


@dataclass(slots=True, eq=False)
class Answers:
    """The rows that the queries of one request were given, as far as they can be heard."""

    given: dict[str, list[dict[str, dict[str, object]]]] = field(default_factory=dict)
    """By statements: of each row, by tables, what it holds of their columns."""

    def listen(self, statement: str, context: Any) -> None:
        """A statement has been run: note what is fetched of a query."""
        if (
            type(getattr(context, "cursor_fetch_strategy", None))
            is not CursorFetchStrategy
        ):
            return  # rows that are not read from a cursor
        if not (context.is_crud or _STREAMED & context.execution_options.keys()):
            columns = _columns(context.compiled)
            context.cursor_fetch_strategy = _Heard(
                partial(self._hear, statement, columns)
            )

    def _hear(
        self, statement: str, columns: _Columns, rows: Iterable[Sequence[object]]
    ) -> None:
        given = self.given.setdefault(statement, [])
        for row in islice(rows, MOST_ROWS):
            found: dict[str, dict[str, object]] = defaultdict(dict)
            for place, table, key in columns:
                found[table][key] = row[place]
            given.append(found)

    def may_hold(self, statement: str, table: str, seeded: Sequence[Row]) -> bool:
        """Whether a statement may have been given one of the rows of a table."""
        given = self.given.get(statement)
        if given is None or len(given) >= MOST_ROWS:
            return True
        held = [row.get(table, {}) for row in given]
        return any(_are_alike(row, one) for row in held for one in seeded or [{}])


class _Heard(CursorFetchStrategy):
    """Fetches as SQLAlchemy does, and tells of the rows."""

    __slots__ = ("_hear",)

    def __init__(self, hear: Callable[[Iterable[Any]], None]) -> None:
        self._hear = hear

    def fetchone(self, *args: Any, **named: Any) -> Any:
        row = super().fetchone(*args, **named)
        self._hear([] if row is None else [row])
        return row

    def fetchmany(self, *args: Any, **named: Any) -> Any:
        rows = super().fetchmany(*args, **named)
        self._hear(rows)
        return rows

    def fetchall(self, *args: Any) -> Any:
        rows = super().fetchall(*args)
        self._hear(rows)
        return rows


_STREAMED = frozenset({"stream_results", "yield_per"})


@lru_cache(maxsize=1_000)  # SQLAlchemy keeps what it has compiled as well
def _columns(compiled: Any) -> _Columns:
    """Return of which tables' columns a query gives the values as they stand."""
    if not isinstance(getattr(compiled, "statement", None), Select):
        return ()  # a text, a union
    found = (
        (place, _column(one.objects))
        for place, one in enumerate(
            compiled._result_columns  # noqa: SLF001 - no public attribute has them
        )
    )
    columns = [(place, one) for place, one in found if one is not None]
    if len({one for _, one in columns}) < len(columns):
        return ()  # a table that is joined with itself
    return tuple((place, bare(one.table.name), one.key) for place, one in columns)


def _column(objects: Iterable[object]) -> Column[Any] | None:
    elements = (one for one in objects if isinstance(one, ColumnElement))
    match [*{base for one in elements for base in one.base_columns}]:
        case [Column(table=Table()) as column] if _is_plain(column.type):
            return column
    return None  # what is computed, or of several columns


def _is_plain(kind: TypeEngine[Any]) -> bool:
    """Whether what is read has the text of what was written."""
    if isinstance(kind, TypeDecorator):
        changes = type(kind).process_bind_param is not TypeDecorator.process_bind_param
        return not changes and _is_plain(kind.impl_instance)
    return isinstance(kind, String | Integer | Uuid) and not isinstance(kind, EnumType)


def _are_alike(row: Row, seeded: Row) -> bool:
    """Whether no column tells them apart."""
    return all(
        _plain(row[key]) == _plain(seeded[key]) for key in row.keys() & seeded.keys()
    )


def _plain(value: object) -> str:
    """SQLite has a UUID without hyphens, PostgreSQL fills a CHAR up."""
    return str(value).replace("-", "").rstrip()
