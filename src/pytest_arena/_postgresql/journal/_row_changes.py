"""Reads the changed rows from the journal."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from typing import NamedTuple

from pytest_arena._postgresql._content import COLUMNS, KEY, LIKE_THE_APP, one_snapshot
from pytest_arena._postgresql._control import (
    Control,
    ControlFailure,
    identifier,
    literal,
)
from pytest_arena._values import SCHEMA, TableRows

_DEFAULT = "public"
_RAW = ("row",)
_LOST = ("08", "57")  # classes of SQLSTATE: connection, operator
_MARK = ("changed",)


class Entries(NamedTuple):
    """A selection of the journal's entries."""

    schema: str  # the journal's schema
    level: int
    is_top: bool
    since: str = ""  # a moment, "" for the level's start
    until: str = ""  # a moment, "" for now

    def write(self) -> str:
        """Write the query for the entries: rel, op, r."""
        old = f"SELECT rel, op, r FROM {self.schema}.jold WHERE level = {self.level}"
        if not self.is_top:
            return old
        new = f"SELECT rel, op, r FROM {self.schema}.j WHERE {self.when()}"
        if self.since:
            # Entries of `jold` were committed before a level above was entered.
            return new
        return f"{new} UNION ALL {old}"

    def when(self) -> str:
        """Write the condition that an entry was committed between the moments."""
        terms = ["true"]
        if self.since:
            terms.append(f"NOT {is_before(self.since)}")
        if self.until:
            terms.append(is_before(self.until))
        return " AND ".join(terms)


def is_before(moment: str) -> str:
    """Write the condition that an entry was committed before a moment."""
    return f"pg_catalog.pg_visible_in_snapshot(x, {literal(moment)}::pg_catalog.pg_snapshot)"


class _ChangedTable(NamedTuple):
    """A table with changes, by the current catalog. A dropped table has no name."""

    oid: int
    schema: str | None
    name: str | None
    columns: list[str]
    width: int  # the number of columns, also virtual columns
    key: list[str]
    # Whether a column was dropped since the installation. An image does not name its columns.
    has_lost_columns: bool
    number: int  # of changed rows
    removed: list[str]
    added: list[str]

    def images(self) -> list[str]:
        """Return the images of all changed rows, the removed ones first."""
        return [*self.removed, *self.added]

    def write_cast(self, *, to: str = "") -> str:
        """Write the query that converts the images to rows, with the types of their columns."""
        images = ", ".join(
            literal(_padded(image, self.width)) for image in self.images()
        )
        row_type = f"{identifier(self.schema or '')}.{identifier(self.name or '')}"
        values = ", ".join(f"u.{identifier(column)}{to}" for column in self.columns)
        return (
            f"SELECT {values} "
            f"FROM unnest(ARRAY[{images}]::pg_catalog.text[]::{row_type}[]) u"
        )


def _padded(image: str, width: int) -> str:
    """Add NULLs to an image for columns that were added later."""
    # A quote in a value is doubled. So each second part is inside quotes, and has no separator.
    outside_quotes = image.split('"')[::2]
    fields = 1 + sum(part.count(",") for part in outside_quotes)
    nulls = "," * max(0, width - fields)
    return f"{image[:-1]}{nulls})"


def rows_changed(
    control: Control, entries: Entries, limit: int | None
) -> list[TableRows]:
    """Return the net changes of each table, in the order of the tables' names.

    ``control`` has the settings of the images. Values have the current types of the columns. If
    the driver has no type for a column, all values of the table are texts. If the table was dropped
    or has lost a column, its rows have one column, "row", with their text. This omits virtual
    columns, and a dropped table that was created after the journal.

    The last entry has the marks of the top level: rows of "the schema" with the column "changed".

    Cost: two round trips, and another for each changed table.

    Raises:
        ControlFailure: the journal was dropped, or the server does not answer.
    """
    cut = "" if limit is None else f"WHERE p.place <= {int(limit)}"
    question = _CHANGED.format(
        entries=entries.write(),
        cut=cut,
        schema=entries.schema,
        columns=COLUMNS,
        key=KEY,
    )
    changed = [_ChangedTable(*row) for row in control.rows(question)]
    tables = [_rows_of(control, table) for table in changed]
    return [*tables, *_marks(control, entries, limit)]


def _marks(
    control: Control, entries: Entries, limit: int | None
) -> Iterator[TableRows]:
    if not entries.is_top:
        return
    marks = control.rows(
        f"SELECT what FROM {entries.schema}.ddl WHERE {entries.when()} "
        "GROUP BY what ORDER BY min(x::text::int8), what"
    )
    if marks:
        shown = tuple(marks[:limit])
        yield TableRows(SCHEMA, _MARK, (), (), shown, more=len(marks) - len(shown))


def _rows_of(control: Control, table: _ChangedTable) -> TableRows:
    name = table.name or f"a table that was dropped ({table.oid})"
    if table.schema not in {_DEFAULT, None}:
        name = f"{table.schema}.{name}"
    columns = tuple(table.columns)
    rows: list[tuple[object, ...]] = []
    if table.images():
        columns, rows = _cast(control, table)
    key: tuple[str, ...] = ()
    if columns != _RAW:
        key = tuple(table.key)
    return TableRows(
        table=name,
        columns=columns,
        key=key,
        removed=tuple(rows[: len(table.removed)]),
        added=tuple(rows[len(table.removed) :]),
        more=table.number - len(rows),
    )


def _cast(
    control: Control, table: _ChangedTable
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Return the columns of a table's changed rows, and the rows."""
    images: list[tuple[object, ...]] = [(image,) for image in table.images()]
    if table.name is None or table.has_lost_columns:
        return _RAW, images
    # A domain's check may need the app's search_path, which costs a transaction. The first attempts
    # have no transaction.
    for begin, to in product(("", f"BEGIN; {LIKE_THE_APP}"), ("", "::pg_catalog.text")):
        try:
            with one_snapshot(control, begin) if begin else nullcontext():
                return tuple(table.columns), control.rows(table.write_cast(to=to))
        except ControlFailure as error:
            # Without an SQLSTATE, the driver has no Python type for a value, or the connection is
            # lost. The query for texts shows the cause.
            if error.sqlstate[:2] in _LOST or (to and not error.sqlstate):
                raise
    return _RAW, images


_CHANGED = """
WITH net AS (
    SELECT m.rel, m.r, sum(m.op) AS c FROM ({entries}) m
    GROUP BY m.rel, m.r HAVING sum(m.op) <> 0),
images AS (
    SELECT n.rel, n.r, n.c < 0 AS is_removed,
        row_number() OVER (PARTITION BY n.rel ORDER BY n.c > 0) AS place
    FROM net n, LATERAL generate_series(1, abs(n.c))),
limited AS (
    SELECT p.rel,
        array_agg(p.r) FILTER (WHERE p.is_removed) AS removed,
        array_agg(p.r) FILTER (WHERE NOT p.is_removed) AS added
    FROM images p {cut} GROUP BY p.rel),
sums AS (SELECT n.rel, sum(abs(n.c))::int8 AS number FROM net n GROUP BY n.rel)
SELECT s.rel::int8, m.nspname::text, c.relname::text,
    {columns},
    (SELECT count(*) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = s.rel AND a.attnum > 0 AND NOT a.attisdropped),
    {key},
    (SELECT count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = s.rel AND a.attisdropped)
        <> coalesce(e.dropped_columns, 0),
    s.number, coalesce(w.removed, '{{}}'), coalesce(w.added, '{{}}')
FROM sums s LEFT JOIN limited w ON w.rel = s.rel
LEFT JOIN pg_catalog.pg_class c ON c.oid = s.rel
LEFT JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace
LEFT JOIN {schema}.tables e ON e.oid = s.rel
WHERE c.oid IS NOT NULL OR e.oid IS NOT NULL
ORDER BY m.nspname <> 'public', m.nspname, c.relname, s.rel
"""
