"""Checks the changes of a block, and the number of its statements."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pytest_arena._changes import Changes, shown_in
from pytest_arena._origin import shown_line, user_line
from pytest_arena._owner import Phase
from pytest_arena._process import running_loop
from pytest_arena._run._leaks import refuse_unfinished
from pytest_arena._values import SCHEMA, counted
from pytest_arena.errors import ConfigError, IsolationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pytest_arena._changes import Change, Kind
    from pytest_arena._ledger import Request
    from pytest_arena._product import Database
    from pytest_arena._values import CodeLine


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """An expected number of rows of one kind, each with these values of columns."""

    kind: Kind
    number: int
    values: Mapping[str, object]

    def matches(self, change: Change) -> bool:
        """Return whether a row is of this kind and has all values."""
        if change.kind != self.kind:
            return False
        row = change.row
        for name, value in self.values.items():
            # SQLAlchemy stores the name of an enum's member by default.
            accepted = [value]
            if isinstance(value, Enum):
                accepted += [value.name, value.value]
            if name not in row or row[name] not in accepted:
                return False
        return True

    def text(self) -> str:
        """Return words such as ``1 inserted row with item='chair'``."""
        text = counted(self.number, f"{self.kind} row")
        if self.values:
            text += " with"
        for name, value in self.values.items():
            text += f" {name}={shown_in({name: value}, name)}"
        return text


@dataclass(frozen=True, slots=True)
class Expected:
    """The expectation for a table. ``inserted``, ``updated``, ``deleted`` and ``&`` create it."""

    parts: tuple[ExpectedRows, ...]

    def __and__(self, other: Expected) -> Expected:
        return Expected(self.parts + other.parts)


def inserted(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows with these values are inserted into a table.

    Without values, each inserted row counts. ``&`` joins several expectations for one table.

    Example::

        with arena.expect_changes(orders=inserted(1, status="paid") & updated(2)):
            test_client.post("/orders")

    Raises:
        ValueError: the number is less than 1.
    """
    return _expected("inserted", number, columns)


def updated(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows of a table are updated to these values.

    A row whose primary key changes counts as a deleted and an inserted row. So does each changed
    row of a table without a primary key.

    Example::

        with arena.expect_changes(stock=updated(1, amount=4)):
            test_client.post("/orders")

    Raises:
        ValueError: the number is less than 1.
    """
    return _expected("updated", number, columns)


def deleted(number: int = 1, /, **columns: object) -> Expected:
    """Expect that exactly ``number`` rows with these values are deleted from a table.

    Example::

        with arena.expect_changes(orders=deleted(1, id=7)):
            test_client.delete("/orders/7")

    Raises:
        ValueError: the number is less than 1.
    """
    return _expected("deleted", number, columns)


def _expected(kind: Kind, number: int, columns: Mapping[str, object]) -> Expected:
    if not isinstance(number, int) or number < 1:
        raise ValueError(
            f"{kind}({number!r}): the first argument is the number of rows, from 1. Leave a table "
            "out that must not change"
        )
    return Expected((ExpectedRows(kind, number, columns),))


def difference(
    changes: Changes, expected: Mapping[str, Expected], *, ignore: Collection[str] = ()
) -> str:
    """Return lines about unexpected and missing rows, or "".

    ``ignore`` has names or patterns of tables. Changes of these tables do not count, except of
    tables with an expectation.
    """
    patterns = (ignore,) if isinstance(ignore, str) else ignore
    names = set(expected)
    for name in changes.tables:
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            names.add(name)
    lines = ["the database did not change as expected"]
    for name in sorted(names):
        lines += _table_lines(name, changes[name], expected.get(name, Expected(())))
    if len(lines) == 1:
        return ""
    lines.append(f"all changes: {changes.counted()}")
    return "\n".join(lines)


_MOST = 20  # rows of a table in a message


def _table_lines(name: str, changes: Changes, expected: Expected) -> Iterator[str]:
    """Yield a line for each unexpected row of a table, and each expectation with missing rows.

    Each row counts for one expectation. The one with the fewest spare rows gets its rows first.
    """

    def spare(part: ExpectedRows) -> int:
        return sum(map(part.matches, changes)) - part.number

    unexpected = list(changes)
    columns = [*unexpected[0].row] if unexpected else []
    missing = []
    for part in sorted(expected.parts, key=spare):
        found = list(filter(part.matches, unexpected))[: part.number]
        unexpected = [row for row in unexpected if not any(row is each for each in found)]
        if len(found) < part.number:
            only = f" (only {len(found):,})" if found else ""
            missing.append(f"  missing:    {name}: {part.text()}{only}")
            wrong = ", ".join(sorted(part.values.keys() - columns))
            if wrong and columns:
                missing.append(f"  {name} has no {wrong}. Its columns: {', '.join(columns)}")
    for row in unexpected[:_MOST]:
        yield f"  unexpected: {row}"
    yield from missing


@dataclass(slots=True, eq=False)
class Block:
    """A block of a test. Without ``with`` it checks nothing, so the end of the test asks for it."""

    run: Any  # an `ArenaRun`, which is no public type
    is_entered: bool = field(default=False, init=False)
    line: CodeLine | None = field(default_factory=user_line, init=False)

    def __post_init__(self) -> None:
        self.run.current.required_test().blocks.append(self)


def unentered(blocks: Iterable[Block]) -> Iterator[ConfigError]:
    """Yield an error for each block that the test did not enter."""
    for block in blocks:
        if not block.is_entered:
            yield ConfigError(
                "this call has checked nothing",
                why="its block was not entered",
                cause=str(block.line),
                fix="write `with` before it, or in an async test `async with`",
            )


@dataclass(slots=True, eq=False, repr=False)
class ExpectedChanges(Block):
    """A ``with`` or ``async with`` block, and the changes that the test expects of it."""

    expected: Mapping[str, Expected]
    ignore: Collection[str]
    database: str
    _since: tuple[Database, object] = field(init=False)

    def __enter__(self) -> Self:
        self.is_entered = True
        commit()
        return self._opened()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        commit()
        test = self.run.current.required_test()
        # A plain `with` in an async test cannot wait.
        patience = test.patience if running_loop() is None else 0
        refuse_unfinished(test.wait_for_work(patience), patience)
        self._check()

    async def __aenter__(self) -> Self:
        self.is_entered = True
        await acommit()
        return self._opened()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        test = self.run.current.required_test()
        await asettled(test, test.patience)
        self._check()

    def _opened(self) -> Self:
        database = self.run.database(self.database)
        isolation = database.isolation
        # Some isolations read the whole database.
        self._since = (database, None if isolation is None else isolation.moment(exact=True))
        return self

    def _check(self) -> None:
        changes = changes_between(self.run, *self._since, None)
        differences = difference(changes, self.expected, ignore=self.ignore)
        if differences:
            raise AssertionError(differences)
        _note_assertion(self.run, "arena.expect_changes(…)")


def commit() -> None:
    """Commit pending work, like before a request of a sync client."""
    test = Phase.test
    if test is not None:
        test.commit()
        test.changed_rows.clear()  # the test compares them itself


async def acommit() -> None:
    """Commit pending work, like before a request of an async client."""
    test = Phase.test
    if test is not None:
        await test.acommit()
        test.changed_rows.clear()


async def asettled(test: Any, patience: float) -> None:
    """Commit pending work, and wait until no work of the test's requests runs."""
    await acommit()
    refuse_unfinished(await test.await_work(patience), patience)


def _note_assertion(run: Any, text: str) -> None:
    """Note that an assertion of pytest-arena has passed, and its line in the test."""
    if run.watcher is not None:
        line = user_line()
        run.watcher.asserted(f"{line.file}:{line.number}" if line else "", text)


def changes_between(run: Any, database: Database, since: object, until: object) -> Changes:
    """Return what has changed in a database between two moments of its isolation."""
    isolation = database.isolation
    rows = isolation.rows_changed(since, until) if isolation is not None else []
    changes = Changes.of(rows, partial(check_table, run, database))
    if any(each.more for each in rows):
        raise IsolationError(
            f"not all changed rows of {database.name} are known: {changes.counted()}",
            why="a wide fixture changed the schema. pytest-arena kept only some of the rows that "
            "it wrote before this test",
            cause=shown_line("arena.changes()"),
            fix="arena.changes()   in the set-up of that fixture, or create the tables by "
            "arena_schema",
        )
    return changes


_DEFINITION = "definition of table "  # before a table's name in `Isolation.content`


def check_table(run: Any, database: Database, table: str) -> None:
    """Raise a ConfigError if a database has no table of this name.

    Cost: nothing for a known name, otherwise one read of the whole database.
    """
    if table in {SCHEMA, *database.tables}:
        return
    titles = run.databases.ensure_content(database).content()
    parts = (title.partition(_DEFINITION) for title in titles)
    database.tables = {name for _, definition, name in parts if definition}
    if table not in database.tables:
        raise ConfigError(
            f"the database {database.name} has no table {table!r}",
            why="a table with a wrong name never changes, so the test would prove nothing",
            cause=shown_line("arena.changes()"),
            fix=f"one of its tables: {', '.join(sorted(database.tables)) or 'it has none'}",
        )


@dataclass(slots=True, eq=False)
class StatementLimit(Block):
    """A ``with`` block, and the number of statements that its requests may send."""

    count: int
    _before: int = 0  # the number of the test's requests before the block

    def __enter__(self) -> Self:
        self.is_entered = True
        self._before = len(self.run.current.required_test().requests())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        requests = self.run.current.required_test().requests()[self._before :]
        if not requests:
            raise AssertionError(
                "no request was made in this block: arena.max_statements(…) counts the statements "
                "of requests"
            )
        statements = statements_of(requests)
        if len(statements) > self.count:
            lines = [
                f"{counted(len(statements), 'statement')} in this block, allowed: {self.count:,}"
            ]
            for statement, times in Counter(statements).most_common(_MOST_STATEMENTS):
                text = textwrap.shorten(statement, 100, placeholder=" …")
                lines.append(f"  {counted(times, 'time')}: {text}")
            lines.append("next: load rows that belong together at once: selectinload(…) or a join")
            raise AssertionError("\n".join(lines))
        _note_assertion(self.run, "arena.max_statements(…)")


def statements_of(requests: Iterable[Request]) -> list[str]:
    """Return the statements of requests, except of logins."""
    statements: list[str] = []
    for request in requests:
        if not request.is_login:
            statements += request.statements
    return statements


_MOST_STATEMENTS = 5  # in a message
