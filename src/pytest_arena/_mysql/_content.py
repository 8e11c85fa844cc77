"""Reads a digest of each object in a database."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_arena._mysql._clone import read_plan
from pytest_arena._mysql._control import MySQLControl, identifier
from pytest_arena._values import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._mysql._tables import Table

_COUNTER = re.compile(r" AUTO_INCREMENT=(\d+)")
_TABLE = "table "
_COUNTED = "next number of "


def read_content(control: MySQLControl, database: str) -> dict[str, str]:
    """Return a digest of each object in a database.

    Equal digests mean equal content. The content of a table is the multiset of its rows, its next
    AUTO_INCREMENT value and its definition. The content of any other object is its definition.

    Cost: the server reads all rows and definitions.

    Raises:
        MySQLFailure: the server does not answer, or refuses.
    """
    plan = read_plan(control, database)
    digests = {"settings of the database": plan.options}
    for name, create in plan.creates.items():
        counter = _COUNTER.search(create)
        if counter is not None:
            digests[f"{_COUNTED}{name}"] = counter[1]
        text = _COUNTER.sub("", create, count=1)
        digests[f"definition of table {name}"] = digest(text)
    for name, create in plan.views.items():
        digests[f"definition of view {name}"] = digest(create.replace(database, ""))
    for _, program in plan.programs:
        text = digest(program.replace(database, ""))
        digests[f"program {text[:6]}"] = text
    for name, table in plan.tables.items():
        [(text,)] = control.rows(_digest(database, table))
        digests[f"{_TABLE}{name}"] = str(text)
    return digests


def has_same_schema(before: dict[str, str], after: dict[str, str]) -> bool:
    """Return whether two contents differ at most in rows and AUTO_INCREMENT values."""
    return {*_definitions(before)} == {*_definitions(after)}


def _definitions(content: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in content.items():
        if not name.startswith((_TABLE, _COUNTED)):
            yield name, text


def _digest(database: str, table: Table) -> str:
    """Write the query of the number of rows and the sum of their hashes."""
    # A sum does not depend on the order, and counts equal rows.
    number = "CONV(SUBSTR(SHA2(image, 256), 1, 16), 16, 10)"
    place = f"{identifier(database)}.{identifier(table.name)}"
    return (
        f"SELECT CONCAT(COUNT(*), ' rows, ', COALESCE(SUM(CAST({number} AS UNSIGNED)), 0)) "
        f"FROM (SELECT {table.image('r')} AS image FROM {place} r) AS images"
    )
