"""How many rows has a test seeded, and how many has each request changed?"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_arena._changes import Changes
from pytest_arena._gate import Doings
from pytest_arena._run import WideFixture

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pytest_arena._databases._state import Level
    from pytest_arena._gate import Part
    from pytest_arena._ledger import Request
    from pytest_arena._product import Database
    from pytest_arena._run import ArenaRun
    from pytest_arena._run._story import Moment
    from pytest_arena.scenarios._log import Log

__all__ = ["Rows", "counted", "read_of"]

_MOST_ROWS = 200  # of a table, and a question: more are counted


_NOTHING: Counter[str] = Counter()


class NotKnown(Exception):
    """The databases cannot tell what has changed then."""


def counted(parts: Sequence[Part]) -> Counter[str] | None:
    """Return how many rows statements have written, net; None where they cannot tell.

    They can where a table was written to by inserts alone, or by one statement alone.
    """
    by_table: dict[str, list[Part]] = {}
    if not parts:
        return Counter()
    for part in parts:
        by_table.setdefault(part[0], []).append(part)
    for found in by_table.values():
        is_net = len(found) == 1 or all(is_insert for _, _, is_insert in found)
        if not is_net or not all(rows for _, rows, _ in found):
            return None
    return Counter({table: sum(one[1] for one in found) for table, found in by_table.items()})


def read_of(statements: Collection[str], tables: Collection[str]) -> tuple[str, ...]:
    """Return those of the tables that are named in statements by which they can be read."""
    if not (tables and statements):
        return ()
    words = frozenset[str]().union(*map(_words, statements))
    return tuple(sorted(one for one in tables if _last_word(one) <= words))


_INSERTS_INTO = re.compile(r"^\s*INSERT\s+INTO\s+\S+", re.IGNORECASE)
_QUERY = re.compile(r"\bSELECT\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@lru_cache(maxsize=5_000)  # an app has so many statements, and each test runs them again
def _words(statement: str) -> frozenset[str]:
    rest, inserts = _INSERTS_INTO.subn(" ", statement)
    if inserts and not _QUERY.search(rest):
        return frozenset()  # what is named there is the row that it writes, and returns
    return frozenset(_WORD.findall(rest.lower()))


@lru_cache(maxsize=5_000)
def _last_word(table: str) -> frozenset[str]:
    """Of ``analytics/audit.log`` what a statement names in any case; a name may be of several."""
    return frozenset(_WORD.findall(table.rpartition("/")[2].rpartition(".")[2].lower()))


class Rows:
    """Counts by the statements that were seen; where these cannot tell, asks the databases.

    To be asked while the test's level stands. Cost: microseconds, and where a database is asked
    one comparison of two of its states.
    """

    def __init__(self, run: ArenaRun) -> None:
        self._run = run
        self._wide: dict[Level, Counter[str]] = {}
        self.values: list[object] = []  # of rows that were read

    def seeded(self, log: Log, doings: Mapping[Level, Doings]) -> Counter[str]:
        """Return the rows by table that were written before the test's first own request.

        Raises:
            NotKnown: that cannot be told.
        """
        levels = self._run.moments.levels()
        found: Counter[str] = Counter()
        for place, level in enumerate(levels):
            depth = len(levels) - 1 - place
            if level.is_test:
                found.update(self._own(log, doings.get(level), depth))
            elif _is_used(level, log.fixture_names):
                found.update(self._of_wide(level, doings.get(level), depth))
        return found

    def _of_the_app(self, log: Log, doings: Doings | None) -> Counter[str]:
        """What it has written as it started, and while a client logged in.

        A reading shows it with the rest.
        """
        parts = [part for one in log.logins for part in one.doings.written]
        return _together(parts) + _by_itself(doings)

    def _of_wide(self, level: Level, doings: Doings | None, depth: int) -> Counter[str]:
        if level not in self._wide:
            known = counted(doings.written) if doings and not self._is_unsure(doings) else None
            if not known:
                known = self._read(depth=depth) - _by_itself(doings)
            self._wide = {one: self._wide[one] for one in self._wide if one in self._levels()}
            self._wide[level] = known
        return self._wide[level]

    def _levels(self) -> tuple[Level, ...]:
        return self._run.moments.levels()

    def _own(self, log: Log, doings: Doings | None, depth: int) -> Counter[str]:
        window: Request | None = log.requests[log.first] if log.requests else None
        committed = self._committed(log, doings or Doings(), window, depth)
        joined = _joined(log)
        return _together(joined) + committed if joined else committed

    def _committed(self, log: Log, own: Doings, window: Request | None, depth: int) -> Counter[str]:
        parts = own.written[: window.marks.get(own)] if window is not None else own.written
        sides = [own]
        if not depth:  # what requests changed that prepare for the first one stands there, too
            sides += [one.doings for one in log.requests[: log.first]]
            parts = [*parts, *(part for one in sides[1:] for part in one.written)]
        known = None if any(map(self._is_unsure, sides)) else counted(parts)
        if known or (known is not None and not self._may_be_more()):
            return known
        if depth:  # an example's level lies above: moments say nothing in this one
            return self._read(depth=depth) - _by_itself(own)
        until = window.before if window is not None else None
        return self._read(None, until) - self._of_the_app(log, own)

    def _may_be_more(self) -> bool:
        """Whether more may have written than statements of engines: a driver, for one."""
        return self._run.gate.has_raw or any(
            one.live is not None for one in self._run.moments.used()
        )

    def changed(self, window: Request) -> Counter[str]:
        """Return the rows by table that one request has changed. Raises as ``seeded`` does."""
        doings = window.doings
        if not doings.written and not doings.is_unsure and not self._has_changed(window):
            return _NOTHING
        known = None if self._is_unsure(doings) else counted(doings.written)
        if known:
            return known
        if window.is_at_once or window.before is None or window.after is None:
            raise NotKnown("it was made at the same time as others")
        return self._read(window.before, window.after)

    def _has_changed(self, window: Request) -> bool:
        """Whether something else may have written: a driver, where a file is not as before."""
        before, after = window.before, window.after
        if self._run.gate.has_raw:
            return True
        files = [one for one in self._run.moments.used() if one.live is not None]
        if window.is_at_once or before is None or after is None:
            return False
        return any(before.time_of(one) is not after.time_of(one) for one in files)

    def _is_unsure(self, doings: Doings) -> bool:
        return doings.is_unsure or self._run.gate.has_raw

    def _read(
        self, since: Moment | None = None, until: Moment | None = None, *, depth: int = 0
    ) -> Counter[str]:
        used = self._run.moments.used()
        found: Counter[str] = Counter()
        for database in used:
            rows = self._rows(database, since, until, depth)
            prefix = f"{database.name}/" if len(used) > 1 else ""
            found += Counter({f"{prefix}{table}": len(rows[table]) for table in rows.tables})
            self.values += [value for one in rows for value in one.row.values()]
        return found

    def _rows(
        self, database: Database, since: Moment | None, until: Moment | None, depth: int
    ) -> Changes:
        levels = self._run.moments.levels()
        for moment in (since, until):
            if moment is not None and moment.levels != levels:
                raise NotKnown("it was made in another level")
            if moment is not None and not moment.knows(database):
                raise NotKnown("the database could not be asked then, or it would cost too much")
        if until is not None and database not in until.times:
            return Changes.of([])  # nobody had connected to it yet
        start = since.time_of(database) if since else None
        end = until.time_of(database) if until else None
        return Changes.of(
            self._run.moments.rows(database, start, end, depth=depth, limit=_MOST_ROWS),
            self._run.moments.mask,
        )


def _by_itself(doings: Doings | None) -> Counter[str]:
    is_any = doings is not None and doings.apart is not None
    return _together(doings.apart.written if is_any else ())  # type: ignore[union-attr]  # as said


def _together(parts: Iterable[Part]) -> Counter[str]:
    found: Counter[str] = Counter()
    for table, rows, _ in parts:
        found[table] += rows or 1
    return found


def _joined(log: Log) -> list[Part]:
    """What the test's side had not committed, in a transaction that its requests took part in."""
    window: Request | None = log.requests[log.first] if log.requests else None
    return window.doings.joined() if window is not None else []


def _is_used(level: Level, names: frozenset[str]) -> bool:
    return isinstance(level.owner, WideFixture) and level.name.rpartition(" ")[2] in names
