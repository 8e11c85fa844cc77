"""The report of a failed test: its requests, changed rows and unfinished work, in order."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_arena._changes import Changes
from pytest_arena._config._load import is_library
from pytest_arena._gate._listeners import gate
from pytest_arena._gate._registry import unflushed_by_tests
from pytest_arena._ledger import REFUSAL, route_of
from pytest_arena._values import counted
from pytest_arena.errors import cut, redact
from pytest_arena.warnings import (
    LateCommitWarning,
    LateWorkWarning,
    LostWriteWarning,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._gate._lost_writes import Uncommitted
    from pytest_arena._ledger import Ledger, Request
    from pytest_arena._run._test import RunningTest, StoryMoment, Turn
    from pytest_arena._values import TableRows


@dataclass(frozen=True, slots=True)
class StoryPart:
    """One part of the story of a failed test: a request, the set-up of a fixture, or other work."""

    title: str
    changes: Changes | None  # None if they are unknown
    notes: tuple[str, ...] = ()
    has_rows: bool = True  # whether the report shows them, and not only their number


def story_parts(test: RunningTest, raised: BaseException | None) -> list[StoryPart]:
    """Return what the running test has changed so far, in order. Never raises.

    The story is empty without a used database. Unfinished work explains a failed assertion. After
    another error it may be what the error has left.
    """
    test.take_lost()
    reader = StoryReader(test)
    parts = [*reader.below(), *reader.own()]
    is_explained = isinstance(raised, AssertionError | None)
    notes = {
        "not committed": test.uncommitted or uncommitted(test),
        "not finished when the test failed": _late_work(test) if is_explained else [],
        "failed after the answer": [*test.failures],
    }
    for title, lines in notes.items():
        if lines:
            parts.append(StoryPart(title, None, tuple(lines)))
    if test.turns or gate.registry.has_used or any(part.changes or part.notes for part in parts):
        return parts
    return []


_MOST_ROWS = 200  # of a table, at each reading. Further rows are only counted


class StoryReader:
    """Reads the changes of a test, for its report or for a scenario.

    Of a table with more than ``most_rows`` changed rows it knows only the number.
    """

    def __init__(self, test: RunningTest, *, most_rows: int = _MOST_ROWS) -> None:
        self._test = test
        self._most_rows = most_rows
        self._used = test.databases.provisioned
        self._levels = tuple(test.databases.levels)
        # The last turns of the present levels. Of other turns the report has only the sum.
        self._turns: list[Turn] = []
        moments: list[StoryMoment] = []
        for turn in test.turns:
            if turn.before is not None and turn.before.levels == self._levels:
                self._turns.append(turn)
                moments += filter(None, (turn.before, turn.after))
        # Whether the isolations know what each turn has changed.
        self._knows_turns = all(
            moment.knows(database) for moment in moments for database in self._used
        )
        self._failure = ""

    def below(self) -> Iterator[StoryPart]:
        """Yield the changes of the levels below, the lowest first."""
        for depth in range(len(self._levels) - 1, 0, -1):
            changes = self.changes(depth=depth)
            if changes:
                yield StoryPart(self._levels[-1 - depth].name, changes, has_rows=False)

    def own(self) -> Iterator[StoryPart]:
        """Yield the changes turn by turn. If they are not known, then yield the sum."""
        title = "the test and its fixtures"
        earlier = len(self._test.turns) - len(self._turns)
        if self._turns:
            title = "before the first request"
        if earlier:
            title = f"before, with {earlier:,} earlier requests"
        since: StoryMoment | None = None
        for turn in self._turns:
            yield from self._outside(title, since, turn.before)
            lost_lines = [
                f"{_lost_line(lost)} [{LostWriteWarning.__name__}]"
                for lost in self._test.losses
                if lost.request in turn.records
            ]
            notes = (*lost_lines, *_hints(turn))
            yield StoryPart(_requests(turn), self.changes(turn.before, turn.after), notes)
            title = "then, outside of requests"
            since = turn.after
        if not self._knows_turns:
            names = ", ".join({isolation.name for isolation in self._used.values()})
            title = f"in all (with {names} it is not known which request changed what)"
            yield StoryPart(title, self.changes())
        elif since is not None or not self._turns:
            yield from self._outside(title, since, None)
        if self._failure:
            yield StoryPart(f"what changed could not be read: {self._failure}", None)

    def _outside(
        self, title: str, since: StoryMoment | None, until: StoryMoment | None
    ) -> Iterator[StoryPart]:
        changes = self.changes(since, until)
        if changes or not (self._turns or self._failure):
            yield StoryPart(title, changes)

    def changes(
        self,
        since: StoryMoment | None = None,
        until: StoryMoment | None = None,
        *,
        depth: int = 0,
    ) -> Changes | None:
        """Return the changes in all databases, None if they are not known."""
        moments = [moment for moment in (since, until) if moment is not None]
        # After a failure, do not retry on a lost connection.
        if self._failure or (moments and not self._knows_turns):
            return None
        if any(moment.levels != self._levels for moment in moments):
            return None
        rows: list[TableRows] = []
        for database, isolation in self._used.items():
            start = since.times.get(database) if since else None
            end = until.times.get(database) if until else None
            has_existed = until is None or database in until.times
            # If both times are equal, no connection has used the database in between.
            if not has_existed or (start is not None and start == end):
                continue
            try:
                tables = isolation.rows_changed(start, end, depth=depth, limit=self._most_rows)
            except Exception as error:  # noqa: BLE001 - the report shows it
                self._failure = redact(f"{database.name}: {error}").partition("\n")[0]
                return None
            prefix = f"{database.name}/" if len(self._used) > 1 else ""
            rows += [replace(each, table=prefix + each.table) for each in tables]
        return Changes.of(rows)


def _requests(turn: Turn) -> str:
    """Return the requests of a turn with their answers: redirects, or concurrent requests."""
    texts = [with_answer(each) for each in turn.records]
    if not turn.is_at_once:
        return " → ".join(texts) or "a request that has no answer yet"
    return f"at once: {', '.join(texts)}"


def with_answer(record: Request) -> str:
    """Return a request and its answer as ``POST /orders 201``."""
    role = f" as {record.role}" if record.role else ""
    answer = ""
    if record.error:
        answer = f" raised {record.error.partition(':')[0]}"
    elif record.status is not None:
        answer = f" {record.status}"
    query = f"?{redact(record.query)}" if record.query else ""
    return f"{record.shown}{query}{role}{answer}"


def _hints(turn: Turn) -> Iterator[str]:
    """Yield notes about late commits and the app's errors."""
    if turn.after is None:
        yield "its answer was still open"
        if any(each.is_open and each.method == "GET" for each in turn.records):
            yield "next: `client.stream(…)` reads an endless body part by part"
    for record in turn.records:
        if record.late_commits:
            yield f"answered {record.status} before its commit ({record.late_commits[0]})"
        if record.raised:
            yield f"raised {'' if record.is_refused else 'after its answer: '}{record.raised}"
        elif record.failure and record.is_refused:
            yield f"a statement raised {record.failure}"
        text = " ".join(record.refusal.decode(errors="replace").split())
        if text and text.isprintable() and not record.raised:  # compressed bytes are no text
            yield f"answered {cut(redact(text), _LONGEST_BODY)}"


_IN_SESSION = "in db_session, of the test or by a cascade of the app"


def uncommitted(test: RunningTest) -> list[str]:
    """Return lines about uncommitted work of the test, and how to commit it."""
    test.take_lost()
    awaited = "await " if test.plan.is_async else ""
    lines = []
    pending = test.sessions.pending()
    if pending:
        objects = counted(pending, "pending object")
        lines.append(f"{objects} {_IN_SESSION}: {awaited}db_session.commit()")
    if test.turns and not any(turn.has_checked_out for turn in test.turns):
        return lines  # the app uses the test's session
    unseen = [_lost_line(lost) for lost in test.losses if lost.request is None]
    held = test.turns[-1].held if test.turns else set()
    for pending_writes in sorted(held | gate.registry.pending_writes(), key=str):
        if not pending_writes.request:  # else it is a write of the app
            unseen.append(f"{pending_writes.words} and did not commit it: {pending_writes.place}")
    unseen += unflushed_by_tests()
    if not unseen:
        return lines
    fix = f"next: commit it before another session reads it: {awaited}session.commit()"
    return [*lines, *(f"the test or its fixture {words}" for words in unseen), fix]


def _late_work(test: RunningTest) -> list[str]:
    """Return the lines of unfinished work that the test's requests began, and the next step.

    An async test noted the lines when it failed, because its loop has run since.
    """
    lines = test.unfinished
    if lines is None:
        lines = test.unfinished_work()
    if not lines:
        return []
    shown = [f"a request began work that still ran: {line}" for line in lines]
    awaited = "await " if test.plan.is_async else ""
    return [*shown, f"next: {awaited}arena.settled()   before the test checks the result"]


_OK = 200  # the lowest status of a good answer


def warn(ledger: Ledger, test: RunningTest) -> None:
    """Warn of what a test has lost. The report of a failed test already names it."""
    for lost in test.losses:
        author = "a fixture" if lost.is_of_fixture else ""
        request = lost.request
        if request is not None:
            # pytest shows equal warnings once. The lifespan has no answer.
            author = f"{route_of(request)} {request.status or ''}".strip()
        if author:
            warn_of_loss(ledger, author, lost)
    for request in test.records:
        if request.late_commits:
            ledger.warn(
                LateCommitWarning,
                "the app answered before its commit, as behind a `yield` or in a middleware",
                cause=request.late_commits[0],
                fix="session.commit() in the endpoint, with await if it is async. Or, since "
                'FastAPI 0.121: Depends(get_db, scope="function")',
            )
    # The errors of tasks, and of background tasks that failed after a good answer.
    failures = dict(test.failures)
    for request, error in test.app_errors:
        trace = getattr(error, "__traceback__", None)
        # The outermost frame caught the error: the user's code, also a block of `pytest.raises`.
        is_caught = trace is not None and not is_library(trace.tb_frame.f_code.co_filename)
        if is_caught or request.late_commits:
            continue
        if _OK <= (request.status or 0) < REFUSAL:
            failures[f"{request.raised} in {request.shown}"] = None
    for failure, line in failures.items():
        ledger.warn(
            LateWorkWarning,
            f"work that a request had begun failed after the answer: {failure}",
            cause=line or "the client has its answer, and never sees the error",
            fix="repair it, or catch the error in the task if the app expects it",
        )


def warn_of_loss(ledger: Ledger, author: str, lost: Uncommitted) -> None:
    """Warn of lost writes."""
    ledger.warn(LostWriteWarning, f"{author} {lost.what}", cause=lost.line, fix=lost.fix)


def _lost_line(lost: Uncommitted) -> str:
    return f"{lost.what} ({lost.line})"


_WIDEST_TITLE = 48  # of titles in a column
_LONGEST_TITLE = 150
_LONGEST_BODY = 200
_MOST_LINES = 40
_ROWS = 8  # the largest number of shown rows of each table of a part


def story_lines(parts: list[StoryPart]) -> list[str]:
    """Return about forty lines: a line for each part, with its rows below.

    With too many rows, only the last parts show rows, because a test fails at its end.
    """
    space = _MOST_LINES
    titles = []
    for part in parts:
        space -= 1 + len(part.notes)
        titles.append(textwrap.shorten(part.title, _LONGEST_TITLE, placeholder=" …"))
    width = min(max(map(len, titles), default=0), _WIDEST_TITLE)
    shown: list[str] = []
    for title, part in zip(reversed(titles), reversed(parts), strict=True):
        lines = [title]
        if part.changes is not None:
            lines = [f"{title:<{width}}  {part.changes.counted()}"]
            rows = part.changes.lines(_ROWS) if part.has_rows else []
            if len(rows) <= space:
                space -= len(rows)
                lines += [f"    {row}" for row in rows]
        shown[:0] = [*lines, *(f"    {note}" for note in part.notes)]
    return shown
