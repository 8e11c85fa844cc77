"""The change journal of a database: its installation, its calls, and its recorded rows."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from functools import cache, partial
from json import loads
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_arena._postgresql._control import (
    ControlFailure,
    PostgreSQLControl,
    connect,
    identifier,
    literal,
)
from pytest_arena._postgresql._rows import COLUMNS, IMAGE_SETTINGS, KEY, NAME
from pytest_arena._process import seconds
from pytest_arena._values import SCHEMA, TableRows
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._server_registry import ServerRegistry
    from pytest_arena._product._server_control import Control
    from pytest_arena._values import Address


_SETTINGS = {
    "arena.undo": "1",
    # Foreign keys and the app's triggers have no effect while rows are restored.
    "session_replication_role": "replica",
    "row_security": "off",
    **IMAGE_SETTINGS,
    # PostgreSQL plans each statement once, for few rows, so that it reads no whole table.
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    # Shorter than deadlock_timeout, so that pytest-arena fails and not the app.
    "lock_timeout": "200ms",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "off",
}


class State(NamedTuple):
    """The content at one time: a snapshot of transactions, and the state of all sequences.

    ``taken`` has the last number that was taken of each sequence. ``numbers`` has all values, also
    of sequences of which no number was taken. ``catalog`` is a fingerprint of the schema.
    """

    snapshot: str
    taken: str = "{}"
    numbers: str = "{}"
    catalog: str = ""


def journal_control(address: Address, on_lost: Callable[[], None]) -> Control:
    """Return a connection to a database with a journal."""
    # The app's connections report a deadlock sooner than after a second.
    setting = f"ALTER DATABASE {identifier(address.database)} SET deadlock_timeout = '300ms'"
    return PostgreSQLControl(
        partial(connect, address, _SETTINGS),
        lambda control: control.run(setting),
        on_lost,
    )


def ask_journal(rows: Callable[..., Any], name: str, *arguments: str) -> dict[str, Any]:
    """Call a function of the journal by ``rows``. Return its result by its columns."""
    values = ", ".join(map(literal, arguments))
    [(answer,)] = rows(f"SELECT row_to_json(a)::text FROM pg_arena.{name}({values}) a")
    found: dict[str, Any] = loads(answer)
    return found


FIX_FOR_UNDO = "the URL of a superuser in arena_database, or arena_database = own"
# Installs the journal in a template, in 3 ms a table.
INSTALLATION = Path(__file__).with_name("journal.sql").read_text(encoding="utf-8")
for _name, _value in IMAGE_SETTINGS.items():
    for _trigger in ("by_row", "by_truncate"):
        INSTALLATION += f"ALTER FUNCTION pg_arena.{_trigger}() SET {_name} = '{_value}';\n"


@cache
def why_no_undo(registry: ServerRegistry) -> str:
    """Return why the role of a run cannot undo tests, "" if it can.

    Raises:
        ArenaError: the server does not answer.
    """
    with registry.reporting("the rights for undo cannot be checked"):
        [(role, is_superuser)] = registry.control.rows(
            "SELECT current_user::text, current_setting('is_superuser') = 'on'"
        )
    return "" if is_superuser else f"the role {role} is no superuser"


class _ChangedTable(NamedTuple):
    """A table with changes, by the current catalog."""

    name: str
    row_type: str
    columns: list[str]
    key: list[str]
    number: int  # of changed rows
    removed: list[str]
    added: list[str]


class ServerClock:
    """Converts times of this process into the server's, so that a moment costs no round trip.

    The server reads its clock after a question was sent, and before the answer arrives. The answers
    to some questions limit the difference of the clocks (Cristian, Probabilistic clock
    synchronization, 1989). The error is at most half of the fastest round trip. Between a commit
    and the end of its request lies at least as much.
    """

    def __init__(self) -> None:
        self._difference = inf  # seconds by which the server's clock is ahead
        self._error = 0.0
        self._time_of_answer = 0.0
        self._time_of_jump = 0.0  # when pytest-arena has last seen one

    def measure(self, control: Control, questions: int = 1) -> None:
        """Measure the difference of the clocks. Each question is a round trip."""
        answers = []
        for _ in range(questions):
            sent = seconds()
            [(time,)] = control.rows(_TIME)
            answers.append((seconds() - sent, time - sent))
        trip, largest = min(answers)
        difference = largest - trip / 2
        error = self._error + (sent - self._time_of_answer) * _DRIFT
        if abs(difference - self._difference) > error + trip:
            self._time_of_jump = sent
        elif error < trip:  # the last measurement is more exact
            return
        self._difference = difference
        self._error = trip
        self._time_of_answer = sent

    def sql(self, time: float) -> str:
        """Return the server's time at a time of this process.

        Raises:
            IsolationError: the server's clock has jumped since then.
        """
        if time < self._time_of_jump:
            raise IsolationError(
                "which request has changed which rows is not known",
                why="pytest-arena compares the times of changes and requests",
                cause="the clock of the database's server has jumped during the test",
                fix="arena.changes()   for the changes of the whole test",
            )
        return f"to_timestamp({time + self._difference!r})"


_DRIFT = 0.0002  # seconds in each second: more than clocks of computers deviate
_TIME = "SELECT extract(epoch FROM clock_timestamp())::float8"


def entries_between(first: str, last: str) -> str:
    """Return SQL for the entries between two snapshots, or with "" all later ones."""
    entries = f"pg_arena.since({literal(first)}) m WHERE true"
    if last:
        entries += f" AND pg_visible_in_snapshot(m.x, {literal(last)})"
    return entries


def rows_changed(control: Control, entries: str, limit: int | None) -> list[TableRows]:
    """Return the net changes of each table by these entries, in the order of their names.

    ``control`` has the settings of the images. Values have the current types of the columns. This
    omits virtual columns, and tables that were dropped.

    The last entry has the marks: rows of "the schema" with the column "changed".

    Cost: two round trips, and another for each changed table.

    Raises:
        ControlFailure: the journal was dropped, or the server does not answer.
    """
    is_shown = "true" if limit is None else f"place <= {int(limit)}"
    question = _CHANGED.format(
        entries=entries, is_shown=is_shown, name=NAME, columns=COLUMNS, key=KEY
    )
    tables = [_rows_of(control, _ChangedTable(*row)) for row in control.rows(question)]
    marks = control.rows(
        f"SELECT m.r FROM {entries} AND m.op = 0 GROUP BY m.r ORDER BY min(m.x::text::int8), m.r"
    )
    if marks:
        shown = tuple(marks[:limit])
        tables.append(TableRows(SCHEMA, ("changed",), (), (), shown, more=len(marks) - len(shown)))
    return tables


def _rows_of(control: Control, table: _ChangedTable) -> TableRows:
    """Convert images to rows. If that fails, the rows have one column, "row", with the image.

    It fails if the table has other columns now, or the driver has no type for a value.
    """
    images = [*table.removed, *table.added]
    columns = tuple(table.columns)
    key = tuple(table.key)
    values = ", ".join(f"u.{identifier(column)}" for column in columns)
    array = f"ARRAY[{', '.join(map(literal, images))}]::text[]::{table.row_type}[]"
    try:
        rows = control.rows(f"SELECT {values} FROM unnest({array}) u")
    except ControlFailure:
        columns = ("row",)
        key = ()
        rows = [(image,) for image in images]
    return TableRows(
        table=table.name,
        columns=columns,
        key=key,
        removed=tuple(rows[: len(table.removed)]),
        added=tuple(rows[len(table.removed) :]),
        more=table.number - len(rows),
    )


_CHANGED = """
WITH net AS (
    SELECT m.rel, m.r, sum(m.op) AS c FROM {entries}
    GROUP BY m.rel, m.r HAVING sum(m.op) <> 0),
images AS (
    SELECT n.rel, n.r, n.c < 0 AS is_removed,
        row_number() OVER (PARTITION BY n.rel ORDER BY n.c > 0) AS place
    FROM net n, LATERAL generate_series(1, abs(n.c))),
changed AS (
    SELECT rel, count(*) AS number,
        coalesce(array_agg(r) FILTER (WHERE is_removed AND {is_shown}), '{{}}') AS removed,
        coalesce(array_agg(r) FILTER (WHERE NOT is_removed AND {is_shown}), '{{}}') AS added
    FROM images GROUP BY rel)
SELECT {name},
    -- The name alone may be that of a type of PostgreSQL.
    format('%s.%I', c.relnamespace::regnamespace, c.relname),
    {columns}, {key}, s.number, s.removed, s.added
FROM changed s JOIN pg_catalog.pg_class c ON c.oid = s.rel
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY n.nspname <> 'public', n.nspname, c.relname
"""
