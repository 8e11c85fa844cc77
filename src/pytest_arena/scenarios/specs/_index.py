"""Which scenario, or row of one, is meant by a name, and how is it named in a test?"""

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
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
)

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
    row: Pairs = ()
    """Pairs of column and value, sorted."""
    place: str = ""
    """Where the test begins: ``tests/test_x.py:12``."""
    form: str = ""
    """How another name is written in that place, where it is no marker: ``--scenario={}``."""


def reference(
    args: Sequence[object], kwargs: Mapping[str, object], *, place: str
) -> Reference:
    """Return what a marker's arguments mean.

    Raises:
        ScenarioError: they mean nothing; it says which one is wrong, and shows a right one.
    """
    name = _name(args, place)
    for option, value in kwargs.items():
        if option not in _OPTIONS:
            near = get_close_matches(option, _OPTIONS, n=1, cutoff=0.3) or _OPTIONS
            raise _wrong(
                f"the marker `scenario` has no option {option}=", place, f"{near[0]}=…"
            )
        if option != "row" and not (value is None or isinstance(value, str)):
            raise _wrong(
                f"{option}= of the marker `scenario` is a text, not {value!r}", place
            )
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
        row=tuple(
            sorted(
                (canonical(str(key)), str(value)) for key, value in (row or {}).items()
            )
        ),
        place=place,
    )


def _name(args: Sequence[object], place: str) -> str:
    if len(args) == 1 and isinstance(args[0], str) and (name := canonical(args[0])):
        return name
    several = (
        list(args[0])
        if len(args) == 1 and isinstance(args[0], Sequence)
        else list(args)
    )
    names = [name for name in several if isinstance(name, str)]
    if len(names) > 1:
        fix = "\n".join(f'@pytest.mark.scenario("{name}")' for name in names)
        raise _wrong(
            f"a marker `scenario` names one scenario, not {len(names)}", place, fix
        )
    given = ", ".join(map(repr, args)) or "nothing"
    raise _wrong(f"the marker `scenario` takes the name of one, not {given}", place)


def _wrong(what: str, place: str, fix: str = _RIGHT) -> ScenarioError:
    return ScenarioError(
        what,
        why="nobody can say which scenario the test proves",
        cause=place or "the marker",
        fix=fix,
    )


_WORDS: dict[object, tuple[str, ...]] = {
    True: ("true", "yes", "on"),
    False: ("false", "no", "off"),
    None: ("", "none", "null"),
}


def row_proven(
    scenario: ScenarioSpec, reference: Reference, params: Mapping[str, object]
) -> Pairs:
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
    cells = [
        " | ".join(f"{column}={value}" for column, value in row.values) for row in shown
    ]
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
    return {
        named[key]: v
        for name, v in params.items()
        if (key := identifier(name)) in named
    }


def _agreeing(row: Row, wanted: Mapping[str, object]) -> int:
    """How many of the values are the row's."""
    values = dict(row.values)
    return sum(
        column in values and _is_same(value, values[column])
        for column, value in wanted.items()
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


# Which scenario is it?

_CANDIDATES = 20
_SHOWN = 3
_NAMED_LIKE = 0.75
"""How like two names are if one may be meant by the other: what is proposed gets pasted."""
_TYPED_LIKE = 0.9
"""How like they are where the other has a test already: a slip of the pen, no other story."""


class Index:
    """Finds scenarios by what tests call them.

    Args:
        specification: all that was read.
        former: says what was accepted under another name: that key, and the present one. It is
            asked where nobody has a name.
    """

    def __init__(
        self,
        specification: Specification,
        former: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._scenarios = specification.scenarios
        self._files = specification.files
        self._unread = [
            problem for problem in specification.problems if problem.is_error
        ]
        self._former = former
        self._by_name: dict[str, list[ScenarioSpec]] = {}
        for scenario in self._scenarios:
            for name in _names(scenario):
                self._by_name.setdefault(name, []).append(scenario)

    def only(self, reference: Reference) -> ScenarioSpec | None:
        """Return the one scenario of this name; None where there is none, or are several."""
        meant = self._of(reference)
        return meant[0] if len(meant) == 1 else None

    def find(
        self, reference: Reference, *, named: Callable[[], Collection[str]] = tuple
    ) -> ScenarioSpec:
        """Return the scenario that a test means.

        Args:
            reference: what the test says.
            named: says the keys of those that other tests name. It is asked where it is not known
                which is meant: one of the others is likelier.

        Raises:
            ScenarioError: there is none, or more than one (with all places). What to paste is said
                where it was renamed, or a name is much like it; else those that no test names.
        """
        meant = self._of(reference)
        if len(meant) == 1:
            return meant[0]
        place = reference.place or "the marker"
        if reference.spec and not any(
            _is_in(path, reference.spec) for path in self._files
        ):
            near = get_close_matches(reference.spec, self._files, n=_SHOWN, cutoff=0.3)
            raise ScenarioError(
                f"no specification is called {reference.spec!r}",
                why="the test proves a scenario that is nowhere written down",
                cause=place,
                fix="\n".join(f"spec={quoted(path)}" for path in near)
                or "leave spec= out",
            )
        asked = f"called {reference.name!r}" + f" in {reference.spec}" * bool(
            reference.spec
        )
        who = "is asked for" if reference.form else "the test proves"
        if not meant:
            raise self._unknown(
                f"no scenario is {asked}", f"what {who}", reference, named()
            )
        fixes = [
            self._pasted(match, reference)
            for match in meant
            if not self._is_double(match)
        ]
        if len(fixes) < len(meant):
            fixes = [
                "rename one of them, or give each a tag of its own, such as @SHOP-1"
            ]
        raise ScenarioError(
            f"{len(meant)} scenarios are {asked}",
            why=f"nobody can say which of them {who}",
            cause="\n".join(f"{scenario.place}  {scenario.key}" for scenario in meant),
            fix="\n".join(fixes),
        )

    def marker(self, scenario: ScenarioSpec, *, rev: str = "", row: Pairs = ()) -> str:
        """Return the decorator to paste, by the shortest name that means this scenario alone."""
        name = self._shortest(scenario)
        arguments = [quoted(name or _names(scenario)[-1])]
        arguments += [f"spec={quoted(scenario.spec)}"] * (not name)
        arguments += [f"rev={quoted(rev)}"] * bool(rev)
        pairs = ", ".join(f"{quoted(column)}: {quoted(value)}" for column, value in row)
        arguments += [f"row={{{pairs}}}"] * bool(row)
        return f"@pytest.mark.scenario({', '.join(arguments)})"

    def _of(self, reference: Reference) -> list[ScenarioSpec]:
        meant = self._meant(canonical(reference.name))
        return [
            match
            for match in meant
            if not reference.spec or _is_in(match.spec, reference.spec)
        ]

    def _meant(self, name: str) -> list[ScenarioSpec]:
        """Those of this name; a whole name goes before one that leaves the rule out."""
        meant = self._by_name.get(name, [])
        whole = [match for match in meant if name in {_names(match)[-1], match.key}]
        return whole if len(whole) == 1 else meant

    def _unknown(
        self, what: str, lack: str, reference: Reference, named: Collection[str]
    ) -> ScenarioError:
        near, place = self._nearest(reference, named), reference.place or "the marker"
        name, keys = canonical(reference.name), self._former()
        found = {keys[key] for key in keys if name in {key, key.rpartition(" :: ")[2]}}
        renamed = [scenario for scenario in self._scenarios if scenario.key in found]
        alike = [
            scenario for scenario in self._scenarios if scenario.rev == reference.rev
        ]
        if len(same := renamed or alike) == 1:
            near = same
            was = "it was renamed to" if renamed else "its steps are those of"
            what += f"; {was} {same[0].name!r}"
        if not near and self._unread:
            # What belongs to no scenario may have taken in any of them.
            wrong = min(self._unread, key=lambda problem: bool(problem.scenario))
            return ScenarioError(
                f"{what}, of those that can be read",
                why="a part of the specification cannot be read, and it may stand there",
                cause=f"{place}\n{wrong.place}  {wrong.what}",
                fix=f"{wrong.place}: {wrong.hint}"
                if wrong.hint
                else f"mend {wrong.place}",
            )
        lines = [f"{scenario.place}  {scenario.name}" for scenario in near]
        if named and not near:
            lacking = (
                scenario for scenario in self._scenarios if scenario.key not in named
            )
            lines = [
                f"{match.place}  {match.name}   (none of these tests names it)"
                for match in lacking
            ]
        fixes = [self._pasted(scenario, reference) for scenario in near]
        nowhere = "the test proves nothing that is written down"
        return ScenarioError(
            what,
            why=f"nobody can say {lack}" if reference.form else nowhere,
            cause="\n".join([place, *lines]),
            fix="\n".join(fixes) or "arena scenarios list   shows what they are called",
        )

    def _pasted(self, scenario: ScenarioSpec, reference: Reference) -> str:
        """What the user writes in the place of what he has written."""
        if reference.form:
            return reference.form.format(
                shlex.quote(self._shortest(scenario) or scenario.key)
            )
        return self.marker(scenario, rev=reference.rev, row=reference.row)

    def _nearest(
        self, reference: Reference, named: Collection[str]
    ) -> list[ScenarioSpec]:
        """Those whose name is much like it; where one is nearly the same, that alone."""
        wanted = canonical(reference.name).casefold()
        folded: dict[str, list[ScenarioSpec]] = {}
        for name, scenarios in self._by_name.items():
            folded.setdefault(name.casefold(), []).extend(scenarios)
        rated: dict[str, tuple[float, ScenarioSpec]] = {}
        for name in get_close_matches(
            wanted, folded, n=_CANDIDATES, cutoff=_NAMED_LIKE
        ):
            like = SequenceMatcher(None, name, wanted).ratio()
            for scenario in folded[name]:
                is_enough = like >= _TYPED_LIKE or scenario.key not in named
                if is_enough and not self._is_double(scenario):
                    rated.setdefault(scenario.key, (like, scenario))
        best = sorted(rated.values(), key=lambda each: (-each[0], each[1].key))[:_SHOWN]
        is_sure = bool(best) and best[0][0] >= _TYPED_LIKE
        return [
            scenario for like, scenario in best if like == best[0][0] or not is_sure
        ]

    def _is_double(self, scenario: ScenarioSpec) -> bool:
        """Whether another one stands in the same file by the same names: no marker can mean it."""
        same = self._by_name[_names(scenario)[-1]]
        return (
            sum(
                (other.key, other.spec) == (scenario.key, scenario.spec)
                for other in same
            )
            > 1
        )

    def _shortest(self, scenario: ScenarioSpec) -> str:
        """The shortest name that means it alone; "" if none does."""
        return next(
            (name for name in _names(scenario) if self._meant(name) == [scenario]), ""
        )


def _names(scenario: ScenarioSpec) -> list[str]:
    """What a scenario may be called, the shortest first, the whole name last."""
    feature, rule, name = scenario.feature, scenario.rule, scenario.name
    longer = (
        " :: ".join(filter(None, names))
        for names in ((feature, name), (feature, rule, name))
    )
    ids = [scenario.key] if scenario.key.startswith("@") else []
    return list(dict.fromkeys([*ids, name, *longer]))


def _is_in(path: str, asked: str) -> bool:
    return path == asked or path.endswith("/" + asked)


def quoted(text: str) -> str:
    """Return a string literal: in double quotes, unless these would need more backslashes."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    escaped = text.replace("\\", r"\\").replace(quote, f"\\{quote}")
    return f"{quote}{printable(escaped)}{quote}"


def printable(text: str) -> str:
    """Return a text with what cannot be seen written as an escape; it is one line then."""
    return "".join(
        letter if letter.isprintable() else repr(letter)[1:-1] for letter in text
    )
