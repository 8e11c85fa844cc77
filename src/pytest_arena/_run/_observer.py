"""What has changed, as a test asks for it, or says before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pytest_arena._changes import Changes
from pytest_arena._expect import Expected, difference
from pytest_arena._origin import user_line
from pytest_arena.errors import IsolationError, PendingWorkError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._databases._sessions import Sessions
    from pytest_arena._ledger import Request
    from pytest_arena._product import Database
    from pytest_arena._run._story import Moments, StoryMoment
    from pytest_arena._run._test import Current, Watcher

__all__ = ["ExpectedChanges", "Observer", "expectations"]


class Observer:
    """Commits what the test's sessions have pending, and says what has changed."""

    def __init__(
        self,
        databases: Databases,
        current: Current,
        moments: Moments,
        watcher: Watcher | None,
    ) -> None:
        self._databases, self._current, self._moments = databases, current, moments
        self.watcher = watcher
        self.blocks: list[ExpectedChanges] = []  # that are open

    def changes(self, request: Request | int | None, *, database: str) -> Changes:
        """Return what the level that stands has changed, or one request of the test.

        Raises:
            PendingWorkError: an async session has pending work, which cannot be awaited here.
            IsolationError: nobody looked around that request.
        """
        __tracebackhide__ = True
        meant = self._meant(database)
        if request is not None:
            return self._changes_of(request, meant)
        self.commit()
        return self.between(meant, None, None)

    def _changes_of(self, request: Request | int, database: Database) -> Changes:
        test = self._current.running()
        record = test.ledger.requests[request] if isinstance(request, int) else request
        turn = record.turn
        if turn not in test.story.turns:
            raise ValueError(f"{record.method} {record.path} is no request of this test")
        before, after = turn.before, turn.after
        if before is None:
            raise _not_known(
                record, database, "of so many requests only the last hundred are known"
            )
        if why := self._why_not([before, after] if after else [before], database):
            raise _not_known(record, database, why)
        if after is not None and database not in after.times:
            return Changes.of([])  # nobody had connected to it yet
        until = after.time_of(database) if after else None
        return self.between(database, before.time_of(database), until)

    def _why_not(self, moments: list[StoryMoment], database: Database) -> str:
        """Say why it cannot be told what has changed around these; "" where it can."""
        if any(one.levels != self._moments.levels() for one in moments):
            return "it was made in another level: a wider fixture's, or an example's of Hypothesis"
        if all(one.knows(database) for one in moments):
            return ""
        isolation = database.isolation.name if database.isolation else "this isolation"
        return (
            f"with {isolation} nobody looked at that time: the database could not be asked, or it "
            "would have cost a reading of all of it at each request"
        )

    def between(self, database: Database, since: object, until: object) -> Changes:
        """Return what has changed in a database between two moments of its isolation.

        Raises:
            IsolationError: not all rows of it are kept.
        """
        __tracebackhide__ = True
        changes = Changes.of(self._moments.rows(database, since, until), self._moments.mask)
        if changes.counts_more:
            raise _only_counted(changes, database)
        return changes

    def moment(self, database: str) -> tuple[Database, object]:
        """Return a database and the moment in it, whatever it costs to know it."""
        __tracebackhide__ = True
        meant = self._meant(database)
        if meant.isolation is None:
            return meant, None
        return meant, self._databases.ensure(meant).moment(exact=True)

    def _meant(self, name: str) -> Database:
        known = self._databases.known
        return known.named(name) if name else known.first()

    def begin_anew(self) -> None:
        """The content is another one: blocks that are open ask what has changed since now."""
        for block in self.blocks:
            block.begin()

    def commit(self) -> None:
        """Commit pending work, as before a request of a sync client.

        Raises:
            PendingWorkError: it is in an async session.
        """
        __tracebackhide__ = True
        sessions = self._sessions()
        try:
            if sessions is not None:
                sessions.commit()
        except PendingWorkError:
            raise _pending() from None

    async def acommit(self) -> None:
        """Commit pending work, as before a request of an async client."""
        sessions = self._sessions()
        if sessions is not None:
            await sessions.acommit()

    def _sessions(self) -> Sessions | None:
        test = self._current.on_top()
        return test.sessions if test else None


@dataclass(slots=True, eq=False)
class ExpectedChanges:
    """A block of a test, and what it is to change: ``with`` or ``async with``."""

    observer: Observer
    expected: Mapping[str, Expected]
    ignore: Collection[str]
    database: str
    _since: tuple[Database, object] = field(init=False)

    def __enter__(self) -> Self:
        __tracebackhide__ = True
        self.observer.commit()
        return self._opened()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        __tracebackhide__ = True
        self.observer.blocks.remove(self)
        if kind is None:
            self.observer.commit()
            self._check()

    async def __aenter__(self) -> Self:
        __tracebackhide__ = True
        await self.observer.acommit()
        return self._opened()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        __tracebackhide__ = True
        self.observer.blocks.remove(self)
        if kind is None:
            await self.observer.acommit()
            self._check()

    def _opened(self) -> Self:
        __tracebackhide__ = True
        self.begin()
        self.observer.blocks.append(self)
        return self

    def begin(self) -> None:
        """What it is to change is asked for since now."""
        __tracebackhide__ = True
        self._since = self.observer.moment(self.database)

    def _check(self) -> None:
        __tracebackhide__ = True
        changes = self.observer.between(*self._since, None)
        if found := difference(changes, self.expected, ignore=self.ignore):
            raise AssertionError(found)
        if self.observer.watcher is not None:
            line = user_line()
            place = f"{line.file}:{line.number}" if line else ""
            self.observer.watcher.asserted(place, "arena.expect_changes(…)")


def expectations(*given: Mapping[str, Any]) -> dict[str, Expected]:
    """Return what is expected of each table.

    Raises:
        TypeError: something else stands in the place of an expectation, or a table has two.
    """
    tables: dict[str, Any] = {}
    for some in given:
        if twice := sorted(tables.keys() & some.keys()):
            raise TypeError(f"{twice[0]} is expected twice: join the two with &")
        tables.update(some)
    for table, expected in tables.items():
        if not isinstance(expected, Expected):
            raise TypeError(
                f"{table}={expected!r} is no expectation: write {table}=inserted(1), or updated, "
                "or deleted; all three are imported from pytest_arena"
            )
    return tables


def _pending() -> PendingWorkError:
    return PendingWorkError(
        "the changes are asked for in an async test, while db_session has work not committed",
        why="what is not committed has changed nothing yet, and here nobody can await the commit",
        cause=str(user_line() or "arena.changes(), or a plain `with arena.expect_changes()`"),
        fix="await db_session.commit()   before it, or: async with arena.expect_changes(...)",
    )


def _only_counted(changes: Changes, database: Database) -> IsolationError:
    return IsolationError(
        f"what was changed in {database.name} is not known row by row: {changes.counted()}",
        why="a wider fixture changed the schema; of the rows that it had written by the next test "
        "some are kept for reports, and the others are in the copy that this test works on",
        cause=str(user_line() or "arena.changes()"),
        fix="ask in the set-up of that fixture, or make the tables by arena_schema",
    )


def _not_known(record: Request, database: Database, why: str) -> IsolationError:
    return IsolationError(
        f"{record.method} {record.path}: what this request changed in {database.name} is not known",
        why=why,
        cause=str(user_line() or "arena.changes(request)"),
        fix="with arena.expect_changes(...):   around the request: there it is read",
    )
