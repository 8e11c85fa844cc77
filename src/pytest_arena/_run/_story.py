"""What has a test changed, and when: before its requests, in each of them, after them?"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_arena._changes import Changes
from pytest_arena._report import StoryPart
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._changes import Mask
    from pytest_arena._databases._resolver import Databases, Level
    from pytest_arena._gate import Gate, LostWrite
    from pytest_arena._ledger import Request
    from pytest_arena._product import Database
    from pytest_arena._values import TableRows

__all__ = ["Moments", "Story", "StoryMoment", "Turn", "asked_and_answered", "lost_words"]


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
        self._databases, self.mask = databases, mask

    def now(self) -> StoryMoment:
        """Ask each database that somebody has connected to. Never raises."""
        times = {one: self._time_in(one) for one in self._databases.provisioned()}
        return StoryMoment(self.levels(), times)

    def _time_in(self, database: Database) -> object:
        try:
            return self._databases.ensure(database).moment()
        except Exception:  # noqa: BLE001 - a request must not fail since nobody could look at it
            return None

    def levels(self) -> tuple[Level, ...]:
        """The levels that stand."""
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
        """What has gone and come in one database; nothing where nobody has connected to it."""
        if database.isolation is None:
            return []
        isolation = self._databases.ensure(database)
        return isolation.rows_changed(since, until, depth=depth, limit=limit)


@dataclass(slots=True, eq=False)
class Turn:
    """Requests that were under way together: nobody can tell which of them changed what."""

    before: StoryMoment | None  # None where it is so long ago that nobody keeps it
    after: StoryMoment | None = None  # None as long as it goes on, too
    records: list[Request] = field(default_factory=list)
    is_at_once: bool = False
    lost: list[LostWrite] = field(default_factory=list)

    def forget_when(self) -> None:
        """Let go of the moments, which may hold a database's content."""
        self.before = self.after = None

    @property
    def went_well(self) -> bool:
        """Whether each request has an answer that is no refusal: then its app meant to commit.

        One without requests has not: what ended in it had begun in an example that is over.
        """
        answers = [one.status for one in self.records]
        return bool(answers) and all(one is not None and one < _REFUSAL for one in answers)


_REFUSAL = 400
_FIRST, _LAST = 6, 24  # turns that a report tells one by one; what lies between it tells together
_KEPT = 100  # the last ones, of which it can be asked what they changed


class Story:
    """The requests of one test, and the moments around them.

    Cost of a request: at most a question to each database before and after it; none where nobody
    has used it since the last one, or uses it before the test ends.
    """

    def __init__(self, moments: Moments, gate: Gate) -> None:
        self.moments, self._gate = moments, gate
        self.turns: list[Turn] = []
        self._under_way = 0
        self._lock = threading.Lock()  # sync clients may be called in several threads

    @property
    def is_under_way(self) -> bool:
        """Whether a request is."""
        return bool(self._under_way)

    def begin(self) -> None:
        """A request is about to be sent; what is pending is committed."""
        with self._lock:
            if not self._under_way:
                self._gate.lost.take()  # by the test itself, or after the last request
                self.turns.append(Turn(self.moments.now()))
                self._forget_the_oldest()
            else:
                self.turns[-1].is_at_once = True
            self._under_way += 1

    def _forget_the_oldest(self) -> None:
        place = len(self.turns) - _KEPT
        if place > _FIRST:
            self.turns[place].forget_when()

    def told(self, record: Request) -> None:
        """A request has its answer, or a redirect on the way to it."""
        with self._lock:
            if self._under_way:
                record.turn = self.turns[-1]
                record.turn.records.append(record)

    def end(self) -> None:
        """A request is over, with all that the app does after its answer."""
        with self._lock:
            if not self._under_way:  # of an example that is over
                return
            self._under_way -= 1
            if not self._under_way:
                turn, lost = self.turns[-1], self._gate.lost.take()
                turn.after = self.moments.now()
                turn.lost = lost if turn.went_well else []

    def begin_anew(self) -> None:
        """The content is another one: the turn that is under way begins now."""
        with self._lock:
            if self._under_way:
                self.turns[-1].before = self.moments.now()

    def cut(self, number: int) -> None:
        """Forget all turns after the first so many."""
        with self._lock:
            del self.turns[number:]
            self._under_way = 0

    def lost(self) -> Iterator[tuple[Request, LostWrite]]:
        """What requests wrote and never committed, each with the first request of its turn."""
        return ((turn.records[0], one) for turn in self.turns for one in turn.lost)

    def parts(self) -> list[StoryPart]:
        """Return what the test that runs has changed so far, in its order. Never raises.

        Nothing where it has nothing to do with a database.
        """
        telling = _Telling(self)
        below, own = list(telling.below()), list(telling.own())
        has_to_do = self.turns or self._gate.registry.used or any(part.changes for part in own)
        return [*below, *own] if has_to_do else []


_MOST_ROWS = 200  # of a table, and a question: more are counted


class _Telling:
    """One reading of a story, as a report tells it."""

    def __init__(self, story: Story) -> None:
        self._moments = story.moments
        self._levels = story.moments.levels()
        self._turns = [turn for turn in story.turns if self._is_here(turn)]
        self._used = story.moments.used()
        self._told = [one for one in self._used if self._can_be_told(one)]
        self._failure = ""

    def _is_here(self, turn: Turn) -> bool:
        """Whether it was made on the level that stands; what is below is told as a whole."""
        return turn.before is None or turn.before.levels == self._levels

    def _can_be_told(self, database: Database) -> bool:
        moments = [one for turn in self._turns for one in (turn.before, turn.after) if one]
        return all(one.knows(database) for one in moments)

    def below(self) -> Iterator[StoryPart]:
        """What the levels below have written, the lowest first."""
        for depth in range(len(self._levels) - 1, 0, -1):
            changes = self._changes(depth=depth)
            if changes:
                yield StoryPart(_name(self._levels[-1 - depth]), changes, rows=0)

    def own(self) -> Iterator[StoryPart]:
        """Turn by turn, then what could only be read as a whole."""
        yield from self._turn_by_turn()
        for database in self._used:
            changes = None if database in self._told else self._of(self._rows(database))
            if changes is not None:
                yield StoryPart(_as_a_whole(database), changes)
        if self._failure:
            yield StoryPart(f"what changed could not be read: {self._failure}", None)

    def _turn_by_turn(self) -> Iterator[StoryPart]:
        since: StoryMoment | None = None
        title = "before the first request" if self._turns else "the test and its fixtures"
        for turns in _gathered(self._turns):
            before, after = turns[0].before or since, turns[-1].after
            yield from self._outside(title, since, before)
            yield self._part_of(turns, self._changes(before, after))
            since, title = after, "then, outside of requests"
        if not self._turns or since is not None:
            yield from self._outside(title, since, None)

    def _outside(
        self, title: str, since: StoryMoment | None, until: StoryMoment | None
    ) -> Iterator[StoryPart]:
        changes = self._changes(since, until)
        if changes or not (self._turns or self._failure or self._is_partly_told):
            yield StoryPart(title, changes)

    @property
    def _is_partly_told(self) -> bool:
        return len(self._told) < len(self._used)

    def _part_of(self, turns: list[Turn], changes: Changes | None) -> StoryPart:
        if not changes and self._is_partly_told:
            changes = None  # it may have changed what cannot be told
        if len(turns) > 1:
            return StoryPart(f"{len(turns):,} requests more, together", changes, rows=0)
        [turn] = turns
        return StoryPart(_requests(turn), changes, lost=tuple(map(lost_words, turn.lost)))

    def _changes(
        self, since: StoryMoment | None = None, until: StoryMoment | None = None, *, depth: int = 0
    ) -> Changes | None:
        """In all databases of which it can be told; None where that failed."""
        rows: list[TableRows] = []
        for database in self._told if not depth else self._used:
            start = since.time_of(database) if since else None
            end = until.time_of(database) if until else None
            was_there = until is None or database in until.times
            if was_there and (start is None or start != end):  # else nobody has used it meanwhile
                rows += self._rows(database, start, end, depth=depth)
        return self._of(rows)

    def _of(self, rows: list[TableRows]) -> Changes | None:
        return None if self._failure else Changes.of(rows, self._moments.mask)

    def _rows(
        self, database: Database, since: object = None, until: object = None, *, depth: int = 0
    ) -> list[TableRows]:
        if self._failure:  # a connection that is lost stays so
            return []
        try:
            rows = self._moments.rows(database, since, until, depth=depth, limit=_MOST_ROWS)
        except Exception as error:  # noqa: BLE001 - the report goes on, and says it
            first_line = str(error).partition("\n")[0]
            self._failure = redact(f"{database.name}: {first_line or type(error).__name__}")
            return []
        if len(self._used) == 1:
            return rows
        return [replace(one, table=f"{database.name}/{one.table}") for one in rows]


def _name(level: Level) -> str:
    """Below a test's own level is no other test's: above it stands an example's."""
    return "the test's fixtures" if level.is_test else level.name


def _as_a_whole(database: Database) -> str:
    how = database.isolation.name if database.isolation else ""
    return f"in all (with {how} it is not known which request changed what)"


_NAMED = 3  # of requests that were made at once


def _requests(turn: Turn) -> str:
    """The requests of a turn with their answers: redirects in a row, or what was made at once."""
    if not turn.records:
        return "a request that has no answer yet"
    texts = [asked_and_answered(record) for record in turn.records]
    if not turn.is_at_once:
        return " → ".join(texts)
    more = [f"{len(texts) - _NAMED:,} more"] * (len(texts) > _NAMED)
    return f"at once: {', '.join([*texts[:_NAMED], *more])}"


def asked_and_answered(record: Request) -> str:
    """One request as ``POST /orders 201``."""
    role = f" as {record.role}" if record.role else ""
    answer = f" {record.status}" if record.status is not None else ""
    error = f" raised {record.error.partition(':')[0]}" if record.error else ""
    return f"{record.method} {record.path}{role}{answer}{error}"


def _gathered(turns: list[Turn]) -> Iterator[list[Turn]]:
    """Each turn alone; where they are many, those in the middle together."""
    middle = turns[_FIRST : len(turns) - _LAST]
    if len(middle) < 2:  # noqa: PLR2004 - one alone is told as itself
        middle = []
    for turn in turns:
        if turn not in middle:
            yield [turn]
        elif turn is middle[0]:
            yield middle


def lost_words(lost: LostWrite) -> str:
    """What was lost, and where: ``wrote stock (1 row) and never committed it: lost``."""
    rows = f"{lost.rows:,} row{'s' * (lost.rows != 1)}"
    return f"wrote {', '.join(lost.tables)} ({rows}) and never committed it: lost ({lost.line})"
