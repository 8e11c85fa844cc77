"""Which scenario does a marker name, and which row of an Outline does its test prove?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs._specification import canonical

if TYPE_CHECKING:
    from pytest_arena.scenarios.specs._specification import Row, ScenarioSpec

_OPTIONS = ("spec", "rev", "row")
_REV = re.compile(r"\d+:[0-9a-f]+$")
_RIGHT = '@pytest.mark.scenario("Feature :: Scenario")'


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What ``@pytest.mark.scenario(name, spec=…, rev=…, row=…)`` says."""

    name: str
    """A scenario's name, ``Feature :: Scenario``, ``Feature :: Rule :: Scenario`` or ``@ID``."""
    spec: str = ""
    """The file, or the end of its path."""
    rev: str = ""
    """The version that was reviewed."""
    row: tuple[tuple[str, str], ...] = ()
    """Pairs of column and value, sorted."""
    place: str = ""
    """Where the test begins: ``tests/test_x.py:12``."""
    form: str = ""
    """How another name is written in that place, where it is no marker: ``--scenario={}``."""


def reference(args: Sequence[object], kwargs: Mapping[str, object], *, place: str) -> Reference:
    """Return what a marker's arguments mean.

    Raises:
        ScenarioError: they mean nothing; it says which one is wrong, and shows a right one.
    """
    name = _name(args, place)
    for option, value in kwargs.items():
        if option not in _OPTIONS:
            near = get_close_matches(option, _OPTIONS, n=1, cutoff=0.3) or _OPTIONS
            raise _wrong(f"the marker `scenario` has no option {option}=", place, f"{near[0]}=…")
        if option != "row" and not (value is None or isinstance(value, str)):
            raise _wrong(f"{option}= of the marker `scenario` is a text, not {value!r}", place)
    spec, rev = (str(kwargs.get(option) or "").strip() for option in ("spec", "rev"))
    if rev and not _REV.match(rev):
        raise _wrong(
            f"rev={rev!r} of the marker `scenario` is no version of a scenario",
            place,
            'rev="1:3265ea09", as `arena scenarios list` shows it',
        )
    row = kwargs.get("row")
    if row is not None and not (isinstance(row, Mapping) and row):
        raise _wrong(
            f"row= of the marker `scenario` names columns and their values, not {row!r}",
            place,
            'row={"column": "value"}',
        )
    return Reference(
        name=name,
        spec=spec.replace("\\", "/").removeprefix("./"),
        rev=rev,
        row=tuple(sorted((canonical(str(key)), str(value)) for key, value in (row or {}).items())),
        place=place,
    )


def _name(args: Sequence[object], place: str) -> str:
    if len(args) == 1 and isinstance(args[0], str):
        if name := canonical(args[0]):
            return name
        raise _wrong("the marker `scenario` names nothing", place)
    several = list(args[0]) if len(args) == 1 and isinstance(args[0], Sequence) else list(args)
    names = [name for name in several if isinstance(name, str)]
    if len(names) > 1:
        fix = "\n".join(f'@pytest.mark.scenario("{name}")' for name in names)
        raise _wrong(f"a marker `scenario` names one scenario, not {len(names)}", place, fix)
    if not args:
        raise _wrong("the marker `scenario` has to name one", place)
    raise _wrong(f"the marker `scenario` takes a name, not {args[0]!r}", place)


def _wrong(what: str, place: str, fix: str = _RIGHT) -> ScenarioError:
    return ScenarioError(
        what,
        why="nobody can say which scenario the test proves",
        cause=place or "the marker",
        fix=fix,
    )


Values = tuple[tuple[str, str], ...]
_WORDS: dict[object, tuple[str, ...]] = {
    True: ("true", "yes", "on"),
    False: ("false", "no", "off"),
    None: ("", "none", "null"),
}


def row_proven(
    scenario: ScenarioSpec, reference: Reference, params: Mapping[str, object]
) -> Values:
    """Return the row that a test with these values proves; nothing means the whole outline.

    ``row=`` of the marker names it, else the values of the parameters that are named as columns
    are: ``battle_id`` for ``battle id``. Values are compared as text, and numbers as numbers.

    Raises:
        ScenarioError: no row has the values, or more than one has.
    """
    columns = {column for row in scenario.rows for column, _ in row.values}
    wanted = dict(reference.row) or _by_column(columns, params)
    if not wanted:
        return ()
    rows = [row for row in scenario.rows if _agreeing(row, wanted) == len(wanted)]
    if len({row.values for row in rows}) == 1:
        return rows[0].values
    asked = ", ".join(f"{column}={value!r}" for column, value in wanted.items())
    what = f"{len(rows)} rows have {asked}" if rows else f"no row has {asked}"
    what += f", in {scenario.name!r} ({scenario.place})"
    if not scenario.rows:
        what = f"{scenario.name!r} has no rows, but the test is for one: {asked}"
    shown = rows or sorted(scenario.rows, key=lambda row: -_agreeing(row, wanted))
    cells = [" | ".join(f"{column}={value}" for column, value in row.values) for row in shown]
    places = [f"{scenario.spec}:{row.line}" for row in shown]
    lines = [f"{place}  {row}" for place, row in zip(places, cells, strict=True)]
    raise ScenarioError(
        what,
        why="nobody can say which row the test proves",
        cause="\n".join(filter(None, [reference.place, *lines])),
        fix=f"row={dict(shown[0].values)!r}" if shown else "leave row= out",
    )


def _by_column(columns: set[str], params: Mapping[str, object]) -> dict[str, object]:
    """The parameters that are columns; one that is a whole row stands for all its columns."""

    def identifier(name: str) -> str:
        return re.sub(r"\W+", "_", name.strip()).casefold()

    for row in params.values():
        if isinstance(row, Mapping) and row and set(map(str, row)) <= columns:
            return {str(column): value for column, value in row.items()}
    named = {identifier(column): column for column in columns}
    return {named[key]: v for name, v in params.items() if (key := identifier(name)) in named}


def _agreeing(row: Row, wanted: Mapping[str, object]) -> int:
    """How many of the values are the row's."""
    values = dict(row.values)
    return sum(
        column in values and _is_same(value, values[column]) for column, value in wanted.items()
    )


def _is_same(value: object, cell: str) -> bool:
    bare = cell.strip("\"'")
    if isinstance(value, Enum):
        return cell == value.name or _is_same(value.value, cell)
    if isinstance(value, bool) or value is None:
        return bare.casefold() in _WORDS[value]
    if isinstance(value, int | float):
        for kind in (int, float):  # as a float a long id would be its neighbour, too
            with suppress(ValueError):
                return kind(bare) == value
        return False
    return canonical(str(value)) in {canonical(cell), canonical(bare)}
