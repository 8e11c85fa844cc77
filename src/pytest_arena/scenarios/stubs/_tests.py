"""How is one scenario written down as a test that fails until somebody writes it?"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from pytest_arena.scenarios.stubs._columns import filled_in, replacements
from pytest_arena.scenarios.stubs._layout import (
    Group,
    comment,
    in_triple_quotes,
    laid_out,
    quoted,
    shown,
)
from pytest_arena.scenarios.stubs._names import free, parameter, slug
from pytest_arena.scenarios.stubs._suggested import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_arena._values import Route
    from pytest_arena.scenarios.specs import Index, Row, Scenario, Step

__all__ = ["TestWriter"]

_BODY, _BLOCK = 4, 8
# The parameter for a whole row of Examples.
_ROW = "example"
_ID_LETTERS = 60


class TestWriter:
    """Writes one test for each scenario that it is given; no name is used twice.

    Args:
        index: says how a marker names a scenario.
        routes: those of the app, None where it is not known.
        runner: the marker without which the runner of async tests would not run one:
            ``asyncio``, ``anyio``, or empty.
    """

    __test__ = False  # no test itself, whatever its name begins with

    def __init__(self, index: Index, *, routes: Sequence[Route] | None, runner: str = "") -> None:
        self._index, self._routes, self._runner = index, routes, runner

    def test(self, scenario: Scenario, *, taken: set[str]) -> str:
        """Return the code of a test. Its names are none of those ``taken``, and are added."""
        name = free(f"test_{slug(scenario.name).removeprefix('test_')}", taken=taken)
        taken.add(name)
        parameters, columns = _columns(scenario)
        suggested = suggest(scenario, columns=columns, routes=self._routes)
        texts = _Texts(name, taken)
        blocks = [
            line
            for step, comments in zip(scenario.steps, suggested.comments, strict=True)
            for line in _block(step, [*texts.add(step, columns), *comments], columns)
        ]
        arguments = (*suggested.fixtures, *parameters)
        head = [
            *self._markers(scenario),
            *_parametrized(scenario.rows, parameters),
            *laid_out(Group(f"async def {name}(", arguments, "):")),
            f'{" " * _BODY}"""{in_triple_quotes(scenario.place)}"""',
        ]
        return "\n".join([*texts.lines, *head, *blocks, ""])

    def _markers(self, scenario: Scenario) -> Iterator[str]:
        if self._runner:
            yield f"@pytest.mark.{self._runner}"
        yield from laid_out(_call_of(self._index.marker(scenario)))


def _call_of(marker: str) -> Group:
    """The decorator, which is one line, as a call that can be laid out."""
    call = ast.parse(marker.removeprefix("@"), mode="eval").body
    assert isinstance(call, ast.Call), "a marker with a name is a call"  # noqa: S101 - for mypy
    named = [(f"{one.arg}=", one.value) for one in call.keywords]
    items = [_value(ast.literal_eval(one)) for one in call.args]
    items += [_value(ast.literal_eval(value), before) for before, value in named]
    return Group("@pytest.mark.scenario(", tuple(items), ")")


def _value(value: object, before: str = "") -> Group | str:
    if isinstance(value, dict):
        return Group(f"{before}{{", tuple(_pairs(value, {})), "}")
    return f"{before}{quoted(str(value))}"


def _columns(scenario: Scenario) -> tuple[tuple[str, ...], dict[str, str]]:
    """The parameters that an Outline's rows are given by, and the code for each column.

    One for each column; or one for the whole row, where a column cannot be a parameter.
    """
    columns = [column for row in scenario.rows[:1] for column, _ in row.values]
    names = dict.fromkeys(map(parameter, columns))
    if len(names) == len(columns) and all(names):
        return tuple(names), dict(zip(columns, names, strict=True))
    return (_ROW,), {column: f"{_ROW}[{quoted(column)}]" for column in columns}


def _parametrized(rows: Sequence[Row], parameters: Sequence[str]) -> list[str]:
    if not rows:
        return []
    names = tuple(map(quoted, parameters))
    named = names[0] if len(names) == 1 else Group("(", names, ")")
    unique = list(dict.fromkeys(row.values for row in rows))
    is_whole = tuple(parameters) == (_ROW,)
    params = [
        Group("pytest.param(", (*_given(values, is_whole=is_whole), f"id={quoted(name)}"), ")")
        for values, name in zip(unique, _ids(unique), strict=True)
    ]
    listed = Group("[", tuple(params), "]", is_long=True)
    return laid_out(Group("@pytest.mark.parametrize(", (named, listed), ")", is_long=True))


def _given(values: Sequence[tuple[str, str]], *, is_whole: bool) -> list[Group | str]:
    if is_whole:
        return [Group("{", tuple(_pairs(dict(values), {})), "}")]
    return [quoted(cell) for _, cell in values]


def _ids(rows: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """A name for each row: its values, and a number where that says the same of two."""
    ids: dict[str, None] = {}
    for values in rows:
        name = "-".join(shown(cell) for _, cell in values)[:_ID_LETTERS] or "empty"
        ids[free(name, taken=ids)] = None
    return list(ids)


class _Texts:
    """The doc strings of one test: constants before it, so that their lines stay as they are."""

    def __init__(self, test: str, taken: set[str]) -> None:
        self._prefix = f"{test.removeprefix('test_')}_text".upper().lstrip("0123456789_")
        self._taken = taken
        self.lines: list[str] = []

    def add(self, step: Step, columns: Mapping[str, str]) -> Iterator[str]:
        """Keep the doc string of a step, if it has one; what comes out is said in its block."""
        if step.doc_string is None:
            return
        name = free(self._prefix, taken=self._taken)
        self._taken.add(name)
        self.lines += [*_constant(name, step.doc_string), "", ""]
        yield f"text: {name}{replacements(step.doc_string, columns)}"


def _constant(name: str, text: str) -> list[str]:
    return [f'{name} = """\\', *f'{in_triple_quotes(text)}"""'.split("\n")]


def _block(step: Step, comments: Sequence[str], columns: Mapping[str, str]) -> Iterator[str]:
    if step.table:
        yield from laid_out(_table(step.table, columns), indent=_BODY, before="table = ")
    opened = Group(f"scenario.{step.kind}(", (quoted(step.text),), ")")
    yield from laid_out(opened, indent=_BODY, before="with ", after=":")
    indent = _BLOCK
    if step.table:
        yield f"{' ' * _BLOCK}for row in table:"
        indent += _BODY
    yield from (comment(line, indent=indent) for line in comments)
    yield f"{' ' * indent}scenario.todo()"


def _table(table: Sequence[Sequence[str]], columns: Mapping[str, str]) -> Group:
    """Dicts by the names in the first row, or lists where that cannot be a row of names."""
    first, *rest = table
    if rest and len(set(first)) == len(first) and all(first):
        rows = [dict(zip(first, row, strict=True)) for row in rest]
        listed = [Group("{", tuple(_pairs(row, columns)), "}") for row in rows]
    else:
        listed = [Group("[", tuple(filled_in(cell, columns) for cell in row), "]") for row in table]
    return Group("[", tuple(listed), "]", is_long=True)


def _pairs(row: Mapping[str, str], columns: Mapping[str, str]) -> Iterator[str]:
    for name, cell in row.items():
        yield f"{quoted(name)}: {filled_in(cell, columns)}"
