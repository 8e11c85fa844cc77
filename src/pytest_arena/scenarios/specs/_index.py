"""Which scenario is meant by a name, and how is it named in a test?"""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from difflib import SequenceMatcher, get_close_matches
from typing import TYPE_CHECKING

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs._specification import canonical, similarity, step_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pytest_arena.scenarios.specs._references import Reference
    from pytest_arena.scenarios.specs._specification import Scenario, Specification

__all__ = ["Index"]

_LIKE = 0.6
"""How like two scenarios are if one has become the other. Others are below 0.5."""
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
        known: what was reviewed, from the lock file: of each key its version and its step lines.
            By these a scenario that was renamed is found again.
    """

    def __init__(
        self,
        specification: Specification,
        known: Mapping[str, tuple[str, tuple[str, ...]]] | None = None,
    ) -> None:
        self._scenarios = specification.scenarios
        self._files = specification.files
        self._unread = [one for one in specification.problems if one.is_error]
        self._known = known or {}
        self._by_key = {one.key: one for one in reversed(self._scenarios)}
        self._by_name: dict[str, list[Scenario]] = defaultdict(list)
        for one in self._scenarios:
            for name in _names(one):
                self._by_name[name].append(one)

    def scenario(self, key: str) -> Scenario | None:
        """Return the scenario of this key, or None."""
        return self._by_key.get(key)

    def find(self, reference: Reference, *, named: Collection[str] = ()) -> Scenario:
        """Return the scenario that a test means.

        Args:
            reference: what the test says.
            named: the keys of those that other tests name. Where it is not known which is meant,
                one of the others is likelier.

        Raises:
            ScenarioError: there is none, or more than one (with all places). What to paste is said
                where it was renamed, or a name is much like it; else those that no test names.
        """
        meant = self._asked_for(reference)
        if len(meant) == 1:
            return meant[0]
        if reference.spec:
            self._check_file(reference)
        raise self._ambiguous(reference, meant) if meant else self._unknown(reference, named)

    def renamed(self, reference: Reference) -> Scenario | None:
        """Return what a name that no scenario has any more has become, or None.

        It has the steps which were reviewed under that name, or nearly so.
        """
        if self._meant(canonical(reference.name)):
            return None
        rev, lines = self._reviewed(reference)
        new = [one for one in self._scenarios if one.key not in self._known]
        same = [one for one in new if rev and one.rev == rev]
        if same:
            return same[0] if len(same) == 1 else None
        likest = sorted(new, key=lambda one: -_shared(step_lines(one), lines))[:_CANDIDATES]
        rated = [(similarity(step_lines(one), lines), one.key, one) for one in likest if lines]
        best = max(rated, default=None, key=lambda each: each[:2])
        return best[2] if best and best[0] > _LIKE else None

    def only(self, reference: Reference) -> Scenario | None:
        """Return the one scenario of this name; None where there is none, or are several."""
        meant = self._asked_for(reference)
        return meant[0] if len(meant) == 1 else None

    def _asked_for(self, reference: Reference) -> list[Scenario]:
        meant = self._meant(canonical(reference.name))
        return [one for one in meant if not reference.spec or _is_in(one.spec, reference.spec)]

    def likely(self, reference: Reference, *, named: Collection[str]) -> Scenario | None:
        """Return what a name that no scenario has must mean: renamed, or misspelt; or None."""
        if self._meant(canonical(reference.name)):
            return None
        near = self._nearest(reference, named)
        return self.renamed(reference) or (near[0] if len(near) == 1 else None)

    def marker(
        self, scenario: Scenario, *, rev: str = "", row: tuple[tuple[str, str], ...] = ()
    ) -> str:
        """Return the decorator to paste, by the shortest name that means this scenario alone."""
        name = self._shortest(scenario)
        told = [_quoted(name or _names(scenario)[-1])]
        if not name:
            told.append(f"spec={_quoted(scenario.spec)}")
        if rev:
            told.append(f"rev={_quoted(rev)}")
        if row:
            pairs = ", ".join(f"{_quoted(column)}: {_quoted(value)}" for column, value in row)
            told.append(f"row={{{pairs}}}")
        return f"@pytest.mark.scenario({', '.join(told)})"

    def _meant(self, name: str) -> list[Scenario]:
        """Those of this name; a whole name goes before one that leaves the rule out."""
        meant = self._by_name.get(name, [])
        whole = [one for one in meant if _names(one)[-1] == name or one.key == name]
        return whole if len(whole) == 1 else meant

    def _check_file(self, reference: Reference) -> None:
        if any(_is_in(path, reference.spec) for path in self._files):
            return
        near = get_close_matches(reference.spec, self._files, n=_SHOWN, cutoff=0.3)
        raise ScenarioError(
            f"no specification is called {reference.spec!r}",
            why="the test proves a scenario that is nowhere written down",
            cause=reference.place or "the marker",
            fix="\n".join(f"spec={_quoted(one)}" for one in near) or "leave spec= out",
        )

    def _ambiguous(self, reference: Reference, meant: Sequence[Scenario]) -> ScenarioError:
        places = [f"{one.place}  {one.key}" for one in meant]
        fixes = [self._pasted(one, reference) for one in meant if not self._is_double(one)]
        if len(fixes) < len(meant):
            fixes = ["rename one of them, or give each a tag of its own, such as @SHOP-1"]
        return ScenarioError(
            f"{len(meant)} scenarios are called {reference.name!r}" + _asked(reference),
            why=f"nobody can say which of them {_who(reference)}",
            cause="\n".join(places),
            fix="\n".join(fixes),
        )

    def _unknown(self, reference: Reference, named: Collection[str]) -> ScenarioError:
        what = f"no scenario is called {reference.name!r}" + _asked(reference)
        near = self._nearest(reference, named)
        if renamed := self.renamed(reference):
            near = [renamed]
            was = "it was renamed to" if self._reviewed(reference)[1] else "its steps are those of"
            what += f"; {was} {renamed.name!r}"
        place = reference.place or "the marker"
        if not near and self._unread:
            # What belongs to no scenario may have taken in any of them.
            wrong = min(self._unread, key=lambda problem: bool(problem.scenario))
            where = f"{wrong.spec}:{wrong.line}" if wrong.line else wrong.spec
            return ScenarioError(
                f"{what}, of those that can be read",
                why="a part of the specification cannot be read, and it may stand there",
                cause=f"{place}\n{where}  {wrong.what}",
                fix=f"{where}: {wrong.hint}" if wrong.hint else f"mend {where}",
            )
        lines = [f"{scenario.place}  {scenario.name}" for scenario in near]
        if named and not near:
            lacking = (scenario for scenario in self._scenarios if scenario.key not in named)
            lines = [f"{one.place}  {one.name}   (none of these tests names it)" for one in lacking]
        fixes = [self._pasted(scenario, reference) for scenario in near]
        why = "the test proves nothing that is written down"
        return ScenarioError(
            what,
            why=f"nobody can say what {_who(reference)}" if reference.form else why,
            cause="\n".join([place, *lines]),
            fix="\n".join(fixes) or "arena scenarios list   shows what they are called",
        )

    def _pasted(self, scenario: Scenario, reference: Reference) -> str:
        """What the user writes in the place of what he has written."""
        if reference.form:
            return reference.form.format(shlex.quote(self._shortest(scenario) or scenario.key))
        return self.marker(scenario, rev=reference.rev, row=reference.row)

    def _reviewed(self, reference: Reference) -> tuple[str, tuple[str, ...]]:
        name = canonical(reference.name)
        keys = [name, *(key for key in self._known if key.rpartition(" :: ")[2] == name)]
        known = next((self._known[key] for key in keys if key in self._known), ("", ()))
        return (known[0] or reference.rev, known[1])

    def _nearest(self, reference: Reference, named: Collection[str]) -> list[Scenario]:
        """Those whose name is much like it; where one is nearly the same, that alone."""
        wanted = canonical(reference.name).casefold()
        matcher = SequenceMatcher(None, b=wanted)  # what it knows of b it keeps
        rated: dict[str, tuple[float, Scenario]] = {}
        for name, scenarios in self._by_name.items():
            like = _likeness(matcher, name.casefold())
            for one in scenarios if like else ():
                enough = _TYPED_LIKE if one.key in named else _NAMED_LIKE
                if like >= max(enough, rated.get(one.key, (0.0,))[0]) and not self._is_double(one):
                    rated[one.key] = like, one
        best = sorted(rated.values(), key=lambda each: (-each[0], each[1].key))[:_SHOWN]
        is_sure = bool(best) and best[0][0] >= _TYPED_LIKE
        return [one for like, one in best if like == best[0][0] or not is_sure]

    def _is_double(self, scenario: Scenario) -> bool:
        """Whether another one stands in the same file by the same names: no marker can mean it."""
        same = self._by_name[_names(scenario)[-1]]
        return sum((one.key, one.spec) == (scenario.key, scenario.spec) for one in same) > 1

    def _shortest(self, scenario: Scenario) -> str:
        """The shortest name that means it alone; "" if none does."""
        return next((one for one in _names(scenario) if self._meant(one) == [scenario]), "")


def _likeness(matcher: SequenceMatcher[str], name: str) -> float:
    """From 0 to 1; most of them are told apart by their lengths and letters, which is cheap."""
    matcher.set_seq1(name)
    bounds = (matcher.real_quick_ratio, matcher.quick_ratio)
    return 0.0 if any(one() < _NAMED_LIKE for one in bounds) else matcher.ratio()


def _names(scenario: Scenario) -> list[str]:
    """What a scenario may be called, the shortest first, the whole name last."""
    longer = [scenario.feature, scenario.name]
    longest = [scenario.feature, scenario.rule, scenario.name]
    names = [scenario.name, *(" :: ".join(filter(None, one)) for one in (longer, longest))]
    ids = [scenario.key] if scenario.key.startswith("@") else []
    return list(dict.fromkeys([*ids, *names]))


def _is_in(path: str, asked: str) -> bool:
    return path == asked or path.endswith("/" + asked)


def _shared(these: Sequence[str], those: Sequence[str]) -> float:
    words, others = set(_words(these)), set(_words(those))
    return len(words & others) / (len(words | others) or 1)


def _words(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield from line.split()


def _who(reference: Reference) -> str:
    return "is asked for" if reference.form else "the test proves"


def _asked(reference: Reference) -> str:
    return f" in {reference.spec}" if reference.spec else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
