"""Reduces the records of a test to facts: rows, requests, assertions."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from pytest_arena._changes import Changes
from pytest_arena._config._supported import SUPPORTED
from pytest_arena._databases._resolver import Level
from pytest_arena._gate._pooled import TableWrite
from pytest_arena._gate.writes._statement_log import StatementLog
from pytest_arena._product import Database
from pytest_arena._run._fixture_levels import WideFixture
from pytest_arena._run._run import ArenaRun
from pytest_arena._run._test import StoryMoment
from pytest_arena._values import Stage
from pytest_arena.errors import redact
from pytest_arena.scenarios._log import PLAIN, READING_METHODS, Log
from pytest_arena.scenarios.evidence._document import (
    Asserted,
    Counts,
    Facts,
    Requested,
)
from pytest_arena.scenarios.requests._reads import MOST_ROWS, Row, bare, read_of
from pytest_arena.scenarios.requests._record import RequestRecord
from pytest_arena.scenarios.specs._specification import grouped_by

_MOST_PLACES = 20  # of assertions

# The limits of the search for literals: depth, values of a container, characters of a text.
_DEEPEST = 4
_MOST_VALUES = 100
_LONGEST_TEXT = 2_000

_KINDS = ("asserted", "changed", "observed", "read", "requested", "seeded")


class NotKnown(Exception):
    """The databases do not know what changed between two moments."""


@dataclass(slots=True)
class Reading:
    """Reads the facts from a log while the test's level exists. Never fails a test.

    The reader counts rows by the recorded statements. If the statements do not show the rows, it
    compares two states of the databases. Without a comparison it takes microseconds.
    """

    run: ArenaRun
    log: Log
    statement_logs: Mapping[Level, StatementLog]
    """The statements outside of requests, in each existing level."""
    literals: tuple[str, ...]
    wide_rows: dict[Level, Counter[str]]
    """The rows of wide fixtures that were already counted. This reading adds to them."""
    off: dict[str, str]
    """The kinds of evidence that are unknown, each with the reason."""
    mask: Callable[[str], str]
    values: list[object] = field(default_factory=list)
    """The values of rows that were read from databases."""
    seeded_rows: dict[str, list[Row]] = field(default_factory=dict)

    def facts(self) -> Facts:
        """Return the facts of the test."""
        seeded = self._known("seeded", self._count_seeded)
        self.seeded_rows = {
            table: self._rows_inserted(table, count) for table, count in seeded or ()
        }
        is_seeded = all(level.stage is Stage.SEEDED for level in self.statement_logs)
        return Facts(
            seeded=seeded,
            has_base=bool(self.run.config.seed) and is_seeded,
            requests=tuple(map(self._requested, self.log.requests)),
            first=self.log.first,
            asserted=assertions_of(self.log, self.mask),
            swallowed=tuple(
                (place, self.mask(text)) for place, text in self.log.failures.items()
            ),
            steps=tuple(self.log.steps),
            seen=self._literals_seen(),
            off=tuple(sorted(self.off.items())),
        )

    def _requested(self, request: RequestRecord) -> Requested:
        sent = request.request
        changed = self._known("changed", lambda: self._count_changed(request))
        read = [
            table
            for table in sorted(self.seeded_rows)
            if self._may_have_read(request, table)
        ]
        return Requested(
            method=sent.method,
            path=self.mask(sent.path),
            route=request.route,
            status=sent.status,
            role=sent.role or "",
            changed=changed,
            read=tuple(read),
            observed=request.is_observed,
        )

    def _known(
        self,
        kind: str,
        count: Callable[[], Counter[str]],
    ) -> Counts | None:
        """Return the rows that a function counts, or None if it cannot count them."""
        try:
            rows = count()
        except Exception as error:  # noqa: BLE001 - also of a database: the rows stay unknown
            if kind == "seeded" or not isinstance(error, NotKnown):
                self.off[kind] = _why(error)
            return None
        return tuple(
            sorted((table, number) for table, number in rows.items() if number)
        )

    # Has a request read seeded rows?

    def _may_have_read(self, request: RequestRecord, table: str) -> bool:
        seeded = self.seeded_rows[table]
        for statement in request.statement_log.statements:
            if not read_of([statement], [table]):
                continue
            if request.rows_read.may_include(statement, bare(table), seeded):
                return True
        return False

    def _rows_inserted(self, table: str, count: int) -> list[Row]:
        """Return the rows that were inserted into a table. Empty unless all are known."""
        requests = [request.statement_log for request in self.log.requests]
        sources = [*self.statement_logs.values(), *requests]
        before_first = sources[: len(self.statement_logs) + self.log.first]
        for statement_log in sources:
            for written_table, _, is_insert in statement_log.written:
                if bare(written_table) == bare(table) and not is_insert:
                    return []
        rows: list[Row] = []
        for statement_log in before_first:
            for named_table, named_rows in statement_log.named:
                if bare(named_table) == bare(table):
                    rows += named_rows
        if len(rows) >= count:
            return rows
        return []

    # Rows that were written before the first request that is not preparation.

    def _count_seeded(self) -> Counter[str]:
        levels = self.run.moments.levels()
        rows: Counter[str] = Counter()
        for number, level in enumerate(levels, start=1):
            depth = len(levels) - number
            statement_log = self.statement_logs.get(level) or StatementLog()
            if level.is_test:
                rows.update(self._count_in_test(statement_log, depth))
                continue
            name = level.name.rpartition(" ")[2]
            if name in self.log.fixture_names and isinstance(level.owner, WideFixture):
                rows.update(self._count_in_wide(level, statement_log, depth))
        return rows

    def _count_in_wide(
        self,
        level: Level,
        statement_log: StatementLog,
        depth: int,
    ) -> Counter[str]:
        if level not in self.wide_rows:
            rows = self._net_rows(statement_log)
            if not rows:
                rows = self._compare(depth=depth) - _rows_of_app(statement_log)
            self.wide_rows[level] = rows
        return self.wide_rows[level]

    def _net_rows(self, statement_log: StatementLog) -> Counter[str] | None:
        """Return how many rows the statements wrote, or None if they do not show it."""
        if statement_log.is_unsure or self.run.connections.has_raw:
            return None
        return _net_rows(statement_log.written)

    def _count_in_test(self, statement_log: StatementLog, depth: int) -> Counter[str]:
        sources = [statement_log]
        written = statement_log.written
        until = None
        uncommitted: Counter[str] = Counter()
        if self.log.requests:
            request = self.log.requests[self.log.first]
            until = request.before
            written = written[: request.written_before.get(statement_log)]
            # Uncommitted rows of the test, in a transaction that the request joined.
            uncommitted = _all_rows(request.statement_log.joined())
        if depth == 0:  # requests that prepare write into the topmost level
            for earlier in self.log.requests[: self.log.first]:
                sources.append(earlier.statement_log)
                written = [*written, *earlier.statement_log.written]
        rows = _net_rows(written)
        if self.run.connections.has_raw or any(source.is_unsure for source in sources):
            rows = None
        # A driver may have written without a statement of SQLAlchemy, such as by COPY.
        if not rows:
            try:
                rows = self._compare_in_test(statement_log, until, depth)
            except NotKnown:
                if rows is None or self._has_unseen_rows(statement_log, depth):
                    raise
        if not rows and not self.log.requests:
            # A job may have deleted the rows that the test inserted. They count as seeded.
            inserts = [part for part in written if part[2]]
            rows = _all_rows(inserts)
        return uncommitted + rows

    def _has_unseen_rows(self, statement_log: StatementLog, depth: int) -> bool:
        """Return whether the test has changed rows without a recorded statement."""
        rows = self._compare(depth=depth) - _rows_of_app(statement_log)
        records = (*self.log.logins, *self.log.requests)
        for source in (statement_log, *(record.statement_log for record in records)):
            rows -= _all_rows(source.written)
        return bool(rows)

    def _compare_in_test(
        self,
        statement_log: StatementLog,
        until: StoryMoment | None,
        depth: int,
    ) -> Counter[str]:
        # Moments belong to the topmost level. The level of an example is above this level.
        if depth:
            return self._compare(depth=depth) - _rows_of_app(statement_log)
        # The comparison also shows the rows that the app wrote at its start and in logins.
        by_app = _rows_of_app(statement_log)
        for login in self.log.logins:
            by_app += _all_rows(login.statement_log.written)
        return self._compare(None, until) - by_app

    # Rows that a request changed.

    def _count_changed(self, request: RequestRecord) -> Counter[str]:
        statement_log = request.statement_log
        before = request.before
        after = request.after
        if request.is_concurrent:
            before = None
        rows = self._net_rows(statement_log)
        if rows:
            return rows
        if before is None or after is None:
            if rows is None:
                raise NotKnown("it was sent at the same time as others")
            return rows
        if rows is not None:  # no engine has written
            # A driver may have written, by COPY for instance.
            databases = self.run.moments.used()
            if request.request.method in READING_METHODS:
                # Only to these may a driver write without an engine.
                databases = [each for each in databases if each.live is not None]
            if all(before.time_of(each) is after.time_of(each) for each in databases):
                return rows
        return self._compare(before, after)

    def _compare(
        self,
        since: StoryMoment | None = None,
        until: StoryMoment | None = None,
        *,
        depth: int = 0,
    ) -> Counter[str]:
        """Return how many rows of each table differ between two moments.

        Raises:
            NotKnown: the databases do not show it.
        """
        databases = self.run.moments.used()
        counts: Counter[str] = Counter()
        for database in databases:
            changes = self._changes(database, since, until, depth)
            prefix = ""
            if len(databases) > 1:
                prefix = f"{database.name}/"
            for table in changes.tables:
                counts[f"{prefix}{table}"] += len(changes[table])
            for change in changes:
                self.values += change.row.values()
        return counts

    def _changes(
        self,
        database: Database,
        since: StoryMoment | None,
        until: StoryMoment | None,
        depth: int,
    ) -> Changes:
        moments = self.run.moments
        for moment in (since, until):
            if moment is None:
                continue
            if moment.levels != moments.levels():
                raise NotKnown("it was sent in another level")
            if not moment.knows(database):
                raise NotKnown(_no_history(database))
        if until and database not in until.times:
            return Changes.of([])  # no connection to this database was open until then
        start = since.time_of(database) if since else None
        end = until.time_of(database) if until else None
        rows = moments.rows(
            database,
            start,
            end,
            depth=depth,
            limit=MOST_ROWS,
        )
        return Changes.of(rows)

    # Literals of the steps that occurred.

    def _literals_seen(self) -> tuple[str, ...]:
        """Return the literals that occur as whole words in rows, requests or assertions.

        The search begins in the most likely places, and ends when it has seen all literals.
        """
        missing = {literal.lower() for literal in self.literals}
        for text in self._texts():
            lower = text.lower()
            for literal in [*missing]:
                if _has_word(lower, word=literal):
                    missing.remove(literal)
            if not missing:
                break
        return tuple(
            literal for literal in self.literals if literal.lower() not in missing
        )

    def _texts(self) -> Iterator[str]:
        for record in self.log.requests:
            sent = record.request
            role = sent.role or ""
            yield f"{sent.method} {sent.path} {record.query} {role} {sent.status}"
            yield record.body.decode("utf-8", "replace")
        for statement_log in self.statement_logs.values():
            yield from _texts_in(statement_log.values)
        yield from _texts_in(self.values)
        for (_, asserted), values in self.log.values.items():
            yield asserted
            yield from _texts_in(values)


def assertions_of(log: Log, mask: Callable[[str], str]) -> tuple[Asserted, ...]:
    """Return the passed assertions: those that could fail first, the latest first."""
    asserted = sorted(
        [
            check
            for check in log.passed_assertions.values()
            if check.place not in log.failures
        ],
        key=lambda check: (check.is_constant, -check.after),
    )
    return tuple(
        replace(check, text=mask(check.text)) for check in asserted[:_MOST_PLACES]
    )


def with_late_rows(facts: Facts, records: Sequence[RequestRecord]) -> Facts:
    """Add the rows that late work of the requests has committed since the facts were read."""
    requests = [*facts.requests]
    for place, record in enumerate(records[: len(requests)]):
        request = requests[place]
        rows = _net_rows(record.statement_log.written)
        if request.changed == () and rows:
            changed = tuple(sorted(rows.items()))
            requests[place] = replace(request, changed=changed)
    return replace(facts, requests=tuple(requests))


def _no_history(database: Database) -> str:
    isolation = database.isolation.name if database.isolation is not None else "none"
    shown = [facts.shown for facts in SUPPORTED.values() if "undo" in facts.isolations]
    return (
        f"with isolation {isolation} pytest-arena records no rows at that time, and no statement "
        f"of SQLAlchemy shows the rows. On {' or '.join(shown)} arena_isolation = undo records them"
    )


def unknown(error: Exception) -> Facts:
    """Return the facts of a test whose log could not be read."""
    why = _why(error)
    return Facts(
        seeded=None,
        off=tuple((kind, why) for kind in _KINDS),
    )


def _why(error: Exception) -> str:
    first_line = str(error).partition("\n")[0]
    return redact(first_line or type(error).__name__)


def _net_rows(parts: Sequence[TableWrite]) -> Counter[str] | None:
    """Return how many rows of each table were written, or None if statements do not show it.

    Statements show the number if only inserts wrote to the table, or only one statement.
    """
    counts: Counter[str] = Counter()
    for table, writes in grouped_by(parts, lambda part: part[0]).items():
        for _, rows, is_insert in writes:
            if not rows or (len(writes) > 1 and not is_insert):
                return None
            counts[table] += rows
    return counts


def _all_rows(parts: Iterable[TableWrite]) -> Counter[str]:
    """Return how many rows of each table were written. An unknown number counts as one."""
    counts: Counter[str] = Counter()
    for table, rows, _ in parts:
        counts[table] += rows or 1
    return counts


def _rows_of_app(statement_log: StatementLog) -> Counter[str]:
    """Return the rows that the app wrote in its lifespan."""
    app_log = statement_log.app_log
    if app_log:
        return _all_rows(app_log.written)
    return Counter()


def _has_word(text: str, *, word: str) -> bool:
    """Return whether a text contains a word, with no letter or digit beside it."""
    # Compiling a pattern for each literal would take most of the time.
    place = text.find(word)
    while place >= 0:
        end = place + len(word)
        before = text[max(place - 1, 0) : place]
        beside = before + text[end : end + 1]
        if not any(letter.isalnum() or letter == "_" for letter in beside):
            return True
        place = text.find(word, place + 1)
    return False


def _texts_in(
    values: Iterable[object],
    depth: int = _DEEPEST,
) -> Iterator[str]:
    """Yield the texts of plain values, also in nested containers."""
    for value in islice(values, _MOST_VALUES):
        if isinstance(value, PLAIN):
            yield str(value)[:_LONGEST_TEXT]
        elif depth and isinstance(value, dict):
            yield from _texts_in(value.values(), depth - 1)
        elif depth and isinstance(value, list | tuple | set):
            yield from _texts_in(value, depth - 1)
