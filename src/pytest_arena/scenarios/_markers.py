"""Finds the scenarios that the markers of tests name."""

from __future__ import annotations

import difflib
import inspect
import keyword
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios._specs import ScenarioSpec, canonical, row_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from pytest_arena.scenarios._specs import Specification

NO_SEED = "@no-seed"
"""The tag of a scenario whose Given needs no row."""
NO_REQUEST = "@no-request"
"""The tag of a scenario without a request, such as of a command or a nightly job."""

_MOST_NAMES = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """The arguments of a marker."""

    name: str
    spec: str = ""
    row: tuple[tuple[str, str], ...] = ()


def scenarios_of(item: pytest.Item, specification: Specification) -> list[ScenarioSpec]:
    """Return the scenarios that a test proves: none without a marker.

    Raises:
        ScenarioError: a marker names no scenario, or not the row that the test has.
    """
    found: dict[str, ScenarioSpec] = {}
    for marker in item.iter_markers("scenario"):
        place = place_of(item)
        wanted = _reference(marker.args, marker.kwargs, place)
        named = _named(wanted, specification, place)
        for scenario in _of_row(named, wanted, item, place):
            found[scenario.key] = scenario
    return [*found.values()]


def place_of(item: pytest.Item) -> str:
    """Return the file and the line of a test."""
    file, index, _ = item.location
    return f"{file}:{(index or 0) + 1}"


def _reference(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], place: str
) -> Reference:
    """Return the arguments of ``@pytest.mark.scenario(name, spec="", row={})``."""

    def arguments(
        name: str, spec: str = "", row: Mapping[str, object] | None = None
    ) -> Any:
        pairs = ((str(column), str(value)) for column, value in (row or {}).items())
        return Reference(canonical(name), spec, tuple(pairs))

    try:
        bound = inspect.signature(arguments).bind(*args, **kwargs)
        reference: Reference = arguments(*bound.args, **bound.kwargs)
    except (TypeError, AttributeError) as error:
        raise ScenarioError(
            f"the marker scenario has wrong arguments: {error}",
            why="it names no scenario",
            cause=place,
            fix='@pytest.mark.scenario("the name of a scenario")',
        ) from None
    return reference


def _named(
    wanted: Reference, specification: Specification, place: str
) -> list[ScenarioSpec]:
    """Return the scenario of a name, or all rows of an outline."""
    found = [
        each
        for each in specification.by_name.get(wanted.name, ())
        if not wanted.spec or f"/{each.spec}".endswith(f"/{wanted.spec}")
    ]
    outlines = {(scenario.feature, scenario.template): scenario for scenario in found}
    if not found:
        raise _unknown(wanted, specification, place)
    if len(outlines) > 1:
        raise ScenarioError(
            f"several scenarios are called {wanted.name!r}",
            why="the test could not say which one it proves",
            cause="\n".join(
                [place, *(scenario.place for scenario in outlines.values())]
            ),
            fix="\n".join(
                marker(scenario, specification) for scenario in outlines.values()
            ),
        )
    return found


def _unknown(
    wanted: Reference, specification: Specification, place: str
) -> ScenarioError:
    by_name = {each.template: each for each in specification.scenarios}
    folded = {name.casefold(): name for name in by_name}
    near = difflib.get_close_matches(wanted.name.casefold(), folded, n=_MOST_NAMES)
    nearest = [by_name[folded[name]] for name in near]
    fixes = [f"{marker(each, specification)}   ({each.place})" for each in nearest]
    return ScenarioError(
        f"no scenario is called {wanted.name!r}",
        why="the test proves no scenario of a specification",
        cause=place,
        fix="\n".join(fixes) or "arena scenarios list SPEC   lists the names",
    )


def marker(scenario: ScenarioSpec, specification: Specification) -> str:
    """Return the marker of a scenario, with its feature if the name needs it."""
    others = {
        each.feature
        for each in specification.scenarios
        if scenario.template in {each.template, each.name}
    }
    name = scenario.template
    if len(others) > 1:
        name = f"{scenario.feature} :: {name}"
    return f"@pytest.mark.scenario({quoted(name)})"


def quoted(text: str) -> str:
    """Return the code of a text, in double quotes if possible."""
    if '"' in text or not text.isprintable() or "\\" in text:
        return repr(text)
    return f'"{text}"'


# The rows of outlines.


def _of_row(
    named: list[ScenarioSpec], wanted: Reference, item: pytest.Item, place: str
) -> list[ScenarioSpec]:
    """Return the scenarios with the values of the test's parameters, or of its marker."""
    if len(named) == 1 and not wanted.row:
        return named
    columns = [column for column, _ in named[0].row]
    values = dict(wanted.row)
    callspec = getattr(item, "callspec", None)
    if callspec is not None and not values:
        names = {identifier(column): column for column in columns}
        for name, value in callspec.params.items():
            if name in names:
                values[names[name]] = str(value)
    rows = "\n".join(f"{each.place}  {row_text(each.row)}" for each in named)
    if not values:
        columns_shown = ", ".join(identifier(column) for column in columns)
        raise ScenarioError(
            f"{item.name} names an outline with {len(named)} rows, and proves none of them",
            why="each row is a scenario, and needs a test with its values",
            cause=f"{place}\n{rows}",
            fix=f'@pytest.mark.parametrize("{columns_shown}", […])',
        )
    found = [each for each in named if _fits(dict(each.row), values)]
    if not found:
        shown = ", ".join(f"{column}={value}" for column, value in values.items())
        raise ScenarioError(
            f"{item.name}: no row of the outline has {shown}",
            why="each row is a scenario, and needs a test with its values",
            cause=f"{place}\n{rows}",
            fix="give the test the values of a row, as the examples write them",
        )
    return found


def _fits(row: dict[str, str], values: dict[str, str]) -> bool:
    for column, value in values.items():
        if row.get(column, "").casefold() != value.casefold():
            return False
    return True


def identifier(column: str) -> str:
    """Return the name of the parameter for a column."""
    words = unicodedata.normalize("NFKC", column).strip().lower()
    name = re.sub(r"\W+", "_", words).strip("_")
    if keyword.iskeyword(name):
        return f"{name}_"
    return name if name.isidentifier() else f"column_{name}"


def needs_seed(scenario: ScenarioSpec) -> bool:
    """Return whether a scenario has a Given that rows or a login must fulfil."""
    return bool(scenario.kinds("given")) and NO_SEED not in scenario.tags
