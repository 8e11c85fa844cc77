"""Reads a digest of each object in a database."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_arena._mysql._clone import read_plan
from pytest_arena._mysql._control import MySQLControl, identifier, literal
from pytest_arena._mysql._tables import Table, read_tables
from pytest_arena._values import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_AT_ONCE = 50  # tables in one statement
_COUNTER = re.compile(r" AUTO_INCREMENT=(\d+)")
_CREATED = re.compile(r"(?s)\s*CREATE\b.*?\b(TABLE|VIEW|SEQUENCE)\s+`((?:[^`]|``)+)`")


def read_content(control: MySQLControl, database: str) -> dict[str, str]:
    """Return a digest of each object in a database.

    Equal digests mean equal content. The content of a table is the multiset of its rows, its next
    AUTO_INCREMENT value and its definition. The content of any other object is its definition.

    Cost: the server reads all rows and definitions.

    Raises:
        MySQLFailure: the server does not answer, or refuses.
    """
    tables = [*read_tables(control, database).values()]
    plan = read_plan(control, database)
    digests = {"settings of the database": plan.options}
    for definition in (*plan.tables, *plan.views, *plan.programs):
        text = definition.replace(database, "")
        created = _CREATED.match(text)
        if created is None:
            first = next(
                line for line in text.splitlines() if not line.startswith("SET ")
            )
            digests[f"definition of {first[:60]} {digest(first)[:6]}"] = digest(text)
            continue
        shown = f"{created[1].lower()} {created[2].replace('``', '`')}"
        digests[f"definition of {shown}"] = digest(_COUNTER.sub("", text, count=1))
        counter = _COUNTER.search(text)
        if counter is not None:
            digests[f"next number of {shown}"] = counter[1]
    digests.update(_digests(control, database, tables))
    return digests


def has_same_schema(before: dict[str, str], after: dict[str, str]) -> bool:
    """Return whether two contents differ at most in rows and AUTO_INCREMENT values."""
    return {*_definitions(before)} == {*_definitions(after)}


def _definitions(content: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in content.items():
        if not name.startswith(("table ", "next number of ")):
            yield name, text


def _digests(
    control: MySQLControl, database: str, tables: Sequence[Table]
) -> Iterator[tuple[str, str]]:
    for start in range(0, len(tables), _AT_ONCE):
        some = tables[start : start + _AT_ONCE]
        question = " UNION ALL ".join(_digest(database, table) for table in some)
        for name, text in control.rows(question):
            yield f"table {name}", str(text)


def _digest(database: str, table: Table) -> str:
    """Write the query of the number of rows and the sum of their hashes."""
    # A sum does not depend on the order, and counts equal rows.
    halves = []
    for start in (1, 17):
        half = f"CONV(SUBSTR(SHA2(image, 256), {start}, 16), 16, 10)"
        halves.append(f"COALESCE(SUM(CAST({half} AS UNSIGNED)), 0)")
    place = f"{identifier(database)}.{identifier(table.name)}"
    return (
        f"SELECT {literal(table.name)}, CONCAT(COUNT(*), ' rows, ', {halves[0]}, ' ', "
        f"{halves[1]}) FROM (SELECT {table.image('r')} AS image FROM {place} r) AS images"
    )
