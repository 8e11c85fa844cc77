"""Which rows have gone and come, by what the change journal holds?"""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from contextlib import nullcontext
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._postgresql._content import COLUMNS, KEY, LIKE_THE_APP, one_snapshot
from pytest_arena._postgresql._control import (
    Control,
    ControlFailure,
    identifier,
    literal,
)
from pytest_arena._values import TableRows

if TYPE_CHECKING:
    from collections.abc import Iterator


_DEFAULT = "public"
_RAW = ("row",)
_LOST = ("08", "57")  # classes of codes: the connection, the operator
# Marks are shown as rows: whoever expects no change must not miss one that has no rows to show.
_SCHEMA = "the schema"
_MARK = ("changed",)


class Entries(NamedTuple):
    """What of the journal is asked for."""

    schema: str  # of the journal
    level: int
    is_top: bool
    since: str = ""  # a moment, "" for the level's start
    until: str = ""  # a moment, "" for now

    def write(self) -> str:
        """Write a query of them: rel, op, r."""
        old = f"SELECT rel, op, r FROM {self.schema}.jold WHERE level = {self.level}"
        if not self.is_top:
            return old
        new = f"SELECT rel, op, r FROM {self.schema}.j WHERE {self.when()}"
        # What was archived had been committed when a level above was entered.
        return new if self.since else f"{new} UNION ALL {old}"

    def when(self) -> str:
        """Write the condition that it was committed in that time."""
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
    """A table with changes, as the catalog has it now; without a name where it is gone."""

    oid: int
    schema: str | None
    name: str | None
    columns: list[str]
    width: int  # with the columns that are computed when they are read
    key: list[str]
    has_lost_columns: (
        bool  # since it is journaled: an image does not say whose its values are
    )
    number: int
    removed: list[str]
    added: list[str]

    def images(self) -> list[str]:
        """Return all of them, the gone ones first."""
        return [*self.removed, *self.added]

    def write_cast(self, *, to: str = "") -> str:
        """Write a query of the rows that its images are of, with the types of their columns."""
        images = ", ".join(
            literal(_padded(image, self.width)) for image in self.images()
        )
        of = f"{identifier(self.schema or '')}.{identifier(self.name or '')}"
        values = ", ".join(f"u.{identifier(column)}{to}" for column in self.columns)
        return (
            f"SELECT {values} FROM unnest(ARRAY[{images}]::pg_catalog.text[]::{of}[]) u"
        )


def _padded(image: str, width: int) -> str:
    """Give an image of before the NULLs that a column has got that was added since."""
    # A quote inside of a value is doubled, so between quotes there is nothing but values.
    fields = 1 + sum(part.count(",") for part in image.split('"')[::2])
    return f"{image[:-1]}{',' * (width - fields)})" if fields < width else image


def rows_changed(
    control: Control, entries: Entries, limit: int | None
) -> list[TableRows]:
    """Return what has changed, net, each table by itself and in the order of their names.

    ``control`` has the settings that images are written under. Values are those of the types that
    the columns have now, and where the driver has none for one of them, the table's are texts.
    Where a table has another shape by now, or none, its rows are given as one column, "row", with
    their text; one that was made after the journal and is gone is left out. A column that is
    computed when it is read is left out, too.

    Of the top level, the marks come last: as rows of "the schema" with one column, "changed".

    Cost: two round trips, and another for each table that has changed.

    Raises:
        Failed: the journal or the server is gone.
    """
    cut = "" if limit is None else f"WHERE p.place <= {int(limit)}"
    question = _CHANGED.format(
        entries=entries.write(),
        cut=cut,
        schema=entries.schema,
        columns=COLUMNS,
        key=KEY,
    )
    found = [_rows_of(control, _ChangedTable(*row)) for row in control.rows(question)]
    return [*found, *_marks(control, entries, limit)]


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
        yield TableRows(_SCHEMA, _MARK, (), (), shown, more=len(marks) - len(shown))


def _rows_of(control: Control, table: _ChangedTable) -> TableRows:
    name = table.name or f"a table that is gone ({table.oid})"
    if table.schema not in {_DEFAULT, None}:
        name = f"{table.schema}.{name}"
    columns, rows = (
        _cast(control, table) if table.images() else (tuple(table.columns), [])
    )
    return TableRows(
        table=name,
        columns=columns,
        key=tuple(table.key) if columns != _RAW else (),
        removed=tuple(rows[: len(table.removed)]),
        added=tuple(rows[len(table.removed) :]),
        more=table.number - len(rows),
    )


def _cast(
    control: Control, table: _ChangedTable
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    is_whole = table.name is not None and not table.has_lost_columns
    # A domain's check may need the app's path. Asked without it first, which costs no transaction.
    begins = ("", f"BEGIN; {LIKE_THE_APP}") if is_whole else ()
    for begin, to in product(begins, ("", "::pg_catalog.text")):
        try:
            with one_snapshot(control, begin) if begin else nullcontext():
                return tuple(table.columns), control.rows(table.write_cast(to=to))
        except ControlFailure as error:
            # Without a code it is the driver that knows no value of Python's for one of them, or
            # the server is gone: the second question tells.
            if error.sqlstate[:2] in _LOST or (to and not error.sqlstate):
                raise
    return _RAW, [(image,) for image in table.images()]


_CHANGED = """
WITH net AS (
    SELECT m.rel, m.r, sum(m.op) AS c FROM ({entries}) m
    GROUP BY m.rel, m.r HAVING sum(m.op) <> 0),
every AS (
    SELECT n.rel, n.r, n.c < 0 AS is_gone,
        row_number() OVER (PARTITION BY n.rel ORDER BY n.c > 0) AS place
    FROM net n, LATERAL generate_series(1, abs(n.c))),
given AS (
    SELECT p.rel, array_agg(p.r) FILTER (WHERE p.is_gone) AS gone,
        array_agg(p.r) FILTER (WHERE NOT p.is_gone) AS come
    FROM every p {cut} GROUP BY p.rel),
sums AS (SELECT n.rel, sum(abs(n.c))::int8 AS number FROM net n GROUP BY n.rel)
SELECT s.rel::int8, m.nspname::text, c.relname::text,
    {columns},
    (SELECT count(*) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = s.rel AND a.attnum > 0 AND NOT a.attisdropped),
    {key},
    (SELECT count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = s.rel AND a.attisdropped)
        <> coalesce(e.gone, 0),
    s.number, coalesce(w.gone, '{{}}'), coalesce(w.come, '{{}}')
FROM sums s LEFT JOIN given w ON w.rel = s.rel
LEFT JOIN pg_catalog.pg_class c ON c.oid = s.rel
LEFT JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace
LEFT JOIN {schema}.tables e ON e.oid = s.rel
WHERE c.oid IS NOT NULL OR e.oid IS NOT NULL
ORDER BY m.nspname <> 'public', m.nspname, c.relname, s.rel
"""
