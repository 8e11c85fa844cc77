"""What has a test changed: before its requests, in each of them, after them?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_arena._changes import Changes
from pytest_arena._gate._orm_sessions import sessions_in_use, unflushed
from pytest_arena._gate.writes._lost_writes import LostObjects
from pytest_arena._ledger import FAILURE
from pytest_arena._report import StoryPart
from pytest_arena._run._test import FIRST, LAST, REFUSAL, RunningTest, StoryMoment, Turn
from pytest_arena.errors import LateCommitError, LostWriteError, redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_arena._gate._answers import RequestAnswer
    from pytest_arena._gate.writes._lost_writes import LostWrite
    from pytest_arena._ledger import Request
    from pytest_arena._product import Database
    from pytest_arena._values import TableRows


def story_parts(test: RunningTest, files: Sequence[str] = ()) -> list[StoryPart]:
    """Return what the test that runs has changed so far, in its order. Never raises.

    ``files`` are lines about files that it wrote in the project. Nothing where it neither wrote
    one nor has to do with a database.
    """
    telling = _Telling(test)
    below = list(telling.below())
    own = list(telling.own())
    if kept := test.uncommitted or uncommitted(test):
        own.append(StoryPart("not committed", None, notes=tuple(kept)))
    late_work = _late_work(test)
    if late_work:
        own.append(
            StoryPart("not finished when the test failed", None, notes=late_work)
        )
    if files:
        title = "files written in the project, which stay there"
        own.append(StoryPart(title, None, notes=tuple(files)))
    has_to_do = (
        test.turns
        or test.gate.registry.used
        or any(part.changes or part.notes for part in own)
    )
    return [*below, *own] if has_to_do else []


_LATE_START_ASYNC = (
    "the app's start-up has seen these rows: in production it runs first\n    next: "
    "`await client` in an async fixture that comes before them"
)
_LATE_START_SYNC = (
    "the app's start-up has seen these rows: in production it runs first\n    next: "
    "ask for `test_client` before the fixture that writes them"
)
_MOST_ROWS = 200  # of a table, and a question: more are counted


class _Telling:
    """One reading of what a test did, as a report tells it."""

    def __init__(self, test: RunningTest) -> None:
        self._moments = test.moments
        self._askers = test.askers
        self._levels = test.moments.levels()
        # Requests of the present levels. The report sums up what lower levels wrote.
        self._turns = [
            turn
            for turn in test.turns
            if turn.before is None or turn.before.levels == self._levels
        ]
        self._used = test.moments.used()
        moments = [
            one for turn in self._turns for one in (turn.before, turn.after) if one
        ]
        self._told = [
            used for used in self._used if all(one.knows(used) for one in moments)
        ]
        self._start = self._late_start(test)
        self._is_async = test.plan.is_async
        self._failure = ""

    def _late_start(self, test: RunningTest) -> StoryMoment | None:
        """Return the moment before the app started, if start-up may have seen the test's rows."""
        start = test.start_moment
        if (
            start is None
            or not test.has_start_used_rows
            or start.levels != self._levels
        ):
            return None
        return start if all(start.knows(database) for database in self._told) else None

    def below(self) -> Iterator[StoryPart]:
        """What the levels below have written, the lowest first."""
        for depth in range(len(self._levels) - 1, 0, -1):
            changes = self._changes(depth=depth)
            if changes:
                level = self._levels[-1 - depth]
                # Below a test's own level is no other test's: above it stands an example's.
                title = "the test's fixtures" if level.is_test else level.name
                yield StoryPart(title, changes, rows=0)

    def own(self) -> Iterator[StoryPart]:
        """Turn by turn, then what could only be read as a whole."""
        yield from self._turn_by_turn()
        for database in self._used:
            changes = None if database in self._told else self._of(self._rows(database))
            if changes is not None:
                how = database.isolation.name if database.isolation else ""
                title = (
                    f"in all (with {how} it is not known which request changed what)"
                )
                yield StoryPart(title, changes, is_whole=True)
        if self._failure:
            yield StoryPart(f"what changed could not be read: {self._failure}", None)

    def _turn_by_turn(self) -> Iterator[StoryPart]:
        since: StoryMoment | None = None
        title = (
            "before the first request" if self._turns else "the test and its fixtures"
        )
        seen_by_start = (
            self._changes(None, self._start) if self._start is not None else None
        )
        if seen_by_start:
            hint = _LATE_START_ASYNC if self._is_async else _LATE_START_SYNC
            yield StoryPart("before the app started", seen_by_start, notes=(hint,))
            since = self._start
        for turns in _gathered(self._turns):
            before = turns[0].before or since
            after = turns[-1].after
            yield from self._outside(title, since, before)
            yield self._part_of(turns, self._changes(before, after))
            since = after
            title = "then, outside of requests"
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
        told = (*map(lost_words, turn.lost), *_hints(turn, self._askers))
        lines = [f"{record.method} {record.path}" for record in turn.records[:_NAMED]]
        return StoryPart(
            _requests(turn),
            changes,
            notes=told,
            request=" and ".join(lines),
            statements=tuple(
                text for record in turn.records for text in record.statements
            ),
        )

    def _changes(
        self,
        since: StoryMoment | None = None,
        until: StoryMoment | None = None,
        *,
        depth: int = 0,
    ) -> Changes | None:
        """In all databases of which it can be told; None where that failed."""
        rows: list[TableRows] = []
        for database in self._told if not depth else self._used:
            start = since.time_of(database) if since else None
            end = until.time_of(database) if until else None
            was_there = until is None or database in until.times
            if was_there and (
                start is None or start != end
            ):  # else nobody has used it meanwhile
                rows += self._rows(database, start, end, depth=depth)
        return self._of(rows)

    def _of(self, rows: list[TableRows]) -> Changes | None:
        return None if self._failure else Changes.of(rows, self._moments.mask)

    def _rows(
        self,
        database: Database,
        since: object = None,
        until: object = None,
        *,
        depth: int = 0,
    ) -> list[TableRows]:
        if self._failure:  # a connection that is lost stays so
            return []
        try:
            rows = self._moments.rows(
                database, since, until, depth=depth, limit=_MOST_ROWS
            )
        except Exception as error:  # noqa: BLE001 - the report goes on, and says it
            first_line = str(error).partition("\n")[0]
            self._failure = redact(
                f"{database.name}: {first_line or type(error).__name__}"
            )
            return []
        if len(self._used) == 1:
            return rows
        return [replace(one, table=f"{database.name}/{one.table}") for one in rows]


_NAMED = 3  # of requests that were made at once


def _requests(turn: Turn) -> str:
    """The requests of a turn with their answers: redirects in a row, or what was made at once."""
    if not turn.records:
        return "a request that has no answer yet"
    texts = [
        asked_and_answered(record) + _statement_words(record) for record in turn.records
    ]
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


_MANY = 10  # statements of a request: fewer are usual
_MANY_ALIKE = 3


def _statement_words(record: Request) -> str:
    """Return how many statements a request has sent, as `` (14 statements, 11 alike)``."""
    count = len(record.statements)
    alike = most_alike(record.statements)
    if count < _MANY and alike < _MANY_ALIKE:
        return ""
    alike_words = f", {alike:,} alike" if alike > 1 else ""
    return f" ({count:,} statements{alike_words})"


def most_alike(statements: list[str]) -> int:
    """Return how often the most frequent statement was sent."""
    return max(Counter(statements).values(), default=0)


def _gathered(turns: list[Turn]) -> Iterator[list[Turn]]:
    """Each turn alone; where they are many, those in the middle together."""
    middle = turns[FIRST : len(turns) - LAST]
    if len(middle) < 2:  # noqa: PLR2004 - one alone is told as itself
        middle = []
    for turn in turns:
        if turn not in middle:
            yield [turn]
        elif turn is middle[0]:
            yield middle


def _hints(turn: Turn, askers: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """What may have come from a cache of the process, and which cookies did not go out."""
    for record in turn.records:
        if record.answer is not None and record.answer.is_early:
            line = line_of_late_commit(record.answer)
            yield f"answered {record.answer.status} before its commit ({line})"
        raised = _raised_words(record)
        if raised:
            yield raised
        first = askers.get((record.method, record.path))
        if first is not None and turn.is_quiet and turn.went_well:
            yield f"sent no statement; in {first} it did: from a cache? Empty it by a hook"
        if record.unsent:
            yield f'came without {record.unsent}: Secure cookies want base_url="https://testserver"'


def _raised_words(record: Request) -> str:
    """Return which exception of the app is behind an answer, or ""."""
    status = record.status or 0
    failure = record.answer.failure if record.answer is not None else ""
    if record.raised:
        return f"raised {record.raised}"
    if record.logged and status >= FAILURE:
        return f"raised {record.logged}"
    if failure and status >= REFUSAL:
        return f"a statement raised {failure}"
    return ""


def uncommitted(test: RunningTest) -> list[str]:
    """Return what the test's own sessions keep from everybody else, and what would change that."""
    pending = test.sessions.pending()
    awaited = "await " * test.plan.is_async
    where = f"db_session: {awaited}db_session.commit()"
    if not pending and (others := unflushed(sessions_in_use())):
        kinds = ", ".join(sorted({type(one).__name__ for one in others}))
        pending = len(others)
        where = f"a session that lives on: {kinds} (commit it first)"
    lines = [f"{pending} object{'s' * (pending != 1)} pending in {where}"] * bool(
        pending
    )
    now = test.own_writes()
    turns = test.turns
    if not turns or any(
        turn.checkouts for turn in turns
    ):  # else the app's sessions are the test's
        for written in sorted(now.union(*(turn.held for turn in turns[-1:])), key=str):
            verb = "holds" if written in now else "held, at the last request,"
            fix = f"commit it before the request: {awaited}session.commit()"
            lines += [f"the test's own session {verb} {written}", f"next: {fix}"]
    return lines


_MOST_LATE = 4  # lines of late work that a report names


def _late_work(test: RunningTest) -> tuple[str, ...]:
    """Return the lines of unfinished work that the test's requests began, and the next step.

    An async test noted them when it failed: its loop has run since.
    """
    lines = test.unfinished
    if lines is None:
        lines = test.late_work.unfinished()
    if not lines:
        return ()
    more = len(lines) - _MOST_LATE
    shown = [
        f"a request began work that still ran: {line}" for line in lines[:_MOST_LATE]
    ]
    if more > 0:
        shown.append(f"and {more} more")
    awaited = "await " if test.plan.is_async else ""
    shown.append(f"next: {awaited}arena.settled()   before you look at what it does")
    shown.append("      `arena` is a fixture: name it among the test's arguments")
    return tuple(shown)


def line_of_loss(request: Request, lost: LostWrite | LostObjects) -> str:
    """Return what tells one mistake of the app from another: it is told once."""
    if isinstance(lost, LostObjects):
        # Sessions of many endpoints may be closed in one line.
        return f"{request.method} {lost.words} {lost.line}"
    return lost.line


def lost_words(lost: LostWrite | LostObjects) -> str:
    """What was lost, and where: ``wrote stock (1 row) and never committed it: lost``."""
    if isinstance(lost, LostObjects):
        return f"{lost.words}, and never flushed or committed it: lost ({lost.line})"
    if lost.by:
        return f"{lost.by} and never committed it: lost ({lost.line})"
    rows = f"{lost.rows:,} row{'s' * (lost.rows != 1)}"
    wrote = f"wrote {', '.join(lost.tables)} ({rows})"
    if lost.is_failed:
        return f"{wrote}, and committed after a failed statement: rolled back, lost ({lost.line})"
    return f"{wrote} and never committed it: lost ({lost.line})"


def lost_write(request: Request, lost: LostWrite | LostObjects) -> LostWriteError:
    """Return the error of a test whose request was answered well, and what it wrote is nowhere."""
    if isinstance(lost, LostObjects):
        return LostWriteError(
            f"{asked_and_answered(request)} {lost.words} in a session, and the app never "
            "flushed or committed it",
            why="the client got a success; in production nothing would be written either",
            cause=lost.line,
            fix="session.commit() before the answer, with await if the session is async; where it "
            "is not to be written: session.rollback(), or session.expunge(…)",
        )
    rows = f"{lost.rows:,} row{'s' * (lost.rows != 1)}"
    if lost.is_failed:
        return LostWriteError(
            f"{asked_and_answered(request)} wrote {', '.join(lost.tables)} ({rows}), and the app "
            "committed after a failed statement",
            why="the server rolls such a transaction back at its commit, and raises no error",
            cause=str(lost.line),
            fix="async with session.begin_nested():   around the statement that may fail",
        )
    what = lost.by or f"wrote {', '.join(lost.tables)} ({rows})"
    return LostWriteError(
        f"{asked_and_answered(request)} {what}, and the app never committed it",
        why="who asked was told that it was done; in production it would be lost as well",
        cause=str(lost.line),
        fix="commit before the answer, with await if it is async: session.commit(), "
        "connection.commit(), or `with engine.begin() as connection:`; where it is meant to be "
        "lost, roll back: session.rollback()",
    )


def line_of_late_commit(answer: RequestAnswer) -> str:
    """Return the app's line that committed after the answer, or that failed to."""
    lines = [*answer.late_commits, answer.error_line]
    known_lines = [line.short for line in lines if line is not None]
    return known_lines[0] if known_lines else "in a line that cannot be seen"


def early_words(request: Request, answer: RequestAnswer) -> str:
    """Return the answer and its commit: ``POST /orders answered 201 before its commit (…)``."""
    line = line_of_late_commit(answer)
    return f"{request.method} {request.path} answered {answer.status} before its commit ({line})"


def late_commit(request: Request, answer: RequestAnswer) -> LateCommitError:
    """Return the error of a test whose request was answered before its commit."""
    what = f"{request.method} {request.path} answered {answer.status} before its commit"
    why = (
        "the client's next request may not see the row. If the commit fails, the client does not "
        "learn of it"
    )
    if answer.error is not None:
        first_line = str(answer.error).partition("\n")[0]
        what += f", and then raised {type(answer.error).__name__}: {first_line}"
        why = f"in production the client gets {answer.status}, and does not learn of the error"
    return LateCommitError(
        what,
        why=why,
        cause=f"{line_of_late_commit(answer)}: FastAPI runs the code behind `yield` after the "
        "answer",
        fix='await session.commit() in the endpoint, or Depends(get_db, scope="function"), which '
        "FastAPI has since 0.121",
    )
