"""What is noted of one try of one test while it runs, and what do its facts amount to?"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import islice
from typing import Any
from uuid import UUID

from pytest_arena._changes import Changes
from pytest_arena._databases._resolver import Level
from pytest_arena._gate._registry import Part
from pytest_arena._gate._writes import Doings
from pytest_arena._ledger import Request
from pytest_arena._product import Database
from pytest_arena._run._fixture_levels import WideFixture
from pytest_arena._run._run import ArenaRun
from pytest_arena._values import Stage
from pytest_arena.errors import redact
from pytest_arena.scenarios._idle import is_constant
from pytest_arena.scenarios.evidence._document import (
    Asserted,
    Counts,
    Facts,
    Requested,
    StepFacts,
)
from pytest_arena.scenarios.specs._specification import Kind, ScenarioSpec, grouped_by

PLAIN = (str, int, float, Decimal, date, time, Enum, UUID)
"""What has a text that says its value. Others' may be long, or ask a database for what it says."""
Row = Mapping[str, object]
# A test that is watched has to be the same test: what it lets go of must not live on here.
_KEPT = (*PLAIN, dict, list, tuple, set)


@dataclass(slots=True, eq=False)
class Block:
    """One step block of a test."""

    kind: Kind
    places: tuple[
        tuple[str, int], ...
    ]  # the scenario's key, and the step's place in it
    is_open: bool = True


@dataclass(slots=True, eq=False)
class Log:
    """One try. Any thread of the test's may add to it; nobody takes anything out meanwhile."""

    scenarios: tuple[ScenarioSpec, ...]
    fixture_names: frozenset[str]
    in_call: bool = False
    requests: list[Request] = field(default_factory=list)
    logins: list[Request] = field(default_factory=list)
    of_others: set[Request] = field(
        default_factory=set
    )  # by no client of ours, under way
    answered: int = 0
    reads: int = -1  # of the test's sessions, by its first request of its own
    heard: dict[tuple[str, str], Asserted] = field(
        default_factory=dict
    )  # by place and whole text
    values: dict[tuple[str, str], list[object]] = field(
        default_factory=dict
    )  # of the last time
    assertions: int = 0  # that passed, and could have failed
    blocks: list[Block] = field(default_factory=list)
    steps: list[StepFacts] = field(
        default_factory=list
    )  # what was done in blocks, at their ends
    off: dict[str, str] = field(default_factory=dict)
    has_asked_another: bool = False  # an app that is not the one under test

    @property
    def is_preparing(self) -> bool:
        """Whether a request that begins now prepares for what the test is about."""
        return not self.in_call or any(
            one.is_open and one.kind == "given" for one in self.blocks
        )

    @property
    def first(self) -> int:
        """The place of the first request that is no preparation; of the first, where all are."""
        places = (
            place for place, one in enumerate(self.requests) if not one.is_preparation
        )
        return next(places, 0)

    @property
    def has_asserted(self) -> bool:
        """Whether an assertion that could fail has passed since the last request."""
        last = len(self.requests)
        return any(
            one.after >= last and not one.is_constant for one in self.heard.values()
        )

    def passed(
        self, place: str, text: str, values: Sequence[object], *, is_idle: bool = False
    ) -> None:
        """An assertion has passed. An idle one could not have failed by what the app does."""
        key, after, is_idle = (place, text), self.answered, is_idle or is_constant(text)
        new = Asserted(
            place=place,
            text=_shortened(text),
            after=after,
            is_constant=is_idle,
            times=0,
        )
        one = self.heard.setdefault(key, new)
        one.times += 1
        if one.is_constant or not is_idle:  # of a loop what was not idle counts
            one.after, one.is_constant = max(one.after, after), is_idle
        self.values[key] = [value for value in values if isinstance(value, _KEPT)]
        self.assertions += not is_idle


# What does it amount to, as facts: rows, requests, assertions?


_LONGEST_TEXT = 160
_MOST_PLACES = 20  # of assertions
MOST_ROWS = 200  # of a table, and a question: more are counted


class NotKnown(Exception):
    """The databases cannot tell what has changed then."""


@dataclass(slots=True)
class Reading:
    """One reading of a log, while the test's level stands. Never raises for a database.

    Rows are counted by the statements that were seen; where these cannot tell, the databases are
    asked. Cost: microseconds, and where a database is asked one comparison of two of its states.
    """

    run: ArenaRun
    log: Log
    doings: Mapping[Level, Doings]
    literals: tuple[str, ...]
    wide: dict[Level, Counter[str]]  # rows of wider fixtures, once they were counted
    off: dict[str, str]
    masked: Callable[[str], str]
    values: list[Any] = field(default_factory=list)  # of rows that were read
    rows: dict[str, list[Row]] = field(
        default_factory=dict
    )  # that were seeded, by table

    def facts(self) -> Facts:
        """Return all that is told."""
        seeded = self._known("seeded", self._seeded)
        tables = sorted(table for table, _ in seeded or ())
        self.rows = {
            table: self._rows_of(table, count) for table, count in seeded or ()
        }
        requests = tuple(self._requested(one, tables) for one in self.log.requests)
        heard = sorted(
            self.log.heard.values(), key=lambda one: (one.is_constant, -one.after)
        )
        shown = [
            replace(one, text=self.masked(one.text)) for one in heard[:_MOST_PLACES]
        ]
        return Facts(
            seeded=seeded,
            has_base=bool(self.run.config.seed)
            and all(it.stage is Stage.SEEDED for it in self.doings),
            requests=requests,
            first=self.log.first,
            asserted=tuple(shown),
            steps=tuple(self.log.steps),
            seen=self._seen(),
            off=tuple(sorted(self.off.items())),
        )

    def _requested(self, one: Request, tables: list[str]) -> Requested:
        return Requested(
            method=one.method,
            path=self.masked(one.path),
            route=one.route,
            status=one.status,
            role=one.role or "",
            changed=self._known("changed", lambda: self._changed(one)),
            read=tuple(it for it in tables if self._may_have_read(one, it)),
            observed=one.is_observed,
        )

    def _known(self, name: str, count: Callable[[], Counter[str]]) -> Counts | None:
        try:
            return tuple(
                sorted((table, rows) for table, rows in count().items() if rows)
            )
        except Exception as error:  # noqa: BLE001 - what cannot be read is unknown, and no failure
            if name == "seeded" or not isinstance(error, NotKnown):
                self.off[name] = _why(error)
            return None

    # Whether a request has read what was seeded.

    def _may_have_read(self, request: Request, table: str) -> bool:
        naming = (it for it in request.doings.statements if read_of([it], [table]))
        answers, rows = request.doings.answers, self.rows[table]
        return any(answers.may_hold(it, bare(table), rows) for it in naming)

    def _rows_of(self, table: str, count: int) -> list[Row]:
        """Return the rows as they were inserted; none where it is not known of each."""
        sides = [*self.doings.values(), *(one.doings for one in self.log.requests)]
        parts = [
            part
            for side in sides
            for part in side.written
            if bare(part[0]) == bare(table)
        ]
        named = (
            it
            for side in sides[: len(self.doings) + self.log.first]
            for it in side.named
        )
        rows = [
            row
            for name, several in named
            if bare(name) == bare(table)
            for row in several
        ]
        is_told = len(rows) >= count and all(is_insert for *_, is_insert in parts)
        return [*rows] if is_told else []

    # Rows seeded: what was written before the test's first own request.

    def _seeded(self) -> Counter[str]:
        levels = self.run.moments.levels()
        found: Counter[str] = Counter()
        for depth, level in zip(range(len(levels) - 1, -1, -1), levels, strict=True):
            doings = self.doings.get(level) or Doings()
            if level.is_test:
                found.update(self._of_the_test(doings, depth))
            elif (
                isinstance(level.owner, WideFixture)
                and level.name.rpartition(" ")[2] in self.log.fixture_names
            ):
                if level not in self.wide:
                    known = (
                        None if self._is_unsure(doings) else _counted(doings.written)
                    )
                    self.wide[level] = known or self._read(depth=depth) - _by_itself(
                        doings
                    )
                found.update(self.wide[level])
        return found

    def _of_the_test(self, own: Doings, depth: int) -> Counter[str]:
        requests, first = self.log.requests, self.log.first
        request = requests[first] if requests else None
        # What was not committed, in a transaction that the first request took part in.
        joined = (
            _together(request.doings.joined())
            if request is not None
            else Counter[str]()
        )
        parts = (
            own.written[: request.marks.get(own)]
            if request is not None
            else own.written
        )
        sides = [own]
        if (
            not depth
        ):  # what requests changed that prepare for the first one stands there, too
            sides += [one.doings for one in requests[:first]]
            parts = [*parts, *(part for one in sides[1:] for part in one.written)]
        known = None if any(map(self._is_unsure, sides)) else _counted(parts)
        used = self.run.moments.used()
        # More may have written than statements of engines: a driver, for one.
        may_be_more = self.run.connections.has_raw or any(
            one.live is not None for one in used
        )
        if known is None or (not known and may_be_more):
            if depth:  # an example's level lies above: moments say nothing in this one
                known = self._read(depth=depth) - _by_itself(own)
            else:  # a reading shows what the app wrote as it started, and as clients logged in
                logins = [
                    part for one in self.log.logins for part in one.doings.written
                ]
                until = request.before if request is not None else None
                known = self._read(None, until) - (_together(logins) + _by_itself(own))
        return joined + known

    def _is_unsure(self, doings: Doings) -> bool:
        return doings.is_unsure or self.run.connections.has_raw

    # Rows that a request has changed.

    def _changed(self, request: Request) -> Counter[str]:
        doings, before, after = request.doings, request.before, request.after
        is_unsure = self._is_unsure(doings)
        is_alone = not request.is_at_once and before is not None and after is not None
        if not doings.written and not is_unsure:
            # Something else may have written: a driver, where a file is not as before.
            files = [
                one
                for one in self.run.moments.used()
                if is_alone and one.live is not None
            ]
            if all(before.time_of(one) is after.time_of(one) for one in files):
                return Counter()
        known = None if is_unsure else _counted(doings.written)
        if known:
            return known
        if not is_alone:
            raise NotKnown("it was made at the same time as others")
        return self._read(before, after)

    def _read(
        self, since: Any = None, until: Any = None, *, depth: int = 0
    ) -> Counter[str]:
        """Return how many rows differ, by table, between two moments of the databases."""
        used = self.run.moments.used()
        found: Counter[str] = Counter()
        for database in used:
            rows = self._rows(database, since, until, depth)
            prefix = f"{database.name}/" if len(used) > 1 else ""
            found += Counter(
                {f"{prefix}{table}": len(rows[table]) for table in rows.tables}
            )
            self.values += [value for one in rows for value in one.row.values()]
        return found

    def _rows(self, database: Database, since: Any, until: Any, depth: int) -> Changes:
        moments = self.run.moments
        for moment in filter(None, (since, until)):
            if moment.levels != moments.levels():
                raise NotKnown("it was made in another level")
            if not moment.knows(database):
                raise NotKnown(
                    "the database could not be asked then, or it would cost too much"
                )
        if until is not None and database not in until.times:
            return Changes.of([])  # nobody had connected to it yet
        start = since.time_of(database) if since else None
        end = until.time_of(database) if until else None
        rows = moments.rows(database, start, end, depth=depth, limit=MOST_ROWS)
        return Changes.of(rows, moments.mask)

    # Literals of the steps that occurred.

    def _seen(self) -> tuple[str, ...]:
        """Those in rows, requests, assertions; as whole words, in any case.

        What is most likely to hold them is looked at first, and no further than needed.
        """
        left = {one.lower() for one in self.literals}
        if not left:
            return ()
        for text in self._texts():
            lower = text.lower()
            left -= {one for one in left if one in lower and _is_a_word(one, lower)}
            if not left:
                break
        return tuple(one for one in self.literals if one.lower() not in left)

    def _texts(self) -> Iterator[str]:
        for one in self.log.requests:
            yield f"{one.method} {one.path} {one.query} {one.role or ''} {one.status}"
            yield (one.body or b"").decode("utf-8", "replace")
        written = [value for one in self.doings.values() for value in one.values]
        yield from _texts([*written, *self.values])
        for key, values in self.log.values.items():
            yield key[1]
            yield from _texts(values)


def unknown(error: Exception) -> Facts:
    """Return the facts of a test of which nothing can be told."""
    names = ("asserted", "changed", "observed", "read", "requested", "seeded")
    return Facts(seeded=None, off=tuple((name, _why(error)) for name in names))


def better(facts: Facts, other: Facts | None) -> Facts:
    """Return those of two examples' facts that show more."""
    return facts if other is None or _worth(facts) >= _worth(other) else other


def _worth(facts: Facts) -> tuple[bool, bool, bool]:
    return bool(facts.requests), bool(facts.checks_at_the_end), bool(facts.seeded)


def _why(error: Exception) -> str:
    return redact(str(error).partition("\n")[0] or type(error).__name__)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _counted(parts: Sequence[Part]) -> Counter[str] | None:
    """Return how many rows statements have written, net; None where they cannot tell.

    They can where a table was written to by inserts alone, or by one statement alone.
    """
    by_table = grouped_by(parts, lambda part: part[0])
    for found in by_table.values():
        is_net = len(found) == 1 or all(is_insert for _, _, is_insert in found)
        if not is_net or not all(rows for _, rows, _ in found):
            return None
    return Counter(
        {table: sum(one[1] for one in found) for table, found in by_table.items()}
    )


def _together(parts: Iterable[Part]) -> Counter[str]:
    found: Counter[str] = Counter()
    for table, rows, _ in parts:
        found[table] += rows or 1
    return found


def _by_itself(doings: Doings) -> Counter[str]:
    return _together(doings.apart.written if doings.apart is not None else ())


_INSERTS_INTO = re.compile(r"^\s*INSERT\s+INTO\s+\S+", re.IGNORECASE)
_QUERY = re.compile(r"\bSELECT\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")


def read_of(statements: Iterable[str], tables: Iterable[str]) -> tuple[str, ...]:
    """Return those of the tables that are named in statements by which they can be read."""
    words = frozenset[str]().union(*map(_words, statements))
    return tuple(sorted(one for one in tables if _last_word(one) <= words))


@lru_cache(
    maxsize=5_000
)  # an app has so many statements, and each test runs them again
def _words(statement: str) -> frozenset[str]:
    rest, inserts = _INSERTS_INTO.subn(" ", statement)
    if inserts and not _QUERY.search(rest):
        return frozenset()  # what is named there is the row that it writes, and returns
    return frozenset(_WORD.findall(rest.lower()))


@lru_cache(maxsize=5_000)
def _last_word(table: str) -> frozenset[str]:
    return frozenset(_WORD.findall(bare(table)))  # a name may be of several


def bare(table: str) -> str:
    """Return of ``analytics/audit.log`` what a statement names in any case."""
    return table.rpartition("/")[2].rpartition(".")[2].lower()


def _is_a_word(word: str, text: str) -> bool:
    """Whether it stands in a text with nothing of a word before and after it."""
    # To compile a pattern for each literal of each scenario would cost more than all the rest.
    place = text.find(word)
    while place >= 0:
        beside = (
            text[max(place - 1, 0) : place]
            + text[place + len(word) : place + len(word) + 1]
        )
        if not any(letter.isalnum() or letter == "_" for letter in beside):
            return True
        place = text.find(word, place + 1)
    return False


_DEPTH, _MOST, _LONGEST = 4, 100, 2_000


def _texts(values: Iterable[Any], depth: int = _DEPTH) -> Iterator[str]:
    """Parameters come as a mapping, a sequence, or a list of such; so do answers."""
    for value in islice(values, _MOST):
        if isinstance(value, PLAIN):
            yield str(value)[:_LONGEST]
        elif depth and isinstance(value, dict):
            yield from _texts(value.values(), depth - 1)
        elif depth and isinstance(value, list | tuple | set):
            yield from _texts(value, depth - 1)
