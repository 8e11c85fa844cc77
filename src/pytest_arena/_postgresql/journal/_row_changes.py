"""Reads the changed rows from the journal."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from dataclasses import replace
from typing import NamedTuple

from pytest_arena._postgresql._control import (
    Control,
    ControlFailure,
    identifier,
    literal,
)
from pytest_arena._postgresql._rows import COLUMNS, KEY
from pytest_arena._values import SCHEMA, TableRows

_DEFAULT = "public"
_RAW = ("row",)
_LOST = ("08", "57")  # classes of SQLSTATE: connection, operator
_MARK = ("changed",)


class _ChangedTable(NamedTuple):
    """A table with changes, by the current catalog. A dropped table has no name.

    A partition has the name, the columns and the key of its root.
    """

    oid: int
    schema: str | None
    name: str | None
    row_type: str
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
        values = ", ".join(f"u.{identifier(column)}{to}" for column in self.columns)
        return (
            f"SELECT {values} FROM unnest(ARRAY[{images}]::text[]::{self.row_type}[]) u"
        )


def _padded(image: str, width: int) -> str:
    """Add NULLs to an image for columns that were added later."""
    # A quote in a value is doubled. So each second part is inside quotes, and has no separator.
    outside_quotes = image.split('"')[::2]
    fields = 1 + sum(part.count(",") for part in outside_quotes)
    nulls = "," * max(0, width - fields)
    return f"{image[:-1]}{nulls})"


def rows_changed(
    control: Control, first: str, last: str, limit: int | None
) -> list[TableRows]:
    """Return the net changes of each table between two snapshots, in the order of their names.

    Without a ``last`` snapshot, these are all later changes.

    ``control`` has the settings of the images. Values have the current types of the columns. If
    the driver has no type for a column, all values of the table are texts. If the table was dropped
    or has lost a column, its rows have one column, "row", with their text. This omits virtual
    columns, and a dropped table that was created after the journal.

    The last entry has the marks: rows of "the schema" with the column "changed".

    Cost: two round trips, and another for each changed table.

    Raises:
        ControlFailure: the journal was dropped, or the server does not answer.
    """
    entries = f"pg_arena.since({literal(first)}) m WHERE true"
    if last:
        entries += f" AND pg_visible_in_snapshot(m.x, {literal(last)})"
    cut = "" if limit is None else f"WHERE p.place <= {int(limit)}"
    question = _CHANGED.format(entries=entries, cut=cut, columns=COLUMNS, key=KEY)
    changed: dict[str, TableRows] = {}
    for row in control.rows(question):
        rows = _rows_of(control, _ChangedTable(*row))
        other = changed.get(rows.table)
        if other is not None and other.columns == rows.columns:
            rows = replace(
                rows,
                removed=other.removed + rows.removed,
                added=other.added + rows.added,
                more=other.more + rows.more,
            )
        changed[rows.table] = rows
    tables = list(changed.values())
    marks = control.rows(
        f"SELECT m.r FROM {entries} AND m.op = 0 "
        "GROUP BY m.r ORDER BY min(m.x::text::int8), m.r"
    )
    if marks:
        shown = tuple(marks[:limit])
        tables.append(
            TableRows(SCHEMA, _MARK, (), (), shown, more=len(marks) - len(shown))
        )
    return tables


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
    if table.name is not None and not table.has_lost_columns:
        for to in ("", "::text"):
            try:
                return tuple(table.columns), control.rows(table.write_cast(to=to))
            except ControlFailure as error:
                # Without an SQLSTATE, the driver has no Python type for a value, or the connection
                # is lost. The query for texts shows the cause.
                if error.sqlstate[:2] in _LOST or (to and not error.sqlstate):
                    raise
    return _RAW, [(image,) for image in table.images()]


_CHANGED = """
WITH net AS (
    SELECT m.rel, m.r, sum(m.op) AS c FROM {entries}
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
SELECT s.rel::int8, m.nspname::text, c.relname::text, s.rel::regclass::text,
    {columns},
    (SELECT count(*) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = s.rel AND a.attnum > 0 AND NOT a.attisdropped),
    {key},
    (SELECT count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = s.rel AND a.attisdropped)
        <> coalesce(e.dropped, 0),
    s.number, coalesce(w.removed, '{{}}'), coalesce(w.added, '{{}}')
FROM sums s LEFT JOIN limited w ON w.rel = s.rel
LEFT JOIN pg_catalog.pg_class c ON c.oid = coalesce(pg_partition_root(s.rel), s.rel)
LEFT JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace
LEFT JOIN pg_arena.t e ON e.rel = s.rel
WHERE c.oid IS NOT NULL OR e.rel IS NOT NULL
ORDER BY m.nspname <> 'public', m.nspname, c.relname, s.rel
"""
