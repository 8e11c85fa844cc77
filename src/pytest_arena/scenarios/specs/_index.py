"""Finds the scenario or the row that a test names."""

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from enum import Enum

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs._specification import (
    Pairs,
    Row,
    ScenarioSpec,
    Specification,
    canonical,
    row_text,
)

_OPTIONS = ("spec", "row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The scenario that ``@pytest.mark.scenario(name, spec=…, row=…)`` names."""

    name: str
    """A scenario's name, ``Feature :: Scenario``, ``Feature :: Rule :: Scenario`` or ``@ID``."""
    spec: str = ""
    """The path of the file, or the end of the path."""
    row: Pairs = ()
    """Sorted pairs of column and value."""
    place: str = ""
    """The first line of the test: ``tests/test_x.py:12``."""
    form: str = ""
    """The form of the name outside of a marker: ``arena scenarios explain {}``."""


def reference(
    args: Sequence[object],
    kwargs: Mapping[str, object],
    *,
    place: str,
) -> Reference:
    """Return the reference for the arguments of a marker.

    Raises:
        ScenarioError: an argument is wrong. The message shows a correct argument.
    """
    name = _name(args, place)
    for option, value in kwargs.items():
        if option not in _OPTIONS:
            near = get_close_matches(option, _OPTIONS, n=1, cutoff=0.3) or _OPTIONS
            what = f"the marker `scenario` has no option {option}="
            raise _wrong(what, place, f"{near[0]}=…")
        if option != "row" and value is not None and not isinstance(value, str):
            what = f"{option}= of the marker `scenario` must be a string, not {value!r}"
            raise _wrong(what, place)
    spec = str(kwargs.get("spec") or "").strip()
    return Reference(
        name=name,
        spec=spec.replace("\\", "/").removeprefix("./"),
        row=_row(kwargs.get("row"), place),
        place=place,
    )


def _row(row: object, place: str) -> Pairs:
    if row is None:
        return ()
    if not isinstance(row, Mapping) or not row:
        raise _wrong(
            f"row= of the marker `scenario` must map columns to values, but it is {row!r}",
            place,
            'row={"column": "value"}',
        )
    pairs = [(canonical(str(column)), str(value)) for column, value in row.items()]
    return tuple(sorted(pairs))


def _name(args: Sequence[object], place: str) -> str:
    parts = args
    if len(args) == 1:
        argument = args[0]
        if isinstance(argument, str) and argument.strip():
            return canonical(argument)
        if isinstance(argument, list | tuple):
            parts = argument
    names = [part for part in parts if isinstance(part, str)]
    if len(names) > 1:
        markers = [f'@pytest.mark.scenario("{name}")' for name in names]
        what = f"a marker `scenario` must name one scenario, not {len(names)}"
        raise _wrong(what, place, "\n".join(markers))
    arguments = ", ".join(map(repr, args)) or "nothing"
    what = f"the marker `scenario` must have the name of a scenario, not {arguments}"
    raise _wrong(what, place)


def _wrong(
    what: str,
    place: str,
    fix: str = '@pytest.mark.scenario("Feature :: Scenario")',
) -> ScenarioError:
    return ScenarioError(
        what,
        why="pytest-arena does not know which scenario the test proves",
        cause=place or "the marker",
        fix=fix,
    )


# The row of an Outline.

_WORDS: dict[object, tuple[str, ...]] = {
    True: ("true", "yes", "on"),
    False: ("false", "no", "off"),
    None: ("", "none", "null"),
}


def row_proven(
    scenario: ScenarioSpec,
    reference: Reference,
    params: Mapping[str, object],
) -> Pairs:
    """Return the values of the row that a test proves, or () for the whole Outline.

    The row has the values of ``row=`` in the marker, or of the parameters with the names of
    columns: ``battle_id`` for ``battle id``. Values are compared as texts, and numbers as numbers.

    Raises:
        ScenarioError: no row has the values, or several rows have them.
    """
    columns = {column for row in scenario.rows for column, _ in row.values}
    wanted = dict(reference.row) or _by_column(columns, params)
    if not wanted:
        return ()
    rows = [row for row in scenario.rows if _agreements(row, wanted) == len(wanted)]
    if len({row.values for row in rows}) == 1:
        return rows[0].values
    values = ", ".join(f"{column}={value!r}" for column, value in wanted.items())
    outline = f"{scenario.name!r} ({scenario.place})"
    what = f"no row of {outline} has {values}"
    if rows:
        what = f"{len(rows)} rows of {outline} have {values}"
    what += _rows_instead(scenario, wanted, rows)
    if not scenario.rows:
        what = f"{scenario.name!r} has no rows, but the test names one: {values}"
    if not rows:
        rows = sorted(scenario.rows, key=lambda row: -_agreements(row, wanted))
    lines = []
    if reference.place:
        lines.append(reference.place)
    for row in rows:
        cells = " | ".join(f"{column}={value}" for column, value in row.values)
        lines.append(f"{scenario.spec}:{row.line}  {cells}")
    fix = "remove row="
    if rows:
        fix = f"row={dict(rows[0].values)!r}"
        if not reference.row:
            fix = f"a parameter set with the values of a row, or {fix}"
    raise ScenarioError(
        what,
        why="pytest-arena does not know which row the test proves",
        cause="\n".join(lines),
        fix=fix,
    )


_ROWS_SHOWN = 3


def _rows_instead(
    scenario: ScenarioSpec,
    wanted: Mapping[str, object],
    fitting: Sequence[Row],
) -> str:
    """Return a text with the values that no row has and the first rows, or "" if rows fit."""
    text = ""
    if fitting:
        return text
    for column, value in wanted.items():
        is_in_a_row = any(_agreements(row, {column: value}) for row in scenario.rows)
        if len(wanted) > 1 and not is_in_a_row:
            text += f". No row fits {column}={value!r}"
    rows = [row_text(row.values) for row in scenario.rows[:_ROWS_SHOWN]]
    if len(scenario.rows) > _ROWS_SHOWN:
        rows.append("…")
    return f"{text}. The rows are: {' | '.join(rows)}"


def _by_column(
    columns: set[str],
    params: Mapping[str, object],
) -> dict[str, object]:
    """Return the values of the parameters by column. One parameter may be a whole row."""
    for row in params.values():
        if isinstance(row, Mapping) and row and set(map(str, row)) <= columns:
            return {str(column): value for column, value in row.items()}
    column_of = {identifier(column): column for column in columns}
    values = {}
    for name, value in params.items():
        column = column_of.get(identifier(name))
        if column is not None:
            values[column] = value
    return values


def identifier(column: str) -> str:
    """Return the name of the parameter for a column: ``battle_id`` for ``battle id``."""
    return re.sub(r"\W+", "_", column.strip()).casefold()


def _agreements(row: Row, wanted: Mapping[str, object]) -> int:
    """Return how many of the wanted values a row has."""
    count = 0
    for column, cell in row.values:
        if column in wanted and _is_same(wanted[column], cell):
            count += 1
    return count


def _is_same(value: object, cell: str) -> bool:
    bare = cell.strip("\"'")
    if isinstance(value, Enum):
        return cell == value.name or _is_same(value.value, cell)
    if isinstance(value, bool) or value is None:
        return bare.casefold() in _WORDS[value]
    if isinstance(value, int | float):
        return _is_number(bare, value)
    return canonical(str(value)) in {canonical(cell), canonical(bare)}


def _is_number(cell: str, value: float) -> bool:
    for kind in (int, float):  # float alone would round a long id
        try:
            return kind(cell) == value
        except ValueError:
            continue
    return False


# The scenario.

_CANDIDATES = 20
_SHOWN = 3
_MIN_SIMILARITY = 0.75
"""The similarity that a proposed name needs."""
_TYPO_SIMILARITY = 0.9
"""The similarity that a misspelt name has. A less similar scenario with a test is not proposed."""


class Index:
    """Finds scenarios by the names that tests use.

    Args:
        specification: the content of all files.
    """

    def __init__(self, specification: Specification) -> None:
        self._scenarios = specification.scenarios
        self._files = specification.files
        self._errors = [
            problem for problem in specification.problems if problem.is_error
        ]
        self._by_name: dict[str, list[ScenarioSpec]] = {}
        for scenario in self._scenarios:
            for name in _names(scenario):
                self._by_name.setdefault(name, []).append(scenario)

    def only(self, reference: Reference) -> ScenarioSpec | None:
        """Return the only scenario with this name. None without one, or if several have it."""
        matches = self._matches(reference)
        if len(matches) == 1:
            return matches[0]
        return None

    def find(
        self, reference: Reference, *, named: Callable[[], Collection[str]] = tuple
    ) -> ScenarioSpec:
        """Return the scenario that a test means.

        Args:
            reference: the name in the test.
            named: returns the keys of the scenarios that other tests name. An unknown name probably
                means another scenario. Called for an unknown name only.

        Raises:
            ScenarioError: no scenario has the name, or several have it. The message shows the text
                to paste for a similar name, or the scenarios without a test.
        """
        matches = self._matches(reference)
        if len(matches) == 1:
            return matches[0]
        spec = reference.spec
        if spec and not any(_is_in(path, spec) for path in self._files):
            raise self._unknown_file(reference)
        if not matches:
            raise self._unknown(reference, named())
        raise self._ambiguous(reference, matches)

    def marker(
        self,
        scenario: ScenarioSpec,
        *,
        row: Pairs = (),
    ) -> str:
        """Return the decorator to paste, with the shortest name that only this scenario has."""
        name = self._shortest(scenario)
        arguments = [quoted(name or _names(scenario)[-1])]
        if not name:
            arguments.append(f"spec={quoted(scenario.spec)}")
        if row:
            pairs = [f"{quoted(column)}: {quoted(value)}" for column, value in row]
            arguments.append(f"row={{{', '.join(pairs)}}}")
        return f"@pytest.mark.scenario({', '.join(arguments)})"

    def _matches(self, reference: Reference) -> list[ScenarioSpec]:
        matches = self._of_name(canonical(reference.name))
        if not reference.spec:
            return matches
        return [match for match in matches if _is_in(match.spec, reference.spec)]

    def _of_name(self, name: str) -> list[ScenarioSpec]:
        """Return the scenarios with this name. A whole name has priority over a shortened name."""
        matches = self._by_name.get(name, [])
        whole = [match for match in matches if name in {match.key, _names(match)[-1]}]
        if len(whole) == 1:
            return whole
        return matches

    # Errors.

    def _unknown_file(self, reference: Reference) -> ScenarioError:
        near = get_close_matches(
            reference.spec,
            self._files,
            n=_SHOWN,
            cutoff=0.3,
        )
        fixes = [f"spec={quoted(path)}" for path in near]
        return ScenarioError(
            f"no specification is called {reference.spec!r}",
            why="the test proves a scenario that no specification has",
            cause=reference.place or "the marker",
            fix="\n".join(fixes) or "remove spec=",
        )

    def _ambiguous(
        self, reference: Reference, matches: list[ScenarioSpec]
    ) -> ScenarioError:
        if any(self._is_double(match) for match in matches):
            fix = "rename one of them, or give each an id as a tag, such as @SHOP-1"
        else:
            fix = "\n".join(self._pasted(match, reference) for match in matches)
        meaning = "the test proves"
        if reference.form:
            meaning = "you mean"
        return ScenarioError(
            f"{len(matches)} scenarios are {_called(reference)}",
            why=f"pytest-arena does not know which of them {meaning}",
            cause="\n".join(f"{match.place}  {match.key}" for match in matches),
            fix=fix,
        )

    def _unknown(self, reference: Reference, named: Collection[str]) -> ScenarioError:
        what = f"no scenario is {_called(reference)}"
        near = self._nearest(reference, named)
        place = reference.place or "the marker"
        if not near and self._errors:
            return self._unread(what, place)
        lines = [place]
        fixes = []
        for scenario in near:
            lines.append(f"{scenario.place}  {scenario.name}")
            fixes.append(self._pasted(scenario, reference))
        for scenario in self._scenarios:
            if named and not near and scenario.key not in named:
                line = f"{scenario.place}  {scenario.name}"
                lines.append(f"{line}   (no test of this run names it)")
        why = "the test proves no scenario of a specification"
        if reference.form:
            why = "pytest-arena does not know which scenario you mean"
        return ScenarioError(
            what,
            why=why,
            cause="\n".join(lines),
            fix="\n".join(fixes)
            or "arena scenarios list   shows the names of the scenarios",
        )

    def _unread(self, what: str, place: str) -> ScenarioError:
        """Return the error for a name that an unreadable part of a specification may have."""
        # An error outside of scenarios may hide a scenario, so it has priority.
        problem = min(self._errors, key=lambda problem: bool(problem.scenario))
        fix = f"correct {problem.place}"
        if problem.hint:
            fix = f"{problem.place}: {problem.hint}"
        return ScenarioError(
            f"{what}, but a part of the specification cannot be read",
            why="the scenario may be in the part that cannot be read",
            cause=f"{place}\n{problem.place}  {problem.what}",
            fix=fix,
        )

    def _pasted(self, scenario: ScenarioSpec, reference: Reference) -> str:
        """Return the text that replaces the wrong reference."""
        if reference.form:
            name = self._shortest(scenario) or scenario.key
            return reference.form.format(shlex.quote(name))
        return self.marker(scenario, row=reference.row)

    def _nearest(
        self, reference: Reference, named: Collection[str]
    ) -> list[ScenarioSpec]:
        """Return the scenarios with similar names. For a misspelt name, return only the best."""
        wanted = canonical(reference.name).casefold()
        folded: dict[str, list[ScenarioSpec]] = {}
        for name, scenarios in self._by_name.items():
            folded.setdefault(name.casefold(), []).extend(scenarios)
        rated: dict[str, tuple[float, ScenarioSpec]] = {}
        for name in get_close_matches(
            wanted,
            folded,
            n=_CANDIDATES,
            cutoff=_MIN_SIMILARITY,
        ):
            similarity = SequenceMatcher(None, name, wanted).ratio()
            for scenario in folded[name]:
                is_likely = similarity >= _TYPO_SIMILARITY or scenario.key not in named
                if is_likely and not self._is_double(scenario):
                    rated.setdefault(scenario.key, (similarity, scenario))
        if not rated:
            return []
        highest = max(similarity for similarity, _ in rated.values())
        near = []
        best = sorted(rated, key=lambda key: (-rated[key][0], key))
        for key in best[:_SHOWN]:
            similarity, scenario = rated[key]
            if highest < _TYPO_SIMILARITY or similarity == highest:
                near.append(scenario)
        return near

    def _is_double(self, scenario: ScenarioSpec) -> bool:
        """Return whether another scenario has the same names, so that no marker can name it."""
        same = 0
        for other in self._by_name[_names(scenario)[-1]]:
            if other.key == scenario.key and other.spec == scenario.spec:
                same += 1
        return same > 1

    def _shortest(self, scenario: ScenarioSpec) -> str:
        """Return the shortest name that only this scenario has, or "" without such a name."""
        for name in _names(scenario):
            if self._of_name(name) == [scenario]:
                return name
        return ""


def _called(reference: Reference) -> str:
    called = f"called {reference.name!r}"
    if reference.spec:
        called += f" in {reference.spec}"
    return called


def _names(scenario: ScenarioSpec) -> list[str]:
    """Return the names of a scenario, from the shortest to the whole name."""
    name = scenario.name
    names = [
        name,
        " :: ".join(filter(None, [scenario.feature, name])),
        " :: ".join(filter(None, [scenario.feature, scenario.rule, name])),
    ]
    if scenario.key.startswith("@"):
        names.insert(0, scenario.key)
    return list(dict.fromkeys(names))


def _is_in(path: str, spec: str) -> bool:
    return path == spec or path.endswith("/" + spec)


def quoted(text: str) -> str:
    """Return a string literal. It has the quotes that need fewer backslashes."""
    quote = '"'
    if text.count('"') > text.count("'"):
        quote = "'"
    escaped = text.replace("\\", r"\\").replace(quote, f"\\{quote}")
    return f"{quote}{printable(escaped)}{quote}"


def printable(text: str) -> str:
    """Return a text in one line, with invisible characters as escapes."""
    letters = [
        letter if letter.isprintable() else repr(letter)[1:-1] for letter in text
    ]
    return "".join(letters)
