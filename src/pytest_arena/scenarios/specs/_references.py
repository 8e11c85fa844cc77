"""Which scenario does a marker name?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs._revisions import canonical

__all__ = ["Reference", "reference"]

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
    if len(args) != 1 or not isinstance(args[0], str):
        raise _wrong_name(args, place)
    name = canonical(args[0])
    if not name:
        raise _wrong("the marker `scenario` names nothing", place)
    for option in kwargs:
        if option not in _OPTIONS:
            near = get_close_matches(option, _OPTIONS, n=1, cutoff=0.3) or _OPTIONS
            raise _wrong(f"the marker `scenario` has no option {option}=", place, f"{near[0]}=…")
    return Reference(
        name=name,
        spec=_text("spec", kwargs.get("spec", ""), place).replace("\\", "/").removeprefix("./"),
        rev=_rev(_text("rev", kwargs.get("rev", ""), place), place),
        row=_row(kwargs.get("row"), place),
        place=place,
    )


def _wrong_name(args: Sequence[object], place: str) -> ScenarioError:
    several = list(args[0]) if len(args) == 1 and isinstance(args[0], Sequence) else list(args)
    names = [one for one in several if isinstance(one, str)]
    if len(names) > 1:
        fix = "\n".join(f'@pytest.mark.scenario("{name}")' for name in names)
        return _wrong(f"a marker `scenario` names one scenario, not {len(names)}", place, fix)
    if not args:
        return _wrong("the marker `scenario` has to name one", place)
    return _wrong(f"the marker `scenario` takes a name, not {args[0]!r}", place)


def _text(option: str, value: object, place: str) -> str:
    if value is None or isinstance(value, str):
        return (value or "").strip()
    raise _wrong(f"{option}= of the marker `scenario` is a text, not {value!r}", place)


def _rev(rev: str, place: str) -> str:
    if rev and not _REV.match(rev):
        raise _wrong(
            f"rev={rev!r} of the marker `scenario` is no version of a scenario",
            place,
            'rev="1:3265ea09", as `arena scenarios list` shows it',
        )
    return rev


def _row(row: object, place: str) -> tuple[tuple[str, str], ...]:
    if row is None:
        return ()
    if isinstance(row, Mapping) and row:
        return tuple(sorted((canonical(str(key)), str(value)) for key, value in row.items()))
    raise _wrong(
        f"row= of the marker `scenario` names columns and their values, not {row!r}",
        place,
        'row={"column": "value"}',
    )


def _wrong(what: str, place: str, fix: str = _RIGHT) -> ScenarioError:
    return ScenarioError(
        what,
        why="nobody can say which scenario the test proves",
        cause=place or "the marker",
        fix=fix,
    )
