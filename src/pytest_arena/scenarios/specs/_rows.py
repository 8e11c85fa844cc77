"""Which row of a Scenario Outline does a parametrised test prove?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs._revisions import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena.scenarios.specs._references import Reference
    from pytest_arena.scenarios.specs._values import Row, Scenario

__all__ = ["row_proven"]

Values = tuple[tuple[str, str], ...]
_WORDS: dict[object, tuple[str, ...]] = {
    True: ("true", "yes", "on"),
    False: ("false", "no", "off"),
    None: ("", "none", "null"),
}


def row_proven(scenario: Scenario, reference: Reference, params: Mapping[str, object]) -> Values:
    """Return the row that a test with these values proves; nothing means the whole outline.

    ``row=`` of the marker names it, else the values of the parameters that are named as columns
    are: ``battle_id`` for ``battle id``. Values are compared as text, and numbers as numbers.

    Raises:
        ScenarioError: no row has the values, or more than one has.
    """
    if reference.row:
        return _only(scenario, dict(reference.row), reference)
    columns = {column for row in scenario.rows for column, _ in row.values}
    wanted = _by_column(columns, params)
    return _only(scenario, wanted, reference) if wanted else ()


def _by_column(columns: set[str], params: Mapping[str, object]) -> dict[str, object]:
    """The parameters that are columns; one that is a whole row stands for all its columns."""
    named = {_identifier(column): column for column in columns}
    for value in params.values():
        if isinstance(value, Mapping) and value and set(map(str, value)) <= columns:
            return {str(column): one for column, one in value.items()}
    return {named[_identifier(name)]: v for name, v in params.items() if _identifier(name) in named}


def _identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip()).casefold()


def _only(scenario: Scenario, wanted: Mapping[str, object], reference: Reference) -> Values:
    rows = [row for row in scenario.rows if _agrees(row, wanted)]
    values = {row.values for row in rows}
    if len(values) == 1:
        return rows[0].values
    raise _none_or_many(scenario, wanted, rows, reference)


def _agrees(row: Row, wanted: Mapping[str, object]) -> bool:
    values = dict(row.values)
    return all(
        column in values and _says(value, values[column]) for column, value in wanted.items()
    )


def _agreeing(row: Row, wanted: Mapping[str, object]) -> int:
    return sum(_agrees(row, {column: value}) for column, value in wanted.items())


def _says(value: object, cell: str) -> bool:
    if isinstance(value, Enum):
        return cell == value.name or _says(value.value, cell)
    if isinstance(value, bool) or value is None:
        return cell.strip("\"'").casefold() in _WORDS[value]
    if isinstance(value, int | float):
        return _number(cell) == value
    said = canonical(str(value))
    return said in {canonical(cell), canonical(cell.strip("\"'"))}


def _number(cell: str) -> float | None:
    for kind in (int, float):  # as a float a long id would be its neighbour, too
        with suppress(ValueError):
            return kind(cell.strip("\"'"))
    return None


def _none_or_many(
    scenario: Scenario, wanted: Mapping[str, object], rows: Sequence[Row], reference: Reference
) -> ScenarioError:
    asked = ", ".join(f"{column}={value!r}" for column, value in wanted.items())
    shown = rows or sorted(scenario.rows, key=lambda row: -_agreeing(row, wanted))
    lines = [f"{scenario.spec}:{row.line}  {_shown(row)}" for row in shown]
    what = f"{len(rows)} rows have {asked}" if rows else f"no row has {asked}"
    if not scenario.rows:
        what = f"{scenario.name!r} has no rows, but the test is for one: {asked}"
    example = dict(shown[0].values) if shown else {}
    return ScenarioError(
        f"{what}, in {scenario.name!r} ({scenario.place})" if scenario.rows else what,
        why="nobody can say which row the test proves",
        cause="\n".join([reference.place, *lines]) if reference.place else "\n".join(lines),
        fix=f"row={example!r}" if example else "leave row= out",
    )


def _shown(row: Row) -> str:
    return " | ".join(f"{column}={value}" for column, value in row.values)
