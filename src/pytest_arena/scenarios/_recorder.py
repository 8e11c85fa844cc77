"""Records what a test of a scenario does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.orm import object_session

from pytest_arena._app._login import is_logging_in
from pytest_arena._changes import without_secrets_of
from pytest_arena._databases._sessions import FreshSession
from pytest_arena._gate.writes._statement_log import StatementLog, watch_statements
from pytest_arena._origin import REQUEST
from pytest_arena._process import seconds as now
from pytest_arena.scenarios._log import Log, holds_answer
from pytest_arena.scenarios._reading import (
    Reading,
    assertions_of,
    unknown,
    with_late_rows,
)
from pytest_arena.scenarios.requests._tracker import (
    RequestTracker,
    Send,
    is_in_lifespan,
    request_now,
)
from pytest_arena.scenarios.specs._specification import (
    Pairs,
    ScenarioSpec,
    Specification,
    literals,
)

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Sequence

    from pytest_arena._databases._resolver import Level
    from pytest_arena._run._run import ArenaRun
    from pytest_arena.scenarios._sabotaged_run import SabotagedRun
    from pytest_arena.scenarios.evidence._document import Facts
    from pytest_arena.scenarios.requests._record import RequestRecord


class EvidenceRecorder:
    """Records the facts of tests that prove a scenario. Never fails a test.

    It is the ``Watcher`` of the run and the listener of the request tracker.
    """

    def __init__(self, run: ArenaRun) -> None:
        self.run = run
        self.app_watcher = RequestTracker(lambda: run.apps, self)
        self.specification: Specification | None = None
        self.log: Log | None = None
        self.sabotaged_run: SabotagedRun | None = None
        """The sabotage of the repeated test."""
        self.wants_bodies = False
        """Whether the bodies of requests are searched for literals of the steps."""
        self.off: dict[str, str] = {}
        """The kinds of evidence that this run cannot record, each with the reason."""
        self._facts: Facts | None = None
        self._wide_rows: dict[Level, Counter[str]] = {}  # rows that wide fixtures wrote
        self._literals: tuple[str, ...] = ()
        self._statement_logs: dict[Level, StatementLog] = {}
        self._before_teardown = (0, 0)
        """The numbers of reads and writes of the test when its tear-down began."""
        self._stop_watching: Callable[[], None] | None = None

    def read_steps_of(self, specification: Specification) -> None:
        """Keep the specification. The blocks of a test name its steps."""
        self.specification = specification

    # Called by the run.

    @property
    def is_repeating(self) -> bool:
        """Whether the running test is repeated, unreported, under sabotage."""
        return self.sabotaged_run is not None

    def set_sabotage(self, sabotaged_run: SabotagedRun | None) -> None:
        """Set the sabotage of the next run of a test. None means no sabotage."""
        self.sabotaged_run = sabotaged_run

    def note_lost(self, words: str) -> None:
        """Record a write that a request of the test made and the app never committed."""
        if self.log is not None:
            self.log.lost.append(words)

    def settled(self, errors: list[Exception]) -> list[Exception]:
        """Return the errors to report for a settled test. A sabotaged run reports none."""
        if self.sabotaged_run is None:
            return errors
        self.sabotaged_run.keep(errors)
        return []

    def uses_app(self, app: object) -> None:
        """Track an app. Called before clients send requests to it."""
        self.app_watcher.watch(app)

    def close(self) -> None:
        """Remove all wrappers at the end of the run."""
        self.log = None
        self.app_watcher.close()
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None

    # Called by the plugin.

    def start_watching(self) -> None:
        """Begin to record the apps that a factory makes and the rows that wide fixtures write.

        Called before the first test. That test may set up a wide fixture and prove no scenario.
        """
        if self._stop_watching is None:
            self._stop_watching = watch_statements(self._current_statement_log)
        self.app_watcher.open()

    def begin_test(
        self,
        scenarios: tuple[ScenarioSpec, ...],
        fixture_names: frozenset[str],
        *,
        rows: frozenset[Pairs] = frozenset(),
    ) -> None:
        """Begin to record a test at its set-up.

        Args:
            scenarios: the scenarios that the test proves.
            fixture_names: the fixtures that it requests.
            rows: the rows of a Scenario Outline that it proves, or empty for all rows.
        """
        self.start_watching()
        levels = self.run.databases.levels
        self._statement_logs = {
            level: statement_log
            for level, statement_log in self._statement_logs.items()
            if level in levels
        }
        self._facts = None
        self.app_watcher.forget()
        self.log = Log(scenarios, fixture_names)
        texts: dict[str, None] = {}
        for scenario in scenarios:
            texts |= dict.fromkeys(literals(scenario, rows))
        self._literals = tuple(texts)
        self.wants_bodies = bool(self._literals)

    @property
    def lacks_assertions(self) -> bool:
        """Whether no assertion of the test was recorded."""
        return self.log is not None and not self.log.has_asserted

    @property
    def has_late_requests(self) -> bool:
        """Whether the tear-down has sent a request."""
        return self.log is not None and self.log.has_late_requests

    def note_unrecorded(self, reason: str) -> None:
        """Note why assertions were not recorded, or "" if there is no reason."""
        if self.log is not None and reason:
            self.log.off["asserted"] = reason

    def begin_call(self) -> None:
        """Count assertions from now on. The fixtures are set up."""
        if self.log is not None:
            self.log.begin_call()

    def end_call(self, fixture_names: Iterable[str]) -> None:
        """Read the facts at the end of the test's function, while its level still exists.

        Args:
            fixture_names: the fixtures that the test requested while it ran.
        """
        log = self.log
        if log is None:
            return
        log.end_call(fixture_names)
        self._facts = self._read_facts(log)
        log.forget_values()

    def begin_teardown(self) -> None:
        """Count assertions of the tear-down from now on."""
        if self.log is not None and not self.log.in_teardown:
            self._before_teardown = self._reads_and_writes()
            self.log.begin_teardown()

    def _reads_and_writes(self) -> tuple[int, int]:
        """Return how often the test has read, and how much it has written."""
        reads = self.run.test.sessions.reads() if self.run.test else 0
        for level in self.run.databases.levels:
            if level.is_test:
                reads += len(self._statement_log_of(level).statements)
        return reads, self.written_by_test()

    def _has_seen_late(self, values: Sequence[object]) -> bool:
        """Return whether an assertion of the tear-down may be about the work of the app.

        Such an assertion has an answer as a value, or follows a request or a query. A tear-down
        that writes cleans up, so its assertions do not count.
        """
        if self.run.test is None or self.run.test.settled:
            return False  # a wider fixture is torn down
        reads, writes = self._reads_and_writes()
        reads_before, writes_before = self._before_teardown
        if writes != writes_before:
            return False
        if self.has_late_requests or reads > reads_before:
            return True
        return any(map(holds_answer, values))

    def take(self) -> Facts | None:
        """Return the facts of the test, and forget them. None if its call was not reached."""
        facts = self._facts
        if facts and self.log:
            mask = self.mask()
            late = []
            for record in self.log.requests[len(facts.requests) :]:
                request = record.request
                late.append(f"{request.method} {mask(request.path)}")
            facts = with_late_rows(facts, self.log.requests)
            asserted = facts.asserted
            if self.log.in_teardown:
                asserted += assertions_of(self.log, mask)
            facts = replace(
                facts,
                late=tuple(late),
                asserted=asserted,
                lost=tuple(map(mask, self.log.lost)),
            )
        self._facts = None
        self.log = None
        self.app_watcher.forget()
        return facts

    def mask(self) -> Callable[[str], str]:
        """Return a function that removes the values of secret columns from a text."""
        sources = [*self._statement_logs.values()]
        if self.log is not None:
            records = (*self.log.requests, *self.log.logins)
            sources += [record.statement_log for record in records]
        return without_secrets_of(
            named for statement_log in sources for named in statement_log.named
        )

    def _read_facts(self, log: Log) -> Facts:
        if not log.requests:
            doubt = self.app_watcher.doubt(
                has_requested_other_app=log.has_requested_other_app
            )
            if doubt:
                log.off.setdefault("requested", doubt)
        statement_logs = {
            level: self._statement_log_of(level) for level in self.run.databases.levels
        }
        self._wide_rows = {
            level: rows
            for level, rows in self._wide_rows.items()
            if level in statement_logs
        }
        reading = Reading(
            self.run,
            log,
            statement_logs=statement_logs,
            literals=self._literals,
            wide_rows=self._wide_rows,
            off=log.off | self.off,
            mask=self.mask(),
        )
        try:
            return reading.facts()
        except Exception as error:  # noqa: BLE001 - recording never fails a test
            return unknown(error)

    # Called while a test runs.

    def asserted(
        self,
        place: str,
        text: str,
        values: Sequence[object] = (),
        *,
        is_idle: bool = False,
    ) -> None:
        """Record an assertion that has passed, except in a login function.

        Args:
            place: file and line.
            text: the asserted expression.
            values: the values of the variables at that line.
            is_idle: whether no behaviour of the app could have made it fail.
        """
        log = self.log
        if log is None or not log.is_recording or is_logging_in():
            return
        if log.in_teardown and not self._has_seen_late(values):
            return
        kept_values = values if self._literals else ()
        log.passed(place, text, kept_values, is_idle=is_idle)

    def failed(self, place: str, text: str) -> None:
        """Record an assertion that has failed. If the test passes, it swallowed the failure."""
        if self.log is not None and self.log.in_call:
            self.log.failed(place, text)

    def is_as_seeded(self, value: object) -> bool:
        """Return whether a value is an ORM instance that still has the values of the test.

        Such an instance belongs to a session of the test. No session of the test has read anything
        since the first request. An app may use that session too.
        """
        test = self.run.test
        if test is None or self.log is None:
            return False
        if not hasattr(value, "_sa_instance_state"):
            return False
        if not isinstance(object_session(value), FreshSession):
            return False
        return test.sessions.reads() == self.log.reads

    def written_by_test(self) -> int:
        """Return the sum of the written rows, the pending rows and the logins of clients."""
        test = self.run.test
        if test is None:
            return 0
        levels = [level for level in self.run.databases.levels if level.is_test]
        rows = sum(self._statement_log_of(level).rows_written for level in levels)
        logins = sum(app_run.logged_in for app_run in test.app_runs)
        return rows + logins + test.sessions.pending()

    # Called by the gate.

    def _current_statement_log(self) -> StatementLog | None:
        """Return the log for a statement that runs now. None if the statement is not recorded."""
        request = request_now() or self._request_of_late_work()
        if request:
            return request.statement_log
        levels = self.run.databases.levels
        if not levels or self.run.databases.build() is not None:
            return None  # a template is built
        if levels[-1].is_test and self.log is None:
            return None  # this test proves no scenario
        statement_log = self._statement_log_of(levels[-1])
        if is_in_lifespan():
            return statement_log.of_the_app()
        return statement_log

    def _request_of_late_work(self) -> RequestRecord | None:
        """Return the request that has begun the calling task, thread or job."""
        answer = REQUEST.get()
        if answer is None or self.log is None:
            return None
        for record in self.log.requests:
            if record.request.answer is answer:
                return record
        return None

    def _statement_log_of(self, level: Level) -> StatementLog:
        if level not in self._statement_logs:
            self._statement_logs[level] = StatementLog()
        return self._statement_logs[level]

    # Called by the request tracker.

    def wants(self, app: object) -> bool:
        """Return whether a recorded test runs and this is the app under test."""
        # A request of a wide fixture is no request of the test.
        if self.log is None or self.run.current.on_top() is None:
            return False
        is_under_test = self.app_watcher.is_under_test(app)
        if not is_under_test:
            self.log.note_other_app()
        return is_under_test

    def begins(self, request: RequestRecord) -> None:
        """Record that the app is about to answer a request."""
        try:
            self._begin(request)
        except Exception as error:  # noqa: BLE001 - recording never fails a request
            if self.log is not None:
                self.log.off["requested"] = f"a request was not recorded: {error!r}"
        if self.sabotaged_run is not None:
            self.sabotaged_run.begins(request)

    def _begin(self, request: RequestRecord) -> None:
        test = self.run.test
        log = self.log
        if log is None or test is None:
            return
        if request.is_login:
            log.logins.append(request)
        if not request.is_counted:
            return
        previous = log.requests[-1] if log.requests else None
        log.add(request, reads=test.sessions.reads())
        if not test.under_way:  # no client or transport of this test sent the request
            request.begin_foreign(now())
            test.begin_request()
        request.join(test.turns[-1])
        if previous and previous.turn is request.turn:
            request.follow(previous, self.run.moments.now())
        levels = self.run.databases.levels
        request.note_earlier_writes([self._statement_log_of(level) for level in levels])

    def sending(self, request: RequestRecord, send: Send) -> Send:
        """Return the ``send`` that the app is to call."""
        if self.sabotaged_run is None:
            return send
        return self.sabotaged_run.sending(request, send)

    def answers(self, request: RequestRecord) -> None:
        """Count an answer. Later assertions may be about it, even while a websocket is open."""
        log = self.log
        if log and request in log.requests and request.note_answered():
            log.count_answer()

    async def returned(self, request: RequestRecord) -> None:
        """Wait for the work of a request whose commits the sabotage removes."""
        if self.sabotaged_run is not None:
            await self.sabotaged_run.returned(request)

    def ends(self, request: RequestRecord) -> None:
        """Record that the app has returned and its background tasks have ended."""
        if self.sabotaged_run is not None:
            self.sabotaged_run.ends(request)
        self.answers(request)
        test = self.run.test
        log = self.log
        if test is None or log is None or request not in log.requests:
            return
        if request.end_foreign(now()):
            test.add_to_turn(request.request)
            test.end_request()
